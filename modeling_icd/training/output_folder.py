"""Looks at what earlier runs left in an output folder, so that nothing of theirs is replaced unseen."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.constants import CONFIG_NAME
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dataset_scripts.files import read_json

from ..inference.model_folder import RUN_FILE, read_run
from .checkpoints import checkpoint_in, last_complete_checkpoint


# Beginnings of the names of options that say where things lie, what is shown of a run and how fast it is, and not what model
# comes of it. Which notes are in the files is seen from the record of training data.
APART = (
    *("data_dir", "train_file", "validation_file", "test_file", "data_cache_dir", "hidden_states_dir"),
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "push_to_hub", "hub_", "save_total_limit"),
    *("report_to", "run_name", "project", "trackio", "logging_", "log_", "disable_tqdm", "tfidf_yardstick"),
    *("dataloader_", "ddp_", "local_rank", "use_cpu", "per_device_eval", "eval_accumulation", "score_storage"),
)
REMEDY = "Give another `--output_dir`, or `--overwrite_output_dir` to replace it once this run is complete."


def has_model(output_dir: Path) -> bool:
    """Whether a folder holds a finished model, of this project or not."""
    return (output_dir / CONFIG_NAME).is_file() and any(output_dir.glob("*.safetensors"))


def is_kept(args: TrainingArguments) -> bool:
    """Whether the output folder holds a finished model that this run has not been told to replace or to go on with."""
    return has_model(Path(args.output_dir)) and not args.overwrite_output_dir and checkpoint_in(args) is None


def check_output_dir(run: Mapping[str, Any], args: TrainingArguments) -> None:
    """See, before any data are read, that a run replaces neither the model of another configuration nor an interrupted run.

    Args:
        run (`Mapping[str, Any]`): as `run.json` holds it, but for its log.

    Raises:
        ValueError: where it would; the message names the folder, what differs, and what to do.
    """
    output_dir = Path(args.output_dir)
    if is_kept(args):
        if not (output_dir / RUN_FILE).is_file():
            raise ValueError(f"{output_dir} holds a model and no {RUN_FILE} that says how it was trained. {REMEDY}")
        differing = differing_options(read_run(output_dir), run)
        if differing:
            raise ValueError(
                f"{output_dir} holds a finished model of another configuration: it differs from this run in "
                f"{', '.join(f'`{name}`' for name in differing[:5])}{' and others' if differing[5:] else ''}. {REMEDY}"
            )
    elif not has_model(output_dir) and not args.overwrite_output_dir and checkpoint_in(args) is None:
        checkpoint = last_complete_checkpoint(output_dir)
        if checkpoint is not None:
            raise ValueError(
                f"{output_dir} holds a run that was interrupted. Give `--resume_from_checkpoint last` to go on from {checkpoint}, "
                "`--overwrite_output_dir` to start again without it, or another `--output_dir`."
            )


def check_same_notes(training_data: Mapping[str, Any], args: TrainingArguments) -> None:
    """See, before training, that a run does not replace the model of other data, and say so where it replaces its own.

    Args:
        training_data (`Mapping[str, Any]`): what `describe_training_data` gives.

    Raises:
        ValueError: where it would.
    """
    if not is_kept(args):
        return
    output_dir = Path(args.output_dir)
    recorded = read_json(output_dir / CONFIG_NAME, REMEDY).get("training_data") or {}
    if any(recorded.get(name) != value for name, value in as_saved(training_data).items()):
        raise ValueError(
            f"{output_dir} holds a finished model of other data: its notes, or their codes, are not those of this run. {REMEDY}"
        )
    print(
        f"{output_dir} holds a finished model of the same configuration and data: it is trained again, and replaced when the "
        "new one is complete."
    )


def differing_options(earlier: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Names of the options by which two runs differ, but for those that begin as one of `APART`; an option that one of them
    does not know, since it is of another version, does not count."""
    now = as_saved({part: run[part] for part in ("model", "data", "training")})
    return [
        name
        for part, options in now.items()
        for name, value in options.items()
        if name in (there := earlier.get(part, {})) and there[name] != value and not name.startswith(APART)
    ]


def as_saved(content: Mapping[str, Any]) -> dict[str, Any]:
    """What comes back of something that is written as JSON."""
    return json.loads(json.dumps(content, default=str))


def remove_checkpoints(output_dir: Path) -> None:
    """Remove the checkpoints of earlier runs: among those of a new one, they would be taken for its later ones."""
    for checkpoint in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)
