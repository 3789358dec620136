"""How a long note is cut, how many of its tokens are read at a time, and what that changes: nothing."""

import pytest
import torch
from test_models import make, notes

from modeling_icd import LlamaForICDCoding, LlamaICDConfig


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
    for budget, calls, largest in ((32, 11, 32), (8, 42, 8), (1, 42, 8)):  # a window is never cut further
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


@pytest.mark.parametrize("fields", [{}, {"head_ensemble_size": 2}])
def test_logits_are_the_same_with_and_without_attention_weights(fields, backbone):
    model = make("multirescnn", backbone, **fields)
    ids, mask = notes(30, 4)
    plain, asked = model(ids, mask), model(ids, mask, output_label_attentions=True)
    assert plain.label_attentions is None
    assert asked.label_attentions.shape == (2, 5, 30)
    torch.testing.assert_close(plain.logits, asked.logits, atol=1e-6, rtol=1e-5)
