"""Evaluating what is damaged, does not belong together or says nothing: one message, or a count, never a silent figure."""

import json
import os
import re
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset_scripts import files
from modeling_icd.decision_icd import is_predicted
from modeling_icd.evaluation import decide, predictions, scoring
from modeling_icd.evaluation.cli import main
from modeling_icd.evaluation.model_data import builder_for
from modeling_icd.evaluation.outcomes import outcomes_of
from modeling_icd.evaluation.results import summarize
from modeling_icd.evaluation.results_file import read_results
from modeling_icd.evaluation.scoring import score_split
from modeling_icd.extras.compare import read_evaluation
from modeling_icd.inference.loading import load_model


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_bytes(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def one_code_less(config):
    last = str(len(config["id2label"]) - 1)
    del config["label2id"][config["id2label"].pop(last)]
    config["threshold"] = 0.5


def same_code_twice(config):
    config["id2label"]["1"] = config["id2label"]["0"]


def other_order(config):
    first, second = config["id2label"]["0"], config["id2label"]["1"]
    config["id2label"] |= {"0": second, "1": first}


DAMAGES = {
    "empty weights": (
        lambda folder: change_bytes(folder, "model.safetensors", lambda data: b""),
        "model.safetensors is cut",
    ),
    "cut weights": (
        lambda folder: change_bytes(folder, "model.safetensors", lambda data: data[:-50]),
        "model.safetensors is cut",
    ),
    "weights that are text": (
        lambda folder: change_bytes(folder, "model.safetensors", lambda data: b"see the other folder" * 9),
        "model.safetensors is cut short or damaged",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    "one code less": (lambda folder: change_config(folder, one_code_less), "1 parameter is of another shape.*score"),
    "a code twice": (lambda folder: change_config(folder, same_code_twice), "id2label|more than one column"),
    "other order": (lambda folder: change_config(folder, other_order), "label2id"),
    "no head": (
        lambda folder: change_weights(folder, lambda tensors: tensors.pop("score.weight")),
        "random: score.weight",
    ),
    "a deeper configuration": (
        lambda folder: change_config(folder, lambda config: config.update(num_hidden_layers=3)),
        r"lack 9 weights of the backbone.*layers\.2.*the layer 2\)",
    ),
    "a tensor too many": (
        lambda folder: change_weights(folder, lambda tensors: tensors.update(other=torch.ones(2))),
        "no place in the model: other",
    ),
    "a cut tokenizer": (
        lambda folder: change_bytes(folder, "tokenizer.json", lambda data: data[:50]),
        "tokenizer cannot",
    ),
    "a cut configuration": (lambda folder: change_bytes(folder, "config.json", lambda data: data[:50]), "config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_one_message_that_names_it(damage, coder, tmp_path):
    folder = shutil.copytree(coder, tmp_path / "model")
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises((ValueError, OSError), match=message) as failure:
        load_model(folder)
    assert str(folder) in str(failure.value) or damage == "a code twice"
    assert "\n" not in str(failure.value)


def test_codes_are_checked_where_a_model_brings_a_configuration_class_of_its_own(tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "configuration_other.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass OtherConfig(LlamaConfig):\n    model_type = 'other'\n"
    )
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "other",
                "auto_map": {"AutoConfig": "configuration_other.OtherConfig"},
                "id2label": {"0": "401.9", "1": "401.9"},
                "label2id": {"401.9": 1},
            }
        )
    )
    assert main([str(folder), "--dataset=mimic3", "--data_dir=.", "--trust_remote_code"]) == 2
    error = capsys.readouterr().err
    assert "more than one column, e.g. ['401.9']" in error and "Traceback" not in error


@pytest.fixture
def options(corpus, tmp_path_factory):
    """Of a data set that is built once, under `modeling-icd train`'s names."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    return ["--dataset=mimic3", f"--data_dir={corpus}", f"--data_cache_dir={cache}", "--per_device_eval_batch_size=16"]


def test_numbers_that_are_none_are_named(coder, options, tmp_path, capsys):
    folder = shutil.copytree(coder, tmp_path / "model")
    change_weights(folder, lambda tensors: tensors["score.weight"][0].fill_(float("nan")))
    assert main([str(folder), *options, f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "The head gives NaN or infinity for the rows [0, 1, 2, 3, 4, 5, 6] of the batch" in error
    assert re.search(r"The batch holds the notes \[[\d, ]+\] of the split", error)
    assert not (tmp_path / "out").exists()


class WithEmptyNotes:
    """A data set whose first two notes hold no text."""

    def __init__(self, builder):
        self.builder, self.config = builder, builder.config

    def as_dataset(self, split):
        records = self.builder.as_dataset(split=split)
        texts = ["", " \n\t", *records["text"][2:]]
        return records.remove_columns("text").add_column("text", texts, feature=records.features["text"])


def test_empty_notes_score_nothing_and_are_counted(coder, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "builder_for", lambda *args: WithEmptyNotes(builder_for(*args)))
    scored = score_split(str(coder), "mimic3", str(corpus), "test", cache_dir=str(tmp_path), threshold=0.0)
    assert "2 of 7 notes are empty; each scores 0 for every code" in capsys.readouterr().out
    assert not scored.scores[:2].any() and scored.scores[2:].any()
    results, outcomes = summarize(scored)
    assert (results["num_notes"], results["num_empty_notes"]) == (7, 2)
    # Their gold codes are there, and missed, even at a threshold of 0; nor do the k best of nothing count as predicted.
    assert {0, 1} <= set(outcomes.gold_notes) and not {0, 1} & set(outcomes.predicted_notes)
    best = is_predicted(torch.from_numpy(scored.scores), 0.5, top_k=2).numpy()
    of_best = outcomes_of(scored.scores, np.ones(scored.scores.shape), best)
    assert set(of_best.predicted_notes) == {2, 3, 4, 5, 6}


def test_no_decision_is_fitted_to_empty_notes(coder, corpus, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(coder, tmp_path / "model")
    monkeypatch.setattr(decide, "builder_for", lambda *args: WithEmptyNotes(builder_for(*args)))
    given = [str(folder), f"--data_dir={corpus}", f"--data_cache_dir={tmp_path / 'cache'}"]
    assert decide.main([*given, "--threshold_rule=conformal", "--target_recall=0.1"]) == 2
    assert re.search(r"2 of \d+ validation notes are empty.*'conformal'", capsys.readouterr().err)
    assert json.loads((folder / "config.json").read_text())["threshold_rule"] == "fixed"
    assert decide.main([*given, "--threshold_rule=global"]) == 0
    assert "the decision is fitted without them" in capsys.readouterr().out
    assert json.loads((folder / "config.json").read_text())["threshold_rule"] == "global"


def leftovers(folder):
    return [str(path) for path in folder.rglob("*.tmp")]


def test_an_ended_evaluation_leaves_the_earlier_results(coder, options, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    given = [str(coder), *options, f"--output_dir={output}"]
    assert main(given) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert before[output / "results.json"]
    for path in (output / "predictions.parquet", output / "preds_test.psv"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def ended(table, file, **_):
        file.write(b"half")
        error = next(errors)
        if isinstance(error, OSError):
            raise error
        os.kill(os.getpid(), error)
        time.sleep(10)

    ends = {signal.SIGTERM: 143, signal.SIGINT: 130, OSError(28, "No space left on device"): 2}
    errors = iter(ends)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(predictions.pq, "write_table", ended)
        for status in ends.values():
            assert main([*given, "--threshold=0.4"]) == status
            last = capsys.readouterr().err.splitlines()[-1]
            assert last.startswith("error: ")
            assert not leftovers(tmp_path)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    # What a process that was killed outright left behind, the next run removes.
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "getpid", lambda: int(process.stdout))
        abandoned = files._partial(output / "results.json")
    abandoned.write_text("half")
    assert main(given) == 0
    assert not leftovers(tmp_path)


def test_results_of_one_run_with_predictions_of_another_are_refused(coder, options, tmp_path):
    """What is left where an evaluation is ended between the two files; both are of the same notes."""
    for name, threshold in (("first", "0.4"), ("second", "0.6")):
        assert main([str(coder), *options, f"--output_dir={tmp_path / name}", f"--threshold={threshold}"]) == 0
    read_evaluation(tmp_path / "first", "first")
    shutil.copy(tmp_path / "second" / "predictions.parquet", tmp_path / "first")
    with pytest.raises(ValueError, match="they are not of the same run, evaluate again"):
        read_evaluation(tmp_path / "first", "first")
    change_bytes(tmp_path / "first", "predictions.parquet", lambda data: data[:-20])
    with pytest.raises(ValueError, match=r"predictions\.parquet is cut short or damaged"):
        read_evaluation(tmp_path / "first", "first")
    results = json.loads((tmp_path / "first" / "results.json").read_text())
    for name, value in (("per_code", {"gold": 3}), ("strata", {"kind": ["a"]}), ("intervals", {"f1_micro": None})):
        (tmp_path / "results.json").write_text(json.dumps({**results, name: value}))
        with pytest.raises(ValueError, match="Not the results of an evaluation"):
            read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    "module",
    [f"modeling_icd.evaluation.{name}" for name in ("cli", "decide")]
    + [
        f"modeling_icd.extras.{name}"
        for name in ("audit", "compare", "evidence", "gguf", "membership", "onnx", "physionet")
    ],
)
def test_every_module_that_is_a_command_has_help(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_module(module, run_name="__main__")
    assert left.value.code == 0
    assert "usage:" in capsys.readouterr().out
