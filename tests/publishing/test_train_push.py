"""`modeling-icd train --push_to_hub` against a server that speaks the Hub's protocol."""

import json
import shutil
import string

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dataset_scripts.marker import MARKER_FILE
from modeling_icd.publishing.after_training import plan_push
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.run import main, train


REPO = "someone/tiny-icd"


@pytest.fixture
def real_corpus(corpus, tmp_path):
    """The same without the marker that says that it is invented."""
    return shutil.copytree(corpus, tmp_path / "real", ignore=shutil.ignore_patterns(MARKER_FILE))


@pytest.fixture(scope="module")
def letters(backbone, tmp_path_factory):
    """The tiny Llama with a vocabulary of letters, which gives away no words."""
    folder = shutil.copytree(backbone, tmp_path_factory.mktemp("letters") / "llama")
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{letter: i + 2 for i, letter in enumerate(string.ascii_lowercase)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def train_and_push(corpus, letters, tmp_path):
    def run(**options):
        given = {
            "model": "direct",
            "pooling": "mean",
            "backbone": letters,
            "base_model": "someone/tiny-llama",
            "window_size": 64,
            "dataset": "mimic3",
            "data_dir": corpus,
            "max_train_notes": 16,
            "num_train_epochs": 1,
            "save_strategy": "epoch",
            "use_cpu": True,
            "tfidf_yardstick": False,
            "output_dir": tmp_path / "model",
            "push_to_hub": True,
            "hub_model_id": REPO,
            **options,
        }
        return main([f"--{name}={value}" for name, value in given.items() if value is not None], plan_push)

    return run


def test_a_trained_model_is_evaluated_and_pushed_private_gated_and_without_its_checkpoints(
    train_and_push, hub, tmp_path
):
    hub.tokens["hf_given"] = "write"
    assert train_and_push(hub_token="hf_given") == 0
    assert (hub.repos[REPO]["private"], hub.repos[REPO]["gated"]) == (True, "manual")
    ((_, files),) = hub.repos[REPO]["commits"]
    assert "model.safetensors" in files
    assert not [name for name in files if "/" in name or "training_args" in name or name == "run.json"]
    assert list((tmp_path / "model").glob("checkpoint-*"))
    measured = json.loads((tmp_path / "model" / "evaluation" / "test" / "results.json").read_text())
    assert f"| F1, micro | {measured['metrics']['f1_micro']:.4f} |" in files["README.md"].decode()
    assert b"backbone: someone/tiny-llama" in files["train.yaml"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_given" in path.read_bytes()]


def test_weights_of_notes_that_may_be_real_stay_at_home(train_and_push, hub, real_corpus, capsys):
    assert train_and_push(data_dir=real_corpus) == 0, capsys.readouterr().err
    assert hub.files(REPO).keys() >= {"README.md", "config.json", "train.yaml"}
    assert not [name for name in hub.files(REPO) if "safetensors" in name]


def test_options_of_the_data_set_reach_evaluation_and_the_privacy_check(
    train_and_push, hub, real_corpus, tmp_path, capsys
):
    options = {"dataset_config": "custom", "dataset_options": "num_codes=7"}
    assert train_and_push(data_dir=real_corpus, **options) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "model" / "evaluation" / "test" / "results.json").read_text())
    assert (results["config"], results["num_codes"]) == ("custom", 7)
    assert "README.md" in hub.files(REPO)


def test_rare_words_of_a_word_vocabulary_leave_what_is_pushed(train_and_push, hub, backbone, real_corpus, capsys):
    assert train_and_push(data_dir=real_corpus, backbone=backbone) == 0, capsys.readouterr().err
    assert "training notes have do not go out" in capsys.readouterr().out
    pushed = json.loads(hub.files(REPO)["tokenizer.json"])["model"]["vocab"]
    assert 2 < len(pushed) < len(AutoTokenizer.from_pretrained(backbone))


def test_a_finding_of_the_privacy_check_stops_the_push_and_keeps_the_model(
    train_and_push, hub, real_corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LOGNAME", "gardener")  # of whom the card's invented note tells
    assert train_and_push(data_dir=real_corpus) == 1
    error = capsys.readouterr().err
    assert "README.md: user name" in error
    assert f"modeling-icd publish {tmp_path / 'model'} --repo_id {REPO}" in error
    assert hub.repos == {}
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hub_model_id": None}, "`push_to_hub` needs `hub_model_id`, OWNER/NAME of the repository."),
        ({"hub_model_id": "tiny"}, "OWNER/NAME of the repository, got 'tiny'"),
        ({"hub_strategy": "all_checkpoints"}, "checkpoints, which stay at home"),
        ({"hub_revision": "branch"}, "`hub_revision` has no effect"),
        ({"base_model": None}, "--base_model ORGANISATION/NAME"),
        ({"hub_token": "hf_wrong"}, "does not know this token"),
    ],
)
def test_what_would_stop_the_push_stops_before_training(options, message, train_and_push, hub, tmp_path, capsys):
    assert train_and_push(**options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "model").exists()


def test_no_token_and_no_network_stop_before_training(train_and_push, hub, tmp_path, monkeypatch, capsys):
    hub.close()
    assert train_and_push() == 2
    assert "cannot be reached" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    assert train_and_push() == 2
    assert "There is no token" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_the_trainer_itself_never_uploads(corpus, letters, tmp_path):
    arguments = ICDTrainingArguments(str(tmp_path / "model"), push_to_hub=True, hub_model_id=REPO, use_cpu=True)
    with pytest.raises(ValueError, match="`train` uploads nothing"):
        train(ModelArguments("direct", letters), DataArguments("mimic3", str(corpus)), arguments)
