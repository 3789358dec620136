"""Label attention: beside an explicit softmax, forward and backward, in every type; and the attention of some codes alone."""

import copy
from unittest import mock

import pytest
import torch
from test_models import MODELS, make, notes
from test_own_head import GatedHead
from torch import nn

from modeling_icd.attention_icd import AttendingHead, LabelAttentionHead, LabelQueries
from modeling_icd.evidence_icd import EVIDENCE_METHODS, token_weights
from modeling_icd.heads import HeadEnsemble, PooledHead, computes_codes, run_head
from modeling_icd.layers_icd import RealTokens, SameConvolution
from modeling_icd.multirescnn_icd import MultiResCNNHead


WIDTH, CODES = 8, 7
HEADS = {
    "label_attention": lambda: LabelAttentionHead(WIDTH, CODES, 6, context_size=3),
    "multirescnn": lambda: MultiResCNNHead(WIDTH, CODES, (1, 3), 4, reduction_size=6),
    "subword": lambda: MultiResCNNHead(WIDTH, CODES, (3, 5), 4, norm="layer", reduced_path=True, projection_size=7),
    "several queries": lambda: LabelAttentionHead(WIDTH, CODES, 6, num_queries=3),
    "ensemble": lambda: HeadEnsemble(MultiResCNNHead(WIDTH, CODES, (3,), 4) for _ in range(3)),
    "own": lambda: GatedHead(WIDTH, CODES, 6),
    "own ensemble": lambda: HeadEnsemble(GatedHead(WIDTH, CODES, 6) for _ in range(2)),
}


def head_of(name):
    torch.manual_seed(3)
    return HEADS[name]().eval()


def batch_of(*lengths, width=WIDTH):
    """States of notes, noise where they are padded, and their mask."""
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(len(lengths), max(lengths), width, generator=generator)
    return states, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def explicit_logits(head: AttendingHead, states, mask):
    """The head's logits with a softmax over all tokens, in the type of its weights, and nothing clever."""
    features = head.features(states, mask)
    scores = torch.einsum("cf,blf->bcl", head.queries.weight, features)
    attentions = scores.masked_fill(mask[:, None] == 0, -float("inf")).softmax(dim=-1)
    summaries = torch.einsum("bcl,blf->bcf", attentions, features)
    return (summaries * head.output.weight).sum(dim=-1) + head.output.bias


@pytest.mark.parametrize("lengths", [(9, 4, 7), (6,), (1,), (1, 3)])
@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "subword"])
def test_logits_and_gradients_are_those_of_an_explicit_softmax(name, lengths):
    head, other = head_of(name), head_of(name)
    (states, mask), weights = batch_of(*lengths), torch.randn(len(lengths), CODES)
    ways = []
    for model, run in ((head, lambda *given: head(*given, False)[0]), (other, lambda *g: explicit_logits(other, *g))):
        given = states.clone().requires_grad_()
        logits = run(given, mask)
        (logits * weights).sum().backward()
        ways.append([logits, given.grad, *(weight.grad for weight in model.parameters())])
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert ways[0][1][mask == 0].abs().sum() == 0


@pytest.mark.parametrize("lengths", [(5, 3), (1,)])
def test_gradients_in_double_precision_are_those_of_differences(lengths):
    queries = LabelQueries(3, 4).double()
    states, mask = batch_of(*lengths, width=3)
    outside = torch.randn(4, 3).double().requires_grad_()

    def summaries(states, weight):
        with mock.patch.dict(queries._parameters, {"weight": weight}):
            return queries(states, mask, False)[0]

    assert summaries(states.double(), outside).dtype == torch.double
    assert torch.autograd.gradcheck(summaries, (states.double().requires_grad_(), outside))


def test_gradients_of_a_whole_head_in_double_precision_are_those_of_differences():
    head = head_of("multirescnn").double()
    states, mask = batch_of(5, 2)
    assert torch.autograd.gradcheck(lambda given: head(given, mask, False)[0], states.double().requires_grad_())


