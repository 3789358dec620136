"""`python evaluate.py MODEL --dataset NAME --data_dir DIR --split NAME --output_dir R`: a model's figures on a split.

`python evaluate.py --compare R1 R2 ...`: runs that were evaluated, side by side.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from dataset_scripts.classification import classification_of
from dataset_scripts.command import run_command
from dataset_scripts.marker import is_synthetic

from ..decision_icd import calibrated_scores
from ..modeling_icd import pad_rows
from .audit import audit, read_assigned, write_audit
from .compare import compare_runs, render_comparison, write_comparison
from .data import add_shared_options, builder_for, load_coder_config, load_model, private_cache
from .icd_metrics.inputs import ClassIds
from .icd_metrics.metrics import shown_in
from .predictions import write_predictions
from .provenance import data_fingerprint
from .report import write_report
from .results import ScoredSplit, summarize
from .results_file import write_results


def score_notes(model, tokenizer, notes: list[str], batch_size: int = 8, store: Any = None) -> np.ndarray:
    """Scores `(N, C)` of whole notes, calibrated as the model's configuration says; 0 for every code of an empty note."""
    logits = logits_of_notes(model, tokenizer, notes, batch_size, store)
    return scores_of_logits(logits, model.config.calibration, empty_notes(notes))


def scores_of_logits(logits: np.ndarray, calibration: Any, is_empty: np.ndarray) -> np.ndarray:
    """Scores `(N, C)` of logits; 0 for every code of a note without text, of which a model can know nothing."""
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    return np.where(is_empty[:, None], np.float32(0), scores)


def empty_notes(notes: Sequence[str]) -> np.ndarray:
    """Which notes have no text, or white space alone, `(N,)` bool."""
    return np.array([not note.strip() for note in notes], bool)


@torch.no_grad()
def logits_of_notes(model, tokenizer, notes: list[str], batch_size: int = 8, store: Any = None) -> np.ndarray:
    """Logits `(N, C)` of whole notes, fp32, in the order given; notes of similar length share a batch.

    An empty note (see `empty_notes`) goes through no model; its logits are 0 and mean nothing.

    Args:
        store (`HiddenStates`, *optional*): where hidden states of a frozen backbone are kept from run to run.

    Raises:
        ValueError: where the model gives NaN or infinity, or the tokenizer no token for a note with text.
    """
    is_empty = empty_notes(notes)
    input_ids = [tokenizer(note, verbose=False)["input_ids"] for note in notes]
    rows_read = np.flatnonzero(~is_empty).tolist()
    without_tokens = [i for i in rows_read if not input_ids[i]]
    if without_tokens:
        raise ValueError(
            f"The tokenizer gives no token for {len(without_tokens)} of {len(notes)} notes that have text, the first being note "
            f"{without_tokens[0]} of the split: it is not the one that the model was trained with."
        )
    if store is not None:
        store.fill([input_ids[i] for i in rows_read])
    order = sorted(rows_read, key=lambda i: len(input_ids[i]))
    logits = np.zeros((len(notes), model.config.num_labels), dtype=np.float32)
    name, read = ("input_ids", torch.as_tensor) if store is None else ("hidden_states", store.read)
    for start in tqdm(range(0, len(order), batch_size), desc="Scoring", unit="batch"):
        rows = order[start : start + batch_size]
        padded, mask = pad_rows([read(input_ids[i]) for i in rows])
        output = model(**{name: padded.to(model.device)}, attention_mask=mask.to(model.device))
        logits[rows] = output.logits.float().cpu().numpy()
    check_logits(logits)
    return logits


def check_logits(logits: np.ndarray) -> None:
    """Raise a `ValueError` where a model gave no number for some note: no figure may rest on those."""
    wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"The model gives NaN or infinity for {len(wrong)} of {len(logits)} notes, the first being note {wrong[0]} of the "
            "split: its weights are damaged, training diverged, or the notes overflow its data type."
        )


def gold_columns(split, label2id: dict[str, int]) -> tuple[ClassIds, list[str]]:
    """Gold codes as columns of the score matrix; codes that the model does not know get columns behind its own.

    Returns:
        The columns of each note, and the unknown codes in the order of theirs.
    """
    names = split.features["codes"].feature.names
    used = sorted({code for codes in split["codes"] for code in codes})
    unknown = [names[i] for i in used if names[i] not in label2id]
    columns = {**label2id, **{code: len(label2id) + i for i, code in enumerate(unknown)}}
    return ClassIds([columns[names[code]] for code in codes] for codes in split["codes"]), unknown


