"""Notes with code strings, as a user has them, in `ICDTrainer`: no tokenizing, collating or starting of one's own."""

import json
import os
import random
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, TrainerCallback, TrainingArguments

from modeling_icd import LlamaForICDCoding
from modeling_icd.evaluation.decide import fit_decision_on
from modeling_icd.evaluation.decisions import DecisionArguments
from modeling_icd.inference.tokens import code_reader, tokenize_split
from modeling_icd.sharing_icd import data_access
from modeling_icd.training import ICDTrainer, ICDTrainingArguments, code_vocabulary, start_head
from modeling_icd.training.collator import ICDCollator


ROOT = Path(__file__).resolve().parents[2]
SAID = {"401.9": "fever", "428.0": "cough", "V45.81": "sepsis"}  # the word that stands for each code
CODES = list(SAID)
LISTS = datasets.Features({"text": datasets.Value("string"), "codes": datasets.List(datasets.Value("string"))})
FILLERS = [
    "pneumonia",
    "ruled",
    "out",
    "no",
    "evidence",
    "of",
    "the",
    "patient",
    "has",
    "due",
    "to",
    "and",
    "with",
    "acute",
]


def notes(number, seed=0, extra=()):
    """Invented notes that name their codes by one word each; `extra` are more (text, codes)."""
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        codes = [code for code in CODES if draw.random() < 0.5]
        words = draw.sample(FILLERS, 5) + [SAID[code] for code in codes]
        rows.append((" ".join(draw.sample(words, len(words))), codes))
    texts, codes = zip(*rows, *extra, strict=True)
    return datasets.Dataset.from_dict({"text": texts, "codes": codes}, features=LISTS)


@pytest.fixture(scope="module")
def tokenizer(backbone):
    return AutoTokenizer.from_pretrained(backbone)


@pytest.fixture
def model(backbone):
    torch.manual_seed(0)
    return LlamaForICDCoding.from_pretrained(
        backbone, id2label=dict(enumerate(CODES)), pooling="label_attention", freeze_backbone=True
    )


