"""Spans against gold spans: counts by hand, offsets of the synthetic corpus, and the command."""

import csv
import gzip
import json
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from transformers import AutoTokenizer

from dataset_scripts import load_split
from dataset_scripts.evidence import gold_evidence, locate_evidence
from dataset_scripts.synthetic import write_corpus
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4_corpus
from modeling_icd import LlamaForICDCoding
from modeling_icd.extras import evidence
from modeling_icd.extras.evidence import EvidenceCounts, MethodEvidence, judge_evidence, main, match_titles


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
    nothing = MethodEvidence([1])
    (row,) = nothing.figures(3, MethodEvidence([1]))
    assert row["auprc"] == 0 and row["auprc_difference"] is None and row["f1_difference"] is None


NOTE = "no fever but a bad cough"
PLACES = [(0, 2), (3, 8), (9, 12), (13, 14), (15, 18), (19, 24)]


def method_with(pairs, num_spans=(1, 2)):
    """A method of pairs `(number of the note, weights of the words of NOTE, gold words)`."""
    method = MethodEvidence(num_spans)
    for number, weights, gold in pairs:
        method.add(number, NOTE, PLACES, torch.tensor(weights, dtype=torch.double), [PLACES[i] for i in gold])
    return method


def test_auprc_by_hand():
    # Weights after division by their sum: 0.5, 0.3, 0.2 and 0.6, 0.4; gold: 0.5, 0.2 and 0.4.
    method = method_with([(0, [5, 3, 2, 0, 0, 0], [0, 2]), (1, [0, 0, 0, 3, 0, 2], [5])])
    # By falling weight: 0.6 -, 0.5 gold, 0.4 gold, 0.3 -, 0.2 gold: precision 1/2, 2/3, 3/5 at the gold words.
    expected = [(1 / 2 + 2 / 3 + 3 / 5) / 3, (1 / 1 + 2 / 3) / 2, 1 / 2, (2 / 2 + 2 / 3 + 4 / 5 * 2) / 5]
    # Both notes; the first alone, twice; the second alone; the first twice and the second once, in order
    # 0.6 -, 0.5 gold x 2, 0.4 gold, 0.3 - x 2, 0.2 gold x 2: precision 2/3, 3/4, 5/8 at 2, 1, 2 gold words.
    expected[3] = (2 * 2 / 3 + 3 / 4 + 2 * 5 / 8) / 5
    given = method.auprc(np.array([[1, 1], [2, 0], [0, 1], [2, 1]]))
    np.testing.assert_allclose(given, expected, rtol=1e-6)


@pytest.mark.parametrize("block", [4096, 5])
def test_auprc_with_ties_is_that_of_scikit_learn_and_f1_that_of_the_counts(block, monkeypatch):
    monkeypatch.setattr(evidence, "GOLD_WORDS_PER_BLOCK", block)
    draw = np.random.default_rng(3)
    pairs = [
        (number, draw.integers(0, 4, 6) + (np.arange(6) == 0), draw.choice(6, 2, replace=False))
        for number in range(8)
        for _ in range(3)
    ]
    method = method_with(pairs)
    whole = np.ones((1, 8))
    expected = average_precision_score(np.concatenate(method.is_gold), np.concatenate(method.weights))
    assert method.auprc(whole)[0] == pytest.approx(expected, rel=1e-5)
    for k in (1, 2):
        assert method.f1(whole, k)[0] == pytest.approx(method.counts[k].compute()["f1"])


def test_a_difference_has_an_interval_over_notes():
    right = method_with([(i, [9, 1, 0, 0, 0, 0], [0]) for i in range(20)])
    wrong = method_with([(i, [1, 9, 0, 0, 0, 0], [0]) for i in range(20)])
    half = method_with([(i, [9, 1, 0, 0, 0, 0] if i % 2 else [1, 9, 0, 0, 0, 0], [0]) for i in range(20)])
    rows = right.figures(20, wrong)
    assert rows[0]["f1_difference"] == [1, 1, 1]  # in every resample
    difference, low, high = half.figures(20, wrong)[0]["f1_difference"]
    assert (difference, low > 0.2, high < 0.8, low < 0.4, high > 0.6) == (0.5, True, True, True, True)
    assert wrong.figures(20, wrong)[0]["f1_difference"] is None


