"""The published models that ours are compared with: they agree with their authors' code, and padding changes no answer."""

import copy

import pytest
import torch
from own_process import run_python
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, PreTrainedTokenizerFast

from benchmarks import peer_parity
from modeling_icd import (
    CAMLForICD,
    CNNForICD,
    GRUForICD,
    LAATForICD,
    LlamaForICDCoding,
    ModelForICDCoding,
    MultiResCNNForICD,
    WordReader,
    WordReaderConfig,
)
from modeling_icd.graph_icd import give_neighbours
from modeling_icd.heads import members_of
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.loop import say_cut


CODES = ["401.9", "428.0", "401.1", "96.71"]
NUM_WORDS = 30
SMALL = {"num_filter_maps": 6}
# Model, head, its options, and the reader's.
KINDS = {
    "multirescnn": (MultiResCNNForICD, None, {**SMALL, "filter_sizes": [3, 5]}, {}),
    "caml": (CAMLForICD, None, SMALL, {}),
    "caml of odd width": (CAMLForICD, None, {**SMALL, "filter_size": 3}, {}),
    "cnn": (CNNForICD, None, SMALL, {}),
    "laat": (LAATForICD, None, {"projection_size": 5}, {"rnn": "lstm", "rnn_size": 4}),
    "joint laat": (
        LAATForICD,
        "joint_laat",
        {"level_projection_size": 3},
        {"rnn": "lstm", "rnn_size": 4, "embedding_dropout": 0.0},
    ),
    "gru": (GRUForICD, None, {"score_bias": True}, {"rnn": "gru", "rnn_size": 6, "bidirectional": False}),
    "bigru": (GRUForICD, "ends", {}, {"rnn": "gru", "rnn_size": 6, "num_rnn_layers": 2}),
    "cross attention": (ModelForICDCoding, "cross_attention", {}, {"rnn": "gru", "rnn_size": 6}),
    "several queries": (
        ModelForICDCoding,
        "laat",
        {"projection_size": 6, "num_queries": 3},
        {"rnn": "gru", "rnn_size": 6},
    ),
    "graph": (MultiResCNNForICD, None, {**SMALL, "filter_sizes": [3, 5]}, {}),
}
# What is no option of the head.
FIELDS = {"graph": {"label_graph": {"sources": ["hierarchy", "co_occurrence"], "layers": 2, "neighbours": 2}}}
NEIGHBOURS = {
    "hierarchy": torch.tensor([[2, -1], [-1, -1], [0, -1], [-1, -1]]),
    "co_occurrence": torch.tensor([[1, 3], [0, -1], [-1, -1], [1, 2]]),
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Folders of word readers, by their fields."""
    made: dict[str, str] = {}

    def make(**fields) -> str:
        if str(fields) not in made:
            folder = tmp_path_factory.mktemp("reader")
            torch.manual_seed(0)
            WordReader(WordReaderConfig(vocab_size=NUM_WORDS, embedding_size=8, **fields)).save_pretrained(folder)
            vocabulary = {"<pad>": 0, "<unk>": 1, **{f"word{i}": i for i in range(2, NUM_WORDS)}}
            tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
                folder
            )
            made[str(fields)] = str(folder)
        return made[str(fields)]

    return make


@pytest.fixture
def make(readers):
    def make_kind(kind: str, **fields):
        model_class, head, options, reader = KINDS[kind]
        named = {} if head is None else {"head": head}
        torch.manual_seed(1)
        model = model_class.from_pretrained(
            readers(**reader),
            id2label=dict(enumerate(CODES)),
            head_options={**options},
            **named,
            **FIELDS.get(kind, {}),
            **fields,
        )
        if model.config.label_graph:
            give_neighbours(model.score, NEIGHBOURS)
        with torch.no_grad():  # so that no weight is 0 and each counts
            for weight in model.score.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
        return model.eval()

    return make_kind


def a_batch(lengths=(9, 5, 1)):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, NUM_WORDS, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_batch_change_no_answer(kind, make):
    model = make(kind)
    ids, mask = a_batch()
    with torch.no_grad():
        together = model(ids, mask, output_label_attentions=True)
        reversed_ = model(ids.flip(0), mask.flip(0)).logits.flip(0)
        in_front = model(torch.nn.functional.pad(ids, (3, 0)), torch.nn.functional.pad(mask, (3, 0))).logits
    torch.testing.assert_close(together.logits, reversed_)
    torch.testing.assert_close(together.logits, in_front)
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        with torch.no_grad():
            alone = model(ids[i : i + 1, :length], output_label_attentions=True)
        torch.testing.assert_close(alone.logits, together.logits[i : i + 1])
        if alone.label_attentions is None:
            assert kind in ("cnn", "gru", "bigru")
            continue
        torch.testing.assert_close(alone.label_attentions[0], together.label_attentions[i, :, :length])
        torch.testing.assert_close(alone.label_attentions.sum(dim=-1), torch.ones(1, len(CODES)))
        assert not together.label_attentions[i, :, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_padded_notes_are_those_of_the_notes_alone(kind, make):
    model = make(kind)  # in evaluation mode: batch norm and dropout look at the whole batch
    ids, mask = a_batch((9, 5))
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    model(ids, mask, labels=labels).loss.backward()
    together = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    for i, length in enumerate((9, 5)):
        (model(ids[i : i + 1, :length], labels=labels[i : i + 1]).loss / 2).backward()
    for name, weight in model.named_parameters():
        if name in together:
            torch.testing.assert_close(weight.grad, together[name], atol=1e-5, rtol=1e-4)
    assert {name.partition(".")[0] for name in together} == {"model", "score"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_comes_back(kind, make, tmp_path):
    model = make(kind)
    ids, mask = a_batch()
    model(ids, mask, labels=torch.eye(4)[:3]).loss.backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not idle
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-6)


def test_a_clean_process_loads_them_with_their_code(make, readers, tmp_path):
    ids, mask = a_batch()
    for kind in KINDS:
        folder = tmp_path / kind.replace(" ", "_")
        model = make(kind)
        model.save_pretrained(folder)
        PreTrainedTokenizerFast.from_pretrained(readers(**KINDS[kind][3])).save_pretrained(folder)
        with torch.no_grad():
            save_file({"logits": model(ids, mask).logits, "ids": ids, "mask": mask}, folder / "expected.st")
    code = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModel, pipeline
for folder in sorted(Path(sys.argv[1]).iterdir()):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    expected = load_file(folder / "expected.st")
    with torch.no_grad():
        torch.testing.assert_close(model(expected["ids"], expected["mask"]).logits, expected["logits"])
    code = pipeline("icd-coding", model=str(folder), trust_remote_code=True)
    (found,) = code(["word3 word4 word5"], threshold=0.0, num_spans=1)
    assert len(found) == 4, found
    print(type(model).__name__)
assert "modeling_icd" not in sys.modules
"""
    run = run_python("-c", code, tmp_path, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == [KINDS[kind][0].__name__ for kind in sorted(KINDS, key=lambda k: k.replace(" ", "_"))]


def test_a_head_that_is_not_the_models_is_refused(readers):
    with pytest.raises(ValueError, match=r"`head` of CAMLConfig must be 'caml', got 'mean': ICDConfig"):
        CAMLForICD.from_pretrained(readers(), num_labels=2, head="mean")
    with pytest.raises(ValueError, match=r"`head` of LAATConfig must be 'laat' or 'joint_laat', got 'last'"):
        LAATForICD.from_pretrained(readers(), num_labels=2, head="last")


def test_a_reader_that_is_not_the_models_is_refused(readers, backbone):
    with pytest.raises(ValueError, match="GRU reads words through a recurrent network, and this reader has none"):
        GRUForICD.from_pretrained(readers(), num_labels=2)
    with pytest.raises(ValueError, match="LAAT reads words through a recurrent network"):
        LAATForICD.from_pretrained(readers(), num_labels=2)
    both = readers(rnn="gru", rnn_size=6)
    with pytest.raises(ValueError, match="`head` must be 'ends' over a network of two directions, got 'last'"):
        GRUForICD.from_pretrained(both, num_labels=2)
    with pytest.raises(ValueError, match="GRUConfig is of a reader of words, got 'llama'"):
        GRUForICD.from_pretrained(backbone, num_labels=2)
    assert CAMLForICD.from_pretrained(backbone, num_labels=2).config.backbone_type == "llama"
    with pytest.raises(ValueError, match="`shortlist` is of a head that attends, and whose output vectors read"):
        CAMLForICD.from_pretrained(readers(), num_labels=2, shortlist={"size": 1})
    with pytest.raises(ValueError, match="`description_words` must be a whole number of at least 1, got 0"):
        CAMLForICD.from_pretrained(readers(), num_labels=2, head_options={"description_weight": 1.0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rnn": "rnn"}, "`rnn` must be 'lstm' or 'gru', or None, got 'rnn'"),
        ({"rnn_size": 0}, "`rnn_size` must be a whole number of at least 1, got 0"),
        ({"embedding_dropout": 1.0}, r"`embedding_dropout` must be a number in \[0, 1\), got 1.0"),
        ({"embedding_dropout": "a"}, r"`embedding_dropout` must be a number in \[0, 1\), got 'a'"),
        ({"max_position_embeddings": 0}, "`max_position_embeddings` must be a whole number of at least 1, got 0"),
        ({"bidirectional": "no"}, "`bidirectional` must be true or false, got 'no'"),
        ({"pad_token_id": 9}, r"`pad_token_id` \(9\) is none of the 5 words"),
    ],
)
def test_a_wrong_field_of_a_reader_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        WordReaderConfig(vocab_size=5, **fields)


def test_a_filter_between_two_tokens_gives_its_weight_to_the_last(make):
    model = make("caml")
    ids, mask = a_batch((7, 4))
    states = model.score.features(model.read_hidden_states(ids, mask), mask)
    assert states.shape[1] == 8
    at_places = model.score.queries(states, model.score.places(mask))[1]
    assert (at_places[1, :, 5:] == 0).all()
    at_tokens = model(ids, mask, output_label_attentions=True).label_attentions
    torch.testing.assert_close(at_tokens[1, :, 3], at_places[1, :, 3] + at_places[1, :, 4])
    torch.testing.assert_close(at_tokens[0, :, :6], at_places[0, :, :6])


def test_joint_laat_learns_both_levels(make):
    model = make("joint laat")
    assert model.score.parents == [0, 1, 0, 2]  # 401, 428, 401, 96.
    model.train()  # without dropout
    ids, mask = a_batch()
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    output = model(ids, mask, labels=labels)
    upper = model.score.upper(model.read_hidden_states(ids, mask), mask)[0]
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = (entropy(output.logits, labels, reduction="sum") + entropy(upper, targets, reduction="sum")) / 3
    torch.testing.assert_close(output.loss, expected)
    # Two halves of an update count as one.
    halves = [model(ids[rows], mask[rows], labels=labels[rows], num_items_in_batch=12).loss for rows in ([0, 1], [2])]
    torch.testing.assert_close(sum(halves), expected)


def test_new_codes_have_new_parents(make, tmp_path):
    make("joint laat").save_pretrained(tmp_path)
    codes = {0: "250.00", 1: "250.01"}
    model = LAATForICD.from_pretrained(tmp_path, id2label=codes, ignore_mismatched_sizes=True)
    assert model.score.parents == [0, 0]
    generic = ModelForICDCoding.from_pretrained(tmp_path, id2label=codes, ignore_mismatched_sizes=True)
    assert generic.score.parents == [0, 0]
    with pytest.raises(ValueError, match="`parents` names the code above each of 3 codes, and there are 2"):
        LAATForICD.from_pretrained(tmp_path, id2label=codes, head_options={"parents": [0, 1, 0]})


def test_the_upper_level_is_learned_and_not_measured(make):
    model = make("joint laat")
    ids, mask = a_batch()
    labels = torch.eye(4)[:3]
    expected = (
        torch.nn.functional.binary_cross_entropy_with_logits(model(ids, mask).logits, labels, reduction="sum") / 3
    )
    torch.testing.assert_close(model(ids, mask, labels=labels).loss, expected)
    model.train()(ids, mask)  # a pass without labels, of which nothing is kept for the next one
    copy.deepcopy(model.eval())


def test_dr_caml_draws_codes_towards_their_titles(readers):
    options = {**SMALL, "description_weight": 10.0, "description_words": NUM_WORDS}
    model = CAMLForICD.from_pretrained(readers(embedding_dropout=0.0), num_labels=4, head_options=options)
    ids, mask = a_batch()
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert model.eval()(ids, mask, labels=labels).loss.isfinite()  # which measures the codes alone
    model.train()
    with pytest.raises(ValueError, match="learns from the titles of its codes: give their words as its `titles`"):
        model(ids, mask, labels=labels)
    model.score.titles = torch.tensor([[3, 4, 0], [5, 0, 0], [6, 7, 8], [9, 9, 9]])
    plain = torch.nn.functional.binary_cross_entropy_with_logits
    output = model(ids, mask, labels=labels)
    distance = (model.score.output.weight - model.score.title_vectors(torch.arange(4))).square().mean(dim=1)
    expected = plain(output.logits, labels, reduction="sum") / 3 + 10 * (distance[0] + distance[2] + distance[1]) / 3
    torch.testing.assert_close(output.loss, expected)
    assert model(ids, mask).logits.isfinite().all()  # without labels it needs no title


def test_laat_is_not_label_attention(backbone):
    """LAAT averages the hidden states themselves, label attention the projection that its queries are compared with."""
    torch.manual_seed(0)
    laat, own = (
        LlamaForICDCoding.from_pretrained(backbone, num_labels=3, pooling=pooling, projection_size=6).eval()
        for pooling in ("laat", "label_attention")
    )
    assert (laat.score.output.in_features, own.score.output.in_features) == (16, 6)
    ids, mask = a_batch((8, 6))
    states = laat.read_hidden_states(ids, mask)
    output = laat(ids, mask, output_label_attentions=True)
    expected = torch.einsum("bcl,bld,cd->bc", output.label_attentions, states, laat.score.output.weight)
    torch.testing.assert_close(output.logits, expected + laat.score.output.bias, atol=1e-5, rtol=1e-4)


def test_published_heads_over_a_llama_have_published_starts(backbone):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=200, pooling="cross_attention")
    assert abs(model.score.queries.weight.std() - 0.03) < 0.003
    assert abs(model.score.projection.weight.std() - 0.03) < 0.006
    assert (model.score.output.norm.weight == 1).all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_lifted_mask_lets_later_words_speak(backbone, implementation):
    fields = {"num_labels": 3, "attn_implementation": implementation}
    causal = LlamaForICDCoding.from_pretrained(backbone, **fields).eval()
    both = LlamaForICDCoding.from_pretrained(backbone, bidirectional_attention=True, **fields).eval()
    ids, mask = a_batch((9, 5))
    changed = ids.clone()
    changed[0, 8] = 3 if ids[0, 8] != 3 else 4
    with torch.no_grad():
        for model, is_equal in ((causal, True), (both, False)):
            before, after = (model.read_hidden_states(given, mask)[0, 0] for given in (ids, changed))
            assert torch.allclose(before, after) is is_equal
        states = both.read_hidden_states(ids, mask)
        torch.testing.assert_close(both.read_hidden_states(ids[1:, :5], mask[1:, :5])[0], states[1, :5])


@pytest.mark.parametrize("model_class", [LlamaForICDCoding, ModelForICDCoding])
def test_a_mask_is_lifted_where_the_configuration_says_so(model_class, backbone, tmp_path):
    ids, mask = a_batch()
    causal = model_class.from_pretrained(backbone, num_labels=3).eval()
    both = model_class.from_pretrained(backbone, num_labels=3, bidirectional_attention=True).eval()
    both.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path, bidirectional_attention=False).eval()
    config = both.config
    config.bidirectional_attention = False
    with torch.no_grad():
        expected = causal.read_hidden_states(ids, mask)
        assert torch.equal(again.read_hidden_states(ids, mask), expected)
        remade = model_class.from_pretrained(backbone, config=config).eval()
        assert torch.equal(remade.read_hidden_states(ids, mask), expected)
        assert not torch.equal(both.read_hidden_states(ids, mask), expected)


