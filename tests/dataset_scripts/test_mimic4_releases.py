"""MIMIC-IV as PhysioNet gives it out: folders, releases, codes that cannot be read; and the sizes that are published."""

import gzip
import shutil

import pytest
import test_mimic4
from test_mimic4 import ICD10, codes_of, path_of, rewrite

from dataset_scripts import MIMIC4
from dataset_scripts.__main__ import main
from dataset_scripts.builders.edin_splits import EDIN_DATA, read_edin_list
from dataset_scripts.synthetic.mimic4 import write_corpus
from dataset_scripts.verify import PUBLISHED


folder = test_mimic4.folder  # the fixture
build = test_mimic4.build


@pytest.fixture
def download(folder, tmp_path):
    """The tables as `wget -r` leaves them: both releases of the codes beside the one of the notes."""
    place = tmp_path / "download/physionet.org/files"
    shutil.copytree(folder / "note", place / "mimic-iv-note/2.2/note")
    for release in ("2.2", "3.1"):
        shutil.copytree(folder / "hosp", place / f"mimiciv/{release}/hosp")
    (place / "mimic-iv-note/2.2/note/radiology.csv.gz").write_bytes(b"")
    (place / "mimiciv/2.2/icu").mkdir()
    return tmp_path / "download"


@pytest.fixture
def records_of(tmp_path):
    def records_of(folder, **options):
        options = {"unsplit": True, "min_count": 1, "splits": "stratified", **options}
        builder = MIMIC4("icd10", data_dir=folder, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder, codes_of(builder.as_dataset(split="unsplit"))

    return records_of


def test_folders_of_physionet(download, records_of, tmp_path):
    for release in ("2.2", "3.1"):
        builder, records = records_of(download, release=release)
        assert records == ICD10
        assert f"The codes are those of MIMIC-IV v{release}." in builder.info.description
    with pytest.raises(ValueError, match=r"holds several folders hosp: .*2\.2/hosp, .*3\.1/hosp\. Give `release` one"):
        records_of(download)
    shutil.rmtree(download / "physionet.org/files/mimiciv/2.2")
    assert records_of(download)[0].release == "3.1"  # the only one there
    assert records_of(download / "physionet.org/files")[0].release == "3.1"
    with pytest.raises(ValueError, match=r"`release` is 2.2, and the codes in .* are those of v3.1"):
        records_of(download, release="2.2")
    # As the archives that PhysioNet packs are called.
    (tmp_path / "unpacked").mkdir()
    (download / "physionet.org/files/mimiciv/3.1").rename(tmp_path / "unpacked/mimic-iv-3.1")
    (download / "physionet.org/files/mimic-iv-note/2.2").rename(tmp_path / "unpacked/mimic-iv-note-2.2")
    builder, records = records_of(tmp_path / "unpacked")
    assert (builder.release, records) == ("3.1", ICD10)


def test_missing_module_is_named(download, records_of):
    shutil.rmtree(download / "physionet.org/files/mimic-iv-note")
    with pytest.raises(FileNotFoundError, match=r"No discharge.csv.gz, .*physionet.org/content/mimic-iv-note"):
        records_of(download, release="3.1")


def test_what_changed_between_the_releases(tmp_path, records_of):
    """v3.0 added admissions of 2020 to 2022, whose notes are not published; v3.1 took two subjects out of the tables."""
    corpus = tmp_path / "corpus"
    write_corpus(corpus, num_admissions=60, length="short", show_progress=False)
    for release in ("2.2", "3.1"):
        shutil.copytree(corpus / "hosp", tmp_path / f"both/mimiciv/{release}/hosp")
    shutil.copytree(corpus / "note", tmp_path / "both/mimic-iv-note/2.2/note")
    first, before = records_of(tmp_path / "both", release="2.2")
    gone = first.as_dataset(split="unsplit")["subject_id"][0]
    for table in ("diagnoses_icd", "procedures_icd"):
        path = tmp_path / f"both/mimiciv/3.1/hosp/{table}.csv.gz"
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{gone},".encode())]
        added = [b"19999999,29999999,1,U071,10\n"] if table == "diagnoses_icd" else []
        path.write_bytes(gzip.compress(b"".join(kept + added)))
    second, after = records_of(tmp_path / "both", release="3.1")
    subjects = dict(zip(*(first.as_dataset(split="unsplit")[name] for name in ("hadm_id", "subject_id")), strict=True))
    assert after == {hadm_id: codes for hadm_id, codes in before.items() if subjects[hadm_id] != gone}
    assert "left out, admissions without a note: 1." in second.info.description
    assert "U07.1" not in second.info.features["codes"].feature.names


def test_unreadable_codes_are_left_out_and_counted(build, folder):
    rewrite(path_of(folder, "diagnoses_icd"), lambda data: data.replace(b"W19XXXA,10", b"W19-XXXA,10"))
    rewrite(path_of(folder, "procedures_icd"), lambda data: data.replace(b"B2011ZZ", b"B2011Z"))
    rewrite(path_of(folder, "d_icd_procedures"), lambda data: data.replace(b"0BH17EZ", b"0BH17"))
    builder = build()
    assert codes_of(builder.as_dataset(split="unsplit")) == {
        101: {"I10", "E11.9", "0BH17EZ"}, 102: {"I10"}, 109: {"E11.9", "B20"},
    }  # fmt: skip
    assert "left out, code rows whose code cannot be read: 2;" in builder.info.description
    rewrite(path_of(folder, "diagnoses_icd"), lambda data: data.replace(b",I10,", b",1.0,").replace(b",E119,", b",x,"))
    with pytest.raises(ValueError, match=r"hosp: 9 codes are none of ICD-10, and only 3 are. Restore the original"):
        build()


# ---- sizes


def made_up_codes(number, edition):
    """Codes of the edition's form, each of them a diagnosis."""
    if edition == 10:
        return [f"{'ABCDEFGHIJ'[i // 1000]}{i // 10 % 100:02}{i % 10}" for i in range(number)]
    return [f"{i // 10:03}{i % 10}" for i in range(number)]


def write_tables(folder, lists, codes, edition):
    """A note for each listed admission, each its own subject, and each code in ten admissions at least."""
    admissions = [hadm_id for hadm_ids in lists.values() for hadm_id in hadm_ids]
    rows = [f"{hadm_id},{hadm_id},1,{codes[i % len(codes)]},{edition}\n" for i, hadm_id in enumerate(admissions)]
    notes = (f"{hadm_id}-DS-1,{hadm_id},{hadm_id},DS,1,,,Invented\n" for hadm_id in admissions)
    contents = {
        "discharge": "".join(["note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n", *notes]),
        "diagnoses_icd": "".join(["subject_id,hadm_id,seq_num,icd_code,icd_version\n", *rows]),
        "procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n1,1,1,,0010,9\n",
        "d_icd_diagnoses": "icd_code,icd_version,long_title\n",
        "d_icd_procedures": "icd_code,icd_version,long_title\n",
    }
    for table, content in contents.items():
        (folder / f"{table}.csv").write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "is_whole"), [("icd10", False), ("icd10", True), ("icd9", True)])
