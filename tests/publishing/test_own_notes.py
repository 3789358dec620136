"""A model of the user's own notes, from the file to the card: who may have it, and what is compared before it goes out."""

import csv
import json
import random
import re
import string

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dataset_scripts.codes import icd9_hierarchy
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.evaluation.predictions import read_predictions
from modeling_icd.publishing.after_training import plan_push
from modeling_icd.publishing.card import build_card, describe_data
from modeling_icd.publishing.cli import main as publish
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.publishing.notes import load_notes
from modeling_icd.publishing.privacy import RECORD_ID, SPAN, LocalNames, check_files
from modeling_icd.publishing.release import outgoing_files, plan_release
from modeling_icd.sharing_icd import data_access
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.run import main as train


SAID = {"401.9": "fever", "428.0": "cough", "V45.81": "sepsis"}
FILLERS = [
    "the",
    "patient",
    "was",
    "seen",
    "in",
    "clinic",
    "today",
    "and",
    "felt",
    "quite",
    "well",
    "after",
    "resting",
    "at",
    "home",
    "with",
    "family",
    "nearby",
]


def write_notes(path, number, seed, prefix):
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note_id", "patient_id", "text", "codes"])
        for i in range(number):
            codes = [code for code in SAID if draw.random() < 0.6] or ["401.9"]
            words = draw.choices(FILLERS, k=14) + [SAID[code] for code in codes]
            writer.writerow([f"{prefix}-{i:04}", f"{prefix}P{i // 2:04}", " ".join(words), ";".join(codes)])


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for number, (name, seed, prefix) in zip(
        (40, 16, 16), (("train", 0, "KH"), ("validation", 1, "KV"), ("test", 2, "KT")), strict=True
    ):
        write_notes(folder / f"{name}.csv", number, seed, prefix)
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A tiny Llama with a vocabulary of letters, which gives away no words."""
    folder = tmp_path_factory.mktemp("letters")
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{letter: i + 2 for i, letter in enumerate(string.ascii_lowercase)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def train_on(own_files, letters, folder, **options):
    given = {
        **{"model": "direct", "pooling": "mean", "window_size": 64, "backbone": letters, "base_model": "someone/tiny"},
        **{"dataset": "files", "data_dir": own_files, "dataset_options": "code_system=icd9cm", "output_dir": folder},
        **{"num_train_epochs": 1, "use_cpu": True, "tfidf_yardstick": False},
        **options,
    }
    assert train([f"--{name}={value}" for name, value in given.items() if value is not None]) == 0
    return folder


@pytest.fixture(scope="module")
def model_folders(own_files, letters, tmp_path_factory):
    """The same notes without a license, with an open one, and with one that is not; trained and evaluated."""
    folders = {}
    for name, license in (("none", None), ("open", "CC-BY-4.0"), ("closed", "cc-by-nc-4.0")):
        folder = train_on(own_files, letters, tmp_path_factory.mktemp(name) / "mine", data_license=license)
        assert evaluate([str(folder), "--data_dir", str(own_files), "--split", "test"]) == 0
        folders[name] = folder
    return folders


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_model_is_restricted_unless_its_trainer_says_that_anyone_may_have_the_notes(model_folders):
    records = {name: config_of(folder)["training_data"] for name, folder in model_folders.items()}
    assert {name: data_access(record) for name, record in records.items()} == {
        "none": "restricted",
        "open": "open",
        "closed": "restricted",
    }
    assert "license" not in records["none"] and records["open"]["license"] == "cc-by-4.0"
    assert records["none"]["dataset"] == "files" and records["none"]["options"] == ["code_system=icd9cm"]
    assert data_access({**records["none"], "license": "cc-by-4.0", "open": True}) == "restricted"  # edited afterwards


def test_ids_stay_text_from_the_file_to_the_predictions(model_folders):
    predictions = read_predictions(
        model_folders["none"].with_name("mine-private") / "evaluation/test/predictions.parquet"
    )
    assert predictions.hadm_ids.tolist() == [f"KT-{i:04}" for i in range(16)]
    lines = (
        (model_folders["none"].with_name("mine-private") / "evaluation/test/preds_test.psv").read_text().splitlines()
    )
    assert [line.split("|")[0] for line in lines] == predictions.hadm_ids.tolist()


def test_a_dry_run_shows_what_goes_out_and_compares_it_with_the_notes(model_folders, own_files, capsys):
    for name, folder in model_folders.items():
        assert publish([str(folder), "--repo_id", "someone/mine", "--data_dir", str(own_files), "--dry_run"]) == 0
        printed = capsys.readouterr().out
        assert "Privacy check: nothing found" in printed
        assert ("model.safetensors" in printed.split("README.md:")[0]) == (name == "open")
        assert ("**This repository holds no weights.**" in printed) == (name != "open")


def test_the_notes_may_be_given_as_files(model_folders, own_files, capsys):
    command = [str(model_folders["none"]), "--repo_id", "someone/mine"]
    files = [
        part for name in ("train", "validation", "test") for part in (f"--{name}_file", f"{own_files}/{name}.csv")
    ]
    assert publish(["privacy", *command, *files]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert publish(["privacy", *command]) == 2
    assert "name the folder of these data with `--data_dir`" in capsys.readouterr().err


def test_notes_and_their_ids_are_found_in_what_would_go_out(model_folders, own_files, tmp_path):
    folder = ModelFolder.read(model_folders["open"])
    release = plan_release(folder, "someone/mine")
    notes = load_notes("files", None, str(own_files), tmp_path, ["code_system=icd9cm"])
    texts = {row["note_id"]: row["text"] for row in csv.DictReader((own_files / "train.csv").open())}
    for leak, kind in (
        (texts["KH-0007"], SPAN),
        ("the worst is KH-0007", RECORD_ID),
        ("of patient KHP0003", RECORD_ID),
    ):
        files = outgoing_files(folder, release, build_card(folder, release) + f"\n{leak}\n")
        found = check_files(files, LocalNames(), notes)
        assert [(finding.file, finding.kind) for finding in found] == [("README.md", kind)]
    assert check_files(outgoing_files(folder, release, build_card(folder, release)), LocalNames(), notes) == []


def test_a_part_of_the_notes_is_not_enough_to_compare_with(own_files, tmp_path):
    options = ["code_system=icd9cm"]
    code = load_notes("files", None, str(own_files), tmp_path, options, {}).codes[0]
    load_notes("files", None, str(own_files), tmp_path, options, {code: 0})
    with pytest.raises(ValueError, match="not all that the model learned from: of 1 codes"):
        load_notes("files", None, str(own_files), tmp_path, options, {code: 10_000})


def test_a_number_is_no_code_because_a_whole_classification_has_it(own_files, tmp_path, monkeypatch):
    """Of the user's own notes only the codes that they have excuse a number; 4019 may be the id of a record."""
    titles = {"401.9": "Hypertension", "99.99": "No code of these notes"}
    monkeypatch.setattr(icd9_hierarchy, "icd9cm_titles", lambda: titles)
    notes = load_notes("files", None, str(own_files), tmp_path, ["code_system=icd9cm"])
    assert "99.99" not in notes.codes and titles["99.99"] in notes.titles


