"""Trains a fused model: tables of what notes and titles say, a head over hidden states, and trees that weigh both.

What the trees learn from is honest: of a training note, tables and head are those of the other folds, in which it is not. The
thresholds are chosen on what trees of the other folds give. The model that is saved looks up all training notes, those of
validation among them.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoTokenizer, set_seed
from trl import TrlParser

from dataset_scripts import ICDBuilder
from dataset_scripts.arguments import PROGRAM
from dataset_scripts.counts import counted

from ..evaluation.decisions import check_notes, fit_decision
from ..fusion_features_icd import PARTS, FeatureMaker, Scored
from ..fusion_icd import FusionConfig, FusionForICD, buffers_of, logits_of
from ..fusion_tables_icd import pack
from ..fusion_text_icd import StemReader
from ..inference.loading import load_config
from ..inference.tokens import codes_of_notes, empty_notes, texts_of_notes
from ..knowledge.coder import marked_phrases
from ..knowledge.fusion_tables import (
    Knowledge,
    Notes,
    TitleTerm,
    marked_terms,
    phrases_with_titles,
    small_stems,
    title_terms,
    token_bytes,
)
from ..knowledge.spanish_titles import spanish_titles
from ..knowledge.translations import (
    PhraseProjector,
    align_notes,
    aligned_titles,
    joined,
    learn_translations,
)
from ..sharing_icd import claimed_access
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments
from .config_files import USAGE
from .fusion_heads import HeadTraining
from .fusion_trees import SIZES, Rows, fit_trees, rows_of
from .models import configuration_fields, with_earlier, without_load_report
from .notes import build_dataset, say_who_may_have, warn
from .run import find_backbone, notes_to_learn, open_folders, parse, remember_notes
from .saving import save_run


DECISION_GROUPS = 5
"""Groups of folds, at most; the scores of each, by trees of the others, are what the threshold is chosen on."""


@dataclass
class FusionArguments(ModelArguments):
    """The options of a fused model, beside those of its head over hidden states."""

    head_model: str = field(default="direct", metadata={"help": "`model` of the head over hidden states."})
    parts: list[str] = field(
        default_factory=lambda: [part for part in PARTS if part != "words"],
        metadata={"help": f"What is joined: of {', '.join(PARTS)}; without `words` where nothing is said."},
    )
    num_folds: int = field(
        default=5, metadata={"help": "Folds of the training notes; each, of each draw, takes a training of the head."}
    )
    num_draws: int = field(
        default=1,
        metadata={
            "help": "How often the notes are divided into folds. Trees learn from the features of all draws; thresholds are chosen on the "
            "first. Time and memory grow with it."
        },
    )
    max_fit_notes: int = field(
        default=5000,
        metadata={
            "help": "Training notes of a draw, chosen at random, that trees and thresholds are fitted on at most. Tables and heads learn from all "
            "of them. Memory and time of the fit grow with this number."
        },
    )
    num_fits: int = field(default=1, metadata={"help": "How often the trees are fitted; their mean is taken."})
    tree_size: str = field(default="large", metadata={"help": f"Of the trees: {' or '.join(SIZES)}."})
    new_codes: bool = field(
        default=False,
        metadata={"help": "Also give codes that no training note has, where a note says their titles."},
    )
    title_language: str | None = field(
        default=None, metadata={"help": "`es`: also take titles in Spanish, those of the package cie (ICD-10)."}
    )
    mapped_titles: bool = field(
        default=False,
        metadata={
            "help": "For codes of ICD-9-CM: also take short titles, and the terms of the one code of ICD-10-CM that the General "
            "Equivalence Mappings give."
        },
    )
    other_language: str | None = field(
        default=None,
        metadata={
            "help": "Configuration of the data set that has the same notes in another language: what words mean is learned from "
            "both; and where this one marks no evidence, that of the other is brought over."
        },
    )
    other_phrases: bool = field(
        default=False,
        metadata={
            "help": "Where evidence is brought over from `other_language`: also look for the words that are marked there, by what the "
            "words of a note mean in that language, as titles are looked for. It finds what was not brought over."
        },
    )

    def __post_init__(self):
        if self.model != "fusion":
            raise ValueError(f"`model` must be 'fusion', got {self.model!r}.")
        self.model = self.head_model
        super().__post_init__()
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown or not self.parts:
            raise ValueError(f"`parts` must be of {', '.join(PARTS)}, got {unknown[0] if unknown else 'none'}.")
        if self.title_language not in (None, "es"):
            raise ValueError(f"`title_language` must be 'es', or left out, got {self.title_language!r}.")
        if self.tree_size not in SIZES:
            raise ValueError(f"`tree_size` must be {' or '.join(SIZES)}, got {self.tree_size!r}.")
        if self.num_folds < 2 or min(self.num_fits, self.num_draws) < 1:
            raise ValueError("`num_folds` must be at least 2, `num_draws` and `num_fits` at least 1.")
        if self.other_phrases and (self.other_language is None or not {"phrases", "titles"} <= set(self.parts)):
            raise ValueError(
                "`other_phrases` needs `other_language`, and `phrases` and `titles` among `parts`: "
                "leave it out (`--other_phrases false`), or give them."
            )
        if self.max_fit_notes < self.num_folds:
            raise ValueError(
                f"`max_fit_notes` ({self.max_fit_notes}) must be at least `num_folds` ({self.num_folds})."
            )
        if not self.freeze_backbone:
            raise ValueError("The heads of a fused model share hidden states: give `freeze_backbone`.")
        for name in ("start_titles", "guidelines", "guidelines_rare", "evidence_sentences"):
            if getattr(self, name):
                raise ValueError(
                    f"The heads of a fused model learn from notes alone, and titles and phrases are parts of their own: leave `{name}` out."
                )


def run(arguments: list[str]) -> int:
    """Parse the arguments, train and save; returns the exit status."""
    parser = TrlParser(
        [FusionArguments, DataArguments, ICDTrainingArguments], prog=f"{PROGRAM} train", add_help=False, usage=USAGE
    )
    print(train(*parse(parser, arguments)))
    return 0


def train(model_args: FusionArguments, data_args: DataArguments, args: ICDTrainingArguments) -> Path:
    """Trains a fused model and writes it, its tokenizer and `run.json` to `args.output_dir`."""
    check_options(args)
    if "head" not in model_args.parts:
        model_args.hidden_layer = 0  # of the backbone, its words alone
    run = {
        "model": {**asdict(model_args), "model": "fusion"},
        "data": asdict(data_args),
        "training": args.to_dict(),
    }
    output_dir, private_dir = open_folders(run, args)
    set_seed(args.seed)
    builder, _, splits, training_data = notes_to_learn(data_args, args, private_dir, with_validation=True)
    every = datasets.concatenate_datasets(splits)
    remember_notes(splits, data_args, training_data, private_dir)
    say_who_may_have(data_args, training_data)
    has_text = np.flatnonzero(~empty_notes(texts_of_notes(every)))
    if len(has_text) < len(every):
        warn(f"{len(every) - len(has_text)} notes have no text: they are left out.")
    fusion = Fusion(model_args, data_args, args, builder, every.select(has_text), private_dir)
    training_data = with_earlier(training_data, load_config(fusion.backbone), fusion.backbone)
    if claimed_access(training_data) == "restricted":
        output_dir.chmod(0o700)
        print(f"{output_dir} will hold words and phrases of notes: only you can read it, and it is not published.")
    fusion.say_costs()
    started = time.monotonic()
    model = fusion.fit(training_data)
    ended = {
        "train_runtime": round(time.monotonic() - started, 1),
        "epoch": args.num_train_epochs,
        "step": fusion.heads.num_steps,
    }
    save_run(model, fusion.tokenizer, {**run, "log": [ended]}, output_dir)
    return output_dir


def check_options(args: ICDTrainingArguments) -> None:
    """Raise a `ValueError` where an option asks for what such a training does not do."""
    if args.push_to_hub:
        raise ValueError("`train` uploads no fused model: leave `push_to_hub` out, and see `modeling-icd publish`.")
    if args.resume_from_checkpoint:
        raise ValueError(
            "A fused training goes on by itself with the heads that are done: leave `resume_from_checkpoint` out."
        )
    for name in ("refit_on_validation", "early_stopping_patience"):
        if getattr(args, name):
            raise ValueError(f"A fused model learns from train and validation, in folds: leave `{name}` out.")


def patients_of(notes: datasets.Dataset) -> list[Any]:
    """Of each note its patient; where a data set does not tell, each note is of another."""
    subjects = notes["subject_id"] if "subject_id" in notes.column_names else [None] * len(notes)
    return [("note", row) if subject is None else subject for row, subject in enumerate(subjects)]


def folds_of(patients: Sequence[Any], num_folds: int, seed: int | list[int]) -> list[list[int]]:
    """The rows of each fold, drawn by patient: another note of the same one would tell what its codes are.

    Raises:
        ValueError: where there are fewer patients than folds.
    """
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    if len(numbers) < num_folds:
        raise ValueError(
            f"The notes of {counted(len(numbers), 'patient')} cannot be divided into {num_folds} folds: give fewer."
        )
    fold_of = np.random.default_rng(seed).permutation(np.arange(len(numbers)) % num_folds)
    folds: list[list[int]] = [[] for _ in range(num_folds)]
    for row, patient in enumerate(patients):
        folds[fold_of[numbers[patient]]].append(row)
    return folds


def rows_to_score(folds: Sequence[Sequence[int]], most: int, seed: int) -> list[list[int]]:
    """Of each fold the rows whose features trees and thresholds are fitted on: all of them, or at most so many of all folds, drawn
    at random, of each fold in proportion to its size."""
    total = sum(map(len, folds))
    if total <= most:
        return [list(rows) for rows in folds]
    draw = np.random.default_rng(seed)
    return [sorted(draw.choice(rows, max(1, most * len(rows) // total), replace=False).tolist()) for rows in folds]


def rows_in_other(hadm_ids: Sequence[Any], other_ids: Sequence[Any], name: str) -> list[int]:
    """Where another configuration, `name`, has the same notes.

    Raises:
        ValueError: where it lacks one.
    """
    rows = {hadm_id: row for row, hadm_id in enumerate(other_ids)}
    num_missing = sum(hadm_id not in rows for hadm_id in hadm_ids)
    if num_missing:
        raise ValueError(
            f"`other_language` must have the same notes in another language, and {name!r} lacks {num_missing:,} of "
            f"{counted(len(hadm_ids), 'note')}: give another configuration, or leave it out."
        )
    return [rows[hadm_id] for hadm_id in hadm_ids]


class Fusion:
    """The training of one model.

    Args:
        model_args, data_args, args: of the run.
        builder (`ICDBuilder`): of the data set.
        notes (`datasets.Dataset`): to learn from.
        private_dir (`Path`): where what holds notes is kept.
    """

    def __init__(
        self,
        model_args: FusionArguments,
        data_args: DataArguments,
        args: ICDTrainingArguments,
        builder: ICDBuilder,
        notes: datasets.Dataset,
        private_dir: Path,
    ):
        self.model_args, self.data_args, self.args, self.builder = model_args, data_args, args, builder
        self.folds: list[list[int]] = []  # of all draws
        self.scored_rows: list[list[int]] = []
        for draw in range(model_args.num_draws):
            folds = folds_of(patients_of(notes), model_args.num_folds, [args.seed, draw] if draw else args.seed)
            self.folds += folds
            self.scored_rows += rows_to_score(folds, model_args.max_fit_notes, args.seed)
        self.has_head = "head" in model_args.parts
        self.backbone = find_backbone(model_args, args, lambda: iter(()), private_dir)
        self.tokenizer = AutoTokenizer.from_pretrained(self.backbone)
        self.token_parts = token_bytes(self.tokenizer)
        self.heads = HeadTraining(model_args, data_args, args, self.backbone, self.tokenizer, private_dir, notes)
        texts, codes = texts_of_notes(notes), codes_of_notes(notes)
        spans = marked_phrases(notes, builder) if "phrases" in model_args.parts else [[] for _ in texts]
        self.aligned: list | None = None
        self.other_terms: list[list[TitleTerm]] = [[] for _ in texts]
        if model_args.other_language is not None:
            spans = self._use_other_language(notes, texts, codes, spans, private_dir)
        phrases = [
            [(code, span if isinstance(span, str) else " ".join(text[a:b] for a, b in span)) for code, span in of_note]
            for text, of_note in zip(texts, spans, strict=True)
        ]
        self.notes = Notes.read(texts, codes, phrases)
        names = builder.info.features["codes"].feature.names
        own = {code for of_note in codes for code in of_note}
        self.titles: list[TitleTerm] = []
        self.title_texts: dict[str, str] = {}
        self.aligned_titles: list[tuple[list[str], list[str]]] = []
        if "titles" in model_args.parts:
            others = spanish_titles() if model_args.title_language else {}
            self.titles, self.title_texts = title_terms(
                [code for code in names if code in own], model_args.new_codes, others, model_args.mapped_titles
            )
            self.aligned_titles = aligned_titles(others, self.title_texts, small_stems())
        self.phrases_with_titles = phrases_with_titles(phrases, self.titles)
        self.order = {code: i for i, code in enumerate(names)}

    def _use_other_language(
        self, notes: datasets.Dataset, texts: list[str], codes: list[list[str]], spans: list, private_dir: Path
    ) -> list:
        """Learn what words mean; or, where evidence is wanted and none is marked, bring over that of the other language. Returns the
        evidence."""
        if self.model_args.other_phrases and any(spans):
            raise ValueError(
                "`other_phrases` is for notes without evidence of their own, and these have some: leave it out."
            )
        data_args = DataArguments(
            dataset=self.data_args.dataset,
            data_dir=self.data_args.data_dir,
            dataset_config=self.model_args.other_language,
            data_cache_dir=self.data_args.data_cache_dir,
        )
        builder = build_dataset(data_args, private_dir / "cache")
        other = datasets.concatenate_datasets([builder.as_dataset(split=name) for name in ("train", "validation")])
        other = other.select(rows_in_other(notes["hadm_id"], other["hadm_id"], builder.config.name))
        other_texts, small = texts_of_notes(other), small_stems()
        if any(spans) or "phrases" not in self.model_args.parts:
            self.aligned = align_notes(texts, other_texts, small)
            return spans
        translations = learn_translations(align_notes(other_texts, texts, small))
        own_codes = {code for of_note in codes for code in of_note}
        marked = [[each for each in of_note if each[0] in own_codes] for of_note in marked_phrases(other, builder)]
        if self.model_args.other_phrases:
            if not any(marked):
                raise ValueError(
                    f"`other_phrases`: {builder.config.name!r} marks no evidence for the codes of these notes. Give the "
                    "configuration that does as `other_language`, or leave `other_phrases` out (`--other_phrases false`)."
                )
            self.aligned = align_notes(texts, other_texts, small)
            self.other_terms = marked_terms(other_texts, marked)
        reader, brought, total, found = StemReader(), [], 0, 0
        for own, theirs, of_note in zip(texts, other_texts, marked, strict=True):
            projector = PhraseProjector(theirs, own, translations, small, reader)
            projected = []
            for code, places in of_note:
                phrase = projector.find(places)
                total += 1
                if phrase is not None:
                    found += 1
                    projected.append((code, phrase))
            brought.append(projected)
        print(f"{found:,} of {total:,} marked places are found again in the other language.")
        return brought

    def say_costs(self) -> None:
        """Print what is to be done."""
        heads = f"{len(self.folds) + 1} trainings of the head" if self.has_head else "no head"
        draws = f", drawn {self.model_args.num_draws} times" if self.model_args.num_draws > 1 else ""
        print(
            f"{counted(len(self.notes.texts), 'note')} in {self.model_args.num_folds} folds{draws}, {heads}, joined of "
            f"{', '.join(self.model_args.parts)}."
        )
        if self.has_head:
            print(f"What the head of a fold gives is kept in {self.heads.folder}, and not computed again.")
        num_scored = sum(map(len, self.scored_rows[: self.model_args.num_folds]))
        if num_scored < len(self.notes.texts):
            print(
                f"Of each draw {num_scored:,} of these notes are used to fit trees and thresholds (`max_fit_notes`)."
            )

    def knowledge_of(self, learned: Sequence[int]) -> Knowledge:
        """The tables of some notes."""
        notes = self.notes.take(learned)
        labels = sorted({code for codes in notes.codes for code in codes}, key=self.order.__getitem__)
        translations, titles = None, self.titles
        if self.titles:
            known = set(labels)
            others = dict.fromkeys(term for row in learned for term in self.other_terms[row] if term.code in known)
            titles = [*self.titles, *others]
            aligned = [] if self.aligned is None else [*(self.aligned[row] for row in learned), self.aligned_titles]
            translations = joined(
                learn_translations(aligned), learn_translations(self.phrases_with_titles[row] for row in learned)
            )
        return Knowledge(notes, labels, titles, self.title_texts, translations, self.model_args.parts)

    def features(
        self, knowledge: Knowledge, stems_of_notes: Sequence[list[str]], head_logits: torch.Tensor | None
    ) -> list[Scored]:
        """The features of notes, by the tables of others; without evidence, for which there is no use here."""
        maker = FeatureMaker(knowledge.tables, knowledge.finder, knowledge.num_known, self.model_args.parts)
        found = []
        for row, stems in enumerate(stems_of_notes):
            each = maker.make(stems, None if head_logits is None else head_logits[row])
            found.append(each._replace(evidence={}))
        return found

    def fold_features(self) -> tuple[list[list[Scored]], list[list[str]]]:
        """The features of the notes of each fold that are scored, by the tables and the head of the others, and the codes that
        these know. The tables are kept no longer, since they are as large as the notes."""
        scored, known = [], []
        for fold, (rows, chosen) in enumerate(zip(self.folds, self.scored_rows, strict=True)):
            started = time.monotonic()
            left_out = set(rows)
            learned = [row for row in range(len(self.notes.texts)) if row not in left_out]
            head_logits = self.heads.scores(fold, learned, chosen) if self.has_head else None
            knowledge = self.knowledge_of(learned)
            scored.append(self.features(knowledge, [self.notes.stems[row] for row in chosen], head_logits))
            known.append(knowledge.labels)
            print(
                f"Fold {fold + 1} of {len(self.folds)}: {counted(len(chosen), 'note')}, {time.monotonic() - started:.0f} s.",
                file=sys.stderr,
            )
        return scored, known

    def fit(self, training_data: dict[str, Any]) -> FusionForICD:
        """The model, with its decision fitted on the folds."""
        scored, known = self.fold_features()
        gold = []
        for of_fold, rows in zip(known, self.scored_rows, strict=True):
            ids = {code: i for i, code in enumerate(of_fold)}
            gold.append([{ids[code] for code in self.notes.codes[row] if code in ids} for row in rows])
        parts = [
            [rows_of([each], [own]) for each, own in zip(of_fold, own_codes, strict=True)]
            for of_fold, own_codes in zip(scored, gold, strict=True)
        ]
        final = self.knowledge_of(range(len(self.notes.texts)))
        labels = {code: i for i, code in enumerate(final.labels)}
        trees = self.fit_trees([part for of_fold in parts for part in of_fold])
        model = self.make_model(final, trees, training_data)
        decision = self.decide(model, scored, known, parts, labels, training_data)
        model.config.update(decision)
        model.config.training_data = {**training_data, "seed": self.args.seed}
        return model

    def fit_trees(self, parts: Sequence[Rows]) -> dict[str, torch.Tensor]:
        """Trees of the run's size, fitted on the rows of some notes."""
        return fit_trees(parts, self.model_args.num_fits, self.args.seed, SIZES[self.model_args.tree_size])

    def decide(
        self,
        model: FusionForICD,
        scored: list[list[Scored]],
        known: list[list[str]],
        parts: list[list[Rows]],
        labels: Mapping[str, int],
        training_data: Mapping[str, Any],
    ) -> dict[str, Any]:
        """How scores become codes, chosen on the notes of some folds of the first draw as trees of all other notes score them."""
        head: Any = model.score
        num_folds = self.model_args.num_folds
        every = sorted(row for rows in self.scored_rows[:num_folds] for row in rows)
        place_of = {row: place for place, row in enumerate(every)}
        logits = np.tile(head.untold().numpy(), (len(every), 1))
        num_groups = min(DECISION_GROUPS, num_folds)
        for group in range(num_groups):
            own = range(group, num_folds, num_groups)
            left_out = {row for fold in own for row in self.folds[fold]}
            trees = self.fit_trees(
                [
                    part
                    for rows, of_fold in zip(self.scored_rows, parts, strict=True)
                    for row, part in zip(rows, of_fold, strict=True)
                    if row not in left_out
                ]
            )
            for fold in own:
                column = torch.tensor([labels.get(code, -1) for code in known[fold]])
                for row, each in zip(self.scored_rows[fold], scored[fold], strict=True):
                    columns = column[each.codes]
                    is_known = columns >= 0
                    logits[place_of[row], columns[is_known].numpy()] = logits_of(trees, each)[is_known].numpy()
        gold = [[labels[code] for code in self.notes.codes[row]] for row in every]
        check_notes(gold, self.args, [0] * len(gold))
        counts = [training_data["code_counts"].get(code, 0) for code in labels]
        return fit_decision(logits.astype(np.float32), gold, self.args, training_counts=counts)

    def make_model(
        self, final: Knowledge, trees: dict[str, torch.Tensor], training_data: dict[str, Any]
    ) -> FusionForICD:
        """A model with these tables and trees, and with a head that has learned from all notes."""
        buffers = buffers_of(final.tables, pack(self.token_parts), trees, pack)
        given = configuration_fields(self.model_args, load_config(self.backbone))
        head = given.pop("pooling", None) or "multirescnn"
        options = {name: given.pop(name) for name in list(given) if not hasattr(FusionConfig, name)}
        config = FusionConfig.from_backbone(
            load_config(self.backbone),
            id2label=dict(enumerate(final.labels)),
            label2id={code: i for i, code in enumerate(final.labels)},
            code_descriptions={code: self.titles_of(code) for code in final.labels if self.titles_of(code)},
            training_data=training_data,
            head=head,
            head_options=options,
            num_known=final.num_known,
            parts=list(self.model_args.parts),
            tables={name: list(tensor.shape) for name, tensor in buffers.items()},
            finder=[len(final.stems), *final.finder.words.shape],
            **given,
        )
        weights = self.heads.weights() if self.has_head else {}
        with without_load_report():
            model = FusionForICD.from_pretrained(self.backbone, config=config, dtype="float32").eval()
        missing = model.score.load_state_dict(
            {
                **buffers,
                **{f"finder.{name}": tensor for name, tensor in final.finder.state_dict().items()},
                **{f"states.{name}": tensor for name, tensor in weights.items()},
            },
            strict=False,
        )
        assert not missing.unexpected_keys
        model.head_is_new = False
        model.save_head_only()
        return model

    def titles_of(self, code: str) -> str | None:
        return self.title_texts.get(code) or self.builder.code_descriptions.get(code)
