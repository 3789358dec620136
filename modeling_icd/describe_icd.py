"""What a model is made of: parameters and operations of each of its parts, counted on shapes alone."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


PARTS = (
    "embeddings",
    "backbone",
    "adapters",
    "reduction",
    "filters",
    "residual blocks",
    "projection",
    "queries",
    "output",
    "head",
)
"""In the order in which a note passes them; `head` is what a head has beside the others."""
# What peft puts between the names of a model's layers.
_OF_ADAPTERS = ("base_layer", "original_module", "modules_to_save", "default")


def describe_model(model: nn.Module, num_tokens: int) -> tuple[dict[str, dict[str, int]], int]:
    """Parameters and operations of a model's parts, and in all, and the tokens of the note; see `ModelForICDCoding.describe`.

    Shapes are those of a copy without weights, so that they are right where the model's own are quantised, and nothing is
    computed. Adapters are not in it: their parameters count, but not their operations.
    """
    config: Any = deepcopy(model.config)
    config._attn_implementation = "eager"  # others need a device that they are made for
    with torch.device("meta"), torch.no_grad():
        copy: nn.Module = type(model)(config).eval()
        limit = None if config.window_size else config.max_position_embeddings
        num_tokens = num_tokens if limit is None else min(num_tokens, limit)
        note = torch.ones(1, num_tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            copy(note, torch.ones_like(note))
    found = {part: {"parameters": 0, "trainable": 0, "flops_per_note": 0} for part in PARTS}
    shapes = dict(copy.named_parameters())
    trainable: dict[str, bool] = {}
    for name, weight in model.named_parameters():
        plain = ".".join(word for word in name.split(".") if word not in _OF_ADAPTERS)
        if plain in shapes:
            trainable[plain] = trainable.get(plain, False) or weight.requires_grad
        else:
            found["adapters"]["parameters"] += weight.numel()
            found["adapters"]["trainable"] += weight.numel() * weight.requires_grad
    modules = dict(copy.named_modules())
    for name, weight in shapes.items():
        part = found[part_of(name.rpartition(".")[0], modules)]
        part["parameters"] += weight.numel()
        part["trainable"] += weight.numel() * trainable.get(name, False)
    for name, count in own_counts(counter.get_flop_counts()).items():
        found[part_of(name, modules)]["flops_per_note"] += count
    found = {part: figures for part, figures in found.items() if any(figures.values())}
    names = ("parameters", "trainable", "flops_per_note")
    found["all"] = {name: sum(figures[name] for figures in found.values()) for name in names}
    for figures in found.values():
        figures["flops_per_token"] = round(figures["flops_per_note"] / num_tokens)
    return found, num_tokens


def own_counts(counts: dict[str, dict]) -> dict[str, int]:
    """The operations of each module less those of the modules in it, by its name in the model."""
    totals = {name: sum(by_kind.values()) for name, by_kind in counts.items() if name != "Global"}
    own = dict(totals)
    for name, total in totals.items():
        parent = name.rpartition(".")[0]
        while parent and parent not in totals:
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent] -= total
    return {name.partition(".")[2]: count for name, count in own.items()}


def part_of(name: str, modules: dict[str, nn.Module]) -> str:
    """The part that a module is in, by its name in the model."""
    first, *rest = name.split(".")
    if first != "score":
        return "embeddings" if isinstance(modules.get(name), nn.Embedding) else "backbone"
    if rest[:1] == ["members"]:
        rest = rest[2:]
    if not rest:
        return "output" if isinstance(modules["score"], nn.Linear) else "head"
    if rest[0] == "channels":
        return "residual blocks" if "blocks" in rest else "filters"
    return {"context": "projection"}.get(rest[0], rest[0] if rest[0] in PARTS else "head")


def table_of(found: dict[str, dict[str, int]], num_tokens: int) -> str:
    """The figures of `describe_model`, one line for each part."""
    lines = [f"{'part':<16}{'parameters':>16}{'trainable':>16}{'MFLOP/token':>14}{'GFLOP/note':>14}"]
    for part, figures in found.items():
        learns = f"{figures['trainable']:,}" if figures["trainable"] else "frozen"
        lines.append(
            f"{part:<16}{figures['parameters']:>16,}{learns:>16}{figures['flops_per_token'] / 1e6:>14,.2f}"
            f"{figures['flops_per_note'] / 1e9:>14,.2f}"
        )
    return "\n".join([*lines, f"For a note of {num_tokens:,} tokens, in one forward pass."])
