"""What may be learned beside the loss: the tree of codes, and two passes that agree. Nothing of it by default."""

import math

import pytest
import torch
from test_models import MODELS, make, notes

from modeling_icd import LlamaICDConfig
from modeling_icd.loss_icd import coding_loss, smooth_labels


CODES = {0: "250.00", 1: "401.1", 2: "250.01", 3: "401.9", 4: "250.02"}
LOGITS = torch.tensor([[[2.0, -1.0, 0.5, -2.0, 0.0]]])
LABELS = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0]])


def config(**fields):
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaICDConfig(**sizes, num_attention_heads=2, pooling="label_attention", **{"id2label": CODES, **fields})


def entropy(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_a_code_gives_a_share_to_its_siblings():
    categories = torch.tensor([0, 1, 0, 1, 0, 2])
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    # Of category 0 the codes 0 and 4 each give 0.1 to both others; category 2 has a single code.
    expected = torch.tensor([[0.9, 0.0, 0.2, 0.0, 0.9, 1.0], [0.0, 0.8, 0.0, 0.2, 0.0, 0.0]])
    torch.testing.assert_close(smooth_labels(labels, categories, 0.2), expected)
    assert torch.equal(smooth_labels(labels, categories, 0.0), labels)


def test_smoothed_labels_are_learned_from():
    smoothed = sum(map(entropy, LOGITS[0, 0].tolist(), [0.9, 0.0, 0.2, 0.0, 0.9]))
    assert coding_loss(config(tree_smoothing=0.2), LOGITS, LABELS).item() == pytest.approx(smoothed, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_categories_are_learned_from(reduction):
    p = torch.sigmoid(LOGITS[0, 0]).tolist()
    diabetes, hypertension = (1 - math.prod(1 - p[i] for i in codes) for codes in ((0, 2, 4), (1, 3)))
    categories = -math.log(diabetes) - math.log(1 - hypertension)
    codes = sum(map(entropy, LOGITS[0, 0].tolist(), LABELS[0].tolist()))
    expected = codes + 0.5 * categories if reduction == "sum" else codes / 5 + 0.5 * categories / 2
    of = config(category_weight=0.5, loss_reduction=reduction)
    assert coding_loss(of, LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)
    alone = config(category_weight=0.5, id2label={**CODES, 1: "402", 3: "401.9"}, loss_reduction=reduction)
    expected = codes - 0.5 * math.log(diabetes) if reduction == "sum" else codes / 5 - 0.5 * math.log(diabetes)
    assert coding_loss(alone, LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_at_logits_that_are_far_off():
    logits = torch.tensor([[[-120.0, 90.0, -120.0, -90.0, -120.0]]], requires_grad=True)
    coding_loss(config(category_weight=1.0, tree_smoothing=0.1, r_drop=1.0), logits, LABELS, again=-logits).backward()
    assert logits.grad.isfinite().all()


def test_two_passes_are_drawn_together_by_both_divergences():
    again = LOGITS + torch.tensor([0.5, -0.2, 0.0, 1.0, 0.3])
    divergence = 0.0
    for first, second in zip(LOGITS[0, 0].tolist(), again[0, 0].tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-first)), 1 / (1 + math.exp(-second))
        divergence += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        divergence += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    plain = config()
    mean = (coding_loss(plain, LOGITS, LABELS) + coding_loss(plain, again, LABELS)).item() / 2
    found = coding_loss(config(r_drop=5.0), LOGITS, LABELS, again=again).item()
    # The paper's loss is the sum of both and r_drop times half of the divergences; this is half of it.
    assert found == pytest.approx(mean + 5.0 * divergence / 2 / 2, rel=1e-5)
    assert coding_loss(config(r_drop=5.0), LOGITS, LABELS, again=LOGITS).item() == pytest.approx(
        coding_loss(plain, LOGITS, LABELS).item()
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("is_frozen", [True, False])
def test_training_reads_twice_only_with_r_drop(name, is_frozen, backbone):
    ids, mask = notes(12, 5)
    labels = torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    model = make(name, backbone, head_dropout=0.5, freeze_backbone=is_frozen, r_drop=5.0)
    passes = {"head": 0, "backbone": 0}
    model.score.register_forward_hook(lambda *_: passes.update(head=passes["head"] + 1))
    model.model.register_forward_hook(lambda *_: passes.update(backbone=passes["backbone"] + 1))
    for is_training, r_drop, expected in ((True, 5.0, 2), (True, 0.0, 1), (False, 5.0, 1)):
        model.train(is_training)
        model.config.r_drop = r_drop
        passes.update(head=0, backbone=0)
        loss = model(ids, mask, labels=labels).loss
        of_backbone = passes["backbone"]
        assert passes["head"] == expected
        passes.update(backbone=0)
        with torch.no_grad():
            model.read_hidden_states(ids, mask)
        assert of_backbone == passes["backbone"] * (1 if is_frozen else expected)
        assert loss.isfinite()
    model.train()
    model(ids, mask, labels=labels).loss.backward()
    assert all(weight.grad is not None for weight in model.score.parameters())


def test_they_are_saved_with_the_model(tmp_path):
    config(tree_smoothing=0.05, category_weight=0.5, r_drop=5, head_dropout=0.1).save_pretrained(tmp_path)
    again = LlamaICDConfig.from_pretrained(tmp_path)
    assert (again.tree_smoothing, again.category_weight, again.r_drop) == (0.05, 0.5, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tree_smoothing": 1}, "`tree_smoothing` must be a number from 0 to below 1, got 1"),
        ({"category_weight": -1}, "`category_weight` must be a number of at least 0, got -1"),
        ({"r_drop": "5"}, "`r_drop` must be a number of at least 0, got '5'"),
        (
            {"r_drop": 5, "freeze_backbone": True},
            r"`r_drop` \(5\) draws two passes .* has no dropout: give `head_dropout`",
        ),
        (
            {"tree_smoothing": 0.1, "id2label": {0: "401.9", 1: "250.00"}},
            "codes that share a category, their first three characters, and no two of the 2 codes do",
        ),
    ],
)
def test_what_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)
