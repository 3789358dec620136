"""What `describe` says that a model is made of, beside sums by hand and the weights themselves."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_models import MODELS, make
from test_own_head import gated  # noqa: F401 - registers a head that is not of this project
from transformers import BertConfig

from modeling_icd import ICDConfig, LlamaMultiResCNNConfig, LlamaMultiResCNNForICD, ModelForICDCoding


FILTERS = (3, 5, 9, 15, 19, 25)


def seven_billion(**fields):
    """A MultiResCNN over a Llama of Llama-2-7B's shape, without weights."""
    config = LlamaMultiResCNNConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        window_size=2048,
        window_stride=2048,
        num_labels=50,
        architecture="paper",
        freeze_backbone=True,
        **fields,
    )
    with torch.device("meta"):
        return LlamaMultiResCNNForICD(config)


def test_without_reduction_the_base_convolutions_have_1_27_billion_weights(capsys):
    original = seven_billion(reduction_size=None).describe(2048)
    # Of each filter 4096 x 4096 weights for each word of its width, and 4096 biases.
    assert original["filters"]["parameters"] == 4096 * 4096 * sum(FILTERS) + 6 * 4096 == 1_275_092_992
    assert "reduction" not in original
    assert "filters" in capsys.readouterr().out
    reduced = seven_billion(reduction_size=256).describe(2048)
    assert reduced["filters"]["parameters"] == 256 * 256 * sum(FILTERS) + 6 * 256 == 4_982_272
    assert reduced["reduction"]["parameters"] == 4096 * 256 + 256
    # Each weight is multiplied and added once a token.
    assert original["filters"]["flops_per_token"] == pytest.approx(2 * 4096 * 4096 * sum(FILTERS), rel=0.01)
    assert original["filters"]["flops_per_note"] > 250 * reduced["filters"]["flops_per_note"]
    for found in (original, reduced):
        assert found["backbone"]["trainable"] == found["embeddings"]["trainable"] == 0
        assert found["embeddings"]["parameters"] == 32000 * 4096
        # Llama-2-7B has 6.74 billion weights, of which its output layer, 131 million, is not here.
        assert found["backbone"]["parameters"] == pytest.approx(6.74e9 - 2 * 32000 * 4096, rel=0.01)
        assert found["filters"]["trainable"] == found["filters"]["parameters"]


def test_label_attention_by_hand(backbone):
    found = make("label_attention", backbone, projection_size=6, freeze_backbone=True).describe(10)
    # 5 codes, hidden size 16, projection 6, 10 tokens: scores and sums, each 5 x 6 x 10 products; then one vector a code.
    figures = {"parameters": 30, "trainable": 30, "flops_per_note": 2 * 2 * 5 * 6 * 10, "flops_per_token": 120}
    assert found["queries"] == figures
    assert found["output"] == {
        "parameters": 35,
        "trainable": 35,
        "flops_per_note": 2 * 5 * 6,
        "flops_per_token": 6,
    }
    assert found["projection"]["flops_per_note"] == 2 * 16 * 6 * 10
    assert found["embeddings"] == {
        "parameters": 40 * 16,
        "trainable": 0,
        "flops_per_note": 0,
        "flops_per_token": 0,
    }


def test_the_parts_are_the_whole_model(name, backbone):
    model = make(name, backbone, window_size=8)
    found = model.describe(20)
    assert found["all"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["all"]["trainable"] == found["all"]["parameters"]
    parts = [figures for part, figures in found.items() if part != "all"]
    assert sum(part["flops_per_note"] for part in parts) == found["all"]["flops_per_note"]
    assert found["output"]["parameters"] == sum(
        weight.numel() for key, weight in model.score.named_parameters() if "output." in key or key == "weight"
    )


@pytest.fixture(params=list(MODELS))
def name(request):
    return request.param


def test_adapters_and_a_saved_head_are_told_from_what_is_frozen(backbone):
    model = make("multirescnn", backbone, window_size=8)
    before = model.describe(20)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["score"]))
    found = adapted.describe(20)
    assert found["adapters"]["parameters"] == found["adapters"]["trainable"] == 2 * 2 * (16 + 16)
    assert found["backbone"] == {**before["backbone"], "trainable": 0}
    assert found["filters"] == before["filters"] and found["filters"]["trainable"]


def test_other_backbones_and_heads(capsys):
    bert = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=30,
    )  # fmt: skip
    config = ICDConfig.from_backbone(bert, head="gated", head_options={"width": 6}, num_labels=5)
    model = ModelForICDCoding(config)
    found = model.describe()
    assert "For a note of 30 tokens" in capsys.readouterr().out  # all that this backbone reads
    assert found["embeddings"]["parameters"] == (40 + 30 + 2) * 16
    assert found["head"]["parameters"] + found["output"]["parameters"] == sum(
        weight.numel() for weight in model.score.parameters()
    )
    with pytest.raises(ValueError, match="`num_tokens` must be a whole number of at least 1, got 0"):
        model.describe(0)
