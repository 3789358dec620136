"""Every road by which a Hugging Face user uploads a model, against a server that speaks the Hub's protocol."""

import copy
import json
import pickle

import pytest
import torch
from own_process import run_python
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaModel, Trainer, TrainingArguments, pipeline

from modeling_icd import ICDConfig, LlamaForICDCoding, LlamaICDConfig, ModelForICDCoding
from modeling_icd.sharing_icd import data_access, seal_training_data


REPO = "someone/raw"
COMMAND = "modeling-icd publish FOLDER --repo_id OWNER/NAME"
ITEMS = [{"input_ids": [2, 3, 4], "attention_mask": [1, 1, 1], "labels": [1.0, 0.0, 0.0]}] * 2


def load(folder):
    return LlamaForICDCoding.from_pretrained(folder)


def coder_of(folder):
    return pipeline("icd-coding", str(folder), trust_remote_code=True)


def trainer_of(model, tmp_path, **options):
    arguments = TrainingArguments(
        str(tmp_path / "out"), hub_model_id=REPO, use_cpu=True, report_to="none", max_steps=1, **options
    )
    return Trainer(model, arguments, train_dataset=ITEMS)


def with_lora(model):
    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))


ROADS = {
    "model.push_to_hub": lambda folder, tmp_path: load(folder).push_to_hub(REPO),
    "model.save_pretrained": lambda folder, tmp_path: load(folder).save_pretrained(
        tmp_path / "raw", push_to_hub=True, repo_id=REPO
    ),
    "config.push_to_hub": lambda folder, tmp_path: LlamaICDConfig.from_pretrained(folder).push_to_hub(REPO),
    "config.save_pretrained": lambda folder, tmp_path: LlamaICDConfig.from_pretrained(folder).save_pretrained(
        tmp_path / "raw", push_to_hub=True, repo_id=REPO
    ),
    "icd-coding pipeline.push_to_hub": lambda folder, tmp_path: coder_of(folder).push_to_hub(REPO),
    "icd-coding pipeline.save_pretrained": lambda folder, tmp_path: coder_of(folder).save_pretrained(
        tmp_path / "raw", push_to_hub=True, repo_id=REPO
    ),
    "its tokenizer.push_to_hub": lambda folder, tmp_path: coder_of(folder).tokenizer.push_to_hub(REPO),
    "its tokenizer.save_pretrained": lambda folder, tmp_path: coder_of(folder).tokenizer.save_pretrained(
        tmp_path / "raw", push_to_hub=True, repo_id=REPO
    ),
}
# These hold the model, and upload what cannot be held against its record.
HOLDERS = {
    "text-classification pipeline.push_to_hub": lambda folder, tmp_path: pipeline(
        "text-classification", str(folder)
    ).push_to_hub(REPO),
    "Trainer.push_to_hub": lambda folder, tmp_path: trainer_of(load(folder), tmp_path).push_to_hub(),
    "Trainer.train that pushes": lambda folder, tmp_path: trainer_of(load(folder), tmp_path, push_to_hub=True).train(),
    "PeftModel.push_to_hub": lambda folder, tmp_path: with_lora(load(folder)).push_to_hub(REPO),
    "Trainer of a PeftModel": lambda folder, tmp_path: trainer_of(with_lora(load(folder)), tmp_path).push_to_hub(),
}
# A part of the model, whose weights no record speaks of.
PARTS = {
    "backbone.push_to_hub": lambda folder, tmp_path: load(folder).model.push_to_hub(REPO),
    "backbone.save_pretrained": lambda folder, tmp_path: load(folder).base_model.save_pretrained(
        tmp_path / "raw", push_to_hub=True, repo_id=REPO
    ),
    "backbone of a copy": lambda folder, tmp_path: copy.deepcopy(load(folder)).model.push_to_hub(REPO),
    "backbone of a stored model": lambda folder, tmp_path: pickle.loads(pickle.dumps(load(folder))).model.push_to_hub(
        REPO
    ),
    "backbone in a PeftModel": lambda folder, tmp_path: with_lora(load(folder)).base_model.model.model.push_to_hub(
        REPO
    ),
    "PeftModel of the backbone": lambda folder, tmp_path: with_lora(load(folder).model).push_to_hub(REPO),
    "Trainer of the backbone": lambda folder, tmp_path: trainer_of(load(folder).model, tmp_path).push_to_hub(),
    "backbone of any kind": lambda folder, tmp_path: generic(folder).model.push_to_hub(REPO),
}


def generic(folder):
    """A new model of the class for any backbone, which has another model's record of training data."""
    sizes = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    backbone = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)
    record = LlamaICDConfig.from_pretrained(folder).training_data
    return ModelForICDCoding(ICDConfig.from_backbone(backbone, num_labels=3, training_data=record))


def uploaded(hub):
    return [request for request in hub.requests if "commit" in request or "preupload" in request or "blobs" in request]


@pytest.mark.parametrize("road", [*ROADS, *HOLDERS, *PARTS])
def test_no_road_takes_a_model_of_restricted_data_to_a_hub(road, model_dir, restricted, hub, tmp_path):
    with pytest.raises(ValueError, match=COMMAND.replace(".", r"\.")):
        {**ROADS, **HOLDERS, **PARTS}[road](model_dir, tmp_path)
    assert uploaded(hub) == []


@pytest.mark.parametrize("road", ["model.push_to_hub", "config.push_to_hub", "icd-coding pipeline.push_to_hub"])
@pytest.mark.parametrize("record", ["edited", "none", "older"])
def test_no_road_takes_a_model_of_unknown_data_to_a_hub(road, record, model_dir, hub, tmp_path):
    config = json.loads((model_dir / "config.json").read_text())
    if record == "edited":
        config["training_data"]["config"] = "full"
    elif record == "none":
        del config["training_data"]
    else:
        del config["training_data"]["seal"]
    (model_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="may have been trained on any data"):
        ROADS[road](model_dir, tmp_path)
    assert hub.requests == []


