"""Scores a split of a data set with a model, and collects scores, gold codes and facts about codes for `summarize`."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dataset_scripts.codes.classification import classification_of
from dataset_scripts.marker import is_synthetic

from ..decision_icd import calibrated_scores
from ..inference.hidden_states import HiddenStates
from ..inference.loading import ReaderArguments, add_reader_options, describe_reader, load_model
from ..inference.loop import logits_of_notes
from ..inference.tokens import empty_notes
from .icd_metrics.inputs import ClassIds
from .model_data import builder_for
from .provenance import data_fingerprint
from .results import ScoredSplit
from .yardsticks import training_warning


def score_notes(
    model, tokenizer, notes: list[str], batch_size: int = 8, states: HiddenStates | None = None
) -> np.ndarray:
    """Scores `(N, C)` of whole notes, calibrated as the model's configuration says; 0 for every code of an empty note."""
    logits = logits_of_notes(model, tokenizer, notes, batch_size, states)
    return scores_of_logits(logits, model.config.calibration, empty_notes(notes))


def scores_of_logits(logits: np.ndarray, calibration: Any, is_empty: np.ndarray) -> np.ndarray:
    """Scores `(N, C)` of logits; 0 for every code of a note without text, of which a model can know nothing."""
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    return np.where(is_empty[:, None], np.float32(0), scores)


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
    make_store: Callable[..., HiddenStates] | None = None,
    reader: ReaderArguments | None = None,
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
        reader (`ReaderArguments`, *optional*): how the model is loaded; by default as it was saved.
    """
    model, tokenizer = load_model(model_id, trust_remote_code, reader)
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
        "reader": describe_reader(model),
    }
    return ScoredSplit(
        scores_of(model.config.calibration),
        gold,
        codes,
        hadm_ids,
        num_words=[len(note.split()) for note in notes],
        attributes=code_attributes(codes),
        uncalibrated=None if model.config.calibration is None else scores_of(None),
        **described_by_config(model.config, about, threshold, len(unknown)),
    )


def described_by_config(config, about: dict[str, Any], threshold: float | None, num_unknown: int) -> dict[str, Any]:
    """What a model's configuration adds to a scored split: how it decides, and what it was trained on.

    Args:
        config (`ICDBaseConfig`): Of the model.
        about (`dict`): What was scored, to which the rule, its source, the seed of training and a warning
            about it are added.
        threshold (`float`, *optional*): In place of the model's own decision.
        num_unknown (`int`): Codes of the split that the model does not know; their threshold is 1, which no score exceeds.
    """
    is_own, rule = threshold is None, config.threshold_rule
    limits = config.threshold if threshold is None else threshold
    if isinstance(limits, list):
        limits = np.array([*limits, *[1.0] * num_unknown])
    chosen = "fixed" if rule == "fixed" else "chosen on validation"
    training_data = config.training_data or {}
    review = {"threshold": config.review_threshold, "precision_asked": config.review_precision}
    return {
        "about": {
            **about,
            "training_seed": training_data.get("seed"),
            "training_warning": training_warning(training_data),
            "threshold_rule": rule if is_own else "given",
            "threshold_source": f"model configuration ({chosen})" if is_own else "--threshold",
        },
        "threshold": limits,
        "training_counts": training_data.get("code_counts"),
        "descriptions": config.code_descriptions or {},
        "top_k": config.predict_top_k if is_own else None,
        "calibration": config.calibration,
        "review": None if config.review_threshold is None else review,
        "target_recall": config.target_recall if is_own else None,
        "decision": config.decision if is_own else None,
    }


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
    """Options of every command that scores notes; the first two are taken under `train.py`'s name, too."""
    parser.add_argument(
        "--cache_dir", "--data_cache_dir", help="where the built data set goes; default: MODEL-private/cache"
    )
    parser.add_argument(
        "--batch_size", "--per_device_eval_batch_size", type=int, default=8, help="notes scored together; default: 8"
    )
    add_reader_options(parser)
