"""The configurations of a fused model on MIMIC-III, from training to what publishing says, on an invented corpus in its format."""

import json
import shutil

import pytest
from transformers import AutoModel

from dataset_scripts.marker import MARKER_FILE
from dataset_scripts.synthetic import write_corpus
from modeling_icd.evaluation.cli import main as evaluate_main
from modeling_icd.knowledge.fusion_tables import title_terms
from modeling_icd.publishing.cli import main as publish_main
from modeling_icd.training.run import main as train_main


@pytest.fixture(scope="module")
def charted(tmp_path_factory):
    """An invented corpus with evidence as MDACE marks it, and nothing that says that it is invented: to this project it is MIMIC-III."""
    folder = tmp_path_factory.mktemp("charted") / "corpus"
    write_corpus(folder, num_admissions=60, length="short", mdace_charts=20, show_progress=False)
    (folder / MARKER_FILE).unlink()
    return folder


@pytest.mark.parametrize("code_set", ["full", "top50"])
def test_a_configuration_trains_and_is_evaluated_and_stays_at_home(
    code_set, byte_backbone, charted, small_fusion, tmp_path, capsys
):
    output = tmp_path / "model"
    data = ["--data_dir", str(charted)]
    options = [*small_fusion, "--max_fit_notes", "20", "--dataset_options", f"evidence={charted / 'mdace'}"]
    command = [f"mimic3_{code_set}_knowledge", *data, "--backbone", byte_backbone, "--output_dir", str(output)]
    assert train_main([*command, *options]) == 0
    assert "of these notes are used to fit trees and thresholds (`max_fit_notes`)" in capsys.readouterr().out
    assert output.stat().st_mode & 0o077 == 0  # phrases of restricted notes are in it
    assert evaluate_main([str(output), *data, "--split", "test"]) == 0
    results = json.loads((output / "evaluation/test/results.json").read_text())
    assert results["metrics"]["auc_micro"] > 0.6
    model = AutoModel.from_pretrained(output)
    assert model.score.finder.words.shape[0] > 1  # phrases of the charts
    assert model.config.num_labels <= 50 or code_set == "full"
    assert publish_main([str(output), "--repo_id", "someone/knowledge", *data, "--dry_run"]) == 2
    assert "nothing of it is published" in capsys.readouterr().err.replace("\n", " ")
    shutil.rmtree(output)


def test_short_titles_and_mapped_terms_are_taken_where_asked_for():
    """401.9 is called `Hypertension NOS` for short, and ICD-10-CM's I10, to which it maps, high blood pressure."""
    plain, _ = title_terms(["401.9", "486"], with_new=False)
    more, _ = title_terms(["401.9", "486"], with_new=False, with_mapped=True)
    assert {term.stems for term in plain} < {term.stems for term in more}
    assert frozenset({"high", "blood", "pressur"}) in {term.stems for term in more if term.code == "401.9"}
