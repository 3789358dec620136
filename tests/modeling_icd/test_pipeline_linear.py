"""Linear layers computed by oneDNN, as `pipeline("icd-coding")` does where that is faster: the same codes and scores."""

import pytest
import torch
from test_pipeline import HEADS, assert_same, coder_with, invented_notes
from torch import nn
from torch.nn.functional import linear

from modeling_icd import pipeline_icd
from modeling_icd.pipeline_icd import OneDNNLinear, fast_linear_layers


@pytest.fixture
def computed(monkeypatch):
    """How often oneDNN computed a linear layer."""
    calls = []
    operation = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda *given: (calls.append(1), operation(*given))[1], raising=False
    )
    return calls


@pytest.mark.parametrize("head", HEADS)
def test_the_pipeline_gives_the_same_whichever_library_computes(head, computed, monkeypatch):
    coder, notes = coder_with(head), invented_notes()
    coded = []
    for is_faster in (False, True):
        monkeypatch.setattr(pipeline_icd, "is_onednn_faster", lambda is_faster=is_faster: is_faster)
        coded.append(coder(notes, top_k=5, batch_size=4))
        assert bool(computed) == is_faster
    assert_same(*coded)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (1, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_states_of_any_shape_and_layout_are_taken(shape, bias, computed):
    torch.manual_seed(0)
    layer, states = nn.Linear(3, 5, bias=bias), torch.randn(shape)
    turned = torch.randn(3, 7).T  # not contiguous, as the states behind a convolution
    with torch.no_grad():
        expected = layer(states), layer(turned), linear(turned, layer.weight)
        with OneDNNLinear():
            given = layer(states), layer(turned), linear(turned, layer.weight)
    torch.testing.assert_close(given, expected)
    assert len(computed) == 3


def test_notes_of_all_lengths_are_computed_in_few_shapes(monkeypatch):
    """Of each shape oneDNN keeps a program; a service would grow with every new length of a note."""
    shapes = set()
    operation = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn,
        "_linear_pointwise",
        lambda states, *given: (shapes.add(len(states)), operation(states, *given))[1],
        raising=False,
    )
    layer, states = nn.Linear(3, 5), torch.randn(3000, 3)
    with torch.no_grad():
        expected = layer(states)
        with OneDNNLinear():
            for length in range(1, 3001):
                torch.testing.assert_close(layer(states[:length]), expected[:length])
                assert max(shapes) <= max(length + 63, length * 1.125)
    assert {16, 512, 1024} <= shapes and len(shapes) < 40


def test_what_needs_a_gradient_or_is_of_another_type_is_left_to_torch(computed):
    layer, narrow = nn.Linear(3, 5), nn.Linear(3, 5).bfloat16()
    with OneDNNLinear():
        layer(torch.ones(2, 3)).sum().backward()
        with torch.no_grad():
            assert narrow(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
            assert layer(torch.ones(0, 3)).shape == (0, 5)
            assert linear(input=torch.ones(2, 3), weight=layer.weight).shape == (2, 5)
    assert layer.weight.grad is not None and not computed


def test_other_devices_keep_their_own(monkeypatch):
    monkeypatch.setattr(pipeline_icd, "is_onednn_faster", lambda: True)
    assert isinstance(fast_linear_layers(torch.device("cpu")), OneDNNLinear)
    assert not isinstance(fast_linear_layers(torch.device("cuda")), OneDNNLinear)
