"""`modeling-icd train --push_to_hub`: evaluates the trained model, and publishes it as `modeling-icd publish` does.

The Trainer's own upload is never used: it takes checkpoints and whatever else lies in the output folder, and its
repository is neither gated nor checked for notes.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from dataset_scripts import BUILDERS, parse_options
from dataset_scripts.arguments import PROGRAM
from dataset_scripts.files import read_json

from ..evaluation import cli as evaluation
from . import cli as publishing
from .folder import REPO_ID, earlier_runs, name_base_model, real_datasets
from .hub import PushError, check_token


def plan_push(model_args: Any, data_args: Any, args: TrainingArguments) -> Callable[[Path], int] | None:
    """Read what the arguments say of the Hub and take it out of them, so that the Trainer uploads nothing.

    What would stop the push after hours of training stops it here.

    Args:
        model_args, data_args, args: of a training run, as `modeling_icd.training.arguments` has them.

    Returns:
        What evaluates and pushes the model in a folder, or `None` without `push_to_hub`.

    Raises:
        ValueError: where `hub_model_id`, `test_file` or the name of the pretrained backbone is missing, or where an argument asks
            for what only the Trainer's own upload does; where there is no token, the Hub does not know it, or it cannot
            be reached.
    """
    if not args.push_to_hub:
        return None
    repo_id = args.hub_model_id
    if repo_id is None or not REPO_ID.fullmatch(repo_id):
        given = "" if repo_id is None else f", got {repo_id!r}"
        raise ValueError(f"`push_to_hub` needs `hub_model_id`, OWNER/NAME of the repository{given}.")
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ValueError(f"`hub_strategy` {args.hub_strategy.value!r} would upload checkpoints, which stay at home.")
    for name in ("hub_always_push", "hub_revision"):
        if getattr(args, name):
            raise ValueError(f"`{name}` has no effect: the model is pushed once, when it is trained. Leave it out.")
    if data_args.dataset == "files":
        check_test_notes(data_args)
    name_base_model([*earlier_runs(model_args.backbone), {"model": asdict(model_args)}])
    is_private, token = args.hub_private_repo is not False, args.hub_token
    try:
        check_token(repo_id, token)
    except PushError as error:
        raise ValueError(str(error)) from None
    args.push_to_hub, args.hub_token = False, None  # a checkpoint would keep the token
    return lambda output_dir: evaluate_and_push(
        output_dir, repo_id, is_private, token, data_args, args.per_device_eval_batch_size
    )


def check_test_notes(data_args: Any) -> None:
    """Raise a `ValueError` unless the user's own files give test notes, which the model is measured on for its card."""
    options = parse_options("files", data_args.all_options(), "--dataset_options")
    builder = BUILDERS["files"](data_args.dataset_config, data_dir=data_args.data_dir or None, **options)
    if "test" not in builder._splits:  # type: ignore[attr-defined]
        raise ValueError("`push_to_hub` measures the model for its card on notes of their own: give `test_file`, too.")


def evaluate_and_push(
    output_dir: Path, repo_id: str, is_private: bool, token: str | None, data_args: Any, batch_size: int
) -> int:
    """Measure the model on the test split, for its card, then check, gate and push it.

    Returns:
        0 where it was pushed, 1 where the privacy check found something, 2 where it could not be. The model is on disk
        in any case, and the message says how to go on.
    """
    cache = ["--cache_dir", data_args.data_cache_dir] if data_args.data_cache_dir else []
    folder = ["--data_dir", data_args.data_dir] if data_args.data_dir else []
    data = ["--dataset", data_args.dataset, *folder, *cache]
    config = ["--dataset_config", data_args.dataset_config] if data_args.dataset_config else []
    options = data_args.all_options()
    config += ["--dataset_options", *options] if options else []
    evaluate = [str(output_dir), *data, *config, "--split", "test", "--batch_size", str(batch_size)]
    training_data = read_json(output_dir / "config.json", "did the training end?").get("training_data")
    # Invented notes need no comparison, and notes of another data set do not lie in this folder.
    compared = [*data, *config] if real_datasets(training_data) == {data_args.dataset} else []
    push = [str(output_dir), "--repo_id", repo_id, "--private" if is_private else "--no-private", *compared]
    try:
        code = evaluation.main(evaluate) or publishing.run_push(push, token=token)
    except (ValueError, OSError, PushError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    if code:
        print(
            f"The model is in {output_dir} and was not pushed. Once the cause is gone:\n"
            f"    {PROGRAM} evaluate {shlex.join(evaluate)}\n    {publishing.COMMAND} {shlex.join(push)}",
            file=sys.stderr,
        )
    return code
