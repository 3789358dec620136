"""Trains coders that verify: opens the retriever, and makes of its candidates what a language model learns from."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from dataset_scripts.counts import counted
from dataset_scripts.files import make_folder

from ..fusion_icd import FusionConfig
from ..generative_icd import GenerativeForICD, is_generative
from ..inference.learned_notes import copy_learned
from ..inference.loading import load_coder_config, load_model
from ..inference.model_folder import weights_digest
from ..inference.processes import first_process_only
from ..inference.tokens import NOTES_AT_A_TIME, codes_of_notes, texts_of_notes
from ..prompts_icd import check_lengths
from ..sharing_icd import RETRIEVER, data_access, seal_training_data
from ..terms_icd import TermsConfig
from ..training.models import known_training_data
from ..verify_icd import Candidate, Proposed, Retriever, kind_of
from .arguments import GenerativeArguments


HOLD_PHRASES = (TermsConfig.model_type, FusionConfig.model_type)  # of the notes that they learned from


def find_retriever(given: str | None, backbone: str) -> str:
    """The folder or Hub id of the retriever: the one that is given, or that of a backbone which verifies already.

    Raises:
        ValueError: where there is none.
    """
    own = Path(backbone) / RETRIEVER
    if given is None and not own.is_dir():
        raise ValueError(
            "`mode` verify needs a `retriever`: the folder of a coder whose candidates are verified, such as one that `modeling-icd terms "
            "build` makes."
        )
    return str(own) if given is None else given


def open_retriever(name: str, codes: Sequence[str]) -> tuple[Retriever, dict[str, Any] | None]:
    """A retriever, and its record of training data; `None` where that does not speak of its weights.

    Args:
        name (`str`): folder or Hub id.
        codes (`Sequence[str]`): those that may be proposed.

    Raises:
        ValueError: where it is no coder of this project, or proposes none of these codes.
    """
    config = load_coder_config(name)
    if is_generative(config) or kind_of(config.model_type) is None:
        raise ValueError(
            f"`retriever` {name} is no classifier, coder by terms or fused model of this project, whose scores say which codes to verify: "
            "give the folder of one."
        )
    known = set(codes) & set(config.label2id)
    if not known:
        raise ValueError(
            f"`retriever` {name} knows none of the {len(codes):,} codes of the training notes: give one of the same code set."
        )
    if len(known) < len(codes):
        print(
            f"The retriever knows {len(known):,} of the {len(codes):,} codes of the training notes: no other is ever predicted."
        )
    model, tokenizer = load_model(name)
    return Retriever(model, tokenizer), known_training_data(config, name)


def gather_retriever(
    own: GenerativeArguments, mode: str, backbone: str, codes: Sequence[str], output_dir: Path, private_dir: Path
) -> tuple[Retriever | None, dict[str, Any]]:
    """The retriever of a coder that verifies, and what its record of training data says of it; neither of any other coder.

    Which notes it learned from is remembered in the private folder, and where it may hold phrases of them, the model's folder
    is made its owner's alone.
    """
    kept = private_dir / RETRIEVER
    if mode != "verify":
        first_process_only(lambda: shutil.rmtree(kept, ignore_errors=True))  # of an earlier run
        return None, {}
    name = find_retriever(own.retriever, backbone)
    retriever, record = open_retriever(name, codes)
    first_process_only(lambda: copy_learned(name, kept))
    if retriever.model.config.model_type in HOLD_PHRASES and data_access(record) == "restricted":
        make_folder(output_dir, private=True, ours=True)
        print(
            "The retriever may hold phrases of notes: the model's folder, which holds it, is as confidential as they are."
        )
    return retriever, {RETRIEVER: record}


def verifying_examples(
    split: datasets.Dataset, coder: GenerativeForICD, negatives: float, name: str
) -> datasets.Dataset:
    """Prompts that ask about candidates of notes, with their answers; columns as those of
    [`~modeling_icd.generative.examples.learning_examples`].

    Of each note these are all candidates that are right, and the best of those that are not: `negatives` times as many, and one
    at least.

    Args:
        name (`str`): of the split, for messages.

    Raises:
        ValueError: where no note has a candidate.
    """
    verifier, label2id = coder.verifier, coder.config.label2id or {}
    texts = texts_of_notes(split)
    if not coder.reads_passages:
        check_lengths([len(coder.prompter.text_tokens(text)) for text in texts], coder.settings)
    rows: list[dict[str, Any]] = []
    num_right = num_gold = 0
    for text, codes, proposed in zip(texts, codes_of_notes(split), proposals(coder, texts), strict=True):
        gold = {label2id[code] for code in codes if code in label2id}
        right = [candidate for candidate in proposed.candidates if candidate.class_id in gold]
        wrong = [candidate for candidate in proposed.candidates if candidate.class_id not in gold]
        num_right, num_gold = num_right + len(right), num_gold + len(gold)
        kept = [*right, *wrong[: max(1, round(negatives * len(right)))]]
        for passage, candidates in verifier.passages(text, kept):
            start = [*coder.prompter.before, *passage]
            rows += [example_of(coder, start, candidate, candidate.class_id in gold) for candidate in candidates]
    if not rows:
        raise ValueError(
            f"The retriever proposes no code of any {name} note with a score of at least `candidate_threshold`: lower that, or take "
            "another retriever."
        )
    print(
        f"Of {counted(num_gold, f'code of the {name} notes', f'codes of the {name} notes')} {num_right:,} "
        f"({num_right / max(num_gold, 1):.1%}) are among the candidates: no other is ever predicted.",
        file=sys.stderr,
    )
    return datasets.Dataset.from_list(rows)


def proposals(coder: GenerativeForICD, texts: Sequence[str]) -> Iterator[Proposed]:
    """What the retriever says of each text; of some at a time, since that has a number for every code."""
    for start in range(0, len(texts), NOTES_AT_A_TIME):
        yield from coder.verifier.propose(texts[start : start + NOTES_AT_A_TIME])


def example_of(
    coder: GenerativeForICD, start: Sequence[int], candidate: Candidate, is_supported: bool
) -> dict[str, Any]:
    """A prompt about one candidate with its answer; `start` are its tokens up to the end of the passage."""
    prompt = [*start, *coder.verifier.question(candidate.class_id)]
    answer = coder.verifier.answer(is_supported)
    mask = [0] * len(prompt) + [1] * len(answer)
    return {"input_ids": prompt + answer, "completion_mask": mask, "length": len(mask)}


def seal_retriever(coder: GenerativeForICD, output_dir: Path) -> None:
    """Bind the record of a retriever's training data to the weights that were saved of it: where its own folder held the head
    alone, its backbone is among them here. A record that did not speak of its weights is left as it is."""
    record = (coder.config.training_data or {}).get(RETRIEVER)
    if coder.retriever is not None and record is not None:
        folder = output_dir / RETRIEVER
        config = coder.retriever.model.config
        config.training_data = seal_training_data({**record, "weights": weights_digest(folder)})
        config.save_pretrained(folder)
