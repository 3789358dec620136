"""Retrieve, then verify: another coder, the retriever, proposes codes of a note, and a language model is asked about each.

The retriever is any coder of this project: a classifier, a coder by terms or a fused model. It lies in the folder
`retriever` of the language model's own. Where it tells which words a code was read from, the language model reads a passage
around these, else the whole note.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig

from .decision_icd import calibrated_scores
from .evidence_icd import evidence_spans, token_weights
from .fusion_icd import FusionForICD
from .modeling_icd import MODELS
from .pipeline_icd import CPU_BATCH_TOKENS, batches_by_length, encode_note, padded
from .prompts_icd import Prompter
from .sharing_icd import RETRIEVER, names_a_folder
from .terms_icd import TermsForICD
from .windows_icd import pad_rows


YES, NO = "yes", "no"
LEAST = 1e-6  # of a score, so that its logit is finite
NOT_ASKED = -15.0
"""Logit of a code that was not asked about, below those of all that were; the retriever's score is added, which keeps its order."""
GPU_BATCH_TOKENS = 16384  # read together at most


class Candidate(NamedTuple):
    """A code that the retriever proposes for a note.

    Args:
        class_id (`int`): of the coder that verifies.
        logit (`float`): the log odds of the retriever's score.
        span (`tuple[int, int]`, *optional*): the characters of the note that spoke most for it; `None` where none are told.
    """

    class_id: int
    logit: float
    span: tuple[int, int] | None


class Proposed(NamedTuple):
    """What the retriever says of a note.

    Args:
        candidates (`list[Candidate]`): the best one first.
        scores (`torch.Tensor` of shape `(C,)`): of every code of the coder that verifies, in double precision; 0 of those that the
            retriever does not know.
    """

    candidates: list[Candidate]
    scores: torch.Tensor


