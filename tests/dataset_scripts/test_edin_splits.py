"""The splits of Edin et al.: the published files, and what becomes of tables small enough to work out by hand."""

import functools
import hashlib
import http.server
import threading

import pyarrow as pa
import pyarrow.feather
import pytest
import test_mimic4
from mimic3_tables import codes_of, rewrite

from dataset_scripts import MIMIC3, MIMIC4, load_builder
from dataset_scripts.builders.caml_splits import find_split_lists, read_split_list
from dataset_scripts.builders.edin_splits import EDIN_DATA, EDIN_SHA256, edin_text, is_edin, read_edin_list
from dataset_scripts.synthetic import write_corpus


tables4 = test_mimic4.folder  # the fixture, beside that of MIMIC-III


def write_list(path, **splits):
    rows = [(hadm_id, split) for split, hadm_ids in splits.items() for hadm_id in hadm_ids]
    columns = {"_id": [row[0] for row in rows], "split": [row[1] for row in rows]}
    pyarrow.feather.write_feather(pa.table(columns), path)


@pytest.fixture
def build3(folder, tmp_path):
    """MIMIC-III `clean` with lists beside the tables; every code counts."""
    write_list(folder / "mimiciii_clean_splits.feather", train=[103, 101], val=[102], test=[106])

    def build(**options):
        builder = MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache", **{"min_count": 1, **options})
        builder.download_and_prepare()
        return builder

    return build


@pytest.fixture
def build4(tables4, tmp_path):
    """MIMIC-IV with lists of their own beside the tables; every code counts."""
    write_list(tables4 / "mimiciv_icd10_split.feather", train=[109, 555], val=[101, 102], test=[104])
    write_list(tables4 / "mimiciv_icd9_split.feather", train=[103], val=[104])

    def build(config="icd10", **options):
        builder = MIMIC4(config, data_dir=tables4, cache_dir=tmp_path / "cache", **{"min_count": 1, **options})
        builder.download_and_prepare()
        return builder

    return build


# ---- the published files


@pytest.mark.parametrize("config", EDIN_DATA)
def test_published_lists(shared_dir, config):
    data = EDIN_DATA[config]
    path = shared_dir / "data/edin_splits" / data.whole
    assert is_edin(path)
    lists = read_edin_list(path)
    assert {name: len(ids) for name, ids in lists.items()} == data.admissions
    assert sum(data.admissions.values()) == {"clean": 52712, "icd10": 122279, "icd9": 209326}[config]


def test_the_editions_share_admissions(shared_dir):
    """Seven, which have codes of both; two of them are in different splits."""
    folder = shared_dir / "data/edin_splits"
    first, second = (
        {hadm_id: name for name, ids in read_edin_list(folder / EDIN_DATA[config].whole).items() for hadm_id in ids}
        for config in ("icd9", "icd10")
    )
    shared = first.keys() & second.keys()
    assert len(shared) == 7
    assert sum(first[hadm_id] != second[hadm_id] for hadm_id in shared) == 2


def test_their_full_splits_are_camls(shared_dir):
    """The same admissions in the same order, but for four of train that have no code; `clean` leaves ten more out."""
    theirs = read_edin_list(shared_dir / "data/edin_splits/mimiciii_full_splits.feather")
    files = find_split_lists(str(shared_dir / "data/caml_mimic3_splits"), "full")
    camls = {name: read_split_list(path) for name, path in files.items()}
    uncoded = set(camls["train"]) - set(theirs["train"])
    assert len(uncoded) == 4
    assert {name: [hadm_id for hadm_id in ids if hadm_id not in uncoded] for name, ids in camls.items()} == theirs
    clean = read_edin_list(shared_dir / "data/edin_splits/mimiciii_clean_splits.feather")
    left_out = {i for ids in theirs.values() for i in ids} - {i for ids in clean.values() for i in ids}
    assert len(left_out) == 10


# ---- MIMIC-III


def test_clean_by_hand(build3):
    """In the order of their file; the row that is flagged as an error is kept, as there."""
    builder = build3()
    splits = builder.as_dataset()
    assert {name: list(split["hadm_id"]) for name, split in splits.items()} == {
        "train": [103, 101], "validation": [102], "test": [106],
    }  # fmt: skip
    assert codes_of(splits["train"]) == {103: {"038.9", "40.19"}, 101: {"038.9", "401.9", "V45.81", "00.66"}}
    assert splits["validation"]["text"][0].endswith("Report that comes second.\n\nEntered in error.")
    said = builder.info.description
    assert (
        "The splits are those of Edin et al. (arXiv 2304.10909). `min_count` is 1, where Edin et al. have 10." in said
    )
    assert "mimiciii_clean_splits.feather is not their file, byte for byte." in said
    assert "kept, discharge summary rows flagged as errors: 1;" in said


