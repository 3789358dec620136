"""The folder of a coder that verifies, as a user makes and uses it: its retriever goes with it, and it goes to no Hub."""

import json
import shutil
from pathlib import Path

import pytest
from own_process import run_python
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from dataset_scripts.files import read_json
from modeling_icd import GenerativeForICD, ICDCodingPipeline, ModelForICDCoding
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.inference.learned_notes import write_learned
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.predict import main as predict
from modeling_icd.inference.predict import model_fingerprint
from modeling_icd.publishing.cli import main as publish
from modeling_icd.sharing_icd import claimed_access, is_sealed
from modeling_icd.training.run import main as train


ROOT = Path(__file__).resolve().parents[2]
NOTES = ["first visit: weak heart", "", "high blood pressure, and a lung infection"]
VERIFY = {"mode": "verify", "passage_tokens": 40}
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, pipeline
folder, notes = sys.argv[1], json.loads(sys.argv[2])
language_model = AutoModelForCausalLM.from_pretrained(folder)
coder = pipeline("icd-coding", folder, trust_remote_code=True)
modules = [type(part).__module__ for part in (coder.model, coder.model.retriever.model)]
coded = coder(notes, batch_size=2, threshold=0.0)
print(json.dumps([type(language_model).__name__, modules, [[code["code"] for code in note] for note in coded]]))
"""


def run(*command, cwd=ROOT) -> str:
    """What a command prints, in a process of its own."""
    done = run_python(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(language_model, notes_dir, terms_dir, tmp_path_factory):
    """What `modeling-icd train` of this project writes with a copy of the coder by terms, which is gone afterwards."""
    folder = tmp_path_factory.mktemp("verifying")
    shutil.copytree(terms_dir, folder / "terms")
    given = {"model": "generative", "stage": "sft", "backbone": language_model, "retriever": str(folder / "terms")}
    given |= {"dataset": "files", "data_dir": str(notes_dir), "dataset_options": ["code_system=icd9cm"]}
    given |= {**VERIFY, "max_note_tokens": 100, "max_steps": 8, "output_dir": str(folder / "run")}
    given |= {"learning_rate": 0.01, "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": 4}
    config = folder / "generative_verify.yaml"
    config.write_text(json.dumps(given))
    said = run("-m", "modeling_icd", "train", str(config), "--threshold_rule", "global")
    assert "The retriever may hold phrases of notes" in said  # its synonyms are of nobody knows where
    shutil.rmtree(folder / "terms")
    return folder / "run"


def test_it_loads_without_the_retrievers_own_folder_in_a_clean_process(trained, tmp_path):
    printed = run("-c", LOAD, trained, json.dumps(NOTES), cwd=tmp_path)
    name, modules, codes = json.loads(printed.splitlines()[-1])
    assert name == "LlamaForCausalLM"
    assert all(module.startswith("transformers_modules.") for module in modules)
    assert [set(of_note) for of_note in codes] == [{"401.9", "428.0", "486"}, set(), {"401.9", "428.0", "486"}]
    model, tokenizer = load_model(trained)
    again = ICDCodingPipeline(model=model, tokenizer=tokenizer)(NOTES, threshold=0.0)
    assert [[code["code"] for code in of_note] for of_note in again] == codes
    table = tmp_path / "notes.csv"
    table.write_text("text\n" + "\n".join(f'"{note}"' for note in NOTES if note) + "\n")
    assert predict([str(trained), str(table), "-o", str(tmp_path / "codes.jsonl"), "--threshold", "0"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert [[code["code"] for code in line["codes"]] for line in lines] == [codes[0], codes[2]]


def test_it_is_evaluated_as_any_model_in_a_process_of_its_own(trained, notes_dir):
    said = run("-m", "modeling_icd", "evaluate", str(trained), "--data_dir", str(notes_dir))
    # Two of the four notes say one sign, two say two; all say visit, which two of them need for a lung infection.
    assert "candidates verified for 4 notes" in said
    results = read_json(trained / "evaluation/test/results.json", "")
    assert {"f1_micro", "auc_micro", "map"} <= results["metrics"].keys()
    assert results["generation"]["notes"] == 4 and results["generation"]["candidates"] == 8
    assert results["threshold_rule"] == "global"


def test_nothing_of_it_goes_out_and_only_its_owner_reads_it(trained, notes_dir, capsys):
    assert trained.stat().st_mode & 0o077 == 0
    record = read_json(trained / "config.json", "")["training_data"]
    assert is_sealed(record) and is_sealed(record["retriever"]) and not record["retriever"]["open"]
    assert claimed_access({**record, "open": True}) == "restricted"  # as its retriever is
    assert publish([str(trained), "--repo_id", "someone/coder", "--dry_run", "--data_dir", str(notes_dir)]) == 2
    assert "verifies the candidates of a second model" in capsys.readouterr().err
    coder = GenerativeForICD.from_pretrained(trained)
    coder.config.training_data = {**record, "open": True, "retriever": {"open": True}}
    for part in (coder, coder.model, coder.retriever.model, coder.config):
        with pytest.raises(ValueError, match="nothing was uploaded"):
            part.push_to_hub("someone/coder")


def test_a_folder_that_lost_its_retriever_says_so(trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "run", ignore=lambda _, names: {"retriever"} & {*names})
    AutoModelForCausalLM.from_pretrained(folder)  # it still is a language model
    for load in (GenerativeForICD.from_pretrained, load_model):
        with pytest.raises(FileNotFoundError, match="has no folder `retriever` with the coder whose candidates"):
            load(folder)
    assert model_fingerprint(str(folder), False) != model_fingerprint(str(trained), False)


def test_it_is_decoded_and_trained_again_with_its_own_retriever(trained, arguments, notes_dir, tmp_path, capsys):
    again = arguments("prompt", backbone=trained, num_candidates=1)
    again = [part for part in again if part not in ("--max_codes", "3", "--instruction", "Codes?")]
    assert train(again) == 0
    settings = read_json(tmp_path / "run/config.json", "")["generative"]
    assert (settings["mode"], settings["num_candidates"], settings["passage_tokens"]) == ("verify", 1, 40)
    held = read_json(tmp_path / "run/retriever/config.json", "")["training_data"]
    assert is_sealed(held) and held == read_json(trained / "retriever/config.json", "")["training_data"]
    assert train([*again, "--overwrite_output_dir", "true"]) == 0  # over the folder that is there
    # One that lists codes keeps nothing of it.
    assert train(arguments("prompt", backbone=trained, mode="list", overwrite_output_dir="true")) == 0
    assert not (tmp_path / "run/retriever").exists()
    assert read_json(tmp_path / "run/config.json", "")["generative"]["instruction"] == "Codes?"
    capsys.readouterr()


def test_a_retriever_that_held_its_head_alone_brings_its_backbone(language_model, arguments, tmp_path):
    backbone, folder = shutil.copytree(language_model, tmp_path / "backbone"), tmp_path / "classifier"
    labels = dict(enumerate(["486", "428.0", "401.9"]))
    model = ModelForICDCoding.from_pretrained(backbone, id2label=labels, head="label_attention", freeze_backbone=True)
    model.save_pretrained(folder, head_only=True)
    PreTrainedTokenizerFast.from_pretrained(backbone).save_pretrained(folder)
    given = {**VERIFY, "retriever": folder, "candidate_threshold": 0.0, "max_codes": 40, "instruction": "Is it said?"}
    assert train(arguments("prompt", **given)) == 0
    before = GenerativeForICD.from_pretrained(tmp_path / "run").verifier.propose(NOTES)
    shutil.rmtree(backbone)
    shutil.rmtree(folder)
    coder = GenerativeForICD.from_pretrained(tmp_path / "run")
    assert [one.candidates for one in coder.verifier.propose(NOTES)] == [one.candidates for one in before]
    assert [len(one.candidates) for one in before] == [3, 0, 3]
    assert read_json(tmp_path / "run/config.json", "")["training_data"]["retriever"] is None  # nobody knows its notes


@pytest.mark.parametrize("name", ["terms", "retriever"])
def test_notes_that_the_retriever_learned_from_are_known(terms_dir, arguments, notes_dir, tmp_path, capsys, name):
    folder = shutil.copytree(terms_dir, tmp_path / name)
    tested = (notes_dir / "test.csv").read_text().splitlines()[1:]
    write_learned([line.split(",")[1] for line in tested], Path(f"{folder}-private"))
    given = {**VERIFY, "retriever": folder, "max_codes": 40, "instruction": "Is it said?"}
    assert train(arguments("prompt", **given)) == 0
    capsys.readouterr()
    assert evaluate([str(tmp_path / "run"), "--data_dir", str(notes_dir)]) == 0
    assert "the model learned from 4 of these 4 notes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("sft", {}, "`mode` verify needs a `retriever`"),
        ("sft", {"mode": "list", "retriever": "x"}, "`retriever` has an effect with `mode` verify alone"),
        ("sft", {"retriever": "TERMS", "num_beams": 2}, "`num_beams` has no effect with `mode` 'verify'"),
        ("sft", {"retriever": "LANGUAGE_MODEL"}, "is no classifier, coder by terms or fused model"),
        ("sft", {"retriever": "nowhere/at/all"}, "nowhere/at/all"),
        ("sft", {"retriever": "TERMS", "negatives": -1}, "`negatives` must be at least 0"),
        ("sft", {"retriever": "TERMS", "max_note_tokens": 450}, "leaves no room for what stands in front of a note"),
        ("sft", {"retriever": "TERMS", "candidate_threshold": 1}, "proposes no code of any training note"),
        ("grpo", {"retriever": "TERMS", "num_generations": 2}, "give `stage` 'sft', or 'prompt'"),
        ("prompt", {"retriever": "TERMS", "shots": 1}, "leave them out with `mode` verify"),
    ],
)
def test_a_mistake_is_one_message(arguments, terms_dir, language_model, capsys, stage, options, message):
    places = {"TERMS": terms_dir, "LANGUAGE_MODEL": language_model}
    options = {name: places.get(value, value) for name, value in options.items()}
    given = arguments(stage, **{**VERIFY, "max_codes": 40, **options})
    assert train(given) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in said and "visit" not in said
