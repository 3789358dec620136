"""One note for the page: its codes are those of the pipeline, each with words of the note, counted as a browser counts."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from serving import CODES, save_coder, search_of
from transformers import pipeline

from modeling_icd.space.coding import (
    NUM_LISTED,
    Coder,
    CodingError,
    heaviest_words,
    ids_by_spelling,
    language_of,
    utf16_places,
)
from modeling_icd.space.line import Cancelled, Watch


NOTE = "patient has acute renal failure and sepsis due to pneumonia no fever"


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory) -> str:
    return save_coder(backbone, tmp_path_factory.mktemp("coder"))


@pytest.fixture(scope="module")
def coder(folder) -> Coder:
    coder = Coder(folder)
    coder.titles = search_of(tuple(coder.codes))
    return coder


def words_of(text: str, spans: list) -> list[str]:
    """What a browser finds at these places."""
    units = text.encode("utf-16-le", errors="surrogatepass")
    return [units[2 * start : 2 * end].decode("utf-16-le", errors="surrogatepass") for start, end, _ in spans]


def test_the_suggested_codes_are_those_of_the_pipeline(folder, coder):
    text = " ".join(random.Random(1).choices(NOTE.split(), k=90))  # several windows
    result = coder.code_note(text)
    expected = pipeline("icd-coding", model=folder, device="cpu", trust_remote_code=True)(text, num_spans=1)
    suggested = [code for code in result["codes"] if code["predicted"]]
    assert [code["code"] for code in suggested] == [code["code"] for code in expected]
    assert [code["score"] for code in suggested] == pytest.approx([code["score"] for code in expected], abs=1e-5)
    for code, other in zip(suggested, expected, strict=True):
        heaviest = next(span for span in code["evidence"] if span[2] == 1)
        assert words_of(text, [heaviest])[0] in other["evidence"][0]["text"]
    assert (result["words"], result["tokens"], result["blank"]) == (90, 90, False)


def test_codes_are_listed_by_falling_score_with_all_that_is_known_of_each(coder):
    codes = coder.code_note(NOTE)["codes"]
    scores = [code["score"] for code in codes]
    assert scores == sorted(scores, reverse=True)
    assert len(codes) == min(NUM_LISTED, len(CODES))
    by_code = {code["code"]: code for code in codes}
    assert by_code["I10"]["title"] == "High blood pressure"  # the model's own
    assert by_code["N17.9"]["title"] == "Acute kidney failure, unspecified"  # that of the classification
    assert by_code["N17.9"]["chapter"] == "Diseases of the genitourinary system"
    kinds = {name: (by_code[name]["kind"], by_code[name]["system"]) for name in ("N17.9", "0BH17EZ")}
    assert kinds == {"N17.9": ("diagnosis", "ICD-10-CM"), "0BH17EZ": ("procedure", "ICD-10-PCS")}
    for code in codes:
        assert code["predicted"] == (code["score"] > code["threshold"])
        assert code["decision"] is None  # no review was fitted


def test_evidence_is_whole_words_in_utf16_units(coder):
    text = "\U0001f600 fever \U0001f468\u200d\U0001f469\u200d\U0001f467 has\u00a0sepsis, \u05d7\u05d5\u05dc\u05d4 <b>renal</b> failure"
    codes = coder.code_note(text)["codes"]
    for code in codes:
        found = words_of(text, code["evidence"])
        assert set(found) <= set(text.split())
        weights = [weight for _, _, weight in code["evidence"]]
        assert max(weights) == 1 and min(weights) > 0
        assert [span[0] for span in code["evidence"]] == sorted(span[0] for span in code["evidence"])
    assert "failure" in words_of(text, codes[0]["evidence"])


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_places_are_those_that_javascript_counts(text):
    places = utf16_places(text)
    for i in range(len(text) + 1):
        assert places[i] == len(text[:i].encode("utf-16-le", errors="surrogatepass")) // 2


def test_at_most_forty_words_the_heaviest_ones(coder):
    words = [(2 * i, 2 * i + 1) for i in range(100)]
    weights = np.arange(100) / 10
    chosen = heaviest_words(words, weights, np.arange(300))
    assert [start for start, _, _ in chosen] == [2 * i for i in range(60, 100)]
    assert chosen[-1][2] == 1 and chosen[0][2] == round(6 / 9.9, 4)
    assert heaviest_words(words, np.zeros(100), np.arange(300)) == []


@pytest.mark.parametrize("blank", ["", " \n\t ", "\u00a0"])
def test_a_blank_note_has_no_codes_and_no_audit(coder, blank):
    result = coder.code_note(blank, ["I10", "Q1"])
    assert (result["blank"], result["codes"], result["audit"]) == (True, [], None)
    assert result["unknown"] == [{"code": "Q1", "title": None}]


def test_an_audit_lists_what_was_missed_and_what_the_note_does_not_support(coder):
    plain = coder.code_note(NOTE)
    suggested = [code["code"] for code in plain["codes"] if code["predicted"]]
    others = [code["code"] for code in plain["codes"] if not code["predicted"]]
    assigned = [suggested[0], others[0].lower(), others[-1].replace(".", ""), "Z99.89", "what", suggested[0]]
    result = coder.code_note(NOTE, assigned)
    assert result["audit"]["missed"][: len(suggested) - 1] == suggested[1:]
    assert result["audit"]["unsupported"] == [others[-1], others[0]]  # the least supported first
    title = "Dependence on other enabling machines and devices"
    assert result["unknown"] == [{"code": "Z99.89", "title": title}, {"code": "what", "title": None}]
    listed = {code["code"] for code in result["codes"]}
    assert listed >= {suggested[0], others[0], others[-1], *result["audit"]["missed"]}
    with pytest.raises(CodingError, match="501 codes are assigned, and at most 500 are audited"):
        coder.code_note(NOTE, [f"X{i}" for i in range(501)])


def test_a_spelling_that_two_codes_share_names_neither():
    ids = ids_by_spelling(["038.9", "03.89", "401.9"])
    assert {code: ids.get(code) for code in ("038.9", "03.89", "0389", "4019")} == {
        "038.9": 0, "03.89": 1, "0389": None, "4019": 2
    }  # fmt: skip


def test_confident_and_review_and_thresholds_of_each_code(backbone, tmp_path):
    thresholds = [0.3 + 0.005 * i for i in range(len(CODES))]
    fields = {"threshold": thresholds, "threshold_rule": "per_code", "review_threshold": 0.6, "review_precision": 0.9}
    coder = Coder(save_coder(backbone, tmp_path, **fields))
    about = coder.about()
    assert (about["threshold"], about["per_code_thresholds"], about["review"]) == (None, True, True)
    codes = coder.code_note(NOTE)["codes"]
    for code in codes:
        assert code["threshold"] == pytest.approx(thresholds[CODES.index(code["code"])])
        expected = ("confident" if code["score"] > 0.6 else "review") if code["predicted"] else None
        assert code["decision"] == expected
    assert {code["decision"] for code in codes} == {"confident", "review", None}


def test_a_head_that_says_nothing_of_words_has_no_evidence(backbone, tmp_path):
    coder = Coder(save_coder(backbone, tmp_path, pooling="last"))
    assert coder.about()["has_evidence"] is False
    result = coder.code_note(NOTE)
    assert result["codes"] and all(code["evidence"] == [] for code in result["codes"])


def test_what_the_page_says_of_a_model(coder, folder):
    about = coder.about()
    assert about["name"] == folder.rpartition("/")[2]
    assert (about["num_codes"], about["systems"], about["has_evidence"]) == (70, ["ICD-10-CM", "ICD-10-PCS"], True)
    assert (about["threshold"], about["per_code_thresholds"], about["review"]) == (0.55, False, False)
    assert about["notice"] == ""  # its threshold stands beside the slider
    assert Coder(folder, notice="A research model.").about()["notice"] == "A research model."


def test_categories_are_told_from_the_codes_below_them(backbone, tmp_path):
    names = ["I50", "I50.9", "I10", "E11"]
    fields = {"id2label": dict(enumerate(names)), "code_descriptions": {}}
    coder = Coder(save_coder(backbone, tmp_path, **fields))
    coder.titles = search_of(tuple(coder.codes))
    headings = {code["code"]: code["heading"] for code in coder.code_note(NOTE)["codes"]}
    assert headings == {"I50": True, "I50.9": False, "I10": False, "E11": True}  # I10 is a category and can be billed
    assert coder.code_note(NOTE)["codes_categories"] is False
    fields["id2label"] = {0: "I50", 1: "E11", 2: "I10"}
    other = Coder(save_coder(backbone, tmp_path, **fields))
    other.titles = coder.titles
    assert other.code_note(NOTE)["codes_categories"] is True


@pytest.mark.parametrize(
    ("card", "data", "expected"),
    [
        ("---\nlanguage: es\n---\nlanguage: en\n", {"config": "diagnoses_en"}, "es"),
        ("---\nlanguage:\n- en\n---\n", None, "en"),
        ("No head.\nlanguage: en\n", {"config": "diagnoses_es_top50"}, "es"),
        ("---\nlanguage: [en, es]\n---\n", {"config": "full"}, None),
        (None, None, None),
    ],
)
def test_the_language_of_a_model_is_that_of_its_card_or_of_its_data(tmp_path, card, data, expected):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert language_of(tmp_path, data) == expected


class Recorded(Watch):
    """Notes how much was done whenever it is asked, and calls the work off at the n-th time."""

    def __init__(self, ends_at: int | None = None):
        super().__init__()
        self.ends_at, self.seen = ends_at, []

    def check(self):
        self.seen.append(self.done)
        if len(self.seen) == self.ends_at:
            self.cancel()
        super().check()


def test_progress_counts_the_tokens_of_all_windows(coder):
    text = " ".join(["sepsis"] * 100)
    watch = Recorded()
    coder.model.tokens_per_pass, before = 32, coder.model.tokens_per_pass  # two windows a pass
    try:
        coder.code_note(text, watch=watch)
    finally:
        coder.model.tokens_per_pass = before
    # Windows of 16 tokens start at 0, 12 ... 84: eight of them.
    assert (watch.done, watch.total) == (128, 128)
    assert watch.seen[:5] == [0, 32, 64, 96, 128]
    assert watch.seconds_left() == 0


def test_a_note_is_called_off_between_two_passes(coder):
    text = " ".join(["sepsis"] * 100)
    coder.model.tokens_per_pass, before = 16, coder.model.tokens_per_pass
    watch = Recorded(ends_at=4)
    try:
        with pytest.raises(Cancelled):
            coder.code_note(text, watch=watch)
    finally:
        coder.model.tokens_per_pass = before
    assert watch.done == 48 < watch.total
    assert coder.code_note(text)["codes"]  # nothing of it is left behind


def test_numbers_that_are_not_finite_are_one_message(backbone, tmp_path):
    coder = Coder(save_coder(backbone, tmp_path))
    with torch.no_grad():
        next(coder.model.score.parameters()).fill_(float("nan"))
    with pytest.raises(CodingError, match="no finite numbers"):
        coder.code_note(NOTE)
    with pytest.raises(CodingError, match="no finite numbers"):
        coder.code_row(NOTE, Watch())


def test_a_row_of_a_file_is_coded_as_predict_does(folder, coder):
    expected = pipeline("icd-coding", model=folder, device="cpu", trust_remote_code=True)(NOTE)
    codes = coder.code_row(NOTE, Watch())
    assert [code["code"] for code in codes] == [code["code"] for code in expected]
    assert [code["score"] for code in codes] == pytest.approx([code["score"] for code in expected], abs=1e-5)
    assert [code["evidence"][0]["text"] for code in codes] == [code["evidence"][0]["text"] for code in expected]
    watch = Watch()
    watch.cancel()
    with pytest.raises(Cancelled):
        coder.code_row(NOTE, watch)
