"""The benchmarks of the heads: that the other side is what it says, that both sides agree, and that the commands run."""

import json

import pytest
import torch
from test_heads import golden, original_weights  # noqa: F401 - a fixture
from test_models import make

from benchmarks import heads, int8, multirescnn, shortlist


def test_the_other_side_is_the_original(golden):  # noqa: F811
    tensors, config = golden
    filters = [int(size) for size in config["filter_sizes"].split(",")]
    weights = original_weights(tensors)
    width = weights[f"conv.channel-{filters[0]}.baseconv.weight"].shape[0]
    num_codes, features = weights["output_layer.U.weight"].shape
    model = multirescnn.Original(num_codes, width, filters, features // len(filters)).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["embedding.weight"] and unexpected == []
    torch.testing.assert_close(model.read(tensors["features"]), tensors["logits"], atol=1e-5, rtol=0)


def test_both_sides_take_the_same_step_on_notes_of_one_length(monkeypatch):
    monkeypatch.setattr(multirescnn, "DROPOUT", 0.0)
    torch.manual_seed(0)
    original = multirescnn.Original(6)
    ours = multirescnn.Ours(original)
    words = torch.randint(1, multirescnn.NUM_WORDS, (3, 40))
    labels = torch.eye(6)[:3]
    for model in (original, ours):
        torch.nn.functional.binary_cross_entropy_with_logits(model.train()(words), labels).backward()
    torch.testing.assert_close(ours.embedding.weight.grad, original.embedding.weight.grad, atol=1e-6, rtol=1e-4)
    gradient = original.conv["channel-9"]["resconv-0"].left[0].weight.grad
    torch.testing.assert_close(ours.head.channels["9"].blocks[0].conv1.weight.grad, gradient, atol=1e-6, rtol=1e-4)
    mean = original.conv["channel-9"]["resconv-0"].left[1].running_mean
    torch.testing.assert_close(ours.head.channels["9"].blocks[0].norm1.running_mean, mean)


@pytest.mark.slow
def test_the_comparison_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(multirescnn, "MEAN_WORDS", 30)
    monkeypatch.setattr(multirescnn, "NUM_WORDS", 500)
    options = ["--codes", "7", "--notes", "6", "--rounds", "1", "--output", str(tmp_path / "figures.json")]
    assert multirescnn.main(options) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["difference_7"] < 1e-5
    assert figures["train_7"] == pytest.approx(figures["ours_train_7"] / figures["original_train_7"])
    assert "ours / original" in capsys.readouterr().out


def test_all_ways_of_label_attention_agree(tmp_path, capsys):
    options = ["speed", "--codes", "30", "--length", "20", "--rounds", "1", "--output", str(tmp_path / "figures.json")]
    assert heads.main(options) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    for way in heads.WAYS:
        assert figures[f"logits_{way}"] < 1e-5 and figures[f"gradients_{way}"] < 1e-5
        assert figures[f"train_{way}"] > 0
    assert "Notes a second" in capsys.readouterr().out


def test_the_time_of_a_shortlist_is_taken(tmp_path):
    options = [
        "speed",
        "--codes",
        "100",
        "--length",
        "12",
        "--rounds",
        "1",
        "--output",
        str(tmp_path / "figures.json"),
    ]
    assert shortlist.main(options) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["size"] == 3
    speed_up = figures["label_attention_all_ms"] / figures["label_attention_short_ms"]
    assert figures["label_attention_speed_up"] == pytest.approx(speed_up)
    with pytest.raises(SystemExit, match="needs --data_dir"):
        shortlist.main(["loss"])


def test_int8_changes_the_backbone_alone(backbone):
    model = make("label_attention", backbone)
    ways = int8.make_ways(model)
    assert isinstance(ways["int8"].score.projection, torch.nn.Linear)
    assert type(ways["int8"].model.layers[0].mlp.up_proj) is not torch.nn.Linear
    given = [[5, 6, 7, 8]]
    logits = {way: int8.logits_of(ways[way], way, given) for way in int8.WAYS}
    torch.testing.assert_close(logits["fp32"], logits["fp32_onednn"], atol=1e-5, rtol=1e-5)
    for way in ("bf16", "int8"):
        assert 0 < (logits[way] - logits["fp32"]).abs().max() < 0.5
