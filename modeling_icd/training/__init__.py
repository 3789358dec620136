"""Training a model: its arguments, notes, batches and Trainer, checkpoints, and what a run saves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .arguments import ICDTrainingArguments
    from .label_graph import give_graph
    from .notes import code_vocabulary
    from .start import start_head
    from .trainer import ICDTrainer

__all__ = ["ICDTrainer", "ICDTrainingArguments", "code_vocabulary", "give_graph", "start_head"]

_MODULES = {
    "ICDTrainer": "trainer",
    "ICDTrainingArguments": "arguments",
    "code_vocabulary": "notes",
    "give_graph": "label_graph",
    "start_head": "start",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: a module of this package does not load the Trainer."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