def test_titles_match_words_without_case_marks_and_stop_words():
    note = "The Pneumonia, of both lungs: PNEUMONIA/lungs due"
    words, weights = match_titles(note, ["Pneumonia of the lung", "Disease of (both) LUNGS", None])
    assert [note[start:end] for start, end in words] == note.split()
    found = [[words[i] for i in row.nonzero().flatten().tolist()] for row in weights]
    assert [[note[s:e] for s, e in of_title] for of_title in found] == [
        ["Pneumonia,", "PNEUMONIA/lungs"], ["lungs:", "PNEUMONIA/lungs"], []
    ]  # fmt: skip


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


def model_with(backbone, codes, **fields):
    labels = {"id2label": dict(enumerate(codes)), "label2id": {code: i for i, code in enumerate(codes)}}
    return LlamaForICDCoding.from_pretrained(backbone, **labels, **fields).eval()


def test_a_head_that_attends_to_the_evidence_scores_higher_than_chance(backbone):
    titles = {"486": "Cough with pneumonia"}
    model = model_with(backbone, ["486", "401.9"], pooling="label_attention", code_descriptions=titles)
    note = "no fever but a bad cough"

    class Attends(torch.nn.Module):
        """Code 486 is predicted from `cough`, 401.9 is not predicted and looks at `no`."""

        def forward(self, states, mask, output_label_attentions=True):
            attentions = torch.full((1, 2, states.shape[1]), 1e-3)
            attentions[0, 0, 19:] = 1
            attentions[0, 1, :2] = 1
            return torch.tensor([[3.0, -3.0]]), attentions / attentions.sum(dim=-1, keepdim=True)

    model.score = Attends()
    gold_spans = [{"486": [[19, 24]], "401.9": [[3, 8]], "250.00": [[0, 2]]}]
    rows = judge_evidence(model, CharacterTokenizer(), [note], gold_spans, (1,), ["attention", "titles"])
    gold, of_titles, found, found_titles = rows
    assert [(row["codes"], row["method"]) for row in rows] == [
        (codes, method) for codes in ("gold", "found") for method in ("attention", "titles")
    ]
    assert (gold["pairs"], gold["hit_rate"], gold["auprc_difference"]) == (2, 0.5, None)
    assert (found["pairs"], found["f1"], found["auprc"]) == (1, 1.0, 1.0)
    assert found["chance"] == pytest.approx(1 / 6)
    # 401.9 has no title, so no word is given for it, and each of its words is as likely as the next.
    assert (of_titles["hit_rate"], of_titles["words"], found_titles["f1"]) == (0.5, 0.5, 1.0)
    assert of_titles["f1_difference"][0] == pytest.approx(2 / 3 - 1 / 2)
    # What is found follows the model's own rule: here the two best codes of every note.
    model.config.update({"threshold_rule": "top_k", "predict_top_k": 2})
    rows = judge_evidence(model, CharacterTokenizer(), [note], gold_spans, (1,), ["attention"])
    assert rows[1]["pairs"] == 2


