"""What a run will take, by arithmetic: nothing is measured, and no weight is made.

Operations are counted on shapes alone (`describe` of a model): one forward pass of a note of so many tokens. Training takes three
times as many where all learns, the forward pass once where a frozen backbone's states are kept; an epoch is one pass over
the training notes. Time is operations divided by what the machine does.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, LlamaConfig

from benchmarks.llama2_arithmetic import LLAMA2_7B, lora_weights
from benchmarks.runs import settings_of
from modeling_icd.describe_icd import describe_model
from modeling_icd.modeling_icd import MODELS
from modeling_icd.training.arguments import WORDS, ModelArguments
from modeling_icd.training.models import configuration_fields
from modeling_icd.training.word_reader import WordReaderOptions


# Operations a second that training reaches: one core of a server, and 40 % of what the maker states in bfloat16.
MACHINES = {"one core": 5e10, "one A100": 0.4 * 312e12}
WORDS_COUNTED = 200
NUM_WORDS = 50_000  # of MIMIC-III that 3 notes have, roughly
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Estimate(NamedTuple):
    """What one run takes.

    Args:
        weights (`int`): of the whole model.
        learned (`int`): of what learns.
        gigabytes (`float`): weights, gradients and AdamW's moments; activations come on top.
        once (`float`): operations before the first epoch.
        epoch (`float`): operations of an epoch.
    """

    weights: int
    learned: int
    gigabytes: float
    once: float
    epoch: float

    def hours(self, machine: str, num_epochs: float) -> float:
        return (self.once + num_epochs * self.epoch) / MACHINES[machine] / 3600


def backbone_config(settings: dict[str, Any]):
    """The backbone's configuration, where it is known without the Hub: of words, of Llama-2-7B, or of a folder."""
    backbone = str(settings["backbone"])
    if backbone == WORDS:
        options = ModelArguments(**_model_fields(settings)).parsed_reader_options()
        return (options or WordReaderOptions()).config(NUM_WORDS)
    if Path(backbone).is_dir():
        return AutoConfig.from_pretrained(backbone)
    return LlamaConfig(**LLAMA2_7B, pad_token_id=0)


def _model_fields(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in ModelArguments.__dataclass_fields__}


def estimate(config: str, options: dict[str, Any], num_codes: int, num_notes: int, num_tokens: int) -> Estimate:
    """What a run of `configs/CONFIG.yaml` takes with so many codes, training notes, and tokens of a note."""
    settings = settings_of(config, options)
    args = ModelArguments(**_model_fields(settings))
    reader = backbone_config(settings)
    model_class = MODELS[args.model]
    fields = configuration_fields(args, reader)
    given = {name: value for name, value in fields.items() if name != "freeze_backbone"}
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_backbone(reader, num_labels=num_codes, **given))
    # Of words, operations grow with a note's length alone, and a recurrent network is counted word by word.
    found, length = describe_model(model, min(num_tokens, WORDS_COUNTED) if args.backbone == WORDS else num_tokens)
    flops: float = found["all"]["flops_per_note"] * num_tokens / length
    weights = found["all"]["parameters"]
    head = sum(weight.numel() for weight in model.score.parameters())
    of_head: float = sum(
        figures["flops_per_note"] for part, figures in found.items() if part not in ("all", "embeddings", "backbone")
    )
    of_head = of_head * num_tokens / length
    size = 0.52 if args.load_in_4bit else BYTES.get(args.dtype or "float32", 4)
    memory: float
    once: float
    epoch: float
    if args.freeze_backbone:
        memory, once, epoch = size * (weights - head) + 16 * head, num_notes * flops, 3 * num_notes * of_head
        learned = head
    elif args.lora_r:
        learned = head + reader.num_hidden_layers * lora_weights(reader, args.lora_r)
        memory, once, epoch = size * (weights - head) + 16 * learned, 0.0, 3 * num_notes * flops
    else:
        learned, memory, once, epoch = weights, 16.0 * weights, 0.0, 3 * num_notes * flops
    return Estimate(weights, learned, memory / 1e9, once, epoch)
