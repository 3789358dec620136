"""Continued pretraining: what is learned and saved, that it stays at home, and the mistakes."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Trainer,
)

from modeling_icd.extras.pretrain import main, read_rows
from modeling_icd.inference.learned_notes import FILE, warn_of_learned
from modeling_icd.sharing_icd import data_access
from modeling_icd.training.run import main as train


NOTE = "Fever and cough for three days. The chest film shows no pneumonia."


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0, eos_token_id=byte_tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    path.write_text("".join(json.dumps({"text": f"{NOTE} Visit {i}."}) + "\n" for i in range(80)))
    return path


def pretrain(*arguments):
    return main([str(argument) for argument in arguments])


FAST = ("--length", "32", "--max_steps", "30", "--learning_rate", "1e-2")


def test_notes_become_likelier_and_the_folder_stays_at_home(backbone, notes, tmp_path, capsys):
    assert pretrain(backbone, tmp_path / "domain", "--notes", notes, *FAST) == 0
    assert "of held-out notes" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "domain")
    inputs = tokenizer(NOTE, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        before, after = (
            AutoModelForCausalLM.from_pretrained(folder)(inputs, labels=inputs).loss
            for folder in (backbone, tmp_path / "domain")
        )
    assert after < before - 0.5
    config = json.loads((tmp_path / "domain" / "config.json").read_text())
    assert data_access(config["training_data"]) == "restricted"
    assert (tmp_path / "domain").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "domain-private").iterdir()] == [FILE]  # which notes were learned from
    assert (tmp_path / "domain-private" / FILE).stat().st_mode & 0o077 == 0
    assert "Fever" not in (tmp_path / "domain-private" / FILE).read_text()


def test_a_coder_made_from_it_counts_as_restricted_though_its_own_notes_are_open(backbone, notes, tmp_path, capsys):
    assert pretrain(backbone, tmp_path / "domain", "--notes", notes, *FAST) == 0
    for name, first in (("train", 0), ("validation", 20)):
        rows = [{"text": f"{NOTE} {i}", "codes": ["486" if i % 2 else "786.2"]} for i in range(first, first + 20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(
        ["files_direct", "--backbone", str(tmp_path / "domain"), "--train_file", str(tmp_path / "train.jsonl"),
         "--validation_file", str(tmp_path / "validation.jsonl"), "--output_dir", str(tmp_path / "coder"), "--num_train_epochs", "1",
         "--hidden_layer", "1", "--window_size", "64", "--window_stride", "64", "--data_license", "CC0-1.0"]
    ) == 0  # fmt: skip
    config = json.loads((tmp_path / "coder" / "config.json").read_text())
    assert config["training_data"]["open"] and data_access(config["training_data"]) == "restricted"
    printed = capsys.readouterr().out
    assert "it will count as one of restricted data" in printed and "and so the model" not in printed
    seen, held_out, new = (f"{NOTE} Visit {i}." for i in (3, 19, 80))
    assert warn_of_learned(tmp_path / "coder", [seen, held_out, new, f"{NOTE} 5"]) == 2  # read before; coded by it


def test_lora_of_upper_layers_leaves_the_lower_ones(backbone, notes, tmp_path):
    assert pretrain(backbone, tmp_path / "lora", "--notes", notes, *FAST, "--lora_r", "4", "--layers_from", "1") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (backbone, tmp_path / "lora"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.layers.1.") for name in changed)


def test_every_twentieth_note_is_held_out_and_every_token_is_read(notes, byte_tokenizer):
    learned, held_out = read_rows([str(notes)], None, byte_tokenizer, 8)
    texts = [json.loads(line)["text"] for line in notes.read_text().splitlines()]
    tokens = [
        byte_tokenizer(text)["input_ids"] + [byte_tokenizer.eos_token_id]
        for i, text in enumerate(texts)
        if i % 20 != 19
    ]
    flat = [token for of_note in tokens for token in of_note]
    assert [int(token) for row in learned for token in row["input_ids"]] == flat[: len(flat) // 8 * 8]
    assert len(held_out) == sum(len(text) + 1 for text in texts[19::20]) // 8


def test_empty_notes_are_left_out(notes, byte_tokenizer, tmp_path):
    lines = notes.read_text().splitlines()
    (tmp_path / "more.jsonl").write_text("\n".join([json.dumps({"text": ""}), *lines, json.dumps({"text": " "})]))
    assert read_rows([str(tmp_path / "more.jsonl")], None, byte_tokenizer, 8)[0].rows.tolist() == (
        read_rows([str(notes)], None, byte_tokenizer, 8)[0].rows.tolist()
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LlamaModel, "1 parameter is not in its weights, and would be random: lm_head.weight"),
        (BertLMHeadModel, "it is an encoder, whose tokens see those that come next"),
        (LlamaForCausalLM, "has no token that ends a text"),
    ],
)
def test_what_is_no_language_model_is_refused(notes, byte_tokenizer, tmp_path, capsys, kind, message):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    kind(kind.config_class(vocab_size=len(byte_tokenizer), initializer_range=0.3, **sizes)).save_pretrained(
        tmp_path / "model"
    )
    tokenizer = copy.deepcopy(byte_tokenizer)
    if kind is LlamaForCausalLM:
        tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    assert pretrain(tmp_path / "model", tmp_path / "out", "--notes", notes, *FAST) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_coder_is_refused(backbone, notes, tmp_path, capsys):
    folder = shutil.copytree(backbone, tmp_path / "coder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "generative": {"mode": "list"}}))
    assert pretrain(folder, tmp_path / "out", "--notes", notes, *FAST) == 2
    assert "codes notes already" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_with_its_own_options_and_checkpoints(
    backbone, notes, tmp_path, capsys, monkeypatch
):
    given = (backbone, tmp_path / "out", "--notes", notes, *FAST)
    kept = tmp_path / "out-private"
    stale = kept / "checkpoints" / "checkpoint-900"  # of an earlier run, which was interrupted
    stale.mkdir(parents=True)
    (stale / "trainer_state.json").write_text(json.dumps({"global_step": 900}))
    (kept / "other.txt").write_text("of another run")
    evaluate = Trainer.evaluate

    def interrupt(trainer, *args, **options):
        if trainer.state.global_step:
            raise KeyboardInterrupt
        return evaluate(trainer, *args, **options)

    monkeypatch.setattr(Trainer, "evaluate", interrupt)
    assert pretrain(*given) == 130
    assert not stale.exists() and (kept / "checkpoints" / "checkpoint-30").is_dir()
    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    assert pretrain(*given, "--resume", "--length", "16") == 2
    assert "was begun with other options (length)" in capsys.readouterr().err
    assert pretrain(*given, "--resume") == 0
    assert (tmp_path / "out").is_dir()
    assert {path.name for path in kept.iterdir()} == {"other.txt", FILE}  # what is not of this run is left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers_from", "1"], "give --lora_r"),
        (["--lora_r", "2", "--layers_from", "-1"], "--layers_from must be at least 0"),
        (["--max_steps", "0"], "--max_steps must be at least 1"),
        (["--epochs", "0"], "--epochs must be above 0"),
        (["--learning_rate", "nan"], "--learning_rate must be above 0"),
        (["--lora_r", "2", "--layers_from", "2"], "leaves none of the 2 layers"),
        (["--resume"], "no checkpoint to go on from"),
        (["--length", "100000"], "notes are too few"),
        (["--length", "0"], "--length must be at least 1"),
        (["--text_column", "note"], "note"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(backbone, notes, tmp_path, capsys, options, message):
    assert pretrain(backbone, tmp_path / "out", "--notes", notes, *FAST, *options) != 0
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_rate_that_ruins_the_model_writes_nothing(backbone, notes, tmp_path, capsys):
    assert (
        pretrain(
            backbone, tmp_path / "out", "--notes", notes, "--length", "32", "--max_steps", "3", "--learning_rate", "50"
        )
        != 0
    )
    assert "has not fallen" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-private").exists()