def score_split(
    model_id: str,
    dataset: str,
    data_dir: str,
    split: str,
    config: str | None = None,
    options: Sequence[str] = (),
    *,
    cache_dir: str | None = None,
    batch_size: int = 8,
    threshold: float | None = None,
    trust_remote_code: bool = False,
    make_store: Callable | None = None,
) -> ScoredSplit:
    """Scores a split, for `summarize` to compute what `results.json` holds.

    A gold code that the model never learned counts as missed (score 0): leaving it out would flatter the model.

    Args:
        model_id (`str`): a folder or Hub id.
        split (`str`): a split of the data set, or `all`: every record of the folder.
        config (`str`, *optional*): the data set's configuration; by default the one that the model was trained on.
        options (`Sequence[str]`): of the configuration, `NAME=VALUE`; before them, by default, those of training.
        cache_dir (`str`, *optional*): where the built data set, notes included, is kept.
        batch_size (`int`): notes scored together.
        threshold (`float`, *optional*): in place of the model's own.
        trust_remote_code (`bool`): whether to run the code that came with the model.
        make_store (`Callable`, *optional*):
            Gives a `HiddenStates` for the model, whose backbone is frozen: notes in it are not run through it again.
    """
    model, tokenizer = load_model(model_id, trust_remote_code)
    builder = builder_for(model.config, dataset, data_dir, split, config, options, cache_dir)
    records = builder.as_dataset(split=split)
    gold, unknown = gold_columns(records, model.config.label2id)
    store = make_store(model) if make_store is not None and model.config.freeze_backbone else None
    notes = list(records["text"])
    is_empty = empty_notes(notes)
    if is_empty.any():
        print(
            f"{is_empty.sum()} of {len(notes)} notes are empty; each scores 0 for every code, and its gold codes are missed."
        )
    logits = logits_of_notes(model, tokenizer, notes, batch_size, store)
    if unknown:
        print(f"{len(unknown)} codes of this split are not in the model's vocabulary; each counts as missed.")

    def scores_of(calibration) -> np.ndarray:
        return np.pad(scores_of_logits(logits, calibration, is_empty), ((0, 0), (0, len(unknown))))

    decision = model.config.threshold if threshold is None else threshold
    if isinstance(decision, list):
        decision = np.array([*decision, *[1.0] * len(unknown)])
    is_own, rule = threshold is None, model.config.threshold_rule
    chosen = "fixed" if rule == "fixed" else "chosen on validation"
    codes = [model.config.id2label[i] for i in range(model.config.num_labels)] + unknown
    hadm_ids = list(records["hadm_id"])
    about = {
        "model": str(model_id),
        "dataset": dataset,
        "config": builder.config.name,
        "split": split,
        "num_notes": len(records),
        "num_empty_notes": int(is_empty.sum()),
        "num_codes": len(codes),
        "unknown_codes": unknown,
        "data_fingerprint": data_fingerprint(hadm_ids, notes, [[codes[c] for c in of_note] for of_note in gold]),
        "synthetic": is_synthetic(builder.config.data_dir),
        "training_seed": (model.config.training_data or {}).get("seed"),
        "threshold_rule": rule if is_own else "given",
        "threshold_source": f"model configuration ({chosen})" if is_own else "--threshold",
    }
    num_words = [len(note.split()) for note in notes]
    return ScoredSplit(
        scores_of(model.config.calibration),
        gold,
        codes,
        hadm_ids,
        num_words,
        decision,
        training_counts=(model.config.training_data or {}).get("code_counts"),
        attributes=code_attributes(codes),
        about=about,
        descriptions=model.config.code_descriptions or {},
        top_k=model.config.predict_top_k if is_own else None,
        calibration=model.config.calibration,
        uncalibrated=None if model.config.calibration is None else scores_of(None),
        review=None
        if model.config.review_threshold is None
        else {"threshold": model.config.review_threshold, "precision_asked": model.config.review_precision},
        target_recall=model.config.target_recall if is_own else None,
        decision=model.config.decision if is_own else None,
    )


def code_attributes(codes: list[str]) -> dict[str, dict[str, str]]:
    """What `strata` can know of codes: everything of ICD-9-CM and of ICD-10; of others the category alone."""
    classification = classification_of(codes)
    if classification is None:
        return {code: {"category": code.split(".")[0]} for code in codes}
    families = {code: classification.family_of(code) for code in codes}
    return {
        code: {
            "chapter": f"{family.chapter} {classification.chapters[family.chapter]}",
            "block": family.block,
            "category": family.category,
            "kind": classification.kind_of(code),
        }
        for code, family in families.items()
    }


def predictions_dir_of(output_dir: Path, model_id: str) -> Path:
    """Where predictions go: with the results, unless those lie in the model folder.

    That folder may be published, and gold codes by admission must not be; then it is the folder's private neighbour.
    """
    model, output = Path(model_id).resolve(), output_dir.resolve()
    return Path(f"{model}-private") / output.relative_to(model) if output.is_relative_to(model) else output_dir


