import csv

import numpy as np
import pytest

from modeling_icd.evaluation import audit_quality
from modeling_icd.evaluation.audit_quality import planted_found, recall_of_removed
from modeling_icd.evaluation.outcomes import outcomes_of
from modeling_icd.evaluation.predictions import write_psv
from modeling_icd.extras.audit import audit, likely_missed, read_assigned, write_audit


CODES = ["401.9", "428.0", "486", "96.71", "E885.9"]
SCORES = np.array([[0.9, 0.6, 0.2, 0.1, 0.0], [0.3, 0.3, 0.8, 0.7, 0.0]], np.float32)


def test_findings_by_hand(tmp_path):
    # Predicted are 401.9 and 428.0 of the first note, 486 and 96.71 of the second. The last code is unknown to the model.
    outcomes = outcomes_of(SCORES, [[], []], SCORES > 0.5)
    rows = audit(
        SCORES,
        outcomes,
        {0: [0, 3, 2, 4], 1: [2]},
        num_known=4,
        hadm_ids=[11, 12],
        codes=CODES,
        descriptions={"96.71": "Ventilation"},
    )
    found = [(row["hadm_id"], row["finding"], row["rank"], row["code"], row["predicted"]) for row in rows]
    assert found == [
        (11, "missed", 1, "428.0", "yes"),
        (11, "unsupported", 1, "96.71", "no"),
        (11, "unsupported", 2, "486", "no"),
        (12, "missed", 1, "96.71", "yes"),
        (12, "missed", 2, "401.9", "no"),  # before 428.0 with the same score
        (12, "missed", 3, "428.0", "no"),
    ]
    with write_audit(rows, tmp_path).open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["code"] for row in written] == [row[3] for row in found]
    assert written[1]["description"] == "Ventilation" and written[1]["score"] == "0.1000"


def test_assigned_codes_come_from_a_file_as_evaluation_writes_it(tmp_path):
    path = tmp_path / "assigned.psv"
    path.write_text("12|486|V99|486\n11|\n")
    assert read_assigned(path, [11, 12], CODES) == ({1: [2], 0: []}, 1)


def test_ids_that_are_text_are_read_as_they_were_written(tmp_path):
    ids = ["007", "7", "A|1", 'say "x"', " padded", "Köln-12"]
    scores = np.tile(SCORES, (3, 1))
    outcomes = outcomes_of(scores, [[]] * 6, scores > 0.5)
    write_psv(tmp_path / "preds_test.psv", ids, CODES, outcomes)
    assigned, num_unknown = read_assigned(tmp_path / "preds_test.psv", ids, CODES)
    assert assigned == {row: [0, 1] if row % 2 == 0 else [2, 3] for row in range(6)} and num_unknown == 0
    (tmp_path / "own.psv").write_text("007 |486\n")
    assert read_assigned(tmp_path / "own.psv", ids, CODES) == ({0: [2]}, 0)
    (tmp_path / "own.psv").write_text("07|486\n")
    with pytest.raises(ValueError, match="line 1: this admission is not in the split"):
        read_assigned(tmp_path / "own.psv", ids, CODES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("12|486\n13|486\n", "line 2: this admission is not in the split"),
        ("12|486\n12|401.9\n", "line 2: this admission has a line already"),
        ("hadm_id|codes\n", "line 1: expected `hadm_id"),
    ],
)
def test_a_fault_in_the_file_is_named(content, message, tmp_path):
    path = tmp_path / "assigned.psv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_assigned(path, [11, 12], CODES)


