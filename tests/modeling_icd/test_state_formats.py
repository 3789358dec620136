"""The forms in which hidden states are kept: their size, their error, and heads that learn from them and are used without."""

import pytest
import torch
from torch import nn

import modeling_icd
from modeling_icd.heads import HEADS, HeadEnsemble
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.state_formats import StateCodec, StateFormat, check_foldable, fold_projection
from modeling_icd.training.arguments import DataArguments


WIDTH = 16
NOTES = [[2 + (i * 7 + j * 3) % 19 for j in range(5 + i)] for i in range(12)]


@pytest.fixture
def model(backbone):
    return modeling_icd.LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, window_size=8, window_stride=6, freeze_backbone=True, pooling="label_attention"
    )


@pytest.fixture(scope="module")
def states():
    """Of different scales in 8 directions, and little in the others."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw))[0]
    scales = torch.tensor([2.0**-i for i in range(8)] + [1e-4] * 8)
    return torch.randn(400, WIDTH, generator=draw) * scales @ directions.T


def codec_of(name, states) -> StateCodec:
    format = StateFormat.of(name)
    return StateCodec.fit(format, states) if format.is_fitted else StateCodec(format, WIDTH)


@pytest.mark.parametrize(
    ("name", "token_bytes", "error"),
    [
        *(("float32", 64, 0), ("float16", 32, 1e-6), ("bfloat16", 32, 1e-4), ("int8", 16, 1e-3), ("pca8", 16, 1e-6)),
        *(("pca8-int8", 8, 1e-3), ("pca4", 8, 6e-3), ("pca4-int8", 4, 7e-3)),
        *(("pca8-int4", 4, 0.03), ("pca4-int4", 2, 0.04)),
    ],
)
def test_what_is_read_back_is_what_was_written_within_the_error_of_its_size(name, token_bytes, error, states):
    codec = codec_of(name, states)
    content = codec.encode(states[:100])
    assert (codec.token_bytes, len(content)) == (token_bytes, 100 * token_bytes)
    back = torch.empty(100, WIDTH)
    codec.decode_into(bytearray(content), back)
    found = (back - states[:100]).square().sum() / states[:100].square().sum()
    # The four directions that pca4 leaves out hold 4**-4 + ... + 4**-7 of 1 + ... + 4**-7, 0.4 %.
    assert (error / 100 if error else 0) <= found <= error


def test_a_value_larger_than_all_of_the_sample_is_cut_and_not_wrapped(states):
    codec = codec_of("int8", states)
    back = torch.empty(1, WIDTH)
    codec.decode_into(bytearray(codec.encode(torch.full((1, WIDTH), 100.0))), back)
    torch.testing.assert_close(back[0], states.abs().amax(dim=0))


def test_float16_that_overflows_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"exceed the range of float16: use `hidden_states_format: float32`"):
        codec_of("float16", None).encode(torch.full((1, WIDTH), 1e5))
    codec_of("bfloat16", None).encode(torch.full((1, WIDTH), 1e5))


@pytest.mark.parametrize("name", ["float8", "pca", "pca0", "pca8-float16", "int4", "pca8-int2", ""])
def test_an_unknown_format_is_named_with_those_that_there_are(name):
    with pytest.raises(ValueError, match=f"must be one of float32, .*, got '{name}'"):
        DataArguments("cmc2007", data_dir="x", hidden_states_format=name)


def test_two_numbers_a_byte_must_be_even():
    with pytest.raises(ValueError, match="pca5-int4 puts two numbers into a byte: give an even one"):
        StateFormat.of("pca5-int4")


def test_more_directions_than_there_are_is_an_error(model, tmp_path):
    with pytest.raises(ValueError, match="pca16 keeps 16 directions of states that have 16"):
        HiddenStates(tmp_path, model, "pca16")


@pytest.mark.parametrize("name", ["int8", "pca6", "pca6-int8", "pca6-int4"])
def test_a_fitted_format_is_fitted_once_on_training_notes(name, model, tmp_path):
    store = HiddenStates(tmp_path, model, name)
    assert not store.is_open
    with pytest.raises(ValueError, match="fitted on training notes: call `fit` first"):
        store.fill(NOTES)
    store.fit(NOTES[:8])
    store.fill(NOTES)
    again = HiddenStates(tmp_path, model, name)
    again.fit(list(reversed(NOTES[:8])))  # the same notes
    assert again.folder == store.folder and again.fill(NOTES) == 0
    assert all(torch.equal(again.read(ids), store.read(ids)) for ids in NOTES)
    other = HiddenStates(tmp_path, model, name)
    other.fit(NOTES[:7])
    assert other.folder != store.folder and other.fill(NOTES) == len(NOTES)


def test_what_was_fitted_is_fitted_anew_with_all_its_states_where_it_is_damaged(model, tmp_path):
    store = HiddenStates(tmp_path, model, "pca6")
    store.fit(NOTES)
    store.fill(NOTES)
    expected = [store.read(ids) for ids in NOTES]
    (store.folder / "fitted.safetensors").write_bytes(b"damaged")
    again = HiddenStates(tmp_path, model, "pca6")
    again.fit(NOTES)
    assert again.fill(NOTES) == len(NOTES)
    for ids, states in zip(NOTES, expected, strict=True):
        torch.testing.assert_close(again.read(ids), states, atol=1e-3, rtol=1e-2)


def test_a_form_is_made_from_states_that_are_kept_as_they_are(model, tmp_path, monkeypatch):
    exact = HiddenStates(tmp_path, model, "float32")
    exact.fill(NOTES)
    monkeypatch.setattr(model, "read_joined", None)  # the backbone reads nothing
    store = HiddenStates(tmp_path, model, "pca6-int8")
    store.fit(NOTES)
    assert store.fill(NOTES) == len(NOTES)
    basis = store.codec.directions
    for ids in NOTES:
        torch.testing.assert_close(store.read(ids), exact.read(ids) @ basis @ basis.T, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        *(
            ("last", {}),
            ("mean", {"score_bias": True}),
            ("label_attention", {}),
            ("label_attention", {"context_size": 3}),
        ),
        *(("multirescnn", {"reduction_size": 8}), ("multirescnn", {"architecture": "paper", "filter_sizes": [3]})),
    ],
)
@pytest.mark.parametrize("members", [1, 2])
def test_a_head_gives_for_whole_states_what_it_gives_for_projected_ones(head, options, members, states):
    torch.manual_seed(0)
    row = HEADS[head]
    if members > 1 and not row.attends:
        pytest.skip("pooled heads have no ensembles")
    complete = row.complete(head, options)
    complete.pop("architecture", None)
    if options.get("architecture"):
        complete["reduction_size"] = None
    one = (
        HeadEnsemble([row.make(WIDTH, 3, **complete) for _ in range(2)])
        if members > 1
        else row.make(WIDTH, 3, **complete)
    )
    directions = codec_of("pca4", states).directions
    check_foldable(one, directions, "pca4")
    one.eval()
    notes = states[:60].view(3, 20, WIDTH)
    mask = (torch.arange(20) < torch.tensor([[20], [7], [1]])).long()
    with torch.no_grad():
        expected = one(notes @ directions @ directions.T, mask)[0]
        assert not torch.allclose(one(notes, mask)[0], expected, atol=1e-4)
        for _ in range(2):  # again, which changes nothing more
            fold_projection(one, directions)
            torch.testing.assert_close(one(notes, mask)[0], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(one(notes @ directions @ directions.T, mask)[0], expected, atol=1e-5, rtol=1e-4)
    one.train()
    fold_projection(one, directions)
    assert one.training


def test_a_head_that_reads_states_in_another_way_is_refused(states):
    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, 3)

        def forward(self, hidden_states, attention_mask, need_attentions=True):
            return self.layer(hidden_states.square()).mean(dim=1), None

    directions = codec_of("pca4", states).directions
    with pytest.raises(
        ValueError, match="`hidden_states_format` pca4 leaves out a part of each state, and this head, Squares,"
    ):
        check_foldable(Squares(), directions, "pca4")
