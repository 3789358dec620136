"""What loading refuses, and loading in other forms: quantised, and offloaded to disk."""

import json
import shutil
from types import SimpleNamespace

import bitsandbytes
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from test_models import MODELS, make, notes
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
    LlamaModel,
    pipeline,
)

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.inference import on_hub
from modeling_icd.inference.loading import load_config


HEADS = ["last", "label_attention", "ensemble"]
QUANTISED = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)


def changed(folder, target, fields=None, drop_weights=(), add_weights=None):
    """A copy of a model's folder with other fields in its configuration, or other weights."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | (fields or {})
    (target / "config.json").write_text(json.dumps(config))
    weights = load_file(target / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(tuple(drop_weights) or "-")}
    save_file({**kept, **(add_weights or {})}, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"fields": {"num_hidden_layers": 3}}, r"lack 9 weights .* layer 2\). .* describes 3 layers"),
        ({"fields": {"num_hidden_layers": 1}}, r"hold, beyond the model's own, 9 weights .* layer 1\)"),
        ({"drop_weights": ["model.layers.1."]}, r"lack 9 weights .* layer 1\)"),
        ({"drop_weights": ["model.embed_tokens."]}, r"lack 1 weight of the backbone, e.g. model.embed_tokens.weight"),
        (
            {"add_weights": {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}},
            r"hold, .* 1 weight .* layer 0\)",
        ),
    ],
)
def test_a_backbone_that_is_not_the_one_described_is_refused(difference, message, backbone, tmp_path):
    folder = changed(backbone, tmp_path / "changed", **difference)
    with pytest.raises(ValueError, match=message):
        LlamaForICDCoding.from_pretrained(folder, num_labels=5)


def test_a_backbone_of_another_width_stays_refused_where_mismatches_are_ignored(backbone, tmp_path):
    folder = changed(backbone, tmp_path / "changed", {"intermediate_size": 48})
    with pytest.raises(ValueError, match="have in another shape 6 weights of the backbone"):
        LlamaForICDCoding.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)


def test_layers_above_the_one_that_is_read_may_be_there_or_not(backbone, tmp_path):
    ids, mask = notes(7)
    model = make("last", backbone, hidden_layer=1)
    model.save_pretrained(tmp_path / "without")
    LlamaModel.from_pretrained(backbone).save_pretrained(tmp_path / "bare")
    for folder in (tmp_path / "without", tmp_path / "bare"):
        torch.manual_seed(1)
        again = LlamaForICDCoding.from_pretrained(folder, num_labels=5, hidden_layer=1).eval()
        torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits)


@pytest.mark.parametrize("road", ["our class", "Auto class", "icd-coding", "a configuration"])
@pytest.mark.parametrize(
    ("name", "difference", "message"),
    [
        ("label_attention", {"drop_weights": ["score."]}, r"lack 5 weights of the head: score.output.bias, "),
        (
            "label_attention",
            {"drop_weights": ["score.output.w"]},
            r"lack 1 weight of the head: score.output.weight\.",
        ),
        ("last", {"fields": {"pooling": "label_attention"}}, r"lack 5 weights of the head"),
        ("ensemble", {"fields": {"head_ensemble_size": 1}}, r"lack \d+ weights of the head: score.channels"),
        (
            "ensemble3",
            {"fields": {"head_ensemble_size": 2}},
            r"hold, beyond .* \d+ weights of the head: score.members.2.",
        ),
    ],
)
def test_a_saved_model_whose_head_is_not_the_one_described_is_refused(
    name, difference, message, road, backbone, tmp_path
):
    own = {"head_ensemble_size": 3} if name == "ensemble3" else {}
    model = make(name.rstrip("3"), backbone, **own)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    folder = changed(tmp_path / "model", tmp_path / "changed", **difference)
    load = {
        "our class": type(model).from_pretrained,
        "Auto class": AutoModelForSequenceClassification.from_pretrained,
        "icd-coding": lambda folder: pipeline("icd-coding", str(folder), trust_remote_code=True),
        "a configuration": lambda folder: type(model).from_pretrained(
            folder, config=type(model.config).from_pretrained(folder)
        ),
    }[road]
    with pytest.raises(ValueError, match=rf"The weights in .*changed {message}"):
        load(folder)
    if road == "our class":  # a new head, where it is asked for
        assert type(model).from_pretrained(folder, ignore_mismatched_sizes=True).config.num_labels == 5


@pytest.mark.parametrize("name", ["last", "ensemble"])
def test_a_backbone_that_was_saved_by_itself_gets_a_new_head(name, backbone, tmp_path):
    model = make(name, backbone)
    model.model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_loading_info_is_given_where_it_is_asked_for(backbone):
    model, info = LlamaForICDCoding.from_pretrained(backbone, num_labels=5, output_loading_info=True)
    assert (type(model), info["missing_keys"]) == (LlamaForICDCoding, {"score.weight"})


def test_new_labels_reset_the_decision_and_say_so(backbone, tmp_path, caplog):
    model = make("last", backbone)
    model.config.update({"threshold": [0.1] * 5, "threshold_rule": "per_code"})
    model.save_pretrained(tmp_path)
    same = LlamaForICDCoding.from_pretrained(tmp_path, num_labels=5)
    assert same.config.threshold == [0.1] * 5
    assert "were chosen for those" not in caplog.text
    for labels in ({"num_labels": 3}, {"id2label": {0: "486", 1: "401.9", 2: "038.9"}}):
        caplog.clear()
        new = LlamaForICDCoding.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **labels)
        assert "threshold, threshold_rule were chosen for those" in caplog.text
        assert (new.config.threshold, new.config.threshold_rule) == (0.5, "fixed")
        assert new.score.weight.shape == (3, 16)
        assert new.config.label2id == {code: i for i, code in new.config.id2label.items()}


def test_a_problem_type_of_another_task_is_refused_on_loading_and_later(backbone, tmp_path):
    make("last", backbone).save_pretrained(tmp_path)
    for load in (AutoModelForSequenceClassification, LlamaForICDCoding):
        with pytest.raises(ValueError, match="`problem_type` must be 'multi_label_classification'"):
            load.from_pretrained(tmp_path, problem_type="single_label_classification")
    config = LlamaICDConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`problem_type`"):
        config.problem_type = "regression"
    config.threshold = [0.5]  # what is set later is checked when a model is made of it, or it is saved
    for use in (LlamaForICDCoding, lambda config: config.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match="`threshold` holds 1 values for 5 codes"):
            use(config)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_backbone_whose_pad_token_is_below_zero_has_none(freeze, backbone, tmp_path):
    folder = changed(backbone, tmp_path / "changed", {"pad_token_id": -1})
    model = LlamaForICDCoding.from_pretrained(folder, num_labels=5, freeze_backbone=freeze)
    assert model.config.pad_token_id is None
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))
    ids, mask = notes(9, 4)
    model(ids, mask, labels=torch.ones(2, 5)).loss.backward()


def test_a_pad_token_beyond_the_vocabulary_is_named(backbone, tmp_path):
    folder = changed(backbone, tmp_path / "changed", {"pad_token_id": 40})
    with pytest.raises(ValueError, match=r"`pad_token_id` .40. lies outside the vocabulary of 40 tokens"):
        LlamaForICDCoding.from_pretrained(folder, num_labels=5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", HEADS)
def test_quantising_leaves_the_head_alone_and_qlora_trains(name, bits, backbone, tmp_path):
    settings = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32} if bits == 4 else {"load_in_8bit": True}
    skipped = ["down_proj"]  # what a user leaves out stays left out
    quantization = BitsAndBytesConfig(llm_int8_skip_modules=skipped if name == "last" else None, **settings)
    model = make(name, backbone, window_size=8, quantization_config=quantization)
    found = {key for key, module in model.named_modules() if isinstance(module, QUANTISED)}
    assert len(found) == (12 if name == "last" else 14)  # of seven projections in each of two layers
    assert all(key.startswith("model.layers.") for key in found)
    ids, mask = notes(20, 5)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        model.save_pretrained(folder)
        again = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        assert {key for key, module in again.named_modules() if isinstance(module, QUANTISED)} == found
        torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-5, rtol=1e-4)
        model = again
    tuned = get_peft_model(prepare_model_for_kbit_training(model), LoraConfig(task_type="SEQ_CLS")).train()
    tuned(ids, mask, labels=torch.ones(2, 5)).loss.backward()
    trained = {key: weight.grad for key, weight in tuned.named_parameters() if weight.requires_grad}
    assert all(gradient is not None for gradient in trained.values())
    assert {"lora" in key for key in trained} == {"score." in key for key in trained} == {True, False}


def test_a_backbone_that_is_quantised_already_is_taken_as_it_is(backbone, tmp_path):
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    LlamaForCausalLM.from_pretrained(backbone, quantization_config=quantization).save_pretrained(tmp_path)
    torch.manual_seed(1)
    model = LlamaForICDCoding.from_pretrained(tmp_path, num_labels=5).eval()
    torch.testing.assert_close(
        model(*notes(9)).logits, make("last", backbone, quantization_config=quantization)(*notes(9)).logits
    )


@pytest.mark.parametrize("name", HEADS)
def test_an_offloaded_model_gives_the_same_logits(name, backbone, tmp_path):
    model = make(name, backbone, window_size=8)
    model.save_pretrained(tmp_path / "model")
    ids, mask = notes(20, 5)
    head = model.score.members[0] if name == "ensemble" else model.score
    prefix = "score.members.0" if name == "ensemble" else "score"
    parts = {f"{prefix}.{part}": ("disk", "cpu")[i % 2] for i, (part, _) in enumerate(head.named_children())}
    maps = [
        {"device_map": {"model": "cpu", "score": "disk"}},
        {"device_map": {"": "disk"}},
        {"device_map": "auto", "max_memory": {"cpu": 12000}},
    ]
    if name != "last":
        rest = {"score.members.1": "disk"} if name == "ensemble" else {}
        maps.append({"device_map": {"model": "cpu", **parts, **rest}})
    for number, device_map in enumerate(maps):
        loaded = (
            MODELS[name][0]
            .from_pretrained(tmp_path / "model", offload_folder=tmp_path / f"offload{number}", **device_map)
            .eval()
        )
        assert "disk" in loaded.hf_device_map.values()
        for asked in (False, True):
            given = loaded(ids, mask, output_label_attentions=asked).logits
            expected = model(ids, mask, output_label_attentions=asked).logits
            torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-5)


# ---- models of the Hub


class Hub:
    """The Hub, as its library answers for it."""

    def __init__(self, error: Exception | None):
        self.error, self.asked = error, 0

    def __call__(self, **_):
        return self

    def model_info(self, model_id, timeout):
        self.asked += 1
        if self.error:
            raise self.error


def answer(status: int, kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    return kind("x", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HTTPError("no such name"), "the Hub cannot be reached to look for a model of that name"),
        (TimeoutError(), "the Hub cannot be reached"),
        (answer(404, RepositoryNotFoundError), "the Hub has no such model for you: is the name right?"),
    ],
)
def test_the_hub_is_asked_once_for_a_model(monkeypatch, error, message):
    monkeypatch.setattr(on_hub, "HfApi", hub := Hub(error))
    monkeypatch.setattr(on_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("the library would try again"))
    with pytest.raises(FileNotFoundError, match=f"someone/coder is not a folder, and {message}"):
        load_config("someone/coder")
    assert hub.asked == 1


@pytest.mark.parametrize("error", [None, answer(500, HfHubHTTPError), answer(403, GatedRepoError)])
def test_what_the_hub_may_have_is_loaded(monkeypatch, error):
    monkeypatch.setattr(on_hub, "HfApi", hub := Hub(error))
    monkeypatch.setattr(on_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: "config")
    assert load_config("someone/coder") == "config" and hub.asked == 1
    monkeypatch.setattr(on_hub, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    assert load_config("someone/coder") == "config" and hub.asked == 1
