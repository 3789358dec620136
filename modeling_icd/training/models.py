"""Builds the model of a training run: a pretrained backbone with a newly initialised head, with or without LoRA."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedTokenizerBase

from ..base_configuration_icd import ICDBaseConfig
from ..heads import find_head, members_of
from ..inference.adapters import lora_targets
from ..inference.loading import first_line, load_config
from ..inference.model_folder import check_weights
from ..modeling_icd import MODELS, ModelForICDCoding
from .arguments import ModelArguments


# What the arguments say of the model itself: every field that one of the configurations has.
MODEL_FIELDS = [
    field.name
    for field in fields(ModelArguments)
    if any(hasattr(model.config_class, field.name) for model in MODELS.values())
]


def configuration_fields(args: ModelArguments, backbone_config) -> dict[str, Any]:
    """What the arguments say of the model's configuration, as its fields.

    Raises:
        ValueError: where the configuration has no such field.
    """
    config_class = MODELS[args.model].config_class
    given = {name: value for name in MODEL_FIELDS if (value := getattr(args, name)) is not None}
    row = find_head(args.head or (given.get("pooling", "last") if args.model == "direct" else config_class.head))
    if "score_bias" in row.options and not isinstance(backbone_config, ICDBaseConfig):
        given.setdefault("score_bias", True)  # which can start at the log odds of the codes
    if args.takes_head:  # whose configuration has a head's own settings in one field
        options = {name: given.pop(name) for name in row.options if name in given} | args.parsed_head_options()
        if options.get("description_weight"):
            options.setdefault("description_words", backbone_config.vocab_size)
        given["head_options"] = options
    if "label_graph" in given:
        given["label_graph"] = args.parsed_label_graph()
    if "loss_options" in given:
        given["loss_options"] = args.parsed_loss_options()
    unknown = ", ".join(f"`{name}`" for name in given if not hasattr(config_class, name))
    if unknown:
        head = f" with the head {args.head!r}" if args.head else ""
        raise ValueError(f"`model` {args.model!r}{head} has no option {unknown}: leave it out, or take another model.")
    return given


def build_model(args: ModelArguments, backbone: str, codes: list[str], descriptions: Mapping[str, str], training_data):
    """A model on a pretrained backbone, with a newly initialised head unless that has one.

    The head learns in float32, whatever the backbone's type.
    """
    model_class = MODELS[args.model]
    config_class = model_class.config_class
    backbone_config = load_config(backbone)
    given = configuration_fields(args, backbone_config)
    training_data = with_earlier(training_data, backbone_config, backbone)
    config = config_class.from_backbone(
        backbone_config,
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        code_descriptions={code: descriptions[code] for code in codes if code in descriptions},
        training_data=training_data,
        **given,
    )
    try:
        with without_load_report():
            model = model_class.from_pretrained(backbone, config=config, **{"dtype": "float32", **args.options()})
    except ImportError as error:  # a package that the attention or the quantisation needs
        raise ValueError(f"{backbone} cannot be loaded: {first_line(error)}") from None
    except RuntimeError:  # what the library makes of weights in other shapes
        raise ValueError(
            f"The head in {backbone} has other shapes than one for {len(codes)} codes and these options. To train its backbone "
            "further under a new head, load it, save `model.model` and the tokenizer to a folder, and give that."
        ) from None
    model.score.float()
    if model.layer_mix is not None:
        model.layer_mix.float()
    # What a quantised backbone holds may change its form at the first use, so it is left out only where that is asked for.
    if args.head_only or (args.freeze_backbone and not args.is_quantised):
        leave_out_backbone(model, backbone, must=bool(args.head_only))
    return model


def give_titles(model: ModelForICDCoding, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a head that learns from the titles of its codes (DR-CAML) their words; a new one also the word vectors that the
    reader begins with.

    Raises:
        ValueError: where no code has a title, or the head reads no word vectors.
    """
    heads: list[Any] = members_of(model.score)
    for head in heads:
        if not getattr(head, "description_weight", 0):
            continue
        codes, titles = (
            [model.config.id2label[i] for i in range(model.num_labels)],
            model.config.code_descriptions or {},
        )
        if not titles:
            raise ValueError(
                "`description_weight` draws codes towards their titles, and this data set has none: leave it out."
            )
        given = tokenizer([titles.get(code, "") for code in codes], padding=True, return_tensors="pt")
        head.titles = given["input_ids"] * given["attention_mask"]
        vectors = model.get_input_embeddings().weight  # type: ignore[union-attr]
        if head.title_words.weight.shape != vectors.shape:
            raise ValueError(
                "`description_weight` compares titles with the words of a note: take a reader of words without a recurrent network."
            )
        if model.head_is_new:
            head.title_words.weight.data.copy_(vectors.detach())


def leave_out_backbone(model: ModelForICDCoding, backbone: str, must: bool) -> None:
    """Let checkpoints hold the head alone: the frozen backbone is in every one the same.

    Args:
        backbone (`str`): folder or Hub id that the model was made from.
        must (`bool`): whether it is an error if that cannot be, e.g. since the files are not safetensors.
    """
    try:
        model.save_head_only(None if model.backbone_loaded else backbone)
    except ValueError as error:
        if must:
            raise
        print(f"The backbone is saved with each checkpoint: {error}", file=sys.stderr)


@contextmanager
def without_load_report() -> Iterator[None]:
    """Keep off the console the table of missing weights that transformers prints of each backbone that gets a new head.

    Weights of the backbone that are missing are an error of the model class.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def add_lora(model: ModelForICDCoding, args: ModelArguments):
    """A model with LoRA on its backbone, if that is asked for; the head is trained and saved whole."""
    if not args.lora_r:
        return model
    if args.is_quantised:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules=lora_targets(model, args.lora_layers_from, "`lora_layers_from`"),
            modules_to_save=["score"] if model.layer_mix is None else ["score", "layer_mix"],
        ),
    )


def with_earlier(training_data, backbone_config, backbone: str):
    """The record of training data; over a backbone of this project, the notes that it has seen stay on record, since publishing
    asks for them."""
    if not hasattr(backbone_config, "training_data"):  # which is there, too, where a stock class has saved it
        return training_data
    return {**(training_data or {}), "earlier": known_training_data(backbone_config, backbone)}


def known_training_data(backbone_config, backbone: str) -> dict | None:
    """The record of what a model of this project was trained on; `None` if its weights have changed since."""
    training_data = backbone_config.training_data
    folder = backbone if Path(backbone).is_dir() else snapshot_download(backbone, allow_patterns="*.safetensors")
    try:
        check_weights(training_data, folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"warning: {error} The new model counts as one of restricted data.", file=sys.stderr)
        return None
    return training_data
