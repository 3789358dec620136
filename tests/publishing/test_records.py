"""What makes a record of training data say that the data are open or invented: what is in the files, never their name."""

import json
import shutil

import pytest

from dataset_scripts import BUILDERS
from dataset_scripts.builders.public_files import content_digest, is_public
from dataset_scripts.marker import is_synthetic
from dataset_scripts.synthetic import write_corpus as write_mimic3
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4
from modeling_icd.publishing.card import describe_data
from modeling_icd.publishing.cli import main as publish
from modeling_icd.sharing_icd import data_access
from modeling_icd.training.run import main as train


REPORT = """<doc id="{id}" type="RADIOLOGY_REPORT"><codes><code origin="CMC_MAJORITY" type="ICD-9-CM">{code}</code></codes>
<texts><text origin="CCHMC_RADIOLOGY" type="CLINICAL_HISTORY">invented {code}</text>
<text origin="CCHMC_RADIOLOGY" type="IMPRESSION">invented</text></texts></doc>"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Invented reports in the challenge's format."""
    folder = tmp_path_factory.mktemp("reports")
    docs = "".join(REPORT.format(id=i, code=("786.2", "780.6")[i % 2]) for i in range(40))
    (folder / "reports.xml").write_text(f"<docs>{docs}</docs>")
    return folder


def builder_of(dataset, data_dir, tmp_path, config=None):
    return BUILDERS[dataset](config, data_dir=data_dir, cache_dir=tmp_path / "cache")


def test_the_public_files_are_open_and_others_of_their_name_are_not(shared_dir, reports, tmp_path):
    public = shared_dir / "data" / "cmc2007"
    assert is_public(builder_of("cmc2007", public, tmp_path))
    assert is_public(builder_of("cmc2007", public, tmp_path, "fold3"))
    assert not is_public(builder_of("cmc2007", reports, tmp_path))
    changed = tmp_path / "2007ChallengeTrainData.xml"
    changed.write_bytes((public / "2007ChallengeTrainData.xml").read_bytes().replace(b"cough", b"fever", 1))
    assert not is_public(builder_of("cmc2007", changed, tmp_path))
    for config in ("diagnoses_en_top50", "both_es"):
        assert is_public(builder_of("codiesp", shared_dir / "data" / "codiesp", tmp_path, config))


def test_a_case_of_ones_own_among_the_public_ones_makes_them_restricted(shared_dir, tmp_path):
    folder = shutil.copytree(shared_dir / "data" / "codiesp", tmp_path / "codiesp")
    assert is_public(builder_of("codiesp", folder, tmp_path))
    (folder / "background_en.jsonl.gz").unlink()  # which not everyone has
    assert is_public(builder_of("codiesp", folder, tmp_path))
    (folder / "dev" / "text_files_en" / "S0000-1.txt").write_text("a case of one's own")
    assert not is_public(builder_of("codiesp", folder, tmp_path))


@pytest.mark.parametrize("is_pinned", [True, False])
def test_training_records_whether_the_files_are_public(is_pinned, reports, backbone, tmp_path, monkeypatch, capsys):
    digest = content_digest([reports / "reports.xml"])
    monkeypatch.setattr(BUILDERS["cmc2007"], "PUBLIC_CONTENT", frozenset({digest} if is_pinned else ()))
    options = {"model": "direct", "pooling": "mean", "backbone": backbone, "dataset": "cmc2007", "data_dir": reports}
    options |= {"num_train_epochs": 1, "window_size": 32, "use_cpu": True, "output_dir": tmp_path / "model"}
    options |= {"tfidf_yardstick": False}
    assert train([f"--{name}={value}" for name, value in options.items()]) == 0
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config["training_data"]["open"] is is_pinned
    assert data_access(config["training_data"]) == ("open" if is_pinned else "restricted")
    for edited in ({"open": True, "seed": 5}, {"synthetic": True}):
        path.write_text(json.dumps({**config, "training_data": {**config["training_data"], **edited}}))
        assert publish([str(tmp_path / "model"), "--repo_id", "someone/tiny", "--dry_run"]) == 2
        assert "has no seal that fits" in capsys.readouterr().err


def test_a_card_does_not_take_other_files_for_the_published_ones():
    record = {"dataset": "cmc2007", "config": "default", "synthetic": False}
    assert describe_data({**record, "open": True}).terms.startswith("free for non-commercial research")
    assert describe_data({**record, "open": False}).terms.startswith("not the published files of cmc2007")


def test_a_folder_of_before_the_seal_says_to_train_again(model_dir, capsys):
    path = model_dir / "config.json"
    config = json.loads(path.read_text())
    del config["training_data"]["seal"]
    path.write_text(json.dumps(config))
    assert publish([str(model_dir), "--repo_id", "someone/tiny", "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert "written by modeling-icd before models were sealed" in error and "train again" in error
    config["training_data"]["synthetic"] = False  # which claims nothing: it goes without weights, as before
    path.write_text(json.dumps(config))
    assert publish([str(model_dir), "--repo_id", "someone/tiny", "--dry_run"]) == 0
    assert "weights: no" in capsys.readouterr().out


@pytest.mark.parametrize("write", [write_mimic3, write_mimic4], ids=["mimic3", "mimic4"])
def test_a_marker_covers_every_table(write, tmp_path):
    corpus = tmp_path / "corpus"
    write(corpus, num_admissions=12, length="short", show_progress=False)
    assert is_synthetic(corpus)
    tables = [path for path in corpus.rglob("*.csv.gz") if "hadm_ids" not in path.name]
    for i, table in enumerate(tables):  # another one in its place, or none
        content = table.read_bytes()
        table.write_bytes(tables[i - 1].read_bytes())
        assert not is_synthetic(corpus), table
        table.unlink()
        assert not is_synthetic(corpus), table
        table.write_bytes(content)
    for name in ("NOTEEVENTS.csv", "radiology.csv.gz", "hosp/ADMISSIONS.CSV", "more_notes.csv"):
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_text("a table that the marker does not list")
        assert not is_synthetic(corpus), name
        (corpus / name).unlink()
    (corpus / "test_full_hadm_ids.csv").write_text("100001\n")  # a split list holds no notes
    assert is_synthetic(corpus)
    for marker in ("", "{}", "[]", '{"sha256": []}', '{"sha256": {}}'):
        (corpus / "SYNTHETIC").write_text(marker)
        assert not is_synthetic(corpus)
