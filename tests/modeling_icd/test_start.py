"""Heads started from the training notes: in closed form they already know where a code stands."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from modeling_icd import (
    LabelAttentionHead,
    LlamaForICDCoding,
    LlamaICDConfig,
    LlamaMultiResCNNForICD,
    ModelForICDCoding,
    MultiResCNNHead,
    PooledHead,
)
from modeling_icd.heads import HeadEnsemble, start_at_prior
from modeling_icd.training import start
from modeling_icd.training.arguments import ModelArguments
from modeling_icd.training.start import (
    Moments,
    check_codes_to_start,
    choose_notes,
    log_odds,
    start_head,
    weights_of_tokens,
)


D, CODES = 48, 4
WORDS = torch.from_numpy(np.random.default_rng(7).normal(size=(30, D))).float()  # the state of each word


def some_notes(num_notes: int, seed: int = 0) -> datasets.Dataset:
    """Notes of words 4 to 29, in which the words 0 to 3 stand for the codes."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_notes):
        codes = sorted(generator.choice(CODES, size=2, replace=False).tolist())
        words = generator.integers(4, 30, size=25).tolist()
        places = generator.choice(25, size=2, replace=False).tolist()
        for code, place in zip(codes, places, strict=True):
            words[place] = code
        evidence = [[code, place] for code, place in zip(codes, places, strict=True)]
        rows.append({"input_ids": words, "length": 25, "label_ids": codes, "evidence": evidence})
    return datasets.Dataset.from_list(rows)


def read(words):
    return WORDS[words]


class Model:
    """As much of a model as is needed: its head."""

    def __init__(self, head):
        self.score, self.config = head, type("Config", (), {"num_labels": CODES})


def heads():
    torch.manual_seed(0)
    return {
        "label_attention": LabelAttentionHead(D, CODES),
        "narrow": LabelAttentionHead(D, CODES, projection_size=40),
        "wide": LabelAttentionHead(D, CODES, projection_size=64),
        "with context": LabelAttentionHead(D, CODES, context_size=3),
        "multirescnn": MultiResCNNHead(
            D, CODES, (1, 3), 4, reduction_size=48, norm="layer", reduced_path=True, projection_size=64
        ),
    }


def share_right(head, notes) -> float:
    """How often the codes of a note are the ones with the two highest logits."""
    right = 0
    for note in notes:
        states = read(note["input_ids"])[None]
        logits = head.eval()(states, torch.ones(states.shape[:2], dtype=torch.long))[0][0]
        right += sorted(logits.topk(2).indices.tolist()) == note["label_ids"]
    return right / len(notes)


@pytest.mark.parametrize("is_marked", [True, False], ids=["evidence", "no evidence"])
@pytest.mark.parametrize("kind", ["label_attention", "narrow", "wide", "with context", "multirescnn"])
def test_a_started_head_knows_the_codes_of_new_notes(kind, is_marked):
    head, notes, others = heads()[kind], some_notes(80), some_notes(40, seed=1)
    assert share_right(head, others) < 0.5
    start_head(Model(head), notes if is_marked else notes.remove_columns("evidence"), read, 100, seed=0)
    assert share_right(head, others) > (0.75 if kind in ("multirescnn", "with context") else 0.9)


def test_the_mean_logit_is_the_log_odds():
    head, notes = heads()["label_attention"], some_notes(50)
    start_head(Model(head), notes, read, 100, seed=0)
    mask = torch.ones(1, 25, dtype=torch.long)
    logits = torch.cat([head.eval()(read(note["input_ids"])[None], mask)[0] for note in notes])
    counts = [sum(code in note["label_ids"] for note in notes) for code in range(CODES)]
    torch.testing.assert_close(logits.mean(dim=0), log_odds(counts, 50), atol=5e-3, rtol=0)


@pytest.mark.parametrize("kind", ["with context", "multirescnn"])
def test_a_head_that_looks_at_no_note_gets_small_weights_and_the_log_odds(kind):
    head, notes = heads()[kind], some_notes(50)
    for weight in head.parameters():
        torch.nn.init.constant_(weight, 3.0)
    start_head(Model(head), notes, read, max_notes=0, seed=0)
    for layer in (layer for layer in head.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d)):
        assert layer.weight.std() > 0
        assert layer.weight.abs().max() <= layer.weight[0].numel() ** -0.5
    counts = [sum(code in note["label_ids"] for note in notes) for code in range(CODES)]
    torch.testing.assert_close(head.output.bias.data, log_odds(counts, 50))


@pytest.mark.parametrize("kind", ["label_attention", "multirescnn"])
def test_features_that_do_not_fit_into_memory_are_computed_again(kind, monkeypatch):
    first, second = heads()[kind], heads()[kind]
    start_head(Model(first), some_notes(30), read, 100, seed=0)
    monkeypatch.setattr(start, "KEPT_BYTES", 100)
    start_head(Model(second), some_notes(30), read, 100, seed=0)
    for (name, kept), again in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(kept, again, atol=0.02, rtol=0.02, msg=name)


