import base64
import json

import numpy as np
import pytest

from modeling_icd.publishing.credentials import SECRET
from modeling_icd.publishing.privacy import (
    DEIDENTIFIED,
    LOCAL_PATH,
    RARE_WORD,
    RECORD_ID,
    SPAN,
    USER_NAME,
    LocalNames,
    TrainingNotes,
    check_files,
    hash_spans,
    hash_words,
)
from modeling_icd.publishing.views import WORD, fold


NAMES = LocalNames(paths=("runs/secret-project",), users=("hannah",), public="hannah/tiny-icd")
NOTE = "The invented patient was seen\nby nobody on [**2101-1-1**], and then went home to feed nine imaginary cats."
RECORDS = [{"text": NOTE, "hadm_id": 145834, "subject_id": 21003}]
TITLES = ["Encounter of nobody with a title of more than eight words in it"]


def kinds(text, name="README.md", records=RECORDS, titles=()):
    findings = check_files({name: text.encode()}, NAMES, TrainingNotes(records, titles))
    assert all(finding.file == name for finding in findings)
    return {finding.kind for finding in findings}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (LOCAL_PATH, 'read from "/scratch/mimic/notes"'),
        (LOCAL_PATH, "C:\\Users\\someone\\notes"),
        (LOCAL_PATH, "~/data/mimic"),
        (LOCAL_PATH, "saved in runs/secret-project"),
        (USER_NAME, "trained by Hannah."),
        (SECRET, "hf_" + "a" * 34),
        (SECRET, 'api_key = "0123456789abcdef0123"'),
        (SECRET, "-----BEGIN RSA PRIVATE KEY-----"),
        (RECORD_ID, "hadm_id: 7"),
        (RECORD_ID, "the worst note is 145834."),
        (DEIDENTIFIED, "seen by Dr. [**Last Name**]"),
        (SPAN, "it said: seen by nobody on 2101 1 1 and then went"),
        (SPAN, r'"invented\npatient was\nseen by nobody on\n2101 1 1 and"'),
        (SPAN, "Went home to feed nine imaginary\n\n* **cats** and 'THEN' -- went home to feed nine imaginary cats"),
    ],
)
def test_each_kind_is_found(kind, text):
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "see https://huggingface.co/hannah/tiny-icd and and/or either/or path/to/this/folder",
        "published as hannah/tiny-icd",
        "1,145,834 weights, a loss of 0.145834 after 21003 steps on 2026-10-10",
        "nobody on 2101 1 1 and then",  # seven words
        "feed nine imaginary cats home to went then and",
    ],
)
def test_what_is_public_passes(text):
    assert kinds(text) == set()


def test_five_subject_ids_are_no_coincidence():
    records = [{"text": "", "hadm_id": 100000 + i, "subject_id": 1000 + i} for i in range(9)]
    assert kinds("1000 1001 1002 1003", records=records) == set()
    assert kinds("1000 1001 1002 1003 1004", records=records) == {RECORD_ID}


def test_a_title_of_a_code_is_public_even_where_a_note_quotes_it():
    records = [{"text": f"Seen for {TITLES[0]}.", "hadm_id": 1, "subject_id": 1}]
    assert kinds(TITLES[0], records=records) == {SPAN}
    assert kinds(TITLES[0], records=records, titles=TITLES) == set()


def test_escapes_and_syntax_of_json_hide_nothing():
    leak = {"notes": [NOTE[:58], {"rest": NOTE[58:]}], "hadm_ids": [145834], "other": {"id": "145834"}}
    assert kinds(json.dumps(leak, ensure_ascii=True), "config.json") == {SPAN, RECORD_ID, DEIDENTIFIED}


def test_tokens_with_their_attention_are_a_span():
    words = NOTE.replace("[**", "").split()
    assert kinds(json.dumps({"tokens": [[word, 0.1 + i / 50] for i, word in enumerate(words)]}), "x.json") == {SPAN}
    assert kinds(json.dumps({word: i / 50 - 0.01 for i, word in enumerate(words)}), "results.json") == {SPAN}
    assert kinds('{"hadm_id": 145834.0}', "results.json") == {RECORD_ID}


