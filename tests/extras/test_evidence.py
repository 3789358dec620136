"""Spans against gold spans: counts by hand, offsets of the synthetic corpus, and the command."""

import csv
import gzip
import json
from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer

from dataset_scripts import load_split
from dataset_scripts.evidence import gold_evidence, locate_evidence
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4_corpus
from modeling_icd import LlamaForICDCoding
from modeling_icd.extras.evidence import EvidenceCounts, judge_evidence, main


@pytest.fixture(scope="module")
def mimic4_corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic4_corpus")
    write_mimic4_corpus(folder, num_admissions=60, length="short", addendum_rate=0.3, show_progress=False)
    return folder


class CharacterTokenizer:
    """One token a character, so that weights can be put where a test wants them."""

    is_fast = True

    def __call__(self, note, **options):
        return {"input_ids": [1] * len(note), "offset_mapping": [(i, i + 1) for i in range(len(note))]}


def test_counts_by_hand():
    note = "no fever but a bad cough"  # words start at 0, 3, 9, 13, 15, 19
    counts = EvidenceCounts()
    # given: fever but; gold: fever, and the second half of `cough`. In both: fever.
    counts.add(note, [(3, 12)], [[3, 8], [21, 24]])
    # given: a; gold: no
    counts.add(note, [(13, 14)], [[0, 2]])
    figures = counts.compute()
    assert figures["pairs"] == 2 and figures["hit_rate"] == 0.5
    assert figures["precision"] == pytest.approx(1 / 3)
    assert figures["recall"] == pytest.approx(1 / 3)
    assert figures["f1"] == pytest.approx(1 / 3)
    assert figures["words"] == 1.5 and figures["gold_words"] == 1.5
    # 2 words at 2 gold in 6, 1 word at 1 in 6
    assert figures["chance"] == pytest.approx((2 * 2 / 6 + 1 / 6) / 3)


def test_nothing_counted_is_zero():
    assert set(EvidenceCounts().compute().values()) == {0}