def test_it_is_the_same_each_time_and_leaves_the_mode_as_it_was():
    first, second = heads()["label_attention"].train(), heads()["label_attention"].train()
    for head in (first, second):
        start_head(Model(head), some_notes(30), read, 100, seed=0)
        assert head.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_code_that_no_chosen_note_has_keeps_its_random_query():
    head = heads()["label_attention"]
    before = head.queries.weight[3].clone()
    start_head(Model(head), some_notes(40).filter(lambda note: 3 not in note["label_ids"]), read, 100, seed=0)
    assert torch.equal(head.queries.weight[3], before)
    assert head.output.weight.isfinite().all()


def test_a_pooled_head_gets_its_biases():
    head = PooledHead(D, CODES, "mean", score_bias=True)
    start_head(Model(head), some_notes(40), read, 100, seed=0)
    assert (head.bias != 0).any()
    start_at_prior(PooledHead(D, CODES), torch.ones(CODES))  # has none


def test_log_odds_are_clipped_by_half_a_note():
    odds = log_odds([0, 1, 5, 10], 10)
    torch.testing.assert_close(odds.sigmoid(), torch.tensor([0.5, 1.5, 5.5, 10.5]) / 11)


def test_of_many_notes_those_with_rare_codes_are_looked_at():
    labels = [[0, 1]] * 50 + [[2]] + [[]] * 5 + [[0, 3]] * 2
    chosen = choose_notes(labels, 10, seed=0)
    assert len(chosen) == 10
    assert {50, 56, 57} <= set(chosen)
    assert sorted(choose_notes(labels, 100, seed=0)) == list(range(58))


def test_moments_are_those_of_all_parts():
    torch.manual_seed(0)
    rows = torch.randn(500, 6) @ torch.randn(6, 6) + 3
    moments = Moments(6)
    for part in rows.split(77):
        moments.add(part)
    white = (rows.double() - moments.mean()) @ moments.whitener(6, 0).T
    torch.testing.assert_close(white.T @ white / 500, torch.eye(6).double(), atol=0.01, rtol=0)


def test_a_token_is_evidence_of_the_code_that_it_is_most_like():
    similar = torch.tensor([[5.0, 4.0], [0.0, 3.0], [-1.0, -1.0]])
    weights = weights_of_tokens(similar)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2))
    assert weights.argmax(dim=0).tolist() == [0, 1]


@pytest.mark.parametrize("model_class", [LlamaForICDCoding, LlamaMultiResCNNForICD])
def test_the_backbone_reads_the_notes_where_no_states_are_kept(model_class, backbone):
    torch.manual_seed(0)
    own = {} if model_class is LlamaMultiResCNNForICD else {"pooling": "label_attention"}
    model = model_class.from_pretrained(backbone, num_labels=CODES, window_size=8, **own)
    assert model.head_is_new
    before = model.score.queries.weight.clone()
    start_head(model, some_notes(20), None, 100, seed=0)
    assert not torch.equal(model.score.queries.weight, before)
    assert model(torch.ones(1, 9, dtype=torch.long)).logits.isfinite().all()


def test_a_saved_head_is_not_new(backbone, tmp_path):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=CODES, pooling="label_attention")
    model.save_pretrained(tmp_path)
    again = LlamaForICDCoding.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="would undo its training"):
        start_head(again, some_notes(20))
    other = LlamaForICDCoding.from_pretrained(tmp_path, num_labels=CODES + 1, ignore_mismatched_sizes=True)
    assert other.head_is_new


def test_heads_of_an_ensemble_start_apart():
    ensemble = HeadEnsemble(heads()["label_attention"] for _ in range(2))
    start_head(Model(ensemble), some_notes(60), read)
    first, second = (member.output.weight for member in ensemble.members)
    assert (first - second).abs().max() > 0.01
    assert all(share_right(member, some_notes(40, seed=1)) > 0.9 for member in ensemble.members)


def test_notes_without_a_token_are_passed_over():
    empty = datasets.Dataset.from_list([{"input_ids": [], "length": 0, "label_ids": [1], "evidence": []}])
    notes = datasets.concatenate_datasets([some_notes(30), empty.cast(some_notes(1).features)])
    head, same = heads()["label_attention"], heads()["label_attention"]
    start_head(Model(head), notes, read)
    start_head(Model(same), some_notes(30), read)
    assert torch.equal(head.queries.weight, same.queries.weight)


def test_a_head_with_batch_norm_gets_its_biases_alone():
    head = MultiResCNNHead(D, CODES, (3,), 4, reduction_size=8)
    before = head.queries.weight.clone()
    start_head(Model(head), some_notes(30), read)
    assert torch.equal(head.queries.weight, before)
    counts = [sum(code in note["label_ids"] for note in some_notes(30)) for code in range(CODES)]
    torch.testing.assert_close(head.output.bias.data, log_odds(counts, 30))


TITLES = {0: [3, 4], 1: [5], 3: [6, 7, 8]}


