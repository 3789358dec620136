"""The shortlist: exact logits for the codes on it, estimates below them for the others; what is measured is what is stored."""

import copy

import pytest
import torch
from test_label_attention import batch_of
from test_models import make, notes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel

from modeling_icd import attention_icd
from modeling_icd.attention_icd import LabelAttentionHead
from modeling_icd.evaluation.shortlist import fit_shortlist
from modeling_icd.heads import HeadEnsemble, PooledHead, can_shortlist, run_head
from modeling_icd.multirescnn_icd import MultiResCNNHead


HEADS = {
    "label_attention": lambda: LabelAttentionHead(8, 40, 6),
    "multirescnn": lambda: MultiResCNNHead(8, 40, (3,), 6),
}


@pytest.mark.parametrize("name", HEADS)
def test_codes_on_the_list_are_exact_and_the_others_below_them(name):
    torch.manual_seed(2)
    head, (states, mask) = HEADS[name]().eval(), batch_of(9, 4, 1)
    with torch.no_grad():
        exact, _ = head(states, mask, False)
        short, attentions = run_head(head, states, mask, False, 10)
        assert attentions is None and short.dtype == exact.dtype
        same = (short - exact).abs() < 1e-5
        assert (same.sum(dim=1) >= 10).all() and not same.all()
        best = short.topk(10).indices
        torch.testing.assert_close(short.gather(1, best), exact.gather(1, best), atol=1e-5, rtol=1e-5)
        # Nobody's padding or neighbours change it.
        torch.testing.assert_close(run_head(head, states[1:2, :4], mask[1:2, :4], False, 10)[0], short[1:2])
        # With as many as there are codes, or attention asked for, all are exact.
        assert torch.equal(run_head(head, states, mask, False, 40)[0], exact)
        torch.testing.assert_close(run_head(head, states, mask, True, 10)[0], exact, atol=1e-6, rtol=1e-5)


def test_by_hand():
    head = LabelAttentionHead(2, 3).eval()
    with torch.no_grad():
        head.projection.weight.copy_(torch.eye(2))
        head.projection.bias.zero_()
        head.queries.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        head.output.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 5.0]]))
        head.output.bias.copy_(torch.tensor([0.0, 0.5, -9.0]))
        states = torch.tanh(torch.tensor([[[4.0, 0.0], [0.0, 4.0]]]))  # what a tanh makes of them again is near 0.76
        high = torch.tanh(states[0, 0, 0]).item()
        logits = head(states, torch.ones(1, 2, dtype=torch.long), False, shortlist=1)[0]
        # Estimates: 2 h times 3/2; h + 0.5; 0 times -5, less 9. The first is listed: 3 h by its softmax of 2 h and 0.
        share = torch.softmax(torch.tensor([2 * high, 0.0]), dim=0)[0].item()
        expected = torch.tensor([[3 * high * share, min(high + 0.5, 3 * high * share), -9.0]])
    torch.testing.assert_close(logits, expected, atol=0.01, rtol=0)


def test_an_ensemble_and_a_pooled_head_compute_all_codes():
    states, mask = batch_of(9, 4)
    for head in (HeadEnsemble(HEADS["label_attention"]() for _ in range(2)), PooledHead(8, 40, "mean")):
        head.eval()
        assert not can_shortlist(head)
        with torch.no_grad():
            assert torch.equal(run_head(head, states, mask, False, 10)[0], head(states, mask, False)[0])


@pytest.mark.parametrize("away", ["queries", "output"])
def test_weights_on_two_devices_are_brought_to_one(away, monkeypatch):
    def highest_scores(queries, states, attention_mask):  # which tokens are real has no answer without numbers
        return (states @ queries.T * attention_mask.unsqueeze(-1)).amax(dim=1)

    monkeypatch.setattr(attention_icd, "highest_scores", highest_scores)
    with FakeTensorMode(), torch.no_grad():  # tensors that have a device, and no numbers
        head, (states, mask) = HEADS["label_attention"]().eval(), batch_of(9, 4)
        layer = getattr(head, away)
        for name, weight in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(torch.empty_like(weight, device="cuda:0")))
        logits = head.estimated_logits(head.features(states, mask), mask)
    assert logits.shape == (2, 40) and logits.device == head.output.weight.device


