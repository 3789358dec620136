"""Resuming an interrupted run: finds its last complete checkpoint, and checks that it was trained on the same data."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..backbone_icd import source_of


def finished_steps(checkpoint: Path) -> int | None:
    """The number of training steps at a checkpoint, or `None` if the checkpoint is incomplete."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((checkpoint / TRAINER_STATE_NAME).read_text())["global_step"]  # which is written last
    return None


def last_complete_checkpoint(output_dir: Path) -> str | None:
    """The newest complete checkpoint, or `None`; a killed run may leave a newer, incomplete one."""
    found = {finished_steps(path): str(path) for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    complete = {steps: path for steps, path in found.items() if steps is not None}
    return complete[max(complete)] if complete else None


def how_to_go_on(output_dir: Path) -> str:
    """A sentence that tells the user how to continue a run that ended early."""
    checkpoint = last_complete_checkpoint(output_dir)
    if checkpoint is None:
        return "No checkpoint is complete: the same command starts from the beginning."
    return f"The same command with `--resume_from_checkpoint last` goes on from {checkpoint}."


def check_same_data(checkpoint: Path, training_data: dict) -> None:
    """Refuse a checkpoint that was trained on other data: the record of the finished model would not name them.

    Raises:
        ValueError: where the checkpoint was trained on other data, or does not say on which.
    """
    config = checkpoint / "config.json"
    recorded = json.loads(config.read_text())["training_data"] if config.is_file() else None
    if recorded != json.loads(json.dumps(training_data)):
        raise ValueError(
            f"The checkpoint {checkpoint} is not of a run on these data and this backbone: resume with the arguments that "
            "it was started with, or give a finished model as `backbone` to train it further."
        )


def check_same_backbone(checkpoint: Path, model) -> None:
    """Refuse a checkpoint of the head alone that was trained over another backbone than the one of this model.

    Raises:
        ValueError: where the digest of its weights is another, or that of this model cannot be told.
    """
    config = checkpoint / "config.json"
    source = json.loads(config.read_text()).get("backbone_source") if config.is_file() else None
    if source and source_of(model)["digest"] != source["digest"]:
        raise ValueError(
            f"The checkpoint {checkpoint} holds the head alone, and was trained over other weights of the backbone than those that "
            "are there now: put the earlier ones back, or start again without `resume_from_checkpoint`."
        )


def asks_for_last(args: TrainingArguments) -> bool:
    """Whether a run is to go on from the last complete checkpoint, if there is one."""
    resume = args.resume_from_checkpoint
    return isinstance(resume, str) and resume.lower() in ("true", "last")


def checkpoint_in(args: TrainingArguments) -> str | None:
    """The checkpoint in the output folder that a run goes on from; `None` where it starts anew, or from another folder's."""
    if asks_for_last(args):
        return last_complete_checkpoint(Path(args.output_dir))
    resume = args.resume_from_checkpoint
    return resume if resume and Path(resume).resolve().parent == Path(args.output_dir).resolve() else None


def checkpoint_to_resume(args: TrainingArguments, training_data: dict) -> str | None:
    """The checkpoint that `resume_from_checkpoint` names; `last` and `true` mean the last complete one, if any."""
    resume = args.resume_from_checkpoint
    if asks_for_last(args):
        resume = last_complete_checkpoint(Path(args.output_dir))
        print(f"resuming from {resume}" if resume else f"no complete checkpoint in {args.output_dir}: starting anew")
    if resume:
        check_same_data(Path(resume), training_data)
    return resume


@contextlib.contextmanager
def whole_checkpoint(checkpoint: Path, is_writer: bool) -> Iterator[None]:
    """Around the writing of a checkpoint: if it ends early, for any reason, the incomplete checkpoint is removed.

    Raises:
        OSError: where it cannot be written, e.g. on a full disk.
    """
    try:
        with clear_write_errors(checkpoint):
            yield
        if is_writer and checkpoint.is_dir():
            checkpoint.chmod(0o700)  # the optimizer's state is learned from the notes, too
    except BaseException as error:
        if is_writer and finished_steps(checkpoint) is None:
            shutil.rmtree(checkpoint, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(f"{error} Make room. {how_to_go_on(checkpoint.parent)}") from None
        raise


@contextlib.contextmanager
def clear_write_errors(folder: Path) -> Iterator[None]:
    """Turn the libraries' various errors of writing, such as on a full disk, into one `OSError`.

    Raises:
        OSError: names the folder and what the system says.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder} cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    except RuntimeError as error:
        if "inline_container" not in str(error):  # the part of torch that writes files
            raise
        raise OSError(f"{folder} cannot be written: is the disk full, or a quota used up?") from None
