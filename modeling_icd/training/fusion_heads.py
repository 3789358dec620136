"""Trains the heads that a fused model learns to weigh: one for each fold, which scores the notes that it has not seen, and one of all.

What a head gives for the notes of its fold is kept, so that a run that was ended goes on with the next fold.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save
from transformers import set_seed

from dataset_scripts.files import make_folder, whole_file

from ..evaluation.decisions import DecisionArguments
from ..inference.hidden_states import HiddenStates
from ..inference.model_folder import weights_digest
from ..inference.tokens import texts_of_notes, tokenize_split
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments
from .collator import ICDCollator
from .models import build_model
from .notes import count_codes, marked_evidence, readable_notes
from .output_folder import APART
from .run import fill_store, ready_to_learn
from .trainer import make_trainer, predict_split


DECISION = frozenset(option.name for option in fields(DecisionArguments))
"""Options that no head depends on: what is made of scores is decided later."""


class HeadTraining:
    """Trains heads over the hidden states of one frozen backbone.

    Args:
        model_args, data_args, args: of the run.
        backbone (`str`): folder or Hub id.
        tokenizer: its own.
        private_dir (`Path`): where hidden states and what heads give are kept.
        notes (`datasets.Dataset`): all that is learned from.
    """

    def __init__(
        self,
        model_args: ModelArguments,
        data_args: DataArguments,
        args: ICDTrainingArguments,
        backbone: str,
        tokenizer: Any,
        private_dir: Path,
        notes: datasets.Dataset,
    ):
        self.model_args, self.data_args, self.backbone, self.tokenizer = model_args, data_args, backbone, tokenizer
        # Of each fold nothing is kept but what its head gives, and it neither evaluates nor saves.
        self.args = copy.copy(args)
        self.args.load_best_model_at_end = False
        self.folder = make_folder(private_dir / "folds", private=True)
        self.states_dir = Path(data_args.hidden_states_dir or private_dir / "hidden_states")
        self.notes = notes
        self.store: HiddenStates | None = None
        self.num_steps = 0  # of all heads that were trained in this process

    def train(self, rows: Sequence[int]) -> Any:
        """A model whose head has learned from some of the notes; its codes are those that they have."""
        learned = self.notes.select(rows)
        codes = list(count_codes(learned))
        set_seed(self.args.seed)
        model = build_model(self.model_args, self.backbone, codes, {}, None)
        evidence = marked_evidence({"training": learned}, self.model_args, self.data_args)
        training = readable_notes(learned, self.tokenizer, model.config.label2id, "training", evidence.get("training"))
        if self.store is None:
            every = tokenize_split(self.notes, self.tokenizer, model.config.label2id)
            self.store = fill_store(self.states_dir, model, self.data_args.hidden_states_format, [every], self.args)
        model = ready_to_learn(model, self.model_args, training.tokens, self.store, self.tokenizer, self.args)
        collator = ICDCollator(len(codes), hidden_states=self.store)
        self.trainer = make_trainer(model, self.args, training.tokens, None, collator, self.tokenizer)
        self.trainer.train()
        self.num_steps += self.trainer.state.global_step
        self.store.fold_into(model.score)
        return model

    def scores(self, fold: int, learned: Sequence[int], scored: Sequence[int]) -> torch.Tensor:
        """Logits `(N, S)` of the notes of a fold, by a head that has learned from others, over the codes that these have."""
        path = self.folder / f"fold{fold}-{self._digest(learned, scored)}.safetensors"
        if not path.is_file():
            model = self.train(learned)
            tokens = tokenize_split(self.notes.select(scored), self.tokenizer, model.config.label2id)
            logits = np.ascontiguousarray(predict_split(self.trainer, tokens), dtype=np.float32)
            _keep({"logits": torch.from_numpy(logits)}, path)
        return load_file(path)["logits"]

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights of a head that has learned from all notes."""
        rows = range(len(self.notes))
        path = self.folder / f"all-{self._digest(rows, ())}.safetensors"
        if not path.is_file():
            head = self.train(rows).score
            _keep({name: weight.detach().cpu().contiguous() for name, weight in head.state_dict().items()}, path)
        return load_file(path)

    @functools.cached_property
    def _digest_of_texts(self) -> str:
        digest = hashlib.sha256()
        for text in texts_of_notes(self.notes):
            digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    @functools.cached_property
    def _digest_of_evidence(self) -> str:
        """Of the words that annotators marked, where heads learn or start from them."""
        evidence = marked_evidence({"training": self.notes}, self.model_args, self.data_args)
        return hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest()

    def _digest(self, learned: Sequence[int], scored: Sequence[int]) -> str:
        """Of all that what a head gives depends on."""
        told = {
            "model": {option.name: vars(self.model_args)[option.name] for option in fields(ModelArguments)}
            | {"backbone": self._digest_of_backbone},
            "training": {
                name: value
                for name, value in self.args.to_dict().items()
                if not name.startswith(APART) and name not in DECISION
            },
            "hidden_states_format": self.data_args.hidden_states_format,
            "texts": self._digest_of_texts,
            "evidence": self._digest_of_evidence,
            "rows": [list(map(int, learned)), list(map(int, scored))],
            "notes": list(self.notes["hadm_id"]),
            "codes": [list(codes) for codes in self.notes["codes"]],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @functools.cached_property
    def _digest_of_backbone(self) -> str:
        """What tells the backbone: of a folder its weights and configuration, wherever it lies; of a model on the Hub its id."""
        folder = Path(self.backbone)
        patterns = [name for name in ("model*.safetensors", "pytorch_model*.bin") if [*folder.glob(name)]]
        if not (folder / "config.json").is_file() or not patterns:
            return self.backbone
        config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
        return f"{weights_digest(folder, patterns[0])} {config}"


def _keep(tensors: dict[str, torch.Tensor], path: Path) -> None:
    with whole_file(path, "wb", private=True) as file:
        file.write(save(tensors))
