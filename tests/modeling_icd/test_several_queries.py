"""Several queries for each code: logits are those of MSMN's equations written out, and queries start at terms in turn."""

import json

import pytest
import torch
from test_further_texts import run
from test_label_attention import CODES, WIDTH, batch_of
from test_models import MODELS, make, notes
from test_start import some_notes

from modeling_icd import LAATHead, LabelAttentionHead, LlamaForICDCoding, MultiResCNNHead
from modeling_icd.attention_icd import LabelQueries
from modeling_icd.training.run import texts_to_start_from
from modeling_icd.training.start import log_odds, start_head


HEADS = {
    "label_attention": lambda number: LabelAttentionHead(WIDTH, CODES, 6, num_queries=number),
    "laat": lambda number: LAATHead(WIDTH, CODES, 6, num_queries=number),
    "multirescnn": lambda number: MultiResCNNHead(
        WIDTH, CODES, (3,), 4, norm="layer", projection_size=6, num_queries=number
    ),
}


def head_of(name, number):
    torch.manual_seed(3)
    return HEADS[name](number).eval()


def explicit_logits(head, states, mask, number):
    """As MSMN has it: the projection and the queries in parts, a softmax for each, and of what they sum the highest entries."""
    features, values = head.memory(states, mask)
    parts = features.reshape(*features.shape[:2], number, -1)  # (B, L, M, F / M)
    queries = head.queries.weight.reshape(CODES, number, -1)
    scores = torch.einsum("blmf,cmf->bclm", parts, queries)
    attentions = scores.masked_fill(mask[:, None, :, None] == 0, -float("inf")).softmax(dim=2)
    summaries = torch.einsum("blv,bclm->bcvm", values, attentions).max(dim=-1).values
    return (summaries * head.output.weight).sum(dim=-1) + head.output.bias, attentions.mean(dim=-1)


@pytest.mark.parametrize("number", [1, 2, 6])
@pytest.mark.parametrize("name", HEADS)
def test_logits_and_gradients_are_those_of_the_equations(name, number):
    head, other = (head_of(name, number) for _ in range(2))
    (states, mask), weights = batch_of(9, 4, 1), torch.randn(3, CODES)
    logits, attentions = head(states, mask)
    expected, attended = explicit_logits(other, states, mask, number)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attentions, attended, atol=1e-5, rtol=1e-5)
    for given in (head(states, mask, False)[0], expected):
        (given * weights).sum().backward()
    for ours, theirs in zip(head.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert (type(head.queries) is LabelQueries) == (number == 1)


@pytest.mark.parametrize("name", ["label_attention", "multirescnn"])
def test_a_model_with_several_loads_and_reads_any_batch_alike(name, backbone, tmp_path):
    model = make(name, backbone, num_queries=4, window_size=8)
    model.save_pretrained(tmp_path)
    again = MODELS[name][0].from_pretrained(tmp_path).eval()
    ids, mask = notes(20, 5)
    with torch.no_grad():
        output = model(ids, mask, output_label_attentions=True)
        assert torch.equal(again(ids, mask, output_label_attentions=True).logits, output.logits)
        torch.testing.assert_close(model(ids[1:, :5]).logits, output.logits[1:], atol=1e-5, rtol=1e-5)
        narrow = again.bfloat16()
        assert narrow(hidden_states=torch.randn(1, 3, 16).bfloat16()).logits.isfinite().all()
    torch.testing.assert_close(output.label_attentions.sum(dim=-1), torch.ones(2, 5))


def test_they_start_at_the_title_and_the_terms_in_turn(backbone):
    titles, terms = {0: [3, 4], 1: [5], 3: [6, 7, 8]}, {0: [[9, 10], [11]], 3: [[12]]}
    torch.manual_seed(0)
    model = LlamaForICDCoding.from_pretrained(
        backbone, num_labels=4, pooling="laat", num_queries=4, window_size=8
    ).eval()
    before = model.score.queries.weight.detach().clone().view(4, 4, -1)
    start_head(model, some_notes(20), None, 100, seed=0, titles=titles, terms=terms)
    means = {}
    for code, ids in titles.items():
        means[code] = []
        for text in [ids, *terms.get(code, [])]:
            text = torch.tensor([text])
            with torch.no_grad():
                states = model.read_hidden_states(text, torch.ones_like(text)).bfloat16().float()
                means[code].append(model.score.features(states, torch.ones_like(text))[0].mean(dim=0))
    every = [mean for of_code in means.values() for mean in of_code]
    middle = sum(every) / len(every)
    queries = model.score.queries.weight.view(4, 4, -1)
    for code, texts in {0: [0, 1, 2, 0], 1: [0, 0, 0, 0], 3: [0, 1, 0, 1]}.items():
        for number, text in enumerate(texts):
            part = (means[code][text] - middle).view(4, -1)[number]
            assert torch.cosine_similarity(queries[code, number], part, dim=0) > 0.999
    assert torch.equal(queries[2], before[2])  # which has no title


def test_they_do_not_start_from_notes():
    class Model:
        config = type("Config", (), {"num_labels": CODES})

        def __init__(self, head):
            self.score = head

    head, data = head_of("label_attention", 2), some_notes(30)
    before = head.queries.weight.clone()
    start_head(Model(head), data, lambda ids: torch.randn(len(ids), WIDTH))
    assert torch.equal(head.queries.weight, before)
    counts = [sum(code in note["label_ids"] for note in data) for code in range(CODES)]
    torch.testing.assert_close(head.output.bias.data, log_odds(counts, 30))


def test_a_run_takes_terms_from_the_classification(corpus, backbone, tmp_path):
    options = {"num_queries": 2, "start_titles": True, "freeze_backbone": True}
    assert run(corpus, backbone, tmp_path / "model", **options) == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_queries"] == 2
    model = LlamaForICDCoding.from_pretrained(tmp_path / "model")
    model.config.id2label, model.config.label2id = {0: "N20.0", 1: "A00.0"}, {"N20.0": 0, "A00.0": 1}
    model.config.code_descriptions = {"N20.0": "Calculus of kidney"}
    pytest.importorskip("simple_icd_10_cm")
    found = texts_to_start_from(model, lambda text: {"input_ids": [text]})
    assert [*found] == [0] and found[0][0] == ["Calculus of kidney"] and len(found[0]) == 2


def test_what_cannot_be_is_named(backbone):
    fields = {"num_labels": 2, "window_size": 8}
    with pytest.raises(ValueError, match=r"`num_queries` \(3\) must divide the width that is attended over \(16\)"):
        LlamaForICDCoding.from_pretrained(backbone, pooling="label_attention", num_queries=3, **fields)
    with pytest.raises(ValueError, match="`num_queries` must be a whole number of at least 1, got 0"):
        LlamaForICDCoding.from_pretrained(backbone, pooling="label_attention", num_queries=0, **fields)
    with pytest.raises(ValueError, match=r"`num_queries` \(2\) is no option of the head 'mean': leave it out"):
        LlamaForICDCoding.from_pretrained(backbone, pooling="mean", num_queries=2, **fields)
    with pytest.raises(ValueError, match="`shortlist` is of a head with one query a code, and `num_queries` is 2"):
        LlamaForICDCoding.from_pretrained(
            backbone, pooling="label_attention", num_queries=2, shortlist={"size": 1}, **fields
        )