class Retriever(nn.Module):
    """Proposes codes.

    Args:
        model (`PreTrainedModel`): a coder of this project, but no generative one.
        tokenizer (`PreTrainedTokenizerFast`): its own.
    """

    def __init__(self, model: Any, tokenizer: Any):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> "Retriever":
        """Load the retriever that lies in the folder of a coder.

        Args:
            name (`str`): folder or Hub id of the coder.
            options: `revision`, `token`, `cache_dir` and `local_files_only`, of a Hub id.

        Raises:
            FileNotFoundError: where it is not there.
            ValueError: where it is no coder of this project.
        """
        options = {**options, "subfolder": RETRIEVER}
        try:
            fields, _ = PreTrainedConfig.get_config_dict(name, **options)
        except OSError:
            fields = {}
        if not fields:
            raise FileNotFoundError(
                f"{name} has no folder `{RETRIEVER}` with the coder whose candidates are verified: copy the whole folder of the training "
                "run, with the folders in it."
            )
        kind = kind_of(fields.get("model_type"))
        if kind is None:
            raise ValueError(
                f"{name}/{RETRIEVER} is no coder of this project: copy the folder of the training run again."
            )
        model = kind.from_pretrained(name, **options)
        # With its configuration at hand, the library does not ask whether to run the code that came with it.
        return cls(model.eval(), AutoTokenizer.from_pretrained(name, config=model.config, **options))

    def save_pretrained(self, folder: str) -> None:
        """Save it into the folder of a coder; with its backbone, where it named that by a folder of this machine."""
        if names_a_folder((getattr(self.model.config, "backbone_source", None) or {}).get("name", "")):
            self.model.saves_head_only = False
        self.model.save_pretrained(f"{folder}/{RETRIEVER}")
        self.tokenizer.save_pretrained(f"{folder}/{RETRIEVER}")

    @property
    def has_evidence(self) -> bool:
        """Whether it tells which words a code was read from."""
        return getattr(self.model.score, "pooling", None) != "last"

    @torch.no_grad()
    def propose(
        self, texts: Sequence[str], settings: Mapping[str, Any], label2id: Mapping[str, int]
    ) -> list[Proposed]:
        """What it says of each text; of one without a token it reads, nothing.

        Args:
            settings: `num_candidates`, `candidate_threshold` and `passage_tokens` of the coder that verifies.
            label2id: codes of that coder, which are the only ones to be proposed.
        """
        config, device = self.model.config, self.model.device
        columns = torch.tensor([label2id.get(config.id2label[i], -1) for i in range(config.num_labels)])
        items = [encode_note(self.tokenizer, text) for text in texts]
        found = [Proposed([], torch.zeros(len(label2id), dtype=torch.double)) for _ in texts]
        limit = CPU_BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS
        for batch in batches_by_length([len(item["input_ids"]) for item in items], len(texts), limit):
            inputs = padded([items[i]["input_ids"] for i in batch])
            output = self.model(
                **{name: values.to(device) for name, values in inputs.items()}, output_hidden_states=True
            )
            scores = calibrated_scores(output.logits, config.calibration).cpu().double()
            for row, i in enumerate(batch):
                states = output.hidden_states[row, : len(items[i]["input_ids"])]
                found[i] = self._proposed(items[i], scores[row], states, columns, settings, len(label2id))
        return found

    def _proposed(
        self,
        item: Mapping[str, Any],
        scores: torch.Tensor,
        states: torch.Tensor,
        columns: torch.Tensor,
        settings: Mapping[str, Any],
        num_labels: int,
    ) -> Proposed:
        """What it says of one note, whose `scores` `(c,)` are of its own codes; `columns` `(c,)` are those of the coder that verifies,
        and -1 where that does not know a code."""
        is_known = columns >= 0
        of_labels = torch.zeros(num_labels, dtype=torch.double)
        of_labels[columns[is_known]] = scores[is_known]
        possible = torch.where(is_known, scores, -1.0)
        best = possible.sort(descending=True, stable=True).indices[: settings["num_candidates"]]
        own_ids = best[possible[best] >= settings["candidate_threshold"]].tolist()
        spans: list[tuple[int, int] | None] = [None] * len(own_ids)
        if settings["passage_tokens"] and (weights := token_weights(self.model.score, states, own_ids)) is not None:
            heaviest = evidence_spans(item["note"], item["offsets"], weights.cpu(), 1)
            spans = [(of_code[0]["start"], of_code[0]["end"]) if of_code else None for of_code in heaviest]
        logits = scores[own_ids].logit(eps=LEAST).tolist()
        candidates = [
            Candidate(int(columns[own_id]), logit, span)
            for own_id, logit, span in zip(own_ids, logits, spans, strict=True)
        ]
        return Proposed(candidates, of_labels)


def kind_of(model_type: Any) -> Any:
    """The class of a coder that can be a retriever, by the `model_type` of its configuration; `None` where it cannot."""
    kinds: list[Any] = [*MODELS.values(), TermsForICD, FusionForICD]
    return {kind.config_class.model_type: kind for kind in kinds}.get(model_type)


class Row(NamedTuple):
    """A text that the language model is asked about.

    Args:
        start (`list[int]`): tokens of a prompt up to the end of the text.
        questions (`list[list[int]]`): what may come behind these, up to the answer.
    """

    start: list[int]
    questions: list[list[int]]