def check_unsplit(build, hadm_id, counted):
    """Without splits the records are those of the splits, and so is what is counted; `splits=stratified` leaves out."""
    theirs, whole = build(), build(unsplit=True)
    in_splits = {record["hadm_id"]: record["text"] for split in theirs.as_dataset().values() for record in split}
    unsplit = {record["hadm_id"]: record["text"] for record in whole.as_dataset(split="unsplit")}
    assert in_splits.items() <= unsplit.items() and hadm_id in in_splits
    for builder in (theirs, whole):
        assert f"kept, {counted}" in builder.info.description
    assert "Records are made as for the splits of Edin et al." in whole.info.description
    ours = build(unsplit=True, splits="stratified")
    assert f"left out, {counted}" in ours.info.description
    texts = {record["hadm_id"]: record["text"] for record in ours.as_dataset(split="unsplit")}
    assert texts.get(hadm_id) != unsplit[hadm_id]


def test_unsplit_makes_the_records_of_the_splits(build3):
    check_unsplit(build3, 102, "discharge summary rows flagged as errors: 1;")


def test_unsplit_of_mimic4_makes_the_records_of_the_splits(build4):
    check_unsplit(build4, 104, "admissions with codes of both ICD-9 and ICD-10: 1;")


def test_codes_are_counted_over_listed_admissions(build3, folder):
    # 401.9 is in 101, 102 and 106; 106 is not listed here, and 103, with two codes of its own, keeps its split.
    write_list(folder / "mimiciii_clean_splits.feather", train=[101], val=[102], test=[103])
    assert set(build3(min_count=2).info.features["codes"].feature.names) == {"00.66", "038.9", "401.9"}
    with pytest.raises(ValueError, match=r"Split 'validation' of configuration 'clean' would be empty"):
        build3(min_count=2, codes=["038.9"])


def test_subset_is_a_smaller_train_split(build3, folder):
    write_list(folder / "mimiciii_clean_subsplit_0.2.feather", train=[101], val=[102], test=[106])
    builder = build3(subset="subsplit_0.2")
    assert list(builder.as_dataset()["train"]["hadm_id"]) == [101]
    assert builder.info.features["codes"].feature.names == build3().info.features["codes"].feature.names
    assert "Train is their subsplit_0.2." in builder.info.description
    write_list(folder / "mimiciii_clean_subsplit_0.2.feather", train=[101, 104], val=[102], test=[106])
    with pytest.raises(ValueError, match=r"its train split is not of mimiciii_clean_splits.feather: 1 admissions too"):
        build3(subset="subsplit_0.2")
    write_list(folder / "mimiciii_clean_subsplit_0.2.feather", train=[101], val=[102], test=[])
    with pytest.raises(ValueError, match=r"its test split is not of .*, 1 missing"):
        build3(subset="subsplit_0.2")


def test_words_of_theirs(build3, folder):
    """By hand after `TextPreprocessor`: numbers between white space go, one at the beginning or the end stays."""
    assert edin_text(
        "12 mg of 250mg Tylenol,\non 12/2 34. ___ A_1 of 7"
    ) == "12 mg of 250mg tylenol on a 1 of 7".replace(" a 1 ", " a ")
    assert edin_text("Café 3") == "caf 3"
    record = build3(text="edin").as_dataset()["validation"][0]
    assert record["text"] == "addendum that comes first report that comes second entered in error"
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"In no split list.", b"*** -- ***"))
    with pytest.raises(ValueError, match=r"Split 'test' .* would be empty"):
        build3(text="edin")


def test_invented_corpus_has_splits_of_our_own(tmp_path):
    write_corpus(tmp_path / "corpus", num_admissions=120, length="short", show_progress=False)
    builder = load_builder("mimic3", "clean", data_dir=tmp_path / "corpus", cache_dir=tmp_path / "cache")
    assert "The splits are stratified ones of our own: `min_count` is 10, `seed` 0." in builder.info.description
    ours = {name: list(split["hadm_id"]) for name, split in builder.as_dataset().items()}
    theirs = {"train": ours["train"], "val": ours["test"], "test": ours["validation"]}
    write_list(tmp_path / "mimiciii_clean_splits.feather", **theirs)
    options = {"splits": "edin", "splits_dir": tmp_path}
    builder = load_builder("mimic3", "clean", data_dir=tmp_path / "corpus", cache_dir=tmp_path / "cache", **options)
    assert [list(split["hadm_id"]) for split in builder.as_dataset().values()] == list(theirs.values())


# ---- MIMIC-IV


