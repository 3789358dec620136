"""What a fused model learns from the same notes in another language."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from modeling_icd.fusion_features_icd import AT, FeatureMaker
from modeling_icd.fusion_text_icd import StemReader
from modeling_icd.knowledge.fusion_tables import Notes, TitleTerm, marked_terms
from modeling_icd.knowledge.translations import PhraseProjector, align_notes, learn_translations
from modeling_icd.training import fusion
from modeling_icd.training.arguments import DataArguments
from modeling_icd.training.fusion import rows_in_other


SPANISH = ["Fiebre alta. Dolor de tibia.", "Tos seca. Dolor de tibia.", "Fiebre alta. Tos seca."]
ENGLISH = ["High fever. Tibia pain.", "Dry cough. Tibia pain.", "High fever. Dry cough."]
MARKED = [
    [("R50.9", [[0, 11]]), ("M79.6", [[13, 18], [22, 27]])],
    [("R05", [[0, 8]])],
    [("R50.9", [[0, 6]]), ("R05", [[13, 16]]), ("R05", [[0, 0]])],
]
CODES = [["M79.6", "R50.9"], ["R05"], ["R05", "R50.9"]]


def test_words_are_learned_from_notes_in_both_languages_and_phrases_brought_over():
    spanish = ["Dolor de cabeza. Fiebre alta.", "Fiebre y tos.", "Dolor de rodilla."] * 3
    english = ["Headache pain. High fever.", "Fever and cough.", "Knee pain."] * 3
    small = frozenset({"de", "i", "and"})
    words = learn_translations(align_notes(spanish, english, small, show_progress=False))
    assert max(words.shares["fiebr"], key=words.shares["fiebr"].get) == "fever"
    assert max(words.shares["dolor"], key=words.shares["dolor"].get) == "pain"
    reader = StemReader()
    projector = PhraseProjector(spanish[0], english[0], words, small, reader)
    start = spanish[0].index("Fiebre")
    assert projector.find([[start, start + 6]]) == "fever"
    assert projector.find([[0, 15]]) == "Headache pain"
    # Words that are not together: `Dolor` of the first sentence and `alta` of the second, without those between.
    assert projector.find([[0, 5], [start, start + 6]]) == "pain fever"
    assert PhraseProjector("Tos seca.", "Nothing.", words, small, reader).find([[0, 3]]) is None


def test_the_other_language_has_the_same_notes():
    assert rows_in_other([3, 1], [1, 2, 3], "diagnoses_en") == [2, 0]
    with pytest.raises(ValueError, match="'diagnoses_en' lacks 1 of 2 notes"):
        rows_in_other([3, 4], [1, 2, 3], "diagnoses_en")


def test_without_phrases_words_are_learned_from_both_languages_and_none_is_brought_over(monkeypatch, tmp_path):
    """Else the marked words of the other language would be in a model that was to know none."""
    notes = Dataset.from_dict({"hadm_id": [1], "text": ["Dolor de tibia."]})
    other = Dataset.from_dict({"hadm_id": [1], "text": ["Pain of the tibia."]})
    builder = SimpleNamespace(
        as_dataset=lambda split: other if split == "train" else other.select([]), config=SimpleNamespace(name="en")
    )
    monkeypatch.setattr(fusion, "build_dataset", lambda data_args, cache: builder)
    monkeypatch.setattr(fusion, "marked_phrases", lambda notes, builder: pytest.fail("evidence was read"))
    run = object.__new__(fusion.Fusion)
    run.model_args = SimpleNamespace(other_language="en", other_phrases=False, parts=["titles"])
    run.data_args, run.aligned = DataArguments("codiesp", "x"), None
    assert run._use_other_language(notes, notes["text"], [[]], [[]], tmp_path) == [[]]
    assert run.aligned == [[(["dolor", "tibi"], ["pain", "tibi"])]]


def make_run(monkeypatch, tmp_path, marks_own=False, codes=CODES) -> fusion.Fusion:
    """A run on English notes, whose marked words are in Spanish; `marks_own`: they have some of their own, too."""
    notes = Dataset.from_dict({"hadm_id": [1, 2, 3], "text": ENGLISH})
    other = Dataset.from_dict({"hadm_id": [1, 2, 3], "text": SPANISH})
    builder = SimpleNamespace(
        as_dataset=lambda split: other if split == "train" else other.select([]), config=SimpleNamespace(name="es")
    )
    monkeypatch.setattr(fusion, "build_dataset", lambda data_args, cache: builder)
    monkeypatch.setattr(fusion, "marked_phrases", lambda notes, builder: MARKED)
    run = object.__new__(fusion.Fusion)
    parts = ["phrases", "titles"]
    run.model_args = SimpleNamespace(other_language="es", other_phrases=True, new_codes=False, parts=parts)
    run.data_args, run.aligned, run.other_terms = DataArguments("codiesp", "x"), None, [[], [], []]
    phrases = run._use_other_language(notes, ENGLISH, codes, [["some"] if marks_own else []] * 3, tmp_path)
    run.notes = Notes.read(ENGLISH, CODES, phrases)
    run.titles = [TitleTerm("R50.9", frozenset({"pyrexia"}), 0)]
    run.title_texts, run.aligned_titles, run.phrases_with_titles = {}, [], [[], [], []]
    run.order = {code: i for i, code in enumerate(["M79.6", "R05", "R50.9"])}
    return run


def test_marked_words_are_terms_whether_they_stand_together_or_not():
    terms = marked_terms(SPANISH, MARKED)
    assert [(term.code, sorted(term.stems), term.source) for term in terms[0]] == [
        ("R50.9", ["alt", "fiebr"], 3),
        ("M79.6", ["dolor", "tibi"], 3),
    ]
    assert [term.code for term in terms[2]] == ["R50.9", "R05"]  # nothing is marked by the empty span


def test_words_that_are_marked_in_another_language_are_found_by_their_meaning(monkeypatch, tmp_path):
    """English words alone say a term that is marked in Spanish; no phrase was brought over here."""
    run = make_run(monkeypatch, tmp_path)
    run.notes = run.notes._replace(phrases=[[], [], []])
    knowledge = run.knowledge_of([0, 1, 2])
    maker = FeatureMaker(knowledge.tables, knowledge.finder, knowledge.num_known, ["titles"])
    found = maker.make(StemReader().read("She had a dry cough.").stems)
    rows = dict(zip([knowledge.labels[code] for code in found.codes.tolist()], found.features, strict=True))
    assert rows["R05"][AT["title"]] > 0.8 and rows["R05"][AT["title_source"]] == 3
    assert "M79.6" not in rows


def test_a_fold_knows_nothing_that_is_marked_in_its_own_notes(monkeypatch, tmp_path):
    knowledge = make_run(monkeypatch, tmp_path).knowledge_of([1])
    assert knowledge.labels == ["R05", "R50.9"]  # the second has a title
    assert knowledge.tables.title_codes.tolist() == [1, 0]
    assert "fiebr" not in knowledge.tables.title_stems


def test_notes_with_evidence_of_their_own_need_none_of_another_language(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="`other_phrases` is for notes without evidence of their own"):
        make_run(monkeypatch, tmp_path, marks_own=True)


def test_evidence_of_other_codes_is_of_no_use(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="'es' marks no evidence for the codes of these notes"):
        make_run(monkeypatch, tmp_path, codes=[["0DJD8ZZ"]] * 3)
