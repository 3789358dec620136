import csv
import functools
import gzip
import hashlib
import http.server
import logging
import threading
from collections import Counter, defaultdict

import pyarrow as pa
import pytest
from faults import cached_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mimic3_tables import FULL, NOTE_COLUMNS, TEXTS, codes_of, rewrite, write_table

from dataset_scripts import MIMIC3, add_dot, load_builder, load_split
from dataset_scripts.builders.admissions import MIN_COUNT, choose_most_frequent
from dataset_scripts.builders.caml_splits import (
    CAML_TOP_50,
    SPLITS_SHA256,
    download_split_lists,
    find_split_lists,
    find_top_codes,
    is_official,
    read_code_list,
    read_split_list,
)
from dataset_scripts.builders.mimic3 import read_codes, read_titles
from dataset_scripts.builders.note_text import caml_text, caml_texts, replace_marks
from dataset_scripts.synthetic import write_corpus


def test_full_by_hand(build):
    splits = build().as_dataset()
    assert {name: split["hadm_id"] for name, split in splits.items()} == {
        "train": [101], "validation": [102], "test": [103],
    }  # fmt: skip
    for split in splits.values():
        assert split.features["codes"].feature.names == ["00.66", "038.9", "40.19", "401.9", "E885.9", "V45.81"]
        for hadm_id, codes in codes_of(split).items():
            assert codes == FULL[hadm_id]
        for record in split:
            assert record["text"] == TEXTS[record["hadm_id"]]
            assert record["subject_id"] == record["hadm_id"] - 100
            assert record["codes"] == sorted(record["codes"])
    assert {name: feature.dtype for name, feature in splits["train"].features.items() if name != "codes"} == {
        "subject_id": "int64", "hadm_id": "int64", "text": "large_string",
    }  # fmt: skip


def test_what_is_left_out_is_said_once(build, no_published_titles, caplog):
    with caplog.at_level(logging.WARNING, "dataset_scripts"):
        builder = build()
    report = (
        "MIMIC3/full: left out, discharge summary rows flagged as errors: 1; "
        "left out, discharge summary rows without an admission id: 1; left out, code rows without a code: 2; "
        "left out, code rows that repeat another one: 1; "  # 00.66 of 102
        "left out, admissions without codes: 1; coded admissions without a row in PROCEDURES_ICD: 1; "  # 104; 106
        "left out, admissions in no split list: 1; "
        "codes without a description: 2; "  # E885.9 and V45.81
        "codes of other splits missing from train: 2."  # E885.9 and the procedure 40.19
    )
    assert caplog.messages == [report]
    assert builder.info.description.endswith(report)
    caplog.clear()
    cached = build()
    assert caplog.messages == []
    assert cached.info.description.endswith(report)


def test_descriptions(build, no_published_titles):
    expected = {
        "038.9": "Unspecified septicemia", "401.9": "Hypertension",
        "00.66": "Angioplasty, coronary", "40.19": "Other lymphatic diagnostics",
    }  # fmt: skip
    for builder in (build(), build()):  # the second one is found in the cache
        assert expected.items() <= builder.code_descriptions.items()
        assert builder.code_descriptions["001-139"] == "Infectious and parasitic diseases"
        assert "V45.81" not in builder.code_descriptions
        assert {code: tuple(family) for code, family in builder.code_families.items()} == {
            "00.66": ("00-00", "00-00", "00"), "038.9": ("001-139", "030-041", "038"),
            "40.19": ("40-41", "40-41", "40"), "401.9": ("390-459", "401-405", "401"),
            "E885.9": ("E000-E999", "E880-E888", "E885"), "V45.81": ("V01-V91", "V40-V49", "V45"),
        }  # fmt: skip


def test_descriptions_file_fills_the_gaps(build, tmp_path):
    path = tmp_path / "ICD9_descriptions.txt"
    path.write_text("@\tRoot\n390-459.99\tAn older range\n401\tHigh pressure\n401.9\tOther\nV45.81\tBypass\n")
    titles = build(descriptions_file=path).code_descriptions
    assert (titles["401.9"], titles["401"], titles["V45.81"]) == ("Hypertension", "High pressure", "Bypass")
    assert "390-459.99" not in titles


