"""Experiments: what their files may say, in which order runs come, and what a report makes of figures."""

import json

import pytest

from experiments import plans
from experiments.__main__ import main
from experiments.costs import measure, unbeaten
from experiments.plans import Run, names, read_plan
from experiments.report import difference, figures_of, report


PLAN = """
title: Two ways
asks: Which is better?
tasks:
  folds: {dataset: cmc2007, parts: [fold0, fold1]}
  seeds: {dataset: codiesp, parts: [diagnoses_en], seeds: [0, 1]}
rows:
  frequencies: {yardstick: frequencies}
  ours: {config: {seeds: codiesp_direct}}
  words: {config: peers/caml, options: {learning_rate: 1}, by_task: {folds: {learning_rate: 2}}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    (tmp_path / "two.yaml").write_text(PLAN)
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_every_experiment_names_configurations_that_there_are(name):
    plan = read_plan(name)
    root = plans.FOLDER.parent / "configs"
    for row in plan.rows.values():
        for config in row.configs.values():
            assert (root / f"{config}.yaml").is_file(), config
    assert list(plan.runs())


def test_rows_come_by_turns_and_yardsticks_once(folder):
    plan = read_plan("two")
    assert [run.name for run in plan.runs()] == [
        "folds-fold0-frequencies-seed0",
        "folds-fold0-words-seed0",
        "folds-fold1-frequencies-seed0",
        "folds-fold1-words-seed0",
        "seeds-diagnoses_en-frequencies-seed0",
        "seeds-diagnoses_en-ours-seed0",
        "seeds-diagnoses_en-words-seed0",
        "seeds-diagnoses_en-ours-seed1",
        "seeds-diagnoses_en-words-seed1",
    ]
    assert plan.rows["words"].options == {"folds": {"learning_rate": 2}, "seeds": {"learning_rate": 1}}
    assert [run.seed for run in plan.runs(tasks=["seeds"], rows=["ours"], seeds=[1])] == [1]


def test_a_mean_of_seeds_comes_when_all_are_there(folder, tmp_path):
    (folder / "two.yaml").write_text(PLAN + "  words x 2: {mean_of: words}\n")
    plan = read_plan("two")
    of_mean = [run for run in plan.runs() if run.row == "words x 2"]
    assert [(run.task, run.part) for run in of_mean] == [
        ("folds", "fold0"),
        ("folds", "fold1"),
        ("seeds", "diagnoses_en"),
    ]
    assert [member.name for member in plan.members(of_mean[-1])] == [
        "seeds-diagnoses_en-words-seed0",
        "seeds-diagnoses_en-words-seed1",
    ]
    order = [run.name for run in plan.runs(tasks=["seeds"])]
    assert order[-1] == "seeds-diagnoses_en-words_x_2-seed0"
    assert not [run for run in plan.runs(seeds=[1]) if run.row == "words x 2"]
    with pytest.raises(ValueError, match="averages seeds-diagnoses_en-words-seed0, which is not done"):
        main(
            [
                *("two", "--rows", "words x 2", "--tasks", "seeds"),
                *("--data", f"codiesp={tmp_path}", "--output_dir", str(tmp_path / "out")),
            ]
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("asks: Which is better?", "", "lacks asks"),
        ("dataset: cmc2007, ", "", "tasks: folds lacks dataset"),
        (
            "yardstick: frequencies",
            "yardstick: guess",
            "`yardstick` must be one of frequencies, tfidf, tfidf_refitted, tfidf_strong, ",
        ),
        (
            "asks: Which is better?",
            "asks: Which?\nagainst: theirs",
            "`against` must be one of the rows, frequencies, ours",
        ),
        ("{yardstick: frequencies}", "{}", "rows: frequencies must have one of `config`, `yardstick`, `mean_of`"),
        (
            "{yardstick: frequencies}",
            "{mean_of: frequencies}",
            "`mean_of` must be a row with a `config`, got 'frequencies'",
        ),
        ("config: peers/caml", "conf: caml", "rows: words has no field conf"),
        ("config: peers/caml", "config: camel", "rows: words: there is no configuration .*camel.yaml"),
        ("parts: [diagnoses_en]", "parts: diagnoses_en", "tasks: seeds: `parts` must be a list, got 'diagnoses_en'"),
        ("asks: Which", "asks: [Which", "is no YAML"),
        (
            "{seeds: codiesp_direct}",
            "{seed: codiesp_direct}",
            "rows: ours: there is no task 'seed', only folds, seeds",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_field(old, new, message, folder):
    (folder / "two.yaml").write_text(PLAN.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_plan("two")


def test_wrong_words_on_the_command_line(folder, tmp_path, capsys):
    for arguments, message in (
        (["three"], "There is no experiment 'three': choose from two"),
        (["two", "--tasks", "x"], "two has no task x, only folds, seeds"),
        (["two", "--rows", "x"], "two has no row x, only frequencies, ours, words"),
        (["two"], "The task folds needs the data set cmc2007: give --data cmc2007=DIR"),
        (["two", "--data", "cmc2007"], "`--data` must be NAME=VALUE, got 'cmc2007'"),
        (["two", "--set", "llama=x"], "two leaves nothing open, and not llama"),
        (["two", "--seeds", "7"], "two has no run with --seeds 7"),
    ):
        with pytest.raises(ValueError, match=message):
            main([*arguments, "--output_dir", str(tmp_path / "out")])


def found(micro: float, overall_map: float = 0.5) -> dict:
    metrics = {"f1_micro": micro, "f1_macro": 0.1, "map": overall_map, "auc_micro": 0.9, "precision_at_5": 0.4}
    return {"metrics": metrics, "intervals": {"f1_micro": [micro - 0.1, micro + 0.1]}, "training_seconds": 60}


def test_what_is_left_open_is_filled_or_the_row_is_left_out(folder, capsys):
    (folder / "two.yaml").write_text(
        PLAN + '  open: {config: peers/plm_icd, options: {backbone: "{bert}", reader_options: ["vectors={bert}"]}}\n'
    )
    plan, lacking = read_plan("two").filled({})
    assert "open" not in plan.rows and lacking == {"open": ["bert"]}
    plan, lacking = read_plan("two").filled({"bert": "b"})
    assert plan.rows["open"].options["folds"] == {"backbone": "b", "reader_options": ["vectors=b"]} and not lacking
    with pytest.raises(ValueError, match="open: left out, since --set does not give bert"):
        main(["two", "--rows", "open", "--dry_run"])


def test_figures_of_folds_and_seeds(folder):
    results = {
        Run("folds", "fold0", "words", 0): found(0.5),
        Run("folds", "fold1", "words", 0): found(0.7),
        Run("folds", "fold0", "frequencies", 0): found(0.2),
        Run("folds", "fold1", "frequencies", 0): found(0.3),
        Run("seeds", "diagnoses_en", "words", 0): found(0.4),
    }
    folds = figures_of(results, "folds", "words", "f1_micro")
    # Student's t with one degree of freedom: 12.706 standard errors of 0.1.
    assert (folds.mean, folds.num_runs) == (pytest.approx(0.6), 2)
    assert (folds.low, folds.high) == (pytest.approx(0.6 - 1.2706, abs=1e-3), pytest.approx(0.6 + 1.2706, abs=1e-3))
    one = figures_of(results, "seeds", "words", "f1_micro")
    assert (one.low, one.high) == (pytest.approx(0.3), pytest.approx(0.5))  # of its test notes
    assert figures_of(results, "seeds", "ours", "f1_micro") is None
    mean, low, high = difference(results, "folds", "words", "frequencies")
    assert mean == pytest.approx(0.35) and low < 0 < high
    assert difference(results, "seeds", "words", "ours") is None


def test_a_report_says_who_is_best_and_who_is_below_the_frequencies(folder):
    plan = read_plan("two")
    results = {
        Run("folds", part, row, 0): found(micro, overall_map)
        for part, shift in (("fold0", 0.0), ("fold1", 0.01))
        for row, micro, overall_map in (("frequencies", 0.2 + shift, 0.3), ("words", 0.6 + shift, 0.2))
    }
    text = report(plan, results, num_planned=9)
    assert "4 of 9 runs." in text
    assert "words has the highest micro-F1, 0.605; next is frequencies with 0.205." in text
    assert "which does not hold 0" in text and "may change" not in text
    assert "Below the MAP of the table of frequencies, 0.300: words." in text
    assert "| words | 2 | **0.605**" in text


def test_a_report_says_what_is_gained_over_a_row(folder):
    (folder / "two.yaml").write_text(PLAN + "against: frequencies\n")
    plan = read_plan("two")
    results = {Run("seeds", "diagnoses_en", "frequencies", 0): found(0.2)}
    results |= {Run("seeds", "diagnoses_en", "words", seed): found(micro) for seed, micro in ((0, 0.5), (1, 0.6))}
    for seed, macro in ((0, 0.13), (1, 0.15)):
        results[Run("seeds", "diagnoses_en", "words", seed)]["metrics"]["f1_macro"] = macro
        bands = [{"stratum": "1-5", "f1_macro": macro / 2}, {"stratum": "6-10", "f1_macro": macro}]
        results[Run("seeds", "diagnoses_en", "words", seed)]["strata"] = {"frequency": bands}
    text = report(plan, results, num_planned=9)
    assert "Beside frequencies; the last columns" in text
    # 0.35 and 0.04 above; Student's t with one degree of freedom is 12.706.
    assert "| words | +0.350 (-0.285 to +0.985) | +0.040 (-0.087 to +0.167) | +40% | 0.070 | 0.140 |" in text
    assert "Beside" not in report(plan._replace(against=None), results, num_planned=9)


def test_an_experiment_runs_goes_on_and_reports(folder, tmp_path, capsys):
    (folder / "two.yaml").write_text(
        """