def test_verify_on_the_published_lists(shared_dir, tmp_path, capsys, config, is_whole):
    """As many admissions and codes as are published; one admission that is missing is found."""
    splits_dir = shared_dir / "data/edin_splits"
    data = EDIN_DATA[config]
    lists = read_edin_list(splits_dir / data.whole)
    codes = made_up_codes(data.codes, int(config[3:]))
    (tmp_path / "data").mkdir()
    last = lists["test"][-1]
    there = lists if is_whole else {**lists, "test": lists["test"][:-1]}
    write_tables(tmp_path / "data", there, codes, config[3:])
    command = ["verify", str(tmp_path / "data"), "--config", config, "--splits_dir", str(splits_dir)]
    status = main([*command, "--cache_dir", str(tmp_path / "cache")])
    if is_whole:
        said = f"{config}: agrees with the published numbers of admissions and codes.\n"
    else:
        said = (
            f"{config}: 1 difference from the published numbers of admissions and codes.\n"
            f"  test: 1 listed admissions lack a discharge summary or one of the frequent codes, e.g. HADM_ID {last}.\n"
        )
    assert (status, capsys.readouterr().out) == (0 if is_whole else 1, said)


def test_verify_says_which_data_set_a_configuration_is_of(tmp_path, capsys):
    assert {config: published.dataset for config, published in PUBLISHED.items()} == {
        "full": "mimic3", "top50": "mimic3", "clean": "mimic3", "icd10": "mimic4", "icd9": "mimic4",
    }  # fmt: skip
    assert main(["verify", str(tmp_path), "--config", "icd9", "--dataset", "mimic3"]) == 2
    assert "`--config icd9` is of mimic4, not of mimic3" in capsys.readouterr().err