def print_table(results: dict) -> None:
    """Prints the headline figures."""
    table = Table(
        title=f"{results['dataset']} ({results['config']}), {results['split']}: {results['num_notes']} notes"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for name in (metric.name for metric in shown_in("table")):
        if name in results["metrics"]:
            low, high = results["intervals"].get(name, (None, None))
            interval = "" if low is None else f"{low:.4f} to {high:.4f}"
            table.add_row(name, f"{results['metrics'][name]:.4f}", interval)
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    parser.add_argument("model", nargs="?", help="a model folder or Hub id")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="RUN", help="compare runs: folders with results.json"
    )
    parser.add_argument("--dataset", help="mimic3, mimic4, cmc2007 or codiesp")
    parser.add_argument("--data_dir", help="the folder that holds the data set's own files")
    parser.add_argument("--split", default="test", help="train, validation, test, or all: every record of the folder")
    parser.add_argument("--dataset_config", help="default: the configuration that the model was trained on")
    parser.add_argument(
        "--dataset_options", nargs="+", default=[], metavar="NAME=VALUE", help="of the configuration; as in training"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="where results.json, the report and predictions.parquet go; default: MODEL/evaluation/SPLIT, and for the "
        "predictions, which are patient data, MODEL-private/evaluation/SPLIT; with --compare: where the comparison goes",
    )
    add_shared_options(parser)
    parser.add_argument("--threshold", type=float, help="in place of the model's own")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples behind intervals and tests")
    parser.add_argument(
        "--audit",
        nargs="?",
        const=True,
        metavar="FILE",
        help="write audit.csv beside the predictions: the likely missed and the likely unsupported codes of each note, given "
        "those that a coder assigned: the data set's own or, with FILE, lines `hadm_id|code|code...`",
    )
    parser.add_argument("--trust_remote_code", action="store_true")
    args = parser.parse_args(arguments)
    if (args.model is None) == (args.compare is None):
        parser.error("give a model, or --compare and two or more folders")
    if args.model is not None and not (args.dataset and args.data_dir):
        parser.error("a model needs --dataset and --data_dir")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold must be in [0, 1], got {args.threshold}")
    if args.compare is not None and args.audit is not None:
        parser.error("--audit is for a model, not for --compare")
    return run_command(lambda: compare(args) if args.compare else report(args), DatasetsError)


def read_audit_file(args: argparse.Namespace, cache_dir: str) -> dict[int, list[int]]:
    """Reads the codes to audit, before a note is scored: a mistake in the file shows at once."""
    path = Path(args.audit)
    if not path.is_file():
        raise FileNotFoundError(f"No file of assigned codes at {path}.")
    config = load_coder_config(args.model, args.trust_remote_code)
    builder = builder_for(
        config, args.dataset, args.data_dir, args.split, args.dataset_config, args.dataset_options, cache_dir
    )
    codes = [config.id2label[i] for i in range(config.num_labels)]
    assigned, num_unknown = read_assigned(path, list(builder.as_dataset(split=args.split)["hadm_id"]), codes)
    print(f"{len(assigned)} admissions to audit; {num_unknown} assigned codes are not in the model's vocabulary.")
    return assigned


def report(args: argparse.Namespace) -> int:
    """Evaluates a model and writes everything about it."""
    cache_dir = args.cache_dir or private_cache(args.model)
    assigned = read_audit_file(args, cache_dir) if isinstance(args.audit, str) else None
    output_dir = args.output_dir or Path(args.model) / "evaluation" / args.split
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
    )
    results, outcomes = summarize(scored, args.seed)
    print_table(results)
    private_dir = predictions_dir_of(output_dir, args.model)
    if args.audit is not None:
        found = audit(
            scored.scores,
            outcomes,
            dict(enumerate(scored.gold)) if assigned is None else assigned,
            num_known=len(scored.codes) - len(scored.about["unknown_codes"]),
            hadm_ids=scored.hadm_ids,
            codes=scored.codes,
            descriptions=scored.descriptions,
        )
        print(write_audit(found, private_dir))
    predictions = write_predictions(
        private_dir,
        hadm_ids=scored.hadm_ids,
        num_words=scored.num_words,
        codes=scored.codes,
        scores=scored.scores,
        outcomes=outcomes,
        threshold=scored.threshold,
        about={name: results[name] for name in ("model", "dataset", "config", "split", "data_fingerprint")},
    )
    for path in (predictions, *write_report(results, output_dir), write_results(results, output_dir)):
        print(path)
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compares runs that were evaluated before."""
    comparison = compare_runs(args.compare, seed=args.seed)
    print(render_comparison(comparison))
    if args.output_dir is not None:
        print(write_comparison(comparison, args.output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
