"""`pipeline("icd-coding")`: takes notes, and returns their codes with descriptions, scores and evidence spans."""

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Set, Sized
from numbers import Integral, Real
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline

from .base_configuration_icd import TASK
from .decision_icd import calibrated_scores, flags_of, predicted_codes
from .evidence_icd import check_method, spans_by_source, weights_by_source
from .sharing_icd import PushGuard, guard_tokenizer


logger = logging.getLogger(__name__)

# How many batches of notes are read before the first of them is coded, so that notes of a length come together. A stream
# gives nothing until so many are read; a list is there already, and the limit bounds the memory for its tokens.
STREAM_AHEAD, LIST_AHEAD = 16, 256
# Padded tokens of a batch on a CPU: beyond these a batch takes longer than its notes one by one, since it leaves the caches.
CPU_BATCH_TOKENS = 512


class ICDCodingPipeline(PushGuard, Pipeline):
    """Codes notes of any length.

    Call arguments:
        inputs: a note, or several. A note is a string or `{"text": string}`. A list, a tuple, a numpy array, a pandas
            series or a column of a data set gives a list; a generator, another iterator or a torch `Dataset` (as
            `KeyDataset`) gives an iterator, which reads at most 16 batches ahead. Results are in the order of the notes.
        threshold (`float`, *optional*): in place of the model's own; a code is predicted when its score is greater.
        top_k (`int`, *optional*): the k best codes, whatever their score, in place of a threshold.
        num_spans (`int`, defaults to 3): how many evidence spans a code gets at most.
        evidence_method (`str`, *optional*): how the words that speak for a code are found, one of `EVIDENCE_METHODS` of
            evidence_icd.py; by default the one that found marked evidence best with such a head.
        batch_size (`int`, defaults to 1): how many notes the model reads together at most. A batch takes notes of about
            the same length, and its notes get what each would get alone. On a CPU it takes 512 tokens at most, since
            larger ones are slower there: only short notes are read together.
        num_workers: accepted as by every pipeline, without effect: notes are tokenized in this process.

    Returns, for each note, a list by falling score of
    `{"code", "description", "score", "decision", "evidence": [{"start", "end", "text", "weight", "source"}]}`. Scores are
    calibrated where the model's configuration says how. `decision` is `"confident"`, or `"review"` where predictions
    with such scores were right less often on validation than `review_precision` asks for, or `None` where no review was
    fitted. Evidence has character offsets into the note as given, the weight of the words inside the span, with
    `evidence_method="attention"` the share of the code's attention, else a number that is comparable within one code of one
    note alone, and its source: `"term"` where the note says a term of the code, `"title"` where it says its title, and else the
    `evidence_method`. A model that looks words up, too, gives spans of terms first, then of titles, then of its attention. `description` is `None` where the model has none, `evidence` is `None` where its head reads the last token
    alone (`pooling` `last`).

    A blank note, and one of which the tokenizer keeps no character, has no codes: it gets `[]`, and one warning counts
    such notes. Anything that is not a note, such as `None`, is a `ValueError` that names its position.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        guard_tokenizer(self.tokenizer, self.shared_record())

    def shared_record(self):
        return self.model.config.training_data

    def __call__(self, inputs, *, batch_size=None, num_workers=None, **parameters):
        """Codes one note or several; see the class."""
        own = self._batch_size if batch_size is None else batch_size
        check_number("batch_size", own, Integral, "a whole number of at least 1", 1)
        own = self._num_workers if num_workers is None else num_workers
        check_number("num_workers", own, Integral, "a whole number of at least 0", 0)
        options = {"batch_size": batch_size, "num_workers": num_workers, **parameters}
        if isinstance(inputs, str | Mapping):
            return super().__call__([text_of(inputs)], **options)[0]
        notes = notes_of(inputs)
        if notes == []:  # which the library's own call cannot take
            self._sanitize_parameters(**parameters)
            return []
        return super().__call__(notes, **options)

    def _sanitize_parameters(self, threshold=None, top_k=None, num_spans=None, evidence_method=None, **unknown):
        if unknown:
            known = "threshold, top_k, num_spans, evidence_method and batch_size"
            raise ValueError(f"Unknown arguments {sorted(unknown)}: {TASK} knows {known}.")
        check_number("threshold", threshold, Real, "a number in [0, 1]", 0, 1)
        check_number("top_k", top_k, Integral, "a whole number of at least 1", 1)
        check_number("num_spans", num_spans, Integral, "a whole number of at least 0", 0)
        check_method(evidence_method)
        forward = {"threshold": threshold, "top_k": top_k, "evidence_method": evidence_method}
        return (
            {},
            {name: value for name, value in forward.items() if value is not None},
            {} if num_spans is None else {"num_spans": num_spans},
        )

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[list[dict]]:
        """Codes of each of `inputs`, in their order; batches are made of notes of about the same length."""
        notes = iter(inputs)
        ahead = 1 if batch_size == 1 else batch_size * (LIST_AHEAD if isinstance(inputs, list) else STREAM_AHEAD)
        max_tokens = CPU_BATCH_TOKENS if self.device.type == "cpu" else None
        seen = blank = 0
        try:
            while items := [self.preprocess(note, **preprocess_params) for note in itertools.islice(notes, ahead)]:
                seen += len(items)
                lengths = [len(item["input_ids"]) for item in items]
                blank += lengths.count(0)
                coded: list[list[dict]] = [[] for _ in items]
                for batch in batches_by_length(lengths, batch_size, max_tokens):
                    outputs = self.forward(padded([items[i]["input_ids"] for i in batch]), **forward_params)
                    for i, output in zip(batch, outputs, strict=True):
                        coded[i] = self.postprocess({**items[i], **output}, **postprocess_params)
                yield from coded
        finally:
            if blank:
                logger.warning("%d of %d notes are blank and get no codes.", blank, seen)

    def preprocess(self, note):
        return encode_note(self.tokenizer, note)

    def _forward(self, model_inputs, threshold=None, top_k=None, evidence_method=None):
        """Of each note: the ids and scores of its predicted codes, and their weights of its tokens `(codes, tokens)`, by source."""
        config = self.model.config
        output = self.model(**model_inputs, output_hidden_states=True)
        scores = calibrated_scores(output.logits, config.calibration).cpu()
        coded: list[dict[str, Any]] = []
        for i, length in enumerate(model_inputs["attention_mask"].sum(dim=1).tolist()):
            class_ids = predicted_codes(scores[i], config, threshold, top_k)
            states = output.hidden_states[i, :length]  # `padded` puts the padding behind the note
            weights = weights_by_source(self.model.score, states, class_ids, evidence_method)
            coded.append({"class_ids": class_ids, "scores": scores[i, class_ids], "token_weights": weights})
        return coded

    def postprocess(self, outputs, num_spans=3):
        config = self.model.config
        weights = outputs["token_weights"]
        evidence: list[list[dict] | None] = [None] * len(outputs["class_ids"])
        if weights is not None:
            evidence[:] = spans_by_source(outputs["note"], outputs["offsets"], weights, num_spans)
        codes = [config.id2label[i] for i in outputs["class_ids"]]
        scores, flags = outputs["scores"].tolist(), flags_of(outputs["scores"], config.review_threshold)
        descriptions = config.code_descriptions or {}
        return [
            {"code": code, "description": descriptions.get(code), "score": score, "decision": flag, "evidence": spans}
            for code, score, flag, spans in zip(codes, scores, flags, evidence, strict=True)
        ]


def check_number(name: str, value: Any, kind: Any, words: str, low: int, high: float = float("inf")) -> None:
    """Raises a `ValueError` unless a value is `None` or a number of that kind (numpy's too) from `low` to `high`; `words`
    describe that range in the message."""
    if value is None or (isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high):
        return
    if isinstance(value, Real):
        shown = str(value)
    else:  # text is not repeated, since it may be a note
        shown = "a string: give the number without quotes" if isinstance(value, str) else type(value).__name__
    raise ValueError(f"`{name}` must be {words}, got {shown}.")


def text_of(note: Any, position: int | None = None) -> str:
    """The text of a note, a string or `{"text": string}`; `position` is its place among several."""
    name = "The note" if position is None else f"Note {position} (counted from 0)"
    if isinstance(note, Mapping):
        if set(note) != {"text"}:
            raise ValueError(
                f'{name} has other fields than "text": give the string, or {{"text": string}}; of a data set, its column.'
            )
        note = note["text"]
    if not isinstance(note, str):
        raise ValueError(f"{name} is no string but {type(note).__name__}: drop it, or give its text.")
    return note


def notes_of(inputs: Any) -> list[str] | Iterator[str]:
    """Texts of several notes: a list if all notes are in memory, a generator if `inputs` is an iterator.

    Raises:
        ValueError: where `inputs` is not a sequence of notes, or one of them is not a note.
    """
    if hasattr(inputs, "ndim") and inputs.ndim != 1:
        raise ValueError(f"Give one column of notes, got {inputs.ndim} dimensions ({type(inputs).__name__}).")
    if isinstance(inputs, Dataset) and not isinstance(inputs, IterableDataset):
        notes: Iterator[Any] = (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]  # it has a length
    elif isinstance(inputs, Iterable) and not isinstance(inputs, bytes | bytearray | Set):
        notes = iter(inputs)
    else:
        raise ValueError(
            f"Give a note (a string), or several in an order (a list, a column, a generator), not {type(inputs).__name__}."
        )
    texts = (text_of(note, position) for position, note in enumerate(notes))
    return list(texts) if isinstance(inputs, Sized) and not isinstance(inputs, Dataset) else texts


def encode_note(tokenizer: Any, note: str) -> dict[str, Any]:
    """Tokens of a note, all of them: the model reads it in windows.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): of the model.
        note (`str`): any string. Half of a surrogate pair, which no tokenizer accepts, is replaced by the
            replacement character; offsets are those of the note as given.

    Returns:
        `note`, `input_ids` `(L,)` and `offsets` `(L, 2)`: the characters of each token, (0, 0) for special tokens. Both
        are empty where no token holds a character of the note.

    Raises:
        ValueError: where the tokenizer has no offsets.
    """
    if tokenizer is None or not tokenizer.is_fast:
        raise ValueError("Evidence needs character offsets: load the model with a fast tokenizer.")
    readable = re.sub("[\ud800-\udfff]", "\ufffd", note)
    encoded = tokenizer(readable, return_offsets_mapping=True, verbose=False)
    input_ids = torch.tensor(encoded["input_ids"], dtype=torch.int32)
    offsets = torch.tensor(encoded["offset_mapping"], dtype=torch.int32).reshape(-1, 2)
    if not note.strip() or not (offsets[:, 1] > offsets[:, 0]).any():
        input_ids, offsets = input_ids[:0], offsets[:0]
    return {"note": note, "input_ids": input_ids, "offsets": offsets}


def batches_by_length(lengths: list[int], batch_size: int, max_tokens: int | None = None) -> list[list[int]]:
    """Positions of the notes in batches, the longest notes first; a note without tokens is in none.

    A note is at least half as long as the longest of its batch, so that less than half of what is read is padding. A batch
    of several notes has at most `max_tokens` tokens, padding included.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] == 0:
            break
        longest = lengths[batches[-1][0]] if batches else 0
        has_room = batches and len(batches[-1]) < batch_size and 2 * lengths[i] >= longest
        if has_room and (max_tokens is None or (len(batches[-1]) + 1) * longest <= max_tokens):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def padded(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tokens of notes as a batch. Padding is on the right and any token serves, whatever the tokenizer says or lacks,
    since the mask leaves it out."""
    return {
        "input_ids": pad_sequence([row.long() for row in rows], batch_first=True),
        "attention_mask": pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True),
    }
