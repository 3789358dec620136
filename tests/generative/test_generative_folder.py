"""The folder of a generative coder in clean processes: as a language model, in the pipeline, and in every command."""

import json
from pathlib import Path

import pytest
from own_process import run_python

from dataset_scripts.files import read_json
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.inference.predict import main as predict
from modeling_icd.publishing.cli import main as publish


ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, pipeline
folder, notes = sys.argv[1], json.loads(sys.argv[2])
language_model = AutoModelForCausalLM.from_pretrained(folder)
coder = pipeline("icd-coding", folder, trust_remote_code=True)
coded = coder(notes, batch_size=2)
print(json.dumps([type(language_model).__name__, [[code["code"] for code in note] for note in coded], coded[0]]))
"""


@pytest.fixture(scope="module")
def trained(language_model, notes_dir, tmp_path_factory):
    """What `modeling-icd train` of this project writes, run as a user runs it."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "generative_sft.yaml"
    given = {"model": "generative", "stage": "sft", "backbone": language_model, "max_note_tokens": 100, "max_codes": 3}
    given |= {
        "dataset": "files",
        "data_dir": str(notes_dir),
        "dataset_options": ["code_system=icd9cm"],
        "max_steps": 8,
    }
    given |= {
        "output_dir": str(folder / "run"),
        "learning_rate": 0.01,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    config.write_text(json.dumps(given))
    run = run_python("-m", "modeling_icd", "train", config, "--per_device_train_batch_size", "4", cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder / "run"


def test_it_is_a_language_model_and_a_coder_in_a_clean_process(trained, tmp_path):
    notes = ["test visit 1: weak heart", "", "lung infection and high blood pressure"]
    run = run_python("-c", LOAD, trained, json.dumps(notes), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    name, codes, first = json.loads(run.stdout.splitlines()[-1])
    assert name == "LlamaForCausalLM"
    assert codes[1] == [] and set(codes[0]) | set(codes[2]) <= {"401.9", "428.0", "486"}
    for code in first:
        assert code["score"] > 0.5 and code["evidence"] is None
    table = tmp_path / "notes.csv"
    table.write_text("text\n" + "\n".join(f'"{note}"' for note in notes if note) + "\n")
    assert predict([str(trained), str(table), "-o", str(tmp_path / "codes.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert [[code["code"] for code in line["codes"]] for line in lines] == [codes[0], codes[2]]


def test_it_is_evaluated_as_any_model_and_of_restricted_notes_no_weights_go_out(trained, notes_dir, capsys):
    assert evaluate([str(trained), "--data_dir", str(notes_dir)]) == 0
    results = read_json(trained / "evaluation/test/results.json", "")
    assert {"f1_micro", "auc_micro", "precision_at_5", "map", "ece"} <= results["metrics"].keys()
    generation = results["generation"]
    assert (generation["notes"], generation["invalid_rate"], generation["repeated_rate"]) == (4, 0.0, 0.0)
    assert "0.0% are not in the set" in capsys.readouterr().out
    assert results["threshold_rule"] == "fixed"
    predicted = sum(results["per_code"]["predicted"])
    assert predicted == generation["codes"]  # just what was generated
    options = ["--base_model", "someone/tiny-chat", "--data_dir", str(notes_dir), "--min_notes_of_word", "1"]
    assert publish([str(trained), "--repo_id", "someone/coder", "--dry_run", *options]) == 0
    listed = capsys.readouterr().out.partition("README.md:")[0]
    assert "weights: no" in listed and "safetensors" not in listed
