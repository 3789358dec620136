"""MDACE's annotations, moved from the rows of NOTEEVENTS into the texts of records, and its splits."""

import json
import re
from collections import Counter

import pytest
from mimic3_tables import folder  # noqa: F401

from dataset_scripts import MIMIC3, load_builder, load_split
from dataset_scripts.builders.mdace import Charts, find_charts, find_lists
from dataset_scripts.builders.mimic3 import MIMIC3Config
from dataset_scripts.builders.note_text import caml_text
from dataset_scripts.evidence import gold_evidence, locate_evidence
from dataset_scripts.marker import is_synthetic
from dataset_scripts.synthetic import write_corpus


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """An invented corpus with 20 of its admissions in MDACE's files."""
    corpus = tmp_path_factory.mktemp("twin")
    write_corpus(corpus, 40, 3, "short", addendum_rate=0.5, show_progress=False, mdace_charts=20)
    return corpus


def test_the_twin_gives_the_evidence_of_the_corpus_and_its_splits(twin, tmp_path):
    options = {"data_dir": twin, "cache_dir": tmp_path, "evidence": str(twin / "mdace")}
    records = {
        split: load_split("mimic3", split, "mdace_charts", **options) for split in ("train", "validation", "test")
    }
    assert sum(map(len, records.values())) == 20
    has_addendum = 0
    for split in records.values():
        known = locate_evidence(twin, split["hadm_id"], split["text"])
        given = gold_evidence(split, twin)
        assert [{c: sorted(s) for c, s in of.items()} for of in given] == [
            {c: sorted(s) for c, s in of.items()} for of in known
        ]
        has_addendum += sum("Addendum:" in text for text in split["text"])
    assert has_addendum > 3  # whose spans lie behind the report
    everywhere = load_builder("mimic3", "mdace", **options).as_dataset()
    assert sum(len(split) for split in everywhere.values()) == 40
    assert is_synthetic(twin)


def test_evidence_of_icd10_is_for_models_of_icd10(twin, tmp_path):
    records = load_split("mimic3", "all", data_dir=twin, cache_dir=tmp_path, evidence=str(twin / "mdace"))
    nine, ten = gold_evidence(records, twin), gold_evidence(records, twin, ["I10", "E11.9"])
    row = next(i for i, of_note in enumerate(nine) if "401.9" in of_note)
    assert nine[row]["401.9"] == ten[row]["I10"] and "I10" not in nine[row]
    assert sum(map(bool, nine)) == 20 and gold_evidence(records, twin, ["401.9"]) == nine


@pytest.mark.parametrize(
    "options", [{"text": "caml"}, {"deid_token": "<deid>"}, {"deid_token": "a b", "text": "caml"}]
)
def test_spans_follow_what_the_options_make_of_the_text(twin, tmp_path, options):
    places = {"data_dir": twin, "cache_dir": tmp_path, "evidence": str(twin / "mdace")}
    raw, made = (load_split("mimic3", "all", **places, **own) for own in ({}, options))

    def expected(text):
        text = re.sub(MIMIC3.DEID_MARK, options.get("deid_token", ""), text) if "deid_token" in options else text
        return caml_text(text) if "text" in options else text

    counted = 0
    for row, (before, after) in enumerate(zip(gold_evidence(raw, twin), gold_evidence(made, twin), strict=True)):
        words = [(code, expected(raw[row]["text"][s:e])) for code, spans in before.items() for s, e in spans]
        found = [(code, made[row]["text"][s:e]) for code, spans in after.items() for s, e in spans]
        assert sorted(found) == sorted(
            (code, text) for code, text in words if text
        )  # a number alone is no word of CAML's
        counted += len(found)
    assert counted > 100


def write_chart(place, hadm_id, notes, edition="ICD-9", system="ICD-9-CM"):
    """Notes are `(ROW_ID, [(begin, end, code)])`."""
    place.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "note_id": note_id,
            "category": "Discharge summary",
            "description": "Report",
            "annotations": [
                {"begin": b, "end": e, "code": c, "code_system": system, "description": "", "type": "Human"}
                for b, e, c in marked
            ],
        }
        for note_id, marked in notes
    ]
    chart = {"hadm_id": hadm_id, "comment": "", "notes": entries}
    (place / f"{hadm_id}-{edition}.json").write_text(json.dumps(chart))


