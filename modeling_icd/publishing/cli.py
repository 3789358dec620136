"""Checks a model for patient data, and pushes it to a Hub, private and gated.

    modeling-icd publish MODEL --repo_id OWNER/NAME --data_dir DIR --dry_run     shows what would be pushed
    modeling-icd publish MODEL --repo_id OWNER/NAME --data_dir DIR               pushes it
    modeling-icd publish privacy MODEL --data_dir DIR                            checks it alone
    modeling-icd publish dataset --repo_id OWNER/NAME     the data set's card, builders and metric, no data

A model of restricted or unknown data goes to a Hub without its weights. For PhysioNet: `modeling-icd physionet`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dataset_scripts.arguments import FILE_OPTIONS, PROGRAM, command_parser, with_files
from dataset_scripts.command import run_command
from dataset_scripts.counts import counted

from .card import access_questions, build_card
from .dataset import check_dataset, dataset_files
from .folder import ModelFolder, check_repo_id, holds_notes, read_content, real_datasets
from .fused import title_source
from .hub import PushError, push
from .memorisation import probe
from .notes import TrainingNotes, load_notes, notes_of_model
from .privacy import MIN_NOTES_OF_WORD, Finding, check_files, local_names
from .release import GATES, Release, left_out, outgoing_files, plan_release
from .vocabulary import drop_rare_words


COMMAND = f"{PROGRAM} publish"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands.

    Returns:
        0 where it did what it says, 1 where the privacy check found something, 2 where it could not.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"privacy": run_privacy, "dataset": run_dataset}
    command = commands.get(arguments[0]) if arguments else None
    run = partial(run_push, arguments) if command is None else partial(command, arguments[1:])
    return run_command(run, PushError, interrupted="Nothing has changed here; the same command goes on.")


def run_push(arguments: list[str], token: str | None = None) -> int:
    """Check, show or push a model; `token` in place of the one that `hf auth login` or HF_TOKEN left."""
    parser = model_parser("publish", __doc__, "MODEL --repo_id OWNER/NAME [--data_dir DIR] [--dry_run] [options]")
    parser.add_argument("--repo_id", required=True, help="OWNER/NAME")
    _add_terms(parser)
    parser.add_argument("--dry_run", action="store_true", help="show files, sizes, settings and card; push nothing")
    args = parser.parse_args(arguments)
    args.dataset_options = with_files(args.dataset_options, args)
    folder, release = _plan(args)
    with TemporaryDirectory() as work_dir:
        files, notes = prepare(folder, release, args, work_dir, is_dry_run=args.dry_run)
        if args.dry_run:
            print_release(release, files)
            print(f"\nREADME.md:\n\n{read_content(files['README.md']).decode()}")
        findings = check(folder, release, files, notes, args.min_notes_of_word)
        if args.dry_run:
            needs_notes = notes is None and bool(real_datasets(folder.config.get("training_data")))
            print_verdict(release.target, files, findings, release, needs_notes)
        if findings or args.dry_run:
            return int(bool(findings))
        revision = push(
            release.target,
            files,
            private=release.private,
            gated=release.gated,
            message="Publish the model" if release.with_weights else "Publish the model without its weights",
            token=token,
        )
    print(f"Pushed {counted(len(files), 'file')} to {release.target}, revision {revision}.")
    return 0


def run_privacy(arguments: list[str]) -> int:
    """Check what a push would upload."""
    parser = model_parser("publish privacy", run_privacy.__doc__, "MODEL [--data_dir DIR] [options]")
    parser.add_argument("--repo_id", default="owner/name", help="where the model will go")
    _add_terms(parser)
    args = parser.parse_args(arguments)
    args.dataset_options = with_files(args.dataset_options, args)
    folder, release = _plan(args)
    with TemporaryDirectory() as work_dir:
        files, notes = prepare(folder, release, args, work_dir)
        return 1 if check(folder, release, files, notes, args.min_notes_of_word) else 0


def run_dataset(arguments: list[str]) -> int:
    """Push the data set's repository: its card, the builders and the metric, and no data at all."""
    parser = command_parser("publish dataset", run_dataset.__doc__)
    parser.add_argument("--repo_id", required=True, help="OWNER/NAME")
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--data_dir", help="your own copy of the data, to compare the files with its notes and ids")
    parser.add_argument("--dataset", default="mimic3", help="name of that data set; default: mimic3")
    parser.add_argument("--dataset_config", help="configuration of that data set")
    parser.add_argument("--cache_dir", help="with --data_dir: where the built data set, notes included, goes")
    parser.add_argument("--dry_run", action="store_true", help="show files and sizes; push nothing")
    args = parser.parse_args(arguments)
    check_repo_id(args.repo_id)
    if args.data_dir and not args.cache_dir:
        raise ValueError(
            "`--cache_dir` is missing: the built data set holds the notes, so say where it may be stored."
        )
    files = dataset_files()
    if args.dry_run:
        visibility = "private" if args.private else "public"
        print(f"{args.repo_id}, a data set: {visibility}; not gated, since it holds no data")
        print_files(files)
    notes = None
    if args.data_dir:
        notes = load_notes(args.dataset, args.dataset_config, args.data_dir, args.cache_dir)
    findings = report_findings(check_dataset(files, local_names(public=args.repo_id), notes), len(files))
    if args.dry_run:
        print_verdict(args.repo_id, files, findings)
    if findings or args.dry_run:
        return int(bool(findings))
    message = "Publish the builders, without data"
    revision = push(args.repo_id, files, private=args.private, gated="no", message=message, repo_type="dataset")
    print(f"Pushed {counted(len(files), 'file')} to the data set {args.repo_id}, revision {revision}.")
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


