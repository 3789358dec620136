import json
import os
import shutil
from hashlib import sha256

import pytest
import torch
from transformers import LlamaForCausalLM

from dataset_scripts import load_split
from dataset_scripts.marker import is_synthetic
from dataset_scripts.synthetic import write_corpus as write_mimic3
from dataset_scripts.synthetic.mimic4 import write_corpus
from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.decision_icd import decision_fields
from modeling_icd.extras import physionet
from modeling_icd.publishing.card import build_card, describe_data
from modeling_icd.publishing.cli import main
from modeling_icd.publishing.folder import ModelFolder, real_datasets
from modeling_icd.publishing.release import PACKAGE, outgoing_files, plan_release
from modeling_icd.sharing_icd import data_access, seal_training_data
from modeling_icd.training.arguments import ModelArguments
from modeling_icd.training.models import build_model


REAL = {"dataset": "mimic3", "config": "full", "synthetic": False}
INVENTED = {"dataset": "mimic3", "config": "full", "synthetic": True}
REPORTS = {"dataset": "cmc2007", "config": "default", "synthetic": False, "open": True}


@pytest.mark.parametrize(
    ("training_data", "access", "datasets"),
    [
        (INVENTED, "synthetic", set()),
        (REPORTS, "open", {"cmc2007"}),
        ({**REPORTS, "open": False}, "restricted", {"cmc2007"}),
        ({**REPORTS, "open": "yes"}, "restricted", {"cmc2007"}),
        (REAL, "restricted", {"mimic3"}),
        ({"dataset": "mimic3", "config": "full"}, "restricted", {"mimic3"}),
        ({"dataset": "renamed"}, "restricted", {"renamed"}),
        (None, "restricted", {"unknown"}),
        ({}, "restricted", {"unknown"}),
        ({"synthetic": "yes"}, "restricted", {"unknown"}),
        ({**INVENTED, "earlier": REAL}, "restricted", {"mimic3"}),
        ({**INVENTED, "earlier": None}, "restricted", {"unknown"}),
        ({**INVENTED, "earlier": {**REPORTS, "earlier": INVENTED}}, "open", {"cmc2007"}),
        ({**REPORTS, "earlier": REAL}, "restricted", {"cmc2007", "mimic3"}),
    ],
)
def test_who_may_have_the_training_data(training_data, access, datasets):
    record = seal_training_data(training_data) if training_data else training_data
    assert data_access(record) == access
    assert real_datasets(record) == datasets


def test_training_further_on_invented_notes_does_not_wash_a_model_clean(model_dir, edit):
    edit("config.json", training_data=REAL)
    arguments = ModelArguments(model="direct", backbone=str(model_dir), pooling="label_attention")
    config = build_model(arguments, str(model_dir), ["401.9", "428.0", "96.71"], {}, INVENTED).config
    assert config.training_data["dataset"] == "mimic3" and config.training_data["synthetic"] is True
    assert REAL.items() <= config.training_data["earlier"].items()
    assert data_access(seal_training_data(config.training_data)) == "restricted"


def trained_further(backbone, codes=("401.9", "428.0", "96.71")):
    """What a model of invented notes on this backbone says that it was trained on."""
    arguments = ModelArguments(model="direct", backbone=str(backbone), pooling="label_attention")
    return build_model(arguments, str(backbone), codes, {}, INVENTED).config.training_data


def test_saved_by_another_class_a_model_keeps_its_training_data(model_dir, restricted, tmp_path):
    LlamaForCausalLM.from_pretrained(model_dir).save_pretrained(tmp_path / "causal")
    assert json.loads((tmp_path / "causal" / "config.json").read_text())["model_type"] == "llama"
    assert real_datasets(seal_training_data(trained_further(tmp_path / "causal"))) == {"mimic3"}
    with pytest.raises(ValueError, match="other shapes than one for 1 codes"):
        trained_further(model_dir, ["401.9"])
    LlamaForICDCoding.from_pretrained(model_dir).model.save_pretrained(tmp_path / "bare")
    assert real_datasets(seal_training_data(trained_further(tmp_path / "bare", ["401.9"]))) == {"mimic3"}