def test_code_kinds(build):
    for record in build(code_kinds=True).as_dataset(split="validation"):
        assert record["codes"] == [0, 3, 4]  # 00.66, 401.9, E885.9
        assert record["code_kinds"] == [1, 0, 0]
    features = build(code_kinds=True).info.features
    assert features["code_kinds"].feature.names == ["diagnosis", "procedure"]
    assert "code_kinds" not in build().info.features


def test_code_counts(build):
    counts = build().code_counts
    assert counts["train"] == {"00.66": 1, "038.9": 1, "40.19": 0, "401.9": 1, "E885.9": 0, "V45.81": 1}
    assert {split: sum(codes.values()) for split, codes in counts.items()} == {"train": 4, "validation": 3, "test": 2}


def test_deid_marks(build, folder):
    marked = pa.array(["Seen by [**Name (STitle) 12\n**] on [**2101-1-1**], [**3 units [sic] **."])
    assert replace_marks(marked, MIMIC3.DEID_MARK, r"<\1>").to_pylist() == [
        r"Seen by <\1> on <\1>, [**3 units [sic] **."
    ]
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"First note", b"Mrs. [**Last Name**]"))
    assert build().as_dataset(split="train")[0]["text"].startswith("Mrs. [**Last Name**],")
    assert build(deid_token="[DEID]").as_dataset(split="train")[0]["text"].startswith("Mrs. [DEID],")
    assert build(deid_token="").as_dataset(split="train")[0]["text"].startswith("Mrs. ,")
    assert build(deid_token="[DEID]", text="caml").as_dataset(split="train")[0]["text"].startswith("mrs deid with")


def test_repeated_rows_are_kept_and_counted(build, folder):
    """As in CAML: what the table gives twice is read twice, in the order of the file."""
    row = b'"20","1","101","2101-01-01","","","Discharge summary","Addendum","","","Again."\r\n'
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data + row + row.replace(b'"20"', b'"21"'))
    builder = build()
    assert builder.as_dataset(split="train")[0]["text"] == TEXTS[101] + "\n\nAgain.\n\nAgain."
    assert "kept, discharge summary rows that repeat the text of another one: 1;" in builder.info.description


def test_top50_corrected_counts_admissions(build, folder, monkeypatch):
    # Three admissions have 401.9; 00.66 has three rows as well, but in two admissions, as many as 038.9.
    (folder / "TOP_50_CODES.csv").write_text("E885.9\n")  # CAML's list is not asked
    monkeypatch.setattr("dataset_scripts.builders.mimic3.TOP_CODES", 1)
    dataset = build("top50_corrected", unsplit=True).as_dataset(split="unsplit")
    assert codes_of(dataset) == {101: {"401.9"}, 102: {"401.9"}, 106: {"401.9"}}


def test_ties_go_to_the_code_that_sorts_first(build):
    dataset = build("custom", num_codes=2, unsplit=True).as_dataset(split="unsplit")
    assert codes_of(dataset) == {101: {"00.66", "401.9"}, 102: {"00.66", "401.9"}, 106: {"401.9"}}


def test_top50_corrected_keeps_to_the_top50_lists(build, folder, monkeypatch):
    monkeypatch.setattr("dataset_scripts.builders.mimic3.TOP_CODES", 3)
    (folder / "train_50_hadm_ids.csv").write_text("106\n")
    splits = build("top50_corrected").as_dataset()
    assert {name: split["hadm_id"][:] for name, split in splits.items()} == {
        "train": [106], "validation": [102], "test": [103],
    }  # fmt: skip
    assert splits["test"].features["codes"].feature.names == ["00.66", "038.9", "401.9"]


def test_top50_never_counts(build, folder):
    """Without a list of codes the 50 are CAML's, however frequent they are here."""
    builder = build("top50", unsplit=True)
    assert builder.info.features["codes"].feature.names == sorted(CAML_TOP_50)
    assert codes_of(builder.as_dataset(split="unsplit")) == {
        101: {"038.9", "401.9", "V45.81"}, 102: {"401.9"}, 103: {"038.9"}, 106: {"401.9"},
    }  # fmt: skip


