"""Runs that end early: by a signal, a full disk, numbers that are none, or a mistake that is found before anything is read."""

import gzip
import json
import os
import re
import resource
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, LlamaForCausalLM, TrainerCallback

from modeling_icd import backbone_icd
from modeling_icd.training import run, trainer
from modeling_icd.training.run import main


@pytest.fixture
def arguments(corpus, backbone, tmp_path):
    def make(output="model", **options):
        given = {"model": "direct", "pooling": "mean", "window_size": 32, "window_stride": 24, "dataset": "mimic3"}
        given |= {"num_train_epochs": 4, "per_device_train_batch_size": 4, "max_train_notes": 16, "use_cpu": True}
        given |= {"tfidf_yardstick": False}
        given |= {"backbone": backbone, "data_dir": corpus, "data_cache_dir": tmp_path / "cache"}
        return [f"--{name}={value}" for name, value in (given | {"output_dir": tmp_path / output} | options).items()]

    return make


@pytest.fixture
def at_epoch(monkeypatch):
    """Do something to a run when an epoch of its training has ended, before it is evaluated and saved."""

    def register(epoch, action):
        class AtEpoch(TrainerCallback):
            def on_epoch_end(self, args, state, control, **kwargs):
                if round(state.epoch) == epoch:
                    action()

        original = trainer.ICDTrainer.__init__

        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.add_callback(AtEpoch())

        monkeypatch.setattr(trainer.ICDTrainer, "__init__", init)

    return register


def left_behind(folder: Path) -> list[Path]:
    """Files that a write leaves when it is ended in the middle, and checkpoints that are not complete."""
    broken = [path for path in folder.glob("checkpoint-*") if not (path / "trainer_state.json").exists()]
    return [*broken, *folder.rglob("*tmp*"), *folder.glob("complete")]


