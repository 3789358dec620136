"""Refuses to push models of restricted data to a Hub, going by the sealed record of training data in their configuration.

Models, configurations and pipelines push themselves to a Hub only where their record shows that they were not trained on
licensed notes. All others are published by `modeling-icd publish`, which checks what is uploaded, leaves out
what is confidential and gates the repository.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from inspect import currentframe, signature
from json import JSONEncoder
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd


Access = Literal["synthetic", "open", "restricted"]
# The strictest first.
ACCESSES: tuple[Access, ...] = ("restricted", "open", "synthetic")
SEAL, WEIGHTS = "seal", "weights"
RETRIEVER = "retriever"
"""The folder of a second model in that of a coder which verifies its candidates, and the field that has its record."""
REMEDY = (
    "Save it to a folder and publish that: `modeling-icd publish FOLDER --repo_id OWNER/NAME` compares what "
    "goes out with the training notes, leaves out the weights where the notes are restricted, and makes the repository "
    "private and gated."
)


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the SHA-256 digests of files, in the given order."""
    # What the Hub's library prepares for a file holds the file's SHA-256, so that code which travels opens no file.
    digests = [CommitOperationAdd(path.name, path).upload_info.sha256.hex() for path in paths]
    return sha256(" ".join(digests).encode()).hexdigest()


def seal_training_data(training_data: Mapping[str, Any]) -> dict[str, Any]:
    """Seal a record of training data: add one digest over all its fields, the digests of the weights included.

    Args:
        training_data (`Mapping[str, Any]`): As training writes it, with `weights` (and `adapter`, where there is one).

    Returns:
        The record with its `seal`, which no longer matches once a field of it, or a weight, is changed.
    """
    record = {key: value for key, value in training_data.items() if key != SEAL}
    return {**record, SEAL: _digest_of(record)}


def is_sealed(training_data: Any) -> bool:
    """Whether a record is unchanged since training sealed it."""
    return isinstance(training_data, Mapping) and training_data.get(SEAL) == _digest_of(
        {key: value for key, value in training_data.items() if key != SEAL}
    )


def _digest_of(record: Mapping[str, Any]) -> str:
    encoder = JSONEncoder(sort_keys=True, separators=(",", ":"))
    return sha256(encoder.encode(dict(record)).encode()).hexdigest()


def data_access(training_data: Any) -> Access:
    """Who may have the notes that a model was trained on: invented and open notes anyone, others only licensed users.

    Args:
        training_data (`dict`, *optional*): `config.training_data`, as training wrote and sealed it: `dataset`, `config`,
            `synthetic`, `open`, and `earlier` where the model it started from had been trained on notes too. What is not
            known counts as restricted, and so does a record that was changed since.
    """
    return claimed_access(training_data) if is_sealed(training_data) else "restricted"


def claimed_access(training_data: Any) -> Access:
    """What a record claims, sealed or not: the strictest access of it, of the earlier records in it, and of its retriever's."""
    if not isinstance(training_data, Mapping):
        return "restricted"
    claim: Access = "open" if training_data.get("open") is True else "restricted"
    if training_data.get("synthetic") is True:
        claim = "synthetic"
    others = [claimed_access(training_data[key]) for key in ("earlier", RETRIEVER) if key in training_data]
    return min(claim, *others, key=ACCESSES.index) if others else claim


def refuse_push(training_data: Any, what: str) -> None:
    """Refuse to push an object that was trained on restricted or unknown data, or that holds a second model.

    Raises:
        ValueError: unless a sealed record says that the data were invented or are open.
    """
    if isinstance(training_data, Mapping) and RETRIEVER in training_data:
        raise ValueError(
            f"{what} belongs to a coder that holds a second model, its retriever, whose weights are not checked here, so it does not go "
            "to a Hub; nothing was uploaded."
        )
    if data_access(training_data) == "restricted":
        reason = "was trained on restricted data" if is_sealed(training_data) else "may have been trained on any data"
        raise ValueError(f"{what} {reason}, so it does not go to a Hub this way; nothing was uploaded. {REMEDY}")


class PushGuard:
    """Mixin for models, configurations and pipelines: their own methods push nothing of restricted or unknown data."""

    def shared_record(self) -> Any:
        """The record of training data of this object."""
        raise NotImplementedError

    def save_pretrained(self, save_directory, *args, **kwargs):
        if options_by_name(super().save_pretrained, args, kwargs).get("push_to_hub"):  # type: ignore[misc]
            refuse_push(self.shared_record(), type(self).__name__)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def push_to_hub(self, *args, **kwargs):
        """As in transformers if the training data are invented or open; otherwise an error that names the right command."""
        refuse_push(self.shared_record(), type(self).__name__)
        return super().push_to_hub(*args, **kwargs)  # type: ignore[misc]

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        """The last step of both methods: the files are written, so their weights can be checked against the record."""
        refuse_push(self.shared_record(), type(self).__name__)
        refuse_changed_weights(self.shared_record(), working_dir)
        refuse_local_backbone(getattr(self, "config", self))
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