def test_configurations_are_told_apart(build, folder):
    options = {"custom": {"num_codes": 6}, "clean": {"min_count": 1, "unsplit": True}}
    (folder / "TOP_50_CODES.csv").write_text("401.9\n038.9\n")
    infos = {name: build(name, **options.get(name, {})).info for name in ("full", "top50", "custom", "clean")}
    assert {name: info.config_name for name, info in infos.items()} == {name: name for name in infos}
    assert len({info.description.split("Configuration ")[1] for info in infos.values()}) == len(infos)
    for name, info in infos.items():
        assert f"Configuration {name}: " in info.description
    described = build("custom", codes=["401.9", "038.9"], text="caml", deid_token="<*>").info.description
    assert described.split("Configuration custom: ")[1].split("\n")[0] == (
        "The `num_codes` codes of most admissions, or those in `codes_file`; CAML's full splits (Mullenbach et al.). In place of its "
        "codes: 2 codes given by the caller. Of the split lists these are not CAML's, byte for byte: "
        "train_full_hadm_ids.csv, dev_full_hadm_ids.csv, test_full_hadm_ids.csv. The text is cut into CAML's words. "
        "De-identification marks are replaced by '<*>'."
    )
    assert "one split of every admission" in infos["clean"].description
    assert "`min_count` is 1." in infos["clean"].description