@pytest.mark.parametrize(
    ("dataset", "fixture", "codes"),
    [("mimic3", "corpus", ["401.9", "427.31", "428.0"]), ("mimic4", "mimic4_corpus", ["I10", "I48.91", "I50.9"])],
)
def test_the_command_writes_a_row_for_each_method_and_number_of_spans(
    dataset, fixture, codes, request, backbone, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "model"
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    data_dir = request.getfixturevalue(fixture)
    options = [f"--dataset={dataset}", f"--data_dir={data_dir}", "--split=all", "--num_spans", "1", "3"]
    output = tmp_path / "evidence.json"

    def run(pooling, *further):
        titles = dict.fromkeys(codes, "Heart failure")
        model = model_with(backbone, codes, window_size=32, pooling=pooling, code_descriptions=titles)
        model.save_pretrained(folder)
        assert main([str(folder), *options, f"--output_file={output}", *further]) == 0
        return json.loads(output.read_text()), capsys.readouterr().out

    rows, printed = run("label_attention")
    methods = ["attention", "input_x_gradient", "attingrad", "integrated_gradients", "titles"]
    assert [(row["codes"], row["method"], row["num_spans"]) for row in rows] == [
        (codes, method, k) for codes in ("gold", "found") for method in methods for k in (1, 3)
    ]
    assert rows[0]["pairs"] > 0 and rows[0]["recall"] <= rows[1]["recall"]
    assert all(0 < row["auprc"] < 1 and row["ms_per_code"] > 0 for row in rows[:10])
    assert rows[2]["auprc_difference"][0] == pytest.approx(rows[2]["auprc"] - rows[0]["auprc"], abs=1e-6)
    assert max(map(len, printed.splitlines())) <= 80 and "…" not in printed
    assert all(method in printed for method in methods)
    rows, _ = run("mean")
    assert {row["method"] for row in rows} == {"input_x_gradient", "integrated_gradients", "titles"}
    rows, _ = run("last", "--methods", "titles")
    assert {row["method"] for row in rows} == {"titles"}
    for pooling, method, message in (
        ("mean", ["--methods", "attingrad"], "does not attend, so it has no attingrad"),
        ("last", [], "'last' does not say what it read a code from"),
    ):
        model_with(backbone, codes, window_size=32, pooling=pooling).save_pretrained(folder)
        assert main([str(folder), *options, *method]) == 2
        assert message in capsys.readouterr().err


def test_the_command_reads_the_annotations_of_mdace(backbone, tmp_path, capsys):
    write_corpus(tmp_path / "twin", 20, 1, "short", show_progress=False, mdace_charts=20)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    codes = ["401.9", "427.31", "428.0", "414.01", "250.00", "584.9"]
    model_with(backbone, codes, window_size=32, pooling="label_attention").save_pretrained(tmp_path / "model")
    options = ["--dataset=mimic3", f"--data_dir={tmp_path / 'twin'}", "--split=train", "--methods=attention"]
    by_file, by_corpus = (tmp_path / name for name in ("mdace.json", "corpus.json"))
    of_mdace = ["--dataset_config=mdace_charts", "--dataset_options", f"evidence={tmp_path / 'twin/mdace'}"]
    assert main([str(tmp_path / "model"), *options, f"--output_file={by_file}", *of_mdace]) == 0
    assert main([str(tmp_path / "model"), *options, f"--output_file={by_corpus}", "--dataset_config=full"]) == 0
    assert "mimic3 (mdace_charts), train" in capsys.readouterr().out

    def figures(path):
        rows = json.loads(path.read_text())
        return [{name: value for name, value in row.items() if name != "ms_per_code"} for row in rows]

    assert figures(by_file) == figures(by_corpus) and figures(by_file)[0]["pairs"] > 5


def test_a_data_set_without_marked_evidence_says_so(shared_dir, tmp_path):
    data_dir = shared_dir / "data" / "codiesp"
    english = load_split("codiesp", "test", "diagnoses_en_top50", data_dir=data_dir, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="no marked evidence: choose a Spanish"):
        gold_evidence(english, data_dir)
    spanish = load_split("codiesp", "test", "diagnoses_es_top50", data_dir=data_dir, cache_dir=tmp_path)
    gold = gold_evidence(spanish, data_dir)
    assert len(gold) == 125 and sum(map(len, gold)) > 300
