import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, LlamaConfig
from trl import TrlParser

import modeling_icd
from modeling_icd import LlamaForICDCoding, LlamaICDConfig, LlamaMultiResCNNConfig, LlamaMultiResCNNForICD
from modeling_icd.generative.arguments import ARGUMENTS, GenerativeArguments
from modeling_icd.training import models
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.config_files import given_field
from modeling_icd.training.fusion import FusionArguments


CONFIGS = Path(__file__).resolve().parents[2] / "configs"

CALIBRATION = {
    "method": "platt",
    "bands": ["1-5", ">500"],
    "slopes": [0.7, 0.9],
    "intercepts": [-0.5, 0.25],
    "band_of_code": [0, 0, 1, 1, 1],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooling", "max"),
        ("num_labels", 0),
        ("head_dropout", 1.0),
        ("head_ensemble_size", 0),
        ("window_size", 0),
        ("hidden_layer", 99),
        ("threshold", 1.5),
        ("threshold", [0.5, 0.5, 0.5]),
        ("problem_type", "regression"),
        ("threshold_rule", "best"),
        ("predict_top_k", 3),
        ("target_recall", 0.9),
        ("review_threshold", 0.5),
        ("review_precision", 0.9),
        ("calibration", {"method": "temperature"}),
        ("calibration", {**CALIBRATION, "method": "isotonic"}),
        ("calibration", {**CALIBRATION, "slopes": [1.0, 0.0]}),
        ("calibration", {**CALIBRATION, "slopes": [1.0]}),
        ("calibration", {**CALIBRATION, "intercepts": [0.0, float("nan")]}),
        ("calibration", {**CALIBRATION, "band_of_code": [0, 1]}),
        ("calibration", {**CALIBRATION, "band_of_code": [0, 0, 0, 1, 2]}),
    ],
)
@pytest.mark.parametrize("config_class", [LlamaICDConfig, LlamaMultiResCNNConfig])
def test_a_wrong_value_names_its_field(config_class, field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        config_class(**{"num_labels": 5, field: value})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"id2label": {0: "486", 1: "401.9", 2: "486"}}, r"`id2label` holds codes twice: \['486'\]"),
        ({"id2label": {1: "486", 2: "401.9"}}, "`id2label` must number 2 codes from 0 to 1"),
        ({"id2label": {0: "486", 2: "401.9"}}, "its numbers run from 0 to 2"),
        ({"id2label": {0: "486", 1: 401.9}}, "`id2label` must hold codes as text: 1 is 401.9"),
        ({"id2label": {0: "486", 1: " "}}, "`id2label` must hold codes as text"),
        ({"id2label": {0: "486", 1: "401.9"}, "label2id": {"486": 1, "401.9": 0}}, "`label2id` is not the reverse"),
        (
            {"id2label": {0: "486"}, "label2id": {"486": 0, "401.9": 1}},
            "not the reverse of `id2label`, e.g. for '401.9'",
        ),
        ({"id2label": {0: "486", 1: "401.9"}, "num_labels": 3}, "`num_labels` .3. and `id2label` .2 codes. disagree"),
    ],
)
def test_labels_that_name_no_logit_or_two_are_refused(labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        LlamaICDConfig(**labels)
    LlamaICDConfig(num_labels=1).save_pretrained(tmp_path)
    if "num_labels" not in labels:
        with pytest.raises(ValueError, match=message):
            LlamaICDConfig.from_pretrained(tmp_path, **labels)


def test_of_id2label_and_label2id_one_is_made_from_the_other(tmp_path):
    given = {"id2label": {0: "486", 1: "401.9"}, "label2id": {"401.9": 1, "486": 0}}
    for name, other in (("id2label", "label2id"), ("label2id", "id2label")):
        config = LlamaICDConfig(**{name: given[name]})
        assert getattr(config, other) == given[other] and config.num_labels == 2
        # The same where a saved configuration is given other labels, and where it lacks one of the two.
        LlamaICDConfig(num_labels=3, threshold=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
        loaded = LlamaICDConfig.from_pretrained(tmp_path, **{name: given[name]})
        assert getattr(loaded, other) == given[other] and loaded.threshold == 0.5
        config.save_pretrained(tmp_path)
        fields = json.loads((tmp_path / "config.json").read_text())
        del fields[other]
        (tmp_path / "config.json").write_text(json.dumps(fields))
        assert getattr(LlamaICDConfig.from_pretrained(tmp_path), other) == given[other]
    with pytest.raises(ValueError, match=r"`label2id` gives '486' and '401\.9' one number, 0"):
        LlamaICDConfig(label2id={"486": 0, "401.9": 0})


def test_an_ensemble_is_of_heads_that_attend():
    with pytest.raises(
        ValueError, match=r"`head_ensemble_size` \(2\) needs `pooling` 'label_attention' or 'laat' or .*, got 'last'"
    ):
        LlamaICDConfig(pooling="last", head_ensemble_size=2)


def test_stride_beyond_window_would_skip_tokens():
    with pytest.raises(ValueError, match="`window_stride` \\(9\\) must be between 1 and `window_size` \\(8\\)"):
        LlamaICDConfig(window_size=8, window_stride=9)


@pytest.mark.parametrize(("rule", "field"), [("top_k", "predict_top_k"), ("conformal", "target_recall")])
def test_a_rule_needs_its_number(rule, field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        LlamaICDConfig(num_labels=5, threshold_rule=rule)


def test_a_model_trained_further_takes_over_no_decision():
    earlier = LlamaICDConfig(
        num_labels=5,
        threshold=[0.1] * 5,
        threshold_rule="per_code",
        calibration=CALIBRATION,
        review_threshold=0.7,
        review_precision=0.9,
    )
    config = LlamaICDConfig.from_backbone(earlier, num_labels=3)
    assert (config.threshold, config.threshold_rule, config.calibration) == (0.5, "fixed", None)
    assert config.review_threshold is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filter_sizes", [3, 4]),
        ("filter_sizes", []),
        ("filter_sizes", [3, 3]),
        ("num_filter_maps", 0),
        ("num_residual_layers", -1),
        ("reduction_size", 0),
        ("pooling", "last"),
    ],
)
def test_a_wrong_filter_bank_names_its_field(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        LlamaMultiResCNNConfig(**{field: value})


def test_round_trip_keeps_every_field(tmp_path):
    config = LlamaMultiResCNNConfig(
        id2label={0: "401.9", 1: "96.71"},
        label2id={"401.9": 0, "96.71": 1},
        window_size=128,
        window_stride=96,
        hidden_layer=20,
        filter_sizes=(3, 5),
        threshold=[0.4, 0.2],
        threshold_rule="per_code",
        calibration={**CALIBRATION, "band_of_code": [0, 1]},
        review_threshold=0.7,
        review_precision=0.9,
        code_descriptions={"401.9": "Unspecified essential hypertension"},
    )
    config.save_pretrained(tmp_path)
    assert LlamaMultiResCNNConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_backbone_gives_its_architecture_and_rope_scaling_but_not_its_labels():
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 2048}
    backbone = LlamaConfig(hidden_size=64, num_labels=3, max_position_embeddings=8192, rope_parameters=yarn)
    config = LlamaICDConfig.from_backbone(backbone, num_labels=50)
    assert config.hidden_size == 64
    assert config.num_labels == 50
    assert config.rope_parameters == backbone.rope_parameters
    assert config.model_type == "llama_icd"


def test_a_saved_model_says_which_code_wrote_it_and_comes_back(tmp_path):
    tiny = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForICDCoding(LlamaICDConfig(num_labels=2, **tiny)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["modeling_icd_version"] == modeling_icd.__version__
    assert AutoConfig.from_pretrained(tmp_path).modeling_icd_version == modeling_icd.__version__


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, None),  # written before there was such a field
        ("0.0.9", None),
        (modeling_icd.__version__ + ".post1", None),
        ("0.99.1", "saved by modeling-icd 0.99.1, and this is .*: load it with modeling-icd 0.99.1 or newer"),
        ("2.0", "saved by modeling-icd 2.0"),
        ("next", "`modeling_icd_version` .'next'. is no version"),
        (3, "is no version"),
    ],
)
def test_a_configuration_of_newer_code_says_which_version_to_use(version, message, tmp_path):
    LlamaICDConfig(num_labels=2).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["modeling_icd_version"]
    if version is not None:
        fields["modeling_icd_version"] = version
    (tmp_path / "config.json").write_text(json.dumps(fields))
    if message is None:
        assert AutoConfig.from_pretrained(tmp_path).num_labels == 2
    else:
        with pytest.raises(ValueError, match=message):
            AutoConfig.from_pretrained(tmp_path)