@pytest.fixture
def trainer_of(model, tokenizer, tmp_path):
    def make(train=None, evaluated=None, arguments=TrainingArguments, **options):
        given = {"num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True, "report_to": []}
        of_trainer = ("head_start", "compute_metrics", "hidden_states_dir", "hidden_states_format", "data_collator")
        own = {name: options.pop(name) for name in of_trainer if name in options}
        args = arguments(str(tmp_path / "mine"), **given | options)
        return ICDTrainer(model, args, train_dataset=train, eval_dataset=evaluated, processing_class=tokenizer, **own)

    return make


PROGRAM = """
from datasets import load_dataset
from transformers import AutoTokenizer, TrainingArguments
from modeling_icd import LlamaForICDCoding
from modeling_icd.training import ICDTrainer, code_vocabulary

notes = load_dataset("csv", data_files={"train": "train.csv", "validation": "validation.csv"})
codes = code_vocabulary(notes["train"])
model = LlamaForICDCoding.from_pretrained(
    backbone, id2label=dict(enumerate(codes)), pooling="label_attention", freeze_backbone=True
)
trainer = ICDTrainer(model, TrainingArguments("my-coder", num_train_epochs=3), train_dataset=notes["train"],
                     eval_dataset=notes["validation"], processing_class=AutoTokenizer.from_pretrained(backbone))
trainer.train(); trainer.fit_decision(); trainer.save_model()
"""
CLEAN = """
import json, sys
from transformers import pipeline
coder = pipeline("icd-coding", model=sys.argv[1], trust_remote_code=True)
found = coder(["the patient has fever", "fever and cough and sepsis"], top_k=3)
assert "modeling_icd" not in sys.modules
print(json.dumps([[code["code"] for code in of_note] for of_note in found]))
"""


@pytest.mark.slow
def test_fifteen_lines_make_a_coder_that_loads_where_this_package_is_not(backbone, tmp_path):
    assert PROGRAM.strip().count("\n") < 15
    for name, number, seed in (("train", 60, 0), ("validation", 20, 1)):
        of_split = notes(number, seed)
        joined = of_split.map(
            lambda note: {"codes": ";".join(note["codes"])},
            features=datasets.Features({"text": datasets.Value("string"), "codes": datasets.Value("string")}),
        )
        joined.to_csv(tmp_path / f"{name}.csv")
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); backbone = {backbone!r}\n{PROGRAM}"],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (tmp_path / "elsewhere").mkdir()
    clean = subprocess.run(
        [sys.executable, "-S", "-c", CLEAN, str(tmp_path / "my-coder")],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert clean.returncode == 0, clean.stderr[-3000:]
    assert [sorted(codes) for codes in json.loads(clean.stdout)] == [CODES, CODES]
    config = json.loads((tmp_path / "my-coder" / "config.json").read_text())
    assert config["threshold_rule"] == "global" and config["threshold"] != 0.5


def test_codes_are_read_in_every_form_and_each_once(tokenizer):
    strings = notes(5, extra=[("fever", ["401.9", " 428.0 ", "401.9", ""])])
    expected = [*notes(5)["codes"], ["401.9", "428.0"]]
    classes = datasets.Features(
        {"text": datasets.Value("large_string"), "codes": datasets.List(datasets.ClassLabel(names=CODES))}
    )
    forms = {
        "strings": strings,
        "ids": strings.map(lambda note: {"codes": [c.strip() for c in note["codes"] if c]}).cast(classes),
        "texts": datasets.Dataset.from_dict(
            {"text": strings["text"], "codes": [";".join(c) for c in strings["codes"]]}
        ),
        "torch": strings.with_format("torch"),
    }
    label2id = {code: i for i, code in enumerate(CODES)}
    for name, form in forms.items():
        tokens = tokenize_split(form, tokenizer, label2id)
        assert list(tokens["label_ids"]) == [[label2id[code] for code in codes] for codes in expected], name
        assert code_vocabulary(form) == CODES, name


def test_a_note_or_codes_that_are_null_are_empty(tokenizer):
    nulls = datasets.Dataset.from_dict({"text": ["fever", None], "codes": [None, ["401.9", None]]}, features=LISTS)
    tokens = tokenize_split(nulls, tokenizer, {"401.9": 0})
    assert (list(tokens["label_ids"]), list(tokens["length"])) == ([[], [0]], [1, 0])


@pytest.mark.parametrize("arguments", [TrainingArguments, ICDTrainingArguments])
def test_training_finds_the_words_of_the_codes(arguments, trainer_of):
    trainer = trainer_of(notes(200), notes(40, 1), arguments, learning_rate=1e-2, num_train_epochs=5)
    trainer.train()
    assert trainer.evaluate()["eval_auc_micro"] > 0.7  # chance is 0.5
    assert trainer.predict(notes(20, 1)).predictions.shape == (20, 3)


def test_the_users_own_arguments_stay_as_they_are(model, tokenizer, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    ICDTrainer(model, args, train_dataset=notes(4), processing_class=tokenizer)
    assert args.remove_unused_columns is True


def test_what_the_model_does_not_know_counts_as_missed_in_evaluation(trainer_of, capsys):
    extra = [("cough", ["999.9", "428.0"]), (" ", ["401.9", "E885.9"])]
    gold = notes(6, 1, extra)
    trainer = trainer_of(evaluated=gold)
    printed = capsys.readouterr().err
    assert "1 notes to evaluate on have no text" in printed
    assert "1 codes of notes to evaluate on are none that the model knows: each counts as missed" in printed
    figures = trainer.evaluate()
    prediction = trainer.predict(gold)
    assert prediction.predictions.shape == prediction.label_ids.shape == (7, 3)
    hits = int(((prediction.predictions > 0) & (prediction.label_ids > 0)).sum())
    num_gold = sum(map(len, gold["codes"]))  # with the unknown one, and both of the note that cannot be read
    assert figures["eval_recall_micro"] == pytest.approx(hits / num_gold)
    assert figures["eval_num_notes"] == 8
    assert figures["eval_num_codes_seen"] == 5
    known = [[CODES.index(code) for code in codes if code in CODES] for codes in gold["codes"][:7]]
    assert [np.flatnonzero(row).tolist() for row in prediction.label_ids] == known


def test_batches_and_a_trainer_that_adds_up_as_it_goes_give_the_same_figures(trainer_of):
    gold = notes(9, 1, [("cough", ["999.9", "428.0"]), (" ", ["401.9"]), ("fever", ["E885.9", "999.9"])])
    figures = []
    for options in ({"per_device_eval_batch_size": 2}, {"batch_eval_metrics": True, "per_device_eval_batch_size": 4}):
        found = trainer_of(evaluated=gold, **options).evaluate()
        figures.append(
            {name: value for name, value in found.items() if "f1" in name or "recall" in name or "auc" in name}
        )
    assert figures[0] == pytest.approx(figures[1], abs=1e-6) and len(figures[0]) > 10


def test_several_sets_to_evaluate_on_have_figures_of_their_own(trainer_of):
    first, second = notes(6, 1, [("cough", ["999.9"])]), notes(6, 2)
    trainer = trainer_of(evaluated={"first": first, "second": second})
    both = trainer.evaluate()
    alone = [trainer.evaluate(of_one)["eval_f1_micro"] for of_one in (first, second)]
    assert [both["eval_first_f1_micro"], both["eval_second_f1_micro"]] == pytest.approx(alone)
    assert both["eval_first_num_codes_seen"] == 4


def test_in_training_they_are_left_out_with_one_warning(trainer_of, capsys):
    trainer = trainer_of(notes(10, 0, [("", ["401.9"]), ("fever", ["999.9", "401.9", "E885.9"])]))
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if line.startswith("warning")] == [
        "warning: 1 training notes have no text: they are left out.",
        "warning: 2 codes of training notes are none that the model knows: they are left out.",
    ]
    assert len(trainer.train_dataset) == 11
    trainer.train()


def test_metrics_of_ones_own_see_the_codes_that_the_model_knows(trainer_of):
    shapes = []

    def compute(prediction):
        shapes.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"mine": 1.0}

    gold = notes(6, 1, [("cough", ["999.9", "428.0"])])
    assert trainer_of(evaluated=gold, compute_metrics=compute).evaluate()["eval_mine"] == 1.0
    assert shapes == [((7, 3), (7, 3))]


