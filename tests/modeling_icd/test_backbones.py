"""Backbones that are not a Llama: read as `AutoModel` reads them, in windows, and trained as a Llama is."""

import re

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from test_models import CLEAN_PROCESS, NOTE, notes, run_clean
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from modeling_icd import ICDConfig, LlamaForICDCoding, LlamaMultiResCNNForICD, ModelForICDCoding
from modeling_icd.training.arguments import ModelArguments
from modeling_icd.training.models import add_lora, build_model, configuration_fields


TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 34,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GROUPED = {**TINY, "num_key_value_heads": 1, "head_dim": 8}
DECODERS = {"llama": GROUPED, "qwen3": GROUPED, "mistral": GROUPED, "gemma": GROUPED}
# XLM-RoBERTa's positions begin behind its padding token, whose id is 1; of its 34 it reads 32 tokens.
ENCODERS = {"bert": TINY, "xlm-roberta": {**TINY, "pad_token_id": 1}}
KINDS = [*DECODERS, *ENCODERS]
SMALL_CNN = {
    "head": "multirescnn",
    "head_options": {"filter_sizes": [3, 5], "num_filter_maps": 4, "reduction_size": 8},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint of each kind, with the head of its pretraining."""
    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    for kind, fields in {**DECODERS, **ENCODERS}.items():
        auto = AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM
        auto.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(root / kind)
    return root


def make(folder, **fields):
    torch.manual_seed(1)
    return ModelForICDCoding.from_pretrained(folder, num_labels=5, **fields).eval()


def some_notes(*lengths):
    ids, mask = notes(*lengths)
    return ids.clamp(min=2), mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden_layer", [None, 0, 1, 2])
def test_states_are_those_of_auto_model(kind, hidden_layer, folders):
    ids, mask = some_notes(9, 4)
    model = make(folders / kind, hidden_layer=hidden_layer)
    theirs = AutoModel.from_pretrained(folders / kind).eval()(ids, mask, output_hidden_states=True).hidden_states
    expected = theirs[-1 if hidden_layer is None else hidden_layer][mask == 1]
    torch.testing.assert_close(model.read_hidden_states(ids, mask)[mask == 1], expected, atol=1e-5, rtol=0)
    embeddings = model.get_input_embeddings()(ids)  # of a Gemma, scaled already
    states = model.read_hidden_states(attention_mask=mask, inputs_embeds=embeddings)
    torch.testing.assert_close(states[mask == 1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_three_windows_equal_a_stitching_by_hand(kind, folders):
    model, theirs = make(folders / kind, window_size=8, window_stride=6), AutoModel.from_pretrained(folders / kind)
    ids, mask = some_notes(19)
    states = [theirs.eval()(ids[:, start : start + 8]).last_hidden_state for start in (0, 6, 12)]
    by_hand = torch.cat([states[0], states[1][:, 2:], states[2][:, 2:]], dim=1)
    torch.testing.assert_close(model.read_hidden_states(ids, mask), by_hand, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fields", [{"head": "last"}, {**SMALL_CNN, "hidden_layer": 1, "normalize_hidden_states": True}]
)
def test_padding_on_either_side_changes_no_logit(kind, fields, folders):
    model = make(folders / kind, window_size=8, **fields)
    for lengths in ((20, 3, 11), (7, 3, 5)):
        ids, mask = some_notes(*lengths)
        logits = model(ids, mask).logits
        for row, length in enumerate(lengths):
            alone = model(ids[row : row + 1, :length]).logits
            torch.testing.assert_close(logits[row : row + 1], alone, atol=1e-4, rtol=1e-4)
            ids[row], mask[row] = ids[row].roll(lengths[0] - length), mask[row].roll(lengths[0] - length)
        torch.testing.assert_close(model(ids, mask).logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_trains_everything_that_is_read_and_saving_is_exact(kind, folders, tmp_path):
    model = make(folders / kind, window_size=8, **SMALL_CNN).train()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids, mask = some_notes(20, 5)
    model(ids, mask, labels=torch.ones(2, 5)).loss.backward()
    optimizer.step()
    same = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert not same
    model.eval().save_pretrained(tmp_path)
    for auto in (AutoModel, AutoModelForSequenceClassification):
        again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is ModelForICDCoding
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert torch.equal(again.eval()(ids, mask).logits, model(ids, mask).logits)
    stored = again.config.to_dict()["backbone_config"]
    assert stored["model_type"] == kind
    assert not {"id2label", "architectures", "_name_or_path"} & set(stored)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_in_a_frozen_backbone_learns_and_the_backbone_does_not(kind, folders):
    model = make(folders / kind, freeze_backbone=True)
    assert not any(weight.requires_grad for weight in model.model.parameters())
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS")).train()  # peft knows the layers of the backbone
    model(*some_notes(9), labels=torch.ones(1, 5)).loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    assert {"lora" in name for name in gradients} == {"score." in name for name in gradients} == {True, False}


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_a_quantised_backbone_under_a_plain_head(kind, folders, tmp_path):
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = make(folders / kind, window_size=8, quantization_config=quantization, head="label_attention")
    found = {name for name, part in model.named_modules() if isinstance(part, bitsandbytes.nn.Linear4bit)}
    assert found and all(name.startswith("model.") for name in found)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    ids, mask = some_notes(20, 5)
    torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-5, rtol=1e-4)
    tuned = get_peft_model(prepare_model_for_kbit_training(again), LoraConfig(task_type="SEQ_CLS")).train()
    tuned(ids, mask, labels=torch.ones(2, 5)).loss.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_and_eager_attention_are_the_backbones_too(kind, folders):
    model = make(folders / kind, window_size=8, dtype=torch.bfloat16, attn_implementation="eager")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.config._attn_implementation == "eager"
    ids, mask = some_notes(20, 5)
    expected = make(folders / kind, window_size=8)(ids, mask).logits
    torch.testing.assert_close(model(ids, mask).logits.float(), expected, atol=0.25, rtol=0.1)


def test_a_note_longer_than_an_encoder_reads_needs_windows(folders):
    for kind, limit in (("bert", 34), ("xlm-roberta", 32)):
        make(folders / kind)(*some_notes(limit))
        with pytest.raises(ValueError, match=f"{limit + 1} tokens is longer than the backbone reads .{limit}."):
            make(folders / kind)(*some_notes(limit + 1))
        with pytest.raises(ValueError, match=f"`window_size` .{limit + 1}. is longer than the backbone reads"):
            make(folders / kind, window_size=limit + 1)


def test_a_preset_and_the_general_class_are_the_same_model(folders, tmp_path):
    ids, mask = some_notes(20, 5)
    torch.manual_seed(1)
    preset = LlamaMultiResCNNForICD.from_pretrained(
        folders / "llama",
        num_labels=5,
        window_size=8,
        threshold=0.3,
        training_data={"dataset": "mimic3"},
        **SMALL_CNN["head_options"],
    ).eval()
    general = make(folders / "llama", window_size=8, **SMALL_CNN)
    assert torch.equal(general(ids, mask).logits, preset(ids, mask).logits)
    preset.save_pretrained(tmp_path)
    taken = ModelForICDCoding.from_pretrained(
        tmp_path, num_labels=5
    ).eval()  # of one of ours: its head, and its reading
    assert (taken.config.head, taken.config.window_size, taken.config.threshold) == ("multirescnn", 8, 0.5)
    assert taken.config.training_data == {"dataset": "mimic3"}  # which says who may have it
    assert torch.equal(taken(ids, mask).logits, preset(ids, mask).logits)
    taken.save_pretrained(tmp_path / "again")
    further = ICDConfig.from_backbone(AutoConfig.from_pretrained(tmp_path / "again"), num_labels=3, head="mean")
    assert (further.head, further.head_options, further.head_dropout, further.window_size) == (
        "mean",
        {"score_bias": False},
        0.0,
        8,
    )
    assert further.backbone_config.model_type == "llama"


@pytest.mark.parametrize("kind", ["mistral", "bert"])
def test_a_run_takes_any_backbone_with_any_head(kind, folders, tmp_path):
    options = {"head_options": ["filter_sizes=3,5", "num_filter_maps=4"], "reduction_size": 8, "window_size": 8}
    args = ModelArguments("generic", str(folders / kind), head="multirescnn", lora_r=2, lora_layers_from=1, **options)
    model = add_lora(build_model(args, args.backbone, ["486", "401.9"], {}, None), args)
    rest = {"architecture": "subword", "norm": "layer", "reduced_path": True, "projection_size": 256, "num_queries": 1}
    assert model.config.head_options == {**SMALL_CNN["head_options"], "num_residual_layers": 1, **rest}
    assert model.config.id2label == {0: "486", 1: "401.9"}
    model(*some_notes(20), labels=torch.ones(1, 2)).loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    layers = {re.search(r"layers?\.(\d+)", name)[1] for name in trained if "lora" in name}
    assert layers == {"1"} and any("score" in name for name in trained)
    for wrong, message in (
        ({"model": "direct", "head": "mean"}, "`head` .'mean'. is not for `model` 'direct'"),
        ({"model": "generic"}, "needs a `head`"),
        ({"model": "gpt"}, "`model` must be 'direct' or 'multirescnn' or 'generic' or .*, got 'gpt'"),
        ({"model": "direct", "head_options": ["a=1"]}, "`head_options` are not for `model` 'direct'"),
        ({"model": "generic", "head": "mean", "head_options": ["a"]}, "must be NAME=VALUE, got 'a'"),
        ({"model": "generic", "head": "mean", "head_options": ["a=1"]}, "The head 'mean' has no option `a`: it takes"),
        ({"model": "caml", "filter_sizes": [3]}, "The head 'caml' has no option `filter_sizes`"),
        ({"model": "caml", "head_options": ["filter_size=0"]}, "`filter_size` must be a whole number of at least 1"),
        (
            {"model": "caml", "head": "laat"},
            "`head` of `model` 'caml' must be one of caml, got 'laat': `generic` takes any",
        ),
        ({"model": "generic", "head": "means"}, "`head` of `model` 'generic' must be one of last, .*, got 'means'"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelArguments(backbone="x", **wrong)
    args = ModelArguments("generic", str(folders / kind), head="mean", pooling="mean")
    with pytest.raises(
        ValueError, match="`model` 'generic' with the head 'mean' has no option `pooling`: leave it out"
    ):
        configuration_fields(args, AutoConfig.from_pretrained(folders / kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_backbone_is_the_same_backbone(kind, folders, tmp_path):
    AutoModel.from_pretrained(folders / kind).save_pretrained(tmp_path)
    ids, mask = some_notes(9, 4)
    assert torch.equal(make(tmp_path)(ids, mask).logits, make(folders / kind)(ids, mask).logits)


def test_what_is_no_backbone_is_refused_by_name(folders):
    with pytest.raises(ValueError, match=r"must be a Llama, got model_type 'qwen3': ModelForICDCoding takes others"):
        LlamaForICDCoding.from_pretrained(folders / "qwen3", num_labels=5)
    with pytest.raises(ValueError, match="a decoder or an encoder: 't5' is both in one"):
        ICDConfig.from_backbone(AutoConfig.for_model("t5"))
    with pytest.raises(ValueError, match="`backbone_config` is missing"):
        ICDConfig(num_labels=5)
    with pytest.raises(ValueError, match=r"lack .* weights of the backbone"):
        fields = {**TINY, "num_hidden_layers": 3}
        ModelForICDCoding.from_pretrained(
            folders / "bert", config=ICDConfig.from_backbone(AutoConfig.for_model("bert", **fields))
        )


def test_a_saved_encoder_works_in_a_clean_process(folders, backbone, tmp_path):
    model = make(folders / "bert", window_size=8, head="label_attention")
    model.save_pretrained(tmp_path / "published")
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    tokenizer.save_pretrained(tmp_path / "published")
    (result,) = run_clean(CLEAN_PROCESS, NOTE, tmp_path, tmp_path / "published")
    inputs = tokenizer(NOTE, return_tensors="pt")
    expected = model(inputs["input_ids"], inputs["attention_mask"]).logits[0]
    for logits in result["logits"]:
        torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=1e-5)
