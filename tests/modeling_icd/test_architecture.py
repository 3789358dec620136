"""The two architectures of MultiResCNN: the paper's, and the one for subword tokens; each of their switches alone."""

import json

import pytest
import torch
from test_models import notes
from transformers import AutoModel

from modeling_icd import ICDConfig, LlamaForICDCoding, LlamaICDConfig, LlamaMultiResCNNConfig, LlamaMultiResCNNForICD
from modeling_icd.heads import ARCHITECTURES


SMALL = {"num_filter_maps": 4, "reduction_size": 8, "num_labels": 3}
SWITCHES = ("filter_sizes", "norm", "reduced_path", "projection_size")


def settings(config) -> dict:
    return {name: getattr(config, name) for name in SWITCHES}


def as_lists(preset: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in preset.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_a_word_for_its_settings(architecture):
    config = LlamaMultiResCNNConfig(architecture=architecture)
    assert settings(config) == as_lists(ARCHITECTURES[architecture])


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_can_be_set_alone(switch, backbone):
    value = ARCHITECTURES["subword"][switch]
    torch.manual_seed(0)
    model = LlamaMultiResCNNForICD.from_pretrained(backbone, architecture="paper", **SMALL, **{switch: value}).eval()
    expected = as_lists({**ARCHITECTURES["paper"], switch: value})
    assert settings(model.config) == expected
    ids, mask = notes(20, 5)
    output = model(ids, mask, labels=torch.ones(2, 3), output_label_attentions=True)
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.score.parameters())
    assert output.label_attentions.shape == (2, 3, 20)
    alone = model(ids[1:, :5]).logits
    torch.testing.assert_close(output.logits[1:], alone, atol=1e-5, rtol=1e-5)


def test_the_default_is_made_for_subwords_and_says_so_when_it_is_saved(backbone, tmp_path):
    model = LlamaMultiResCNNForICD.from_pretrained(backbone, **SMALL).eval()
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["architecture"], stored["norm"], stored["projection_size"]) == ("subword", "layer", 256)
    again = AutoModel.from_pretrained(tmp_path).eval()
    ids, mask = notes(20, 5)
    torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-6)


def test_a_training_note_of_one_token_is_no_trouble_with_layer_norm(backbone):
    model = LlamaMultiResCNNForICD.from_pretrained(backbone, **SMALL).train()
    assert model(torch.ones(1, 1, dtype=torch.long), labels=torch.ones(1, 3)).loss.isfinite()


def test_what_version_0_1_saved_is_the_papers(backbone, tmp_path):
    model = LlamaMultiResCNNForICD.from_pretrained(backbone, architecture="paper", filter_sizes=[3, 5], **SMALL)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    for name in ("architecture", "norm", "reduced_path", "projection_size", "loss", "loss_options", "loss_reduction"):
        del stored[name]
    for version in ("0.1.0", None):  # the first code wrote no version
        old = {**stored, "modeling_icd_version": version}
        (tmp_path / "config.json").write_text(json.dumps(old))
        again = AutoModel.from_pretrained(tmp_path)
        assert (again.config.architecture, again.config.loss_reduction) == ("paper", "mean")
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_another_architecture_sets_its_settings_anew(tmp_path):
    LlamaMultiResCNNConfig(norm="batch").save_pretrained(tmp_path)
    again = LlamaMultiResCNNConfig.from_pretrained(tmp_path, architecture="paper")
    assert settings(again) == as_lists(ARCHITECTURES["paper"])
    assert LlamaMultiResCNNConfig.from_pretrained(tmp_path).norm == "batch"


def test_a_general_model_that_version_0_1_saved_is_the_papers():
    general = ICDConfig.from_backbone(LlamaMultiResCNNConfig(), num_labels=3, head="multirescnn").to_dict()
    general["head_options"] = {"filter_sizes": [3], "num_filter_maps": 4}
    general["modeling_icd_version"] = "0.1.0"
    assert ICDConfig.from_dict(general).head_options["norm"] == "batch"


def test_label_attention_is_as_wide_as_it_is_told(backbone, tmp_path):
    model = LlamaForICDCoding.from_pretrained(backbone, num_labels=3, pooling="label_attention", projection_size=5)
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).score.queries.weight.shape == (3, 5)
    with pytest.raises(ValueError, match=r"`projection_size` \(5\) is no option of the head 'last': leave it out"):
        LlamaForICDCoding.from_pretrained(backbone, num_labels=3, projection_size=5)


def test_label_attention_reads_what_stands_around_a_token_if_it_is_told(backbone, tmp_path):
    fields = {"num_labels": 3, "pooling": "label_attention", "context_size": 3, "normalize_hidden_states": True}
    model = LlamaForICDCoding.from_pretrained(backbone, **fields).eval()
    ids, mask = notes(20, 5)
    states = model.read_hidden_states(ids, mask)
    changed = states.clone()
    changed[:, 7] += 1
    features, others = (model.score.features(given, mask)[0] for given in (states, changed))
    assert ((features - others).abs().amax(dim=1) > 1e-4).nonzero().flatten().tolist() == [6, 7, 8]
    # Padding of the short note is no context of its last token.
    torch.testing.assert_close(model(ids, mask).logits[1:], model(ids[1:, :5]).logits, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LlamaICDConfig(pooling="label_attention", context_size=4), "`context_size` must be odd, got 4"),
        (
            lambda: LlamaICDConfig(context_size=3),
            r"`context_size` \(3\) is no option of the head 'last': leave it out",
        ),
        (
            lambda: LlamaMultiResCNNConfig(context_size=3),
            r"`context_size` \(3\) is no option of the head 'multirescnn': leave it out",
        ),
    ],
)
def test_a_wrong_context_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "big"}, "`architecture` must be 'paper' or 'subword', got 'big'"),
        ({"norm": "group"}, "`norm` must be 'batch' or 'layer', got 'group'"),
        ({"reduced_path": 1}, "`reduced_path` must be true or false, got 1"),
        ({"projection_size": -4}, "`projection_size` must be a whole number of at least 1, got -4"),
    ],
)
def test_a_wrong_switch_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        LlamaMultiResCNNConfig(**fields)
