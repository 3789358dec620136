"""Evidence: what each method gives a token, by hand and against plain autograd; and which words a token's weight belongs to,
whatever the tokenizer calls a token."""

import copy

import pytest
import torch
from test_own_head import GatedHead
from test_pipeline import assert_same, coder_with, invented_notes, word_tokenizer
from torch import nn
from transformers import pipeline

from modeling_icd.attention_icd import LabelAttentionHead, LabelQueries
from modeling_icd.evidence_icd import (
    EVIDENCE_METHODS,
    INTEGRATION_STEPS,
    evidence_spans,
    gradient_products,
    token_weights,
    word_weights,
)
from modeling_icd.heads import HeadEnsemble, PooledHead
from modeling_icd.multirescnn_icd import MultiResCNNHead


WIDTH, CODES = 8, 5
HEADS = {
    "mean": lambda: PooledHead(WIDTH, CODES, "mean", score_bias=True),
    "label_attention": lambda: LabelAttentionHead(WIDTH, CODES, 6, context_size=3),
    "multirescnn": lambda: MultiResCNNHead(WIDTH, CODES, (1, 3), 4, reduction_size=6),
    "subword": lambda: MultiResCNNHead(WIDTH, CODES, (3, 5), 4, norm="layer", reduced_path=True, projection_size=7),
    "ensemble": lambda: HeadEnsemble(MultiResCNNHead(WIDTH, CODES, (3,), 4) for _ in range(3)),
    "own": lambda: GatedHead(WIDTH, CODES, 6),
}
GRADIENTS = [method for method in EVIDENCE_METHODS if method != "attention"]


def head_of(name):
    """A head in evaluation mode; queries and outputs far from 0, so that attention and signs differ among tokens."""
    torch.manual_seed(3)
    head = HEADS[name]().eval().requires_grad_(False)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
    for weight in head.parameters():
        weight.normal_(std=0.7)
    return head


def states_of(length=7, seed=4):
    return torch.randn(length, WIDTH, generator=torch.Generator().manual_seed(seed))


def all_codes(head, states):
    """Logits `(C,)` and attention `(C, L)` of the whole head, as the model computes them."""
    logits, attentions = head(states[None], torch.ones(1, len(states), dtype=torch.long))
    return (logits.mean(dim=0) if logits.dim() == 3 else logits)[0], None if attentions is None else attentions[0]


def expected_weights(head, states, code, method):
    """The definition of a method for one code, from the whole head by plain autograd."""

    def products(scale):
        point = (states * scale).requires_grad_()
        (gradient,) = torch.autograd.grad(all_codes(head, point)[0][code], point)
        return states * gradient

    attentions = all_codes(head, states)[1]
    if method == "integrated_gradients":
        scales = [(i + 0.5) / INTEGRATION_STEPS for i in range(INTEGRATION_STEPS)]
        return (sum(products(scale).sum(dim=1) for scale in scales) / len(scales)).clamp(min=0)
    if method == "attention":
        return attentions[code]
    norms = products(1.0).pow(2).sum(dim=1).sqrt()
    return norms * attentions[code] if method == "attingrad" else norms


@pytest.mark.parametrize("method", EVIDENCE_METHODS)
@pytest.mark.parametrize("name", HEADS)
def test_a_method_is_its_definition_for_the_listed_codes(name, method):
    head, states = head_of(name), states_of()
    if name == "mean" and method in ("attention", "attingrad"):
        with pytest.raises(ValueError, match=f"does not attend, so it has no {method}: choose integrated"):
            token_weights(head, states, [0], method)
        return
    with torch.no_grad():
        weights = token_weights(head, states, [4, 1], method)
    assert weights.shape == (2, 7) and not weights.requires_grad and (weights >= 0).all() and weights.std() > 0
    for row, code in zip(weights, [4, 1], strict=True):
        torch.testing.assert_close(row, expected_weights(head, states, code, method), atol=1e-5, rtol=1e-4)
    assert token_weights(head, states, [], method).shape == (0, 7)


