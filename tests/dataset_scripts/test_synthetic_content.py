"""What the synthetic corpus says: the YAML files are as their headers ask, and a wrong edit is named by file and entry."""

import itertools
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from dataset_scripts.synthetic.__main__ import main
from dataset_scripts.synthetic.content import FILES, FOLDER, read_content
from dataset_scripts.synthetic.entries import Concept, Lab, Rules
from dataset_scripts.synthetic.schema import read_yaml


@pytest.fixture
def edited(tmp_path):
    """Copies the files and puts one text in the place of another, which must stand there."""
    for name in FILES:
        shutil.copy(FOLDER / name, tmp_path)

    def edit(name, old, new):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
        return tmp_path

    return edit


def test_the_files_are_right():
    everything = read_content()
    grouped = itertools.chain(*everything.rules.exclusive, *everything.rules.kin, everything.rules.requires)
    assert set(grouped) <= set(everything.concepts)
    drugs = Counter(drug.lower() for concept in everything.concepts.values() for drug in concept.drugs)
    assert max(drugs.values()) == 1 and not [drug for drug in drugs if drug in everything.phrases.plain["drugs"]]
    for name, lab in everything.labs.items():
        assert all(high < lab.normal[0] or low > lab.normal[1] for low, high in lab.abnormal.values()), name


@pytest.mark.parametrize(
    ("name", "entry", "first"), [("concepts.yaml", Concept, "\nproc"), ("labs_and_drugs.yaml", Lab, "\nlabs")]
)
def test_every_field_of_an_entry_is_explained_in_the_header_of_its_file(name, entry, first):
    header, _, _ = (FOLDER / name).read_text(encoding="utf-8").partition(first)
    assert [
        field.name for field in fields(entry) if not re.search(rf"^#  .*\b{field.name}\b", header, re.MULTILINE)
    ] == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "concepts.yaml",
            '- code: "401.9"',
            "- code: 401.9",
            "concepts, entry 401.9, code must be text, in double quotes",
        ),
        (
            "concepts.yaml",
            '- code: "401.9"',
            '- code: "4019"',
            "concepts.yaml, 4019, code: '4019' is not a dotted ICD-9-CM",
        ),
        ("concepts.yaml", '- code: "401.9"', '- code: "96.04"', "the code 96.04 stands twice"),
        ("concepts.yaml", '"I10"', '"I1"', "401.9, icd10: 'I1' is not a dotted ICD-10 code"),
        (
            "concepts.yaml",
            '"I10"',
            '"0BH18EZ"',
            "401.9, icd10: 0BH18EZ is the code of a procedure, but the kind is chronic",
        ),
        ("concepts.yaml", '    icd10: "I10"\n', "", "401.9: give `icd10` and `icd10_title` together"),
        ("concepts.yaml", "kind: chronic", "kind: cronic", "entry 401.9, kind must be one of chronic, imaging"),
        ("concepts.yaml", "share: 38", "share: often", "entry 401.9, share must be a number, not 'often'"),
        ("concepts.yaml", "share: 38", "share: 380", "`share` (380) is a percentage between 0 and 100"),
        ("concepts.yaml", "    share: 38\n", "", "concepts.yaml, concepts, entry 401.9: the field 'share' is missing"),
        ("concepts.yaml", "    share: 38\n", "    weight: 38\n", "there is no field 'weight'. There are: code, "),
        (
            "concepts.yaml",
            "terms: [hypertension",
            "terms: [no",
            "entry 401.9, terms, item 1 must be text, in double quotes",
        ),
        ("concepts.yaml", "[failure, cardiac]", "[failure, hart]", "428.0, themes: 'hart' is not among the themes of"),
        ("concepts.yaml", "[amlodipine,", "[amlodipin,", "401.9, treated_with: 'amlodipin' is not among the doses of"),
        ("concepts.yaml", "treated_with: [amlodipine,", "drugs: [warfarin,", "'warfarin' would justify two codes"),
        ("concepts.yaml", '"troponin:high"', '"troponin:low"', "`lab` (troponin:low) must be one of sodium:low"),
        ("concepts.yaml", "{low_ef}", "{lowest_ef}", "nothing fills {lowest_ef}; here may stand He, His"),
        ("concepts.yaml", "    terms: [hypertension, HTN,", "    terms: [HTN, {He,", "concepts.yaml, line"),
        ("concepts.yaml", "    share: 38\n", "    share: 38\n    share: 39\n", "'share' stands twice"),
        (
            "rules.yaml",
            '"585.6", "585.4"',
            '"585.6", "585.5"',
            "rules.yaml, exclusive: '585.5' is not among the codes of",
        ),
        ("rules.yaml", '"96.71": 6', '"96.71": six', "rules.yaml, min_days, 96.71 must be a whole number, not 'six'"),
        ("rules.yaml", '"401.9", "585.6", "403.91"', '"401.9", "403.91"', "combines, item 1 must be a list of 3"),
        (
            "labs_and_drugs.yaml",
            "normal: [134, 145]",
            "normal: [120, 145]",
            "labs, sodium: the values of `low` are among",
        ),
        (
            "labs_and_drugs.yaml",
            "low: [116, 128]",
            "lower: [116, 128]",
            "must be one of high, low, rise, drop, not 'lower'",
        ),
        (
            "phrases.yaml",
            '"{He} denies any',
            '"{She} denies any',
            "negative, chronic: '{She} denies any history of {n}.'",
        ),
        ("phrases.yaml", '"No known {n}."', '"No known {p}."', "'No known {p}.': nothing fills {p}"),
        ("phrases.yaml", '"Known {p}, no', '"Known, no', "positive, chronic: 'Known, no acute issues.' must hold {p}"),
        ("phrases.yaml", '"Known {p}, no', '"Known {p, no', "has a brace without its partner"),
        ("phrases.yaml", "  num: [", "  age: [", "age would stand for two things in braces"),
        ("phrases.yaml", '"Married with {small} children"', '"Works as {work}"', "nothing fills {work}"),
        ("phrases.yaml", "  cardiac:", "  cardial:", "complaints: 'cardial' is not among those known"),
        ("phrases.yaml", "disposition, diagnoses,", "diagnoses,", "orders, item 1: it must name every section once"),
        ("concepts.yaml", '"I50.9"', '"I10"', "the code I10 stands twice"),
        ("concepts.yaml", '"0BH": ', '"0BG": ', "icd10: `procedure_tables` lacks the table 0BH of 0BH17EZ"),
    ],
)
def test_a_wrong_edit_is_named_by_file_and_entry(edited, name, old, new, message):
    with pytest.raises(ValueError) as error:
        read_content(edited(name, old, new))
    assert message in str(error.value) and name in str(error.value)


