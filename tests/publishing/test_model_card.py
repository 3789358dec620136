import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_icd.evaluation.icd_metrics.metrics import shown_in
from modeling_icd.extras.physionet import plan_physionet_release
from modeling_icd.publishing.card import build_card, card_metadata, card_variables, papers_of
from modeling_icd.publishing.folder import ModelFolder, project_file, read_content
from modeling_icd.publishing.release import outgoing_files, plan_release


WORDS = {"model_type": "icd_words"}
GOLDEN = Path(__file__).with_name("golden_card.md")


def card_of(path, **options) -> str:
    folder = ModelFolder.read(path)
    return build_card(folder, plan_release(folder, "someone/tiny-icd", **options))


def test_the_whole_card(finished_run):
    assert card_of(finished_run) == GOLDEN.read_text()


def test_the_template_is_one_of_the_hubs_library(finished_run):
    folder = ModelFolder.read(finished_run)
    release = plan_release(folder, "someone/tiny-icd")
    card = ModelCard.from_template(
        card_metadata(folder, release), template_path=project_file("model_card.md"), **card_variables(folder, release)
    )
    assert card.content.rstrip() + "\n" == build_card(folder, release)


def test_the_model_index_comes_back_with_the_figures_of_the_results(finished_run):
    metadata = ModelCard(card_of(finished_run)).data
    figures = {result.metric_name: result.metric_value for result in metadata.eval_results}
    measured = json.loads((finished_run / "results.json").read_text())["metrics"]
    assert figures == {metric.title: round(measured[metric.name], 4) for metric in shown_in("card")}
    assert {result.dataset_split for result in metadata.eval_results} == {"test"}
    assert metadata.license == "apache-2.0"
    assert metadata.base_model == "someone/tiny-llama"


def test_admissions_that_were_learned_from_are_named(model_dir, edit):
    assert "learned from" not in card_of(model_dir)
    edit("results.json", num_learned_notes=3)
    assert "**The model learned from 3 of the " in card_of(model_dir)


@pytest.mark.parametrize("missing", ["f1_macro", "precision_at_15", "ece", "exact_match"])
def test_a_missing_metric_is_an_error(missing, model_dir, edit):
    metrics = json.loads((model_dir / "results.json").read_text())["metrics"]
    del metrics[missing]
    edit("results.json", metrics=metrics)
    with pytest.raises(ValueError, match=f"lacks metrics.{missing}"):
        card_of(model_dir)


@pytest.mark.parametrize("missing", ["metrics", "split", "num_codes", "threshold", "intervals", "strata"])
def test_a_missing_field_is_an_error(missing, model_dir, edit):
    edit("results.json", **{missing: None})
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        card_of(model_dir)