@pytest.mark.parametrize("need", [False, True, torch.tensor([2, 0])], ids=["none", "all", "some"])
def test_autocast_narrows_nothing(need):
    queries, (states, mask) = LabelQueries(WIDTH, CODES), batch_of(9, 4)
    expected = queries(states, mask, need)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = queries(states, mask, need)
    assert torch.equal(given[0], expected[0]) and given[0].dtype == torch.float32
    assert given[1] is expected[1] is None or torch.equal(given[1], expected[1])


@pytest.mark.parametrize("need", [False, True])
def test_bfloat16_weights_give_what_the_same_weights_in_fp32_give(need):
    narrow, (states, mask) = LabelAttentionHead(WIDTH, CODES).bfloat16(), batch_of(9, 4)
    wide = copy.deepcopy(narrow).float()
    logits, _ = narrow(states.bfloat16(), mask, need)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), wide(states.bfloat16().float(), mask, need)[0], atol=0.02, rtol=0.02)
    # From the states that are attended over on, nothing is lost.
    features = narrow.features(states.bfloat16(), mask)
    summaries = narrow.queries(features, mask, need)[0]
    torch.testing.assert_close(summaries, wide.queries(features.float(), mask, need)[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_attention_of_some_codes_is_a_part_of_that_of_all(name):
    head, (states, mask) = head_of(name), batch_of(9, 4)
    logits, every = head(states, mask)
    given, some = run_head(head, states, mask, torch.tensor([5, 0, 5]))
    torch.testing.assert_close(given, logits, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(some, every[:, [5, 0, 5]], atol=1e-6, rtol=1e-5)
    _, own = run_head(head, states, mask, torch.tensor([[6, 1], [2, -1]]))
    torch.testing.assert_close(own[0], every[0, [6, 1]], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(own[1, 0], every[1, 2], atol=1e-6, rtol=1e-5)
    assert own.shape == (2, 2, 9) and not own[1, 1].any()
    assert run_head(head, states, mask, torch.zeros(0, dtype=torch.long))[1].shape == (2, 0, 9)


@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "several queries", "ensemble", "mean"])
def test_some_codes_alone_are_what_all_give_for_them(name):
    head = PooledHead(WIDTH, CODES, "mean", score_bias=True) if name == "mean" else head_of(name)
    states, mask = batch_of(9, 4)
    (logits, every), codes = head(states, mask), torch.tensor([4, 1])
    given, attentions = head(states, mask, only_codes=codes)
    torch.testing.assert_close(given, logits[..., codes], atol=1e-6, rtol=1e-5)
    assert (attentions is None) == (name == "mean")
    if attentions is not None:
        torch.testing.assert_close(attentions, every[:, codes], atol=1e-6, rtol=1e-5)


def test_a_head_from_elsewhere_is_asked_only_for_what_it_knows():
    class Longer(LabelAttentionHead):
        def features(self, hidden_states, attention_mask):
            return super().features(hidden_states * 2, attention_mask)

    class Older(LabelAttentionHead):
        def forward(self, hidden_states, attention_mask, need_attentions=True):
            return super().forward(hidden_states, attention_mask, need_attentions)

    assert computes_codes(Longer(WIDTH, CODES)) and not computes_codes(Older(WIDTH, CODES))
    states, mask = batch_of(9, 4)
    head = Older(WIDTH, CODES)
    assert torch.equal(run_head(head, states, mask, torch.tensor([3]))[1], head(states, mask)[1][:, [3]])


@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "ensemble"])
def test_a_model_gives_the_attention_of_the_codes_asked_for(name, backbone):
    model = make(name, backbone, window_size=8)
    ids, mask = notes(20, 5)
    every = model(ids, mask, output_label_attentions=True)
    for asked in ([3, 1], torch.tensor([3, 1]), torch.tensor([[3, 1], [3, 1]], dtype=torch.int32)):
        output = model(ids, mask, label_attentions_for=asked)
        torch.testing.assert_close(output.logits, every.logits, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(output.label_attentions, every.label_attentions[:, [3, 1]], atol=1e-6, rtol=1e-5)
    by_note = model(ids, mask, label_attentions_for=[[4, 0], [2, -1]]).label_attentions
    torch.testing.assert_close(by_note[1, 0], every.label_attentions[1, 2], atol=1e-6, rtol=1e-5)
    assert not by_note[1, 1].any()
    assert model(ids, mask, label_attentions_for=[]).label_attentions.shape == (2, 0, 20)
    seen = []
    layers = [layer for layer in model.modules() if isinstance(layer, LabelQueries)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, given, output: seen.append(output[1].shape))
    model(ids, mask, label_attentions_for=[3])
    assert seen == [(2, 1, 20)] * len(layers)


def test_of_a_head_that_does_not_attend_there_is_none(backbone):
    model = make("mean", backbone)
    assert model(*notes(6), label_attentions_for=[1]).label_attentions is None


def test_evidence_that_is_learned_from_and_codes_that_are_asked_for_do_not_disturb_each_other(backbone):
    model = make("label_attention", backbone, evidence_weight=1.0).train()
    ids, mask = notes(9, 5)
    given = {"labels": torch.ones(2, 5), "evidence": torch.tensor([[[4, 3], [1, 2]], [[1, 0], [-1, -1]]])}
    plain = model(ids, mask, **given)
    assert plain.label_attentions is None
    every = model(ids, mask, **given, output_label_attentions=True)
    some = model(ids, mask, **given, label_attentions_for=[0, 4])
    torch.testing.assert_close(plain.loss, every.loss)
    torch.testing.assert_close(plain.loss, some.loss)
    assert plain.loss > model(ids, mask, labels=given["labels"]).loss
    torch.testing.assert_close(some.label_attentions, every.label_attentions[:, [0, 4]])


@pytest.mark.parametrize(
    "asked", [[5], [-1], [[0], [1], [2]], [[0, 1], [2]], [0.5], ["401.9"], 3, [True], [[[1]]], [[0], [-2]]]
)
def test_what_is_no_code_is_one_message(asked, backbone):
    with pytest.raises(ValueError, match="`label_attentions_for` must be ids of codes, whole numbers from 0 to 4"):
        make("label_attention", backbone)(*notes(6, 4), label_attentions_for=asked)


def test_all_and_some_at_once_is_one_message(backbone):
    with pytest.raises(ValueError, match=r"`output_label_attentions` asks .* give one of them"):
        make("label_attention", backbone)(*notes(6), output_label_attentions=True, label_attentions_for=[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.double, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 3, 9])
def test_a_convolution_is_that_of_torch(width, dtype):
    layer = SameConvolution(6, 4, width, bias=True).to(dtype)
    plain = nn.Conv1d(6, 4, width, padding=width // 2).to(dtype)
    plain.load_state_dict(layer.state_dict())
    states = torch.randn(2, 11, 6, dtype=dtype)
    tolerance = {"atol": 0.05, "rtol": 0.02} if dtype == torch.bfloat16 else {}
    for given in (states, states.mT.contiguous().mT, states[:, :1]):  # the second lies in memory as torch's own has it
        torch.testing.assert_close(layer(given), plain(given.mT).mT, **tolerance)


def test_real_tokens_of_a_full_batch_change_nothing():
    states, mask = batch_of(4, 4)
    assert RealTokens(mask).are_all and RealTokens(mask).clear(states) is states
    states, mask = batch_of(4, 2)
    real = RealTokens(mask)
    assert not real.are_all and real.places.tolist() == [0, 1, 2, 3, 4, 5]
    assert not real.clear(states)[1, 2:].any() and torch.equal(real.clear(states)[mask == 1], states[mask == 1])


@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "ensemble"])
def test_evidence_of_a_head_that_lies_on_disk_is_the_same(name, backbone, tmp_path):
    model = make(name, backbone)
    model.save_pretrained(tmp_path / "model")
    options = {"offload_folder": tmp_path / "offload", "device_map": {"model": "cpu", "score": "disk"}}
    loaded = MODELS[name][0].from_pretrained(tmp_path / "model", **options).eval()
    states = torch.randn(7, 16)
    for method in EVIDENCE_METHODS:
        expected = token_weights(model.score, states, [3, 1], method)
        torch.testing.assert_close(token_weights(loaded.score, states, [3, 1], method), expected, atol=1e-5, rtol=1e-4)
