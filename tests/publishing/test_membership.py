"""Membership inference: the two attacks, the command, and what the card says of them."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from modeling_icd.extras.membership import auc_with_interval, main, note_losses, reference_losses
from modeling_icd.publishing.card import build_card
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.publishing.release import plan_release


def card_of(path):
    folder = ModelFolder.read(path)
    return build_card(folder, plan_release(folder, "someone/tiny-icd"))


def test_loss_by_hand():
    losses = note_losses(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[1, 0], [0, 0]]))
    # note 0: log 2 for both codes; note 1: a miss as sure as counts, -log 1e-4, and a hit, -log(1 - 1e-4)
    np.testing.assert_allclose(losses, [np.log(2), (-np.log(1e-4) - np.log1p(-1e-4)) / 2])


def test_auc_by_hand_and_its_interval():
    # pairs: 3 > 2, 3 > 1, 2 = 2, 2 > 1 -> 3.5 of 4
    assert auc_with_interval(np.array([3.0, 2.0]), np.array([2.0, 1.0]))[0] == 3.5 / 4
    generator = np.random.default_rng(0)
    low_auc, (low, high) = auc_with_interval(generator.normal(size=300), generator.normal(size=400))
    assert low < 0.5 < high and low < low_auc < high and high - low < 0.12
    higher, (low, _) = auc_with_interval(generator.normal(1, 1, 300), generator.normal(size=400))
    assert higher == pytest.approx(0.76, abs=0.05) and low > 0.6  # of normals one deviation apart, 0.760


def test_the_reference_learns_from_other_notes_and_never_from_the_note_itself():
    generator = np.random.default_rng(0)
    topics = generator.integers(2, size=200)
    notes = [f"{'fever cough' if topic else 'rash itch'} word{i}" for i, topic in enumerate(topics)]
    chance = np.log(2)
    assert reference_losses(notes, topics[:, None]).mean() < chance / 4
    # Codes that have nothing to do with the words: a model that had read the note would know them by its own word.
    assert reference_losses(notes, generator.integers(2, size=(200, 1))).mean() > chance * 0.98


def test_taking_off_the_reference_finds_members_that_are_harder_notes():
    generator = np.random.default_rng(0)
    difficulty = np.concatenate([generator.normal(1, 1, 200), generator.normal(0, 1, 200)])
    loss = difficulty - np.repeat([0.5, 0.0], 200)  # members are harder, and the model has learned them
    assert auc_with_interval(-loss[:200], -loss[200:])[0] < 0.5
    calibrated = loss - difficulty - generator.normal(0, 0.1, 400)
    assert auc_with_interval(-calibrated[:200], -calibrated[200:])[0] > 0.95


def test_the_command_writes_figures_and_the_card_shows_those_of_these_weights(model_dir, notes, edit, capsys):
    assert "Not measured. `modeling-icd membership MODEL" in card_of(model_dir)
    edit("config.json", training_data={"dataset": "mimic3", "config": "full", "synthetic": True})
    assert main([str(model_dir), "--data_dir", str(notes), "--split", "train"]) == 0
    measured = json.loads((model_dir / "membership.json").read_text())
    # The same notes on both sides; in other batches, so that scores differ in their last bits.
    assert measured["loss_auc"] == pytest.approx(0.5, abs=0.02)
    assert measured["reference_interval"][0] <= measured["reference_auc"] <= measured["reference_interval"][1]
    card = card_of(model_dir)
    assert f"{measured['num_members']:,} notes that the model was trained on" in card
    assert f"AUC {measured['loss_auc']:.4f} (95% interval {measured['loss_interval'][0]:.4f} to" in card
    weights = load_file(model_dir / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, model_dir / "model.safetensors")
    edit("config.json", training_data={"dataset": "mimic3", "config": "full", "synthetic": True})
    with pytest.raises(ValueError, match="was measured with other weights"):
        card_of(model_dir)


def test_a_mistake_is_one_message(model_dir, notes, edit, capsys):
    assert main(["nowhere", "--data_dir", str(notes)]) == 2
    assert "No model*.safetensors in nowhere" in capsys.readouterr().err
    edit("run.json", data={"max_train_notes": 2})
    assert main([str(model_dir), "--data_dir", str(notes), "--dataset_config", "full"]) == 2
    assert "2 training notes" in capsys.readouterr().err
    edit("config.json", training_data=None)
    assert main([str(model_dir), "--data_dir", str(notes)]) == 2
    assert "--dataset" in capsys.readouterr().err


def test_after_a_refit_the_validation_notes_are_members(model_dir, notes, edit, capsys):
    edit("run.json", training={"refit_on_validation": True})
    command = [str(model_dir), "--data_dir", str(notes), "--dataset_config", "full"]
    assert main([*command, "--split", "train"]) == 0
    assert json.loads((model_dir / "membership.json").read_text())["num_members"] == 27  # 25 of train, 2 of validation
    assert main([*command, "--split", "validation"]) == 2
    assert "trained on validation too" in capsys.readouterr().err