title: Words and frequencies
asks: Which is better?
tasks:
  invented:
    dataset: mimic3
    parts: [top50]
    seeds: [0, 1]
    synthetic: {num_admissions: 40, length: short, show_progress: false}
    options: {num_train_epochs: 1, per_device_train_batch_size: 16, use_cpu: true}
rows:
  frequencies: {yardstick: frequencies}
  TF-IDF: {yardstick: tfidf}
  words: {config: peers/cnn, options: {reader_options: [vectors=random], head_options: [num_filter_maps=8]}}
  words x 2: {mean_of: words}
"""
    )
    out = tmp_path / "out"
    command = ["two", "--output_dir", str(out)]
    assert main([*command, "--minutes", "0"]) == 0
    assert "0 of 5 runs after 0 minutes" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "5 of 5 runs" in said and "5/5 invented-top50-words_x_2-seed0: f1_micro" in said
    assert (out / "two.png").stat().st_size > 1000
    summary = json.loads((out / "summary.json").read_text())
    assert {row["row"] for row in summary} == {"frequencies", "TF-IDF", "words", "words x 2"}
    before = (out / "invented-top50-words-seed0" / "results.json").stat().st_mtime_ns
    assert main([*command, "--dry_run"]) == 0
    assert "5 of 5 runs are done" in capsys.readouterr().out
    assert main(command) == 0
    assert (out / "invented-top50-words-seed0" / "results.json").stat().st_mtime_ns == before
    assert main([*command, "--only_report"]) == 0
    plan = read_plan("two")
    costs = {
        run.row: measure(run, plan, str(out / "corpus-invented"), out, num_notes=4)
        for run in plan.runs(seeds=[0])
        if run.row in ("TF-IDF", "words")
    }
    assert all(cost["coding"] > 0 and cost["epoch"] > 0 and cost["memory"] > 1e8 for cost in costs.values())
    assert costs["words"]["learned"] > 1000 and costs["words"]["reading"] == 0


def test_what_no_other_row_beats():
    costs = {"slow": 9.0, "quick": 1.0, "poor": 2.0, "equal": 1.0, "middle": 3.0}
    reached = {"slow": 0.9, "quick": 0.5, "poor": 0.4, "equal": 0.4, "middle": 0.6}
    assert unbeaten(costs, reached) == ["quick", "middle", "slow"]
