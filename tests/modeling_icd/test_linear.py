"""Linear layers computed by oneDNN where that is faster: the same logits, hidden states and codes."""

import pytest
import torch
from test_pipeline import HEADS, assert_same, coder_with, invented_notes
from torch import nn
from torch.nn.functional import linear

from modeling_icd.inference import linear as linear_module
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.linear import OneDNNLinear, fast_linear_layers, is_onednn_faster
from modeling_icd.inference.loop import predict_logits


pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN")


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
def test_codes_logits_and_hidden_states_are_the_same_whichever_library_computes(head, computed, monkeypatch, tmp_path):
    coder, notes = coder_with(head), [note for note in invented_notes() if note.strip()]
    input_ids = [ids for ids in coder.tokenizer(notes)["input_ids"] if ids]
    coded, logits, states = [], [], []
    for is_faster in (False, True):
        monkeypatch.setattr(linear_module, "is_onednn_faster", lambda is_faster=is_faster: is_faster)
        with fast_linear_layers(coder.device):
            coded.append(coder(notes, top_k=5, batch_size=4))
        logits.append(torch.from_numpy(predict_logits(coder.model, input_ids, show_progress=False)))
        store = HiddenStates(tmp_path / str(is_faster), coder.model, "float32")
        store.fill(input_ids)
        states.append(torch.cat([store.read(ids) for ids in input_ids]))
        assert bool(computed) == is_faster
    assert_same(*coded)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


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
    monkeypatch.setattr(linear_module, "is_onednn_faster", lambda: True)
    assert isinstance(fast_linear_layers(torch.device("cpu")), OneDNNLinear)
    assert not isinstance(fast_linear_layers(torch.device("cuda")), OneDNNLinear)


def test_an_operation_that_has_changed_is_not_used(monkeypatch):
    capabilities = {"avx512_f": True, "cpu_name": "AMD EPYC"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    is_onednn_faster.cache_clear()
    assert is_onednn_faster()
    for changed in (lambda *given: given[0], lambda states: states):
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", changed, raising=False)
        is_onednn_faster.cache_clear()
        assert not is_onednn_faster()
    monkeypatch.undo()
    is_onednn_faster.cache_clear()
