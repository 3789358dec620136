import shutil
import subprocess
import sys

import numpy as np
import pytest
from faults import assert_clean

from dataset_scripts import CMC2007, load_builder, load_split
from dataset_scripts.builders.cmc2007 import FOLDS, TITLES, read_documents


CONFIGS = [f"fold{fold}" for fold in range(FOLDS)]
DOCUMENT = """
  <doc id="{doc_id}" type="RADIOLOGY_REPORT">
    <codes>{codes}
      <code origin="COMPANY1" type="ICD-9-CM">518.</code>
      <code origin="COMPANY3" type="ICD-9-CM">786.2</code>
    </codes>
    <texts>
      <text origin="CCHMC_RADIOLOGY" type="CLINICAL_HISTORY">{history}</text>
      <text origin="CCHMC_RADIOLOGY" type="IMPRESSION">{impression}</text>
    </texts>
  </doc>"""


def write_document(doc_id, codes, history="Invented cough.", impression="Invented infiltrate. "):
    codes = "".join(f'\n      <code origin="CMC_MAJORITY" type="ICD-9-CM">{code}</code>' for code in codes)
    return DOCUMENT.format(doc_id=doc_id, codes=codes, history=history, impression=impression)


def write_file(path, *documents):
    path.write_text(f"<?xml version='1.0' standalone='yes'?>\n<docs>{''.join(documents)}\n</docs>\n")
    return path


@pytest.fixture
def xml_file(tmp_path):
    """Twenty invented reports: half with 786.2, half with 486, the last with 250.01 as well."""
    (tmp_path / "cmc").mkdir()
    documents = [write_document(i, ["786.2"] if i % 2 else ["486"]) for i in range(1, 20)]
    return write_file(
        tmp_path / "cmc" / "reports.xml", *documents, write_document(20, ["486", "250.01"], "", "Clear.")
    )


def test_records_by_hand(xml_file, tmp_path):
    dataset = load_split("cmc2007", "all", data_dir=xml_file.parent, cache_dir=tmp_path / "cache")
    assert dataset.features["codes"].feature.names == ["250.01", "486", "786.2"]
    assert dataset[0] == {
        "subject_id": 1,
        "hadm_id": 1,
        "text": "CLINICAL HISTORY: Invented cough.\n\nIMPRESSION: Invented infiltrate.",
        "codes": [2],
        "codes_company1": ["518."],  # as the company wrote it
        "codes_company2": [],
        "codes_company3": ["786.2"],
    }
    assert (dataset[19]["text"], dataset[19]["codes"]) == ("IMPRESSION: Clear.", [0, 1])


def test_file_or_folder(xml_file, tmp_path):
    by_file, by_folder = (
        load_builder("cmc2007", data_dir=path, cache_dir=tmp_path / "cache").as_dataset()
        for path in (xml_file, xml_file.parent)
    )
    assert {name: list(split) for name, split in by_file.items()} == {
        name: list(split) for name, split in by_folder.items()
    }


def test_order_in_the_file_changes_nothing(xml_file, tmp_path):
    def test_ids():
        return load_split("cmc2007", "test", "fold3", data_dir=xml_file, cache_dir=tmp_path / "cache")["hadm_id"][:]

    expected = test_ids()
    documents = xml_file.read_text().split("\n  <doc ")[1:]
    documents[-1] = documents[-1].removesuffix("\n</docs>\n")
    write_file(xml_file, *(f"\n  <doc {document}" for document in reversed(documents)))
    assert read_documents(xml_file)[0].doc_id == 20
    assert test_ids() == expected


def test_few_documents_are_read_as_a_whole_only(tmp_path):
    path = write_file(tmp_path / "one.xml", write_document(5, ["486"]))
    assert len(load_split("cmc2007", "all", data_dir=path, cache_dir=tmp_path / "cache")) == 1
    with pytest.raises(ValueError, match=r"1 documents with 1 codes are too few to divide: .*unsplit=True"):
        load_builder("cmc2007", data_dir=path, cache_dir=tmp_path / "cache")


