"""A data set is added by one builder class and one row of `BUILDERS`: here it comes from outside of the package."""

import csv
from pathlib import Path

import datasets
import pytest

from dataset_scripts import BUILDERS, ICDBuilder, load_builder, load_split, parse_options, record_features
from dataset_scripts.__main__ import main
from dataset_scripts.facts import Facts
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.training.run import main as train


NOTES = [("cough and fever", ["486"]), ("chest pain", ["786.50", "401.9"]), ("cough", ["786.2"]), ("fever", ["486"])]


class Letters(ICDBuilder):
    """Letters with ICD-9-CM codes: a table of three columns."""

    ABOUT = Facts(
        name="Letters",
        hub_id="letters",
        note_kind="letter",
        code_system="ICD-9-CM",
        license="CC0",
        terms="anyone",
        limits="All of it is invented.",
        description="Invented letters and their ICD-9-CM codes.",
    )
    BUILDER_CONFIGS = [ICDBuilder.BUILDER_CONFIG_CLASS(name="default")]

    def _find_sources(self, config):
        self.table = Path(config.data_dir, "letters.csv")
        return [self.table]

    @property
    def code_descriptions(self):
        return {"486": "Pneumonia, organism unspecified"}

    def _split_generators(self, dl_manager):
        with open(self.table, newline="") as file:
            rows = list(csv.DictReader(file))
        self.info.features = record_features({code for row in rows for code in row["codes"].split()})
        splits = {"unsplit": rows} if self.config.unsplit else {"train": rows[:3], "validation": rows[3:]}
        codes = {name: [row["codes"].split() for row in split] for name, split in splits.items()}
        self._report({"letters without a text": sum(not row["text"] for row in rows)}, codes)
        return [datasets.SplitGenerator(name=name, gen_kwargs={"rows": split}) for name, split in splits.items()]

    def _generate_examples(self, rows):
        for row in rows:
            number = int(row["number"])
            codes = sorted(self.code2id[code] for code in row["codes"].split())
            yield number, {"subject_id": number, "hadm_id": number, "text": row["text"], "codes": codes}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(BUILDERS, "letters", Letters)
    with open(tmp_path / "letters.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["number", "text", "codes"])
        table.writerows([number, text, " ".join(codes)] for number, (text, codes) in enumerate(NOTES))
    return tmp_path


def test_it_is_loaded(folder):
    cache = folder / "cache"
    split = load_split("letters", "train", data_dir=folder, cache_dir=cache)
    names = split.features["codes"].feature.names
    assert [(row["text"], {names[i] for i in row["codes"]}) for row in split] == [(t, set(c)) for t, c in NOTES[:3]]
    assert len(load_split("letters", "all", data_dir=folder, cache_dir=cache)) == 4
    assert len(list(load_split("letters", "train", data_dir=folder, cache_dir=cache, streaming=True))) == 3
    builder = load_builder("letters", data_dir=folder, cache_dir=cache)
    assert builder.info.description == (
        "Invented letters and their ICD-9-CM codes.\n\nLetters/default: codes without a description: 3."
    )
    assert builder.code_counts["train"] == {"401.9": 1, "486": 1, "786.2": 1, "786.50": 1}
    assert builder.code_families["486"].block == "480-488"
    assert parse_options("letters", ["unsplit=true"]) == {"unsplit": True}


def test_it_is_built_and_described_by_the_command_line(folder, capsys):
    arguments = ["--dataset", "letters", "--cache_dir", str(folder / "cache")]
    assert main(["build", "--data_dir", str(folder), *arguments]) == 0
    assert "4 codes; records: train 3, validation 1." in capsys.readouterr().out
    assert main(["describe", str(folder), "--png", str(folder / "letters.png"), *arguments]) == 0
    assert "Letters, configuration default" in capsys.readouterr().out
    assert (folder / "letters.png").stat().st_size > 0


def test_help_names_it(folder, capsys):
    for command in (lambda: main(["build", "--help"]), lambda: evaluate(["--help"])):
        with pytest.raises(SystemExit):
            command()
        assert "files,letters" in "".join(capsys.readouterr().out.split())


def test_a_model_is_trained_on_it(folder, backbone, capsys):
    options = {"model": "direct", "pooling": "mean", "backbone": backbone, "dataset": "letters", "data_dir": folder}
    options |= {"num_train_epochs": 1, "window_size": 32, "use_cpu": True, "output_dir": folder / "model"}
    assert train([f"--{name}={value}" for name, value in options.items()]) == 0, capsys.readouterr().err
    assert (folder / "model" / "config.json").is_file()
