"""Scores a split of a data set with a model, and collects scores, gold codes and facts about codes for `summarize`."""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import torch

from dataset_scripts.builders.public_files import is_invented
from dataset_scripts.codes.classification import classification_of
from dataset_scripts.codes.icd9 import quote_code
from dataset_scripts.counts import counted

from ..decision_icd import calibrated_scores, decision_fields
from ..generative_icd import is_generative
from ..inference.hidden_states import HiddenStates
from ..inference.learned_notes import HOLD_LEARNED, check_overlap, warn_of_learned
from ..inference.loading import ReaderArguments, add_reader_options, describe_reader, load_model
from ..inference.loop import check_tokens, logits_of_notes, logits_of_tokens
from ..inference.processes import first_process_first
from ..inference.tokens import codes_of_notes, empty_notes, texts_of_notes, tokenize_notes
from .icd_metrics.inputs import ClassIds
from .model_data import builder_for
from .results import ScoredSplit
from .results_file import data_fingerprint
from .yardsticks import training_warning


def score_notes(model, tokenizer, notes: list[str], batch_size: int = 8) -> np.ndarray:
    """Scores `(N, C)` of whole notes, calibrated as the model's configuration says; 0 for every code of an empty note."""
    logits = logits_of_notes(model, tokenizer, notes, batch_size)
    return scores_of_logits(logits, model.config.calibration, empty_notes(notes))


def scores_of_logits(logits: np.ndarray, calibration: Any, is_empty: np.ndarray) -> np.ndarray:
    """Scores `(N, C)` of logits; 0 for every code of a note without text, of which a model can know nothing."""
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    return np.where(is_empty[:, None], np.float32(0), scores)


def gold_columns(split, label2id: dict[str, int]) -> tuple[ClassIds, list[str]]:
    """Gold codes as columns of the score matrix; codes that the model does not know get columns behind its own.

    Args:
        split (`datasets.Dataset`): with `codes` as strings or as ids; see [`~modeling_icd.inference.tokens.code_reader`].

    Returns:
        The columns of each note, and the unknown codes, sorted, in the order of theirs.
    """
    gold = codes_of_notes(split)
    unknown = sorted({code for codes in gold for code in codes} - label2id.keys())
    columns = {**label2id, **{code: len(label2id) + i for i, code in enumerate(unknown)}}
    return ClassIds([columns[code] for code in codes] for codes in gold), unknown


def check_codes_are_known(split: datasets.Dataset, label2id: dict[str, int], name: str) -> None:
    """Raise a `ValueError` where a model knows no code of a split, so that each of its figures would be 0; `name` is the split's."""
    gold, unknown = gold_columns(split, label2id)
    if unknown and min(column for of_note in gold for column in of_note) >= len(label2id):
        known = next(iter(label2id), "")
        raise ValueError(
            f"The model knows none of the {len(unknown):,} codes of the split {name!r}, such as {quote_code(unknown[0])}; it knows codes "
            f"such as {quote_code(known)}. Are these the notes that it is meant for, and is `code_system` that of its training?"
        )


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
    make_store: Callable[..., HiddenStates] | None = None,
    reader: ReaderArguments | None = None,
    allow_overlap: bool = False,
) -> ScoredSplit:
    """Scores a split, for `summarize` to compute what `results.json` holds.

    A gold code that the model never learned counts as missed (score 0): leaving it out would flatter the model.

    Args:
        model_id (`str`): a folder or Hub id.
        split (`str`): a split of the data set, or `all`: every record of the folder.
        config, options (*optional*): the data set's configuration and its options, `NAME=VALUE`; by default as in training.
        batch_size (`int`): notes scored together.
        threshold (`float`, *optional*): in place of the model's own rule.
        make_store (`Callable`, *optional*):
            Gives a `HiddenStates` for the model, whose backbone is frozen: notes in it are not run through it again.
        reader (`ReaderArguments`, *optional*): how the model is loaded; by default as it was saved.
        allow_overlap (`bool`): whether the split may hold admissions that the model learned from, as `train` and `all` may.

    Raises:
        ValueError: where the model knows no code of the split, or learned from some of its admissions.
    """
    model, tokenizer = load_model(model_id, trust_remote_code, reader)
    builder = first_process_first(
        lambda: builder_for(model.config, dataset, data_dir, split, config, options, cache_dir)
    )
    records = builder.as_dataset(split=split)
    check_codes_are_known(records, model.config.label2id, split)
    about: dict[str, Any] = {
        "model": str(model_id),
        "dataset": dataset,
        "config": builder.config.name,
        "split": split,
        "synthetic": is_invented(builder),
        "reader": describe_reader(model),
    }
    about["num_learned_notes"] = check_overlap(
        model_id, records, dataset, about["config"], split, is_synthetic=about["synthetic"], allow=allow_overlap
    )
    store = make_store(model) if make_store is not None and model.config.has_fixed_states else None
    notes = texts_of_notes(records)
    if split not in HOLD_LEARNED and not about["num_learned_notes"]:
        warn_of_learned(model_id, notes)
    input_ids = tokenize_notes(tokenizer, notes)
    check_tokens(input_ids, notes, may_lack=True)
    is_empty = np.array([not ids for ids in input_ids], bool)
    if is_empty.any():
        print(f"{count_empty(is_empty, notes)}; each scores 0 for every code, and its gold codes are missed.")
    started = time.monotonic()
    logits = logits_of_tokens(model, input_ids, batch_size, store)
    if is_generative(model.config):
        about["generation"] = model.say_counts(time.monotonic() - started)
    return scored_split(model.config, records, logits, is_empty, about, threshold)


