"""What may be a fault in a folder of CodiEsp is counted, and the description of the data set says the counts."""

import pytest
from test_codiesp import append, write_corpus

from dataset_scripts import load_builder


@pytest.fixture
def corpus(tmp_path):
    train = {f"S1-{i:02}": (["r50.9"] if i % 3 else ["r50.9", "n23"], ["bw20"] if i % 2 else []) for i in range(20)}
    return write_corpus(tmp_path / "codiesp", train, {"S2-1": (["r50.9"], ["bw20"])})


@pytest.fixture
def build(corpus, tmp_path):
    def build(config):
        return load_builder("codiesp", config, data_dir=corpus, cache_dir=tmp_path / "cache")

    return build


def test_repeated_rows_and_texts_are_counted(corpus, build):
    append(corpus / "train/trainD.tsv", "S1-01", "r50.9")
    append(corpus / "dev/devD.tsv", "S2-1", "R50.9")
    append(corpus / "dev/devP.tsv", "S2-1", "bw20")
    for config, rows in (("diagnoses_en", 2), ("both_en", 3)):
        builder = build(config)
        assert f"left out, rows that repeat another one's code: {rows};" in builder.info.description
        assert "cases with the text of another one: 20" in builder.info.description  # all 21 have the same


def test_a_byte_order_mark_and_other_line_ends_change_no_record(corpus, build):
    expected = {name: list(split) for name, split in build("both_es").as_dataset().items()}
    for path in corpus.glob("*/*.tsv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert {name: list(split) for name, split in build("both_es").as_dataset().items()} == expected
