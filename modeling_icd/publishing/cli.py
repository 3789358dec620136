"""Publish a model.

    python -m modeling_icd.publishing MODEL --repo_id OWNER/NAME     push to a Hub, private and gated
    python -m modeling_icd.publishing MODEL --repo_id OWNER/NAME --dry_run     show what would be pushed
    python -m modeling_icd.publishing privacy MODEL                  the check alone
    python -m modeling_icd.publishing physionet MODEL --output_dir DIR     the package for PhysioNet
    python -m modeling_icd.publishing dataset --repo_id OWNER/NAME     the data set's card, builders and metric, no data
    python -m modeling_icd.publishing onnx MODEL --output_dir DIR     ONNX files of model and head, for your own use

A model that was trained on restricted data, or on unknown data, goes to a Hub without its weights.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
from transformers import AutoModelForSequenceClassification

from ..evaluation.model_data import as_in_training, private_cache
from .card import access_questions, build_card
from .dataset import check_dataset, dataset_files
from .folder import REPO_ID, ModelFolder, read_content, real_datasets, trained_configs
from .hub import PushError, push
from .onnx_export import export_onnx
from .physionet import PROVENANCE, describe_provenance, write_package
from .privacy import MIN_NOTES_OF_WORD, Finding, TrainingNotes, check_files, load_notes, local_names
from .release import GATES, Release, left_out, outgoing_files, plan_physionet_release, plan_release
from .vocabulary import drop_rare_words


PROGRAM = "python -m modeling_icd.publishing"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands.

    Returns:
        0 where it did what it says, 1 where the privacy check found something, 2 where it could not.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"privacy": run_privacy, "physionet": run_physionet, "onnx": run_onnx, "dataset": run_dataset}
    command = commands.get(arguments[0]) if arguments else None
    try:
        return command(arguments[1:]) if command is not None else run_push(arguments)
    except (ValueError, OSError, PushError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted. Nothing has changed here; the same command goes on.", file=sys.stderr)
        return 130


def run_push(arguments: list[str], token: str | None = None) -> int:
    """Check, show or push a model; `token` in place of the one that `hf auth login` or HF_TOKEN left."""
    parser = _parser(PROGRAM, __doc__)
    parser.add_argument("--repo_id", required=True, help="OWNER/NAME")
    _add_terms(parser)
    parser.add_argument("--dry_run", action="store_true", help="show files, sizes, settings and card; push nothing")
    args = parser.parse_args(arguments)
    folder = ModelFolder.read(args.model, args.results)
    release = _plan(folder, args)
    with TemporaryDirectory() as work_dir:
        files, notes = _prepare(folder, release, args, work_dir, is_dry_run=args.dry_run)
        if args.dry_run:
            print_release(release, files)
            print(f"\nREADME.md:\n\n{read_content(files['README.md']).decode()}")
        if _check(folder, release, files, notes, args.min_notes_of_word):
            return 1
        if args.dry_run:
            print("Dry run: nothing was pushed.")
            return 0
        revision = push(
            release.target,
            files,
            private=release.private,
            gated=release.gated,
            message="Publish the model" if release.with_weights else "Publish the model without its weights",
            token=token,
        )
    print(f"Pushed {len(files)} files to {release.target}, revision {revision}.")
    return 0


def run_privacy(arguments: list[str]) -> int:
    """Check what a push would upload."""
    parser = _parser(f"{PROGRAM} privacy", run_privacy.__doc__)
    parser.add_argument("--repo_id", default="owner/name", help="where the model will go")
    _add_terms(parser)
    args = parser.parse_args(arguments)
    folder = ModelFolder.read(args.model, args.results)
    release = _plan(folder, args)
    with TemporaryDirectory() as work_dir:
        files, notes = _prepare(folder, release, args, work_dir)
        return 1 if _check(folder, release, files, notes, args.min_notes_of_word) else 0


def run_physionet(arguments: list[str]) -> int:
    """Write the package for PhysioNet: weights, card, licenses, checksums and provenance."""
    parser = _parser(f"{PROGRAM} physionet", run_physionet.__doc__)
    parser.add_argument("--output_dir", required=True, help="a folder that is not there yet")
    args = parser.parse_args(arguments)
    folder = ModelFolder.read(args.model, args.results)
    release = plan_physionet_release(folder, args.base_model)
    with TemporaryDirectory() as work_dir:
        files, notes = _prepare(folder, release, args, work_dir)
        files[PROVENANCE] = describe_provenance(folder, release, files)
        if _check(folder, release, files, notes, args.min_notes_of_word):
            return 1
        print(write_package(files, args.output_dir))
    return 0


def run_dataset(arguments: list[str]) -> int:
    """Push the data set's repository: its card, the builders and the metric, and no data at all."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} dataset", description=run_dataset.__doc__)
    parser.add_argument("--repo_id", required=True, help="OWNER/NAME")
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--data_dir", help="your own copy of the data, with whose notes and ids the files are compared"
    )
    parser.add_argument("--dataset", default="mimic3", help="its name; default: mimic3")
    parser.add_argument("--dataset_config", help="its configuration")
    parser.add_argument("--cache_dir", help="with --data_dir: where the built data set, notes included, goes")
    parser.add_argument("--dry_run", action="store_true", help="show files and sizes; push nothing")
    args = parser.parse_args(arguments)
    if not REPO_ID.fullmatch(args.repo_id):
        raise ValueError(f"`--repo_id` must be OWNER/NAME, got {args.repo_id!r}.")
    if args.data_dir and not args.cache_dir:
        raise ValueError("`--cache_dir` is missing: the built data set holds the notes, so say where it may lie.")
    files = dataset_files()
    if args.dry_run:
        visibility = "private" if args.private else "public"
        print(f"{args.repo_id}, a data set: {visibility}; not gated, since it holds no data")
        print_files(files)
    notes = None
    if args.data_dir:
        notes = load_notes(args.dataset, args.dataset_config, args.data_dir, args.cache_dir)
    if _report(check_dataset(files, local_names(public=args.repo_id), notes), len(files)):
        return 1
    if args.dry_run:
        print("Dry run: nothing was pushed.")
        return 0
    message = "Publish the builders, without data"
    revision = push(args.repo_id, files, private=args.private, gated="no", message=message, repo_type="dataset")
    print(f"Pushed {len(files)} files to the data set {args.repo_id}, revision {revision}.")
    return 0


