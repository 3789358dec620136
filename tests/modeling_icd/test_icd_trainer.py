"""What the Trainer of this task optimises, and which notes it reads."""

import json
import shutil
import stat

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, EvalPrediction

from modeling_icd import LlamaForICDCoding
from modeling_icd.evaluation import make_compute_metrics
from modeling_icd.training import notes
from modeling_icd.training.arguments import ICDTrainingArguments
from modeling_icd.training.collator import ICDCollator
from modeling_icd.training.run import main
from modeling_icd.training.trainer import count_as_missed, make_trainer


@pytest.fixture
def model(backbone):
    return LlamaForICDCoding.from_pretrained(backbone, num_labels=3, pooling="label_attention", window_size=32)


def make_optimizer(model, tmp_path, **options):
    args = ICDTrainingArguments(str(tmp_path), use_cpu=True, learning_rate=1e-4, weight_decay=0.1, **options)
    return make_trainer(model, args, [{}], None, ICDCollator(3, pad_token_id=0), None).create_optimizer()


def describe(optimizer, model):
    """Settings of every trained parameter, by name."""
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {
        name: {key: value for key, value in settings[id(p)].items() if key != "params"}
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd"])
def test_a_head_learning_rate_changes_the_heads_rate_and_nothing_else(optim, model, tmp_path):
    options = {"optim": optim, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6}
    plain = make_optimizer(model, tmp_path, **options)
    split = make_optimizer(model, tmp_path, **options, head_learning_rate=1e-2)
    assert type(split) is type(plain) and split.defaults == plain.defaults
    expected = describe(plain, model)
    for name, settings in expected.items():
        if "score." in name:
            settings["lr"] = 1e-2
    assert describe(split, model) == expected
    decays = {name: settings["weight_decay"] for name, settings in expected.items()}
    assert {name for name, decay in decays.items() if not decay} == {
        name for name in decays if name.endswith(("norm.weight", "bias"))
    }
    assert split.param_groups[0]["lr"] == 1e-2  # the rate that is logged


@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_lora_trains_whatever_freeze_backbone_says(freeze_backbone, backbone):
    torch.manual_seed(0)
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=3, freeze_backbone=freeze_backbone)
    lora = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    ).train()
    ids = torch.tensor([[3, 4, 5, 6]])
    lora(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.ones(1, 3)).loss.backward()
    trained = {name: p.grad for name, p in lora.named_parameters() if p.requires_grad}
    assert any("lora_B" in name for name in trained) and any("score" in name for name in trained)
    assert all(grad is not None for grad in trained.values())
    assert all(grad.abs().sum() > 0 for name, grad in trained.items() if "lora_B" in name)
    assert lora.base_model.model.model.training  # so that `lora_dropout` is at work


def test_a_frozen_backbone_builds_no_graph(backbone):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=3, freeze_backbone=True).train()
    ids = torch.tensor([[3, 4, 5, 6]])
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    assert not output.hidden_states.requires_grad and output.logits.requires_grad
    assert not model.model.training


@pytest.fixture
def arguments(corpus, backbone, tmp_path):
    def make(**options):
        given = {"model": "direct", "pooling": "mean", "window_size": 32, "window_stride": 24, "dataset": "mimic3"}
        given |= {"num_train_epochs": 1, "max_train_notes": 16, "use_cpu": True, "tfidf_yardstick": False}
        given |= {"backbone": backbone, "data_dir": corpus, "output_dir": tmp_path / "model"}
        return [f"--{name}={value}" for name, value in (given | options).items()]

    return make


@pytest.fixture
def some_notes_empty(monkeypatch):
    """The first two training notes and the first validation note have no token."""
    tokenize = notes.tokenize_split

    def tokenize_split(split, *args):
        tokens = tokenize(split, *args)
        num_empty = 2 if len(tokens) == 16 else 1

        def cut(note, row):
            return {
                "input_ids": note["input_ids"] if row >= num_empty else [],
                "length": note["length"] * (row >= num_empty),
            }

        return tokens.map(cut, with_indices=True)

    monkeypatch.setattr(notes, "tokenize_split", tokenize_split)


@pytest.mark.parametrize("freeze_backbone", [True, False])
def test_notes_without_text_are_counted_and_missed_not_left_out(
    freeze_backbone, some_notes_empty, arguments, tmp_path, capsys
):
    assert main(arguments(freeze_backbone=freeze_backbone, refit_on_validation=True)) == 0
    printed = capsys.readouterr()
    assert "warning: 2 training notes have no text: they are left out." in printed.err
    assert "warning: 1 validation notes have no text: no code is predicted for them" in printed.err
    assert "14 notes to train on, 5 to validate on" in printed.out
    log = json.loads((tmp_path / "model" / "run.json").read_text())["log"]
    figures = next(row for row in log if "eval_f1_micro" in row)
    assert figures["eval_num_notes"] == 5


def test_codes_of_a_note_without_text_count_as_missed():
    compute = count_as_missed(make_compute_metrics(3, tune_threshold=True), [[0, 1]], 3)
    for _ in range(2):  # in every evaluation of a run
        prediction = EvalPrediction(predictions=np.array([[5.0, -5, -5]]), label_ids=np.array([[1, 0, 0]]))
        figures = compute(prediction, True)
        assert (figures["num_notes"], figures["recall_micro"]) == (2, pytest.approx(1 / 3))
        assert figures["f1_micro_tuned"] == pytest.approx(2 / 4)  # one hit of one prediction and three gold codes


def test_a_batch_with_an_empty_note_is_a_named_error():
    notes = [{"input_ids": [3], "label_ids": []}, {"input_ids": [], "label_ids": []}]
    with pytest.raises(ValueError, match="1 of the 2 notes of a batch have no token"):
        ICDCollator(3, pad_token_id=0)(notes)


@pytest.mark.parametrize("pad_token_id", [-1, None])
def test_a_backbone_without_a_padding_token_trains(pad_token_id, arguments, backbone, tmp_path):
    folder = shutil.copytree(backbone, tmp_path / "backbone")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": pad_token_id}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert main(arguments(backbone=folder, lora_r=2)) == 0
    assert AutoConfig.from_pretrained(tmp_path / "model").num_labels > 0


def test_what_holds_notes_is_its_owners_alone(arguments, tmp_path):
    assert main(arguments(freeze_backbone=True)) == 0
    private = tmp_path / "model-private"
    folders = [private, private / "cache", private / "hidden_states"]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    files = [path for path in private.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".arrow", ".states"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
