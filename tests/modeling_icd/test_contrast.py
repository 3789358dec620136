"""Label-aware contrast: what it draws together is worked out one pair at a time, and a trained model knows nothing of it."""

import copy
import math

import pytest
import torch
from test_comparators import KINDS, readers  # noqa: F401 - a fixture
from test_further_texts import run
from test_knowledge import config
from test_models import make, notes

from modeling_icd import LlamaForICDCoding
from modeling_icd.heads import members_of
from modeling_icd.loss_icd import contrast_loss


LABELS = torch.tensor([[1.0, 0, 1, 1, 0], [1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 1, 0, 0]])


def by_hand(summaries, labels, temperature: float) -> float:
    """The mean over codes and notes with them of the mean over the other notes with them, or `nan` where there is no pair."""
    losses = []
    for code in range(labels.shape[1]):
        has = [note for note in range(len(labels)) if labels[note, code]]
        if not 1 < len(has) < len(labels):
            continue

        def likeness(a, b, code=code):
            return torch.cosine_similarity(summaries[a, code], summaries[b, code], dim=0).item() / temperature

        for note in has:
            every = sum(math.exp(likeness(note, other)) for other in range(len(labels)) if other != note)
            pairs = [-math.log(math.exp(likeness(note, other)) / every) for other in has if other != note]
            losses.append(sum(pairs) / len(pairs))
    return sum(losses) / len(losses) if losses else float("nan")


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_is_what_pairs_give_one_by_one(reduction):
    torch.manual_seed(0)
    summaries = torch.randn(4, 5, 6)
    of = config(contrast_weight=0.05, contrast_temperature=0.5, loss_reduction=reduction)
    # Codes 0 and 3 are those of some notes and not of all; code 1 has one note, code 2 all, code 4 none.
    expected = 0.05 * by_hand(summaries, LABELS, 0.5) * 4 * (5 if reduction == "sum" else 1)
    assert contrast_loss(of, summaries, LABELS).item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrast_loss(of, summaries, LABELS).item() == pytest.approx(expected, rel=1e-5)
    narrow = contrast_loss(of, summaries.bfloat16(), LABELS)
    assert narrow.dtype == torch.float32 and narrow.item() == pytest.approx(expected, rel=0.02)
    order = torch.tensor([2, 0, 3, 1])
    assert contrast_loss(of, summaries[order], LABELS[order]).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_pair_adds_nothing():
    summaries = torch.randn(2, 5, 6)
    assert contrast_loss(config(contrast_weight=1.0), summaries, LABELS[:2]) is None  # both notes are alike
    assert contrast_loss(config(contrast_weight=1.0), summaries[:1], LABELS[:1]) is None
    assert contrast_loss(config(contrast_weight=1.0), summaries, torch.zeros(2, 5)) is None


def test_of_many_codes_some_are_drawn():
    torch.manual_seed(0)
    summaries, of = torch.randn(4, 5, 6), config(contrast_weight=1.0, contrast_codes=1, loss_reduction="mean")
    alone = {}
    for code in (0, 3):
        only = torch.zeros_like(LABELS)
        only[:, code] = LABELS[:, code]
        alone[code] = round(contrast_loss(of, summaries, only).item(), 4)
    drawn = {round(contrast_loss(of, summaries, LABELS).item(), 4) for _ in range(30)}
    assert drawn == set(alone.values())


def test_it_draws_notes_of_a_code_together():
    torch.manual_seed(0)
    summaries = torch.randn(4, 5, 6, requires_grad=True)
    optimizer = torch.optim.SGD([summaries], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        contrast_loss(config(contrast_weight=1.0, contrast_temperature=0.5), summaries, LABELS).backward()
        optimizer.step()
    vectors = torch.nn.functional.normalize(summaries.detach()[:, 0], dim=-1)
    similar = vectors @ vectors.T
    assert similar[[0, 0, 1], [1, 3, 3]].min() > 0.95 > 0 > similar[2, [0, 1, 3]].max()


@pytest.mark.parametrize("name", ["label_attention", "multirescnn", "ensemble"])
@pytest.mark.parametrize("r_drop", [0.0, 2.0])
def test_a_model_learns_from_it_in_training_alone(name, r_drop, backbone):
    ids, mask = notes(12, 5, 7, 3)
    fields = {"r_drop": r_drop, "head_dropout": 0.2 if r_drop else 0.0}
    plain, model = (make(name, backbone, contrast_weight=weight, **fields) for weight in (0.0, 0.5))
    model.load_state_dict(plain.state_dict())
    losses = []
    for one in (plain.train(), model.train()):
        torch.manual_seed(5)
        losses.append(one(ids, mask, labels=LABELS).loss)
    assert losses[1] > losses[0]
    if not r_drop:
        heads = members_of(model.score)
        summaries = [
            head.queries(head.features(model.read_hidden_states(ids, mask), mask), mask, False)[0] for head in heads
        ]
        expected = sum(0.5 * 5 * by_hand(one, LABELS, 0.1) for one in summaries) / len(heads)
        torch.testing.assert_close((losses[1] - losses[0]).item(), expected, rtol=1e-4, atol=1e-4)
        part = model(ids, mask, labels=LABELS, num_items_in_batch=40).loss  # of an update with as many notes more
        torch.testing.assert_close(part, losses[1] / 2)
    losses[1].backward()
    assert not any(head.take_summaries() is not None for head in members_of(model.score))
    copy.deepcopy(model)
    plain.eval(), model.eval()
    torch.testing.assert_close(model(ids, mask, labels=LABELS).loss, plain(ids, mask, labels=LABELS).loss)
    assert [*model.state_dict()] == [*plain.state_dict()]


def test_every_head_that_attends_can_be_contrasted(readers):  # noqa: F811
    for kind in ("laat", "joint laat", "cross attention", "caml"):
        model_class, head, options, reader = KINDS[kind]
        named = {} if head is None else {"head": head}
        model = model_class.from_pretrained(
            readers(**reader), num_labels=5, head_options={**options}, contrast_weight=0.5, **named
        ).train()
        ids, mask = notes(9, 5, 7, 3)
        loss = model(ids.clamp(max=29), mask, labels=LABELS).loss
        loss.backward()
        assert loss.isfinite() and all(weight.grad.isfinite().all() for weight in model.parameters())


def test_a_run_says_how_many_codes_have_a_pair(corpus, backbone, tmp_path, capsys):
    given = {"contrast_weight": 0.05, "freeze_backbone": True}
    assert run(corpus, backbone, tmp_path / "few", **given, per_device_train_batch_size=2) == 2
    assert "and a batch holds 2 (`per_device_train_batch_size`): give at least 3" in capsys.readouterr().err
    assert run(corpus, backbone, tmp_path / "model", **given, per_device_train_batch_size=4) == 0
    assert "To contrast: in a batch of 4 notes about " in capsys.readouterr().out
    again = LlamaForICDCoding.from_pretrained(tmp_path / "model")
    assert (again.config.contrast_weight, again.config.contrast_codes) == (0.05, 128)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contrast_weight": -1}, "`contrast_weight` must be a number of at least 0, got -1"),
        ({"contrast_temperature": 0}, "`contrast_temperature` must be a number above 0, got 0"),
        ({"contrast_codes": 0}, "`contrast_codes` must be a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_a_head_that_does_not_attend_has_nothing_to_contrast(backbone):
    with pytest.raises(
        ValueError, match=r"`contrast_weight` \(1\) contrasts what each code attends to, and the head 'mean'"
    ):
        LlamaForICDCoding.from_pretrained(backbone, num_labels=2, pooling="mean", contrast_weight=1)