def print_verdict(
    target: str,
    files: Mapping[str, Path | bytes],
    findings: Sequence[Finding],
    release: Release | None = None,
    needs_notes: bool = False,
) -> None:
    """The last lines of a dry run: what would be pushed where, or why nothing would be.

    Args:
        release (`Release`, *optional*): of a model.
        needs_notes (`bool`): whether the push would ask for training notes that were not given.
    """
    what = f"{counted(len(files), 'file')}, {sum(sizes_of(files).values()):,} bytes"
    if release is not None:
        what += ", with the model's weights" if release.with_weights else ", without the model's weights"
    print("\nDry run: nothing was pushed.")
    if findings:
        number = counted(len(findings), "finding")
        print(f"BLOCKED by {number} of the privacy check, listed above: nothing would be pushed to {target}.")
    elif needs_notes:
        print(
            f"BLOCKED until the notes are compared: give `--data_dir`. Then {what} would be pushed to {target}, if nothing is found."
        )
    else:
        print(f"READY: without `--dry_run`, {what}, would be pushed to {target}.")


def sizes_of(files: Mapping[str, Path | bytes]) -> dict[str, int]:
    """How many bytes each file has."""
    return {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in files.items()
    }


def print_files(files: Mapping[str, Path | bytes]) -> None:
    """Show every file with its size."""
    sizes = sizes_of(files)
    print(f"{counted(len(sizes), 'file')}, {sum(sizes.values()):,} bytes:")
    for name, size in sizes.items():
        print(f"  {size:>15,}  {name}")