def test_admission_of_both_editions_is_in_both(build4):
    builder = build4()
    splits = builder.as_dataset()
    assert {name: list(split["hadm_id"]) for name, split in splits.items()} == {
        "train": [109], "validation": [101, 102], "test": [104],
    }  # fmt: skip
    assert codes_of(splits["test"]) == {104: {"I10"}}
    said = builder.info.description
    assert "kept, admissions with codes of both ICD-9 and ICD-10: 1;" in said
    assert "listed admissions without a discharge summary and a code: 1;" in said  # 555
    assert "admissions of several notes, which are one record here and one for each note in Edin et al.: 1;" in said
    with pytest.raises(ValueError, match=r"Split 'test' .* would be empty|split 'test' .*none of its 0 admissions"):
        build4("icd9")
    kept = MIMIC4(
        "icd9", data_dir=builder.config.data_dir, cache_dir=builder._cache_dir_root, unsplit=True, min_count=1
    )
    kept.download_and_prepare()
    assert codes_of(kept.as_dataset(split="unsplit"))[104] == {"401.9"}


def test_top50_has_the_same_splits(build4, monkeypatch):
    monkeypatch.setattr("dataset_scripts.builders.mimic4.TOP_CODES", 2)
    splits = build4("icd10_top50").as_dataset()
    # I10 is in three of the listed admissions, E11.9 in two.
    assert {name: codes_of(split) for name, split in splits.items()} == {
        "train": {109: {"E11.9"}}, "validation": {101: {"E11.9", "I10"}, 102: {"I10"}}, "test": {104: {"I10"}},
    }  # fmt: skip


# ---- where the lists come from


@pytest.fixture
def repository(tmp_path, folder, monkeypatch):
    """A local stand-in for Edin et al.'s repository."""
    served = tmp_path / "repository/mimiciii_clean"
    served.mkdir(parents=True)
    path = served / "mimiciii_clean_splits.feather"
    write_list(path, train=[101, 103], val=[102], test=[106])
    write_list(served / "mimiciii_clean_subsplit_0.2.feather", train=[103], val=[102], test=[106])
    monkeypatch.setitem(EDIN_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "repository")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("dataset_scripts.builders.edin_splits.EDIN_URL", address)
        yield served
        server.shutdown()


def test_lists_are_downloaded_once(repository, folder, tmp_path):
    def build(**options):
        builder = MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache", min_count=1, **options)
        builder.download_and_prepare()
        return builder

    first = build()
    assert list(first.as_dataset()["train"]["hadm_id"]) == [101, 103]
    assert "byte for byte" not in first.info.description
    assert list(build(subset="subsplit_0.2").as_dataset()["train"]["hadm_id"]) == [103]
    for path in repository.iterdir():
        path.unlink()
    assert build().cache_dir == first.cache_dir
    (tmp_path / "cache/downloads/edin_splits/mimiciii_clean_splits.feather").write_bytes(b"damaged")
    with pytest.raises(ConnectionError, match=r"No mimiciii_clean_splits.feather in .*`splits_dir`.*`unsplit=True`"):
        build()


def test_downloaded_list_must_be_the_published_one(repository, folder, tmp_path):
    write_list(repository / "mimiciii_clean_splits.feather", train=[101], val=[102], test=[103])
    with pytest.raises(ValueError, match=r"clean_splits.feather is not the list .* SHA-256 .* as `splits_dir`"):
        MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache/downloads/edin_splits/mimiciii_clean_splits.feather").exists()


def test_their_folder_of_lists(repository, folder, tmp_path):
    """`splits_dir` may be files/data of their repository, or a folder of the files alone."""
    for place in (repository, repository.parent):
        builder = MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache", splits_dir=place)
        assert builder.edin_lists.whole == repository / "mimiciii_clean_splits.feather"
    with pytest.raises(FileNotFoundError, match=r"No mimiciii_clean_splits.feather in `splits_dir` \("):
        MIMIC3("clean", data_dir=folder, cache_dir=tmp_path / "cache", splits_dir=folder)


FAULTS = {
    "no feather": (lambda path: path.write_bytes(b"_id,split\n1,train\n"), "cannot be read as Feather"),
    "columns": (
        lambda path: pyarrow.feather.write_feather(pa.table({"_id": ["1"], "split": ["train"]}), path),
        "must have a column `_id` of whole numbers",
    ),
    "split": (lambda path: write_list(path, train=[101], dev=[102]), "a `split` of train, val, test"),
    "twice": (lambda path: write_list(path, train=[101], val=[102], test=[101]), "1 rows repeat the `_id`"),
    "another folder": (
        lambda path: write_list(path, train=[1], val=[102], test=[103]),
        "split 'train' of .*: none of its 1 admissions has a discharge summary in .* Give `splits_dir`",
    ),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS.keys())
def test_fault_in_a_list(build3, folder, change, message):
    change(folder / "mimiciii_clean_splits.feather")
    with pytest.raises(ValueError, match=message):
        build3()


def test_divided_subject_is_refused(build3, folder):
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b'"3","103"', b'"1","103"'))
    write_list(folder / "mimiciii_clean_splits.feather", train=[101], val=[102], test=[103])
    with pytest.raises(ValueError, match=r"1 subjects have admissions in both split 'train' .* and split 'test'"):
        build3()