@pytest.mark.parametrize("name", ["config.json", "run.json", "results.json"])
def test_a_missing_file_is_an_error_that_names_it(name, model_dir):
    (model_dir / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        card_of(model_dir)


def test_results_of_another_threshold_are_refused(model_dir, edit):
    assert "calibration in `config.json`" not in card_of(model_dir)
    edit("config.json", threshold=0.3)
    with pytest.raises(ValueError, match="another threshold"):
        card_of(model_dir)


def test_results_of_other_thresholds_of_single_codes_are_refused(model_dir, edit):
    edit("config.json", threshold=[0.3, 0.4, 0.5], threshold_rule="per_code")
    thresholds = {"401.9": 0.3, "428.0": 0.4, "96.71": 0.5}
    edit("results.json", threshold="per code", thresholds={**thresholds, "an unknown code": 1.0})
    card_of(model_dir)
    edit("results.json", thresholds={**thresholds, "428.0": 0.6})
    with pytest.raises(ValueError, match="another threshold"):
        card_of(model_dir)


def test_results_of_another_calibration_are_refused(model_dir, edit):
    calibration = {"method": "temperature", "bands": ["all"], "slopes": [0.8], "intercepts": [0.0]}
    edit("config.json", calibration={**calibration, "band_of_code": [0, 0, 0]})
    measured = {"method": "temperature", "bands": [{"band": "all", "num_codes": 3, "slope": 0.8, "intercept": 0.0}]}
    edit("results.json", calibration=measured)
    assert "`icd-coding` alone applies the calibration" in card_of(model_dir)
    edit("results.json", calibration=None)
    with pytest.raises(ValueError, match="another calibration"):
        card_of(model_dir)


def test_an_unfinished_run_is_refused(model_dir, edit):
    edit("run.json", log=[{"loss": 0.5}])
    with pytest.raises(ValueError, match="train_runtime"):
        card_of(model_dir)


def test_an_undefined_figure_is_named_and_not_indexed(model_dir, edit):
    metrics = json.loads((model_dir / "results.json").read_text())["metrics"]
    edit("results.json", metrics={**metrics, "auc_macro": None})
    card = card_of(model_dir)
    assert "| AUC, macro | undefined |" in card
    assert "AUC, macro" not in {result.metric_name for result in ModelCard(card).data.eval_results}


def test_intervals_and_frequency_bands_are_those_of_the_results(finished_run):
    card = card_of(finished_run)
    assert "| F1, micro | 0.8000 | 0.4000 to 0.9000 | over all decisions |" in card
    assert "| 1-5 | 3 | 0.5000 | 0.2500 | 0.3333 | undefined |" in card
    assert "Not measured band by band" not in card


def test_a_table_with_a_hole_is_an_error(model_dir, edit):
    results = json.loads((model_dir / "results.json").read_text())
    intervals = {key: interval for key, interval in results["intervals"].items() if key != "map"}
    edit("results.json", intervals=intervals)
    with pytest.raises(ValueError, match=r"lacks intervals\.map"):
        card_of(model_dir)
    edit("results.json", intervals=results["intervals"], strata={})
    assert "Not measured band by band" in card_of(model_dir)  # of a model that does not count its training notes
    edit("config.json", training_data={"dataset": "mimic3", "synthetic": True, "code_counts": {"401.9": 3}})
    with pytest.raises(ValueError, match=r"lacks strata\.frequency"):
        card_of(model_dir)


@pytest.mark.parametrize(
    ("config", "papers"),
    [
        ({"model_type": "llama_icd", "pooling": "laat"}, {"llama", "laat"}),
        ({"model_type": "llama_multirescnn_icd", "pooling": "label_attention"}, {"llama", "multirescnn"}),
        ({"model_type": "icd", "head": "laat", "backbone_config": {"model_type": "llama"}}, {"llama", "laat"}),
        ({"model_type": "icd", "head": "cross_attention", "backbone_config": {"model_type": "bert"}}, {"plm_ca"}),
        ({"model_type": "multirescnn_icd", "head": "multirescnn", "backbone_config": WORDS}, {"multirescnn"}),
        ({"model_type": "caml_icd", "head": "caml", "backbone_config": WORDS}, {"caml"}),
        ({"model_type": "laat_icd", "head": "joint_laat", "backbone_config": WORDS}, {"laat"}),
        ({"model_type": "cnn_icd", "head": "cnn", "backbone_config": WORDS}, {"caml"}),
        ({"model_type": "gru_icd", "head": "last", "backbone_config": WORDS}, {"caml"}),
        ({"model_type": "icd", "head": "mean", "backbone_config": WORDS}, set()),
    ],
)
def test_a_card_cites_the_papers_of_its_own_model(config, papers, finished_run):
    assert papers_of(config) == papers
    folder = ModelFolder.read(finished_run)
    release = plan_release(folder, "someone/tiny-icd")
    template = project_file("model_card.md").read_text()
    card = ModelCard.from_template(
        card_metadata(folder, release), template_str=template, **{**card_variables(folder, release), "papers": papers}
    ).content
    numbers = {
        "llama": "2411.06823",
        "multirescnn": "li2020",
        "caml": "1802.05695",
        "laat": "2007.06351",
        "plm_ca": "2406.08958",
    }
    assert {paper for paper, number in numbers.items() if number in card} == papers


def test_no_local_path_of_the_run_is_in_the_card(finished_run):
    assert "hannah" not in card_of(finished_run)


def test_the_shown_configuration_is_one_for_train_py(finished_run):
    from dataclasses import fields

    from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments

    shown = yaml.safe_load(card_of(finished_run).split("```yaml\n")[1].split("```")[0])
    known = {field.name for cls in (ModelArguments, DataArguments, ICDTrainingArguments) for field in fields(cls)}
    assert shown.keys() <= known
    assert (shown["backbone"], shown["learning_rate"], shown["seed"]) == ("someone/tiny-llama", 0.001, 7)


def test_a_card_without_weights_says_so_and_gives_no_threshold(model_dir, restricted):
    card = card_of(model_dir)
    assert "**This repository holds no weights.**" in card
    assert "MIMIC-III v1.4" in card
    assert "0.2500," not in card
    assert "AutoModelForSequenceClassification.from_pretrained(FOLDER" in card


def test_a_permission_is_recorded_and_changes_the_license(model_dir, restricted):
    card = card_of(model_dir, permission="letter of 2026-03-01 to H. Example")
    assert "letter of 2026-03-01 to H. Example" in card
    metadata = ModelCard(card).data
    assert metadata.license == "other"
    assert "PhysioNet user name" in metadata.extra_gated_fields


def test_the_card_of_the_physionet_package_names_a_folder(model_dir, restricted):
    folder = ModelFolder.read(model_dir)
    card = build_card(folder, plan_physionet_release(folder))
    assert 'model="path/to/this/folder"' in card
    assert "extra_gated" not in card


def test_a_model_below_its_yardsticks_says_so_beside_its_figures(model_dir, edit):
    record = json.loads((model_dir / "config.json").read_text())["training_data"]
    found = {"model": {"map": 0.25, "f1_micro": 0.5}, "frequencies": {"map": 0.375}}
    edit("config.json", training_data={**record, "yardsticks": {**found, "below": []}})
    assert "On the validation notes" not in card_of(model_dir)
    edit("config.json", training_data={**record, "yardsticks": {**found, "below": ["frequencies"]}})
    sentence = (
        "On the validation notes the model's MAP 0.2500 is below the 0.3750 of a table that gives every note the codes' "
        "training frequencies."
    )
    assert f"Every figure is read from `results.json`. **{sentence}**\n\n| metric |" in card_of(model_dir)


@pytest.mark.parametrize(
    ("base_model", "words", "license"),
    [
        ("meta-llama/Llama-2-7b-hf", "Built with Llama 2", "llama2"),
        ("somebody/my-llama-2-7b-tuned", "Built with Llama 2", "llama2"),
        ("meta-llama/Meta-Llama-3-8B", "Built with Meta Llama 3", "llama3"),
        ("meta-llama/Llama-3.1-8B", "Built with Llama", "llama3.1"),
        ("codellama/CodeLlama-7b-hf", "Built with Llama 2", "llama2"),
        ("somebody/Llama_2_7b", "Built with Llama 2", "llama2"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", None, "apache-2.0"),
        ("openlm-research/open_llama_3b", None, "apache-2.0"),
        ("somebody/llama-3b", None, "apache-2.0"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", None, "apache-2.0"),
    ],
)
def test_a_model_made_with_a_llama_of_meta_says_so(base_model, words, license, finished_run):
    folder = ModelFolder.read(finished_run)
    release = plan_release(folder, "someone/tiny-icd", base_model=base_model)
    card = build_card(folder, release)
    assert ModelCard(card).data.license == license
    files = outgoing_files(folder, release, card)
    if words is None:
        assert "Built with" not in card and "NOTICE" not in files
    else:
        assert f"| {words} | under the [" in card and "Copyright (c) Meta Platforms, Inc." in card
        assert words.encode() in files["NOTICE"]
    is_apache = license == "apache-2.0"
    assert ("LICENSE-CODE" not in files) == is_apache
    assert license.encode() in read_content(files["LICENSE"]) or is_apache
    mine = plan_release(folder, "someone/tiny-icd", base_model=base_model, license="mit")
    card = build_card(folder, mine)
    assert ModelCard(card).data.license == "mit"
    assert b"under the license mit," in read_content(outgoing_files(folder, mine, card)["LICENSE"])


@pytest.mark.parametrize("place", ["/srv/models/llama", "C:\\Users\\hannah\\srv\\models\\llama"])
def test_a_head_over_a_folder_goes_out_under_the_hub_id_of_its_backbone(place, model_dir, edit):
    digest = "0" * 64
    edit("config.json", backbone_source={"name": place, "revision": None, "digest": digest})
    folder = ModelFolder.read(model_dir)
    release = plan_release(folder, "someone/tiny-icd", base_model="meta-llama/Llama-2-7b-hf")
    files = outgoing_files(folder, release, build_card(folder, release))
    config = json.loads(files["config.json"])
    assert config["backbone_source"] == {"name": "meta-llama/Llama-2-7b-hf", "revision": None, "digest": digest}
    assert place not in files["README.md"].decode() and place not in read_content(files["README.md"]).decode()
    assert release.license == "apache-2.0"  # the weights are the head's alone