def test_a_model_of_invented_data_goes_its_own_ways_and_not_those_of_what_holds_it(finished_run, hub, tmp_path):
    hub.asks_of_cards = set()
    load(finished_run).push_to_hub(REPO)
    assert hub.files(REPO)["model.safetensors"] == (finished_run / "model.safetensors").read_bytes()
    coder_of(finished_run).push_to_hub("someone/coder")
    assert "tokenizer.json" in hub.files("someone/coder")
    LlamaICDConfig.from_pretrained(finished_run).push_to_hub("someone/config")
    assert "config.json" in hub.files("someone/config")

    def push_to_hub(model):  # of the user's own script
        model.push_to_hub("someone/again")

    push_to_hub(load(finished_run))
    assert "model.safetensors" in hub.files("someone/again")
    before = len(uploaded(hub))
    for road in (*HOLDERS.values(), *PARTS.values()):
        with pytest.raises(ValueError, match=COMMAND.replace(".", r"\.")):
            road(finished_run, tmp_path)
    assert len(uploaded(hub)) == before


def test_a_model_that_was_trained_further_by_hand_does_not_go_under_its_old_record(finished_run, hub, tmp_path):
    model = load(finished_run)
    with torch.no_grad():
        next(model.score.parameters()).add_(1)
    with pytest.raises(ValueError, match="These weights are not those that the record of training data speaks of"):
        model.push_to_hub(REPO)
    with pytest.raises(ValueError, match="These weights are not those"):
        model.save_pretrained(tmp_path / "raw", push_to_hub=True, repo_id=REPO)
    adapted = load(finished_run)
    adapted.add_adapter(LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(ValueError, match="These weights are not those"):
        adapted.push_to_hub(REPO)
    assert uploaded(hub) == []


def test_training_and_saving_without_a_push_are_left_alone(finished_run, tmp_path):
    trainer = trainer_of(load(finished_run), tmp_path)
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "out" / "model.safetensors").is_file()
    with_lora(load(finished_run)).save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert AutoTokenizer.from_pretrained(finished_run).push_to_hub  # another class's, which nothing here can change


def test_the_record_of_a_backbone_is_that_of_its_model_when_it_is_pushed(finished_run, hub):
    model = load(finished_run)
    with pytest.raises(ValueError, match="the record of training data speaks of the weights of the whole model"):
        model.model.push_to_hub(REPO)
    copied = copy.deepcopy(model)
    copied.config.training_data = seal_training_data({"dataset": "mimic3", "synthetic": False})
    with pytest.raises(ValueError, match="The LlamaModel in a LlamaForICDCoding was trained on restricted data"):
        copied.model.push_to_hub(REPO)
    assert hub.requests == []


def test_a_backbone_is_saved_to_a_folder_as_ever(finished_run, tmp_path):
    load(finished_run).model.save_pretrained(tmp_path)
    assert len(LlamaModel.from_pretrained(tmp_path).layers) == 1


def test_options_of_saving_may_be_given_by_position_and_a_push_among_them_is_seen(
    model_dir, finished_run, restricted, hub, tmp_path
):
    model = load(model_dir)
    model.save_pretrained(tmp_path / "model", True)
    model.config.save_pretrained(tmp_path / "config", False)
    assert load(tmp_path / "model").config.training_data == model.config.training_data
    weights = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    other = generic(model_dir)
    other.save_pretrained(tmp_path / "other", True, None, False, "1GB", None, None, True, True)
    model.save_pretrained(tmp_path / "zeros", True, weights)
    assert not any(weight.any() for weight in load(tmp_path / "zeros").state_dict().values())
    for push in (
        lambda: model.save_pretrained(tmp_path / "model", True, None, True),
        lambda: model.config.save_pretrained(tmp_path / "config", True),
    ):
        with pytest.raises(ValueError, match="was trained on restricted data"):
            push()
    assert hub.requests == []


REMOTE = """
import importlib.util, sys
from transformers import AutoModel, pipeline
folder = sys.argv[1]
assert importlib.util.find_spec("modeling_icd") is None, "the project must not be importable here"
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
coder = pipeline("icd-coding", folder, trust_remote_code=True)
for push in (model.push_to_hub, model.model.push_to_hub, model.config.push_to_hub, coder.push_to_hub):
    try:
        push("someone/raw")
    except ValueError as error:
        print(error)
"""


def test_remote_code_refuses_too(model_dir, restricted, hub, tmp_path):
    load(model_dir).save_pretrained(model_dir)  # brings the code
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
    run = run_python("-c", REMOTE, model_dir, cwd=tmp_path, environment=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count(COMMAND) == 4
    assert hub.requests == []


def test_a_record_is_sealed_over_all_that_it_says():
    record = seal_training_data({"dataset": "mimic3", "config": "full", "synthetic": True, "weights": "1f"})
    assert data_access(record) == "synthetic"
    assert data_access(json.loads(json.dumps(record))) == "synthetic"
    for change in ({"synthetic": False}, {"config": "top50"}, {"weights": "2f"}, {"seed": 1}, {"earlier": record}):
        assert data_access({**record, **change}) == "restricted"
    real = seal_training_data({"dataset": "mimic3", "synthetic": False})
    assert data_access({**real, "synthetic": True}) == "restricted"
    assert data_access(seal_training_data({**record, "earlier": real})) == "restricted"
    for broken in (None, [], "synthetic", 5, {}, {"seal": None}):
        assert data_access(broken) == "restricted"