def assert_same_weights(folder: Path, expected: Path):
    weights, expected_weights = (load_file(path / "model.safetensors") for path in (folder, expected))
    for name, weight in expected_weights.items():
        torch.testing.assert_close(weights[name], weight, msg=name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on_and_goes_on_from_its_last_epoch(
    number, code, arguments, at_epoch, tmp_path, capsys, monkeypatch
):
    # A rate of this size makes the first epoch the best one; the one to go on from is the last one that was finished.
    options = {"learning_rate": 0.5, "head_start": "random", "score_bias": False, "loss_reduction": "mean"}
    at_epoch(4, lambda: os.kill(os.getpid(), number))
    assert main(arguments(**options)) == code
    printed = capsys.readouterr().err
    checkpoint = tmp_path / "model" / "checkpoint-12"
    assert f"The same command with `--resume_from_checkpoint last` goes on from {checkpoint}." in printed
    assert "Traceback" not in printed and not left_behind(tmp_path / "model")
    best = json.loads((checkpoint / "trainer_state.json").read_text())["best_global_step"]
    kept = {path.name for path in (tmp_path / "model").glob("checkpoint-*")}
    assert best < 12 and kept == {f"checkpoint-{best}", "checkpoint-12"}  # two on disk: the best and the last
    monkeypatch.undo()
    assert main([*arguments(**options), "--resume_from_checkpoint=last"]) == 0
    assert f"resuming from {checkpoint}" in capsys.readouterr().out
    assert main(arguments("whole", **options)) == 0
    assert_same_weights(tmp_path / "model", tmp_path / "whole")


def test_a_run_goes_on_within_an_epoch_with_the_batches_that_were_due(arguments, tmp_path, capsys, monkeypatch):
    """Batches of like length in random order; 14 notes make 7 batches an epoch, and steps of two batches leave one over."""
    options = {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "no", "num_train_epochs": 2}
    options |= {"max_train_notes": 14, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    options |= {"head_dropout": 0.3, "learning_rate": 0.05, "load_best_model_at_end": False}
    read = {}

    def watch(name, stop_at=None):
        original = trainer.ICDTrainer.training_step

        def training_step(self, model, inputs, *args, **kwargs):
            if self.state.global_step == stop_at:
                raise KeyboardInterrupt
            read.setdefault(name, []).append((self.state.global_step, inputs["input_ids"].tolist()))
            return original(self, model, inputs, *args, **kwargs)

        monkeypatch.setattr(trainer.ICDTrainer, "training_step", training_step)

    for name, stop_at, further in (
        ("whole", None, []),
        ("model", 7, []),
        ("model", None, ["--resume_from_checkpoint=last"]),
    ):
        watch(name if not further else "resumed", stop_at)
        assert main([*arguments(name, **options), *further]) == (130 if stop_at else 0)
        monkeypatch.undo()
    assert f"resuming from {tmp_path / 'model' / 'checkpoint-6'}" in capsys.readouterr().out
    assert read["model"] == [batch for batch in read["whole"] if batch[0] < 7]
    assert read["resumed"] == [batch for batch in read["whole"] if batch[0] >= 6]
    assert_same_weights(tmp_path / "model", tmp_path / "whole")


def test_checkpoints_and_models_of_the_head_alone_go_on_as_whole_ones_do(arguments, at_epoch, tmp_path, monkeypatch):
    options = {"freeze_backbone": True, "hidden_states_dir": tmp_path / "states", "learning_rate": 0.01}
    at_epoch(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(arguments(**options, head_only=True)) == 143
    checkpoints = list((tmp_path / "model").glob("checkpoint-*"))
    assert checkpoints
    for folder in checkpoints:
        assert all(name.startswith("score.") for name in load_file(folder / "model.safetensors"))
    monkeypatch.undo()
    assert main([*arguments(**options, head_only=True), "--resume_from_checkpoint=last"]) == 0
    assert main(arguments("whole", **options)) == 0
    head, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "whole"))
    assert set(head) == {name for name in whole if name.startswith("score.")} < set(whole)
    loaded = AutoModel.from_pretrained(tmp_path / "model").state_dict()
    for name, weight in whole.items():
        torch.testing.assert_close(loaded[name], weight, msg=name)
    assert main(arguments("wrong", head_only=True)) == 2  # the backbone learns


def test_a_head_does_not_go_on_over_a_backbone_that_has_changed(arguments, backbone, at_epoch, tmp_path, capsys):
    place = shutil.copytree(backbone, tmp_path / "place")
    options = {"freeze_backbone": True, "head_only": True, "backbone": place}
    at_epoch(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(arguments(**options)) == 143
    weights = load_file(place / "model.safetensors")
    save_file({name: weight * 1.01 for name, weight in weights.items()}, place / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert main([*arguments(**options), "--resume_from_checkpoint=last"]) == 2
    assert "trained over other weights of the backbone than those that are there now" in capsys.readouterr().err


def test_by_default_the_backbone_is_left_out_where_its_name_is_enough(
    arguments, backbone, tmp_path, monkeypatch, capsys
):
    """Checkpoints never hold a frozen backbone; a model does where the backbone has no name but a folder, which may move."""
    options = {"freeze_backbone": True, "hidden_states_dir": tmp_path / "states", "num_train_epochs": 1}

    def names(folder):
        return {name.partition(".")[0] for name in load_file(folder / "model.safetensors")}

    assert main(arguments("folder", **options)) == 0
    (checkpoint,) = (tmp_path / "folder").glob("checkpoint-*")
    assert names(checkpoint) == {"score"} and names(tmp_path / "folder") == {"model", "score"}
    monkeypatch.setitem(backbone_icd.NAMED_BACKBONES, "tiny", Path(backbone))
    assert main(arguments("named", **options)) == 0
    assert names(tmp_path / "named") == {"score"}
    assert json.loads((tmp_path / "named" / "config.json").read_text())["backbone_source"]["name"] == "tiny"
    assert main(arguments("copied", **options, head_only=False)) == 0
    assert names(tmp_path / "copied") == {"model", "score"}
    whole, alone = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("copied", "named"))
    for name, weight in whole.items():
        torch.testing.assert_close(alone[name], weight, msg=name)
    # Files that are not safetensors cannot be compared later: then everything is kept, and that is said.
    shutil.copytree(backbone, tmp_path / "pickled")
    torch.save(load_file(tmp_path / "pickled" / "model.safetensors"), tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    capsys.readouterr()
    assert main(arguments("pickle", **options, backbone=tmp_path / "pickled")) == 0
    assert "The backbone is saved with each checkpoint" in capsys.readouterr().err
    assert names(tmp_path / "pickle") == {"model", "score"}


@pytest.mark.parametrize("limit", [20_000, 40_000], ids=["weights", "optimizer"])
def test_a_full_disk_in_a_checkpoint_is_one_message_and_keeps_the_last_one(
    limit, arguments, at_epoch, tmp_path, capsys
):
    """No file may be longer than the limit from the third epoch on: the weights have 26 KB, the optimizer 54 KB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_epoch(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1])))
    try:
        assert main(arguments()) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # A progress bar that has not ended yet may stand before it on the line.
    errors = re.findall(r"(?:error: |Traceback)[^\n]*", capsys.readouterr().err)
    assert len(errors) == 1 and "checkpoint-12 cannot be written" in errors[0]
    assert f"goes on from {tmp_path / 'model' / 'checkpoint-8'}." in errors[0]
    assert not left_behind(tmp_path / "model")


def test_a_full_disk_at_the_end_keeps_the_earlier_model(arguments, tmp_path, capsys, monkeypatch):
    assert main(arguments(num_train_epochs=1)) == 0
    earlier = {path: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fit = run.fit_decision

    def full_from_here(*args, **kwargs):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        return fit(*args, **kwargs)

    monkeypatch.setattr(run, "fit_decision", full_from_here)
    try:
        assert main(arguments(num_train_epochs=1, seed=1, overwrite_output_dir=True)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"error: {tmp_path / 'model'} cannot be written" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()} == earlier
    assert not left_behind(tmp_path / "model")


def test_a_new_head_is_no_news_and_a_missing_backbone_is(arguments, backbone, tmp_path, capfd):
    assert main(arguments(num_train_epochs=1)) == 0
    said = capfd.readouterr()
    assert "LOAD REPORT" not in said.out + said.err and "warning: " not in said.err.replace(
        "warning: on the valid", ""
    )
    shutil.copytree(backbone, tmp_path / "lacking")
    weights = load_file(tmp_path / "lacking/model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "lacking/model.safetensors", {"format": "pt"})
    assert main(arguments("second", num_train_epochs=1, backbone=tmp_path / "lacking")) == 2
    said = capfd.readouterr().err
    assert (
        f"error: The weights in {tmp_path / 'lacking'} lack 1 weight of the backbone, e.g. model.norm.weight." in said
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_model_is_replaced_by_one_of_its_own_kind_alone(arguments, corpus, tmp_path, capsys):
    assert main(arguments(num_train_epochs=1)) == 0
    model, private = tmp_path / "model", tmp_path / "model-private"
    earlier, digests = contents(model), (private / "learned-notes.txt").read_bytes()
    capsys.readouterr()
    for options, named in (
        ({"learning_rate": 0.1, "pooling": "last"}, "`pooling`, `learning_rate`"),
        ({"dataset_config": "top50"}, "`dataset_config`"),
        ({"learning_rate": 0.1, "resume_from_checkpoint": tmp_path / "checkpoint-1"}, "`learning_rate`"),
    ):
        assert main(arguments(**({"num_train_epochs": 1} | options))) == 2
        assert capsys.readouterr().err == (
            f"error: {model} holds a finished model of another configuration: it differs from this run in {named}. Give another "
            "`--output_dir`, or `--overwrite_output_dir` to replace it once this run is complete.\n"
        )
    shutil.copytree(corpus, tmp_path / "other")
    for path in (tmp_path / "other").glob("DIAGNOSES_ICD*"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"4019"', b'"4011"')))
    assert main(arguments(num_train_epochs=1, data_dir=tmp_path / "other")) == 2
    assert f"error: {model} holds a finished model of other data" in capsys.readouterr().err
    assert (contents(model), (private / "learned-notes.txt").read_bytes()) == (earlier, digests)

    assert main(arguments(num_train_epochs=1, disable_tqdm=True)) == 0
    assert f"{model} holds a finished model of the same configuration and data" in capsys.readouterr().out
    assert main(arguments(num_train_epochs=2, overwrite_output_dir=True)) == 0
    assert {path.name for path in model.glob("checkpoint-*")} <= {"checkpoint-4", "checkpoint-8"}  # and none of before
    assert json.loads((model / "run.json").read_text())["training"]["num_train_epochs"] == 2
    assert main(arguments(num_train_epochs=3, resume_from_checkpoint="last")) == 0  # a finished run, longer

    (model / "run.json").unlink()
    assert main(arguments(num_train_epochs=1)) == 2
    assert f"{model} holds a model and no run.json that says how it was trained." in capsys.readouterr().err


def test_an_interrupted_run_is_not_started_again_unasked(arguments, at_epoch, tmp_path, capsys, monkeypatch):
    at_epoch(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert main(arguments()) == 130
    monkeypatch.undo()
    checkpoints = contents(tmp_path / "model")
    capsys.readouterr()
    assert main(arguments()) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'model'} holds a run that was interrupted. Give `--resume_from_checkpoint last` to go on from "
        f"{tmp_path / 'model' / 'checkpoint-8'}, `--overwrite_output_dir` to start again without it, or another `--output_dir`.\n"
    )
    assert contents(tmp_path / "model") == checkpoints
    assert main(arguments(overwrite_output_dir=True, resume_from_checkpoint="last")) == 2
    assert "choose one" in capsys.readouterr().err
    assert main(arguments(num_train_epochs=1, overwrite_output_dir=True)) == 0
    assert [path.name for path in (tmp_path / "model").glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize("freeze_backbone", [True, False])
def test_nan_ends_training_with_its_cause(freeze_backbone, arguments, backbone, tmp_path, capsys):
    broken = LlamaForCausalLM.from_pretrained(backbone)
    with torch.no_grad():
        broken.model.embed_tokens.weight.fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "broken" / name).write_bytes((Path(backbone) / name).read_bytes())
    assert main(arguments(backbone=tmp_path / "broken", freeze_backbone=freeze_backbone)) == 2
    message = "hidden states that are NaN or infinite" if freeze_backbone else "The backbone gives NaN or infinity"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["wandb", "mlflow"])
def test_a_report_to_what_is_not_installed_is_an_error_before_anything_is_read(
    tool, arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{tool}_available", lambda: False)
    assert main(arguments(report_to=tool, data_dir=tmp_path / "none")) == 2
    printed = capsys.readouterr().err
    assert f"`report_to` {tool}: " in printed and "requires" in printed
    assert not (tmp_path / "model").exists()


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_read(arguments, tmp_path, capsys, monkeypatch):
    (tmp_path / "model").write_text("")
    assert main(arguments(data_dir=tmp_path / "none")) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'model'}: a file is there, where a folder is expected."
    )
    (tmp_path / "model").unlink()
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run the tests, may write everywhere
    assert main(arguments(data_dir=tmp_path / "none")) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'model'}: you have no permission for it.")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_help_is_printed_by_the_module_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("modeling_icd.training.run", run_name="__main__", alter_sys=True)
    assert not end.value.code and "--resume_from_checkpoint" in capsys.readouterr().out


def test_activations_that_are_computed_again_change_nothing(arguments, tmp_path, monkeypatch):
    """Also where the steps of a training on a CPU are computed in another way than torch's own."""
    monkeypatch.setattr("modeling_icd.training.arithmetic.is_onednn_faster", lambda: True)
    for name, again in (("kept", False), ("again", True)):
        options = {"num_train_epochs": 1, "gradient_checkpointing": again, "head_dropout": 0.0}
        assert main(arguments(name, **options)) == 0
    kept, again = (load_file(tmp_path / name / "model.safetensors") for name in ("kept", "again"))
    for name, weight in kept.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_further_texts_are_the_same_when_a_run_goes_on(arguments, at_epoch, tmp_path, monkeypatch, capsys):
    options = {"pooling": "label_attention", "freeze_backbone": True, "head_dropout": 0.3, "r_drop": 2.0}
    options |= {"guidelines": 1, "guidelines_rare": 3, "evidence_sentences": True, "max_train_notes": 6}
    options |= {"num_train_epochs": 2, "per_device_train_batch_size": 16, "category_weight": 0.5}
    at_epoch(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert main(arguments(**options)) == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert main([*arguments(**options), "--resume_from_checkpoint=last"]) == 0
    said = capsys.readouterr()
    assert "resuming from" in said.out
    assert "Hidden states: " not in said.err  # none is computed again
    assert main(arguments("whole", **options)) == 0
    assert_same_weights(tmp_path / "model", tmp_path / "whole")
