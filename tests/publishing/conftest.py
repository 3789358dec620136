import json
import shutil
from collections.abc import Iterator

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants, get_token
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from dataset_scripts.synthetic import write_corpus
from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.base_configuration_icd import FLAT_FILES
from modeling_icd.evaluation import ICDMetricsAccumulator
from modeling_icd.inference.model_folder import weights_digest
from modeling_icd.publishing import privacy
from modeling_icd.publishing.folder import project_file
from modeling_icd.publishing.views import INTEGERS
from modeling_icd.sharing_icd import seal_training_data


CODES = ["401.9", "428.0", "96.71"]
WORDS = ["fever", "cough", "pneumonia", "no", "evidence", "of", "acute", "renal", "failure"]
BACKBONE = {
    "vocab_size": 12,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
RUN = {
    "model": {
        "model": "direct",
        "backbone": "someone/tiny-llama",
        "pooling": "label_attention",
        "window_size": 16,
        "window_stride": 12,
        "head_dropout": None,
        "freeze_backbone": True,
        "lora_r": 0,
        "lora_alpha": 32,
    },
    "data": {
        "dataset": "mimic3",
        "dataset_config": "top50",
        "data_dir": "/home/hannah/mimic",
        "max_train_notes": None,
    },
    "training": {
        "output_dir": "/home/hannah/runs/tiny",
        "seed": 7,
        "num_train_epochs": 3,
        "learning_rate": 0.001,
        "hub_token": "<HUB_TOKEN>",
    },
    "log": [{"loss": 0.5, "epoch": 1.0}, {"train_runtime": 12.3, "epoch": 3.0, "step": 30}],
}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A tiny model as training and evaluation leave it, trained on invented notes, with a training checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    config = LlamaICDConfig.from_backbone(
        LlamaConfig(**BACKBONE),
        id2label=dict(enumerate(CODES)),
        label2id={code: i for i, code in enumerate(CODES)},
        code_descriptions={
            "401.9": "Unspecified essential hypertension",
            "428.0": "Congestive heart failure, unspecified",
        },
        pooling="label_attention",
        window_size=16,
        window_stride=12,
        threshold=0.25,
        training_data={"dataset": "mimic3", "config": "top50", "synthetic": True},
    )
    LlamaForICDCoding(config).save_pretrained(folder)
    config.training_data = seal_training_data({**config.training_data, "weights": weights_digest(folder)})
    config.save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: i + 2 for i, w in enumerate(WORDS)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    (folder / "run.json").write_text(json.dumps(RUN))
    accumulator = ICDMetricsAccumulator(4, threshold=0.25, k=(5, 8, 15))
    # Four notes, three codes that the model knows and one that it does not. Predicted are 5, gold 5, both 4.
    scores = [[0.9, 0.1, 0.2, 0.0], [0.6, 0.4, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.3, 0.1, 0.1, 0.0]]
    accumulator.add_batch(torch.tensor(scores).numpy(), [[0], [0, 1], [2, 3], []])
    metrics = accumulator.compute()
    band = {"stratum": "1-5", "num_codes": 3, "precision": 0.5, "recall": 0.25, "f1_micro": 1 / 3, "f1_macro": None}
    results = {
        "metrics": metrics,
        "intervals": {key: [figure / 2, (1 + figure) / 2] for key, figure in metrics.items()},
        "strata": {"frequency": [band]},
        "model": "/home/hannah/runs/tiny",
        "dataset": "mimic3",
        "config": "top50",
        "split": "test",
        "num_notes": 4,
        "num_codes": 4,
        "unknown_codes": ["E885.9"],
        "threshold": 0.25,
        "threshold_source": "model configuration (chosen on validation)",
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "checkpoint-30").mkdir()
    (folder / "checkpoint-30" / "model.safetensors").write_bytes(b"a checkpoint stays at home")
    (folder / "predictions.parquet").write_bytes(b"scores of notes stay at home")
    return folder


@pytest.fixture
def model_dir(finished_run, tmp_path):
    """A copy of the run to change."""
    return shutil.copytree(finished_run, tmp_path / "tiny")


@pytest.fixture
def edit(model_dir):
    """Changes a JSON file of the copy: `edit("config.json", threshold=0.5)`; None takes a field out.

    `training_data` is made to speak of the copy's weights, and sealed, as training does."""

    def change(name, **fields):
        if fields.get("training_data"):
            record = {**fields["training_data"], "weights": weights_digest(model_dir)}
            fields["training_data"] = seal_training_data(record)
        path = model_dir / name
        content = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


@pytest.fixture
def restricted(edit):
    """Makes the copy one that was trained on real MIMIC-III."""
    edit("config.json", training_data={"dataset": "mimic3", "config": "top50", "synthetic": False})


@pytest.fixture(scope="session")
def notes(tmp_path_factory):
    """Notes that stand for real ones: invented, without the marker that says so."""
    folder = tmp_path_factory.mktemp("notes")
    write_corpus(folder, num_admissions=30, length="short", show_progress=False)
    (folder / "SYNTHETIC").unlink()
    return folder


@pytest.fixture
def bpe(model_dir):
    """A vocabulary that is not made of whole words, which thirty notes would be too few for."""
    path = model_dir / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    path.write_text(json.dumps(tokenizer))


@pytest.fixture
def hub(monkeypatch):
    server = HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # which remembers another server
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    yield server
    server.close()


# What the privacy check looks for in one file, and what its answer depends on beside the text.
SEARCHES = {
    "find_credentials": lambda text, *options: (text, *options, get_token()),
    "find_labelled_ids": lambda file: (file.raw,),
    "find_bags": lambda file: (file.raw, file.name),
    "candidates": lambda file, codes: (file.raw, file.name, codes),
    "find_candidates": lambda file, tokens: (file.raw, file.name, tokens),
}
CODE = {project_file(f"modeling_icd/{name}").read_text(encoding="utf-8") for name in FLAT_FILES}


@pytest.fixture(scope="session", autouse=True)
def code_is_searched_once():
    """The 400 kB of code that go out with every model are searched once for each thing; this takes seconds."""

    def remembering(search, key_of):
        known = {}

        def remembered(*arguments):
            key = key_of(*arguments)
            if key[0] not in CODE:
                return search(*arguments)
            if key not in known:
                found = search(*arguments)
                known[key] = list(found) if isinstance(found, Iterator) else found
            return known[key]

        return remembered

    def code_and_name(_, file):
        return file.raw if not INTEGERS.search(file.raw) else None, file.name

    with pytest.MonkeyPatch.context() as patch:
        for name, key_of in SEARCHES.items():
            patch.setattr(privacy, name, remembering(getattr(privacy, name), key_of))
        # A tokenizer may turn lists of numbers into words, and no other thing in code.
        for name in ("_spans_of", "_distinct_spans_of"):
            of_code = remembering(getattr(privacy.Comparison, name), code_and_name)
            patch.setattr(privacy.Comparison, name, lambda *arguments, search=of_code: search(*arguments))
        yield