def test_a_new_head_is_started_from_the_notes_once(model, trainer_of):
    before = model.score.queries.weight.clone()
    trainer = trainer_of(notes(40), max_steps=1, learning_rate=0.0)
    trainer.train()
    started = model.score.queries.weight.clone()
    assert not torch.equal(started, before)
    with torch.no_grad():
        model.score.queries.weight.add_(1.0)
    trainer.train()  # goes on from there
    torch.testing.assert_close(model.score.queries.weight, started + 1.0)


def test_a_head_that_was_started_or_loaded_is_left_alone(model, trainer_of, tokenizer):
    start_head(model, notes(30), tokenizer=tokenizer, show_progress=False)
    started = model.score.queries.weight.clone()
    trainer_of(notes(40), max_steps=1, learning_rate=0.0).train()
    assert torch.equal(model.score.queries.weight, started)
    with pytest.raises(ValueError, match="started before"):
        start_head(model, notes(30), tokenizer=tokenizer)


@pytest.mark.parametrize(("head_start", "has_prior"), [("random", False), ("prior", True)])
def test_another_start_can_be_asked_for(head_start, has_prior, model, trainer_of):
    bias = model.score.output.bias.clone()
    trainer_of(notes(40), max_steps=1, learning_rate=0.0, head_start=head_start).train()
    assert torch.equal(model.score.output.bias, bias) != has_prior


