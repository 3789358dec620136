from collections import Counter
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from dataset_scripts import load_builder
from modeling_icd import LlamaForICDCoding


@pytest.fixture(scope="session")
def coder(corpus, backbone, tmp_path_factory) -> Path:
    """A model that knows half of the corpus's codes; it is not trained."""
    folder = tmp_path_factory.mktemp("coder")
    train = load_builder("mimic3", data_dir=corpus, cache_dir=folder.parent / "cache").as_dataset(split="train")
    names = train.features["codes"].feature.names
    counts = Counter(names[code] for codes in train["codes"] for code in codes)
    codes = sorted(code for code, _ in counts.most_common(len(counts) // 2))
    model = LlamaForICDCoding.from_pretrained(
        backbone,
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        window_size=32,
        pooling="mean",
        threshold=[0.5] * (len(codes) - 1) + [0.0],  # one for each code; the last code is always predicted
        training_data={"dataset": "mimic3", "config": "full", "code_counts": dict(counts)},
    )
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(backbone).save_pretrained(folder)
    return folder
