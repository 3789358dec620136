import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dataset_scripts.synthetic import write_corpus


# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WORDS = [
    "fever",
    "cough",
    "pneumonia",
    "ruled",
    "out",
    "no",
    "evidence",
    "of",
    "the",
    "patient",
    "has",
    "sepsis",
    "due",
    "to",
    "and",
    "with",
    "acute",
    "renal",
    "failure",
]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and golden outputs, which are not part of the project."""
    folder = Path(os.environ.get("ICD_SHARED") or Path(__file__).resolve().parents[1] / ".." / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set ICD_SHARED to the folder that holds data/ and golden/")
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    """A two-layer CausalLM checkpoint of width 16 and its tokenizer, on disk."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.3)).save_pretrained(folder)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{word: i + 2 for i, word in enumerate(dict.fromkeys(WORDS))}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """An invented corpus of 60 admissions in MIMIC-III's files; to be read, not to be changed."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, num_admissions=60, length="short", show_progress=False)
    return folder
