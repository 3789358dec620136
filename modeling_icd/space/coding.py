"""Codes one note for the page: every code that may matter, with its score and the words behind it, and what an audit finds."""

import contextlib
import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..decision_icd import calibrated_scores, flags_of, predicted, rule_in_force, threshold_value
from ..evidence_icd import token_weights, weights_by_source, word_weights
from ..extras.audit import likely_missed, likely_unsupported
from ..heads import HEADS
from ..inference.linear import fast_linear_layers
from ..inference.loading import ReaderArguments
from ..inference.predict_coder import load_pipeline
from ..pipeline_icd import encode_note, padded
from ..sharing_icd import claimed_access
from ..windows_icd import window_starts
from .line import Watch
from .titles import Code, TitleSearch, classify, describe_code


NUM_LISTED = 100  # codes that are listed at least, so that a lower threshold shows more without the model
MAX_WORDS = 40  # of a code's evidence
LEAST_WEIGHT = 0.02  # of a word, relative to the heaviest one of its code
MAX_ASSIGNED = 500
INVENTED = "This model has learned from invented notes: it shows what the page does, and is of no use for real ones."


WordsOfCode = tuple[list[list[float]], list[str]]
"""The words that speak for a code, `[start, end, weight]` each, and what found each: `"term"`, `"title"` or a method."""


class CodingError(ValueError):
    """A note that cannot be coded; the message is for the user and holds nothing of the note."""