def test_the_version_is_written_in_one_place():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    where = project["tool"]["hatch"]["version"]
    assert project["project"]["dynamic"] == ["version"]
    found = re.search(where["pattern"], (Path(__file__).resolve().parents[2] / where["path"]).read_text())
    assert found["version"] == modeling_icd.__version__


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_configuration_file_describes_a_model(file, monkeypatch):
    backbone = LlamaConfig(num_hidden_layers=30, hidden_size=576, num_attention_heads=9, max_position_embeddings=8192)
    monkeypatch.setattr(models, "load_config", lambda name: backbone)
    monkeypatch.setattr(models, "leave_out_backbone", lambda *args, **options: None)  # there are no files to compare
    for model_class in (LlamaForICDCoding, LlamaMultiResCNNForICD):

        def on_meta(name, config, own_class=model_class, **kwargs):
            with torch.device("meta"):
                return own_class(config)

        monkeypatch.setattr(model_class, "from_pretrained", on_meta)
    given = ["--config", str(file), "--data_dir", "x", "--use_cpu"]
    kind = given_field(given, "model")
    if kind == "generative":  # a language model, and no head over it
        training = ARGUMENTS[given_field(given, "stage")]
        own, _, _ = TrlParser([GenerativeArguments, DataArguments, training]).parse_args_and_config(given)
        assert own.settings({})["max_note_tokens"] > 0
        return
    parser = TrlParser([FusionArguments if kind == "fusion" else ModelArguments, DataArguments, ICDTrainingArguments])
    args, _, _ = parser.parse_args_and_config(given)
    model = models.build_model(args, "any", ["401.9", "428.0"], {}, None)
    assert model.config.hidden_layer == args.hidden_layer
