"""The data set card, dataset_scripts/README.md."""

import json
import re
from dataclasses import fields
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard

import dataset_scripts
from dataset_scripts import MIMIC3, MIMIC4, load_builder
from dataset_scripts.synthetic import write_corpus
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4
from dataset_scripts.verify import PUBLISHED


@pytest.fixture(scope="module")
def card():
    return DatasetCard.load(Path(dataset_scripts.__file__).with_name("README.md"))


def test_metadata(card):
    data = card.data.to_dict()
    assert data["license"] == "other"  # the Hub then wants a name and a link
    assert re.fullmatch(r"[a-z0-9.-]+", data["license_name"])
    assert data["license_link"].startswith("https://physionet.org/")
    assert data["language"] == ["en"]
    assert data["task_categories"] == ["text-classification"]
    assert data["task_ids"] == ["multi-label-classification"]
    assert data["size_categories"] == ["10K<n<100K", "100K<n<1M"]
    known = {
        name: json.loads((Path(datasets.__file__).parent / f"utils/resources/{name}.json").read_text("utf-8"))
        for name in ("creators", "languages", "multilingualities", "size_categories")
    }
    assert set(data["annotations_creators"]) <= set(known["creators"]["annotations"])
    assert set(data["language_creators"]) <= set(known["creators"]["language"])
    assert set(data["language"]) <= known["languages"].keys()
    assert set(data["multilinguality"]) <= known["multilingualities"].keys()
    assert set(data["size_categories"]) <= set(known["size_categories"])
    assert "configs" not in data  # no files are served
    assert DatasetCard(card.content).data.to_dict() == data


def test_sections(card):
    headings = re.findall(r"^## (.+)$", card.text, re.MULTILINE)
    assert headings == [
        "Access", "This repository", "Build", "Your own notes", "Configurations and splits", "Fields", "Licence and data use agreement", "Limits",
        "Citation",
    ]  # fmt: skip
    assert "**Never share**" in card.text


def test_configurations_and_options_are_all_there(card):
    tables = "\n".join(line for line in card.text.splitlines() if line.startswith("|"))
    for builder in (MIMIC3, MIMIC4):
        for config in builder.BUILDER_CONFIGS:
            assert f"`{config.name}`" in tables
        known = {field.name for field in fields(builder.BUILDER_CONFIG_CLASS)}
        for option in known - {field.name for field in fields(datasets.BuilderConfig)}:
            assert f"`{option}`" in tables


def test_fields_and_example(card, tmp_path):
    """The fields in the table are those of a record, and the example in Python runs."""
    write_corpus(tmp_path / "DIR", num_admissions=60, length="short", show_progress=False)
    builder = load_builder(
        "mimic3", data_dir=tmp_path / "DIR", cache_dir=tmp_path / "CACHE", code_kinds=True, unsplit=True
    )
    table = card.text.split("## Fields")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(builder.info.features)
    example = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
    exec(example.replace('"DIR"', repr(str(tmp_path / "DIR"))).replace('"CACHE"', repr(str(tmp_path / "CACHE"))), {})


def test_every_configuration_names_its_paper_and_its_splits(card, tmp_path):
    """In its description, which `describe` prints; and the table of the card has a row for each."""
    write_corpus(tmp_path / "mimic3", num_admissions=60, length="short", mdace_charts=20, show_progress=False)
    write_mimic4(tmp_path / "mimic4", num_admissions=60, length="short", show_progress=False)
    papers = {"clean": "Edin et al.", "mdace": "Cheng et al.", "mdace_charts": "Cheng et al."}
    table = card.text.split("| configuration | paper that reports on it |")[1].split("\n\n")[0]
    for name, cls in (("mimic3", MIMIC3), ("mimic4", MIMIC4)):
        for config in cls.BUILDER_CONFIGS:
            assert f"| `{name}` `{config.name}` |" in table
            options = {"evidence": tmp_path / name / "mdace"} if config.name.startswith("mdace") else {}
            options |= {"num_codes": 3} if config.name == "custom" else {}
            said = cls(config.name, data_dir=tmp_path / name, cache_dir=tmp_path / "cache", **options).info.description
            assert re.search("(CAML|MDACE)'s .*splits|The splits are ", said)
            assert papers.get(config.name, "Mullenbach et al." if name == "mimic3" else "Edin et al.") in said


def test_the_table_has_the_small_data_sets_too(card, shared_dir, tmp_path):
    """With the admissions and codes that they have."""
    table = card.text.split("| configuration | paper that reports on it |")[1].split("\n\n")[0]
    for name, config in (("cmc2007", "default"), ("cmc2007", "fold0"), ("codiesp", "diagnoses_en_top50")):
        builder = load_builder(name, config, data_dir=shared_dir / "data" / name, cache_dir=tmp_path / "cache")
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` `{config}`"))
        splits = builder.as_dataset()
        numbers = [f"{len(splits[split]):,}" for split in ("train", "validation", "test") if split in splits]
        assert " / ".join(numbers) in row
        assert re.search(rf"\b{len(builder.code2id):,}\b", row)
    assert "| `files` |" in table


def test_sizes_in_the_card_are_the_published_ones(card):
    table = card.text.split("| configuration | paper that reports on it |")[1].split("\n\n")[0]
    for config, published in PUBLISHED.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{published.dataset}` `{config}` |"))
        assert " / ".join(f"{number:,}" for number in published.admissions.values()) in row
        assert re.search(rf"\b{published.codes:,}\b", row)