def model_parser(name: str, description: str | None, usage: str | None = None) -> argparse.ArgumentParser:
    """The arguments of every command that checks a model folder against its training notes."""
    parser = command_parser(name, description, usage)
    parser.add_argument("model", help="the `output_dir` of a training run that was evaluated")
    results = "default: MODEL/results.json or MODEL/evaluation/test/results.json"
    parser.add_argument("--results", metavar="FILE", help=f"of the evaluation; {results}")
    parser.add_argument("--base_model", metavar="ID", help="Hub id of the backbone; default: as in training")
    parser.add_argument(
        "--data_dir",
        action="append",
        metavar="DIR",
        help="the training data, which the privacy check compares with; of several data sets, once for each as NAME=DIR",
    )
    for option, text in FILE_OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="FILE", help=text)
    parser.add_argument("--dataset", metavar="NAME", help="of the training data; default: as the model records it")
    parser.add_argument(
        "--dataset_config", metavar="NAME", help="their configuration; default: as the model records it"
    )
    parser.add_argument(
        "--dataset_options", nargs="+", default=[], metavar="NAME=VALUE", help="options of it, as in training"
    )
    parser.add_argument("--cache_dir", metavar="DIR", help="of the built data set; default: MODEL-private/cache")
    parser.add_argument(
        "--min_notes_of_word",
        type=int,
        default=MIN_NOTES_OF_WORD,
        metavar="N",
        help=f"leave out words of a vocabulary that fewer training notes have; default: {MIN_NOTES_OF_WORD}",
    )
    return parser


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--gated", choices=GATES, default="manual", help="how access is granted; default: manual")
    license_help = "of the published files; default: apache-2.0, or that of the Llama whose weights are in them"
    parser.add_argument("--license", metavar="ID", help=license_help)
    parser.add_argument(
        "--adapter",
        dest="is_adapter",
        action="store_true",
        help="push LoRA's adapter and the head, not the merged weights",
    )
    parser.add_argument(
        "--i_have_written_permission",
        dest="permission",
        metavar="REFERENCE",
        help="push weights of restricted data, private and gated; the card quotes REFERENCE",
    )


def _plan(args: argparse.Namespace) -> tuple[ModelFolder, Release]:
    folder = ModelFolder.read(args.model, args.results)
    terms = ("repo_id", "private", "gated", "permission", "license", "base_model", "is_adapter")
    return folder, plan_release(folder, **{name: getattr(args, name) for name in terms})


def prepare(
    folder: ModelFolder, release: Release, args: argparse.Namespace, work_dir: str, is_dry_run: bool = False
) -> tuple[dict[str, Path | bytes], TrainingNotes | None]:
    """The files to publish, without the rare words of a vocabulary of words, and the training notes."""
    if source := title_source(folder.config, folder.runs[-1]):
        print(f"The tensors hold {source.rights}: see that you may pass them on.")
    if args.min_notes_of_word < 1:
        raise ValueError(f"`--min_notes_of_word` must be at least 1, got {args.min_notes_of_word}.")
    card = build_card(folder, release)
    notes = notes_of_model(folder, args, is_required=not is_dry_run)
    titles = frozenset(notes.titles if notes is not None else ())
    files = outgoing_files(folder, release, card, titles)
    for line in left_out(folder, release, titles):
        print(f"Left out of {line}.")
    if notes is not None and not holds_notes(folder.config):
        files, num_dropped = drop_rare_words(files, notes, args.min_notes_of_word, work_dir)
        if num_dropped:
            release = replace(release, dropped_words=num_dropped, min_notes_of_word=args.min_notes_of_word)
            files["README.md"] = build_card(folder, release).encode()
            print(
                f"{num_dropped:,} words that fewer than {args.min_notes_of_word} training notes have do not go out: the "
                "published copy reads them as unknown, and the model in this folder keeps them."
            )
    return files, notes


def check(
    folder: ModelFolder,
    release: Release,
    files: Mapping[str, Path | bytes],
    notes: TrainingNotes | None,
    min_notes_of_word: int,
) -> list[Finding]:
    """Run the privacy check and print its findings; nothing may be written or pushed unless the result is empty."""
    names = local_names(folder, public=release.target)
    # Rare words of open notes may go out, and do, where a model holds words of its notes.
    least = 0 if holds_notes(folder.config) else min_notes_of_word
    findings = check_files(files, names, notes, least, release.base_model)
    if release.with_weights and "generative" in folder.config:
        findings += probe(folder.path, notes)
    return report_findings(findings, len(files))


def report_findings(findings: list[Finding], num_files: int) -> list[Finding]:
    if not findings:
        print(f"Privacy check: nothing found in {counted(num_files, 'file')}.")
    for finding in findings:
        print(f"Privacy check: {finding}", file=sys.stderr)
    if findings:
        print("Nothing was written or pushed: remove what was found, then try again.", file=sys.stderr)
    return findings
