"""`modeling-icd train` and `modeling-icd evaluate` as a user runs them, on a tiny Llama and an invented corpus."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dataset_scripts import load_split
from modeling_icd.evaluation import ICDMetricsAccumulator, tune_bagged_threshold
from modeling_icd.evaluation.results_file import write_results
from modeling_icd.evaluation.scoring import gold_columns, score_notes
from modeling_icd.training.arguments import ICDTrainingArguments
from modeling_icd.training.collator import ICDCollator
from modeling_icd.training.run import main
from modeling_icd.training.sampler import ShuffledLengthGroupedSampler
from modeling_icd.training.trainer import make_trainer


ROOT = Path(__file__).resolve().parents[2]
MODES = {
    "frozen": {"model": "multirescnn", "freeze_backbone": True, "filter_sizes": "3", "reduction_size": 8},
    "lora": {"model": "direct", "pooling": "label_attention", "lora_r": 2, "head_learning_rate": 0.01},
    "full": {"model": "direct", "pooling": "mean"},
}


def f1_at(scores, gold, threshold) -> float:
    accumulator = ICDMetricsAccumulator(scores.shape[1], threshold=threshold)
    accumulator.add_batch(scores, gold)
    return accumulator.compute()["f1_micro"]


def flags(**options) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def tiny_frozen_run(corpus, backbone, **options) -> list[str]:
    """Arguments of `modeling-icd train` for a mean-pooled model over the cached states of the tiny Llama."""
    frozen = {"model": "direct", "pooling": "mean", "freeze_backbone": True, "window_size": 32, "learning_rate": 0.01}
    frozen |= {"tfidf_yardstick": False}
    return flags(backbone=backbone, dataset="mimic3", data_dir=corpus, use_cpu=True, **frozen, **options)


def run_script(words: list[str]) -> None:
    """What `python SCRIPT ...` does in the root of the project; it ends the process."""
    sys.argv = words
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a script of the root in this process; returns its exit status and what it printed on stderr."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else the Hub is asked for a folder that is missing
    monkeypatch.setattr(sys, "argv", [])

    def script(*words) -> tuple[int, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run_script([str(word) for word in words])
        return end.value.code, capfd.readouterr().err

    return script


def succeed(run, *words) -> None:
    status, errors = run(*words)
    assert status == 0, errors[-3000:]


@pytest.mark.parametrize("mode", MODES)
def test_train_then_evaluate(run, mode, corpus, backbone, tmp_path):
    output = tmp_path / "model"
    options = {
        **MODES[mode],
        "backbone": backbone,
        "window_size": 32,
        "window_stride": 24,
        "dataset": "mimic3",
        "data_dir": corpus,
        "output_dir": output,
        "num_train_epochs": 1,
        "max_train_notes": 16,
        "seed": 5,
        "use_cpu": True,
        "logging_steps": 1,
        "tfidf_yardstick": mode == "frozen",
    }
    succeed(run, "train.py", *flags(**options))
    model = AutoModelForSequenceClassification.from_pretrained(output)
    assert 0 <= model.config.threshold <= 1
    # The head's own rate is the first group's, which is the one logged; the default of all others is 5e-5.
    rates = [row["learning_rate"] for row in json.loads((output / "run.json").read_text())["log"] if "loss" in row]
    assert (max(rates) > 5e-5) == ("head_learning_rate" in options)
    # The saved threshold is the one that the scores and labels of whole validation notes give, whatever order the
    # Trainer read them in.
    validation = load_split("mimic3", "validation", data_dir=corpus, cache_dir=tmp_path / "cache")
    gold, _ = gold_columns(validation, model.config.label2id)
    known = [[code for code in codes if code < model.config.num_labels] for codes in gold]
    tokenizer = AutoTokenizer.from_pretrained(output)
    scores = score_notes(model.eval(), tokenizer, list(validation["text"]))
    assert model.config.threshold == pytest.approx(tune_bagged_threshold(scores, known), abs=0.01)
    assert {"dataset": "mimic3", "config": "full", "synthetic": True}.items() <= model.config.training_data.items()
    succeed(
        run,
        "evaluate.py",
        output,
        "--dataset=mimic3",
        f"--data_dir={corpus}",
        "--split=all",
        f"--output_dir={tmp_path}",
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["num_notes"], results["training_seed"]) == (60, 5)
    assert 0 <= results["metrics"]["f1_micro"] <= 1
    # 16 notes hold only some of the corpus's codes: the others are gold columns that the model cannot predict.
    assert results["num_codes"] == model.config.num_labels + len(results["unknown_codes"])
    # By default evaluation writes its figures into the model folder, and no notes.
    succeed(run, "evaluate.py", output, "--dataset=mimic3", f"--data_dir={corpus}", "--split=test")
    assert (output / "evaluation" / "test" / "results.json").exists()
    # Nothing that can be turned back into notes lies in the folder that is published.
    assert not [
        path
        for path in output.rglob("*")
        if path.suffix in (".arrow", ".bin", ".states") and "checkpoint" not in str(path)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "configs/none.yaml"], "No configuration file configs/none.yaml"),
        (["train.py", "configs/cmc_direct.yaml"], "--data_dir"),
        (["train.py", "configs/cmc_direct.yaml", "--data_dir=nowhere"], "nowhere"),
        (
            ["train.py", "configs/cmc_direct.yaml", "--data_dir={corpus}", "--dataset=mimic3", "--backbone=none"],
            "none",
        ),
        (["evaluate.py", "nowhere", "--dataset=other", "--data_dir=."], "nowhere"),
    ],
)
def test_a_mistake_is_one_message(run, arguments, message, corpus, tmp_path):
    arguments = [argument.format(corpus=corpus) for argument in arguments]
    if arguments[0] == "train.py":
        arguments = [*arguments, f"--output_dir={tmp_path}"]
    status, errors = run(*arguments)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"model: [direct, multirescnn]\nbackbone: x\ndataset: cmc2007\ndata_dir: .\n", "`model` must be a text"),
        (b"model: direct\nbackbone: x\ndataset: cmc2007\ndata_dir: 2007\n", "`data_dir` must be a text"),
        (b"model: caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_a_configuration_of_other_things_than_text_is_one_message(text, message, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text)
    assert main([str(file), f"--output_dir={tmp_path / 'model'}"]) == 2
    assert message in capsys.readouterr().err


def test_an_undefined_figure_is_null_in_results_json(tmp_path):
    path = write_results({"metrics": {"auc_macro": float("nan"), "f1_micro": 0.5}}, tmp_path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["metrics"] == {"auc_macro": None, "f1_micro": 0.5}


def test_options_of_the_data_set_are_those_of_evaluation_too(run, corpus, backbone, tmp_path):
    output = tmp_path / "model"
    custom = {"dataset_config": "custom", "dataset_options": "num_codes=7", "num_train_epochs": 1}
    succeed(run, "train.py", *tiny_frozen_run(corpus, backbone, output_dir=output, **custom))
    codes = list(AutoModelForSequenceClassification.from_pretrained(output).config.label2id)
    split = load_split("mimic3", "train", "custom", data_dir=corpus, cache_dir=tmp_path / "cache", num_codes=7)
    assert codes == split.features["codes"].feature.names
    for name in ("test", "all"):
        succeed(run, "evaluate.py", output, "--dataset=mimic3", f"--data_dir={corpus}", f"--split={name}")
        results = json.loads((output / "evaluation" / name / "results.json").read_text())
        assert (results["config"], results["num_codes"]) == ("custom", 7)


def test_refit_learns_from_validation_after_the_threshold_is_chosen(run, corpus, backbone, tmp_path):
    options = tiny_frozen_run(
        corpus, backbone, num_train_epochs=3, refit_on_validation=True, output_dir=tmp_path / "model"
    )
    succeed(run, "train.py", *options)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    splits = [load_split("mimic3", s, data_dir=corpus, cache_dir=tmp_path / "c") for s in ("train", "validation")]
    names = splits[0].features["codes"].feature.names
    used = [{names[code] for codes in split["codes"] for code in codes} for split in splits]
    assert not used[1] <= used[0]
    assert set(model.config.label2id) == used[0] | used[1]
    log = json.loads((tmp_path / "model" / "run.json").read_text())["log"]
    evaluated = [row for row in log if "eval_loss" in row]
    ends = [row["step"] for row in log if "train_runtime" in row]
    assert len(ends) == 2 and ends[1] > ends[0]  # steps of the second training: over both splits
    assert len(evaluated) == 3 and 0 <= model.config.threshold <= 1
    status, errors = run("train.py", *options, "--early_stopping_patience=2")
    assert status == 2 and "choose one" in errors


def test_a_killed_run_resumes_and_ends_as_if_it_had_not_been_killed(run, context, corpus, backbone, tmp_path):
    options = tiny_frozen_run(
        corpus,
        backbone,
        hidden_states_dir=tmp_path / "hidden_states",
        num_train_epochs=20,
        max_train_notes=16,
        save_strategy="epoch",
        load_best_model_at_end=False,
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = context.Process(target=run_script, args=(["train.py", *options, f"--output_dir={killed}"],))
    process.start()
    # The state is what a checkpoint writes last.
    while not list(killed.glob("checkpoint-*/trainer_state.json")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (killed / "model.safetensors").exists()
    # What a kill in the middle of saving leaves: a checkpoint without its state, and one whose state is cut short.
    (killed / "checkpoint-88888").mkdir()
    (killed / "checkpoint-99999").mkdir()
    (killed / "checkpoint-99999" / "trainer_state.json").write_text('{"global_step": 99')
    for output, more in ((killed, ["--resume_from_checkpoint=last"]), (whole, [])):
        succeed(run, "train.py", *options, f"--output_dir={output}", *more)
    weights = [load_file(folder / "model.safetensors") for folder in (killed, whole)]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, msg=name)


def test_what_evaluation_keeps_is_chosen_in_the_configuration(tmp_path):
    for storage in ("uint16", "float32"):
        args = ICDTrainingArguments(str(tmp_path), score_storage=storage, use_cpu=True)
        trainer = make_trainer(torch.nn.Linear(1, 3), args, [{}], None, ICDCollator(3, pad_token_id=0), None)
        assert trainer.compute_metrics.accumulator.score_storage == storage
    with pytest.raises(ValueError, match="`score_storage` must be one of"):
        ICDTrainingArguments(str(tmp_path), score_storage="float16", use_cpu=True)


def test_batches_hold_notes_of_similar_length_in_no_order_of_length():
    lengths = torch.randint(1, 1000, (805,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = ShuffledLengthGroupedSampler(8, lengths, seed=0)
    indices = list(sampler)
    assert sorted(indices) == list(range(805))
    batches = torch.tensor([lengths[i] for i in indices[:800]], dtype=torch.float).view(100, 8)
    assert (batches.amax(dim=1) - batches.amin(dim=1)).mean() < 50  # about 800 where batches are drawn at random
    means = batches.mean(dim=1)
    assert abs(torch.corrcoef(torch.stack([torch.arange(100.0), means]))[0, 1]) < 0.3
    assert abs(means[-20:].mean() - means.mean()) < 150
    # The seed and the epoch alone decide, in every process and after every restart.
    torch.manual_seed(7)
    assert list(ShuffledLengthGroupedSampler(8, lengths, seed=0)) == indices
    assert list(ShuffledLengthGroupedSampler(8, lengths, seed=1)) != indices
    sampler.set_epoch(1)
    assert list(sampler) != indices