def test_mean_pooling_by_hand():
    head = PooledHead(2, 1, "mean").requires_grad_(False)
    head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    states = torch.tensor([[3.0, 4.0], [0.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    # A token adds its state times the weight over 4 to the logit: (6 - 4) / 4, (0 - 4) / 4, 2 / 4, 0.
    for method in ("integrated_gradients", None):
        torch.testing.assert_close(token_weights(head, states, [0], method), torch.tensor([[0.5, 0, 0.5, 0]]))
    # The norms of (6, -4), (0, -4), (2, 0), (0, 0), each over 4.
    expected = torch.tensor([[52**0.5 / 4, 1, 0.5, 0]])
    torch.testing.assert_close(token_weights(head, states, [0], "input_x_gradient"), expected)


def test_without_a_method_each_head_has_its_own():
    states = states_of()
    methods = {"mean": "integrated_gradients", "label_attention": "attention", "multirescnn": "integrated_gradients"}
    for name, method in {**methods, "ensemble": "integrated_gradients", "own": "attention"}.items():
        head = head_of(name)
        assert torch.equal(token_weights(head, states, [2]), token_weights(head, states, [2], method))
    head = head_of("own")
    head.evidence_method = "attingrad"  # as an author of a head may set it
    assert torch.equal(token_weights(head, states, [2]), token_weights(head, states, [2], "attingrad"))


@pytest.mark.parametrize("name", ["mean", "label_attention"])
def test_integrated_gradients_add_up_to_what_the_note_adds_to_the_logit(name):
    head, states = head_of(name), states_of() / 3  # few steps do where the head is not far from linear
    scales = [(i + 0.5) / 64 for i in range(64)]
    added = [gradient_products(head, states, scale, [2], lambda x: x.sum(dim=-1)) for scale in scales]
    expected = all_codes(head, states)[0][2] - all_codes(head, torch.zeros_like(states))[0][2]
    assert torch.stack(added).mean(dim=0).sum().item() == pytest.approx(expected.item(), abs=1e-3)


def test_the_last_token_alone_says_nothing():
    head = PooledHead(WIDTH, CODES, "last")
    assert token_weights(head, states_of(), [0]) is None
    for method in EVIDENCE_METHODS:
        with pytest.raises(ValueError, match=f"reads the last token alone: {method} cannot say"):
            token_weights(head, states_of(), [0], method)


@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "ensemble"])
@pytest.mark.parametrize("method", EVIDENCE_METHODS)
def test_only_the_listed_codes_are_computed(name, method):
    head, shapes = head_of(name), set()
    for layer in head.modules():
        if isinstance(layer, LabelQueries):
            layer.register_forward_hook(lambda layer, given, output: shapes.add(output[1].shape))
    before = {key: weight.clone() for key, weight in head.state_dict().items()}
    token_weights(head, states_of(), [3], method)
    assert shapes == {(1, 1, 7)}
    assert all(torch.equal(weight, before[key]) for key, weight in head.state_dict().items())


@pytest.mark.parametrize("method", EVIDENCE_METHODS)
@pytest.mark.parametrize("name", ["label_attention", "subword", "ensemble", "own"])
def test_inference_mode_and_narrow_types_change_nothing_but_rounding(name, method):
    head, states = head_of(name), states_of()
    expected = token_weights(head, states, [1, 3], method)
    with torch.inference_mode():
        given = token_weights(head, states * 1.0, [1, 3], method)
    assert torch.equal(given, expected)
    narrow = token_weights(head.bfloat16(), states.bfloat16(), [1, 3], method)
    assert narrow.dtype == torch.float32
    assert (narrow - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("method", EVIDENCE_METHODS)
@pytest.mark.parametrize("head", ["mean", "label_attention", "multirescnn", "ensemble"])
def test_a_batch_gives_the_evidence_of_one_by_one_and_the_backbone_runs_once(head, method):
    if head == "mean" and method in ("attention", "attingrad"):
        return
    coder, notes = coder_with(head), invented_notes(5)
    alone = [coder(note, evidence_method=method, top_k=3) for note in notes]
    assert any(code["evidence"] for codes in alone for code in codes)
    assert_same(coder(notes, evidence_method=method, top_k=3, batch_size=5), copy.deepcopy(alone))
    passes = []
    coder.model.model.register_forward_hook(lambda *given: passes.append(1))
    made = pipeline("icd-coding", coder.model, tokenizer=word_tokenizer(), device="cpu", evidence_method=method)
    assert_same([made(notes[0], top_k=3)], alone[:1])
    assert passes == [1]


@pytest.mark.parametrize("method", ["saliency", "x" * 50, 1, ["attention"]])
def test_an_unknown_method_is_one_message_without_text(method):
    with pytest.raises(ValueError, match="`evidence_method` must be one of attention, input_x_gradient,") as error:
        coder_with()("fever", evidence_method=method)
    assert "xxxx" not in str(error.value)


def test_word_weights_by_hand():
    words, weights = word_weights("no  fever", torch.tensor([(0, 2), (3, 6), (6, 9)]), torch.tensor([[0.5, 0.1, 0.2]]))
    assert words == [(0, 2), (4, 9)]
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.3]], dtype=torch.double), atol=1e-7, rtol=0)
    words, weights = word_weights(" \n", torch.zeros(0, 2), torch.zeros(3, 0))
    assert words == [] and weights.shape == (3, 0)


