"""Pushing to, and loading from, a server that speaks the Hub's protocol over HTTP."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from transformers import AutoTokenizer

from dataset_scripts import load_split
from modeling_icd import LlamaForICDCoding
from modeling_icd.publishing.cli import main


REPO = "someone/tiny-icd"
PUBLISHED = {
    "LICENSE",
    "README.md",
    "config.json",
    "base_configuration_icd.py",
    "configuration_icd.py",
    "handler.py",
    "backbone_icd.py",
    "heads.py",
    "windows_icd.py",
    "answers_icd.py",
    "generative_icd.py",
    "prompts_icd.py",
    "verify_icd.py",
    "graph_icd.py",
    "terms_icd.py",
    "fusion_features_icd.py",
    "fusion_icd.py",
    "fusion_synonyms_icd.py",
    "fusion_tables_icd.py",
    "fusion_text_icd.py",
    "fusion_titles_icd.py",
    "fusion_words_icd.py",
    "attention_icd.py",
    "layers_icd.py",
    "multirescnn_icd.py",
    "comparators_icd.py",
    "pooled_icd.py",
    "reading_icd.py",
    "words_icd.py",
    "options_icd.py",
    "labels_icd.py",
    "model.safetensors",
    "modeling_icd.py",
    "pipeline_icd.py",
    "requirements.txt",
    "results.json",
    "decision_icd.py",
    "describe_icd.py",
    "evidence_icd.py",
    "sharing_icd.py",
    "loss_icd.py",
    "versions_icd.py",
    "tokenizer.json",
    "tokenizer_config.json",
    "train.yaml",
}


def push(folder, *options, repo_id=REPO):
    return main([str(folder), "--repo_id", repo_id, *options])


def test_a_push_is_private_and_gated_before_the_first_file(finished_run, hub, capsys):
    assert push(finished_run) == 0
    assert hub.files(REPO).keys() == PUBLISHED
    assert (hub.repos[REPO]["private"], hub.repos[REPO]["gated"]) == (True, "manual")
    settings = hub.requests.index(f"PUT /api/models/{REPO}/settings")
    uploads = [i for i, request in enumerate(hub.requests) if "preupload" in request or "commit" in request]
    assert settings < min(uploads)
    ((revision, files),) = hub.repos[REPO]["commits"]
    assert revision in capsys.readouterr().out
    assert files["model.safetensors"] == (finished_run / "model.safetensors").read_bytes()
    assert b"hannah" not in b"".join(files.values())


def test_a_second_push_changes_nothing(finished_run, hub):
    assert push(finished_run) == push(finished_run) == 0
    assert len(hub.repos[REPO]["commits"]) == 1


def test_a_public_model_of_invented_notes_is_open_to_all(finished_run, hub):
    assert push(finished_run, "--no-private", "--gated", "no") == 0
    assert (hub.repos[REPO]["private"], hub.repos[REPO]["gated"]) == (False, False)
    assert b"extra_gated" not in hub.files(REPO)["README.md"]


def test_a_dry_run_shows_all_and_asks_nothing_of_the_hub(finished_run, hub, capsys):
    assert push(finished_run, "--dry_run") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PUBLISHED)
    assert f"{(finished_run / 'model.safetensors').stat().st_size:,}" in shown
    assert "private, gated: manual" in shown
    assert "Affiliation (text)" in shown
    assert "## Who may use the weights" in shown
    *_, pushed, verdict = shown.splitlines()
    assert pushed == "Dry run: nothing was pushed."
    assert verdict.startswith("READY: without `--dry_run`, ") and verdict.endswith(
        f" bytes, with the model's weights, would be pushed to {REPO}."
    )
    assert hub.requests == []


def test_a_dry_run_ends_with_what_blocks_the_push(model_dir, restricted, edit, bpe, notes, tmp_path, hub, capsys):
    assert push(model_dir, "--dry_run") == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith("BLOCKED until the notes are compared: give `--data_dir`. Then ")
    assert "without the model's weights" in verdict
    assert push(model_dir) == 2  # as it said
    text = load_split("mimic3", "all", "top50", data_dir=notes, cache_dir=tmp_path / "cache")["text"][0]
    edit("results.json", interval_method=" ".join(text.split()[20:40]))
    assert push(model_dir, "--dry_run", "--data_dir", str(notes)) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"BLOCKED by 2 findings of the privacy check, listed above: nothing would be pushed to {REPO}."
    )
    assert hub.requests == []


def test_a_model_of_other_codes_is_refused_with_what_to_do(model_dir, edit, hub, capsys):
    codes = {str(i): code for i, code in enumerate(["ward-7/a", "ward-7/b", "ward-7/c"])}
    record = {"dataset": "files", "config": "default", "synthetic": False, "open": True}
    edit("config.json", id2label=codes, training_data={**record, "code_counts": dict.fromkeys(codes.values(), 3)})
    assert push(model_dir, "--dry_run") == 2
    assert capsys.readouterr().err == (
        "error: `id2label` of config.json must be the codes of the model, dotted and all of one edition of ICD, or groups of such "
        "codes, by their class ids from 0 on, got another object: a model of other codes is not published, since nothing tells its "
        "codes from words or numbers of a note, and the privacy check takes no code for an id. If they are of ICD, train it with "
        "`--dataset_options code_system=icd9cm` (or icd10cm, icd10pcs), which checks them and puts their dots in. If they are a "
        "hospital's own, or of more than one edition, put the code of one edition of ICD that each stands for in its place in the "
        "table of codes, and train on that; without it the folder can be used, and handed on within the house, as it is.\n"
    )


def test_a_model_that_was_trained_from_python_is_refused_with_what_to_do(model_dir, edit, hub, capsys):
    (model_dir / "run.json").unlink()
    (model_dir / "results.json").unlink()  # to measure it first would be in vain
    edit("config.json", training_data=None)
    assert push(model_dir, "--dry_run") == 2
    assert capsys.readouterr().err == (
        f"error: No run.json in {model_dir}: a model that was trained from Python has none, so that nothing says what it learned "
        "from, and it cannot be checked. Train it with `modeling-icd train` (`--train_file`, `--validation_file` and `--test_file` "
        "take your notes, and each field of `TrainingArguments` is an option), evaluate it, and publish that.\n"
    )


@pytest.mark.parametrize(
    ("token", "repo_id", "refused", "message"),
    [
        ("hf_wrong", REPO, {}, "does not know this token"),
        ("hf_reader", REPO, {}, "may not write to someone/tiny-icd"),
        ("hf_writer", "another/tiny-icd", {}, "may not write to another/tiny-icd"),
        ("hf_writer", REPO, {"PUT /blobs": 403}, "large file was refused or broken off"),
        ("hf_writer", REPO, {f"POST /{REPO}.git": 422}, "refuses a large file"),
        ("hf_writer", REPO, {"POST /api/validate-yaml": 400}, "Invalid metadata"),
        ("hf_writer", REPO, {"PUT /api/models": 403}, "may not write"),
        ("hf_writer", REPO, {f"POST /api/models/{REPO}/commit": 409}, "is writing to it"),
        ("hf_writer", REPO, {f"POST /api/models/{REPO}/commit": 0}, "cannot be reached"),
        ("hf_writer", REPO, {"GET /api/whoami-v2": 0}, "cannot be reached"),
        ("hf_writer", REPO, {"POST /api/repos/create": 500}, "answered with status 500"),
        ("hf_writer", REPO, {"GET /api/models": 429}, "answered with status 429"),
    ],
)
def test_a_failure_is_one_message_and_the_same_command_resumes(
    token, repo_id, refused, message, finished_run, hub, monkeypatch, capsys
):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    monkeypatch.setenv("HF_TOKEN", token)
    hub.refused = refused
    assert push(finished_run, repo_id=repo_id) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert before == {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert not any(hub.files(repo_id) for repo_id in hub.repos)

    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    hub.refused, hub.owner = {}, repo_id.split("/")[0]
    assert push(finished_run, repo_id=repo_id) == 0
    assert hub.files(repo_id).keys() == PUBLISHED


def test_no_network_is_one_message_and_the_same_command_goes_on_when_it_is_back(
    finished_run, hub, monkeypatch, capsys
):
    hub.close()
    assert push(finished_run) == 2
    assert "cannot be reached" in capsys.readouterr().err
    back = HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", back.url)
    assert push(finished_run) == 0
    assert back.files(REPO).keys() == PUBLISHED
    back.close()


def test_no_token_is_one_message(finished_run, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    assert push(finished_run) == 2
    assert "There is no token" in capsys.readouterr().err
    assert hub.requests == []


def test_a_repository_with_other_files_is_left_alone(finished_run, hub, capsys):
    hub.repos[REPO] = {"private": False, "gated": False, "commits": [("1" * 40, {"notes.csv": b"theirs"})]}
    assert push(finished_run) == 2
    assert "notes.csv" in capsys.readouterr().err
    assert hub.files(REPO) == {"notes.csv": b"theirs"}


def test_a_model_of_restricted_notes_goes_without_weights_and_they_with_permission_go_privately(
    model_dir, restricted, bpe, notes, hub
):
    assert push(model_dir, "--data_dir", str(notes), "--no-private", "--gated", "no") == 0
    assert hub.files(REPO).keys() == PUBLISHED - {"model.safetensors", "handler.py", "requirements.txt"}
    assert b"**This repository holds no weights.**" in hub.files(REPO)["README.md"]
    permission = ("--i_have_written_permission", "letter of 2026-03-01")
    assert push(model_dir, "--data_dir", str(notes), "--no-private", *permission) == 2
    assert not hub.repos[REPO]["private"]
    assert push(model_dir, "--data_dir", str(notes), *permission) == 0
    assert (hub.repos[REPO]["private"], hub.repos[REPO]["gated"]) == (True, "manual")
    assert hub.files(REPO).keys() == PUBLISHED | {"LICENSE-CODE"}
    assert b"letter of 2026-03-01" in hub.files(REPO)["README.md"]


def test_an_interrupted_push_is_taken_up_by_the_same_command(finished_run, hub, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub._commit_api._send_commit", interrupt)
        assert push(finished_run) == 130
    assert "interrupted" in capsys.readouterr().err
    uploads = sum(request.startswith("PUT /blobs") for request in hub.requests)
    assert push(finished_run) == 0
    assert sum(request.startswith("PUT /blobs") for request in hub.requests) == uploads == 1


LOAD = """
import json, re, sys
repo, revision, output = sys.argv[1:4]
try:
    import modeling_icd
