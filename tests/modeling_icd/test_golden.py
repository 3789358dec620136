"""Model folders that version 0.1.0 wrote, one of each kind, load as they did then and give the same logits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import modeling_icd  # noqa: F401 - registers the models


FOLDER = Path(__file__).resolve().parents[1] / "golden" / "v0_1_0"
KINDS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
DECISIONS = ("threshold", "threshold_rule", "predict_top_k", "target_recall", "calibration", "review_threshold")
OURS = ("id2label", "code_descriptions", "training_data", "window_size", "window_stride", "hidden_layer", "pooling")


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "outputs.safetensors")


def test_there_is_one_of_each_kind():
    assert len(KINDS) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_folder_gives_the_logits_that_it_gave(kind, expected):
    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        model, loading = auto_class.from_pretrained(FOLDER / kind, output_loading_info=True)
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        with torch.no_grad():
            output = model(expected["input_ids"], expected["attention_mask"], output_label_attentions=True)
        torch.testing.assert_close(output.logits, expected[f"{kind}.logits"], atol=1e-6, rtol=1e-5)
        if f"{kind}.label_attentions" in expected:
            torch.testing.assert_close(
                output.label_attentions, expected[f"{kind}.label_attentions"], atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_configuration_says_what_it_said(kind, tmp_path):
    stored = json.loads((FOLDER / kind / "config.json").read_text())
    config = AutoConfig.from_pretrained(FOLDER / kind)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    for name in (*DECISIONS, *OURS):
        told = stored.get(name)
        if name == "id2label":
            told = {int(i): code for i, code in told.items()}
        assert getattr(config, name) == getattr(again, name) == told, name
