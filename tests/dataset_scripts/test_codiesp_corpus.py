"""What is known of the published corpus of CodiEsp: its counts, splits, codes and evidence. Needs its files."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from test_codiesp import names_of

from dataset_scripts import CodiEsp, load_builder
from dataset_scripts.builders.codiesp import case_number


@pytest.fixture(scope="module")
def data_dir(shared_dir):
    return shared_dir / "data/codiesp"


@pytest.fixture(scope="module")
def load(data_dir, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def load(config=None, **options):
        return load_builder("codiesp", config, data_dir=data_dir, cache_dir=cache, **options)

    return load


def test_counts_of_the_corpus(load):
    # Diagnoses and procedures: codes of the folder train, rows of trainD and devD or trainP and devP.
    for kind, train_codes, train_rows, dev_rows in (("diagnoses", 1767, 5639, 1404), ("procedures", 563, 1550, 428)):
        splits = load(f"{kind}_en").as_dataset()
        assert {name: len(split) for name, split in splits.items()} == {
            "train": 424,
            "validation": 76,
            "test": 125,
            "background": 3001,
        }
        rows = {name: sum(map(len, split["codes"])) for name, split in splits.items()}
        assert rows["train"] + rows["validation"] == train_rows
        assert (rows["test"], rows["background"]) == (dev_rows, 0)
        assert len(names_of(load(f"{kind}_en", min_count=1).as_dataset(split="train"))) == train_codes
        assert min(map(len, splits["background"]["text"])) > 0


def test_splits_are_disjoint_and_the_same_in_every_configuration(load):
    builders = [load(config.name) for config in CodiEsp.BUILDER_CONFIGS]
    assert len(builders) == 12
    expected = {name: split["case_id"][:] for name, split in builders[0].as_dataset().items()}
    ids = [case_id for split in expected.values() for case_id in split]
    assert len(ids) == len(set(ids)) == len({case_number(case_id) for case_id in ids}) == 500 + 125 + 3001
    for builder in builders[1:]:
        for name, split in builder.as_dataset().items():
            assert split["case_id"][:] == expected[name], (builder.config.name, name)


@pytest.mark.parametrize("config", ["diagnoses_en_top50", "procedures_en_top50"])
def test_held_out_cases_are_stratified(load, config):
    """A code's held-out cases are nearer to 15% of them than drawn by chance, where this mean of squares is about 1."""
    splits = load(config).as_dataset()
    held_out, kept = (
        np.bincount([code for codes in splits[name]["codes"] for code in codes], minlength=50)
        for name in ("validation", "train")
    )
    expected = 0.15 * (held_out + kept)
    assert np.mean((held_out - expected) ** 2 / (expected * 0.85)) < 0.5


def test_top50_of_the_corpus(load):
    splits = load("diagnoses_en", min_count=1).as_dataset()
    names = names_of(splits["train"])
    counts = Counter(names[i] for name in ("train", "validation") for codes in splits[name]["codes"] for i in codes)
    top50 = names_of(load().as_dataset(split="train"))
    assert top50 == names_of(load("diagnoses_es_top50").as_dataset(split="train"))
    assert top50 == sorted(sorted(counts, key=lambda code: (-counts[code], code))[:50])
    least = min(counts[code] for code in top50)
    tied = sorted(code for code in counts if counts[code] == least)
    assert least == 15
    assert tied[0] in top50
    assert tied[-1] not in top50  # the limit cuts through a tie
    # 17 of the 125 have none of the codes, and are kept.
    assert sum(not codes for codes in load().as_dataset(split="test")["codes"]) == 17


def test_spans_give_the_annotated_words(data_dir, load):
    """The table's words are the text at the offsets, but for six places with one character more."""
    records = {r["case_id"]: r for r in load("both_es", unsplit=True).as_dataset(split="unsplit")}
    names = load("both_es", unsplit=True).info.features["codes"].feature.names
    rows = [
        line.split("\t")
        for name in ("train", "dev")
        for line in (data_dir / f"{name}/{name}X.tsv").read_text().rstrip("\n").split("\n")
    ]
    quoted, found = {}, {}
    for case_id, _, code, words, _ in rows:
        quoted.setdefault(case_id, []).append((code.upper(), " ".join(words.split())))
    for case_id, record in records.items():
        assert {m["code"] for m in record["evidence"]} == set(record["codes"])  # every code is justified
        found[case_id] = [
            (names[m["code"]], " ".join(" ".join(record["text"][start:end] for start, end in m["spans"]).split()))
            for m in record["evidence"]
        ]
    pairs = [
        (expected, actual)
        for case_id in quoted
        for expected, actual in zip(quoted[case_id], found[case_id], strict=True)
    ]
    assert len(pairs) == 9181 + 2363
    assert all(expected[0] == actual[0] for expected, actual in pairs)
    deviating = [(expected[1], actual[1]) for expected, actual in pairs if expected != actual]
    assert len(deviating) == 6
    assert all(quote in words and len(words) == len(quote) + 1 for quote, words in deviating)


def test_what_the_corpus_lacks_is_reported(load):
    assert (
        "places whose offsets give other words than the table quotes: 6; left out, empty spans: 2"
        in load("both_es").info.description
    )


def test_descriptions_of_the_corpus(load):
    pytest.importorskip("simple_icd_10_cm")
    builder = load("diagnoses_en")
    names = names_of(builder.as_dataset(split="test"))
    assert builder.code_descriptions["R50.9"] == "Fever, unspecified"
    assert builder.code_descriptions["T81.4XX"] == "Infection following a procedure"
    assert len(builder.code_descriptions.keys() & set(names)) > 0.99 * len(names)
    assert set(names_of(load().as_dataset(split="test"))) <= builder.code_descriptions.keys()


def test_splits_are_the_same_in_another_process(data_dir, load, tmp_path):
    script = (
        "import sys; from dataset_scripts import load_split; "
        "print(load_split('codiesp', 'validation', data_dir=sys.argv[1], cache_dir=sys.argv[2])['case_id'][:])"
    )
    command = [sys.executable, "-c", script, str(data_dir), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(load().as_dataset(split="validation")["case_id"][:])