def test_weights_that_changed_since_they_were_trained_are_of_unknown_data(model_dir, capsys):
    assert data_access(seal_training_data(trained_further(model_dir))) == "synthetic"
    model = LlamaForICDCoding.from_pretrained(model_dir)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(1)
    model.save_pretrained(model_dir)  # as after training of one's own, over the folder that `modeling-icd train` wrote
    with pytest.raises(ValueError, match="what they were trained on is not known"):
        ModelFolder.read(model_dir)
    assert data_access(seal_training_data(trained_further(model_dir))) == "restricted"
    assert "counts as one of restricted data" in capsys.readouterr().err


def test_real_tables_in_the_folder_of_an_invented_corpus_are_not_invented(notes, tmp_path):
    corpus = tmp_path / "corpus"
    write_mimic3(corpus, num_admissions=5, length="short", show_progress=False)
    assert is_synthetic(corpus) and is_synthetic(corpus.rename(tmp_path / "renamed"))
    shutil.copy(notes / "NOTEEVENTS.csv.gz", tmp_path / "renamed")
    assert not is_synthetic(tmp_path / "renamed")
    assert not is_synthetic(notes)


def release_of(path, **options):
    folder = ModelFolder.read(path)
    release = plan_release(folder, "someone/tiny-icd", **options)
    return release, outgoing_files(folder, release, build_card(folder, release))


def test_without_weights_nothing_fitted_on_notes_goes_out(model_dir, restricted):
    release, files = release_of(model_dir, private=False, gated="no")
    assert not release.with_weights
    assert not [name for name in files if "safetensors" in name]
    config = json.loads(files["config.json"])
    assert "threshold" not in config
    assert config["id2label"]["0"] == "401.9"
    assert config["code_descriptions"]["428.0"] == "Congestive heart failure, unspecified"
    results = json.loads(files["results.json"])
    assert not {"threshold", "unknown_codes", "model"} & results.keys()
    assert b"0.25" not in files["config.json"]


def test_no_field_of_the_decision_goes_out_without_weights(model_dir, restricted, edit):
    calibration = {
        "method": "platt",
        "bands": ["all"],
        "slopes": [0.7],
        "intercepts": [0.1],
        "band_of_code": [0, 0, 0],
    }
    decision = {
        "threshold": 0.25,
        "threshold_rule": "conformal",
        "target_recall": 0.9,
        "calibration": calibration,
        "review_threshold": 0.75,
        "review_precision": 0.9,
    }
    edit("config.json", **decision)
    fitted = {"review": {}, "recall_promise": {}, "audit": {}, "threshold_rule": "conformal"}
    fitted["calibration"] = {"bands": [{"slope": 0.7, "intercept": 0.1}]}
    edit("results.json", **fitted)
    _, files = release_of(model_dir)
    config, results = json.loads(files["config.json"]), json.loads(files["results.json"])
    assert not set(decision_fields()) & config.keys()
    assert not fitted.keys() & results.keys()
    LlamaICDConfig(**config)  # and what is left is a configuration
    _, files = release_of(model_dir, permission="letter of 2026-03-01")
    assert decision.items() <= json.loads(files["config.json"]).items()


def test_counts_of_notes_in_the_training_data_stay_at_home(model_dir, edit):
    edit("config.json", training_data={**REAL, "code_counts": {"401.9": 3}, "earlier": {**REAL, "code_counts": {}}})
    _, files = release_of(model_dir)
    assert json.loads(files["config.json"])["training_data"] == {**REAL, "earlier": REAL}


