"""Training steps that are computed in less time: the same numbers, gradients, and dropout as torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modeling_icd.heads import HEADS
from modeling_icd.training.arithmetic import FastSteps, quick_dropout


def gradients(function, *tensors):
    for tensor in tensors:
        tensor.grad = None
    result = function()
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum().backward()
    return [result.detach(), *(tensor.grad.clone() for tensor in tensors)]


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 41, 3), (1, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_and_their_gradients_are_torchs(shape, bias):
    torch.manual_seed(0)
    layer, states = nn.Linear(3, 5, bias=bias), torch.randn(shape, requires_grad=True)
    expected = gradients(lambda: layer(states), states, *layer.parameters())
    with FastSteps(True):
        found = gradients(lambda: layer(states), states, *layer.parameters())
    torch.testing.assert_close(found, expected)


def test_what_autocast_computes_in_bfloat16_stays_so():
    """Also where a model enters autocast only after the context, as one that a `Trainer` with `bf16` has prepared does."""
    layer, states = nn.Linear(3, 5), torch.randn(2, 3)
    with FastSteps(True), torch.autocast("cpu", torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert "OneDNN" in type(layer(states).grad_fn).__name__


@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize("head", ["label_attention", "multirescnn", "mean"])
def test_a_head_learns_the_same(head, with_onednn):
    torch.manual_seed(0)
    options = {"multirescnn": {"reduction_size": 8}, "label_attention": {"context_size": 3}}.get(head, {})
    complete = HEADS[head].complete(head, options)
    complete.pop("architecture", None)
    one = HEADS[head].make(16, 3, dropout=0.0, **complete)
    states = torch.randn(2, 21, 16)
    mask = (torch.arange(21) < torch.tensor([[21], [6]])).long()
    weights = list(one.parameters())
    expected = gradients(lambda: one(states, mask, False)[0], *weights)
    with FastSteps(with_onednn):
        found = gradients(lambda: one(states, mask, False)[0], *weights)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("p", [0.0, 0.003, 0.3, 0.5, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    states = torch.ones(401, 1003, requires_grad=True)  # not a multiple of what is drawn at a time
    dropped = quick_dropout(states, p)
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped)
    assert float((dropped == 0).float().mean()) == pytest.approx(p, abs=0.003)
    if p < 1:
        torch.testing.assert_close(
            dropped[dropped != 0], torch.full_like(dropped[dropped != 0], 1 / (1 - p)), rtol=1e-4, atol=0
        )


def test_dropout_is_replaced_in_training_alone_and_repeats_with_its_seed():
    states, layer = torch.randn(100, 100), nn.Dropout(0.5)
    with FastSteps(False):
        torch.manual_seed(1)
        first = layer(states)
        torch.manual_seed(1)
        assert torch.equal(layer(states), first) and not torch.equal(layer(states), first)
        assert torch.equal(layer.eval()(states), states)
        assert torch.equal(F.dropout(states, 0.5, False), states)
        torch.manual_seed(1)
        small = F.dropout(states[:2], p=0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(small, F.dropout(states[:2], 0.5))  # torch's own