def test_a_new_name_is_read_in_its_place(edited):
    folder = edited("concepts.yaml", "terms: [hypertension,", 'terms: ["raised, untreated pressure", hypertension,')
    assert read_content(folder).concepts["401.9"].terms[:2] == ("raised, untreated pressure", "hypertension")


def test_what_is_no_yaml_or_no_text_is_said_so(tmp_path):
    (tmp_path / "rules.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"rules\.yaml is not YAML in UTF-8"):
        read_yaml(tmp_path / "rules.yaml", Rules)
    (tmp_path / "rules.yaml").write_text("")
    with pytest.raises(ValueError, match=r"rules\.yaml must be the fields themes, .* not nothing"):
        read_yaml(tmp_path / "rules.yaml", Rules)


def test_an_install_without_the_files_says_in_one_line_where_they_are(tmp_path):
    shutil.copytree(
        FOLDER.parent, tmp_path / "dataset_scripts", ignore=shutil.ignore_patterns("*.yaml", "__pycache__")
    )
    command = [sys.executable, "-m", "dataset_scripts.synthetic", "--output_dir", "corpus", "--num_admissions", "3"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "the installed package does not carry it. Write the corpus in a checkout of the project" in run.stderr
    assert not (tmp_path / "corpus").exists()


def test_an_option_of_the_other_format_is_refused(tmp_path, capsys):
    assert main(["--output_dir", str(tmp_path / "new"), "--icd10_rate", "0.5"]) == 2
    assert capsys.readouterr().err == "error: `--icd10_rate` is for `--format mimic4` alone.\n"
    assert not (tmp_path / "new").exists()


def test_the_wheel_holds_every_package_and_not_what_the_synthetic_corpus_says():
    root = FOLDER.parents[1]
    files = {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}
    modules = {
        path.relative_to(root) for name in ("dataset_scripts", "modeling_icd") for path in (root / name).rglob("*.py")
    }
    assert {path.as_posix() for path in modules} <= files
    assert not [name for name in files if name.startswith("dataset_scripts/") and not name.endswith(".py")]
    assert {name.split("/")[0] for name in files} == {"dataset_scripts", "modeling_icd"}
    shared = WheelBuilder(str(root)).config.shared_data
    assert {Path(source).name: target for source, target in shared.items()} == {
        "configs": "share/modeling-icd/configs",
        "model_card.md": "share/modeling-icd/model_card.md",
    }