def count_empty(is_empty: np.ndarray, notes: Sequence[str]) -> str:
    """Say in words how many notes, `(N,)`, have no token, and how many of these have text: a word model knows none of its words."""
    wordless = int((is_empty & ~empty_notes(notes)).sum())
    why = f" ({wordless:,} of them with text, but without a word that the model knows)" if wordless else ""
    of_all = f"of {len(notes):,} notes"
    return f"{counted(int(is_empty.sum()), f'{of_all} is', f'{of_all} are')} empty{why}"


def scored_split(
    config, records, logits: np.ndarray, is_empty: np.ndarray, about: dict[str, Any], threshold: float | None
) -> ScoredSplit:
    """Puts together what the model's configuration, the records of a split and their logits `(N, C)` say."""
    gold, unknown = gold_columns(records, config.label2id)
    if unknown:
        number = counted(len(unknown), "code of this split is", "codes of this split are")
        print(f"{number} not in the model's vocabulary; each counts as missed.")

    def scores_of(calibration) -> np.ndarray:
        return np.pad(scores_of_logits(logits, calibration, is_empty), ((0, 0), (0, len(unknown))))

    codes = [config.id2label[i] for i in range(config.num_labels)] + unknown
    notes, hadm_ids = texts_of_notes(records), list(records["hadm_id"])
    trained_on = config.training_data or {}
    chosen = "fixed" if config.threshold_rule == "fixed" else "chosen on validation"
    return ScoredSplit(
        scores_of(config.calibration),
        gold,
        codes,
        hadm_ids,
        num_words=[len(note.split()) for note in notes],
        decision=decision_in_force(config, threshold, len(unknown)),
        training_counts=trained_on.get("code_counts"),
        attributes=code_attributes(codes),
        about={
            **about,
            "num_notes": len(records),
            "num_empty_notes": int(is_empty.sum()),
            "num_codes": len(codes),
            "unknown_codes": unknown,
            "data_fingerprint": data_fingerprint(hadm_ids, notes, [[codes[c] for c in of_note] for of_note in gold]),
            "training_seed": trained_on.get("seed"),
            "training_warning": training_warning(trained_on),
            "threshold_rule": config.threshold_rule if threshold is None else "given",
            "threshold_source": f"model configuration ({chosen})" if threshold is None else "--threshold",
        },
        descriptions=config.code_descriptions or {},
        uncalibrated=None if config.calibration is None else scores_of(None),
    )


def decision_in_force(config, threshold: float | None, num_unknown: int) -> dict[str, Any]:
    """A model's decision, or a given threshold in place of its rule, for its own codes and those that it does not know."""
    if threshold is not None:
        kept = ("calibration", "review_threshold", "review_precision")
        return decision_fields() | {"threshold": threshold} | {name: config.decision[name] for name in kept}
    limits = config.threshold
    if isinstance(limits, list):
        limits = [*limits, *[1.0] * num_unknown]  # which no score exceeds
    return config.decision | {"threshold": limits}


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


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that scores notes; the first two are taken under `modeling-icd train`'s name, too."""
    where = "where the built data set goes; default: MODEL-private/cache"
    parser.add_argument("--cache_dir", "--data_cache_dir", metavar="DIR", help=where)
    names = ("--batch_size", "--per_device_eval_batch_size")
    parser.add_argument(*names, type=int, default=8, metavar="N", help="notes scored together; default: 8")
    add_reader_options(parser)