def test_a_permission_brings_the_weights_privately(model_dir, restricted):
    release, files = release_of(model_dir, permission="letter of 2026-03-01")
    assert (release.private, release.gated, release.license) == (True, "manual", "apache-2.0")
    assert {"model.safetensors", "LICENSE-CODE"} <= files.keys()
    assert b"PhysioNet Credentialed Health Data License 1.5.0" in files["LICENSE"]
    assert json.loads(files["config.json"])["threshold"] == 0.25
    for options in ({"private": False}, {"gated": "auto"}, {"gated": "no"}):
        with pytest.raises(ValueError, match="private repository with manual gating only"):
            release_of(model_dir, permission="letter of 2026-03-01", **options)
    with pytest.raises(ValueError, match="needs a reference"):
        release_of(model_dir, permission=" ")


def test_a_folder_that_would_not_load_is_refused(model_dir, edit):
    edit("config.json", auto_map={"AutoModel": "elsewhere.Model"})
    with pytest.raises(ValueError, match=r"`auto_map` of config\.json must be the classes of this project"):
        release_of(model_dir)
    edit("config.json", auto_map=None)
    (model_dir / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="No model"):
        release_of(model_dir)


def test_code_that_was_changed_in_the_folder_stays_there(model_dir):
    (model_dir / "heads.py").write_text("import os\n")
    _, files = release_of(model_dir)
    assert files["heads.py"].read_text() == (PACKAGE / "heads.py").read_text()


def test_a_local_backbone_has_to_be_named(model_dir, edit):
    run = json.loads((model_dir / "run.json").read_text())
    edit("run.json", model={**run["model"], "backbone": "/home/hannah/llama"})
    with pytest.raises(ValueError, match="--base_model"):
        release_of(model_dir)
    assert b"hannah" not in release_of(model_dir, base_model="someone/llama")[1]["train.yaml"]


def test_a_model_trained_in_two_runs_comes_with_both_configurations(model_dir, edit, finished_run):
    run = json.loads((model_dir / "run.json").read_text())
    edit("run.json", model={**run["model"], "backbone": str(finished_run), "freeze_backbone": False, "lora_r": 4})
    release, files = release_of(model_dir)
    assert release.base_model == "someone/tiny-llama"
    assert b"backbone: someone/tiny-llama" in files["train_1.yaml"]
    assert b"backbone: OUTPUT_1" in files["train_2.yaml"]
    assert b"lora_r: 4" in files["train_2.yaml"]


def package(model_dir, notes, tmp_path):
    return physionet.main([str(model_dir), "--output_dir", str(tmp_path / "package"), "--data_dir", str(notes)])


