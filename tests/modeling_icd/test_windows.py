"""How a long note is cut, how many of its tokens are read at a time, and what that changes: nothing."""

import pytest
import torch
from accelerate import init_empty_weights
from test_models import MODELS, make, notes
from transformers import AutoConfig

from modeling_icd import ICDConfig, LlamaForICDCoding, LlamaICDConfig, ModelForICDCoding


TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (1024, 768)])
def test_a_stride_left_out_overlaps_by_a_quarter(window, stride, backbone):
    assert LlamaICDConfig(window_size=window).window_stride == stride
    if window <= 64:
        assert LlamaForICDCoding.from_pretrained(backbone, window_size=window).config.window_stride == stride


def test_a_stride_that_was_saved_stays(tmp_path):
    LlamaICDConfig(window_size=8, window_stride=8).save_pretrained(tmp_path)
    assert LlamaICDConfig.from_pretrained(tmp_path).window_stride == 8


def test_a_window_given_on_loading_is_checked_against_the_saved_stride(tmp_path):
    LlamaICDConfig(window_size=8, window_stride=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`window_stride` .8. must be between 1 and `window_size` .4."):
        LlamaICDConfig.from_pretrained(tmp_path, window_size=4)


def tokens_per_call(model, *arguments, **named):
    """Runs the model, and says how many tokens, padding included, each call of its backbone read."""
    read = []

    def count(module, args, kwargs):
        read.append(kwargs.get("inputs_embeds", kwargs.get("input_ids")).shape[:2].numel())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    output = model(*arguments, **named)
    hook.remove()
    return read, output


@pytest.mark.parametrize("name", ["mean", "multirescnn", "middle_layer"])
def test_windows_are_read_in_groups_and_no_logit_changes(name, backbone):
    model = make(name, backbone, window_size=8, window_stride=6)
    ids, mask = notes(200, 3, 45)
    read, expected = tokens_per_call(model, ids, mask, output_hidden_states=True)
    assert len(read) == 1  # 33 + 1 + 8 windows are far fewer tokens than are read at a time by default
    for budget, calls, largest in (
        (32, 11, 32),
        (8, 41, 8),
        (1, 42, 8),
    ):  # two short ones share 8 tokens; none is cut further
        model.tokens_per_pass = budget
        read, output = tokens_per_call(model, ids, mask, output_hidden_states=True)
        assert (len(read), max(read)) == (calls, largest)
        torch.testing.assert_close(
            output.hidden_states[mask == 1], expected.hidden_states[mask == 1], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)


def test_a_note_ten_times_as_long_needs_no_larger_pass(backbone):
    model = make("mean", backbone, window_size=8)
    model.tokens_per_pass = 32
    for length in (100, 1000):
        read, _ = tokens_per_call(model, *notes(length))
        assert max(read) == 32


def test_embeddings_and_left_padding_are_read_in_groups_as_well(backbone):
    model = make("mean", backbone, window_size=8, window_stride=6)
    ids, mask = notes(50, 20)
    expected = model(ids, mask).logits
    model.tokens_per_pass = 16
    embeddings = model.model.embed_tokens(ids)
    torch.testing.assert_close(
        model(inputs_embeds=embeddings, attention_mask=mask).logits, expected, atol=1e-5, rtol=0
    )
    ids[1], mask[1] = ids[1].roll(30), mask[1].roll(30)
    torch.testing.assert_close(model(ids, mask).logits, expected, atol=1e-5, rtol=0)


def test_groups_change_no_gradient(backbone):
    ids, mask = notes(50, 20)
    gradients = []
    for budget in (8192, 16):
        model = make("mean", backbone, window_size=8).train()
        model.tokens_per_pass = budget
        model(ids, mask, labels=torch.ones(2, 5)).loss.backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_known_on_the_meta_device(name, training):
    model_class, fields = MODELS[name]
    with torch.device("meta"):
        model = model_class(model_class.config_class(**TINY, **fields, num_labels=5, window_size=8)).train(training)
        ids, labels = torch.ones(2, 30, dtype=torch.long), torch.ones(2, 5)
        for length in (30, 8, 3):  # windows, one window, less than a window
            for asked in (False, True):
                output = model(ids[:, :length], labels=labels, output_label_attentions=asked)
                assert (output.logits.shape, output.loss.shape) == ((2, 5), ())
                if asked and output.label_attentions is not None:
                    assert output.label_attentions.shape == (2, 5, length)
        embedded = model(inputs_embeds=torch.ones(2, 30, 16), attention_mask=torch.ones(2, 30))
        assert embedded.logits.is_meta


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_shapes_of_other_backbones_are_known_on_the_meta_device(kind):
    backbone = AutoConfig.for_model(
        kind, **{**TINY, "head_dim": 8, "num_key_value_heads": 1} if kind == "qwen3" else TINY
    )
    with init_empty_weights():
        model = ModelForICDCoding(
            ICDConfig.from_backbone(backbone, head="label_attention", num_labels=5, window_size=8)
        ).to("meta")
    assert model(torch.ones(2, 30, dtype=torch.long, device="meta")).logits.shape == (2, 5)


@pytest.mark.parametrize("fields", [{}, {"head_ensemble_size": 2}])
def test_logits_are_the_same_with_and_without_attention_weights(fields, backbone):
    model = make("multirescnn", backbone, **fields)
    ids, mask = notes(30, 4)
    plain, asked = model(ids, mask), model(ids, mask, output_label_attentions=True)
    assert plain.label_attentions is None
    assert asked.label_attentions.shape == (2, 5, 30)
    torch.testing.assert_close(plain.logits, asked.logits, atol=1e-6, rtol=1e-5)