def test_a_frozen_backbone_reads_each_note_once_where_its_states_are_kept(backbone, trainer_of, model, tmp_path):
    read, seen = model.read_joined, []

    def count(tokens, lengths, *args):
        seen.append(len(lengths))
        return read(tokens, lengths, *args)

    model.read_joined = count
    folder = tmp_path / "states"
    gold = notes(9, 1, [("cough", ["999.9"]), ("", ["401.9"])])
    trainer = trainer_of(notes(20), gold, num_train_epochs=3, eval_strategy="epoch", hidden_states_dir=folder)
    trainer.train()
    trainer.fit_decision()
    assert sum(seen) == 30
    kept = trainer.evaluate(), trainer.predict(notes(5, 2)).predictions
    assert sum(seen) == 35
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    del model.read_joined
    plain = trainer_of(evaluated=gold)
    assert plain.evaluate()["eval_loss"] == pytest.approx(kept[0]["eval_loss"], abs=1e-3)
    np.testing.assert_allclose(plain.predict(notes(5, 2)).predictions, kept[1], atol=0.02)


def test_a_callback_sees_the_whole_model_where_states_are_kept(trainer_of, model, tmp_path):
    seen = {}

    class Saving(TrainerCallback):
        def see(self, args, state, control, model, **kwargs):
            seen[len(seen)] = list(model.state_dict())
            model.save_pretrained(tmp_path / "saved")

        on_train_begin = on_step_begin = on_pre_optimizer_step = on_step_end = on_epoch_end = on_train_end = see

    trainer = trainer_of(notes(20), max_steps=2, save_steps=1, hidden_states_dir=tmp_path / "states")
    trainer.add_callback(Saving())
    trainer.train()
    assert len(seen) == 9 and all(names == list(model.state_dict()) for names in seen.values())
    saved = LlamaForICDCoding.from_pretrained(tmp_path / "saved")
    for name, weight in model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], weight), name


def test_states_are_kept_of_raw_and_of_tokenized_notes(trainer_of, tokenizer, model, tmp_path):
    tokens = tokenize_split(notes(6, 3), tokenizer, model.config.label2id)
    mixed = trainer_of(tokens, notes(4, 4), max_steps=1, eval_strategy="epoch", hidden_states_dir=tmp_path / "a")
    mixed.train()
    assert mixed.evaluate(tokens)["eval_loss"] > 0
    alone = trainer_of(tokens, max_steps=1, hidden_states_dir=tmp_path / "b")
    alone.train()
    for name in ("a", "b"):
        assert list((tmp_path / name).rglob("*.states"))
    with pytest.raises(ValueError, match="leave `data_collator` out"):
        trainer_of(tokens, hidden_states_dir=tmp_path / "c", data_collator=ICDCollator(3))


@pytest.mark.parametrize(("format", "tolerance"), [("int8", 0.2), ("pca6", 0.02), ("pca6-int8", 0.2)])
def test_a_head_that_learned_from_smaller_states_codes_text_alike(format, tolerance, trainer_of, model, tmp_path):
    gold = notes(9, 1)
    options = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "learning_rate": 0.01,
    }
    options |= {"hidden_states_dir": tmp_path / "states", "hidden_states_format": format}
    trainer = trainer_of(notes(40), gold, num_train_epochs=3, **options)
    with pytest.raises(ValueError, match=f"{format} is fitted on training notes: give a `train_dataset`"):
        trainer_of(evaluated=gold, hidden_states_dir=tmp_path / "a", hidden_states_format=format).evaluate()
    trainer.train()
    learned = trainer.predict(gold).predictions  # by the states of the cache
    np.testing.assert_allclose(trainer_of(evaluated=gold).predict(gold).predictions, learned, atol=tolerance)
    checkpoints = sorted((tmp_path / "mine").glob("checkpoint-*"))
    assert len(checkpoints) == 3
    store, states = trainer.hidden_states, torch.randn(2, 5, 16)
    for folder in checkpoints:  # with their backbone, and no less fit for whole states
        saved = LlamaForICDCoding.from_pretrained(folder)
        weights = model.model.state_dict()
        assert all(torch.equal(weights[name], weight) for name, weight in saved.model.state_dict().items())
        before = saved(hidden_states=states).logits
        store.fold_into(saved.score)
        torch.testing.assert_close(saved(hidden_states=states).logits, before, atol=1e-4, rtol=1e-4)