def test_a_lifted_mask_comes_back_from_disk(backbone, tmp_path):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=3, bidirectional_attention=True).eval()
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    ids, mask = a_batch()
    with torch.no_grad():
        torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-6)


def test_an_encoder_has_no_mask_to_lift(readers):
    with pytest.raises(ValueError, match="`bidirectional_attention` lifts a causal mask, and WordReader has none"):
        CNNForICD.from_pretrained(readers(), num_labels=2, bidirectional_attention=True)


def test_a_mix_of_layers_begins_as_their_mean_and_learns(backbone, readers, tmp_path):
    words = readers(rnn="gru", rnn_size=6)
    model = LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, layer_mix=True, freeze_backbone=True, pooling="label_attention"
    )
    ids, mask = a_batch()
    layers = model.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert len(layers) == 3
    torch.testing.assert_close(model.read_hidden_states(ids, mask)[0], torch.stack(layers).mean(dim=0)[0])
    model(ids, mask, labels=torch.eye(3)).loss.backward()
    assert model.layer_mix.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.model.parameters())
    with torch.no_grad():
        model.layer_mix.weight[1] = 2.0
    model.eval().save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`layer_mix` mixes all layers, and `hidden_layer` \(1\) names one"):
        LlamaForICDCoding.from_pretrained(backbone, num_labels=3, layer_mix=True, hidden_layer=1)
    with pytest.raises(ValueError, match="`layer_mix` mixes the layers of a language model, and 'icd_words' has none"):
        ModelForICDCoding.from_pretrained(words, num_labels=3, head="mean", layer_mix=True)
    with pytest.raises(ValueError, match="`layer_mix`"):
        model.save_pretrained(tmp_path, head_only=True)
    with pytest.raises(ValueError, match="so its hidden states cannot be kept"):
        HiddenStates(tmp_path / "states", model)
    with pytest.raises(ValueError, match=r"hold, beyond the model's own, 2 weights of the head: layer_mix\.scale"):
        LlamaForICDCoding.from_pretrained(tmp_path, layer_mix=False)
    plain = LlamaForICDCoding.from_pretrained(backbone, num_labels=3, pooling="label_attention")
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"lack 2 weights of the head: layer_mix\.scale"):
        LlamaForICDCoding.from_pretrained(tmp_path / "plain", layer_mix=True)