def test_with_weights_on_disk_all_codes_are_computed(backbone, tmp_path):
    model = make("label_attention", backbone)
    ids, mask = notes(9, 5)
    for away in ("queries", "output"):
        model.save_pretrained(tmp_path / away)
        places = {"model": "cpu", **{f"score.{name}": "cpu" for name, _ in model.score.named_children()}}
        options = {"device_map": {**places, f"score.{away}": "disk"}, "offload_folder": tmp_path / "offload"}
        loaded = type(model).from_pretrained(tmp_path / away, **options).eval()
        assert getattr(loaded.score, away).weight.is_meta
        loaded.config.shortlist = {"size": 1}
        with torch.no_grad():
            torch.testing.assert_close(loaded(ids, mask).logits, model(ids, mask).logits)


def learned(backbone):
    """A model whose queries and outputs point one way, as where training begins, with 30 codes, and 60 notes."""
    torch.manual_seed(0)
    model = make("label_attention", backbone, window_size=8)
    model = type(model).from_pretrained(backbone, num_labels=30, pooling="label_attention", window_size=8).eval()
    with torch.no_grad():
        model.score.output.weight.copy_(4 * model.score.queries.weight.normal_())
    return model, [notes(5 + i % 9, seed=i)[0][0].tolist() for i in range(60)]


def test_what_is_measured_is_stored_saved_and_used_until_the_model_learns(backbone, tmp_path):
    model, given = learned(backbone)
    gold = [[i % 30] for i in range(60)]
    found = fit_shortlist(model, given, gold, size=29)
    assert found == model.config.shortlist and (found["size"], found["notes"]) == (29, 60)
    assert found["top_15_kept"] == 1 and abs(found["f1_micro_lost"]) <= 0.001
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert again.config.shortlist == found
    ids, mask = notes(20, 5)
    again.config.shortlist = {"size": 16}
    with torch.no_grad():
        short = again(ids, mask)
    exact = again(ids, mask)  # with gradients: all codes
    assert not torch.equal(short.logits, exact.logits)
    best = short.logits.topk(5).indices
    torch.testing.assert_close(short.logits.gather(1, best), exact.logits.gather(1, best), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        asked = again(ids, mask, label_attentions_for=[1])
    torch.testing.assert_close(asked.logits, exact.logits, atol=1e-5, rtol=1e-5)
    assert again.train().config.shortlist is None
    other = AutoModel.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert other.config.shortlist is None


def test_what_loses_codes_is_refused_and_nothing_set(backbone):
    model, given = learned(backbone)
    with torch.no_grad():
        model.score.output.weight.copy_(-model.score.output.weight)  # estimates that are wrong
    with pytest.raises(
        ValueError, match=r"With a shortlist of 15 codes .*% of the notes lose one of their 15 best codes"
    ):
        fit_shortlist(model, given, [[0]] * 60, size=15)
    assert model.config.shortlist is None
    for message, options in (
        ("`size` must be from 15 to 29", {"size": 30}),
        ("50 notes at least, and there are 9", {"notes": given[:9], "size": 20}),
        ("a single head that attends, and this one does not attend", {"model": make("mean", backbone)}),
        ("a single head that attends, and this one is an ensemble", {"model": make("ensemble", backbone)}),
    ):
        with pytest.raises(ValueError, match=message):
            fit_shortlist(**{"model": model, "notes": given, "gold": [[0]] * 60, **options})


def test_a_configuration_says_what_is_wrong_with_it(backbone):
    with pytest.raises(ValueError, match="`shortlist size` must be a whole number of at least 1"):
        make("label_attention", backbone, shortlist={"notes": 5})
    with pytest.raises(
        ValueError, match=r"`shortlist` is of a head that attends, and whose output .*; 'mean' is none"
    ):
        make("mean", backbone, shortlist={"size": 5})
    with pytest.raises(
        ValueError, match="`shortlist` is of a single head, and `head_ensemble_size` is 2: leave it out"
    ):
        make("ensemble", backbone, shortlist={"size": 5})
    model = make("label_attention", backbone)
    model.config.shortlist = 7
    with pytest.raises(ValueError, match=r"`shortlist` must be None or a dictionary with a `size`, .* got 7"):
        type(model)(model.config)
    config = copy.deepcopy(make("label_attention", backbone).config)
    assert config.shortlist is None
