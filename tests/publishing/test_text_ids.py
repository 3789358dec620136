"""Ids of the user's own notes, which are text: found where they go out, and nothing harmless is taken for one."""

import json

import pytest
from planted_ids import HARMLESS, ids_of_record

from modeling_icd.publishing.folder import project_file
from modeling_icd.publishing.privacy import RECORD_ID, LocalNames, TrainingNotes, check_files
from modeling_icd.publishing.views import VOCABULARY_FILES


CODES = ["401.9", "428.0", "J18.9", "E11.65", "02HV33Z"]
IDS = ("PAT-00123", "a3f9c2d1", "0b9f6c1e-1c2d-4a5b-8c9d-0e1f2a3b4c5d", "12-3456-7", "2023/0147/KH", "Fall_Köln_0815")


def found(text, ids, name="README.md"):
    records = [{"text": "", "hadm_id": hadm_id, "subject_id": "nobody"} for hadm_id in ids]
    findings = check_files({name: text.encode()}, LocalNames(), TrainingNotes(records, (), CODES))
    return {finding.kind for finding in findings}


def forms(record_id):
    """Yield (file, content): an id in the forms in which a user may leave it."""
    yield "README.md", f"The worst one was {record_id}."
    yield "README.md", f"| {record_id} | 0.4 |"
    yield "README.md", f"see `{record_id}.txt`, and nothing else"
    yield "README.md", f"as in {record_id.upper()}: nothing"
    yield "results.json", json.dumps({"worst": [record_id]})
    yield "results.json", json.dumps({record_id: 0.31})
    yield "results.json", json.dumps({"note": record_id})
    yield "train.yaml", f"skip: {record_id}\n"
    yield "handler.py", f"SKIPPED = {{'{record_id}': 'empty'}}\n"
    yield "words.csv", f"id,f1\n{record_id},0.5\n"
    yield "examples.jsonl", json.dumps({"id": record_id, "f1": 0.5}) + "\n"
    yield f"{record_id.replace('/', '_')}.txt", "nothing"


@pytest.mark.parametrize("record_id", IDS)
def test_a_telling_id_is_found_in_every_form(record_id):
    for name, content in forms(record_id):
        assert RECORD_ID in found(content, [record_id], name), (name, content)
        assert found(content, ["PAT-99999", "something else"], name) == set()


def test_an_id_is_found_however_its_parts_are_joined():
    for written in ("pat_00123", "PAT 00123", "Pat.00123"):
        assert found(f"see {written} there", ["PAT-00123"]) == {RECORD_ID}
    assert found("see PAT-001234 there", ["PAT-00123"]) == set()
    assert found("12.3456.7 is another number", ["12-3456-7"]) == set()


def test_a_short_id_counts_beside_a_word_for_a_record_or_in_a_list():
    ids = [f"B{i}" for i in range(10, 30)]
    assert found("vitamin B12 and layer B13", ids) == set()
    assert found("Patient B12 is coded worst.", ids) == {RECORD_ID}
    assert found(json.dumps({"worst_notes": ["B12"], "admission": "B13"}), ids, "results.json") == {RECORD_ID}
    assert found("B10, B12, B14, B16, B18", ids) == {RECORD_ID}


def test_an_id_without_a_digit_counts_only_behind_what_calls_itself_an_id():
    assert found("Smith is a name, and pneumonia a disease.", ["smith", "pneumonia", "a"]) == set()
    assert found("patient_id: smith", ["smith"]) == {RECORD_ID}
    assert found(json.dumps({"hadm_id": "smith john"}), ["Smith_John"], "results.json") == {RECORD_ID}
    assert found(json.dumps({"hadm_id": "jones"}), ["smith"], "results.json") == set()


def test_an_id_of_digits_is_found_as_a_number_is(tmp_path):
    others = [161803 + i for i in range(7)]
    notes = TrainingNotes([{"text": "", "hadm_id": str(i), "subject_id": "27183"} for i in others])
    variants = [variant for variant in ids_of_record(161804, 27183, others) if isinstance(variant[2], str)]
    assert len(variants) > 30
    for what, name, content in variants:
        findings = check_files({name: content.encode()}, LocalNames(), notes)
        assert RECORD_ID in {finding.kind for finding in findings}, what


def test_an_id_among_added_tokens_is_found_with_its_line():
    added = json.dumps({"<pad>": 0, "<note_PAT-00123>": 12, "<|reserved_special_token_17|>": 13}, indent=1)
    records = [{"text": "", "hadm_id": hadm_id, "subject_id": "x"} for hadm_id in ("PAT-00123", "PAT-00124")]
    findings = check_files({"added_tokens.json": added.encode()}, LocalNames(), TrainingNotes(records))
    assert [str(finding) for finding in findings if finding.kind == RECORD_ID] == [
        "added_tokens.json: admission or subject id (1), first in line 3"
    ]


def test_what_is_harmless_passes_whatever_ids_the_notes_have():
    words = [
        "model",
        "note",
        "test",
        "train",
        "fever",
        "the",
        "of",
        "a",
        "micro",
        "f1",
        "seed",
        "python",
        "smollm2",
        "x1",
    ]
    ids = [*words, "bf16", "sha256", "llama3", "cc0", "utf8", "J18.9", "J189", "E1165", "2026-10-10", "401.9", "v1.0"]
    ids += [
        *(str(i) for i in range(200)),
        *(str(100_000 + i) for i in range(100_000)),
        *(f"note{i}" for i in range(200)),
    ]
    ids += [f"{letter}{i}" for letter in "abnkpqs" for i in range(1, 40)]
    codes = [*CODES, "427.31", "414.01", "250.00", "584.9", "518.81"]  # as the harmless texts have them
    notes = TrainingNotes([{"text": "", "hadm_id": i} for i in ids], (), codes)
    releases = [{}]
    for i, (what, name, content) in enumerate(HARMLESS):
        if what in ("the license", "the code of the project", "the card's template", "the README"):
            content = project_file(content).read_text("utf-8")
        if isinstance(content, str):
            # In folders of their own, but for those that are known by their names, of which a release has one each.
            name = name if name in VOCABULARY_FILES else f"{i}/{name}"
            if name in releases[-1]:
                releases.append({})
            releases[-1][name] = content.encode()
    blocked = [finding for files in releases for finding in check_files(files, LocalNames(), notes)]
    assert sum(map(len, releases)) > 80 and blocked == []


def test_a_finding_does_not_show_the_id():
    records = [{"text": "", "hadm_id": "PAT-00123", "subject_id": "x"}]
    findings = check_files({"README.md": b"# A model\n\nsee PAT-00123"}, LocalNames(), TrainingNotes(records))
    assert [str(finding) for finding in findings] == ["README.md: admission or subject id (1), first in line 3"]