def spans_of(note, offsets, weights, num_spans=9):
    (spans,) = evidence_spans(note, torch.tensor(offsets), torch.tensor([weights]), num_spans)
    assert all(span["text"] == note[span["start"] : span["end"]] for span in spans)
    return [(span["text"], pytest.approx(span["weight"])) for span in spans]


def test_a_token_with_the_space_before_it_belongs_to_the_word_behind_the_space():
    offsets = [(0, 0), (0, 2), (2, 8), (8, 12), (12, 14), (14, 18)]  # <s>, no, ` fever`, ` but`, ` a`, ` bad`
    assert spans_of("no fever but a bad", offsets, [0.3, 0.0, 0.5, 0.0, 0.0, 0.2]) == [("fever", 0.5), ("bad", 0.2)]


def test_white_space_between_words_belongs_to_none():
    offsets = [(0, 2), (2, 4), (4, 9), (9, 10)]  # no, two line breaks, fever, a line break
    assert spans_of("no\n\nfever\n", offsets, [0.1, 0.4, 0.2, 0.3]) == [("no\n\nfever", 0.3)]
    assert spans_of("no\n\nfever\n", offsets, [0.0, 0.6, 0.0, 0.4]) == []


def test_parts_of_a_word_and_the_bytes_of_a_character_are_added_up():
    # pneu, monia; then four tokens for the bytes of one picture, with the space before it in the first
    offsets = [(0, 4), (4, 9), (9, 11), (10, 11), (10, 11), (10, 11)]
    assert spans_of("pneumonia \U0001f600", offsets, [0.2, 0.2, 0.1, 0.1, 0.1, 0.3]) == [("pneumonia \U0001f600", 1.0)]
    assert spans_of(
        "pneumonia x \U0001f600", [(s + 2 * (s > 8), e + 2 * (e > 9)) for s, e in offsets], [0.2] + [0] * 4 + [0.8]
    ) == [
        ("\U0001f600", 0.8),
        ("pneumonia", 0.2),
    ]


def test_a_mark_that_joins_a_letter_stays_in_its_word():
    note = "cafe\u0301 fie\u0301vre"  # each accent a character of its own, and a token of its own
    assert spans_of(note, [(0, 4), (4, 5), (5, 9), (9, 10), (10, 13)], [0, 0.5, 0, 0, 0.05]) == [("cafe\u0301", 0.5)]


def test_a_token_over_several_words_is_shared_out():
    assert spans_of("no acute distress", [(0, 8), (8, 17)], [0.6, 0.02]) == [("no acute", 0.6)]


def test_each_code_has_its_own_spans_and_at_most_so_many():
    offsets = torch.tensor([(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)])
    weights = torch.tensor([[0.4, 0, 0.3, 0, 0.3], [0, 0, 0, 1.0, 0.1]])
    first, second = evidence_spans("a b c d e", offsets, weights, 2)
    assert [span["text"] for span in first] == ["a", "c"]  # equal weights: the earlier one
    assert [span["text"] for span in second] == ["d"]  # a tenth of the heaviest is left out
    assert evidence_spans("a b c d e", offsets, weights[:0], 2) == []
    assert evidence_spans("a b c d e", offsets, weights, 0) == [[], []]
