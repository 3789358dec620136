"""A language model of two layers and width 16 with a chat template, whose tokens are bytes, and invented notes."""

import copy
import csv
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modeling_icd import GenerativeConfig, GenerativeForICD
from modeling_icd.generative_icd import plain_fields
from modeling_icd.inference.loading import load_model
from modeling_icd.knowledge.cli import main as build_terms
from modeling_icd.verify_icd import Retriever


TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
CODES = ["401.9", "428.0", "V12.71", "250.0", "250.01", "250"]  # of which one begins with another
SIGNS = {"401.9": "high blood pressure", "428.0": "weak heart", "486": "lung infection"}


@pytest.fixture(scope="session")
def language_model(tmp_path_factory, byte_tokenizer) -> str:
    """The folder of the language model."""
    folder = tmp_path_factory.mktemp("language_model")
    torch.manual_seed(0)
    fast = copy.deepcopy(byte_tokenizer)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def coder_of(language_model: str, codes, settings, retriever=None, **fields) -> GenerativeForICD:
    """A coder that has learned nothing; `fields` are further ones of its configuration."""
    model = LlamaForCausalLM.from_pretrained(language_model)
    config = GenerativeConfig(
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        causal_config=plain_fields(model),
        generative={"max_note_tokens": 100, **settings},
        **fields,
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(language_model)
    return GenerativeForICD(config, model, tokenizer, retriever).eval()


@pytest.fixture
def make_coder(language_model):
    """Makes a coder that has learned nothing, with settings."""

    def make(codes=CODES, **settings) -> GenerativeForICD:
        return coder_of(language_model, codes, {"instruction": "Codes?", "max_codes": 3, **settings})

    return make


@pytest.fixture(scope="session")
def notes_dir(tmp_path_factory) -> Path:
    """Files of invented notes with the codes of ICD-9-CM that they say."""
    folder = tmp_path_factory.mktemp("notes")
    signs = list(SIGNS.items())
    for name, size in (("train", 12), ("validation", 4), ("test", 4)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "codes"])
            for i in range(size):
                said = [signs[i % 3], *([signs[(i + 1) % 3]] if i % 2 else [])]
                text = f"{name} visit {i}: " + " and ".join(words for _, words in said)
                writer.writerow([f"{name}{i}", text, ";".join(code for code, _ in said)])
    return folder


@pytest.fixture(scope="session")
def terms_dir(notes_dir, tmp_path_factory) -> str:
    """A coder by terms that knows the signs, and takes the word visit, which all notes have, for one of a lung infection."""
    folder = tmp_path_factory.mktemp("terms")
    terms = folder / "synonyms.csv"
    signs = [*((code, words) for code, words in SIGNS.items()), ("486", "visit")]
    terms.write_text("code,term\n" + "\n".join(f"{code},{words}" for code, words in signs))
    data = ["--dataset", "files", "--data_dir", str(notes_dir), "--dataset_options", "code_system=icd9cm"]
    built = [*data, "--codes_only", "--synonyms", str(terms), "--output_dir", str(folder / "terms")]
    assert build_terms(["build", *built]) == 0
    return str(folder / "terms")


@pytest.fixture
def make_verifier(language_model, terms_dir):
    """Makes a coder that has learned nothing and verifies what the coder by terms proposes, with settings."""

    def make(retriever=None, **settings) -> GenerativeForICD:
        titles = {"428.0": "Congestive heart failure"}
        settings = {"mode": "verify", "passage_tokens": 20, **settings}
        retriever = retriever or Retriever(*load_model(terms_dir))
        return coder_of(language_model, SIGNS, settings, retriever, code_descriptions=titles)

    return make


@pytest.fixture
def arguments(language_model, notes_dir, tmp_path):
    """The command line of a small training run into `tmp_path / name`."""

    def make(stage: str, name: str = "run", **options) -> list[str]:
        given = {
            "model": "generative",
            "stage": stage,
            "backbone": language_model,
            "instruction": "Codes?",
            "max_codes": 3,
            "max_note_tokens": 100,
            "data_dir": notes_dir,
            "dataset": "files",
            "dataset_options": "code_system=icd9cm",
            "output_dir": tmp_path / name,
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "disable_tqdm": True,
            "use_cpu": True,
            **options,
        }
        return [part for key, value in given.items() for part in (f"--{key}", str(value))]

    return make