def test_lists_that_are_not_camls_are_named(folder, tmp_path, monkeypatch):
    def description():
        return MIMIC3("top50", data_dir=folder, cache_dir=tmp_path / "cache").info.description

    for name in ("train", "dev", "test"):
        path = folder / f"{name}_50_hadm_ids.csv"
        monkeypatch.setitem(SPLITS_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    (folder / "TOP_50_CODES.csv").write_text("\n".join(sorted(CAML_TOP_50)))
    assert description().endswith("CAML's top-50 splits.")
    corrected = CAML_TOP_50 - {"33.24", "45.13"} | {"93.90", "V45.82"}
    (folder / "TOP_50_CODES.csv").write_text("\n".join(sorted(corrected)))
    (folder / "dev_50_hadm_ids.csv").write_text("106\n")
    assert description().endswith(
        "CAML's top-50 splits. Of the split lists these are not CAML's, byte for byte: dev_50_hadm_ids.csv. "
        "The 50 codes are those in TOP_50_CODES.csv; CAML's 50 have 48 of them."
    )


def test_custom_takes_a_file_of_codes(build, folder, tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("038.9\n401.9\n")
    builder = build("custom", codes_file=path)
    assert codes_of(builder.as_dataset(split="test")) == {103: {"038.9"}}
    first = builder.cache_dir
    path.write_text("038.9\n401.9\n40.19\n")
    assert build("custom", codes_file=path).cache_dir != first


def test_empty_split_is_refused(build, folder):
    (folder / "TOP_50_CODES.csv").write_text("401.9\n")
    with pytest.raises(ValueError, match="Split 'test' of configuration 'top50' would be empty"):
        build("top50")  # 103 does not have it


@pytest.mark.parametrize("name", ["TOP_50_CODES.csv", "TOP_50_CODES.reconstructed.csv"])
def test_top50_takes_the_given_codes(build, folder, name):
    (folder / name).write_text("401.9\n038.9\nV99.9\n")
    splits = build("top50").as_dataset()
    assert splits["train"].features["codes"].feature.names == ["038.9", "401.9", "V99.9"]
    assert codes_of(splits["train"]) == {101: {"038.9", "401.9"}}
    assert codes_of(splits["validation"]) == {102: {"401.9"}}
    assert codes_of(splits["test"]) == {103: {"038.9"}}


def test_unsplit_needs_no_lists(build, folder):
    for path in folder.glob("*_hadm_ids.csv"):
        path.unlink()
    dataset = build(unsplit=True).as_dataset(split="unsplit")
    assert codes_of(dataset) == {**FULL, 106: {"401.9"}}


def test_given_codes_replace_the_top_50(build, caplog):
    dataset = build("top50", unsplit=True, codes=["E885.9", "038.9"]).as_dataset(split="unsplit")
    assert codes_of(dataset) == {101: {"038.9"}, 102: {"E885.9"}, 103: {"038.9"}}
    assert "left out, admissions with none of the chosen codes: 1" in caplog.text


def test_all_is_every_record(folder, tmp_path):
    assert load_split("mimic3", "all", data_dir=folder, cache_dir=tmp_path / "cache")["hadm_id"][:] == [
        101,
        102,
        103,
        106,
    ]
    builder = load_builder("mimic3", data_dir=folder, cache_dir=tmp_path / "cache")
    assert builder.config.name == "full"
    assert builder.as_dataset(split="test")["hadm_id"][:] == [103]


def test_streaming_gives_the_same_records(build):
    builder = build()
    for split in ("train", "validation", "test"):
        assert list(builder.as_streaming_dataset(split=split)) == list(builder.as_dataset(split=split))


def test_streaming_builds_nothing(build, folder, tmp_path):
    place = {"data_dir": folder, "cache_dir": tmp_path / "cache"}
    for split, options in {"train": {}, "test": {"text": "caml"}, "all": {}}.items():
        looked_at = list(load_split("mimic3", split, streaming=True, **place, **options))
        assert cached_files(tmp_path) == []
        assert looked_at == list(load_split("mimic3", split, cache_dir=tmp_path / "built", data_dir=folder, **options))
    with pytest.raises(ValueError, match="Bad split: dev"):
        load_split("mimic3", "dev", streaming=True, **place)


def test_plain_tables_and_lower_case_names_pass(build, folder):
    expected = list(build().as_dataset(split="train"))
    for path in list(folder.glob("*.csv.gz")):
        header, rest = gzip.decompress(path.read_bytes()).split(b"\r\n", 1)
        path.with_name(path.name.lower().removesuffix(".gz")).write_bytes(header.lower() + b"\n" + rest)
        path.unlink()
    assert list(build().as_dataset(split="train")) == expected


def test_lists_of_another_folder(build, folder, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in folder.glob("*_hadm_ids.csv"):
        path.rename(lists / path.name)
    assert build(splits_dir=lists).as_dataset(split="test")["hadm_id"][:] == [103]


def test_caml_text(build):
    assert caml_text("500 mg of 250mg Tylenol,\non 12/2. ___ a_1") == "mg of 250mg tylenol on a_1"
    record = build(text="caml").as_dataset(split="validation")[0]
    assert record["text"] == "addendum that comes first report that comes second"


@given(st.lists(st.text(st.characters(max_codepoint=127))) | st.lists(st.text()))
def test_many_caml_texts(texts):
    array = pa.array(["cut off", *texts], type=pa.string())[1:]
    assert caml_texts(array).to_pylist() == [caml_text(text) for text in texts]


@given(st.text())
def test_caml_text_is_stable(text):
    words = caml_text(text)
    assert all(any(c.isalpha() for c in word) for word in words.split())
    assert caml_text(words) == words or not text.isascii()


def test_cache_follows_files_and_options(build, folder):
    first = build()
    assert build(text="raw", code_kinds=False, deid_token=None).cache_dir == first.cache_dir
    assert build(text="caml").cache_dir != first.cache_dir
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"First note", b"Another note"))
    second = build()
    assert second.cache_dir != first.cache_dir
    assert second.as_dataset(split="train")[0]["text"].startswith("Another note")


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
# A note without text makes no record.
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip))
def test_any_text_survives(folder, tmp_path, text):
    notes = [(1, 1, 101, "", "", "", "Discharge summary", "Report", "", "", text)]
    write_table(folder / "NOTEEVENTS.csv.gz", NOTE_COLUMNS, notes)
    builder = MIMIC3("full", data_dir=folder, cache_dir=tmp_path / "cache", unsplit=True)
    assert next(iter(builder.as_streaming_dataset(split="unsplit")))["text"] == text


# ---- split lists from CAML's repository


@pytest.fixture
def repository(folder, tmp_path, monkeypatch):
    """A local stand-in for CAML's repository, with the folder's lists, which the folder loses."""
    served = tmp_path / "repository"
    served.mkdir()
    for path in folder.glob("*_hadm_ids.csv"):
        path.rename(served / path.name)
        digest = hashlib.sha256((served / path.name).read_bytes()).hexdigest()
        monkeypatch.setitem(SPLITS_SHA256, path.name, digest)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(
            "dataset_scripts.builders.caml_splits.SPLITS_URL", f"http://127.0.0.1:{server.server_port}"
        )
        yield served
        server.shutdown()


def test_lists_are_downloaded_once(build, repository, tmp_path):
    first = build()
    assert first.as_dataset(split="test")["hadm_id"][:] == [103]
    lists = tmp_path / "cache/downloads/caml_mimic3_splits"
    assert sorted(path.name for path in lists.iterdir()) == [
        "dev_full_hadm_ids.csv", "test_full_hadm_ids.csv", "train_full_hadm_ids.csv",
    ]  # fmt: skip
    for path in repository.iterdir():
        path.unlink()
    assert build().cache_dir == first.cache_dir


