"""Publishing models that hold words of their training notes: of open or invented ones they go out and say so."""

import json
import re

import jinja2
import pytest
import yaml
from own_process import run_python

from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.knowledge.cli import main as terms
from modeling_icd.publishing.card import build_card, describe_evidence, has_evidence
from modeling_icd.publishing.cli import main as publish
from modeling_icd.publishing.folder import ModelFolder, project_file, read_content
from modeling_icd.publishing.release import outgoing_files, plan_release
from modeling_icd.training.run import main as train


LOAD = """
import json, sys
from transformers import pipeline
coder = pipeline("icd-coding", model=sys.argv[1], revision=sys.argv[2], trust_remote_code=True)
assert not any(name.split(".")[0] == "modeling_icd" for name in sys.modules)  # its own code is what runs
print(json.dumps(coder("No chest pain. Acute renal failure, hypertension.", top_k=3)))
"""


def codes_of_published(repo_id: str, revision: str, endpoint: str, tmp_path) -> list[dict]:
    """What a published model gives in a process of its own, where the project is not installed."""
    environment = {"HF_TOKEN": "hf_reader", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
    run = run_python("-c", LOAD, repo_id, revision, cwd=tmp_path, environment=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def terms_folder(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("terms") / "coder"
    given = ["--dataset", "mimic3", "--dataset_config", "top50", "--data_dir", str(corpus)]
    assert terms(["build", *given, "--output_dir", str(folder)]) == 0
    assert evaluate([str(folder), "--data_dir", str(corpus), "--split", "test"]) == 0
    return folder


@pytest.fixture(scope="module")
def train_fused(byte_backbone, corpus, small_fusion, tmp_path_factory):
    """Trains a small fused model with some further options, and evaluates it."""

    def make(*options):
        folder = tmp_path_factory.mktemp("fused") / "model"
        data = ["--data_dir", str(corpus)]
        given = ["mimic3_top50_knowledge", "--backbone", byte_backbone, *data, "--output_dir", str(folder)]
        assert train([*given, *small_fusion, *options]) == 0
        assert evaluate([str(folder), *data, "--split", "test"]) == 0
        return folder

    return make


@pytest.fixture(scope="module")
def fused_folder(train_fused):
    return train_fused()


@pytest.mark.parametrize("kind", ["terms", "fused"])
def test_it_goes_out_with_a_card_that_says_so_and_loads_in_a_clean_process(
    kind, terms_folder, fused_folder, hub, tmp_path, capsys
):
    folder = {"terms": terms_folder, "fused": fused_folder}[kind]
    base = [] if kind == "terms" else ["--base_model", "someone/bytes"]
    command = [str(folder), "--repo_id", "someone/holding", *base]
    if kind == "terms":
        hub.asks_of_cards = hub.asks_of_cards - {"base_model"}  # it has none
    capsys.readouterr()
    assert publish([*command, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "READY" in said and "terms.csv" not in said
    assert publish(command) == 0
    revision = hub.repos["someone/holding"]["commits"][0][0]
    card = hub.files("someone/holding")["README.md"].decode()
    assert "**The files hold words of the training notes.**" in card and "invented" in card
    assert "phrases that annotators marked" in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    if kind == "terms":
        assert (
            "modeling-icd terms build --system icd9cm --dataset mimic3 --dataset_config top50 --data_dir DIR" in card
        )
    else:
        assert "what tables (phrases, titles, neighbours) and a head over hidden states say of a note" in card
    codes = codes_of_published("someone/holding", revision, hub.url, tmp_path)
    assert len(codes) == 3 and {"term", "title", "attention"} & {
        s["source"] for code in codes for s in code["evidence"]
    }


def test_the_card_says_how_many_codes_titles_alone_tell():
    (line,) = [line for line in project_file("model_card.md").read_text().splitlines() if line.startswith("| codes |")]
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(line)
    codes = {"id2label": {"0": "I10", "1": "R05", "2": "R50.9"}}
    card = [template.render(config=codes | own, num_labels="3", granularity=None) for own in ({"num_known": 2}, {})]
    assert "2 of them those of the training notes" in card[0] and "titles alone" in card[0]
    assert "all those of the training notes" in card[1]


def card_of(folder) -> str:
    model = ModelFolder.read(folder)
    return build_card(model, plan_release(model, "someone/holding", base_model="someone/bytes"))


def test_the_card_of_a_fused_model_without_a_head_speaks_of_none(train_fused):
    folder = train_fused("--parts", "titles", "neighbours")
    card = card_of(folder)
    text = re.sub(
        r"```yaml.*?```", "", card, flags=re.DOTALL
    )  # options of the run, which has some that change nothing
    assert re.findall(r"\b(heads?|windows?|epochs|states of|attention|phrases)\b", text) == []
    assert "`FusionForICD`: a set of tables that is searched for the words of a whole discharge summary" in text
    assert "tables (titles, neighbours) say of a note" in text and "none of its hidden states is read" in text
    assert "behind a code is what says its title." in text
    assert "arXiv" not in text  # whose papers are on heads and readers
    assert "is under the license" not in text and "Linear scores" not in text
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "parts": ["words"]}))
    said = card_of(folder)
    assert "trees weigh how frequent codes are." in said and "Linear scores of a note's words" in said
    (folder / "config.json").write_text(json.dumps(config))
    run = json.loads((folder / "run.json").read_text())
    run["model"]["title_language"] = "es"
    (folder / "run.json").write_text(json.dumps(run))
    assert "**The tensors also hold** words of titles of ICD-10 in Spanish, from the package cie (https" in card_of(
        folder
    )
    model = ModelFolder.read(folder)
    files = outgoing_files(model, plan_release(model, "someone/holding", base_model="someone/bytes"), "")
    assert "under the license MIT" in read_content(files["NOTICE"]).decode()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (None, "says a term that training notes mark for it, or says its title, or weighs most in the head for it"),
        (["neighbours", "head"], "weighs most in the head for it"),
        (["neighbours"], None),
    ],
)
def test_what_a_card_says_of_evidence_is_what_the_parts_give(parts, words):
    config = {"model_type": "icd_fusion", "head": "label_attention", "parts": parts}
    assert (describe_evidence(config) if has_evidence(config) else None) == words