class Coder:
    """A model that codes notes for the page. Its methods that take a note are called from one thread at a time.

    Args:
        model_id (`str`): a folder or Hub id.
        key (`str`): by which the page calls it, `"a"` or `"b"`.
        trust_remote_code (`bool`): whether to run code that came with the model.
        reader (`ReaderArguments`, *optional*): how to load it.
        notice (`str`): what to say of it before its codes, as one sentence or more.

    Raises:
        ValueError, FileNotFoundError: as `load_model` does.
    """

    def __init__(
        self,
        model_id: str,
        key: str = "a",
        trust_remote_code: bool = False,
        reader: ReaderArguments | None = None,
        notice: str = "",
    ):
        self._given_notice = notice
        self.pipeline = load_pipeline(model_id, trust_remote_code, reader or ReaderArguments())
        self.key = key
        self.name = Path(model_id).resolve().name if Path(model_id).is_dir() else model_id
        self.model, self.config = self.pipeline.model, self.pipeline.model.config
        if self.config.head == "generative":
            raise ValueError(
                f"{model_id} is a language model that answers with codes, and says of no words why: code notes with "
                "`modeling-icd predict`."
            )
        self.names: list[str] = [self.config.id2label[i] for i in range(len(self.config.id2label))]
        descriptions = self.config.code_descriptions or {}
        classes = classify(self.names)
        self.codes = [describe_code(name, classes[name], descriptions.get(name) or "") for name in self.names]
        self.titles: TitleSearch | None = None
        self.language = language_of(Path(model_id), self.config.training_data)
        self._id_of = ids_by_spelling(self.names)
        # A coder by terms is in no table of heads: its one method takes no time.
        self._attends = self.config.head in HEADS and HEADS[self.config.head].attends
        # What the head gives for states of nothing says whether it tells what a code was read from.
        nothing = torch.zeros(2, self.config.states_width, dtype=self.model.dtype, device=self.model.device)
        self.has_evidence = token_weights(self.model.score, nothing, [0]) is not None

    def about(self) -> dict[str, Any]:
        """What the page says of the model."""
        threshold = threshold_value(self.config)
        return {
            "id": self.key,
            "name": self.name,
            "notice": self._notice(),
            "num_codes": len(self.names),
            "systems": list(dict.fromkeys(code.system for code in self.codes)),
            "threshold": threshold if isinstance(threshold, float) else None,
            "per_code_thresholds": isinstance(self._thresholds(), list),
            "review": self.config.review_threshold is not None,
            "has_evidence": self.has_evidence,
            "language": self.language,
        }

    def _notice(self) -> str:
        rule, decision = rule_in_force(self.config)
        given = self._given_notice
        if not given and claimed_access(self.config.training_data) == "synthetic":
            given = INVENTED
        if isinstance(self._thresholds(), float):
            return given  # the one threshold stands beside its slider
        return f"{given} {rule.describe(decision)}.".strip()

    def _thresholds(self) -> list[float] | float | None:
        """The threshold of all codes, or one for each; `None` where the model's rule is not one of thresholds."""
        rule, decision = rule_in_force(self.config)
        return (
            None
            if rule.value(decision) != "per code" and isinstance(rule.value(decision), str)
            else decision["threshold"]
        )

    def code_note(self, text: str, assigned: Sequence[str] = (), watch: Watch | None = None) -> dict[str, Any]:
        """The result that the page shows.

        Args:
            text (`str`): of the note, any string. A blank one has no codes.
            assigned (`Sequence[str]`): codes that somebody gave to the note, in any spelling; without any there is no audit.
            watch (`Watch`, *optional*): is told of the tokens that were read, and may call the work off.

        Raises:
            Cancelled: where the watch calls the work off.
            CodingError: where the model gives no numbers for the note.
        """
        watch = watch or Watch()
        started = time.monotonic()
        encoded = encode_note(self.pipeline.tokenizer, text)
        known, unknown = self._look_up(assigned)
        result: dict[str, Any] = {
            "model": self.key,
            "seconds": 0.0,
            "words": len(re.findall(r"\S+", text)),
            "tokens": len(encoded["input_ids"]),
            "blank": not len(encoded["input_ids"]),
            "codes": [],
            "codes_categories": self.codes_categories,
            "unknown": unknown,
            "audit": None,
        }
        if not result["blank"]:
            scores, states = self._read(encoded["input_ids"], watch)
            is_predicted, is_told = predicted(scores, self.config), self._are_told(states)
            audited = None
            if known or unknown:
                missed = [i for i in likely_missed(scores.numpy(), known) if is_told[i]]
                audited = {
                    "missed": missed,
                    "unsupported": likely_unsupported(scores.numpy(), known, is_predicted.numpy()),
                }
                result["audit"] = {finding: [self.names[i] for i in ids] for finding, ids in audited.items()}
            further = [*known, *(audited["missed"] if audited else [])]
            listed = self._listed(scores, is_predicted, is_told, further)
            watch.check()
            sure = is_predicted.clone()
            sure[known] = True
            evidence = self._evidence(encoded, states, listed, sure[listed])
            result["codes"] = self._describe(scores, is_predicted, listed, evidence)
        result["seconds"] = round(time.monotonic() - started, 3)
        return result

    def code_row(self, text: str, watch: Watch) -> list[dict[str, Any]]:
        """The codes of one note of a file, as `modeling-icd predict` gives them."""
        with self._watched(watch, counts=False), fast_linear_layers(self.pipeline.device), finite_numbers():
            return self.pipeline(text)

    def _look_up(self, assigned: Sequence[str]) -> tuple[list[int], list[dict[str, Any]]]:
        """Class ids of the assigned codes, and what is known of the others, each once."""
        if len(assigned) > MAX_ASSIGNED:
            raise CodingError(f"{len(assigned):,} codes are assigned, and at most {MAX_ASSIGNED} are audited.")
        known: dict[int, None] = {}
        unknown: dict[str, dict[str, Any]] = {}
        for given in assigned:
            code = given.strip()
            if (class_id := self._id_of.get(code.upper())) is not None:
                known[class_id] = None
            elif code:
                there = self.titles.get(code) if self.titles else None
                name = there.code if there else code
                unknown[name] = {"code": name, "title": (there.title or None) if there else None}
        return list(known), list(unknown.values())

    def _read(self, input_ids: torch.Tensor, watch: Watch) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `(C,)`, on the CPU, and the hidden states `(L, D)` that the head read."""
        batch = {name: value.to(self.model.device) for name, value in padded([input_ids]).items()}
        watch.begin(self._tokens_to_read(len(input_ids)))
        with torch.no_grad(), self._watched(watch), fast_linear_layers(self.pipeline.device), finite_numbers():
            states = self.model.read_hidden_states(**batch)
            watch.check()
            output = self.model(hidden_states=states, attention_mask=batch["attention_mask"])
        return calibrated_scores(output.logits, self.config.calibration)[0].cpu(), states[0]

    def _tokens_to_read(self, length: int) -> int:
        """Tokens that all windows of a note have together: those in the overlap of two are read twice."""
        size = self.config.window_size
        if size is None or length <= size:
            return length
        starts = window_starts(length, size, self.config.window_stride)
        return sum(min(size, length - start) for start in starts)

    @contextlib.contextmanager
    def _watched(self, watch: Watch, counts: bool = True) -> Iterator[None]:
        """While entered, the watch is asked before each pass of the backbone, and before the head; and told after a pass how
        many tokens were read."""

        def before(module, args, kwargs):
            watch.check()

        def after(module, args, kwargs, output):
            mask = kwargs.get("attention_mask")
            if mask is not None and mask.dim() == 2:
                watch.done = min(watch.total, watch.done + int(mask.sum()))

        backbone = self.model.base_model  # the model itself where it has none
        hooks = [part.register_forward_pre_hook(before, with_kwargs=True) for part in (backbone, self.model.score)]
        if counts:
            hooks.append(backbone.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _listed(
        self, scores: torch.Tensor, is_predicted: torch.Tensor, is_told: torch.Tensor, further: Sequence[int]
    ) -> list[int]:
        """Class ids by falling score: the best ones that anything speaks for, all that are predicted, and further ones."""
        order = scores.argsort(descending=True, stable=True)
        wanted = is_predicted.clone()
        best = order[:NUM_LISTED]
        wanted[best] |= is_told[best]
        wanted[list(further)] = True
        return order[wanted[order]].tolist()

    def _are_told(self, states: torch.Tensor) -> torch.Tensor:
        """Which codes anything in the note speaks for, bool `(C,)`. A model that looks words up says it; for any other, what the head
        read speaks for every code, more or less."""
        if not hasattr(self.model.score, "told_codes"):
            return torch.ones(len(self.names), dtype=torch.bool)
        with torch.no_grad():
            return self.model.score.told_codes(states)

    def _evidence(
        self, encoded: dict[str, Any], states: torch.Tensor, listed: list[int], is_sure: torch.Tensor
    ) -> list[WordsOfCode]:
        """Of each listed code its heaviest words, `[start, end, weight]` by their place, in UTF-16 code units, and what found each;
        see [`~modeling_icd.evidence_icd.weights_by_source`].

        Codes that are predicted or assigned (bool `(listed,)`) get the head's own method. The many others get attention
        where the head attends, since a gradient for each would take seconds.
        """
        if not listed:
            return []
        head = self.model.score
        found = weights_by_source(head, states, listed, "attention" if self._attends else None)
        if found is None:
            return [([], []) for _ in listed]
        by_code: list[dict[str, torch.Tensor]] = [
            {source: weights[row].cpu() for source, weights in found.items()} for row in range(len(listed))
        ]
        if self._attends and len(found) == 1:
            rows = is_sure.nonzero().flatten().tolist()
            own = weights_by_source(head, states, [listed[row] for row in rows])
            assert own is not None  # since there is attention
            for source, weights in own.items():
                for row, of_code in zip(rows, weights.cpu(), strict=True):
                    by_code[row] = {source: of_code}
        every = torch.stack([weights for of_code in by_code for weights in of_code.values()])
        words, by_word = word_weights(encoded["note"], encoded["offsets"], every)
        place = utf16_places(encoded["note"])
        parts = by_word.split([len(of_code) for of_code in by_code])
        return [words_of_code(words, part, list(of_code), place) for part, of_code in zip(parts, by_code, strict=True)]

    def _describe(
        self, scores: torch.Tensor, is_predicted: torch.Tensor, listed: list[int], evidence: list[WordsOfCode]
    ) -> list[dict[str, Any]]:
        thresholds = self._thresholds()
        flags = flags_of(scores[listed], self.config.review_threshold)
        codes = []
        for class_id, flag, (words, sources) in zip(listed, flags, evidence, strict=True):
            suggested, code = bool(is_predicted[class_id]), self.describe(class_id)
            codes.append(
                {
                    **code._asdict(),
                    "heading": self.titles is not None and self.titles.is_heading(code),
                    "score": float(scores[class_id]),
                    "threshold": thresholds[class_id] if isinstance(thresholds, list) else thresholds,
                    "predicted": suggested,
                    "decision": flag if suggested else None,
                    "evidence": words,
                    "sources": sources,
                }
            )
        return codes

    @functools.cached_property
    def codes_categories(self) -> bool:
        """Whether the model was trained on categories, as I50, rather than on the codes below them: most of its codes are."""
        return self.titles is not None and 2 * sum(map(self.titles.is_heading, self.codes)) > len(self.codes)

    def describe(self, class_id: int) -> Code:
        """What is known of a code; its title is the model's own, or else that of the classification."""
        code = self.codes[class_id]
        if not code.title and self.titles is not None and (there := self.titles.get(code.code)) is not None:
            code = self.codes[class_id] = code._replace(title=there.title)
        return code


