"""Chooses the parts of a model that LoRA's adapters are put on."""

import re
from typing import Any

from torch import nn


_LAYER = re.compile(r"\.(?:layers?|h)\.(\d+)\.")


def lora_targets(model: Any, first_layer: int, option: str) -> list[str]:
    """Names of the linear projections in the layers of a backbone, as peft's `target_modules`; layers of a head are not among them.

    Args:
        model: one of this project, or a language model.
        first_layer (`int`): layers below it get no adapter.
        option (`str`): the name of the option that gave it, for the message.

    Raises:
        ValueError: where no layer is left to train.
    """
    config: Any = model.config
    depth = getattr(config, "hidden_layer", None)  # of a model that reads the states of a middle layer
    if depth is None:
        depth = config.num_hidden_layers
    if first_layer >= depth:
        raise ValueError(f"{option} ({first_layer}) leaves none of the {depth} layers to train.")
    found = []
    for name, part in model.named_modules():
        place = _LAYER.search(name)
        is_projection = isinstance(part, nn.Linear) and not name.startswith("score.")
        if is_projection and place is not None and first_layer <= int(place[1]) < depth:
            found.append(name)
    return found