def test_recall_of_removed_codes_is_that_of_auditing_what_is_left(monkeypatch):
    """Against the lists that an audit gives, draw by draw."""
    rng = np.random.default_rng(0)
    scores = rng.random((40, 30)).astype(np.float32)
    gold = [np.flatnonzero(row).tolist() for row in rng.random(scores.shape) < 0.2]
    outcomes = outcomes_of(scores, gold, scores > 0.5)
    removed_in_draw = []

    class Remember:
        """Deals the same numbers, and keeps them."""

        def __init__(self, seed):
            self.rng = np.random.Generator(np.random.PCG64(seed))

        def random(self, size):
            removed_in_draw.append(self.rng.random(size))
            return removed_in_draw[-1]

        def integers(self, *args, **kwargs):
            return self.rng.integers(*args, **kwargs)

    monkeypatch.setattr(audit_quality.np.random, "default_rng", Remember)
    figures = recall_of_removed(outcomes, seed=3)
    by_rank = np.lexsort((outcomes.gold_ranks, outcomes.gold_notes))
    pairs = list(zip(outcomes.gold_notes[by_rank].tolist(), outcomes.gold_codes[by_rank].tolist(), strict=True))
    num_found = dict.fromkeys(audit_quality.CUTOFFS, 0)
    num_removed = 0
    for drawn in removed_in_draw:
        removed = {pair for pair, value in zip(pairs, drawn, strict=True) if value < audit_quality.SHARE_REMOVED}
        num_removed += len(removed)
        for note, codes in enumerate(gold):
            assigned = [code for code in codes if (note, code) not in removed]
            for k in audit_quality.CUTOFFS:
                listed = likely_missed(scores[note], assigned, k)
                num_found[k] += sum((note, code) in removed for code in listed)
    assert len(removed_in_draw) == audit_quality.NUM_DRAWS
    for k in audit_quality.CUTOFFS:
        assert figures["recall_at_k"][str(k)] == pytest.approx(num_found[k] / num_removed)
        low, high = figures["intervals"][str(k)]
        assert low <= figures["recall_at_k"][str(k)] <= high
    assert figures["num_removed"] == pytest.approx(num_removed / audit_quality.NUM_DRAWS)


def test_planted_codes_by_hand(monkeypatch):
    """A code for every gold code, and always the same one: 96.71. The last column is unknown to the model."""
    monkeypatch.setattr(audit_quality, "SHARE_PLANTED", 1.0)
    scores = np.array(
        [
            [0.9, 0.6, 0.2, 0.1, 0.0],  # doubted: 96.71 (planted), 486
            [0.3, 0.9, 0.8, 0.4, 0.0],  # doubted: 401.9, 96.71 (planted)
            [0.9, 0.1, 0.2, 0.7, 0.0],  # 96.71 is planted and predicted: nothing is doubted
            [0.1, 0.9, 0.2, 0.3, 0.0],  # 96.71 is gold, so not planted, and doubted
            [0.1, 0.1, 0.2, 0.3, 0.0],  # no gold code that the model knows: nothing is planted
        ],
        np.float32,
    )
    gold = [[0, 2, 4], [0, 1], [0], [3], [4]]
    figures = planted_found(scores, outcomes_of(scores, gold, scores > 0.5), [0, 0, 0, 7, 9], num_known=4)
    assert (figures["num_planted"], figures["num_assigned"]) == (3, 9)
    assert figures["recall_at_k"] == {"1": pytest.approx(1 / 3), **dict.fromkeys(("5", "10", "20"), 2 / 3)}
    assert figures["precision_at_k"] == {"1": pytest.approx(1 / 3), **dict.fromkeys(("5", "10", "20"), 2 / 5)}
    for name in ("recall", "precision"):
        for k, (low, high) in figures[f"{name}_intervals"].items():
            assert 0 <= low <= figures[f"{name}_at_k"][k] <= high <= 1


def test_codes_are_planted_by_their_frequency_and_the_seed():
    scores = np.tile(np.float32([0.1, 0.2, 0.3]), (500, 1))
    outcomes = outcomes_of(scores, [[2]] * 500, scores > 0.5)
    figures = planted_found(scores, outcomes, [3, 1, 0], num_known=3)
    assert figures["num_planted"] == pytest.approx(100, abs=10)
    assert figures["recall_at_k"]["1"] == 1  # each below the gold code
    # A code of the second column, which scores above the third's gold where that is 0.1: not the first doubted one.
    figures = planted_found(scores[:, [1, 2, 0]], outcomes, [3, 1, 0], num_known=3)
    assert (figures["recall_at_k"]["1"], figures["recall_at_k"]["5"]) == (0, 1)
    scores[:, 1] = 0.4  # now only the first column, three times as frequent, comes before the gold code
    figures = planted_found(scores, outcomes, [3, 1, 0], num_known=3)
    assert figures["recall_at_k"]["1"] == pytest.approx(0.75, abs=0.03)
    assert figures == planted_found(scores, outcomes, [3, 1, 0], num_known=3)
    assert figures != planted_found(scores, outcomes, [3, 1, 0], num_known=3, seed=1)


def test_without_gold_codes_nothing_is_removed_or_planted():
    outcomes = outcomes_of(SCORES, [[], []], SCORES > 0.5)
    assert recall_of_removed(outcomes) is None
    assert planted_found(SCORES, outcomes, [1] * 5, num_known=5) is None
    assert planted_found(SCORES, outcomes_of(SCORES, [[0], []], SCORES > 0.5), [0] * 5, num_known=5) is None
