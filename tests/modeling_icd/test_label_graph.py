"""A graph of codes: it refines output vectors as a plain reimplementation does, and costs nothing in use."""

import copy
import json
from unittest import mock

import datasets
import pytest
import torch
from safetensors.torch import load_file
from test_further_texts import run
from test_label_attention import batch_of
from test_models import SMALL_CNN, make, notes
from transformers import AutoTokenizer, TrainingArguments

from modeling_icd import (
    CAMLHead,
    LAATHead,
    LabelAttentionHead,
    LlamaForICDCoding,
    LlamaMultiResCNNForICD,
    MultiResCNNHead,
)
from modeling_icd.graph_icd import GRAPH_SOURCES, LabelGraph, complete_label_graph, fold_graph, give_neighbours
from modeling_icd.heads import members_of
from modeling_icd.training import ICDTrainer, give_graph, start_head
from modeling_icd.training.arguments import ModelArguments
from modeling_icd.training.label_graph import co_occurrence_neighbours, hierarchy_neighbours


WIDTH, CODES = 8, 7
NEIGHBOURS = {
    "hierarchy": torch.tensor([[1, 2, -1], [0, -1, -1], [0, 1, 6], [-1] * 3, [6, 5, -1], [4, -1, -1], [2, 4, 0]]),
    "co_occurrence": torch.tensor([[3, -1, -1], [-1] * 3, [-1] * 3, [0, 1, 2], [3, -1, -1], [-1] * 3, [5, 3, -1]]),
}
HEADS = {
    "label_attention": lambda: LabelAttentionHead(WIDTH, CODES, 6),
    "multirescnn": lambda: MultiResCNNHead(WIDTH, CODES, (3,), 4, norm="layer", reduced_path=True, projection_size=6),
    "laat": lambda: LAATHead(WIDTH, CODES, 5),
    "caml": lambda: CAMLHead(WIDTH, CODES, 6, 3),
}
GRAPH = {"sources": list(GRAPH_SOURCES), "layers": 2, "neighbours": 3}


def head_of(name, sources=GRAPH_SOURCES, layers=2):
    torch.manual_seed(3)
    head = HEADS[name]().eval()
    head.output.graph = LabelGraph(CODES, head.output.in_features, sources, layers, 3, 0.4).eval()
    give_neighbours(head, NEIGHBOURS)
    torch.nn.init.normal_(head.output.graph.weight)
    return head