def run_onnx(arguments: list[str]) -> int:
    """Write ONNX files of a model and of its head. They hold the weights: never a part of a release."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} onnx", description=run_onnx.__doc__)
    parser.add_argument("model", help="a folder or Hub id")
    parser.add_argument("--output_dir", required=True, help="a folder that is not there yet")
    args = parser.parse_args(arguments)
    model = AutoModelForSequenceClassification.from_pretrained(args.model)
    for file, difference in export_onnx(model, args.output_dir).items():
        print(f"{Path(args.output_dir, file)}: logits within {difference:.1e} of the model's")
    return 0


def print_release(release: Release, files: Mapping[str, Path | bytes]) -> None:
    """Show settings, and every file with its size."""
    visibility = "private" if release.private else "public"
    print(f"{release.target}: {visibility}, gated: {release.gated}, trained on {release.access} data")
    print(f"weights: {'yes' if release.with_weights else 'no'}; written permission: {release.permission or 'none'}")
    if release.gated != "no":
        print("access questions:")
        for question, kind in access_questions(release)["extra_gated_fields"].items():
            print(f"  {question} ({kind})")
    print_files(files)


def print_files(files: Mapping[str, Path | bytes]) -> None:
    """Show every file with its size."""
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in files.items()
    }
    print(f"{len(sizes)} files, {sum(sizes.values()):,} bytes:")
    for name, size in sizes.items():
        print(f"  {size:>15,}  {name}")


def _parser(program: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the `output_dir` of a training run, evaluated")
    parser.add_argument("--results", help="default: MODEL/results.json or MODEL/evaluation/test/results.json")
    parser.add_argument(
        "--base_model", help="Hub id of the pretrained backbone; default: as the training run names it"
    )
    parser.add_argument(
        "--data_dir",
        action="append",
        metavar="DIR",
        help="the folder of the training data, which the privacy check compares with; of several data sets each as NAME=DIR",
    )
    parser.add_argument("--dataset", help="its name; default: as the model names it")
    parser.add_argument("--dataset_config", help="its configuration; default: as the model names it")
    parser.add_argument(
        "--dataset_options", nargs="+", default=[], metavar="NAME=VALUE", help="of the configuration; as in training"
    )
    parser.add_argument("--cache_dir", help="where the built data set goes; default: MODEL-private/cache")
    parser.add_argument(
        "--min_notes_of_word",
        type=int,
        default=MIN_NOTES_OF_WORD,
        help="words of a vocabulary of words that fewer training notes have are left out of what goes out; default: "
        f"{MIN_NOTES_OF_WORD}",
    )
    return parser


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--gated", choices=GATES, default="manual", help="how access is granted; default: manual")
    parser.add_argument("--license", default="apache-2.0", help="default: apache-2.0")
    parser.add_argument(
        "--adapter", action="store_true", help="push LoRA's adapter and the head in place of the merged weights"
    )
    parser.add_argument(
        "--i_have_written_permission",
        metavar="REFERENCE",
        help="push weights of restricted data, privately and gated by hand; the reference goes into the card",
    )


def _plan(folder: ModelFolder, args: argparse.Namespace) -> Release:
    return plan_release(
        folder,
        args.repo_id,
        private=args.private,
        gated=args.gated,
        permission=args.i_have_written_permission,
        license=args.license,
        base_model=args.base_model,
        is_adapter=args.adapter,
    )


def _notes(folder: ModelFolder, args: argparse.Namespace, is_required: bool = True) -> TrainingNotes | None:
    """The training notes to compare with; a model of invented notes needs none.

    Raises:
        ValueError: where the notes were real and it is not said where they are.
    """
    training_data = folder.config.get("training_data") or {}
    real = real_datasets(folder.config.get("training_data"))
    if args.data_dir is None:
        if real and is_required:
            raise ValueError(
                f"The model was trained on {', '.join(sorted(real))}: name the folder of these data with `--data_dir`, so "
                "that what goes out can be compared with the notes. Nothing of them leaves this machine."
            )
        print("Not compared with training notes" + (": no `--data_dir`." if real else ", which were invented."))
        return None
    if len(real) < 2:
        folders = {args.dataset or next(iter(real), training_data.get("dataset", "unknown")): args.data_dir[-1]}
    else:
        folders = dict(pair.split("=", 1) for pair in args.data_dir if "=" in pair)
        if folders.keys() != real:
            raise ValueError(
                f"The model was trained on {' and '.join(sorted(real))}: name the folder of each, "
                f"`{' '.join(f'--data_dir {name}=DIR' for name in sorted(real))}`."
            )
    cache_dir = args.cache_dir or private_cache(folder.path)
    notes = []
    for name, path in folders.items():
        config, options = _as_read(training_data, name, args)
        notes.append(load_notes(name, config, path, cache_dir, options))
    return TrainingNotes(
        datasets.concatenate_datasets([of_one.records for of_one in notes]),
        [title for of_one in notes for title in of_one.titles],
        [code for of_one in notes for code in of_one.codes],
    )


def _as_read(
    training_data: dict[str, Any], dataset: str, args: argparse.Namespace
) -> tuple[str | None, Sequence[str]]:
    """Configuration and options by which all notes of a data set are read that the model was trained on.

    Raises:
        ValueError: where no configuration has them all.
    """
    is_meant = args.dataset in (None, dataset)
    config, options = (args.dataset_config, args.dataset_options) if is_meant else (None, [])
    if config is not None or "earlier" not in training_data:
        config, options = as_in_training(training_data, dataset, config, options)
    if config is None and dataset == "mimic4":  # no configuration of it has the notes of both editions of ICD
        editions = {name.removesuffix("_top50") for name in trained_configs(training_data, dataset)}
        if len(editions) != 1:
            raise ValueError(
                f"The model was trained on {' and '.join(sorted(editions)) or 'an unknown configuration'} of mimic4: only "
                "one edition of ICD can be compared. Name it with `--dataset_config`, and check the other one yourself."
            )
        config, options = editions.pop(), ["min_count=1"]
    return config, options


def _prepare(
    folder: ModelFolder, release: Release, args: argparse.Namespace, work_dir: str, is_dry_run: bool = False
) -> tuple[dict[str, Path | bytes], TrainingNotes | None]:
    """What goes out, rare words taken out of a vocabulary of words, and the notes that tell which are rare."""
    if args.min_notes_of_word < 1:
        raise ValueError(f"`--min_notes_of_word` must be at least 1, got {args.min_notes_of_word}.")
    card = build_card(folder, release)
    notes = _notes(folder, args, is_required=not is_dry_run)
    titles = frozenset(notes.titles if notes is not None else ())
    files = outgoing_files(folder, release, card, titles)
    for line in left_out(folder, release, titles):
        print(f"Left out of {line}.")
    if notes is not None:
        files, num_dropped = drop_rare_words(files, notes, args.min_notes_of_word, work_dir)
        if num_dropped:
            release = replace(release, dropped_words=num_dropped, min_notes_of_word=args.min_notes_of_word)
            files["README.md"] = build_card(folder, release).encode()
            print(
                f"{num_dropped:,} words that fewer than {args.min_notes_of_word} training notes have do not go out: they "
                "are unknown to the published copy, and this folder keeps them."
            )
    return files, notes


def _check(
    folder: ModelFolder,
    release: Release,
    files: Mapping[str, Path | bytes],
    notes: TrainingNotes | None,
    min_notes_of_word: int,
) -> list[Finding]:
    names = local_names(folder, public=release.target)
    return _report(check_files(files, names, notes, min_notes_of_word, release.base_model), len(files))


def _report(findings: list[Finding], num_files: int) -> list[Finding]:
    if not findings:
        print(f"Privacy check: nothing found in {num_files} files.")
    for finding in findings:
        print(f"Privacy check: {finding}", file=sys.stderr)
    if findings:
        print("Nothing was written or pushed: take these out first.", file=sys.stderr)
    return findings