@contextlib.contextmanager
def finite_numbers() -> Iterator[None]:
    """Turn what a model says of NaN or infinity into a message for the user."""
    try:
        yield
    except ValueError as error:
        if "NaN" not in str(error):
            raise
        raise CodingError(
            "The model gives no finite numbers for this note: its weights are damaged, or too wide for their type."
        ) from None


def language_of(folder: Path, training_data: Mapping[str, Any] | None) -> str | None:
    """The language of a model's notes, as `en`: by its card, or else by the data set that it learned from; `None` if not known."""
    card = folder / "README.md"
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        if head and (found := re.search(r"^language:\s*(?:-\s*)?([a-z]{2})\s*$", head[1], re.MULTILINE)):
            return found[1]
    name = (training_data or {}).get("config")
    found = re.search(r"_(en|es)(_|$)", name) if isinstance(name, str) else None
    return found[1] if found else None


def ids_by_spelling(codes: Sequence[str]) -> dict[str, int]:
    """Class ids by code in capitals, with its dot, and without it where only one code is written so."""
    ids = {code.upper(): i for i, code in enumerate(codes)}
    bare: dict[str, list[int]] = {}
    for i, code in enumerate(codes):
        bare.setdefault(code.upper().replace(".", ""), []).append(i)
    return {**{code: found[0] for code, found in bare.items() if len(found) == 1}, **ids}