def test_the_physionet_package_is_whole_and_its_sums_hold(model_dir, restricted, bpe, notes, tmp_path, capsys):
    assert package(model_dir, notes, tmp_path) == 0, capsys.readouterr().err
    folder = tmp_path / "package"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "README.md", "LICENSE", "LICENSE-CODE", "PROVENANCE.json", "SHA256SUMS"} <= names
    sums = dict(
        line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines()
    )  # as sha256sum reads
    assert sums == {name: sha256((folder / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    provenance = json.loads((folder / "PROVENANCE.json").read_text())
    assert provenance["trained_on"]["dataset"] == "mimic3"
    assert not [path for path in folder.iterdir() if b"hannah" in path.read_bytes()]
    assert package(model_dir, notes, tmp_path) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_physionet_is_for_restricted_data_alone(finished_run, tmp_path, capsys):
    assert physionet.main([str(finished_run), "--output_dir", str(tmp_path / "package")]) == 2
    assert "not trained on restricted data" in capsys.readouterr().err


def test_real_data_must_be_named_for_the_check(model_dir, restricted, capsys):
    for command in (["privacy", str(model_dir)], [str(model_dir), "--repo_id", "someone/tiny-icd"]):
        assert main(command) == 2
        assert "--data_dir" in capsys.readouterr().err


def test_models_of_mimic4_name_their_edition_and_are_compared_with_its_notes(model_dir, edit, bpe, tmp_path, capsys):
    icd9 = {"dataset": "mimic4", "config": "icd9_top50", "synthetic": False}
    icd10 = {**icd9, "config": "icd10"}
    assert (data_access(icd9), describe_data(icd9).code_system) == ("restricted", "ICD-9-CM")
    assert describe_data({**icd10, "synthetic": True}).name == "an invented corpus in MIMIC-IV's table format"

    write_corpus(tmp_path / "notes", num_admissions=80, length="short", show_progress=False)
    command = ["privacy", str(model_dir), "--data_dir", str(tmp_path / "notes")]
    edit("config.json", training_data={**icd10, "earlier": icd9})
    assert main(command) == 2  # no configuration has the notes of both
    assert "trained on icd10 and icd9 of mimic4: only one edition" in capsys.readouterr().err
    edit("config.json", training_data={**icd9, "earlier": {**icd9, "config": "icd9"}})
    assert main(command) == 0
    # A note whose codes are all rare, which the default `min_count` leaves out, is compared as well.
    note = load_split("mimic4", "all", "icd9", data_dir=tmp_path / "notes", cache_dir=tmp_path, min_count=1)["text"][
        -1
    ]
    edit("results.json", interval_method=" ".join(note.split()[20:40]))
    assert main(command) == 1


def test_a_model_of_two_data_sets_is_compared_with_both(model_dir, edit, bpe, notes, tmp_path, capsys):
    write_corpus(tmp_path / "mimic4", num_admissions=80, length="short", show_progress=False)
    later = {"dataset": "mimic4", "config": "icd9", "synthetic": False}
    edit("config.json", training_data={**later, "earlier": REAL})
    command = ["privacy", str(model_dir), "--cache_dir", str(tmp_path / "cache")]
    assert main([*command, "--data_dir", str(notes)]) == 2
    assert "name the folder of each, `--data_dir mimic3=DIR --data_dir mimic4=DIR`" in capsys.readouterr().err
    command += [f"--data_dir=mimic3={notes}", f"--data_dir=mimic4={tmp_path / 'mimic4'}"]
    assert main(command) == 0
    for dataset, config, folder in (("mimic3", "full", notes), ("mimic4", "icd9", tmp_path / "mimic4")):
        text = load_split(dataset, "all", config, data_dir=folder, cache_dir=tmp_path / "cache")["text"][0]
        edit("results.json", interval_method=" ".join(text.split()[20:40]))
        assert main(command) == 1
        edit("results.json", interval_method=None)


def test_a_finding_blocks_and_names_no_text(model_dir, restricted, edit, bpe, notes, tmp_path, capsys):
    text = load_split("mimic3", "all", "top50", data_dir=notes, cache_dir=tmp_path / "cache")["text"][0]
    leak = " ".join(text.split()[20:40])
    edit("results.json", interval_method=leak)
    assert main(["privacy", str(model_dir), "--data_dir", str(notes)]) == 1
    error = capsys.readouterr().err
    assert "results.json: span of 8 or more words of a training note (" in error
    assert leak not in error
    assert package(model_dir, notes, tmp_path) == 1
    assert not (tmp_path / "package").exists()


def test_an_honest_folder_passes_against_its_notes(model_dir, restricted, bpe, notes, capsys):
    assert main(["privacy", str(model_dir), "--data_dir", str(notes)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_the_later_results_are_published(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "model")
    first, second = folder / "results.json", folder / "evaluation" / "test" / "results.json"
    second.parent.mkdir(parents=True)
    second.write_text(json.dumps({**json.loads(first.read_text()), "num_notes": 2}))
    os.utime(first, (1, 1))
    assert ModelFolder.read(folder).results["num_notes"] == 2
    os.utime(second, (0, 0))
    assert ModelFolder.read(folder).results["num_notes"] != 2
