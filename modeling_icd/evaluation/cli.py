"""Measures a model on a split of a data set, and writes results, a report and predictions.

    modeling-icd evaluate runs/mine --data_dir DIR --split test
    modeling-icd evaluate runs/mine --test_file test.csv
    modeling-icd evaluate --compare RUN RUN ...     compares runs that were evaluated before
    torchrun --nproc_per_node 2 -m modeling_icd evaluate runs/mine --data_dir DIR     shares the notes among processes

The data set is by default the one that the model was trained on, read in the same way.
"""

import argparse
import sys
from pathlib import Path

from datasets.exceptions import DatasetsError
from rich.console import Console
from rich.table import Table

from dataset_scripts import BUILDERS
from dataset_scripts.arguments import add_data_options, command_parser
from dataset_scripts.command import run_command
from dataset_scripts.counts import counted
from dataset_scripts.files import check_writable, read_json

from ..inference.loading import load_coder_config, reader_arguments
from ..inference.processes import run_in_processes, this_process
from .icd_metrics.metrics import shown_in
from .model_data import builder_for, name_data, private_cache
from .predictions import write_predictions
from .report import bounds_text, write_report
from .results import summarize
from .results_file import write_results
from .scoring import add_shared_options, score_split


def predictions_dir_of(output_dir: Path, model_id: str) -> Path:
    """Where predictions go: with the results, unless those lie in the model folder.

    That folder may be published, and gold codes by admission must not be; then it is the folder's private neighbour.
    """
    model, output = Path(model_id).resolve(), output_dir.resolve()
    return Path(f"{model}-private") / output.relative_to(model) if output.is_relative_to(model) else output_dir


def print_table(results: dict) -> None:
    """Prints the headline figures."""
    table = Table(
        title=f"{results['dataset']} ({results['config']}), {results['split']}: {counted(results['num_notes'], 'note')}"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for name in (metric.name for metric in shown_in("table")):
        if name in results["metrics"]:
            table.add_row(name, f"{results['metrics'][name]:.4f}", bounds_text(results["intervals"].get(name)))
    Console().print(table)


def main(arguments: list[str] | None = None, name: str = "evaluate", description: str | None = __doc__) -> int:
    """The command line; `audit` is the same under another name, with a description of its own."""
    parser = command_parser(name, description, "MODEL [--data_dir DIR] [--split SPLIT] [options]")
    parser.add_argument("model", nargs="?", help="a model folder or Hub id")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="RUN", help="compare runs: folders with results.json"
    )
    add_data_options(parser, list(BUILDERS))
    parser.add_argument("--split", default="test", help="train, validation, test, or all: every record; default: test")
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="default: MODEL/evaluation/SPLIT, and for the predictions, which are patient data, "
        "MODEL-private/evaluation/SPLIT; with --compare: where the comparison goes",
    )
    add_shared_options(parser)
    parser.add_argument("--threshold", type=float, metavar="T", help="in place of the model's own rule")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples for intervals and tests")
    parser.add_argument(
        "--audit",
        nargs="?",
        const=True,
        metavar="FILE",
        help="also write audit.csv: likely missed and likely unsupported codes, given those that a coder assigned: the "
        "data set's own, or lines `hadm_id|code|code...` of a file",
    )
    parser.add_argument(
        "--allow_overlap",
        action="store_true",
        help="evaluate on a split that holds admissions that the model learned from, too; results, report and card say so",
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that came with the model")
    args = parser.parse_args(arguments)
    if (args.model is None) == (args.compare is None):
        parser.error("give a model, or --compare and two or more folders")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold must be in [0, 1], got {args.threshold}")
    if args.compare is not None and args.audit is not None:
        parser.error("--audit is for a model, not for --compare")
    return run_command(
        lambda: run_in_processes(lambda: compare(args) if args.compare else report(args)), DatasetsError
    )


def read_audit_file(args: argparse.Namespace, cache_dir: str) -> dict[int, list[int]]:
    """Reads the codes to audit, before a note is scored: a mistake in the file shows at once."""
    from ..extras.audit import read_assigned

    config = load_coder_config(args.model, args.trust_remote_code)
    builder = builder_for(
        config, args.dataset, args.data_dir, args.split, args.dataset_config, args.dataset_options, cache_dir
    )
    codes = [config.id2label[i] for i in range(config.num_labels)]
    assigned, num_unknown = read_assigned(
        Path(args.audit), list(builder.as_dataset(split=args.split)["hadm_id"]), codes
    )
    unknown = counted(num_unknown, "assigned code is", "assigned codes are")
    print(f"{counted(len(assigned), 'admission')} to audit; {unknown} not in the model's vocabulary.")
    return assigned


def report(args: argparse.Namespace) -> int:
    """Evaluates a model and writes everything about it."""
    cache_dir = args.cache_dir or private_cache(args.model)
    if isinstance(args.audit, str) and not Path(args.audit).is_file():
        raise FileNotFoundError(f"No file of assigned codes at {args.audit}.")
    name_data(args, load_coder_config(args.model, args.trust_remote_code).training_data)
    assigned = read_audit_file(args, cache_dir) if isinstance(args.audit, str) else None
    output_dir = args.output_dir or Path(args.model) / "evaluation" / args.split
    private_dir = predictions_dir_of(output_dir, args.model)
    for folder in (output_dir, private_dir):
        check_writable(folder, is_folder=True)
    scored = score_split(
        args.model,
        args.dataset,
        args.data_dir,
        args.split,
        args.dataset_config,
        args.dataset_options,
        batch_size=args.batch_size,
        threshold=args.threshold,
        cache_dir=cache_dir,
        trust_remote_code=args.trust_remote_code,
        reader=reader_arguments(args),
        allow_overlap=args.allow_overlap,
    )
    if this_process()[0] > 0:  # the first one writes
        return 0
    results, outcomes = summarize(scored, args.seed)
    print_table(results)
    if args.audit is not None:
        from ..extras.audit import audit, write_audit

        found = audit(
            scored.scores,
            outcomes,
            dict(enumerate(scored.gold)) if assigned is None else assigned,
            num_known=scored.num_known,
            hadm_ids=scored.hadm_ids,
            codes=scored.codes,
            descriptions=scored.descriptions,
        )
        print(write_audit(found, private_dir))
    warn_of_other_results(output_dir, results)
    predictions = write_predictions(private_dir, scored, outcomes)
    for path in (predictions, *write_report(results, output_dir), write_results(results, output_dir)):
        print(path)
    return 0


def warn_of_other_results(output_dir: Path, results: dict) -> None:
    """Say that results of other notes are replaced: those in a model's folder are the ones that its card shows."""
    path = output_dir / "results.json"
    if path.is_file():
        earlier = read_json(path, "evaluate again.").get("data_fingerprint")
        if earlier not in (None, results["data_fingerprint"]):
            print(f"warning: {path} held results of other notes, and is replaced.", file=sys.stderr)


def compare(args: argparse.Namespace) -> int:
    """Compares runs that were evaluated before."""
    from ..extras.compare import report as report_comparison

    return report_comparison(args.compare, args.seed, args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