def utf16_places(text: str) -> np.ndarray:
    """Of each character of a text, and of its end, the place in UTF-16 code units, as JavaScript counts: `(len(text) + 1,)`."""
    wide = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32) > 0xFFFF
    return np.concatenate([[0], np.cumsum(1 + wide)])


def words_of_code(
    words: Sequence[tuple[int, int]], weights: torch.Tensor, names: Sequence[str], place: np.ndarray
) -> WordsOfCode:
    """The heaviest words of one code, see [`heaviest_words`], by the sum of what each source gives them, and the first source that
    gives each any weight; `weights` `(sources, words)`, the sources by their names."""
    heaviest = heaviest_words(words, weights.sum(dim=0).numpy(), place)
    first = (weights > 0).int().argmax(dim=0).tolist()
    source_at = {int(place[start]): names[of_word] for (start, _), of_word in zip(words, first, strict=True)}
    return heaviest, [source_at[int(start)] for start, _, _ in heaviest]


def heaviest_words(words: Sequence[tuple[int, int]], weights: np.ndarray, place: np.ndarray) -> list[list[float]]:
    """The heaviest words of a code, `[start, end, weight]` by their place, the weight relative to the heaviest one.

    Args:
        words (`Sequence[tuple[int, int]]`): start and end of each in characters.
        weights (`np.ndarray` of shape `(words,)`): of each, at least 0.
        place (`np.ndarray`): of each character in the unit that is returned.
    """
    most = weights.max(initial=0)
    if not most > 0:
        return []
    order = np.argsort(-weights, kind="stable")[:MAX_WORDS]
    chosen = np.sort(order[weights[order] >= LEAST_WEIGHT * most])
    return [[int(place[words[i][0]]), int(place[words[i][1]]), round(float(weights[i] / most), 4)] for i in chosen]
