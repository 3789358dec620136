"""Marked evidence on its way into training: characters of a note, then tokens, then a batch."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dataset_scripts import load_split
from dataset_scripts.evidence import gold_evidence
from dataset_scripts.synthetic import write_corpus
from modeling_icd.training.arguments import DataArguments, ModelArguments
from modeling_icd.training.collator import ICDCollator
from modeling_icd.training.notes import evidence_tokens, marked_evidence, readable_notes
from modeling_icd.training.run import main


def model_arguments(backbone, **options) -> ModelArguments:
    return ModelArguments("direct", str(backbone), pooling="label_attention", **options)


@pytest.fixture
def data(corpus):
    return load_split("mimic3", "train", "full", data_dir=corpus), DataArguments("mimic3", str(corpus))


def test_the_tokens_are_those_of_the_marked_words(data, corpus, backbone):
    split, _ = data
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    marked = gold_evidence(split, corpus)
    label2id = {code: i for i, code in enumerate(sorted({code for of_note in marked for code in of_note}))}
    pairs = evidence_tokens(tokenizer, split["text"], marked, label2id)
    assert any(pairs)
    for text, spans, of_note in zip(split["text"], marked, pairs, strict=True):
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        for code, own in spans.items():
            tokens = [token for label, token in of_note if label == label2id[code]]
            characters = {i for start, end in own for i in range(start, end) if not text[i].isspace()}
            covered = {i for token in tokens for i in range(*offsets[token])}
            assert characters <= covered
            assert all(set(range(*offsets[token])) & {i for s, e in own for i in range(s, e)} for token in tokens)
    only = evidence_tokens(tokenizer, split["text"], marked, {next(iter(label2id)): 0})
    assert {label for of_note in only for label, _ in of_note} == {0}  # of codes that the model knows


def test_evidence_is_used_where_it_is_asked_for_and_marked(data, backbone):
    split, data_args = data
    splits = {"training": split}
    assert len(marked_evidence(splits, model_arguments(backbone), data_args)["training"]) == len(split)
    assert marked_evidence(splits, model_arguments(backbone, start_evidence=False), data_args) == {}
    assert marked_evidence(splits, model_arguments(backbone, head_start="prior"), data_args) == {}
    asked = model_arguments(backbone, head_start="prior", evidence_weight=0.5)
    assert marked_evidence(splits, asked, data_args)
    changed = {"training": split.map(lambda note: {"text": note["text"][::-1]}, keep_in_memory=True)}
    assert marked_evidence(changed, model_arguments(backbone), data_args) == {}  # nobody asked for it


def test_a_batch_holds_evidence_of_every_note(data, corpus, backbone):
    split, _ = data
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    marked = gold_evidence(split, corpus)
    label2id = {code: i for i, code in enumerate(sorted({code for of_note in marked for code in of_note}))}
    notes = readable_notes(split, tokenizer, label2id, "training", marked).tokens
    batch = ICDCollator(len(label2id))([notes[i] for i in range(3)])
    for i in range(3):
        pairs = batch["evidence"][i]
        assert pairs[(pairs >= 0).all(dim=1)].tolist() == notes[i]["evidence"]
        known = set(batch["labels"][i].nonzero().flatten().tolist())
        assert {code for code, _ in notes[i]["evidence"]} <= known


@pytest.mark.parametrize("model", ["direct", "multirescnn"])
def test_a_run_learns_from_evidence(model, corpus, backbone, tmp_path):
    own = {"pooling": "label_attention"} if model == "direct" else {"num_filter_maps": 4, "reduction_size": 8}
    options = {"model": model, **own, "evidence_weight": 1.0, "backbone": backbone, "window_size": 32}
    options |= {"dataset": "mimic3", "data_dir": corpus, "output_dir": tmp_path / "model", "max_train_notes": 8}
    options |= {"num_train_epochs": 1, "freeze_backbone": True, "use_cpu": True, "tfidf_yardstick": False}
    assert main([f"--{name}={value}" for name, value in options.items()]) == 0
    assert Path(tmp_path, "model", "model.safetensors").is_file()


def test_a_data_set_without_evidence_is_named(backbone, tmp_path, capsys):
    data_dir = tmp_path / "corpus"
    write_corpus(data_dir, 60, 0, "short", show_progress=False)
    (data_dir / "evidence.jsonl.gz").unlink()
    (data_dir / "SYNTHETIC").unlink()
    options = {"model": "direct", "pooling": "label_attention", "evidence_weight": 1.0, "backbone": backbone}
    options |= {"dataset": "mimic3", "data_dir": data_dir, "output_dir": tmp_path / "model", "use_cpu": True}
    assert main([f"--{name}={value}" for name, value in options.items()]) == 2
    assert "These notes have no marked evidence" in capsys.readouterr().err
