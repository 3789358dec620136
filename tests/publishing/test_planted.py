"""How much of what users leave in a release by accident is found, and how much that is harmless is not."""

import json

import pytest
import torch
from planted import spans_of_note, train_tokenizers
from planted_ids import HARMLESS, ids_of_record, secrets
from safetensors.torch import save_file

from dataset_scripts import load_split
from modeling_icd.publishing.credentials import EMAIL, NETWORK, SECRET
from modeling_icd.publishing.folder import project_file
from modeling_icd.publishing.privacy import (
    BAG,
    LOCAL_PATH,
    RECORD_ID,
    SPAN,
    USER_NAME,
    LocalNames,
    TrainingNotes,
    check_files,
)


NAMES = LocalNames(
    paths=("runs/secret-project",), users=("hannah", "will", "max", "test", "model"), public="hannah/tiny-icd"
)
TITLES = ["Encounter of nobody with a title of more than eight words in it", "Congestive heart failure, unspecified"]
# What hides text so that no comparison of spans can see it, or is too short for one. A dictionary of tokens has each of them
# once, and with small pieces hardly a word stays whole.
NOT_FOUND = {
    "words in a random order in a sentence",
    "seven words",
    "tokens of unigram as keys",
    "every letter moved on by thirteen",
    "letters of another script",
    "words backwards",
    "every third word left out",
}


@pytest.fixture(scope="module")
def records(corpus, tmp_path_factory):
    """Twelve invented notes with ids like those of MIMIC-III."""
    own = load_split("mimic3", "all", "full", data_dir=corpus, cache_dir=tmp_path_factory.mktemp("cache"))
    return [{"text": text, "hadm_id": 161803 + i, "subject_id": 27182 + i} for i, text in enumerate(own["text"][:12])]


@pytest.fixture(scope="module")
def tokenizers(records):
    return train_tokenizers([record["text"] for record in records])


def files_of(variants, tmp_path):
    """Each variant as a file in a folder of its own, by what it is."""
    files = {}
    for i, (what, name, content) in enumerate(variants):
        if isinstance(content, dict):
            path = tmp_path / f"{i}.safetensors"
            save_file({"weight": torch.zeros(100_041, dtype=torch.uint8)}, path, content)
            content = path
        files[f"{i}/{name}", what] = content.encode() if isinstance(content, str) else content
    return files


def kinds_of(files, notes, **options):
    """The kinds that were found in each variant."""
    findings = check_files({name: content for (name, _), content in files.items()}, NAMES, notes, **options)
    return {what: {finding.kind for finding in findings if finding.file == name} for name, what in files}


def test_planted_text_ids_and_keys_are_found(records, tokenizers, tmp_path, capsys):
    notes = TrainingNotes(records, TITLES)
    spans = list(spans_of_note(records[0]["text"], tokenizers))
    ids = list(ids_of_record(161804, 27183, [161803 + i for i in range(7)]))
    expected = {key: {SPAN, BAG} for key in (what for what, _, _ in spans)}
    expected |= {key: {RECORD_ID} for key in (what for what, _, _ in ids)}
    expected |= {key: {SECRET, EMAIL, NETWORK, LOCAL_PATH, USER_NAME} for key in (what for what, _, _ in secrets())}
    found = kinds_of(files_of([*spans, *ids, *secrets()], tmp_path), notes)
    for name, tokenizer in tokenizers.items():
        of_kind = [
            variant
            for variant in spans
            if f"ids of {name}" in variant[0] or (name == "words" and variant[0] == "counts of token ids")
        ]
        files = {**files_of(of_kind, tmp_path), ("tokenizer.json", "tokenizer"): tokenizer.to_str().encode()}
        found |= {what: kinds for what, kinds in kinds_of(files, notes).items() if what != "tokenizer"}
    missed = {what for what, kinds in expected.items() if not found[what] & kinds}
    with capsys.disabled():
        print(
            f"\nplanted {len(expected)}, found {len(expected) - len(missed)}; not found: {'; '.join(sorted(missed))}"
        )
    assert len(expected) >= 150 and missed == NOT_FOUND


def test_what_is_harmless_passes(records, tmp_path, capsys):
    texts = {
        "titles of codes": json.dumps({"code_descriptions": dict(enumerate(TITLES))}),
        "a title in the card": TITLES[0],
    }
    variants = []
    for what, name, content in HARMLESS:
        content = texts.get(what, content)
        is_of_project = what in ("the license", "the code of the project", "the card's template", "the README")
        variants.append((what, name, project_file(content).read_text("utf-8") if is_of_project else content))
    # Every number that an admission or a subject of MIMIC-III may have is one of these.
    every = ({"text": "", "hadm_id": 100_000 + i, "subject_id": i} for i in range(100_000))
    stop_words = next(content for what, _, content in HARMLESS if what == "stop words")
    common = " ".join(reversed(stop_words.split(", ")))
    text = [{"text": f"{record['text']} {common}. {TITLES[0]}", "hadm_id": 1, "subject_id": 1} for record in records]
    files = files_of(variants, tmp_path)
    found = kinds_of(
        files,
        TrainingNotes([*text, *every], TITLES, ["401.9", "428.0", "427.31", "414.01", "250.00", "584.9", "518.81"]),
    )
    blocked = {what: kinds for what, kinds in found.items() if kinds}
    with capsys.disabled():
        print(f"\nharmless {len(found)}, blocked {len(blocked)}")
    assert len(found) >= 60 and blocked == {}