def explicit_vectors(head):
    """The refined vectors with whole adjacency matrices: each row the mean of its neighbours."""
    graph, vectors = head.output.graph, head.output.weight
    for layer in graph.weight:
        told = 0
        for source, weight in zip(graph.sources, layer, strict=True):
            adjacency = torch.zeros(CODES, CODES)
            for code, row in enumerate(NEIGHBOURS[source]):
                row = row[row >= 0]
                adjacency[code, row] = 1 / max(len(row), 1)
            told = told + adjacency @ vectors @ weight
        vectors = vectors + torch.tanh(told)
    return vectors


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("sources", [("hierarchy",), GRAPH_SOURCES], ids=["one", "both"])
@pytest.mark.parametrize("name", HEADS)
def test_logits_and_gradients_are_those_of_explicit_matrices(name, sources, layers):
    head, other = (head_of(name, sources, layers) for _ in range(2))
    states, mask = batch_of(9, 4)
    weights = torch.randn(2, CODES)
    plain = copy.deepcopy(other)
    plain.output.graph = None
    # Summaries are those of a head without the graph; of it they are read with ones in place of output vectors.
    summaries, _ = plain.queries(plain.features(states, mask), mask, False, values=plain.memory(states, mask)[1])
    expected = (summaries * explicit_vectors(other)).sum(dim=-1) + other.output.bias
    logits = head(states, mask, False)[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    some = torch.tensor([5, 2, 2])
    torch.testing.assert_close(head(states, mask, only_codes=some)[0], logits[:, some], atol=1e-5, rtol=1e-5)
    (logits * weights).sum().backward()
    ((summaries.detach() * explicit_vectors(other)).sum(dim=-1) * weights).sum().backward()
    for ours, theirs in (
        (head.output.weight, other.output.weight),
        (head.output.graph.weight, other.output.graph.weight),
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
        assert ours.grad.abs().sum() > 0


def test_a_head_starts_as_without_its_graph_and_the_graph_learns(backbone):
    ids, mask = notes(12, 5)
    training = datasets.Dataset.from_list(
        [
            {"input_ids": ids[0].tolist(), "length": 12, "label_ids": [0, 2]},
            {"input_ids": [3, 4], "length": 2, "label_ids": [2]},
        ]
    )
    logits = []
    for graph in (None, {**GRAPH, "neighbours": 2}):
        model = make("label_attention", backbone, label_graph=graph)
        if graph:
            give_neighbours(
                model.score,
                {source: torch.tensor([[1, 2], [0, -1], [4, -1], [4, 2], [0, 1]]) for source in GRAPH_SOURCES},
            )
            torch.manual_seed(1)
        start_head(model, training, None, 10, seed=0)
        logits.append(model(ids, mask).logits)
    torch.testing.assert_close(*logits)
    model.train()(ids, mask, labels=torch.ones(2, 5)).loss.backward()
    assert all((weight.abs().sum((-1, -2)) > 0).all() for weight in model.score.output.graph.weight.grad[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_use_it_is_computed_once_until_a_weight_changes(dtype):
    head, (states, mask) = head_of("label_attention").to(dtype), batch_of(9, 4)
    graph = head.output.graph
    with mock.patch.object(graph, "refine", wraps=graph.refine) as refine, torch.no_grad():
        first = head(states, mask, False)[0]
        torch.testing.assert_close(head(states, mask, only_codes=torch.tensor([3]))[0], first[:, [3]])
        assert refine.call_count == 1
        with torch.inference_mode():
            head(states, mask, False)
        assert refine.call_count == 1
        for change in (
            lambda: head.output.weight.add_(1.0),
            lambda: graph.weight.mul_(2.0),
            lambda: head.load_state_dict(head.state_dict()),
            lambda: give_neighbours(head, {source: table.flip(0) for source, table in NEIGHBOURS.items()}),
            lambda: head.train().eval(),
        ):
            change()
            before = refine.call_count
            after = head(states, mask, False)[0]
            assert refine.call_count == before + 1
        assert not torch.allclose(first, after)
    assert copy.deepcopy(head).output.graph._refined is None


def test_folded_vectors_give_the_same():
    head, (states, mask) = head_of("multirescnn"), batch_of(9, 4)
    expected = head(states, mask, False)[0]
    short = head(states, mask, False, shortlist=3)[0]
    fold_graph(head)
    assert head.output.graph is None and not [name for name in head.state_dict() if "graph" in name]
    torch.testing.assert_close(head(states, mask, False)[0], expected)
    torch.testing.assert_close(head(states, mask, False, shortlist=3)[0], short)
    fold_graph(head)  # of which there is none any more


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_come_back_exactly_in_every_type(dtype, backbone, tmp_path):
    torch.manual_seed(1)
    model = LlamaMultiResCNNForICD.from_pretrained(
        backbone, num_labels=CODES, label_graph=GRAPH, head_ensemble_size=2, **SMALL_CNN
    )
    for head in members_of(model.score):
        give_neighbours(head, NEIGHBOURS)
        torch.nn.init.normal_(head.output.graph.weight)
    model = model.to(dtype).eval()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=dtype).eval()
    for head in members_of(again.score):
        for source, table in NEIGHBOURS.items():
            assert torch.equal(head.output.graph.get_buffer(source), table)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    states, mask = batch_of(9, 4, width=16)
    given = {"hidden_states": states.to(dtype), "attention_mask": mask}
    with torch.no_grad():
        torch.testing.assert_close(again(**given).logits, model(**given).logits)
        some = again(**given, label_attentions_for=[3, 1]).label_attentions
        torch.testing.assert_close(some, again(**given, output_label_attentions=True).label_attentions[:, [3, 1]])
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["score.members.0.output.graph.hierarchy"].dtype == torch.long


def test_a_head_on_disk_gives_the_same(backbone, tmp_path):
    model = make("label_attention", backbone, label_graph={**GRAPH, "neighbours": 2})
    give_neighbours(
        model.score, {source: torch.tensor([[1, 2], [0, -1], [4, -1], [4, 2], [0, 1]]) for source in GRAPH_SOURCES}
    )
    torch.nn.init.normal_(model.score.output.graph.weight)
    model.save_pretrained(tmp_path / "model")
    options = {"offload_folder": tmp_path / "offload", "device_map": {"model": "cpu", "score": "disk"}}
    loaded = LlamaForICDCoding.from_pretrained(tmp_path / "model", **options).eval()
    ids, mask = notes(12, 5)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(loaded(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-5)


def test_autocast_narrows_nothing():
    head = head_of("laat")
    weight = head.output.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.output.graph(weight), head.output.graph.refine(weight))
        assert head.output.graph(weight).dtype == torch.float32


def test_new_codes_have_no_neighbours_yet(backbone, tmp_path):
    model = make("label_attention", backbone, label_graph=GRAPH)
    model.save_pretrained(tmp_path)
    other = LlamaForICDCoding.from_pretrained(tmp_path, num_labels=6, ignore_mismatched_sizes=True)
    assert other.config.label_graph is None and other.score.output.graph is None
    again = LlamaForICDCoding.from_pretrained(tmp_path).train()
    with pytest.raises(
        ValueError, match=r"was not told which of them are neighbours: call `give_graph\(model, notes\)`"
    ):
        again(*notes(6), labels=torch.ones(1, 5))


CLASSIFIED = ["250.00", "250.01", "250.02", "401.9", "402.00", "E885.9", "780.60"]


def test_neighbours_by_hierarchy():
    found = hierarchy_neighbours(CLASSIFIED, counts=[1, 5, 3, 9, 9, 9, 9], size=2)
    # 401.9 and 402.00 are alone in their categories, and share the block 401-405; the last two share nothing.
    assert found.tolist() == [[1, 2], [2, 0], [1, 0], [4, -1], [3, -1], [-1, -1], [-1, -1]]
    assert hierarchy_neighbours(CLASSIFIED, [1, 5, 3, 9, 9, 9, 9], 1)[:3].tolist() == [[1], [2], [1]]
    with pytest.raises(ValueError, match="`label_graph` hierarchy needs codes of ICD-9-CM or ICD-10, all of one"):
        hierarchy_neighbours(["A1", "nothing"], [1, 1], 2)


def test_neighbours_by_what_notes_have_together():
    labels = [[0, 1, 2], [0, 1], [0, 2, 3], [0], [4, 0], [1, 3, 2]]
    # Notes of each: 5, 3, 3, 2, 1. Together: 01 2, 02 2, 12 2, 03 1, 23 2, 13 1, 04 1: a single one joins nothing.
    found = co_occurrence_neighbours(labels, 5, threshold=0.5, size=3)
    # Of the five notes with 0, two have 1: less than half.
    assert found.tolist() == [[-1, -1, -1], [0, 2, -1], [0, 1, 3], [2, -1, -1], [-1, -1, -1]]
    assert co_occurrence_neighbours(labels, 5, threshold=0.4, size=1).tolist() == [[1], [0], [0], [2], [-1]]


def test_a_run_finds_neighbours_in_its_training_notes(corpus, backbone, tmp_path, capsys):
    options = {"label_graph": "hierarchy", "graph_layers": 1, "freeze_backbone": True, "head_start": "notes"}
    assert run(corpus, backbone, tmp_path / "model", max_train_notes=20, **options) == 0
    assert "Graph of codes: hierarchy gives " in capsys.readouterr().out
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["label_graph"] == {"sources": ["hierarchy"], "layers": 1, "neighbours": 16, "threshold": 0.4}
    model = LlamaForICDCoding.from_pretrained(tmp_path / "model")
    codes = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    counts = [config["training_data"]["code_counts"][code] for code in codes]
    assert torch.equal(model.score.output.graph.hierarchy, hierarchy_neighbours(codes, counts, 16))
    assert model.score.output.graph.weight.abs().sum() > 0
    # Of so few notes none but one has these codes together so often.
    assert run(corpus, backbone, tmp_path / "none", label_graph="co_occurrence", max_train_notes=1) == 2
    assert "`label_graph` co_occurrence joins no two of the" in capsys.readouterr().err


def test_a_trainer_finds_neighbours_in_raw_notes(backbone, tmp_path):
    codes = ["401.9", "428.0", "401.1"]
    learned = datasets.Dataset.from_dict(
        {
            "text": ["fever cough", "fever", "sepsis"] * 4,
            "codes": [["401.9", "428.0"], ["401.9", "E999.9"], ["401.1"]] * 4,
        }
    )
    expected = {"hierarchy": [[2], [-1], [0]], "co_occurrence": [[1], [0], [-1]]}
    models = []
    for _ in range(2):
        models.append(
            LlamaForICDCoding.from_pretrained(
                backbone,
                id2label=dict(enumerate(codes)),
                pooling="label_attention",
                label_graph={"sources": list(GRAPH_SOURCES), "neighbours": 1},
            )
        )
    give_graph(models[0], learned)
    args = TrainingArguments(tmp_path, max_steps=2, report_to="none", use_cpu=True, learning_rate=0.01)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    ICDTrainer(models[1], args, train_dataset=learned, processing_class=tokenizer, head_start="random").train()
    for model in models:
        for source, table in expected.items():
            assert model.score.output.graph.get_buffer(source).tolist() == table
    assert models[1].score.output.graph.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["hierarchy"], r"must be a dictionary with `sources` and, as you like, `layers`, .* got \['hierarchy'\]"),
        ({"sources": []}, "must be a dictionary with `sources`"),
        ({"sources": ["tree"]}, "must be 'hierarchy' and 'co_occurrence', or one of them, got .'tree'."),
        ({"sources": ["hierarchy"], "depth": 2}, "must be a dictionary with `sources`"),
        (
            {"sources": ["hierarchy"], "layers": 0},
            "`layers of label_graph` must be a whole number of at least 1, got 0",
        ),
        ({"sources": ["hierarchy"], "threshold": 2}, "must be a number above 0 and up to 1, got 2"),
    ],
)
def test_what_cannot_be_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        complete_label_graph(given)


def test_a_head_without_output_vectors_of_codes_has_no_graph(backbone):
    for pooling in ("last", "cross_attention"):
        with pytest.raises(ValueError, match=f"the head '{pooling}' has none for each code: leave it out"):
            LlamaForICDCoding.from_pretrained(backbone, num_labels=2, pooling=pooling, label_graph=GRAPH)
    with pytest.raises(ValueError, match="`graph_layers` is of a `label_graph`: give its sources, too"):
        ModelArguments("direct", backbone, pooling="label_attention", graph_layers=2)
