"""Texts that are learned from beside the notes: of the titles of their codes, and sentences with marked evidence."""

import json
from collections import Counter

import numpy as np
import pytest

from dataset_scripts import load_split
from dataset_scripts.codes import icd10_hierarchy
from modeling_icd import LlamaForICDCoding
from modeling_icd.training import run as training_run
from modeling_icd.training.arguments import ModelArguments
from modeling_icd.training.further_texts import (
    evidence_sentences,
    further_texts,
    guidelines_of,
    terms_of_codes,
    write_guideline,
)
from modeling_icd.training.run import main


TERMS = {"a": ["acute failure"], "b": ["sepsis", "septic state"], "c": ["cough"]}


def test_a_guideline_says_each_code_once_and_knows_where():
    texts = [write_guideline(["a", "x", "b"], TERMS, np.random.default_rng(seed)) for seed in range(20)]
    said = set()
    for text, spans in texts:
        assert set(spans) == {"a", "b"}  # x has no title
        for code, ((start, end),) in spans.items():
            assert text[start:end] in TERMS[code]
        said.add(text)
    assert said == {
        f"{first}\n{second}\n" for b in TERMS["b"] for first, second in (("acute failure", b), (b, "acute failure"))
    }


def test_every_note_has_its_guidelines_and_rare_codes_what_they_lack():
    notes = [["a", "b"], ["a"], ["a", "x"], ["x"], []]
    assert guidelines_of(notes, TERMS, 0, 0, seed=0) == []
    twice = guidelines_of(notes, TERMS, 2, 0, seed=0)
    assert [sorted(text.spans) for text in twice] == [["a", "b"]] * 2 + [["a"]] * 4  # none without a title
    # Three notes have a, one has b: b lacks three of four, a one.
    rare = Counter(tuple(sorted(text.spans)) for text in guidelines_of(notes, TERMS, 0, 4, seed=0))
    assert rare == {("a", "b"): 4}
    rare = Counter(tuple(sorted(text.spans)) for text in guidelines_of(notes, TERMS, 0, 3, seed=0))
    assert rare == {("a", "b"): 2}
    assert guidelines_of(notes, TERMS, 1, 4, seed=3) == guidelines_of(notes, TERMS, 1, 4, seed=3)


def test_terms_are_titles_and_what_the_classification_adds(monkeypatch):
    titles = {"N20.0": "Calculus of kidney", "I10": "Essential (primary) hypertension", "J18.9": ""}
    terms = terms_of_codes([*titles, "A00.0"], titles)
    assert set(terms) == {"N20.0", "I10"}
    assert terms["N20.0"][0] == "Calculus of kidney"
    monkeypatch.setattr(icd10_hierarchy, "_import_tabular", lambda: None)
    assert terms_of_codes(["N20.0"], titles) == {"N20.0": ["Calculus of kidney"]}
    assert terms_of_codes(["N20.0", "not a code"], titles) == {"N20.0": ["Calculus of kidney"]}
    assert terms_of_codes(["250.00"], {"250.00": "Diabetes"}) == {"250.00": ["Diabetes"]}


def test_inclusion_terms_are_terms():
    pytest.importorskip("simple_icd_10_cm")
    assert "Stone in kidney" in terms_of_codes(["N20.0"], {"N20.0": "Calculus of kidney"})["N20.0"]


NOTE = "Fever. Acute sepsis due to cough; no failure\n1. Renal failure\n2. Fever\n\nSeen by Dr. Who today"


def spans_of(**marked):
    found = {}
    for code, words in marked.items():
        start = NOTE.index(words)
        found[code] = [[start, start + len(words)]]
    return found


def test_sentences_hold_what_is_marked_in_them():
    sentences = evidence_sentences(NOTE, spans_of(a="sepsis", b="cough", c="Renal", d="Dr. Who"))
    assert [(text, sorted(spans)) for text, spans in sentences] == [
        ("Acute sepsis due to cough;", ["a", "b"]),
        ("Renal failure", ["c"]),
        ("Seen by Dr. Who today", ["d"]),  # what is marked across an end joins the two
    ]
    for (text, spans), words in zip(sentences, ("sepsis", "Renal", "Dr. Who"), strict=True):
        start, end = next(iter(spans.values()))[0]
        assert text[start:end] == words
    assert evidence_sentences(NOTE, {}) == []
    assert evidence_sentences("all", {"a": [[0, 3]]}) == [("all", {"a": [[0, 3]]})]