def test_notes_that_are_cut_are_counted(readers, capsys):
    config = CNNForICD.from_pretrained(readers(max_position_embeddings=3), num_labels=1).config
    say_cut(config, [[2, 3, 4], [5]])
    assert "1 of 2 notes has 3 words or more: this model reads so many of a note" in capsys.readouterr().err
    say_cut(config, [[2, 3], [5]])
    say_cut(CNNForICD.from_pretrained(readers(), num_labels=1).config, [[2] * 5000])
    assert capsys.readouterr().err.count("words or more") == 0


def test_ensembles_of_published_heads(make):
    model = make("laat", head_ensemble_size=2)
    assert len(members_of(model.score)) == 2
    ids, mask = a_batch()
    model(ids, mask, labels=torch.eye(4)[:3]).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_they_agree_with_their_authors_code(shared_dir, capsys):
    files = sorted((shared_dir / "golden" / "peers").glob("*.safetensors"))
    assert len(files) == 8
    assert peer_parity.main([*map(str, files), str(shared_dir / "golden" / "multirescnn_a.safetensors")]) == 0
    assert capsys.readouterr().out.count("logits") >= 9


def test_weights_that_differ_are_told(shared_dir, tmp_path, capsys):
    tensors = load_file(shared_dir / "golden" / "peers" / "laat_1.safetensors")
    tensors["state.third_linears.0.bias"] += 1e-3
    save_file(tensors, tmp_path / "other.safetensors")
    assert peer_parity.main([str(tmp_path / "other.safetensors")]) == 1
    assert "LAAT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"logits": torch.ones(1)}, "holds no weights"), ({"state.x": torch.ones(1)}, "weights of no system known here")],
)
def test_a_file_of_something_else_is_named(tensors, message, tmp_path):
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        peer_parity.main([str(tmp_path / "other.safetensors")])