def test_states_of_a_backbone_that_learns_are_not_kept(trainer_of, model, tmp_path):
    model.config.freeze_backbone = False
    with pytest.raises(ValueError, match="this one learns"):
        trainer_of(notes(5), hidden_states_dir=tmp_path / "states")


def test_lora_learns_from_notes_too(model, tokenizer, tmp_path):
    start_head(model, notes(30), tokenizer=tokenizer, show_progress=False)
    lora = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], modules_to_save=["score"])
    )
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, report_to=[])
    trainer = ICDTrainer(lora, args, None, notes(20), notes(9, 1), tokenizer)
    trainer.train()
    trainer.fit_decision()
    assert model.config.threshold_rule == "global" and data_access(model.config.training_data) == "restricted"
    assert trainer.evaluate()["eval_f1_micro_tuned"] > 0


TWO_PROCESSES = """
import json, os, sys
backbone, folder = sys.argv[1:]
from test_raw_notes import figures_of
figures = figures_of(backbone, folder)
assert int(os.environ["WORLD_SIZE"]) == 2
if os.environ["RANK"] == "0":
    json.dump(figures, open(folder + "/figures.json", "w"))
"""


def figures_of(backbone, folder):
    """What a training of one epoch over batches of four notes comes to, whatever the number of processes."""
    torch.manual_seed(0)
    model = LlamaForICDCoding.from_pretrained(backbone, id2label=dict(enumerate(CODES)), pooling="label_attention")
    size = 4 // int(os.environ.get("WORLD_SIZE", 1))
    args = TrainingArguments(
        folder,
        **{"num_train_epochs": 1, "per_device_train_batch_size": size, "per_device_eval_batch_size": size},
        **{"optim": "sgd", "learning_rate": 0.1, "use_cpu": True, "report_to": [], "disable_tqdm": True},
    )
    gold = notes(11, 1, [("cough", ["999.9", "428.0"]), (" ", ["401.9"]), ("fever", ["E885.9", "999.9"])])
    trainer = ICDTrainer(model, args, None, notes(16), gold, AutoTokenizer.from_pretrained(backbone))
    trainer.train()
    figures = trainer.evaluate()
    kept = {name: figures[f"eval_{name}"] for name in ("recall_micro", "auc_micro", "map", "num_notes")}
    return kept | {"threshold": trainer.fit_decision()["threshold"]}


