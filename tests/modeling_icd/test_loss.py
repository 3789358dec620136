"""The losses: against their formulas, divided the same in whatever batches, and learned from as the configuration says."""

import math

import pytest
import torch
from test_models import notes

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.loss_icd import LOSSES, coding_loss, evidence_loss


def config(**fields):
    return LlamaICDConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "a", 1: "b", 2: "c"},
        pooling="label_attention",
        **fields,
    )


LOGITS = torch.tensor([[[2.0, -1.0, 0.5], [-3.0, 0.1, 4.0]]])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def by_hand(loss: str, logit: float, label: float, code: int) -> float:
    """Each formula as its paper writes it, for one note and one code."""
    p = 1 / (1 + math.exp(-logit))
    right = p if label else 1 - p
    if loss == "focal":
        return -((1 - right) ** 2) * math.log(right)
    if loss == "asymmetric" and not label:
        shifted = max(p - 0.05, 0)
        return -(shifted**2) * math.log(1 - shifted)
    if loss == "class_balanced":
        weights = [(1 - 0.99) / (1 - 0.99**n) for n in (1, 5, 20)]
        return -math.log(right) * weights[code] * 3 / sum(weights)
    return -math.log(right)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_each_loss_is_its_formula(loss, reduction):
    of = config(loss=loss, loss_reduction=reduction, training_data={"code_counts": {"a": 1, "b": 5, "c": 20}})
    terms = [by_hand(loss, LOGITS[0, i, c].item(), LABELS[i, c].item(), c) for i in range(2) for c in range(3)]
    expected = sum(terms) / (2 if reduction == "sum" else 6)
    assert coding_loss(of, LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_of_parts_is_that_of_the_whole(loss):
    of = config(loss=loss, training_data={"code_counts": {"a": 1, "b": 5, "c": 20}})
    parts = sum(coding_loss(of, LOGITS[:, i : i + 1], LABELS[i : i + 1], num_items=6) for i in range(2))
    torch.testing.assert_close(parts, coding_loss(of, LOGITS, LABELS))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_finite_gradients_at_logits_that_are_far_off(loss):
    of = config(loss=loss, training_data={"code_counts": {"a": 1, "b": 5, "c": 20}})
    logits = torch.tensor([[[90.0, -90.0, 0.0]]], requires_grad=True)
    if LOSSES[loss].options and loss != "class_balanced":
        of.loss_options = {name: 0.5 for name in LOSSES[loss].options if "gamma" in name}
    coding_loss(of, logits, torch.tensor([[0.0, 1.0, 1.0]])).backward()
    assert logits.grad.isfinite().all()


def test_evidence_is_learned_from_until_the_attention_is_on_it(backbone):
    torch.manual_seed(0)
    model = LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, pooling="label_attention", window_size=8, evidence_weight=1.0
    ).train()
    ids, mask = notes(20, 9)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    evidence = torch.tensor([[[0, 3], [0, 4], [2, 17]], [[1, 8], [-1, -1], [-1, -1]]])
    optimizer = torch.optim.Adam(model.score.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        output = model(ids, mask, labels=labels, evidence=evidence)
        assert output.label_attentions is None  # not asked for
        output.loss.backward()
        optimizer.step()
    attentions = model(ids, mask, output_label_attentions=True).label_attentions
    assert attentions[0, 0, 3:5].sum() > 0.8
    assert attentions[0, 2, 17] > 0.8
    assert attentions[1, 1, 8] > 0.8


def test_evidence_loss_is_the_logarithm_of_the_attention_on_it():
    of = config(evidence_weight=0.5)
    attentions = torch.tensor([[[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]])  # of the codes 0 and 2
    evidence = torch.tensor([[[0, 1], [0, 2], [2, 0]]])
    expected = -0.5 * (math.log(0.9) + math.log(1 / 3))
    assert evidence_loss(of, attentions, evidence, LABELS[:1]).item() == pytest.approx(expected, rel=1e-5)
    assert evidence_loss(of, attentions[:, :0], torch.full((1, 2, 2), -1), LABELS[:1]).item() == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "hinge"}, "`loss` must be one of bce, focal, asymmetric, class_balanced, got 'hinge'"),
        ({"loss_reduction": "none"}, "`loss_reduction` must be 'sum' or 'mean', got 'none'"),
        ({"loss": "focal", "loss_options": {"beta": 1}}, "the loss 'focal' has no option beta; it takes gamma"),
        ({"loss": "focal", "loss_options": {"gamma": -1}}, "`gamma` must be a number from 0 to below inf, got -1"),
        ({"loss": "asymmetric", "loss_options": {"margin": 1}}, "`margin` must be a number from 0 to below 1, got 1"),
        ({"evidence_weight": -1}, "`evidence_weight` must be a number of at least 0, got -1"),
    ],
)
def test_a_wrong_loss_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_a_loss_that_weighs_by_counts_asks_for_them():
    with pytest.raises(ValueError, match=r"'class_balanced' needs the training notes of each code: .*`code_counts`"):
        coding_loss(config(loss="class_balanced"), LOGITS, LABELS)


def test_settings_of_the_loss_come_back(tmp_path):
    config(loss="asymmetric", loss_options={"margin": 0.1}, loss_reduction="mean").save_pretrained(tmp_path)
    again = LlamaICDConfig.from_pretrained(tmp_path)
    assert (again.loss, again.loss_options, again.loss_reduction) == ("asymmetric", {"margin": 0.1}, "mean")
    other = LlamaICDConfig.from_pretrained(tmp_path, loss="bce")  # which has no such option
    assert (other.loss, other.loss_options) == ("bce", None)
    other.loss = "focal"
    assert coding_loss(other, LOGITS, LABELS).isfinite()


def test_a_head_that_does_not_attend_learns_from_no_evidence():
    with pytest.raises(ValueError, match=r"`evidence_weight` \(1.0\) teaches an attention; 'last' has none"):
        LlamaICDConfig(evidence_weight=1.0)