def test_the_number_of_a_row_is_no_id(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("text,codes\n" + "".join(f"a note of {i},401.9\n" for i in range(1200)))
    notes = load_notes("files", None, str(path), tmp_path / "cache")
    text = " ".join(str(i) for i in range(1001, 1100)).encode()
    assert check_files({"README.md": text}, LocalNames(), notes) == []
    path.write_text("id,text,codes\n" + "".join(f"{i},a note of {i},401.9\n" for i in range(1200)))
    notes = load_notes("files", None, str(path), tmp_path / "cache")
    assert {finding.kind for finding in check_files({"README.md": text}, LocalNames(), notes)} == {RECORD_ID}


def test_notes_to_test_on_are_asked_for_before_a_training_that_pushes(own_files, letters, tmp_path):
    args = ICDTrainingArguments(str(tmp_path), push_to_hub=True, hub_model_id="someone/mine", use_cpu=True)
    model_args = ModelArguments(model="direct", backbone=letters, base_model="someone/tiny")
    with pytest.raises(ValueError, match="give `test_file`, too"):
        names = ("train", "validation")
        given = {f"{name}_file": str(own_files / f"{name}.csv") for name in names}
        plan_push(model_args, DataArguments(**given), args)


def card_of(folder, **options):
    folder = ModelFolder.read(folder)
    return build_card(folder, plan_release(folder, "someone/mine", **options))


def test_the_card_says_who_states_the_license_and_claims_nothing_else(model_folders):
    cards = {name: card_of(folder) for name, folder in model_folders.items()}
    terms = {name: re.search(r"\| terms \| (.*) \|", card)[1] for name, card in cards.items()}
    assert terms == {
        "none": "not stated by whoever trained the model, so counted as restricted",
        "open": "CC BY 4.0 ([cc-by-4.0](https://creativecommons.org/licenses/by/4.0/)), as whoever trained the model states",
        "closed": "`cc-by-nc-4.0`, as whoever trained the model states; not known to let anyone have and use them, so counted as "
        "restricted",
    }
    for name, card in cards.items():
        metadata = yaml.safe_load(card.split("---")[1])
        assert "language" not in metadata and "datasets" not in metadata
        assert "icd-9-cm" in metadata["tags"]
        assert "PhysioNet" not in card and "MIMIC" not in card, name
        assert "KH-" not in card
        assert "this project knows no citation" in card and "generated by this project" not in card
    assert "and to the terms of the data above" in cards["open"]
    assert "Those who hold the notes, and they alone, have the weights" in cards["none"]
    assert "data_license" not in cards["open"]  # which the next one, with other notes, would state unawares


def test_weights_go_out_by_permission_without_the_terms_of_others(model_folders):
    folder = ModelFolder.read(model_folders["none"])
    release = plan_release(folder, "someone/mine", permission="ethics board, 12 May, no. 3")
    files = outgoing_files(folder, release, build_card(folder, release))
    card = files["README.md"].decode()
    assert "Only those whom the written permission names (ethics board, 12 May, no. 3)" in card
    assert yaml.safe_load(card.split("---")[1])["license_name"] == "by-written-permission"
    assert "PhysioNet" not in card and b"PhysioNet" not in files["LICENSE"] and "model.safetensors" in files
    with pytest.raises(ValueError, match="private repository with manual gating"):
        plan_release(folder, "someone/mine", permission="yes", private=False)


def test_notes_under_a_license_of_data_use_stay_under_it_when_own_notes_follow(edit, model_dir):
    earlier = {"dataset": "mimic3", "config": "full", "synthetic": False, "open": False}
    own = {"dataset": "files", "config": "default", "synthetic": False, "open": False}
    edit("config.json", training_data={**own, "earlier": earlier})
    assert not ModelFolder.read(model_dir).is_of_own_notes
    edit("config.json", training_data={**own, "earlier": {**earlier, "synthetic": True}})
    assert ModelFolder.read(model_dir).is_of_own_notes
    edit("config.json", training_data={**own, "earlier": None})
    assert not ModelFolder.read(model_dir).is_of_own_notes


def test_all_commands_take_files_in_place_of_a_folder(own_files, letters, tmp_path, capsys):
    files = {f"{name}_file": own_files / f"{name}.csv" for name in ("train", "validation", "test")}
    folder = train_on(
        own_files, letters, tmp_path / "mine", data_dir=None, dataset=None, data_license="cc0-1.0", **files
    )
    record = config_of(folder)["training_data"]
    assert record["options"] == ["code_system=icd9cm"] and record["dataset"] == "files"  # no path of this machine
    assert evaluate([str(folder), "--test_file", str(files["test_file"]), "--split", "test"]) == 0
    given = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    capsys.readouterr()
    assert publish([str(folder), "--repo_id", "someone/mine", *given, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "nothing found" in printed and str(own_files) not in printed


def test_training_says_what_the_license_means(own_files, letters, tmp_path, capsys):
    train_on(own_files, letters, tmp_path / "mine", data_license="other", max_train_notes=4)
    assert (
        "will count as one of restricted data, which is published without its weights: `data_license` other is not"
        in (capsys.readouterr().out)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "mimic3", "data_license": "mit"}, "`data_license` is for your own notes"),
        ({"dataset": "files", "data_license": "my hospital's"}, "must be the id of a license"),
        (
            {"dataset": "files", "data_license": "cc-by4.0"},
            r"`data_license` cc-by4.0 is not known. Did you mean cc-by-4.0\?",
        ),
        (
            {"dataset": "files", "data_license": "ours-2.0"},
            r"not known. Licenses .*cc0-1.0.* Give `other` for any other",
        ),
    ],
)
def test_a_license_that_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(data_dir="somewhere", **options)


def test_spdx_ids_are_those_of_the_hub():
    assert DataArguments(dataset="files", data_dir="x", data_license=" ODbL-1.0 ").data_license == "odbl"
    for license in ("other", "unknown", "CC-BY-NC-SA-4.0"):  # known, though they open nothing
        assert DataArguments(dataset="files", data_dir="x", data_license=license).data_license == license.lower()


def test_own_notes_of_no_known_code_system_are_described_without_one():
    record = {"dataset": "files", "config": "default", "code_counts": {"xyz": 3}}
    assert describe_data(record).code_system == "ICD"