def run(corpus, backbone, folder, **options) -> int:
    given = {"model": "direct", "pooling": "label_attention", "backbone": backbone, "window_size": 32}
    given |= {"dataset": "mimic3", "data_dir": corpus, "output_dir": folder, "max_train_notes": 8, "use_cpu": True}
    given |= {"num_train_epochs": 1, "tfidf_yardstick": False, "head_start": "prior", **options}
    return main([f"--{name}={value}" for name, value in given.items() if value is not None])


def test_a_run_learns_from_them_and_counts_the_notes_alone(corpus, backbone, tmp_path, monkeypatch, capsys):
    trainers = []
    make = training_run.make_trainer

    def watched(*given, **named):
        trainers.append(make(*given, **named))
        return trainers[-1]

    monkeypatch.setattr(training_run, "make_trainer", watched)
    options = {"freeze_backbone": True, "evidence_weight": 0.5, "refit_on_validation": True}
    assert run(corpus, backbone, tmp_path / "plain", **options) == 0
    assert "Learned from beside the notes" not in capsys.readouterr().out
    options |= {"guidelines": 2, "evidence_sentences": True}
    assert run(corpus, backbone, tmp_path / "further", **options) == 0
    assert "Learned from beside the notes: 16 guidelines, " in capsys.readouterr().out
    plain, refitted_plain, trainer, refitted = trainers
    num_notes, learned = len(plain.train_dataset), trainer.train_dataset
    assert learned[:num_notes] == plain.train_dataset[:]
    assert len(learned) > num_notes + 16
    assert all(learned["evidence"][num_notes : num_notes + 16])  # titles say where they are
    assert len(refitted.train_dataset) > len(refitted_plain.train_dataset) + 2 * num_notes + 16
    assert plain.diagnostics.map_of_frequencies == trainer.diagnostics.map_of_frequencies
    counts = [
        json.loads((tmp_path / name / "config.json").read_text())["training_data"]["code_counts"]
        for name in ("plain", "further")
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("reader", ["llama", "words"])
def test_a_reader_that_learns_reads_them_too(reader, corpus, backbone, tmp_path, capsys):
    options = {"lora_r": 2}
    if reader == "words":
        backbone, options = reader, {"model": "generic", "head": "laat", "reader_options": "vectors=random"}
        options |= {"pooling": None, "window_size": None, "start_titles": True}
    assert run(corpus, backbone, tmp_path / "model", guidelines_rare=2, r_drop=1.0, **options) == 0
    assert " guidelines, 0 sentences with evidence." in capsys.readouterr().out


def test_what_cannot_be_is_said(corpus, backbone):
    def arguments(**options):
        return ModelArguments("direct", backbone, pooling="label_attention", **options)

    with pytest.raises(ValueError, match="`guidelines_rare` must be at least 0, got -1"):
        arguments(guidelines_rare=-1)
    notes = load_split("mimic3", "train", "full", data_dir=corpus)
    with pytest.raises(ValueError, match="no code of the training notes has one here"):
        further_texts(notes, arguments(guidelines=1), corpus, {}, 0)
    changed = notes.map(lambda note: {"text": note["text"][::-1]}, keep_in_memory=True)
    with pytest.raises(ValueError, match=r"`evidence_sentences` needs marked evidence\. These notes have no marked"):
        further_texts(changed, arguments(evidence_sentences=True), corpus, {}, 0)


WORDS = {"model": "generic", "reader_options": "vectors=random", "window_size": None}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pooling": "last"}, "the head 'last' has no queries"),
        ({"pooling": None}, "the head 'last' has no queries"),
        ({**WORDS, "pooling": None, "head": "laat", "dataset": "files"}, "this data set has none"),
        ({"start_titles_up_to": 0}, "no code with a title has at most 0 training notes"),
    ],
)
def test_titles_that_start_nothing_are_refused_before_anything_is_made(
    options, why, corpus, backbone, tmp_path, capsys
):
    if options.get("dataset") == "files":
        corpus, backbone = tmp_path / "own", "words"
        corpus.mkdir()
        for split in ("train", "validation"):
            rows = [f"{split}{number},the patient has a cough,A{number % 2};B1" for number in range(10)]
            (corpus / f"{split}.csv").write_text("\n".join(["note_id,text,codes", *rows]))
    assert run(corpus, backbone, tmp_path / "model", start_titles=True, **options) == 2
    printed = capsys.readouterr()
    assert f"`start_titles` starts the queries of a new head from the titles of the codes, and {why}" in printed.err
    assert "to train on" not in printed.out
    assert not [*tmp_path.rglob("word_reader")]


def test_titles_do_not_start_a_head_that_is_there(backbone, tmp_path):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=2, pooling="label_attention")
    training_run.check_can_start(model, backbone)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="and that of runs/mine is not new: leave it out"):
        training_run.check_can_start(LlamaForICDCoding.from_pretrained(tmp_path), "runs/mine")