def test_downloaded_list_must_be_the_published_one(build, repository, tmp_path):
    (repository / "dev_full_hadm_ids.csv").write_text("104\n")
    with pytest.raises(ValueError, match=r"dev_full_hadm_ids.csv is not the list .* SHA-256 .* as `splits_dir`"):
        build()
    assert not (tmp_path / "cache/downloads/caml_mimic3_splits/dev_full_hadm_ids.csv").exists()


def test_download_cut_short(build, folder, tmp_path, monkeypatch):
    class CutShort(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"101\n")

        def log_message(self, *args):
            pass

    for path in folder.glob("*_hadm_ids.csv"):
        path.unlink()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), CutShort) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(
            "dataset_scripts.builders.caml_splits.SPLITS_URL", f"http://127.0.0.1:{server.server_port}"
        )
        with pytest.raises(ConnectionError, match=r"No train_full_hadm_ids.csv in .*IncompleteRead.* as `splits_dir`"):
            build()
        server.shutdown()
    assert cached_files(tmp_path) == []


def test_offline_is_one_clear_message(build, repository, monkeypatch):
    for path in repository.iterdir():
        path.unlink()
    message = (
        r"No train_full_hadm_ids.csv in `data_dir`, .* cannot be downloaded .*[Nn]ot found\)\. Get .* `splits_dir`"
    )
    with pytest.raises(ConnectionError, match=message):
        build()
    monkeypatch.setattr("dataset_scripts.builders.caml_splits.SPLITS_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"cannot be downloaded from .*refused"):
        build()
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE forbids"):
        build()
    assert len(build(unsplit=True).as_dataset(split="unsplit")) == 4


def test_damaged_download_is_replaced(repository, tmp_path):
    lists = download_split_lists("50", tmp_path / "lists")
    lists["train"].write_text("1\n")
    assert download_split_lists("50", tmp_path / "lists") == lists
    assert lists["train"].read_text() == "101\n104\n"


# ---- synthetic corpus


@pytest.mark.parametrize(("config", "suffix"), [("full", "full"), ("top50", "50")])
def test_synthetic_corpus(tmp_path, config, suffix):
    """Against the tables as Python's own csv module reads them."""
    folder = tmp_path / "corpus"
    write_corpus(folder, num_admissions=300, length="short", show_progress=False)
    expected = defaultdict(set)
    for table, kind in (("DIAGNOSES_ICD", "diagnosis"), ("PROCEDURES_ICD", "procedure")):
        with gzip.open(folder / f"{table}.csv.gz", "rt", newline="") as file:
            for row in csv.DictReader(file):
                expected[int(row["HADM_ID"])].add(add_dot(row["ICD9_CODE"], kind))
    kept = set().union(*expected.values())
    if config == "top50":
        kept = set((folder / "TOP_50_CODES.csv").read_text().split())

    builder = load_builder("mimic3", config, data_dir=folder, cache_dir=tmp_path / "cache")
    for split, listed in (("train", "train"), ("validation", "dev"), ("test", "test")):
        dataset = builder.as_dataset(split=split)
        ids = [int(line) for line in (folder / f"{listed}_{suffix}_hadm_ids.csv").read_text().split()]
        assert dataset["hadm_id"][:] == ids
        assert dataset.features["codes"].feature.names == sorted(kept)
        assert codes_of(dataset) == {hadm_id: expected[hadm_id] & kept for hadm_id in ids}
        assert all(len(text) > 100 for text in dataset["text"])
    assert kept <= builder.code_descriptions.keys()


def test_clean_splits(tmp_path):
    """Rare codes dropped, subjects whole, shares of the admissions and of each frequent code as asked."""
    folder = tmp_path / "corpus"
    write_corpus(folder, num_admissions=600, length="short", show_progress=False)
    for path in folder.glob("*_hadm_ids.csv"):
        path.unlink()  # not needed

    def build(**options):
        builder = MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder

    builder = build()
    splits = builder.as_dataset()
    subjects = [set(split["subject_id"]) for split in splits.values()]
    assert len(set().union(*subjects)) == sum(map(len, subjects))
    records = sum(map(len, splits.values()))
    assert [len(split) / records for split in splits.values()] == pytest.approx([0.75, 0.10, 0.15], abs=0.02)

    full = MIMIC3("full", data_dir=folder, cache_dir=tmp_path / "cache", unsplit=True)
    full.download_and_prepare()
    counts = full.code_counts["unsplit"]
    assert set(builder.info.features["codes"].feature.names) == {code for code, count in counts.items() if count >= 10}
    by_split = builder.code_counts
    for code, count in counts.items():
        if count >= 10:
            assert sum(by_split[split][code] for split in by_split) == count
            assert by_split["test"][code] == pytest.approx(0.15 * count, abs=2.5 + 0.03 * count)

    again = MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "other cache")
    again.download_and_prepare()
    assert again.as_dataset(split="test")["hadm_id"][:] == splits["test"]["hadm_id"][:]
    assert build(seed=1).as_dataset(split="test")["hadm_id"][:] != splits["test"]["hadm_id"][:]