class Verifier:
    """Asks a language model about the candidates of notes.

    Args:
        prompter (`Prompter`): makes the prompts.
        retriever (`Retriever`): whose candidates are verified.
        end (`Sequence[int]`): tokens that end an answer.
    """

    def __init__(self, prompter: Prompter, retriever: Retriever, end: Sequence[int]):
        self.prompter, self.retriever, self.end = prompter, retriever, end
        self.settings, self.label2id = prompter.settings, prompter.config.label2id
        self.answers = [prompter.tokens(YES), prompter.tokens(NO)]
        self.counts = dict.fromkeys(("notes", "candidates", "supported"), 0)
        self._questions: dict[int, list[int]] = {}

    def question(self, class_id: int) -> list[int]:
        """What comes behind a text to ask about a code; made once."""
        if class_id not in self._questions:
            self._questions[class_id] = self.prompter.question(class_id)
        return self._questions[class_id]

    def answer(self, is_supported: bool) -> list[int]:
        """The tokens of an answer, with its end."""
        return [*self.answers[0 if is_supported else 1], self.end[0]]

    def passages(self, text: str, candidates: Sequence[Candidate]) -> list[tuple[list[int], list[Candidate]]]:
        """The parts of a note that are read, as tokens, each with the candidates that are asked about there.

        A candidate with a span is asked about in a passage of `passage_tokens` around it. One without is in all of the note, which
        is read in parts where it is longer than `max_note_tokens`.
        """
        tokens, offsets = self.prompter.encode(text)
        found: dict[tuple[int, int], list[Candidate]] = {}
        for candidate in candidates:
            for place in self._places(candidate, tokens, offsets):
                found.setdefault(place, []).append(candidate)
        return [(tokens[start:stop], of_place) for (start, stop), of_place in found.items()]

    def _places(
        self, candidate: Candidate, tokens: list[int], offsets: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        if candidate.span is not None:
            begin, end = candidate.span
            inside = [i for i, (start, stop) in enumerate(offsets) if start < end and stop > begin]
            if inside:
                size = min(self.settings["passage_tokens"], len(tokens))
                start = min(max((inside[0] + inside[-1] + 1) // 2 - size // 2, 0), len(tokens) - size)
                return [(start, start + size)]
        places, start = [], 0
        for part in self.prompter.sections(tokens):
            places.append((start, start + len(part)))
            start += len(part)
        return places

    def propose(self, texts: Sequence[str]) -> list[Proposed]:
        """What the retriever says of texts."""
        return self.retriever.propose(texts, self.settings, self.label2id)

    @torch.no_grad()
    def code_logits(self, model: Any, texts: Sequence[str]) -> torch.Tensor:
        """Logits `(B, C)`, fp32, of texts.

        Of a candidate it is the log odds of yes against no, mixed with those of the retriever's score by `retriever_weight`; where
        it is asked about in several parts of a note, the highest. All other codes are below, in the retriever's order.

        Args:
            model (`PreTrainedModel`): the language model.
        """
        proposed = self.propose(texts)
        logits = torch.stack([NOT_ASKED + of_note.scores for of_note in proposed])
        asked: list[tuple[int, list[Candidate]]] = []
        rows: list[Row] = []
        for note, (text, of_note) in enumerate(zip(texts, proposed, strict=True)):
            for passage, candidates in self.passages(text, of_note.candidates):
                asked.append((note, candidates))
                questions = [self.question(candidate.class_id) for candidate in candidates]
                rows.append(Row([*self.prompter.before, *passage], questions))
        weight, bound = self.settings["retriever_weight"], torch.tensor(1 - LEAST).logit().item()
        for (note, candidates), odds in zip(asked, self.log_odds(model, rows), strict=True):
            for candidate, value in zip(candidates, odds, strict=True):
                mixed = (1 - weight) * min(max(value, -bound), bound) + weight * candidate.logit
                logits[note, candidate.class_id] = max(mixed, logits[note, candidate.class_id].item())
        self.counts["notes"] += len(texts)
        self.counts["candidates"] += sum(len(of_note.candidates) for of_note in proposed)
        self.counts["supported"] += int((logits > 0).sum())
        return logits.float()

    def say_counts(self, seconds: float) -> dict[str, Any]:
        """What was verified, for `results.json`: notes and how many a second, candidates, and how many of these score above 0.5; also
        printed."""
        counts = self.counts
        speed = counts["notes"] / max(seconds, 1e-9)
        print(
            f"{counts['candidates']:,} candidates verified for {counts['notes']:,} notes, {speed:.2f} notes a second; "
            f"{counts['supported']:,} score above 0.5."
        )
        return {**counts, "notes_per_second": speed}

    def log_odds(self, model: Any, rows: Sequence[Row]) -> list[list[float]]:
        """The log of how likely yes is, in parts of how likely no is, for each question of each row."""
        lengths = [len(row.start) + sum(map(len, row.questions)) for row in rows]
        limit = CPU_BATCH_TOKENS if model.device.type == "cpu" else GPU_BATCH_TOKENS
        found: list[list[float]] = [[] for _ in rows]
        for batch in batches_by_length(lengths, max(len(rows), 1), limit):
            for i, odds in zip(batch, self._read(model, [rows[i] for i in batch]), strict=True):
                found[i] = odds
        return found

    def _read(self, model: Any, rows: Sequence[Row]) -> list[list[float]]:
        """As [`log_odds`], of rows that are read together: first all texts, then, beside each other, the questions of each, which see
        the text and their own tokens alone."""
        texts, mask = pad_rows([torch.tensor(row.start) for row in rows], self.end[0])
        output = model.base_model(
            input_ids=texts.to(model.device), attention_mask=mask.to(model.device), use_cache=True
        )
        blocks = [Block(row.questions, self.answers) for row in rows]
        width, length = max(len(block.tokens) for block in blocks), texts.shape[1]
        input_ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
        sees = torch.zeros(len(rows), 1, width, length + width, dtype=torch.bool)
        for i, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            size, before = len(block.tokens), len(row.start)
            input_ids[i, :size], positions[i, :size] = torch.tensor(block.tokens), before + torch.tensor(block.depths)
            sees[i, 0, :, :before] = True
            sees[i, 0, :size, length : length + size] = block.sees
        bias = torch.zeros(sees.shape, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)
        states = model.base_model(
            input_ids=input_ids.to(model.device),
            position_ids=positions.to(model.device),
            attention_mask=bias.to(model.device),
            past_key_values=output.past_key_values,
            use_cache=True,
        ).last_hidden_state
        head = model.get_output_embeddings()
        return [block.log_odds(head, states[i]) for i, block in enumerate(blocks)]


class Block:
    """The questions about one text, and the beginnings of their two answers, as one row of tokens.

    Args:
        questions (`Sequence[Sequence[int]]`): tokens of each.
        answers (`Sequence[Sequence[int]]`): tokens of yes, and of no.

    Attributes:
        tokens (`list[int]`): K of them.
        depths (`list[int]`): how many tokens stand between the text and each.
        sees (`torch.BoolTensor` of shape `(K, K)`): which others each one sees, and itself.
        read (`list[list[list[int]]]`): of each question, for each answer, where its tokens are told: the places in front of them.
    """

    def __init__(self, questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]):
        self.answers = answers
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.read: list[list[list[int]]] = []
        parts: list[
            tuple[int, int, int]
        ] = []  # where the question begins and ends, and how many tokens of an answer follow
        for question in questions:
            begin = len(self.tokens)
            self.tokens += question
            self.depths += range(len(question))
            last, places = len(self.tokens) - 1, []
            for answer in answers:
                at = len(self.tokens)
                self.tokens += answer[:-1]  # the last token is told, and tells nothing
                self.depths += range(len(question), len(question) + len(answer) - 1)
                places.append([last, *range(at, len(self.tokens))])
                parts.append((begin, last + 1, at))
            self.read.append(places)
        self.sees = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for number, (begin, end, at) in enumerate(parts):
            size = len(answers[number % len(answers)]) - 1
            self.sees[begin:end, begin:end] = torch.ones(end - begin, end - begin).tril().bool()
            self.sees[at : at + size, begin:end] = True
            self.sees[at : at + size, at : at + size] = torch.ones(size, size).tril().bool()

    def log_odds(self, head: Any, states: torch.Tensor) -> list[float]:
        """See [`Verifier.log_odds`].

        Args:
            head (`nn.Module`): the last layer of the language model.
            states (`torch.Tensor` of shape `(K, D)`): of these tokens; there may be more.
        """
        places = sorted({place for of_question in self.read for of_answer in of_question for place in of_answer})
        at = {place: i for i, place in enumerate(places)}
        told = head(states[places]).float().log_softmax(dim=-1)
        found = []
        for of_question in self.read:
            yes, no = (
                sum(told[at[place], token].item() for place, token in zip(of_answer, answer, strict=True))
                for of_answer, answer in zip(of_question, self.answers, strict=True)
            )
            found.append(yes - no)
        return found
