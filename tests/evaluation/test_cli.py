"""`modeling-icd evaluate`, on an invented corpus and a model of two layers."""

import csv
import gzip
import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from own_process import run_python

from dataset_scripts import ICDBuilder
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4
from modeling_icd import LlamaICDConfig
from modeling_icd.decision_icd import decision_fields
from modeling_icd.evaluation.cli import main as evaluate_main
from modeling_icd.evaluation.cli import predictions_dir_of
from modeling_icd.evaluation.decide import main as decide_main
from modeling_icd.evaluation.decisions import DecisionArguments
from modeling_icd.evaluation.model_data import as_in_training
from modeling_icd.evaluation.predictions import read_predictions
from modeling_icd.evaluation.results import summarize
from modeling_icd.evaluation.results_file import read_results
from modeling_icd.evaluation.scoring import code_attributes, score_split
from modeling_icd.training.run import main as train_main


ROOT = Path(__file__).resolve().parents[2]
DECISION_OPTIONS = [option.name for option in fields(DecisionArguments)]


def test_a_model_folder_to_report_and_comparison(coder, corpus, tmp_path, capsys):
    config = (coder / "config.json").read_bytes()
    data = ["--dataset=mimic3", f"--data_dir={corpus}", f"--cache_dir={tmp_path / 'cache'}", "--split=all"]
    # As a user runs it, in a process of its own; what follows, in this one.
    evaluated = run_python("-m", "evaluate", coder, *data, f"--output_dir={tmp_path / 'own'}", cwd=ROOT)
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    assert "f1_micro" in evaluated.stdout and "95% interval" in evaluated.stdout
    written = {path.name for path in (tmp_path / "own").iterdir()}
    assert written == {"results.json", "predictions.parquet", "preds_all.psv", "report.md", "report.html", "plots"}
    results = read_results(tmp_path / "own" / "results.json")
    assert results["num_notes"] == 60 and results["unknown_codes"]
    assert results["threshold"] == "per code" and len(results["thresholds"]) == results["num_codes"]
    assert results["errors"]["always_predicted"]["num_codes"] >= 1
    assert {"frequency", "kind", "chapter", "level", "length", "num_codes", "heat_map"} == set(results["strata"])
    outcomes = read_predictions(tmp_path / "own" / "predictions.parquet").outcomes
    assert 2 * outcomes.is_hit.sum() / (len(outcomes.gold_codes) + len(outcomes.predicted_codes)) == pytest.approx(
        results["metrics"]["f1_micro"]
    )
    assert results["synthetic"] and results["audit"]["num_removed"] > 0
    # An audit of what the model itself predicted has nothing to doubt, and lists other codes alone.
    audit = [f"--output_dir={tmp_path / 'own'}", f"--audit={tmp_path / 'own' / 'preds_all.psv'}"]
    assert evaluate_main([str(coder), *data, *audit]) == 0
    with (tmp_path / "own" / "audit.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["finding"] for row in found} == {"missed"} and {row["predicted"] for row in found} == {"no"}
    assert len(found) == 20 * 60
    # Without --output_dir: figures into the model folder, which may be published, and patient data beside it.
    assert evaluate_main([str(coder), *data, "--threshold=0.4"]) == 0
    inside, beside = coder / "evaluation" / "all", Path(f"{coder}-private") / "evaluation" / "all"
    assert {path.name for path in inside.iterdir()} == {"results.json", "report.md", "report.html", "plots"}
    assert {path.name for path in beside.iterdir()} == {"predictions.parquet", "preds_all.psv"}
    # Evaluating leaves the model's decision as it was.
    assert (coder / "config.json").read_bytes() == config

    capsys.readouterr()
    compared = ["--compare", str(tmp_path / "own"), str(inside), f"--output_dir={tmp_path / 'comparison'}"]
    assert evaluate_main(compared) == 0
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert comparison["tests"][0]["is_paired"]
    assert "## Paired tests" in capsys.readouterr().out


def test_a_split_of_which_the_model_knows_no_code_is_refused(coder, tmp_path, capsys):
    path = tmp_path / "notes.csv"
    path.write_text("note_id,text,codes\n" + "".join(f"{i},invented note {i},I10;E11.9\n" for i in range(12)))
    data = ["--test_file", str(path), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "out")]
    assert evaluate_main([str(coder), *data]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: The model knows none of the 2 codes of the split 'test', such as 'E11.9'; it knows")
    assert not (tmp_path / "out").exists()
    path.write_text(path.read_text() + f"12,one that it knows,{LlamaICDConfig.from_pretrained(coder).id2label[0]}\n")
    assert evaluate_main([str(coder), *data]) == 0


def test_where_results_cannot_go_is_known_before_notes_are_scored(coder, corpus, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").write_text("")
    monkeypatch.setattr("modeling_icd.evaluation.cli.score_split", None)  # which nothing here may call
    for folder, why in (
        ("out", "a file is there, where a folder is expected"),
        ("out/in", "a part of this path is a file"),
    ):
        data = [f"--data_dir={corpus}", f"--output_dir={tmp_path / folder}"]
        assert evaluate_main([str(coder), "--dataset=mimic3", *data]) == 2
        assert capsys.readouterr().err.startswith(f"error: {tmp_path / folder}: {why}")


def test_a_file_in_the_place_of_the_model_is_recognised(tmp_path, capsys):
    path = tmp_path / "notes.csv"
    path.write_text("text\n")
    assert evaluate_main([str(path), f"--data_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"error: {path} is a file: give the folder of a model, or a Hub id.\n"


def test_options_of_training_count_where_the_configuration_is_that_of_training():
    trained = {"dataset": "mimic3", "config": "custom", "options": ["num_codes=7"]}
    assert as_in_training(trained, "mimic3", None, ["text=caml"]) == ("custom", ["num_codes=7", "text=caml"])
    assert as_in_training(trained, "mimic3", "custom") == ("custom", ["num_codes=7"])
    assert as_in_training(trained, "mimic3", "full", ["text=caml"]) == ("full", ["text=caml"])
    assert as_in_training(trained, "mimic4", None) == (None, [])
    assert as_in_training(None, "mimic3", None) == (None, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model"),
        (["model", "--compare", "a", "b"], "give a model"),
        (["model"], "model is not a folder"),
        (["--compare", "nowhere", "neither"], "nowhere"),
        (["--compare", "nowhere"], "at least 2"),
        (["--compare", "nowhere", "neither", "--audit"], "--audit"),
        (["model", "--dataset=mimic3", "--data_dir=.", "--audit=nowhere.psv"], "nowhere.psv"),
        (["model", "--dataset=mimic3", "--data_dir=.", "--threshold=1.5"], "--threshold must be in"),
    ],
)
def test_a_mistake_is_one_message(arguments, message, capsys):
    try:
        code = evaluate_main(arguments)
    except SystemExit as leave:  # of argparse
        code = leave.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_file_to_audit_is_read_before_a_note_is_scored(coder, corpus, tmp_path, capsys, monkeypatch):
    def score(*_):
        raise AssertionError("scored first")

    monkeypatch.setattr("modeling_icd.evaluation.scoring.logits_of_notes", score)
    path = tmp_path / "assigned.psv"
    path.write_text("7|401.9\n")
    data = ["--dataset=mimic3", f"--data_dir={corpus}", f"--cache_dir={tmp_path / 'cache'}", f"--audit={path}"]
    assert evaluate_main([str(coder), *data]) == 2
    assert "assigned.psv, line 1: this admission is not in the split" in capsys.readouterr().err


def rewrite_test_codes(corpus: Path, folder: Path) -> Path:
    """A copy of the corpus in which every diagnosis of a test admission is another one."""
    shutil.copytree(corpus, folder)
    tested = set((folder / "test_full_hadm_ids.csv").read_text().split())
    path = folder / "DIAGNOSES_ICD.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    hadm_id, code = header.index("HADM_ID"), header.index("ICD9_CODE")
    changed = 0
    for row in rows:
        if row[hadm_id] in tested:
            row[code], changed = "4280", changed + 1
    assert changed
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold_rule": "per_code", "calibration": "temperature"},
        {"threshold_rule": "top_k"},
        {"threshold_rule": "conformal", "target_recall": 0.3, "calibration": "platt", "review_precision": 0.2},
    ],
    ids=lambda options: options.get("threshold_rule", "default"),
)
def test_the_test_split_cannot_influence_a_decision(options, corpus, backbone, tmp_path, monkeypatch):
    """Training never reads the test split, and another test split leaves every number of the configuration as it was.

    Nor does `decide`, which finds the decision of training again.
    """
    read = []
    as_dataset = ICDBuilder.as_dataset

    def remember(self, split=None, in_memory=False):
        read.append(split)
        return as_dataset(self, split=split, in_memory=in_memory)

    monkeypatch.setattr(ICDBuilder, "as_dataset", remember)
    options = {
        "model": "direct",
        "pooling": "mean",
        "backbone": backbone,
        "window_size": 32,
        "dataset": "mimic3",
        "num_train_epochs": 1,
        "use_cpu": True,
        "tfidf_yardstick": False,
        **options,
    }
    decisions = []
    folders = (corpus, rewrite_test_codes(corpus, tmp_path / "other"))
    for folder in folders:
        output = tmp_path / "models" / folder.name
        given = [f"--{name}={value}" for name, value in options.items()]
        assert train_main([*given, f"--data_dir={folder}", f"--output_dir={output}"]) == 0
        config = LlamaICDConfig.from_pretrained(output)
        decisions.append({name: getattr(config, name) for name in (*decision_fields(), "label2id")})
    assert set(read) == {"train", "validation"}
    assert decisions[0] == decisions[1]
    fitted = decisions[0]
    assert fitted["threshold_rule"] == options.get("threshold_rule", "global")
    assert (fitted["calibration"] or {}).get("method") == options.get("calibration")
    if fitted["threshold_rule"] == "top_k":
        assert fitted["predict_top_k"] >= 1
    else:
        assert fitted["threshold"] != 0.5
    # `modeling-icd evaluate` decides by the configuration.
    scored = score_split(str(output), "mimic3", str(corpus), "validation", cache_dir=str(tmp_path / "cache"))
    results, outcomes = summarize(scored)
    assert results["synthetic"]
    assert results["threshold_rule"] == fitted["threshold_rule"]
    assert (results["calibration"] is None) == (fitted["calibration"] is None)
    assert (results["review"] is None) == ("review_precision" not in options)
    if fitted["threshold_rule"] == "conformal":
        # On the notes that it was fitted on, unknown codes counted as missed, the promise holds in any case.
        assert results["recall_promise"]["recall"] >= results["recall_promise"]["target"] == 0.3
    if fitted["threshold_rule"] == "top_k":
        assert len(outcomes.predicted_codes) == fitted["predict_top_k"] * outcomes.num_notes
    read.clear()
    weights = (output / "model.safetensors").read_bytes()
    for folder in folders:
        assert decide_main([str(output), f"--data_dir={folder}", "--threshold_rule=fixed"]) == 0
        config = LlamaICDConfig.from_pretrained(output)
        assert (config.threshold, config.calibration, config.predict_top_k) == (0.5, None, None)
        given = [f"--{name}={value}" for name, value in options.items() if name in DECISION_OPTIONS]
        assert decide_main([str(output), f"--data_dir={folder}", *given]) == 0
        config = LlamaICDConfig.from_pretrained(output)
        for name in decision_fields():
            assert_close(getattr(config, name), fitted[name])
    assert set(read) == {"validation"}
    assert (output / "model.safetensors").read_bytes() == weights
    trained_with = json.loads((output / "run.json").read_text())["training"]
    assert {name: trained_with[name] for name in options if name in DECISION_OPTIONS} == {
        name: value for name, value in options.items() if name in DECISION_OPTIONS
    }


def assert_close(value, expected):
    """Equal but for rounding, in whatever they hold."""
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for name in expected:
            assert_close(value[name], expected[name])
    elif isinstance(expected, list) and not all(isinstance(item, str) for item in expected):
        assert value == pytest.approx(expected, rel=1e-3)
    else:
        assert value == (pytest.approx(expected, rel=1e-3) if isinstance(expected, float) else expected)


def test_what_cannot_be_decided_again_is_refused(coder, corpus, tmp_path, capsys):
    def refused(folder, *options):
        assert decide_main([str(folder), f"--data_dir={corpus}", f"--cache_dir={tmp_path / 'cache'}", *options]) == 2
        return capsys.readouterr().err

    def change(name, **values):
        folder = shutil.copytree(coder, tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        config["training_data"] |= values
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    assert "output_dir" in refused(tmp_path / "nowhere")
    assert "need each other" in refused(coder, "--threshold_rule=conformal")
    promise = ["--threshold_rule=conformal", "--target_recall=0.99"]
    assert "cannot be promised" in refused(coder, *promise)
    assert "how many training notes" in refused(change("uncounted", code_counts={}), "--calibration=platt")
    refitted = change("refitted")
    (refitted / "run.json").write_text(json.dumps({"training": {"refit_on_validation": True}}))
    assert "has learned from its validation notes" in refused(refitted)
    # Nothing was written.
    assert json.loads((coder / "config.json").read_text())["threshold_rule"] == "fixed"


def test_a_recall_that_validation_cannot_promise_is_refused_before_training(corpus, backbone, tmp_path, capsys):
    options = ["--model=direct", "--dataset=mimic3", "--window_size=32", "--use_cpu=True", "--max_train_notes=8"]
    paths = [f"--backbone={backbone}", f"--data_dir={corpus}", f"--output_dir={tmp_path / 'model'}"]
    promise = ["--threshold_rule=conformal", "--target_recall=0.99"]
    assert train_main([*options, *paths, *promise]) == 2
    assert "`target_recall` 0.99 cannot be promised" in capsys.readouterr().err
    assert train_main([*options, *paths, "--threshold_rule=conformal"]) == 2
    assert "need each other" in capsys.readouterr().err


def test_train_and_evaluate_on_icd10(backbone, tmp_path):
    """MIMIC-IV's format from train.py to the strata of ICD-10; `--split all` keeps the model's codes."""
    write_mimic4(tmp_path / "corpus", num_admissions=160, length="short", show_progress=False)
    model, data = tmp_path / "model", ["--dataset=mimic4", f"--data_dir={tmp_path / 'corpus'}"]
    options = {"model": "direct", "pooling": "mean", "window_size": 32, "num_train_epochs": 1, "max_train_notes": 8}
    options |= {"backbone": backbone, "output_dir": model, "use_cpu": True, "report_to": "none"}
    options |= {"tfidf_yardstick": False}
    own = ["--dataset_config=icd10", "--dataset_options", "min_count=5"]
    assert train_main([*data, *own, *(f"--{name}={value}" for name, value in options.items())]) == 0
    config = json.loads((model / "config.json").read_text())
    assert {"dataset": "mimic4", "config": "icd10", "synthetic": True}.items() <= config["training_data"].items()
    assert config["code_descriptions"]["I10"] == "Essential (primary) hypertension"
    for split in ("test", "all"):
        assert evaluate_main([str(model), *data, f"--split={split}", f"--output_dir={tmp_path / split}"]) == 0
        results = read_results(tmp_path / split / "results.json")
        assert results["config"] == "icd10"
        strata = {name: [row["stratum"] for row in rows] for name, rows in results["strata"].items()}
        assert strata["kind"] == ["diagnosis", "procedure"]
        assert "I00-I99 Diseases of the circulatory system" in strata["chapter"]
        assert strata["level"] == ["chapter", "block", "category", "code"]
        assert results["num_learned_notes"] == {"test": 0, "all": 8}[split]
    assert results["num_codes"] == len(config["label2id"])


def test_predictions_stay_out_of_the_model_folder(tmp_path):
    model = tmp_path / "model"
    private = Path(f"{model}-private")
    assert predictions_dir_of(model / "evaluation" / "test", str(model)) == private / "evaluation" / "test"
    assert predictions_dir_of(model, str(model)) == private
    assert predictions_dir_of(tmp_path / "elsewhere", str(model)) == tmp_path / "elsewhere"


def test_attributes_of_codes():
    of_codes = code_attributes(["250.00", "96.71"])
    assert of_codes["250.00"] == {
        "chapter": "240-279 Endocrine, nutritional and metabolic diseases, and immunity disorders",
        "block": "249-259",
        "category": "250",
        "kind": "diagnosis",
    }
    assert (of_codes["96.71"]["kind"], of_codes["96.71"]["category"]) == ("procedure", "96")
    # One code of neither edition, and of all the category alone is known.
    assert code_attributes(["V45.81", "i10"]) == {"V45.81": {"category": "V45"}, "i10": {"category": "i10"}}


def test_attributes_of_icd10_codes():
    of_codes = code_attributes(["E11.9", "V45.81", "B20", "B2011ZZ"])
    assert of_codes["E11.9"]["chapter"] == "E00-E89 Endocrine, nutritional and metabolic diseases"
    assert (of_codes["E11.9"]["category"], of_codes["E11.9"]["kind"]) == ("E11", "diagnosis")
    assert of_codes["V45.81"]["chapter"] == "V00-Y99 External causes of morbidity"  # a status in ICD-9-CM
    # HIV disease and a radiograph of the heart share no group.
    assert (of_codes["B2011ZZ"]["chapter"], of_codes["B2011ZZ"]["kind"]) == ("B Imaging", "procedure")
    assert not {*of_codes["B20"].values()} & {*of_codes["B2011ZZ"].values()}
