"""Publishing a word model, whose words come from the training notes."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dataset_scripts import load_split
from dataset_scripts.builders.note_text import caml_text
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.publishing.cli import main as publish
from modeling_icd.training.run import main as train


REPO = "someone/words"


GENERIC = ("--model=generic", "--head=label_attention")
DR_CAML = ("--model=caml", "--head_options", "num_filter_maps=6", "description_weight=0.1")


@pytest.fixture
def make(notes, tmp_path, hub):
    """Trains a word model of notes that count as real, and evaluates it; gives the command that publishes it."""
    hub.asks_of_cards -= {"base_model"}

    def made(*model, **options):
        given = {
            "backbone": "words", "dataset": "mimic3", "data_dir": notes, "output_dir": tmp_path / "words",
            "num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True, "tfidf_yardstick": False,
        }  # fmt: skip
        reader = {"min_count": 1, "embedding_size": 4, "vectors": "random", "max_words": 200, **options}
        command = [*model, *(f"--{name}={value}" for name, value in given.items())]
        assert train([*command, "--reader_options", *(f"{name}={value}" for name, value in reader.items())]) == 0
        data = ["--data_dir", str(notes)]
        assert evaluate([str(tmp_path / "words"), "--dataset", "mimic3", *data]) == 0
        return [str(tmp_path / "words"), "--repo_id", REPO, *data]

    return made


def test_without_weights_no_word_goes_out(make, hub, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("patient 1 0 0 0\n")
    assert publish(make(*GENERIC, vectors=path)) == 0
    files = hub.files(REPO)
    assert not [name for name in files if "token" in name or name.endswith(".safetensors")]
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    run = yaml.safe_load(files["train.yaml"])
    assert run["backbone"] == "words"
    assert run["reader_options"] == ["min_count=1", "embedding_size=4", "vectors=VECTORS_FILE", "max_words=200"]
    assert b"the words and their vectors are made from the training notes" in files["README.md"]
    assert b"base_model" not in files["README.md"]


@pytest.mark.parametrize("model", [GENERIC, DR_CAML])
def test_with_permission_the_rare_words_leave_the_model(model, make, hub, notes, tmp_path):
    command = [*make(*model), "--i_have_written_permission", "letter of 1 May", "--min_notes_of_word", "5"]
    assert publish(command) == 0
    files = hub.files(REPO)
    for name, content in files.items():
        (tmp_path / "got" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(content)
    # As everywhere, of all notes of the data; a word that stands behind the cut alone is never read.
    split = load_split("mimic3", "unsplit", data_dir=notes, cache_dir=tmp_path / "cache", unsplit=True)
    read = [set(caml_text(text).split()[:200]) for text in split["text"]]
    frequent = {word for word in set().union(*read) if sum(word in words for words in read) >= 5}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "got")
    assert set(tokenizer.get_vocab()) == {"<pad>", "<unk>", *frequent}
    weights, config = load(files["model.safetensors"]), json.loads(files["config.json"])
    assert len(weights["model.embeddings.weight"]) == len(frequent) + 2
    assert config["backbone_config"]["vocab_size"] == len(frequent) + 2
    if model is DR_CAML:  # whose titles are written in these words, too
        assert len(weights["score.title_words.weight"]) == len(frequent) + 2
        assert config["head_options"]["description_words"] == len(frequent) + 2
    model, own = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name) for name in ("got", "words"))
    text = " ".join(sorted(frequent)[:50])
    inputs = [
        tokenizer(text, return_tensors="pt"),
        AutoTokenizer.from_pretrained(tmp_path / "words")(text, return_tensors="pt"),
    ]
    torch.testing.assert_close(model(**inputs[0]).logits, own(**inputs[1]).logits)
    assert b"reads the first 200 words" in files["README.md"]


def test_a_word_model_has_no_pretrained_backbone(make, capsys):
    assert publish([*make(*GENERIC), "--base_model", "someone/llama", "--dry_run"]) == 2
    assert "a word model has none" in capsys.readouterr().err
