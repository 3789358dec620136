"""How a model is loaded to read notes: its type, attention and quantisation, in training and in evaluation."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from modeling_icd import LlamaForICDCoding
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.inference.batches import batches_by_length
from modeling_icd.inference.hidden_states import backbone_fingerprint
from modeling_icd.inference.loading import ReaderArguments, describe_reader, load_model
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.inference.tokens import tokenize_notes
from modeling_icd.publishing.fields import CONFIG, RUN, SILENTLY_DROPPED, check_fields
from modeling_icd.training.run import main as train


NOTES = ["fever and cough", "", "sepsis due to pneumonia", " \n", "no evidence of acute renal failure " * 30]


@pytest.fixture(scope="module")
def backbone(backbone, tmp_path_factory):
    """The same with layers of 32 and more features, since 4 bits are multiplied in blocks of 32."""
    folder = shutil.copytree(backbone, tmp_path_factory.mktemp("wide") / "backbone")
    config = LlamaConfig.from_pretrained(folder, hidden_size=64, intermediate_size=64, head_dim=32)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def coder(backbone, tmp_path):
    torch.manual_seed(1)
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=5, pooling="label_attention", window_size=32)
    model.save_pretrained(tmp_path / "coder")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{backbone}/{name}", tmp_path / "coder")
    return tmp_path / "coder"


def test_a_model_is_read_as_it_was_saved_unless_another_way_is_asked_for(coder):
    expected = logits_of_notes(*load_model(coder), NOTES)
    assert describe_reader(load_model(coder)[0]) == {
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "quantization": None,
    }
    for options, found in (
        ({"attn_implementation": "eager"}, ("float32", "eager", None)),
        ({"dtype": "bfloat16"}, ("bfloat16", "sdpa", None)),
        ({"load_in_4bit": True}, ("float32", "sdpa", "4bit")),
        ({"load_in_8bit": True}, ("float32", "sdpa", "8bit")),
    ):
        model, tokenizer = load_model(coder, reader=ReaderArguments(**options))
        assert tuple(describe_reader(model).values()) == found
        logits = torch.from_numpy(logits_of_notes(model, tokenizer, NOTES))
        is_same = options.get("attn_implementation") == "eager"
        tolerance = {"atol": 1e-4, "rtol": 1e-4} if is_same else {"atol": 1.0, "rtol": 0.2}
        torch.testing.assert_close(logits, torch.from_numpy(expected), **tolerance)
        assert not logits[1].any() and not logits[3].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "`dtype` must be one of auto, float32"),
        ({"attn_implementation": "magic"}, "`attn_implementation` must be one of eager"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
    ],
)
def test_a_wrong_option_is_one_message(options, message, coder, corpus, capsys):
    with pytest.raises(ValueError, match=message):
        ReaderArguments(**options)
    given = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    assert evaluate([str(coder), "--dataset=mimic3", f"--data_dir={corpus}", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_quantised_backbone_is_not_trained_whole(backbone, corpus, tmp_path, capsys):
    given = ["--model=direct", f"--backbone={backbone}", "--dataset=mimic3", f"--data_dir={corpus}"]
    assert train([*given, f"--output_dir={tmp_path}", "--load_in_8bit"]) == 2
    assert "cannot be trained whole: give `lora_r`, or `freeze_backbone`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"load_in_4bit": True, "lora_r": 2, "save_adapter": True},
        {"load_in_4bit": True, "freeze_backbone": True},
        {"dtype": "bfloat16", "attn_implementation": "eager", "freeze_backbone": True},
    ],
    ids=["qlora", "frozen in 4 bits", "bfloat16"],
)
def test_training_reads_as_it_is_told_and_evaluation_says_so(options, backbone, corpus, tmp_path):
    model = tmp_path / "model"
    given = {"model": "direct", "pooling": "mean", "window_size": 32, "dataset": "mimic3", "data_dir": corpus}
    given |= {"backbone": backbone, "num_train_epochs": 1, "max_train_notes": 8, "use_cpu": True, "output_dir": model}
    assert train([f"--{name}={value}" for name, value in (given | options).items()]) == 0
    reader = {
        "dtype": options.get("dtype", "float32"),
        "attn_implementation": options.get("attn_implementation", "sdpa"),
        "quantization": "4bit" if "load_in_4bit" in options else None,
    }
    run = json.loads((model / "run.json").read_text())
    assert run["reader"] == reader and run["model"].items() >= {"dtype": options.get("dtype")}.items()
    for name, kinds in (("run.json", RUN), ("config.json", CONFIG)):  # such a model can be published
        content = json.loads((model / name).read_text())
        check_fields(name, content, kinds, "")
        assert content.keys() - kinds.keys() <= SILENTLY_DROPPED
    assert AutoModelForSequenceClassification.from_pretrained(model).dtype == getattr(torch, reader["dtype"])
    asked = ["--attn_implementation=eager"] if "attn_implementation" in options else []
    data = ["--dataset=mimic3", f"--data_dir={corpus}", f"--cache_dir={model}-private/cache"]
    assert evaluate([str(model), *data, *asked]) == 0
    assert json.loads((model / "evaluation" / "test" / "results.json").read_text())["reader"] == reader


def test_hidden_states_of_another_type_attention_or_quantisation_are_others(coder):
    ways = [{}, {"attn_implementation": "eager"}, {"dtype": "bfloat16"}, {"load_in_4bit": True}]
    ways += [{"load_in_8bit": True}, {"load_in_4bit": True, "dtype": "bfloat16"}]
    prints = [backbone_fingerprint(load_model(coder, reader=ReaderArguments(**way))[0]) for way in ways]
    assert len(set(prints)) == len(ways)
    assert prints[0] == backbone_fingerprint(load_model(coder)[0])


def test_batches_hold_at_most_so_many_notes_and_tokens():
    assert batches_by_length([5, 0, 3, 4, 9], max_notes=2) == [[2, 3], [0, 4]]
    assert batches_by_length([5, 0, 3, 4, 9], max_tokens=8) == [[2, 3], [0], [4]]  # 2 * 4 tokens; 9 are alone
    assert batches_by_length([0, 0], 8) == []


def test_empty_notes_have_no_token_even_where_every_note_gets_one_to_begin_with(coder):
    _, tokenizer = load_model(coder)
    ids = tokenize_notes(tokenizer, NOTES)
    assert [len(of_note) for of_note in ids] == [3, 0, 4, 0, 180]

    def with_start(notes, **_):
        return {"input_ids": [[1, *of_note] for of_note in tokenizer(notes)["input_ids"]]}

    assert [len(of_note) for of_note in tokenize_notes(with_start, NOTES)] == [4, 0, 5, 0, 181]