except ImportError:
    pass
else:
    raise SystemExit("the project must not be importable here")
from huggingface_hub import hf_hub_download
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

pinned = {"revision": revision, "trust_remote_code": True}
note = "fever cough no evidence of acute renal failure " * 4
inputs = AutoTokenizer.from_pretrained(repo, **pinned)(note, return_tensors="pt")
inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
logits = [auto.from_pretrained(repo, **pinned)(**inputs).logits[0].tolist()
          for auto in (AutoModel, AutoModelForSequenceClassification)]
text = pipeline("text-classification", model=repo, top_k=None, **pinned)(note)
coded = pipeline("icd-coding", model=repo, **pinned)(note, top_k=2)
card = open(hf_hub_download(repo, "README.md", revision=revision)).read()
shown = {}
for snippet in re.findall("```python\\n(.*?)```", card, re.DOTALL):
    exec(snippet, shown)
open(output, "w").write(json.dumps({"logits": logits, "text": len(text[0]) if isinstance(text[0], list) else len(text),
                  "coded": [row["code"] for row in coded], "shown": list(shown["scores"].shape)}))
"""


ENDPOINT = """
import importlib.util, json, sys
folder = sys.argv[4]
assert importlib.util.find_spec("modeling_icd") is None, "the project must not be importable here"
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
note = "fever cough no evidence of acute renal failure"
faults = []
for request in ({}, {"inputs": None}, {"inputs": 5}, {"inputs": note, "parameters": {"temperature": 1}}):
    try:
        handler(request)
    except ValueError as error:
        faults.append(str(error))
