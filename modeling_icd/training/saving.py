"""Writes the results of a training run: the model folder with its tokenizer, the LoRA adapter, and `run.json`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel

from dataset_scripts.files import whole_folder, write_text

from ..inference.loading import describe_reader
from ..inference.model_folder import ADAPTER_DIR, ADAPTER_WEIGHTS, RUN_FILE, weights_digest
from ..modeling_icd import LlamaICDPreTrainedModel
from ..sharing_icd import names_a_folder, seal_training_data
from .checkpoints import clear_write_errors


def save_run(model, tokenizer, run: dict, output_dir: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a trained model (LoRA merged into its weights), its tokenizer and `run.json`.

    Args:
        weights (`dict[str, torch.Tensor]`, *optional*): in place of the model's own; see [`whole_weights`].

    Raises:
        OSError: where they cannot be written, e.g. on a full disk; the checkpoints are left as they are.
    """
    with clear_write_errors(output_dir):
        if isinstance(model, PeftModel):
            if run["model"]["save_adapter"]:
                save_adapter(model, output_dir / ADAPTER_DIR)
                model.config.training_data["adapter"] = weights_digest(output_dir / ADAPTER_DIR, ADAPTER_WEIGHTS)
            model = model.merge_and_unload()
        options = {"head_only": saves_head_alone(model, run["model"]["head_only"])}
        save(model, tokenizer, output_dir, **(options if weights is None else {"state_dict": weights}))
        run = {**run, "reader": describe_reader(model)}
        write_text(json.dumps(run, indent=2, default=str), output_dir / RUN_FILE)


def saves_head_alone(model: LlamaICDPreTrainedModel, is_asked_for: bool | None) -> bool:
    """Whether the backbone is left out of the model's folder; by default where others find it by its name, too."""
    if is_asked_for is not None or not model.saves_head_only or model.backbone_loaded is None:
        return bool(is_asked_for)
    return not names_a_folder(model.backbone_loaded["name"])


def save(model: LlamaICDPreTrainedModel, tokenizer, output_dir: Path, **options) -> None:
    """The folder that `from_pretrained`, `pipeline` and the Hub read; an earlier model stays until this one is complete.

    `options` are those of the model's `save_pretrained`.
    """
    model.config.use_cache = False
    with whole_folder(output_dir / "complete") as partial:
        model.save_pretrained(partial, **options)
        tokenizer.save_pretrained(partial)
        # Binds what the configuration says of the training data to these weights and no others.
        record = {**(model.config.training_data or {}), "weights": weights_digest(partial)}
        model.config.training_data = seal_training_data(record)
        model.config.save_pretrained(partial)
    for path in output_dir.glob("model*.safetensors*"):
        path.unlink()  # of an earlier run: cut into other files than these, it would stay among them
    for path in (output_dir / "complete").iterdir():
        if path.is_dir() and (output_dir / path.name).is_dir():
            shutil.rmtree(output_dir / path.name)
        path.replace(output_dir / path.name)
    (output_dir / "complete").rmdir()


def save_adapter(model: PeftModel, folder: Path) -> None:
    """LoRA's matrices and the head, which load over the pretrained backbone."""
    with whole_folder(folder) as partial:
        model.save_pretrained(partial, save_embedding_layers=False)
