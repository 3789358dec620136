import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_icd.evaluation.outcomes import join_codes, outcomes_of
from modeling_icd.evaluation.strata import (
    FREQUENCY_BANDS,
    band_names,
    confusions,
    hierarchical_f1,
    in_bands,
    length_bands,
    level_strata,
    make_errors,
    make_strata,
    relation_of,
)


CODES = ["250.00", "250.01", "250.1", "401.9", "486", "96.71"]
ATTRIBUTES = {
    "250.00": {"chapter": "240-279", "block": "249-259", "category": "250", "kind": "diagnosis"},
    "250.01": {"chapter": "240-279", "block": "249-259", "category": "250", "kind": "diagnosis"},
    "250.1": {"chapter": "240-279", "block": "249-259", "category": "250", "kind": "diagnosis"},
    "401.9": {"chapter": "390-459", "block": "401-405", "category": "401", "kind": "diagnosis"},
    "486": {"chapter": "460-519", "block": "480-488", "category": "486", "kind": "diagnosis"},
    "96.71": {"chapter": "87-99", "block": "93-99", "category": "96", "kind": "procedure"},
}


def make(gold: list[list[int]], predicted: list[list[int]]):
    scores = np.full((len(gold), len(CODES)), 0.1, np.float32)
    for note, codes in enumerate(predicted):
        scores[note, codes] = 0.9
    return outcomes_of(scores, gold, scores > 0.5)


def test_frequency_bands_have_the_edges_of_the_literature():
    counts = [0, 1, 5, 6, 10, 11, 50, 51, 500, 501, 40_000]
    assert band_names(FREQUENCY_BANDS) == ["0", "1-5", "6-10", "11-50", "51-500", ">500"]
    assert in_bands(counts, FREQUENCY_BANDS) == (
        ["0", "1-5", "1-5", "6-10", "6-10", "11-50", "11-50", "51-500", "51-500", ">500", ">500"]
    )