def options_by_name(save_pretrained: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a library's `save_pretrained` is given beside the folder, also where it is given by position."""
    names = [name for name in signature(save_pretrained).parameters if name not in ("self", "save_directory")]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def refuse_changed_weights(training_data: Mapping[str, Any], folder: Any) -> None:
    """Refuse to push weights that differ from those in the record, such as those of a model that was trained further.

    Raises:
        ValueError: where the folder has weights, and not those of the record.
    """
    files = sorted(Path(folder).glob("*.safetensors"))  # an adapter's as well as the model's
    if files and training_data.get(WEIGHTS) != files_digest(files):
        raise ValueError(
            "These weights are not those that the record of training data speaks of, so they may have been trained on any "
            f"data and do not go to a Hub this way; nothing was uploaded. {REMEDY}"
        )


def names_a_folder(name: str) -> bool:
    """Whether the name of a backbone is a folder of some machine, whose system may be another than this one's: it is neither one
    word nor OWNER/NAME."""
    return re.fullmatch(r"|\w[\w.-]*|\w[\w.-]*/\w[\w.-]*", name) is None


def refuse_local_backbone(config: Any) -> None:
    """Refuse to push a head whose configuration names a folder of this machine as its backbone: it tells others the path, and
    where to find the backbone it does not.

    Raises:
        ValueError: where it does.
    """
    name = (getattr(config, "backbone_source", None) or {}).get("name", "")
    if names_a_folder(name):
        raise ValueError(
            "The backbone of this head is named by a folder of this machine, so it does not go to a Hub; nothing was uploaded. Save "
            "it with `save_pretrained(FOLDER, head_only=True, backbone=HUB_ID)`, or whole."
        )


class Refusal:
    """Replaces the `push_to_hub` of an object of another library that came with a model, such as its tokenizer."""

    def __init__(self, training_data: Any, what: str):
        self.training_data, self.what = training_data, what

    def __call__(self, *args, **kwargs):
        refuse_push(self.training_data, self.what)


def guard_tokenizer(tokenizer: Any, training_data: Any) -> None:
    """Make a tokenizer refuse to push itself: its vocabulary may come from notes."""
    if tokenizer is not None and data_access(training_data) == "restricted":
        what = f"A {type(tokenizer).__name__} of a model that"
        tokenizer.push_to_hub = tokenizer._upload_modified_files = Refusal(training_data, what)


class PartRefusal:
    """In place of what pushes a part of a model that is of a library's own class, such as its backbone.

    It looks at the record when it is called, since training writes the record after the model was made.
    """

    def __init__(self, config: Any, what: str):
        self.config, self.what = config, what

    def __call__(self, *args, **kwargs):
        refuse_push(self.config.training_data, self.what)
        raise ValueError(
            f"{self.what} is a part of a model, and the record of training data speaks of the weights of the whole model, so "
            f"it does not go to a Hub by itself; nothing was uploaded. {REMEDY}"
        )


def guard_parts(model: Any) -> None:
    """Close the ways to a Hub of the models in a model: its backbone holds nearly all that was learned from the notes."""
    for part in model.modules():
        if hasattr(part, "push_to_hub") and not _is_guarded(part):
            refusal = PartRefusal(model.config, f"The {type(part).__name__} in a {type(model).__name__}")
            # The second is what `save_pretrained` asks for once it is told to push, before it writes a file.
            part.push_to_hub = part._get_files_timestamps = part._upload_modified_files = refusal
            part.register_state_dict_pre_hook(refuse_pushing_holder)


class ModelPushGuard(PushGuard):
    """Mixin for models that also stops others from pushing them: a Trainer, a peft model or a pipeline of another task.

    Those save the model before they push it, and what they upload beside it cannot be checked against its record. So it is
    an error if one of them saves or trains the model in order to push it, whatever the model was trained on before.
    """

    def save_pretrained(self, save_directory, *args, **kwargs):
        refuse_pushing_holder(self)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def state_dict(self, *args, **kwargs):
        refuse_pushing_holder(self)
        return super().state_dict(*args, **kwargs)  # type: ignore[misc]

    def train(self, mode: bool = True):
        if mode:
            refuse_pushing_holder(self)
        return super().train(mode)  # type: ignore[misc]


def refuse_pushing_holder(model: Any, *_: Any) -> None:
    """Look for a caller that pushes: an object without a guard, or a Trainer that uploads while it trains.

    It is also a hook, which torch calls with the model and two more arguments before it gives the weights.

    Raises:
        ValueError: where it is one of them.
    """
    frame = currentframe()
    while frame is not None:
        name = frame.f_code.co_name
        caller = frame.f_locals.get("self") if name in ("push_to_hub", "train") else None
        is_push = name == "push_to_hub" and caller is not None and not _is_guarded(caller)
        if is_push or (name == "train" and _is_pushing_trainer(caller)):
            what = f"A {type(caller).__name__} that holds a {type(model).__name__}"
            raise ValueError(
                f"{what} would upload its folder unchecked, whatever the model was trained on; nothing was uploaded. Leave "
                f"out `push_to_hub`. {REMEDY}"
            )
        frame = frame.f_back


def _is_guarded(caller: Any) -> bool:
    """Whether a class has a guard; compared by name, since one may come from the package and one from a model's folder."""
    return PushGuard.__name__ in [base.__name__ for base in type(caller).mro()]


def _is_pushing_trainer(caller: Any) -> bool:
    from transformers import Trainer

    return isinstance(caller, Trainer) and bool(caller.args.push_to_hub)