@pytest.mark.parametrize("head", ["label_attention", "multirescnn", "laat", "joint_laat", "cross_attention", "caml"])
def test_queries_start_from_titles_where_they_do_not_from_notes(head, backbone):
    options = {"architecture": "paper", "num_filter_maps": 4, "reduction_size": 8} if head == "multirescnn" else {}
    torch.manual_seed(0)
    model = ModelForICDCoding.from_pretrained(
        backbone, num_labels=CODES, head=head, head_options=options, window_size=8
    ).eval()
    queries = model.score.queries.weight
    random, max_notes = queries.clone(), 0 if head == "label_attention" else 100
    start_head(model, some_notes(20), None, max_notes, seed=0, titles=TITLES)
    assert not model.score.training
    means = {}
    for code, ids in TITLES.items():
        ids = torch.tensor([ids])
        with torch.no_grad():
            states = model.read_hidden_states(ids, torch.ones_like(ids)).bfloat16().float()
            means[code] = model.score.features(states, torch.ones_like(ids))[0].mean(dim=0)
    middle = sum(means.values()) / 3
    for code, mean in means.items():
        assert torch.cosine_similarity(queries[code], mean - middle, dim=0) > 0.999
    norms = queries[list(TITLES)].norm(dim=1)
    torch.testing.assert_close(norms, norms.mean().expand(3))
    if head != "label_attention":  # whose random weights are drawn again
        torch.testing.assert_close(norms.mean(), random.norm(dim=1).mean())
        assert torch.equal(queries[2], random[2])  # which has no title


RARE = {"label_attention": LlamaForICDCoding, "multirescnn": LlamaMultiResCNNForICD}


@pytest.mark.parametrize("max_notes", [0, 100], ids=["prior", "notes"])
@pytest.mark.parametrize("head", RARE)
def test_titles_of_rare_codes_alone_change_no_other_code(head, max_notes, backbone):
    # One note has code 3, and no other code, so that no other changes with it.
    plain = some_notes(60).filter(lambda note: 3 not in note["label_ids"]).remove_columns("evidence")
    rare = datasets.Dataset.from_list([{"input_ids": [*range(4, 29)], "length": 25, "label_ids": [3]}])
    notes = datasets.concatenate_datasets([plain, rare.cast(plain.features)])
    options = {"pooling": "label_attention"} if head == "label_attention" else {"reduction_size": 8}
    queries = {}
    for limit in ("no titles", 0, 1, None):
        torch.manual_seed(0)
        model = RARE[head].from_pretrained(backbone, num_labels=CODES, window_size=32, **options)
        torch.manual_seed(1)
        titles = {} if limit == "no titles" else {"titles": TITLES, "titles_up_to": limit}
        start_head(model, notes, None, max_notes, seed=0, **titles)
        queries[limit] = model.score.queries.weight.detach().clone()
    assert torch.equal(queries[0], queries["no titles"])
    assert torch.equal(queries[1][:3], queries["no titles"][:3])
    assert not torch.allclose(queries[1][3], queries["no titles"][3])
    torch.testing.assert_close(queries[1][3], queries[None][3])
    if not max_notes:
        assert not torch.allclose(queries[None][0], queries["no titles"][0])


def test_titles_are_refused_where_nothing_attends(backbone):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=CODES, pooling="mean", score_bias=True)
    with pytest.raises(ValueError, match="a PooledHead has none: leave out `start_titles`"):
        start_head(model, some_notes(20), None, 0, titles=TITLES)
    with pytest.raises(ValueError, match="`head_start` 'random' does not: choose 'prior' or 'notes'"):
        ModelArguments("direct", backbone, head_start="random", start_titles=True)
    with pytest.raises(ValueError, match=r"`start_titles_up_to` says which codes .*: give `start_titles`, too"):
        ModelArguments("direct", backbone, pooling="label_attention", start_titles_up_to=5)
    with pytest.raises(ValueError, match="`start_titles_up_to` must be at least 0, got -1"):
        ModelArguments("direct", backbone, pooling="label_attention", start_titles=True, start_titles_up_to=-1)


def test_titles_are_checked_with_the_notes_that_a_head_is_started_with():
    """Of the codes with a title, 1 and 2, the notes that have text have two and three."""
    config = LlamaICDConfig(
        id2label={0: "486", 1: "401.9", 2: "428.0"},
        code_descriptions={"401.9": "Hypertension", "428.0": "Heart failure"},
    )
    model = SimpleNamespace(config=config)
    label_ids = [[1, 2], [0, 2], [1, 2]]
    check_codes_to_start(model, label_ids, 2)
    check_codes_to_start(model, label_ids, None)
    with pytest.raises(ValueError, match=r"has at most 1 training notes \(`start_titles_up_to`\), the rarest has 2"):
        check_codes_to_start(model, label_ids, 1)
    with pytest.raises(
        ValueError, match=r"at most 2 training notes .* the rarest has 3"
    ):  # a validation note that is learned
        check_codes_to_start(model, [*label_ids, [1]], 2)