answers = [handler({"inputs": note, "parameters": {"top_k": 2}}), handler({"inputs": [note, "fever"]})]
open(f"{folder}/answers.json", "w").write(json.dumps({"answers": answers, "faults": faults}))
"""


def test_what_was_pushed_loads_at_its_revision_in_a_clean_process_then_offline_and_serves_an_endpoint(
    finished_run, hub, tmp_path
):
    assert push(finished_run) == 0
    revision = hub.repos[REPO]["commits"][0][0]
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, data in hub.files(REPO).items():
        (folder / name).write_bytes(data)
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_reader"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def load(program, **variables):
        run = subprocess.run(
            [sys.executable, "-S", "-c", program, REPO, revision, str(tmp_path / "loaded.json"), str(folder)],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads((tmp_path / "loaded.json").read_text())

    loaded = load(LOAD)
    asked = len(hub.requests)
    assert load(ENDPOINT + LOAD, HF_HUB_OFFLINE="1") == loaded
    assert len(hub.requests) == asked
    model = LlamaForICDCoding.from_pretrained(finished_run).eval()
    inputs = AutoTokenizer.from_pretrained(finished_run)(
        "fever cough no evidence of acute renal failure " * 4, return_tensors="pt"
    )
    expected = model(inputs["input_ids"], inputs["attention_mask"]).logits[0]
    for logits in loaded["logits"]:
        torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=1e-5)
    assert (loaded["text"], len(loaded["coded"]), loaded["shown"]) == (3, 2, [1, 3])
    answered = json.loads((folder / "answers.json").read_text())
    one, several = answered["answers"]
    assert [sorted(code) for code in one] == [["code", "decision", "description", "evidence", "score"]] * 2
    assert len(several) == 2 and all(isinstance(codes, list) for codes in several)
    assert [fault.split(":")[0] for fault in answered["faults"]] == [
        *['A request needs "inputs"'] * 3,
        '"parameters" may hold threshold, top_k, num_spans, batch_size; temperature is none of these.',
    ]


def test_an_endpoint_gets_the_transformers_that_the_project_needs(finished_run, hub):
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert push(finished_run) == 0
    assert hub.files(REPO)["requirements.txt"].decode().strip() in project["dependencies"]