def test_what_cannot_be_mapped_is_left_out_and_counted(folder, tmp_path):  # noqa: F811
    place = tmp_path / "mdace/data/Inpatient/ICD-9/1.0"
    # Admission 102: row 2 is `Addendum that comes first.`, row 4 `Report that comes second.`, row 5 was an error.
    good, cut, twice = (0, 8, "401.9"), (1, 8, "401.9"), (0, 8, "401.9")
    write_chart(
        place, 102, [(4, [(0, 6, "E885.9")]), (2, [good, cut, twice, (20, 99, "401.9"), (8, 9, "401.9")]), (5, [good])]
    )
    write_chart(place, 777, [(4, [good])])
    (place / "102-other.json").write_text(
        (place / "777-ICD-9.json").read_text().replace("777", "102").replace("ICD-9-CM", "CPT")
    )
    options = {"data_dir": folder, "cache_dir": tmp_path / "cache", "unsplit": True}
    builder = load_builder("mimic3", "full", evidence=str(tmp_path / "mdace"), **options)
    record = next(row for row in builder.as_dataset(split="unsplit") if row["hadm_id"] == 102)
    assert record["text"] == "Addendum that comes first.\n\nReport that comes second."
    found = [(place["code"], record["text"][s:e]) for place in record["evidence"] for s, e in place["spans"]]
    assert found == [("E885.9", "Report"), ("401.9", "Addendum"), ("401.9", "ddendum")]
    for said in (
        "places that are not in the text of their note: 2",
        "places in notes that are no discharge summary of the admission: 1",
        "places that are given twice: 1",
        "places in admissions without a record: 1",
        "places of other code systems: 1",
        "places that begin or end within a word: 1",
        "charts with evidence in MDACE: 1",
    ):
        assert said in builder.info.description
    assert all(row["evidence"] == [] for row in builder.as_dataset(split="unsplit") if row["hadm_id"] != 102)


def test_another_table_than_the_annotated_one_is_refused(folder, tmp_path):  # noqa: F811
    write_chart(tmp_path / "mdace", 102, [(9001, [(0, 8, "401.9")])])
    with pytest.raises(ValueError, match="by ROW_ID and characters"):
        load_builder(
            "mimic3", "full", data_dir=folder, cache_dir=tmp_path / "c", unsplit=True, evidence=str(tmp_path / "mdace")
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"102.json is not \{\"hadm_id\""),
        ('{"hadm_id": 102, "notes": [{"note_id": 4}]}', "note 1 lacks `note_id` or a list"),
        ('{"hadm_id": 102, "notes": [{"note_id": 4, "annotations": [{"begin": 1}]}]}', "annotation 1 of note 1 lacks"),
        (
            '{"hadm_id": 102, "notes": [{"note_id": 4, "annotations": '
            '[{"begin": 1, "end": 2, "code": "4019", "code_system": "ICD-9-CM"}]}]}',
            "annotation 1 of note 1: '4019' is not a dotted",
        ),
        ('{"hadm_id": 102, "notes": []}', "mark no ICD code"),
    ],
)
def test_a_damaged_chart_is_named(content, said, tmp_path):
    (tmp_path / "102.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        Charts(find_charts(str(tmp_path)))


def test_what_is_missing_is_asked_for(folder, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="'mdace' needs `evidence`"):
        MIMIC3("mdace", data_dir=folder, cache_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No \.json file in `evidence`"):
        MIMIC3("full", data_dir=folder, cache_dir=tmp_path, evidence=str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"MDace-ev-train\.csv, .* `splits_dir` its folder"):
        MIMIC3("mdace_charts", data_dir=folder, cache_dir=tmp_path, splits_dir=str(tmp_path / "empty"))


def test_the_published_annotations_and_lists_are_read(shared_dir):
    place = shared_dir / "data/mdace"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    charts = Charts(find_charts(str(place)))
    assert len(charts.hadm_ids) == 302 and charts.other_systems == 0
    assert Counter(annotation.edition for annotation in charts.annotations) == {"ICD-9-CM": 3936, "ICD-10": 3934}
    for given in (place, place / "data/Inpatient"):
        sizes = {
            c: [len(p.read_text().split()) for p in find_lists(str(given), c).values()]
            for c in ("mdace", "mdace_charts")
        }
        assert sizes == {"mdace": [47_900, 1_691, 3_131], "mdace_charts": [181, 60, 61]}


def test_evidence_that_the_records_cannot_have_is_refused(tmp_path):
    for options in ({"sections": ["hospital course"]}, {"text": "edin"}, {"granularity": "category"}):
        with pytest.raises(ValueError, match="`evidence`"):
            MIMIC3Config(name="full", data_dir=str(tmp_path), evidence=str(tmp_path), **options)


def test_evidence_is_of_the_edition_of_the_records_codes(twin, tmp_path):
    options = {"data_dir": str(twin), "evidence": str(twin / "mdace"), "cache_dir": str(tmp_path / "cache")}
    builder = load_builder("mimic3", "mdace_charts", to_icd10=True, **options)
    records = builder.as_dataset(split="train")
    codes = {code for spans in gold_evidence(records, twin) for code in spans}
    assert codes & set(records.features["codes"].feature.names)
