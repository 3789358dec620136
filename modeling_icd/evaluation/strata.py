"""Where a model fails: counts and F1 by groups of codes, groups of notes and level of the hierarchy; frequent errors.

What is known of a code comes in one mapping, `{code: {"chapter", "block", "category", "kind"}}`, any of them left out:

- `category`: the code before the dot (401 of 401.9; the table 0BH- of an ICD-10-PCS code, which has no dot); `block`
  (401-405) and `chapter` (390-459) of the classification;
- `kind`: `"diagnosis"` or `"procedure"`.

Counts of the strata of one kind add up to those of the split, except those of the levels of the hierarchy, where codes join.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .icd_metrics.metrics import Counts, divide, ratios
from .outcomes import Outcomes, counts_per_code, counts_per_note, join_codes


CodeAttributes = Mapping[str, Mapping[str, str]]

FREQUENCY_BANDS = ((0, 0), (1, 5), (6, 10), (11, 50), (51, 500), (501, None))  # training notes of a code
NUM_CODES_BANDS = ((0, 0), (1, 1), (2, 5), (6, 10), (11, 20), (21, None))  # gold codes of a note
NUM_LENGTH_BANDS = 5
LEVELS = ("chapter", "block", "category", "code")
UNKNOWN = "unknown"
RELATIONS = ("ancestor", "sibling", "category", "block", "chapter", "none")
MAX_FALSE_ALARMS = 500  # of a note; one with more tells nothing of which code is taken for which
MIN_GOLD_OF_WORST = 20
NUM_LISTED = 20


def band_names(bands: Sequence[tuple[int, int | None]]) -> list[str]:
    return [f">{low - 1}" if high is None else str(low) if low == high else f"{low}-{high}" for low, high in bands]


def in_bands(values: Sequence[int] | np.ndarray, bands: Sequence[tuple[int, int | None]]) -> list[str]:
    """Return the name of the band of each value; bands start where the one before ends."""
    names = band_names(bands)
    index = np.searchsorted([low for low, _ in bands], values, side="right") - 1
    return [names[i] for i in index]


def length_bands(num_words: Sequence[int] | np.ndarray) -> tuple[list[str], list[str]]:
    """Bands of note length with about as many notes each, and the band of each note, by name.

    The edges are those of the split's own quintiles: reports of 30 words and discharge summaries of 2,000 alike get bands
    that hold notes. Notes of one length stay together, so that there may be fewer than five.
    """
    lengths = np.asarray(num_words)
    edges = np.unique(np.quantile(lengths, np.arange(1, NUM_LENGTH_BANDS) / NUM_LENGTH_BANDS, method="lower"))
    index = np.searchsorted(edges, lengths, side="left")  # an edge belongs to the band below it
    names = {}
    for band in np.unique(index):
        low, high = lengths[index == band].min(), lengths[index == band].max()
        names[band] = f"{low}-{high}" if low < high else str(low)
    return list(names.values()), [names[band] for band in index]


def strata_of(
    counts: Counts, names: Sequence[str], order: Sequence[str], unit: str = "codes", mean: str = "f1_macro"
) -> list[dict[str, Any]]:
    """Counts and F1 of groups of codes or of notes.

    Args:
        counts (`Counts`): Of each code, or of each note.
        names (`Sequence[str]`): The stratum of each.
        order (`Sequence[str]`): Of the strata; one without a member is left out.
        unit, mean (`str`): What is counted, `codes` or `notes`, and what their mean F1 is called.

    Returns:
        For each stratum `stratum`, its number of codes or notes, `gold`, `predicted`, `hits` (pairs), `precision`, `recall`,
        `f1_micro`, and the mean of the F1 of each code or note.
    """
    strata = []
    for name, members in _members(names, order):
        figures = _figures(*Counts(*(of_kind[members] for of_kind in counts)), mean=mean)
        strata.append({"stratum": name, f"num_{unit}": len(members), **figures})
    return strata


def level_strata(outcomes: Outcomes, codes: Sequence[str], attributes: CodeAttributes) -> list[dict[str, Any]]:
    """The same predictions scored at each level of the hierarchy that is known: a near miss counts where it is right.

    At a level, the gold and the predicted set of a note hold the groups of its codes, each group once. A code whose group is
    not known is a group of its own.
    """
    strata = []
    for level in known_levels(attributes):
        joined = join_codes(outcomes, group_names(codes, attributes, level))
        strata.append({"stratum": level, "num_codes": joined.num_codes, **_figures(*counts_per_code(joined))})
    return strata


def heat_map(
    outcomes: Outcomes, codes: Sequence[str], attributes: CodeAttributes, names: Sequence[str], order: Sequence[str]
) -> list[dict[str, Any]]:
    """Micro F1 of each group of codes at each level below the chapter; `names` and `order` as in `strata_of`.

    For each group `stratum`, `gold` (pairs of full codes) and one F1 for each level.
    """
    levels = [level for level in known_levels(attributes) if level != "chapter"]
    strata = []
    for name, members in _members(names, order):
        row: dict[str, Any] = {"stratum": name, "gold": int(np.isin(outcomes.gold_codes, members).sum())}
        for level in levels:
            groups = group_names(codes, attributes, level)
            within = [group if of_code == name else None for group, of_code in zip(groups, names, strict=True)]
            row[level] = _figures(*counts_per_code(join_codes(outcomes, within)))["f1_micro"]
        strata.append(row)
    return strata


def hierarchical_f1(outcomes: Outcomes, codes: Sequence[str], attributes: CodeAttributes) -> dict[str, float]:
    """Hierarchical precision, recall and F1 (Kiritchenko et al. 2006; Silla and Freitas 2011).

    With G_i and P_i the gold and the predicted codes of note i together with all their ancestors (category, block and
    chapter, as far as known), each once:

        hP = sum |G_i and P_i| / sum |P_i|     hR = sum |G_i and P_i| / sum |G_i|     hF = 2 hP hR / (hP + hR)
    """
    known = [attributes.get(code, {}) for code in codes]
    categories = [of_code.get("category", code) for of_code, code in zip(known, codes, strict=True)]
    above = [[of_code.get(level) for of_code in known] for level in ("chapter", "block")]
    # A category without further digits is one node.
    below = [None if code == category else code for code, category in zip(codes, categories, strict=True)]
    nodes: list[Sequence[str | None]] = [*above, categories, below]
    counts = [counts_per_code(join_codes(outcomes, names)) for names in nodes]
    hits, predicted, gold = (int(sum(of_level.sum() for of_level in kind)) for kind in zip(*counts, strict=True))
    precision, recall, f1, _ = ratios(hits, predicted, gold)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "gold": gold,
        "predicted": predicted,
        "hits": hits,
    }


def make_strata(
    outcomes: Outcomes,
    codes: Sequence[str],
    num_words: Sequence[int] | np.ndarray,
    *,
    attributes: CodeAttributes,
    training_counts: Mapping[str, int] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """All strata of a split by kind; those of which nothing is known are left out.

    Args:
        codes (`Sequence[str]`): By class id.
        num_words (`Sequence[int]` of length N): Length of each note.
        training_counts (`Mapping[str, int]`, *optional*): Training notes of each code; a code not in it has none.
    """
    strata: dict[str, list[dict[str, Any]]] = {}
    of_codes, of_notes = counts_per_code(outcomes), counts_per_note(outcomes)
    if training_counts is not None:
        counts = [training_counts.get(code, 0) for code in codes]
        strata["frequency"] = strata_of(of_codes, in_bands(counts, FREQUENCY_BANDS), band_names(FREQUENCY_BANDS))
    groups = None  # the finest of these two that is known
    kinds = [attributes.get(code, {}).get("kind", UNKNOWN) for code in codes]
    for name in ("kind", "chapter"):
        if any(name in of_code for of_code in attributes.values()):
            names = [attributes.get(code, {}).get(name, UNKNOWN) for code in codes]
            # Chapters in the order of the classification, diagnoses first.
            order = list(dict.fromkeys(group for _, _, group in sorted(zip(kinds, codes, names, strict=True))))
            strata[name] = strata_of(of_codes, names, order)
            groups = names, order
    if groups is not None:
        strata["heat_map"] = heat_map(outcomes, codes, attributes, *groups)
    strata["level"] = level_strata(outcomes, codes, attributes)
    lengths, length_of_note = length_bands(num_words)
    bands_of_notes = {
        "length": (length_of_note, lengths),
        "num_codes": (in_bands(of_notes.gold, NUM_CODES_BANDS), band_names(NUM_CODES_BANDS)),
    }
    for name, (bands, order) in bands_of_notes.items():
        strata[name] = strata_of(of_notes, bands, order, "notes", "f1_instance_mean")
    return strata


def make_errors(
    outcomes: Outcomes,
    codes: Sequence[str],
    strata: Mapping[str, list[dict[str, Any]]],
    *,
    attributes: CodeAttributes,
) -> dict[str, Any]:
    """Error analysis: confusions, codes never or always predicted, worst strata, hierarchical F1; each with counts."""
    _, predicted, gold = counts_per_code(outcomes)
    never = np.flatnonzero((gold > 0) & (predicted == 0))
    never = never[np.argsort(-gold[never], kind="stable")]

    def listed(found: np.ndarray) -> dict[str, Any]:
        first = [{"code": codes[c], "gold": int(gold[c])} for c in found[:NUM_LISTED]]
        return {"num_codes": len(found), "gold": int(gold[found].sum()), "codes": first}

    candidates = [
        {"kind": kind, "stratum": row["stratum"], "gold": row["gold"], "f1_micro": row["f1_micro"]}
        for kind, rows in strata.items()
        if kind not in ("level", "heat_map")
        for row in rows
        if row["gold"] >= MIN_GOLD_OF_WORST
    ]
    return {
        "confusions": confusions(outcomes, codes, attributes),
        "never_predicted": listed(never),
        "always_predicted": listed(np.flatnonzero(predicted == outcomes.num_notes)),
        "worst_strata": sorted(candidates, key=lambda row: row["f1_micro"])[:5],
        "hierarchical": hierarchical_f1(outcomes, codes, attributes),
    }


def confusions(outcomes: Outcomes, codes: Sequence[str], attributes: CodeAttributes) -> dict[str, Any]:
    """Which codes are predicted in place of which, by `excess`.

    A pair of codes is confused in a note where one is gold and missed and the other predicted and not gold. Frequent codes
    meet by chance: with m_a misses of code a, f_b false alarms of code b and N notes

        excess = #{notes: a missed, b a false alarm} - m_a f_b / N

    Each pair has a relation: `ancestor` (one code is the start of the other: 250.0, 250.01), `sibling` (alike but for the
    last character, in one category), the closest of `category`, `block` and `chapter` that both share, or `none`.

    Returns:
        `pairs`, the 20 with the largest positive excess; `misses`: how many missed codes there are, by the closest relation
        to any false alarm of their note; `num_notes_left_out`: with more than 500 false alarms.
    """
    num_notes, num_codes = outcomes.num_notes, outcomes.num_codes
    alarms = np.stack([outcomes.predicted_notes, outcomes.predicted_codes])[:, ~outcomes.predicted_is_hit]
    missed = np.stack([outcomes.gold_notes, outcomes.gold_codes])[:, ~outcomes.is_hit]
    is_kept = np.bincount(alarms[0], minlength=num_notes) <= MAX_FALSE_ALARMS
    alarm_notes, alarm_codes = alarms[:, is_kept[alarms[0]]]
    missed_notes, missed_codes = missed[:, is_kept[missed[0]]]
    # Every miss with every false alarm of its note: places among the misses, and among the alarms.
    starts, stops = np.searchsorted(alarm_notes, [missed_notes, missed_notes + 1])
    miss = np.repeat(np.arange(len(missed_codes)), stops - starts)
    place = np.concatenate([np.arange(0), *map(np.arange, starts, stops)])
    keys, which, counts = np.unique(
        missed_codes[miss] * num_codes + alarm_codes[place], return_inverse=True, return_counts=True
    )
    gold, alarm = np.divmod(keys, num_codes)
    expected = (
        np.bincount(missed_codes, minlength=num_codes)[gold]
        * np.bincount(alarm_codes, minlength=num_codes)[alarm]
        / max(1, int(is_kept.sum()))
    )
    relation = np.array(
        [RELATIONS.index(relation_of(codes[g], codes[a], attributes)) for g, a in zip(gold, alarm, strict=True)],
        np.int64,
    )
    closest = np.full(len(missed_codes), len(RELATIONS) - 1)
    np.minimum.at(closest, miss, relation[which])
    excess = counts - expected
    order = np.lexsort((keys, -excess))[:NUM_LISTED]
    return {
        "pairs": [
            {
                "gold": codes[gold[i]],
                "predicted": codes[alarm[i]],
                "relation": RELATIONS[relation[i]],
                "notes": int(counts[i]),
                "excess": float(excess[i]),
            }
            for i in order
            if excess[i] > 0
        ],
        "misses": {name: int((closest == i).sum()) for i, name in enumerate(RELATIONS)},
        "num_notes_left_out": int((~is_kept).sum()),
    }


def relation_of(first: str, second: str, attributes: CodeAttributes) -> str:
    """The closest relation of two codes, one of `RELATIONS`; see `confusions`."""
    categories = {attributes.get(code, {}).get("category", code.split(".")[0]) for code in (first, second)}
    if len(categories) == 1:
        longer, shorter = sorted((first, second), key=len, reverse=True)
        if longer.startswith(shorter):
            return "ancestor"
        if len(first) == len(second) and first[:-1] == second[:-1]:
            return "sibling"
    for level in ("category", "block", "chapter"):
        groups = [attributes.get(code, {}).get(level) for code in (first, second)]
        if groups[0] is not None and groups[0] == groups[1]:
            return level
    return "none"


def known_levels(attributes: CodeAttributes) -> list[str]:
    """The levels that some code has, from the widest to the full code."""
    return [level for level in LEVELS[:-1] if any(level in of_code for of_code in attributes.values())] + ["code"]


def group_names(codes: Sequence[str], attributes: CodeAttributes, level: str) -> list[str]:
    """The group of each code at a level; itself where not known."""
    return list(codes) if level == "code" else [attributes.get(code, {}).get(level, code) for code in codes]


def _members(names: Sequence[str], order: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    array = np.array(names)
    members = [(name, np.flatnonzero(array == name)) for name in order]
    return [(name, found) for name, found in members if len(found)]


def _figures(hits: np.ndarray, predicted: np.ndarray, gold: np.ndarray, mean: str = "f1_macro") -> dict[str, Any]:
    precision, recall, f1, _ = ratios(hits.sum(), predicted.sum(), gold.sum())
    return {
        "gold": int(gold.sum()),
        "predicted": int(predicted.sum()),
        "hits": int(hits.sum()),
        "precision": float(precision),
        "recall": float(recall),
        "f1_micro": float(f1),
        mean: float(divide(2 * hits, predicted + gold).mean()),
    }