def test_evidence_of_the_corpus_is_where_the_record_says_it(corpus, tmp_path):
    records = load_split("mimic3", "all", data_dir=corpus, cache_dir=tmp_path)
    located = gold_evidence(records, corpus)
    names = records.features["codes"].feature.names
    with gzip.open(corpus / "evidence.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    spans = 0
    for line in lines:
        record = records["hadm_id"].index(line["hadm_id"]) if line["hadm_id"] in records["hadm_id"] else None
        for code, own in line["codes"].items() if record is not None else ():
            assert code in {names[i] for i in records[record]["codes"]}
            spans += len(own)
    assert spans == sum(len(found) for of_note in located for found in of_note.values())
    # An addendum's spans lie behind the report that it is joined to.
    assert any(line["hadm_id"] == other["hadm_id"] for line in lines for other in lines if line is not other)
    text = records[0]["text"]
    moved = locate_evidence(corpus, [records[0]["hadm_id"]], ["1234" + text])[0]
    assert {code: [[s + 4, e + 4] for s, e in found] for code, found in located[0].items()} == moved


@pytest.mark.parametrize("config", ["icd9", "icd10"])
def test_evidence_of_the_corpus_in_the_format_of_mimic4(mimic4_corpus, tmp_path, config):
    options = {"data_dir": mimic4_corpus, "cache_dir": tmp_path, "min_count": 1}
    records = load_split("mimic4", "all", config, **options)
    names = records.features["codes"].feature.names
    found = Counter()
    for record, of_note in zip(records, gold_evidence(records, mimic4_corpus), strict=True):
        assert of_note.keys() == {names[i] for i in record["codes"]}  # every code is told in the note
        for code, spans in of_note.items():
            found.update((record["hadm_id"], code, record["text"][start:end]) for start, end in spans)
    with gzip.open(mimic4_corpus / "note/discharge.csv.gz", "rt", newline="") as file:
        texts = {row["note_id"]: row["text"] for row in csv.DictReader(file)}
    expected = Counter()
    addenda = 0
    with gzip.open(mimic4_corpus / "evidence.jsonl.gz", "rt") as file:
        for line in map(json.loads, file):
            if line["hadm_id"] in records["hadm_id"]:
                addenda += "-AD-" in line["note_id"] and bool(line["codes"])
                for code, spans in line["codes"].items():
                    text = texts[line["note_id"]]
                    expected.update((line["hadm_id"], code, text[start:end]) for start, end in spans)
    assert found == expected and addenda > 0
    replaced = load_split("mimic4", "all", config, deid_token="[DEID]", **options)
    with pytest.raises(ValueError, match="its text unchanged"):
        gold_evidence(replaced, mimic4_corpus)


def test_a_head_that_attends_to_the_evidence_scores_higher_than_chance(backbone):
    model = LlamaForICDCoding.from_pretrained(
        backbone, id2label={0: "486", 1: "401.9"}, label2id={"486": 0, "401.9": 1}, pooling="label_attention"
    ).eval()
    note = "no fever but a bad cough"

    class Attends(torch.nn.Module):
        """Code 486 is predicted from `cough`, 401.9 is not predicted and looks at `no`."""

        def forward(self, states, mask, output_label_attentions=True):
            attentions = torch.full((1, 2, states.shape[1]), 1e-3)
            attentions[0, 0, 19:] = 1
            attentions[0, 1, :2] = 1
            return torch.tensor([[3.0, -3.0]]), attentions / attentions.sum(dim=-1, keepdim=True)

    model.score = Attends()
    rows = judge_evidence(
        model, CharacterTokenizer(), [note], [{"486": [[19, 24]], "401.9": [[3, 8]], "250.00": [[0, 2]]}], (1,)
    )
    gold, found = rows
    assert (gold["codes"], gold["pairs"], gold["hit_rate"]) == ("gold", 2, 0.5)
    assert (found["codes"], found["pairs"], found["f1"]) == ("found", 1, 1.0)
    assert found["chance"] == pytest.approx(1 / 6)
    # What is found follows the model's own rule: here the two best codes of every note.
    model.config.update({"threshold_rule": "top_k", "predict_top_k": 2})
    _, found = judge_evidence(model, CharacterTokenizer(), [note], [{"486": [[19, 24]], "401.9": [[3, 8]]}], (1,))
    assert found["pairs"] == 2


@pytest.mark.parametrize(
    ("dataset", "fixture", "codes"),
    [("mimic3", "corpus", ["401.9", "427.31", "428.0"]), ("mimic4", "mimic4_corpus", ["I10", "I48.91", "I50.9"])],
)
def test_the_command_writes_a_row_for_each_number_of_spans(
    dataset, fixture, codes, request, backbone, tmp_path, capsys
):
    fields = {"id2label": dict(enumerate(codes)), "label2id": {code: i for i, code in enumerate(codes)}}
    folder = tmp_path / "model"
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    data_dir = request.getfixturevalue(fixture)
    options = [f"--dataset={dataset}", f"--data_dir={data_dir}", "--split=all", "--num_spans", "1", "3"]
    LlamaForICDCoding.from_pretrained(backbone, window_size=32, pooling="label_attention", **fields).save_pretrained(
        folder
    )
    assert main([str(folder), *options, f"--output_file={tmp_path / 'evidence.json'}"]) == 0
    rows = json.loads((tmp_path / "evidence.json").read_text())
    assert [(row["codes"], row["num_spans"]) for row in rows] == [
        ("gold", 1), ("gold", 3), ("found", 1), ("found", 3)
    ]  # fmt: skip
    assert rows[0]["pairs"] > 0 and rows[0]["recall"] <= rows[1]["recall"]
    capsys.readouterr()
    LlamaForICDCoding.from_pretrained(backbone, window_size=32, pooling="mean", **fields).save_pretrained(folder)
    assert main([str(folder), *options]) == 2
    assert "'mean' does not say" in capsys.readouterr().err


def test_a_data_set_without_marked_evidence_says_so(shared_dir, tmp_path):
    data_dir = shared_dir / "data" / "codiesp"
    english = load_split("codiesp", "test", "diagnoses_en_top50", data_dir=data_dir, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="no marked evidence: choose a Spanish"):
        gold_evidence(english, data_dir)
    spanish = load_split("codiesp", "test", "diagnoses_es_top50", data_dir=data_dir, cache_dir=tmp_path)
    gold = gold_evidence(spanish, data_dir)
    assert len(gold) == 125 and sum(map(len, gold)) > 300
