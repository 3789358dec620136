"""Training whose weights are divided over the processes (FSDP2): what is different about it in this project."""

import sys

import torch
from peft import PeftModel
from transformers import Trainer


def prepare_sharded(trainer: Trainer) -> None:
    """Make a model ready to be divided over the processes, where that was asked for (`accelerate launch` with FSDP).

    In every pass the processes exchange the weights, so each must make as many passes as the others: the windows of its notes go
    through the backbone together, however many there are.

    Raises:
        ValueError: where only a part of the model learns, whose weights need not be divided.
    """
    if not trainer.is_fsdp_enabled:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel) or model.config.freeze_backbone:
        raise ValueError(
            "FSDP divides the weights of a model that is trained whole; with `lora_r` or `freeze_backbone` little learns: start the "
            "processes with `torchrun` instead, each of which holds the whole backbone."
        )
    model.tokens_per_pass = sys.maxsize


def whole_weights(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """The weights of a divided model by their names, put together in the first process; `None` where it is not divided.

    Every process must call this.
    """
    return trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