def test_a_path_in_the_configuration_of_a_tokenizer_is_found():
    config = {"name_or_path": "/scratch/llama", "added_tokens_decoder": {"145834": {"content": "<|x|>"}}}
    assert kinds(json.dumps(config), "tokenizer_config.json") == {LOCAL_PATH}
    assert kinds('{"name_or_path": "runs/secret-project"}', "tokenizer_config.json") == {LOCAL_PATH}


def test_figures_and_class_ids_of_a_configuration_are_no_record_ids():
    records = [{"text": "", "hadm_id": i, "subject_id": i} for i in range(1000, 200_000)]
    config = {"vocab_size": 128256, "id2label": {str(i): f"{i}.0" for i in range(2000)}, "num_notes": 131072}
    assert kinds(json.dumps(config), "config.json", records=records) == set()


def test_words_that_few_notes_have_are_found_in_a_word_vocabulary():
    tokenizer = json.dumps({"model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "cats": 1, "unseen": 2}}})
    assert kinds(tokenizer, "tokenizer.json") == {RARE_WORD}
    assert kinds(tokenizer, "tokenizer.json", records=RECORDS * 10) == set()


def test_a_finding_never_shows_the_text():
    findings = check_files({"README.md": NOTE.encode()}, NAMES, TrainingNotes(RECORDS))
    shown = " ".join(map(str, findings)) + repr(findings) + repr(TrainingNotes(RECORDS))
    assert findings
    assert not {"cats", "145834", "imaginary"} & set(shown.replace("'", " ").split())


def test_the_header_of_weights_is_read(finished_run):
    assert check_files({"model.safetensors": finished_run / "model.safetensors"}, NAMES) == []


def test_spans_by_hand():
    texts = ("a b c d e f g h i", "b C, d\ne_f g; h i")
    one, other = (hash_spans(hash_words(WORD.findall(fold(text)))) for text in texts)
    assert (len(one), len(other)) == (2, 1)
    assert one[1] == other[0] != one[0]
    assert len(hash_spans(np.arange(7, dtype=np.uint64))) == 0


def test_a_finding_names_the_line_and_how_the_text_is_written_there():
    files = {
        "README.md": f"# A model\n\n{NOTE}".encode(),
        "config.json": json.dumps({"a": 1, "b": [1, 2], "c": NOTE}, indent=1).encode(),
        "results.json": json.dumps({"x": 1, "text": base64.b64encode(NOTE.encode()).decode()}).encode(),
    }
    found = {f.file: f.place for f in check_files(files, NAMES, TrainingNotes(RECORDS)) if f.kind == SPAN}
    assert found == {
        "README.md": "line 3",
        "config.json": "line 7",
        "results.json": "line 1, as base64",
    }


def test_an_account_whose_name_is_a_word_counts_only_where_an_account_is_named():
    names = LocalNames(users=("will", "grace"))
    assert check_files({"README.md": b"It will run by the grace of Will."}, names) == []
    for text in ("/scratch/will", "ssh will@login01", "~grace", "username: grace", "C:\\Users\\Will\\x"):
        assert USER_NAME in {finding.kind for finding in check_files({"README.md": text.encode()}, names)}, text


def test_words_of_a_note_in_order_are_a_span_even_as_a_vocabulary():
    words = {word: i for i, word in enumerate(NOTE.replace("[**", "").split())}
    content = json.dumps({"model": {"type": "BPE", "vocab": words, "merges": [["c", "a"]]}})
    assert SPAN in kinds(content, "tokenizer.json")


def test_long_lines_without_a_word_take_no_time():
    for text in ("ab12" * 20_000, " " * 50_000 + "x", "a:" * 20_000, "/a" * 20_000, "&a" * 20_000, "##a " * 10_000):
        assert SPAN not in kinds(text)


def test_long_runs_of_words_and_numbers_take_no_time():
    for text in ("a 1 " * 10_000, "a (1) b " * 10_000, '"a": ' * 10_000, "1" * 25_000, "a-" * 10_000, "x1 " * 10_000):
        assert SPAN not in kinds(text)
    for text in (
        "- " * 15_000,
        "1. " * 10_000,
        "a: " * 10_000,
        "a/" * 10_000,
        "|" * 25_000,
        "machine a login " * 2_500,
    ):
        assert SPAN not in kinds(text)
    for text in ("1-" * 10_000, "\x1b[" * 10_000, "//a" * 2_500, "username: a " * 2_500, "_" * 25_000, "\n" * 25_000):
        assert SPAN not in kinds(text)