FAULTS = {
    "malformed": (lambda xml: xml.replace("</texts>", "</text>", 1), r"not well-formed XML, line 12, column 6: mismatched tag"),
    "cut": (lambda xml: xml[: len(xml) // 2], "not well-formed XML, line"),
    "empty": (lambda xml: "", "not well-formed XML, line 1"),
    "not UTF-8": (lambda xml: xml.replace("Clear.", "Cl\xe9ar."), r"not well-formed XML, line \d+, column \d+: not well-formed"),
    "other file": (lambda xml: "<html><body/></html>", "expected <docs> with one <doc> a report"),
    "no documents": (lambda xml: "<docs></docs>", "expected <docs> with one <doc> a report"),
    "id": (lambda xml: xml.replace('id="7"', 'id="seven"'), "document 7 has no id, or one that is not a whole number"),
    "two ids": (lambda xml: xml.replace('id="7"', 'id="8"'), "1 documents have an id that another one has"),
    "no majority": (lambda xml: xml.replace("CMC_MAJORITY", "COMPANY2", 1), "document 1 has no <code> of origin CMC_MAJORITY"),
    "origin": (lambda xml: xml.replace("COMPANY3", "COMPANY4", 1), "document 1 has a <code> of unknown origin"),
    "bad code": (lambda xml: xml.replace("250.01", ".786.2"), "document 20, origin CMC_MAJORITY: '.786.2' is not an ICD-9-CM"),
    "no dot": (lambda xml: xml.replace("250.01", "25001"), "document 20, .* '25001' lacks its dot, expected '250.01'"),
    "section twice": (
        lambda xml: xml.replace("</texts>", '<text type="IMPRESSION">Invented.</text></texts>', 1),
        "document 1 has two <text> of one type",
    ),
    "other classification": (lambda xml: xml.replace('type="ICD-9-CM">518.', 'type="ICD-10-CM">518.', 1), "whose type is not ICD-9-CM"),
    "no section": (lambda xml: xml.replace("IMPRESSION", "FINDINGS", 1), "document 1 has no <text> of type IMPRESSION"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_in_the_file(xml_file, tmp_path, change, message):
    xml_file.write_text(change(xml_file.read_text()), encoding="latin-1")
    builder = CMC2007("default", data_dir=xml_file, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=message) as error:
        builder.download_and_prepare()
    assert_clean(error, xml_file, tmp_path, ["Invented"])


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_documents_without_a_text_are_left_out_and_counted(xml_file, tmp_path, text):
    xml_file.write_text(xml_file.read_text().replace("Clear.", text))  # of document 20, the only one with 250.01
    builder = load_builder("cmc2007", data_dir=xml_file, cache_dir=tmp_path / "cache", unsplit=True)
    assert list(builder.as_dataset(split="unsplit")["hadm_id"]) == list(range(1, 20))
    assert builder.info.features["codes"].feature.names == ["486", "786.2"]
    assert "left out, documents without a text: 1;" in builder.info.description
    write_file(xml_file, write_document(1, ["486"], "", text))
    with pytest.raises(ValueError, match="none of its 1 documents has a text"):
        load_builder("cmc2007", data_dir=xml_file, cache_dir=tmp_path / "cache", unsplit=True)


def test_what_may_be_a_fault_is_counted(xml_file, tmp_path):
    """A section that no record has, and the 19 documents of one text, which a model may be tested on after learning it."""
    other = '<text origin="CCHMC_RADIOLOGY" type="FINDINGS">Invented.</text></texts>'
    xml_file.write_text(xml_file.read_text().replace("</texts>", other, 1))
    builder = load_builder("cmc2007", data_dir=xml_file, cache_dir=tmp_path / "cache")
    assert (
        "left out, sections of another type: 1; documents with the text of another one: 18;"
        in builder.info.description
    )


def test_a_byte_order_mark_and_other_line_ends_change_no_document(xml_file):
    documents = read_documents(xml_file)
    xml_file.write_bytes(b"\xef\xbb\xbf" + xml_file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_documents(xml_file) == documents


def test_wrong_place(xml_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`data_dir` .* does not exist: expected a folder with one .xml file"):
        CMC2007("fold0", data_dir=tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No .xml file in `data_dir`"):
        CMC2007("fold0", data_dir=tmp_path / "none")
    shutil.copy(xml_file, xml_file.with_name("second.xml"))
    with pytest.raises(
        ValueError, match=r"holds 2 .xml files \(reports.xml, second.xml\): give `data_dir` the path of one"
    ):
        CMC2007("fold0", data_dir=xml_file.parent)


def test_wrong_name(xml_file, tmp_path):
    with pytest.raises(ValueError, match=r"no configuration 'fold5': choose from default, fold0, .*, fold4"):
        CMC2007("fold5", data_dir=xml_file)
    with pytest.raises(ValueError, match="CMC2007 has no option text: choose from unsplit"):
        CMC2007("fold0", data_dir=xml_file, text="raw")
    with pytest.raises(
        ValueError, match="No split 'test' in configuration 'default' of CMC2007: choose from train, val"
    ):
        load_split("cmc2007", "test", data_dir=xml_file, cache_dir=tmp_path / "cache")


# ---- the challenge's file


@pytest.fixture(scope="module")
def folds(shared_dir, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    data_dir = shared_dir / "data/cmc2007"
    return {
        config: load_builder("cmc2007", config, data_dir=data_dir, cache_dir=cache).as_dataset()
        for config in ("default", *CONFIGS)
    }


def test_folds_partition_the_documents(folds):
    for config, splits in folds.items():
        ids = [hadm_id for split in splits.values() for hadm_id in split["hadm_id"]]
        assert len(ids) == len(set(ids)) == 780, config
        assert set(splits) == ({"train", "validation"} if config == "default" else {"train", "validation", "test"})
        rest = len(splits["train"]) + len(splits["validation"])
        assert 0.10 < len(splits["validation"]) / rest < 0.14
    tests = [set(folds[config]["test"]["hadm_id"]) for config in CONFIGS]
    assert len(set().union(*tests)) == sum(map(len, tests)) == 780
    assert min(map(len, tests)) > 140


def test_folds_are_stratified(folds):
    """A code of 25 documents or more has a fifth of them, within a fifth more or less and one, in each fold."""
    tests = [folds[config]["test"]["codes"][:] for config in CONFIGS]
    counts = np.array([np.bincount(np.concatenate(codes), minlength=45) for codes in tests])  # (folds, codes)
    frequent = counts[:, counts.sum(axis=0) >= 25]
    expected = frequent.sum(axis=0) / FOLDS
    assert (abs(frequent - expected) <= 0.2 * expected + 1).all()


def test_codes_and_descriptions(folds):
    splits = folds["fold0"]
    names = splits["train"].features["codes"].feature.names
    assert names == sorted(TITLES)
    assert len(names) == 45
    per_document = [len(codes) for split in splits.values() for codes in split["codes"]]
    assert sum(per_document) == 982  # the majority codes in the file
    assert "V42.81" in next(
        r["codes_company1"] for split in splits.values() for r in split if r["hadm_id"] == 97636670
    )


def test_titles_are_the_published_ones(shared_dir):
    def same(title):
        return title.lower().replace(",", "").split()

    cms = (shared_dir / "data/icd9/CMS32_DESC_LONG_DX.txt").read_text(encoding="latin-1").splitlines()
    published = {line[:5].strip(): line[6:] for line in cms}
    older = dict(
        line.split("\t", 1) for line in (shared_dir / "data/icd9/ICD9_descriptions.txt").read_text().splitlines()
    )
    for code, title in TITLES.items():
        assert same(title) == same(published.get(code.replace(".", "")) or older[code])


def test_folds_are_the_same_in_another_process(folds, shared_dir, tmp_path):
    script = (
        "import sys; from dataset_scripts import load_split; "
        "print(load_split('cmc2007', 'test', 'fold2', data_dir=sys.argv[1], cache_dir=sys.argv[2])['hadm_id'][:])"
    )
    command = [sys.executable, "-c", script, str(shared_dir / "data/cmc2007"), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(folds["fold2"]["test"]["hadm_id"][:])
