"""The corpus of MIMIC-III's size that `benchmarks/dataset_build.py` measures, two thousandths of it."""

import csv
import gzip
from collections import Counter, defaultdict

import pytest

from benchmarks.dataset_build import build_caml, csv_pipeline
from benchmarks.mimic3_sized import CATEGORY_ROWS, MAX_WORDS, MEAN_WORDS, write_sized_corpus
from dataset_scripts import load_builder


FRACTION = 0.002
# For all of MIMIC-III: the first code belongs to every admission with a code.
DISTRIBUTION = "code,total,train,dev,test\n401.9,52722,47719,1631,3372\n00.66,26360,23859,815,1686\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    published = tmp_path_factory.mktemp("published")
    (published / "mimic3_code_distribution.csv").write_text(DISTRIBUTION)
    folder = tmp_path_factory.mktemp("corpus")
    return folder, write_sized_corpus(folder, FRACTION, published)


def test_shape(corpus):
    folder, written = corpus
    with gzip.open(folder / "NOTEEVENTS.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == written.rows == sum(round(FRACTION * number) for number in CATEGORY_ROWS.values())
    with gzip.open(folder / "NOTEEVENTS.csv.gz") as file:
        assert len(file.read()) == written.unpacked_bytes
    assert Counter(row["CATEGORY"] for row in rows)["Discharge summary"] == round(FRACTION * 59_652)
    words = defaultdict(int)
    for row in rows:
        if row["CATEGORY"] == "Discharge summary":
            words[row["HADM_ID"]] += len(row["TEXT"].split())
    assert len(words) == 95 + 3 + 7  # 47,723, 1,631 and 3,372 admissions
    assert max(words.values()) == MAX_WORDS
    assert sum(words.values()) / len(words) == pytest.approx(MEAN_WORDS, rel=0.1)


def test_builds(corpus, tmp_path):
    folder, written = corpus
    builder = load_builder("mimic3", "full", data_dir=folder, cache_dir=tmp_path)
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sum(sizes.values()) == written.admissions
    assert {split: counts["401.9"] for split, counts in builder.code_counts.items()} == sizes


def test_both_pipelines_make_the_same_records(corpus, tmp_path):
    ours, theirs = build_caml(corpus[0], tmp_path), csv_pipeline(corpus[0], tmp_path)
    assert list(ours["records"].values()) == list(theirs["records"].values())
    assert ours["checksum"] == theirs["checksum"] != 0
