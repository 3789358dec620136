"""Whoever evaluates a model on notes or admissions that it learned from is told so."""

import json
import shutil
import stat

import datasets

from dataset_scripts import load_split
from modeling_icd.evaluation.cli import main as evaluate_main
from modeling_icd.inference.learned_notes import (
    ADMISSIONS_FILE,
    EARLIER,
    FILE,
    admissions_of,
    copy_learned,
    count_learned_admissions,
    warn_of_learned,
    write_learned,
)


def test_notes_that_were_learned_from_are_counted_and_none_is_shown(tmp_path, capsys):
    private = tmp_path / "model-private"
    write_learned(["Fever and cough.", "Sepsis."], private)
    assert stat.S_IMODE((private / FILE).stat().st_mode) == 0o600
    assert "epsis" not in (private / FILE).read_text()
    assert warn_of_learned(tmp_path / "model", ["Sepsis.", "Pneumonia.", "Fever and cough."]) == 2
    said = capsys.readouterr().err
    assert "learned from 2 of these 3 notes" in said and "epsis" not in said
    assert warn_of_learned(tmp_path / "model", ["Pneumonia."]) == 0
    assert warn_of_learned(tmp_path / "another", ["Sepsis."]) == 0
    write_learned(["Sepsis.", "", " "], tmp_path / "empty-private")
    capsys.readouterr()
    assert warn_of_learned(tmp_path / "empty", ["", " ", "Pneumonia."]) == 0
    assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == ""


def records_of(ids, texts):
    return datasets.Dataset.from_dict({"hadm_id": ids, "text": texts})


def test_admissions_are_known_by_their_ids_where_these_are_those_of_a_published_data_set(tmp_path):
    learned, asked = records_of([1, 2, 3], ["a", "b", "c"]), records_of([2, 3, 4], ["b", "other", "c"])
    for dataset, is_synthetic, expected in (("mimic3", False, 2), ("mimic3", True, 1), ("files", False, 1)):
        private = tmp_path / f"{dataset}-{is_synthetic}-private"
        write_learned(learned["text"], private, admissions_of(learned, dataset, is_synthetic))
        for model in (tmp_path / f"{dataset}-{is_synthetic}", f"{tmp_path / dataset}-{is_synthetic}/"):
            assert count_learned_admissions(model, admissions_of(asked, dataset, is_synthetic)) == expected
        assert count_learned_admissions(model, admissions_of(asked, "mimic4", is_synthetic)) == 0
    assert count_learned_admissions(tmp_path / "another", admissions_of(asked, "mimic3", False)) is None
    file = private / ADMISSIONS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    write_learned(learned["text"], private, admissions_of(learned, "files", False))
    assert not set(before.split()) & set(file.read_text().split())  # another salt


def test_what_every_earlier_stage_learned_from_is_known_wherever_these_models_are_now(tmp_path):
    """A coder over one that verifies with a retriever, over a backbone that had read notes."""
    first, second, last = (tmp_path / f"{name}-private" for name in ("first", "second", "last"))
    seen = records_of([1, 2, 3], ["read", "retrieved", "coded"])
    write_learned(["read"], first)
    write_learned(["retrieved"], second / "retriever", admissions_of(seen.select([1]), "mimic3", False))
    write_learned(["coded"], last, admissions_of(seen.select([2]), "mimic3", False))
    copy_learned(tmp_path / "first", second / EARLIER)
    copy_learned(tmp_path / "second", last / EARLIER)
    for folder in (first, second):
        shutil.rmtree(folder)
    assert warn_of_learned(tmp_path / "last", [*seen["text"], "new"]) == 3
    assert count_learned_admissions(tmp_path / "last", admissions_of(seen, "mimic3", False)) == 2
    copy_learned("someone/on-the-hub", last / EARLIER)  # trained anew over another backbone
    assert warn_of_learned(tmp_path / "last", [*seen["text"], "new"]) == 1
    assert count_learned_admissions(tmp_path / "last", admissions_of(seen, "mimic3", False)) == 1


def test_no_leak_between_configurations(coder, corpus, tmp_path, capsys):
    """Train notes of `clean` are test notes of `full`."""
    model = shutil.copytree(coder, tmp_path / "model")
    options = {"data_dir": corpus, "cache_dir": tmp_path / "cache"}
    learned = load_split("mimic3", "train", "clean", min_count=1, **options)
    test = load_split("mimic3", "test", "full", **options)
    shared = len({*learned["hadm_id"]} & {*test["hadm_id"]})
    assert 0 < shared < len(test)
    write_learned(learned["text"], tmp_path / "model-private", admissions_of(learned, "mimic3", is_synthetic=True))
    asked = [str(model), "--dataset=mimic3", f"--data_dir={corpus}", f"--cache_dir={tmp_path / 'cache'}"]
    asked += [f"--output_dir={tmp_path / 'out'}", "--dataset_config=full"]
    assert evaluate_main(asked) == 2
    error = capsys.readouterr().err
    assert f"learned from {shared} of the {len(test)} admissions of the split 'test' of mimic3 (full)" in error
    assert "--allow_overlap" in error and not (tmp_path / "out").exists()
    assert evaluate_main([*asked, "--allow_overlap"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_learned_notes"] == shared
    assert f"The model learned from {shared} of the {len(test)} admissions" in (tmp_path / "out/report.md").read_text()
    assert evaluate_main([*asked, "--split=all"]) == 0  # which holds train, as its name says
    said = f"learned from {len(learned)} of the 60 admissions"
    assert said in capsys.readouterr().err and said in (tmp_path / "out/report.md").read_text()
    assert evaluate_main([str(coder), *asked[1:]]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_learned_notes"] is None