def test_length_bands_hold_notes_and_split_no_length():
    names, bands = length_bands([10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
    assert names == ["10-20", "30-40", "50-60", "70-80", "90-100"]
    assert bands == [name for name in names for _ in range(2)]
    assert length_bands([7, 7, 7]) == (["7"], ["7", "7", "7"])


@st.composite
def outcomes_and_counts(draw):
    num_notes = draw(st.integers(1, 6))
    notes = st.lists(
        st.lists(st.integers(0, len(CODES) - 1), unique=True, max_size=len(CODES)),
        min_size=num_notes,
        max_size=num_notes,
    )
    words = draw(st.lists(st.integers(1, 9), min_size=num_notes, max_size=num_notes))
    counts = {code: draw(st.integers(0, 600)) for code in CODES}
    return make(draw(notes), draw(notes)), words, counts


@settings(max_examples=100)
@given(outcomes_and_counts())
def test_strata_sum_to_the_whole(drawn):
    outcomes, words, counts = drawn
    strata = make_strata(outcomes, CODES, words, attributes=ATTRIBUTES, training_counts=counts)
    assert set(strata) == {"frequency", "kind", "chapter", "heat_map", "level", "length", "num_codes"}
    for name in ("frequency", "kind", "chapter", "length", "num_codes"):
        rows = strata[name]
        assert sum(row["gold"] for row in rows) == len(outcomes.gold_codes), name
        assert sum(row["predicted"] for row in rows) == len(outcomes.predicted_codes), name
        assert sum(row["hits"] for row in rows) == outcomes.is_hit.sum(), name
        members = "num_notes" if name in ("length", "num_codes") else "num_codes"
        assert sum(row[members] for row in rows) == (len(words) if members == "num_notes" else len(CODES))
    # Whoever is right about a code is right about its category, so recall cannot fall toward the chapter.
    assert sum(row["gold"] for row in strata["heat_map"]) == len(outcomes.gold_codes)
    errors = make_errors(outcomes, CODES, strata, attributes=ATTRIBUTES)
    assert sum(errors["confusions"]["misses"].values()) == (~outcomes.is_hit).sum()
    assert 0 <= errors["hierarchical"]["f1"] <= 1


def test_levels_by_hand():
    # Note 1: gold 250.00, predicted 250.01: wrong as a code, right from the category up. Note 2: 486 for 401.9, wrong everywhere.
    outcomes = make([[0], [3]], [[1], [4]])
    levels = {row["stratum"]: row for row in level_strata(outcomes, CODES, ATTRIBUTES)}
    assert list(levels) == ["chapter", "block", "category", "code"]
    assert [levels[name]["f1_micro"] for name in levels] == [0.5, 0.5, 0.5, 0]
    assert [levels[name]["num_codes"] for name in levels] == [4, 4, 4, 6]
    assert levels["category"]["gold"] == 2


def test_two_codes_of_a_category_count_once_at_its_level():
    joined = join_codes(make([[0, 1]], [[2]]), [ATTRIBUTES[code]["category"] for code in CODES])
    assert (len(joined.gold_codes), len(joined.predicted_codes), joined.is_hit.tolist()) == (1, 1, [True])


def test_without_a_hierarchy_the_code_is_the_only_level():
    outcomes = make([[0]], [[0]])
    assert [row["stratum"] for row in level_strata(outcomes, CODES, {})] == ["code"]
    assert {"kind", "chapter", "frequency"}.isdisjoint(make_strata(outcomes, CODES, [5], attributes={}))


def test_hierarchical_f1_by_hand():
    # Gold 250.00 with ancestors: code, category, block, chapter (4 nodes). Predicted 250.01: 4 nodes, 3 of them the same.
    # Gold 486: code and category are one node, so 3 nodes; predicted alike. Hits 3 + 3, of 7 and 7.
    result = hierarchical_f1(make([[0], [4]], [[1], [4]]), CODES, ATTRIBUTES)
    assert (result["gold"], result["predicted"], result["hits"]) == (7, 7, 6)
    assert result["f1"] == pytest.approx(6 / 7)


def test_relations():
    assert relation_of("250.00", "250.01", ATTRIBUTES) == "sibling"
    assert relation_of("250.0", "250.01", {}) == "ancestor"
    assert relation_of("250", "250.01", {}) == "ancestor"
    assert relation_of("250.00", "250.1", ATTRIBUTES) == "category"
    assert relation_of("401.9", "486", ATTRIBUTES) == "none"
    assert relation_of("39", "390", {}) == "none"  # a procedure and a diagnosis
    assert relation_of("486", "481", {}) == "none"  # two categories, nothing in common but digits


def test_relations_of_codes_without_a_dot():
    """ICD-10-PCS: the table takes the place of what is before the dot; a diagnosis of the same letters is apart."""
    procedures = {code: {"category": "B20-"} for code in ("B2011ZZ", "B2011ZY", "B201", "B20YYZZ")}
    attributes = {"B20": {"category": "B20"}, **procedures}
    assert relation_of("B2011ZZ", "B201", attributes) == "ancestor"
    assert relation_of("B2011ZZ", "B2011ZY", attributes) == "sibling"
    assert relation_of("B2011ZZ", "B20YYZZ", attributes) == "category"
    assert relation_of("B20", "B201", attributes) == "none"
    assert relation_of("B20", "B2011ZZ", attributes) == "none"


def test_confusions_by_hand():
    # 250.00 missed and 250.01 a false alarm in notes 0 and 1; 486 missed in note 2 with nothing predicted.
    outcomes = make([[0], [0, 3], [4], []], [[1], [1, 3], [], []])
    found = confusions(outcomes, CODES, ATTRIBUTES)
    # 2 misses and 2 false alarms in 4 notes: 1 meeting by chance.
    assert found["pairs"] == [
        {"gold": "250.00", "predicted": "250.01", "relation": "sibling", "notes": 2, "excess": 1.0}
    ]
    assert found["misses"] == {"ancestor": 0, "sibling": 2, "category": 0, "block": 0, "chapter": 0, "none": 1}
    assert found["num_notes_left_out"] == 0


def test_errors_by_hand():
    outcomes = make([[0, 3], [3]], [[1, 4], [4]])
    strata = make_strata(outcomes, CODES, [3, 9], attributes=ATTRIBUTES)
    errors = make_errors(outcomes, CODES, strata, attributes=ATTRIBUTES)
    assert errors["never_predicted"] == {
        "num_codes": 2,
        "gold": 3,
        "codes": [{"code": "401.9", "gold": 2}, {"code": "250.00", "gold": 1}],
    }
    assert errors["always_predicted"] == {"num_codes": 1, "gold": 0, "codes": [{"code": "486", "gold": 0}]}
    assert errors["worst_strata"] == []  # none has 20 gold pairs