# ---- real data


def test_official_lists(shared_dir):
    folder = str(shared_dir / "data/caml_mimic3_splits")
    sizes = {"full": [47723, 1631, 3372], "50": [8066, 1573, 1729]}
    for suffix, expected in sizes.items():
        lists = [read_split_list(path) for path in find_split_lists(folder, suffix).values()]
        assert [len(ids) for ids in lists] == expected
        assert len(set().union(*lists)) == sum(expected)
    codes = read_code_list(find_top_codes(folder))
    assert len(codes) == 50
    assert codes == CAML_TOP_50
    assert all(is_official(shared_dir / "data/caml_mimic3_splits" / name) for name in SPLITS_SHA256)


def published_counts(shared_dir):
    with open(shared_dir / "data/mimic3_published/mimic3_code_distribution.csv") as file:
        return {row["code"]: int(row["total"]) for row in csv.DictReader(file)}


def test_two_codes_of_top50_are_not_the_most_frequent(shared_dir):
    most = choose_most_frequent(published_counts(shared_dir), 50, "")
    assert most - CAML_TOP_50 == {"93.90", "V45.82"}
    assert CAML_TOP_50 - most == {"33.24", "45.13"}


def test_clean_keeps_the_published_number_of_codes(shared_dir):
    """3,681 in Edin et al.: ten admissions, counted over all splits."""
    assert sum(count >= MIN_COUNT for count in published_counts(shared_dir).values()) == 3681


def test_demo_tables(shared_dir):
    """Real rows: leading zeros survive (71 diagnoses and 34 procedures), and so do the titles."""
    folder = shared_dir / "data/mimic3_demo"
    for name, kind, rows, zeros in (
        ("DIAGNOSES_ICD", "diagnosis", 1761, 71),
        ("PROCEDURES_ICD", "procedure", 506, 34),
    ):
        with open(folder / f"{name}.csv") as file:
            table = list(csv.DictReader(file))
        batches = read_codes(folder / f"{name}.csv", kind, {int(row["HADM_ID"]) for row in table})
        hadm_ids, _, codes, is_empty = (
            [value for part in parts for value in part.to_pylist()] for parts in zip(*batches, strict=True)
        )
        assert (len(codes), sum(is_empty)) == (rows, 0)
        assert sum(code.startswith("0") for code in codes) == zeros
        assert Counter(zip(hadm_ids, (code.replace(".", "") for code in codes), strict=True)) == Counter(
            (int(row["HADM_ID"]), row["ICD9_CODE"]) for row in table
        )
    titles = dict(read_titles(folder / "D_ICD_DIAGNOSES.csv", "diagnosis"))
    assert len(titles) == 14567
    assert titles["038.9"] == "Unspecified septicemia"
    titles = dict(read_titles(folder / "D_ICD_PROCEDURES.csv", "procedure"))
    assert len(titles) == 3882
    assert titles["96.71"].startswith("Continuous invasive mechanical ventilation for less than 96")


def test_demo_has_no_notes(shared_dir, tmp_path):
    builder = MIMIC3("full", data_dir=shared_dir / "data/mimic3_demo", cache_dir=tmp_path, unsplit=True)
    with pytest.raises(ValueError, match=r"holds no discharge summary .* the open MIMIC-III demo comes without notes"):
        builder.download_and_prepare()