def run_in_two_processes(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program in two processes that talk over gloo; it finds the tests of this folder, and the project."""
    (folder / "script.py").write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    run = subprocess.run(
        [*command, folder / "script.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run


@pytest.mark.slow
def test_two_processes_come_to_the_same_as_one(backbone, tmp_path):
    run = run_in_two_processes(TWO_PROCESSES, tmp_path, backbone, str(tmp_path))
    assert run.stderr.count("none that the model knows") == 1
    assert json.loads((tmp_path / "figures.json").read_text()) == pytest.approx(
        figures_of(backbone, str(tmp_path / "one")), abs=1e-4
    )


def test_a_decision_is_fitted_on_any_notes(model, trainer_of, tokenizer, capsys):
    train, validation = notes(60), notes(30, 1, [("cough", ["999.9", "428.0"]), ("", ["401.9"])])
    trainer = trainer_of(train, validation, learning_rate=1e-3)
    trainer.train()
    args = DecisionArguments(threshold_rule="per_code", calibration="platt", review_precision=0.9)
    decision = trainer.fit_decision(args=args)
    assert {name: getattr(model.config, name) for name in decision} == decision
    assert len(decision["threshold"]) == 3 and decision["calibration"]["method"] == "platt"
    again = fit_decision_on(model, tokenizer, validation, args)
    assert again["threshold"] == pytest.approx(decision["threshold"], abs=1e-6)
    assert "Validation: 1 of 32 notes is empty; the decision is fitted without them." in capsys.readouterr().out
    assert trainer.fit_decision(notes(25, 2))["threshold_rule"] == "global"
    for learned in (train, datasets.Dataset.from_dict(train.to_dict(), features=LISTS), trainer.train_dataset):
        capsys.readouterr()
        trainer.fit_decision(learned)
        assert "60 notes to fit a decision on are those that the model learned from" in capsys.readouterr().err
    trainer.fit_decision(notes(60, 3))
    assert "learned" not in capsys.readouterr().err


def test_a_promise_is_refused_where_a_note_cannot_be_read(trainer_of):
    trainer = trainer_of(evaluated=notes(30, 1, [("", ["401.9"])]))
    with pytest.raises(ValueError, match="1 of 31 validation notes are empty"):
        trainer.fit_decision(args=DecisionArguments(threshold_rule="conformal", target_recall=0.5))
    with pytest.raises(ValueError, match="needs one data set of notes"):
        trainer_of(notes(5)).fit_decision()


def test_the_model_counts_as_one_of_restricted_data(model, trainer_of, tmp_path):
    model.config.training_data = {"dataset": "mimic3", "config": "full", "synthetic": True}
    trainer = trainer_of(notes(20), seed=7)
    trainer.train()
    trainer.save_model()
    loaded = LlamaForICDCoding.from_pretrained(tmp_path / "mine")
    record = loaded.config.training_data
    assert data_access(record) == "restricted"
    assert record["earlier"]["dataset"] == "mimic3" and record["seed"] == 7
    assert record["code_counts"] == {code: sum(code in codes for codes in notes(20)["codes"]) for code in CODES}
    for pushed in (model, loaded, loaded.config):
        with pytest.raises(ValueError, match="does not go to a Hub this way"):
            pushed.push_to_hub("someone/mine")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: datasets.DatasetDict(train=notes(3)), r"give one, e.g. `notes\['train'\]`"),
        (lambda: notes(3).to_iterable_dataset(), "These notes are streamed"),
        (lambda: notes(3).rename_column("text", "note"), "no column 'text', only note, codes: rename"),
        (lambda: notes(3).remove_columns("codes"), "no column 'codes'"),
        (lambda: notes(3).map(lambda note: {"codes": [401.9]}, features=None), "never as numbers"),
        (lambda: datasets.Dataset.from_dict({"text": ["a"], "codes": [[3]]}), "never as numbers"),
        (
            lambda: datasets.Dataset.from_dict({"text": [5], "codes": [["401.9"]]}),
            "`text` of the notes must hold texts",
        ),
        (lambda: datasets.Dataset.from_dict({"text": ["fever"], "codes": [["4019"]]}), "written in the same way"),
        (lambda: datasets.Dataset.from_dict({"text": [" "], "codes": [["401.9"]]}), "No training note has text"),
    ],
)
def test_notes_that_cannot_be_learned_from_are_one_clear_error(made, message, trainer_of):
    with pytest.raises(ValueError, match=message):
        trainer_of(made())


def test_notes_without_codes_are_for_the_pipeline(trainer_of):
    with pytest.raises(ValueError, match="no `codes` to compare with"):
        trainer_of().predict(notes(3).remove_columns("codes"))


def test_the_codes_of_several_splits_are_not_counted_together():
    with pytest.raises(ValueError, match=r"give one, e.g. `notes\['train'\]`"):
        code_vocabulary(datasets.DatasetDict(train=notes(3)))


def test_raw_notes_need_a_tokenizer(model, tmp_path):
    with pytest.raises(ValueError, match="processing_class=AutoTokenizer"):
        ICDTrainer(model, TrainingArguments(str(tmp_path), use_cpu=True), train_dataset=notes(3))


def test_no_message_shows_a_note():
    odd = datasets.Dataset.from_dict({"text": ["a secret"], "codes": [{"secret": 1}]})
    with pytest.raises(ValueError) as error:
        code_reader(odd)
    assert "secret" not in str(error.value)
