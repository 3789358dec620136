"""A coder that needs no training: it looks for terms of codes in a note, and leaves out what the note denies.

It fits the seams of every other model. Its tokenizer makes stems of words, so that a note is the ids of its stems; these are
what its head reads in place of hidden states. A term is a set of stems: it is found where all of them stand close together in
one sentence, in any order. Its terms are tensors of integers, saved with the weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from .base_configuration_icd import CUSTOM_PIPELINES, ICDBaseConfig
from .heads import require_positive
from .modeling_icd import ICDCodingOutput
from .sharing_icd import ModelPushGuard


# What a stem is, bits of `TermMatcher.roles`; see modeling_icd/knowledge/cues.py for the words.
SMALL, DENIES, DENIES_BEFORE, BUT, FAMILY, END = 1, 2, 4, 8, 16, 32
UNCERTAIN, PAST, SUBJECT, MARK = 64, 128, 256, 512  # a mark: a comma
NO_TERM_LOGIT = -8.0
"""Of a code none of whose terms is found: a score of 0.0003."""
LONGEST_SPREAD = 2
"""A term of n stems is found within `LONGEST_SPREAD` * n words, small ones not counted."""
SPREAD_COST = 1.0
"""How much lower the logit is for each word between, in shares of the term's length."""


class TermsConfig(ICDBaseConfig):
    """Configuration of [`TermsForICD`]: codes, thresholds and descriptions as of every model, and these fields.

    Args:
        vocab_size (`int`): stems that the tokenizer knows.
        num_terms (`int`): terms, each of one code; a term of two codes counts twice.
        max_words (`int`): stems of the longest term.
        read_denials (`bool`, defaults to `True`): whether a term that is denied, or said of a relative, counts for nothing.
        read_uncertain (`bool`, defaults to `False`): whether one that is uncertain counts for nothing.
        read_past (`bool`, defaults to `False`): whether one that was there before counts for nothing, but for terms that say so.
        denial_scope (`int`, defaults to 8): words that a denial reaches to the right, within its sentence.
        scope_before (`int`, defaults to 3): words that a denial such as "ruled out" reaches to the left.
    """

    model_type = "icd_terms"
    backbone_type: ClassVar[str] = "terms"
    head_field: ClassVar[str] = "head"
    head: ClassVar[str] = "terms"
    hidden_size: ClassVar[int] = 1
    num_hidden_layers: ClassVar[int] = 0
    max_position_embeddings: ClassVar[None] = None

    vocab_size: int = 2
    num_terms: int = 1
    max_words: int = 1
    read_denials: bool = True
    read_uncertain: bool = False
    read_past: bool = False
    denial_scope: int = 8
    scope_before: int = 3

    def _check_head(self) -> None:
        for name in ("vocab_size", "num_terms", "max_words", "denial_scope", "scope_before"):
            require_positive(name, vars(self)[name])


class Match(NamedTuple):
    """A place where a note says a term.

    Args:
        term (`int`): row of the term.
        positions (`tuple[int, ...]`): its stems, as places among the note's tokens, in their order.
        spread (`float`): words from the first to the last, in lengths of the term; 1: none stands between.
        is_denied (`bool`): whether the note denies it, or says it of a relative.
        is_uncertain (`bool`): whether the note says that it is possible, or to be ruled out.
        is_past (`bool`): whether the note says that it was there before ("history of").
    """

    term: int
    positions: tuple[int, ...]
    spread: float
    is_denied: bool
    is_uncertain: bool = False
    is_past: bool = False

    def is_within(self, other: "Match") -> bool:
        """Whether another term takes all these words and more, and so says it more specifically."""
        return len(self.positions) < len(other.positions) and set(self.positions) < set(other.positions)


class _Tables(NamedTuple):
    """The tensors of a matcher on the CPU, those that are looked up one by one as lists."""

    roles: list[int]
    stem_of: list[int]
    starts: list[int]
    words: torch.Tensor
    logits: list[float]
    codes: list[int]


class TermMatcher(nn.Module):
    """The head: from the stems of a note to the terms that it says, and to a logit for each code.

    Tensors, V stems, T terms, K `max_words`:
        roles `(V,)`: what a stem is, bits as above.
        stem_of `(V,)`: the stem that a misspelt one stands for; of all others the stem itself.
        starts `(V + 1,)`: which terms have a stem as their rarest one, so that they are looked for where it is seen.
        words `(T, K)`: the stems of each term, its rarest first, -1 behind the last.
        code_of_term `(T,)`: its code.
        logit_of_term `(T,)`: the logit of that code where the term is found without a gap.
    """

    evidence_method = "attention"
    evidence_methods = ("attention",)
    evidence_sources: tuple[str, ...] = ("term",)
    gives_codes_alone = True

    roles: torch.Tensor
    stem_of: torch.Tensor
    starts: torch.Tensor
    words: torch.Tensor
    code_of_term: torch.Tensor

    def __init__(self, config: TermsConfig):
        super().__init__()
        self.num_labels, self.read_denials = config.num_labels, config.read_denials
        self.read_uncertain, self.read_past = config.read_uncertain, config.read_past
        self.denial_scope, self.scope_before = config.denial_scope, config.scope_before
        self.register_buffer("roles", torch.zeros(config.vocab_size, dtype=torch.int16))
        self.register_buffer("stem_of", torch.arange(config.vocab_size, dtype=torch.int32))
        self.register_buffer("starts", torch.zeros(config.vocab_size + 1, dtype=torch.int32))
        self.register_buffer("words", torch.zeros(config.num_terms, config.max_words, dtype=torch.int32))
        self.register_buffer("code_of_term", torch.zeros(config.num_terms, dtype=torch.int32))
        # A parameter, since libraries ask a model's first one for its device.
        self.logit_of_term = nn.Parameter(torch.zeros(config.num_terms), requires_grad=False)
        self._tables: _Tables | None = None

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, only_codes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Looks for the terms in each note.

        Args:
            hidden_states (`torch.LongTensor` of shape `(B, L, 1)`): stems.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real one, 0 behind the last.
            only_codes (`torch.LongTensor` of shape `(K,)`, *optional*): the codes to give.

        Returns:
            Logits `(B, C)`; with `only_codes` those `(B, K)` and the weight of each word for them `(B, K, L)`, summing to 1,
            or to 0 for a code none of whose terms is found.
        """
        device, ids = hidden_states.device, hidden_states[..., 0].long().cpu()
        logits = torch.zeros(len(ids), self.num_labels) + NO_TERM_LOGIT
        found = []
        for row, length in enumerate(attention_mask.sum(dim=1).tolist()):
            matches = [match for match in self.find(ids[row, :length].tolist()) if self.counts(match)]
            found.append(matches)
            for match in matches:
                code, logit = self.tables.codes[match.term], self.logit_of(match)
                logits[row, code] = max(logit, logits[row, code].item())
        if only_codes is None:
            return logits.to(device), None
        weights = torch.stack([self._weights(matches, only_codes.tolist(), ids.shape[1]) for matches in found])
        return logits.to(device)[:, only_codes], weights.to(device)

    def weights_by_source(self, hidden_states: torch.Tensor, class_ids: list[int]) -> dict[str, torch.Tensor]:
        """See [`~modeling_icd.evidence_icd.weights_by_source`]: terms are all that it knows."""
        mask = torch.ones(1, len(hidden_states), dtype=torch.long)
        _, weights = self(hidden_states[None], mask, only_codes=torch.tensor(class_ids, dtype=torch.long))
        return {"term": weights[0]}

    def told_codes(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Which codes a note says, bool `(C,)`, given its stems `(L, 1)`; all others have the same score."""
        logits, _ = self(hidden_states[None], torch.ones(1, len(hidden_states), dtype=torch.long))
        return (logits[0] > NO_TERM_LOGIT).cpu()

    def counts(self, match: Match) -> bool:
        """Whether a match speaks for its code."""
        return not (
            (self.read_denials and match.is_denied)
            or (self.read_uncertain and match.is_uncertain)
            or (self.read_past and match.is_past)
        )

    def logit_of(self, match: Match) -> float:
        return self.tables.logits[match.term] - SPREAD_COST * (match.spread - 1)

    def _weights(self, matches: list[Match], codes: list[int], length: int) -> torch.Tensor:
        """Weights `(K, L)` of the words of a note for some codes. Where no word stands between those of a term, small ones
        between them count, too, so that the term is one span."""
        weights = torch.zeros(len(codes), length)
        places = {code: place for place, code in enumerate(codes)}
        for match in matches:
            place = places.get(self.tables.codes[match.term])
            if place is None:
                continue
            score = torch.sigmoid(torch.tensor(self.logit_of(match))).item()
            first, last = match.positions[0], match.positions[-1]
            for position in range(first, last + 1) if match.spread == 1 else match.positions:
                weights[place, position] = max(score, weights[place, position].item())
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)

    @property
    def tables(self) -> _Tables:
        if self._tables is None:
            self._tables = _Tables(
                self.roles.tolist(),
                self.stem_of.tolist(),
                self.starts.tolist(),
                self.words.long().cpu(),
                self.logit_of_term.detach().float().tolist(),
                self.code_of_term.tolist(),
            )
        return self._tables

    def forget_tables(self) -> None:
        """To be called after a buffer was changed."""
        self._tables = None

    def find(self, ids: list[int]) -> list[Match]:
        """All terms that a note says, but for those within a longer one.

        Args:
            ids (`list[int]`): the stems of the note.
        """
        ids = [self.tables.stem_of[i] for i in ids]
        roles = [self.tables.roles[i] for i in ids]
        sentences, order = _sentences_and_order(roles)
        places: dict[int, list[int]] = {}
        for position, stem in enumerate(ids):
            if not roles[position] & (SMALL | END | MARK):
                places.setdefault(stem, []).append(position)
        scopes = self._scopes(roles)
        kept = []
        for found in self._places_of_terms(places, sentences, order):
            matches = [
                Match(term, positions, spread, *self._said(positions, roles, scopes))
                for term, positions, spread in found
            ]
            kept += [match for match in matches if not any(match.is_within(other) for other in matches)]
        return kept

    def _places_of_terms(
        self, places: Mapping[int, list[int]], sentences: Sequence[int], order: Sequence[int]
    ) -> Iterable[list[tuple[int, tuple[int, ...], float]]]:
        """Of each sentence that says terms these: term, positions and spread, as in a [`Match`].

        Args:
            places: where each stem stands that a term may have.
            sentences, order: see [`_sentences_and_order`].
        """
        found: dict[int, list[tuple[int, tuple[int, ...], float]]] = {}
        for term in self._candidates(list(places)):
            stems = [stem for stem in self.tables.words[term].tolist() if stem >= 0]
            for anchor in places[stems[0]]:
                positions = _near(anchor, [places[stem] for stem in stems[1:]], sentences)
                if positions is None:
                    continue
                spread = (order[positions[-1]] - order[positions[0]] + 1) / len(stems)
                if spread <= LONGEST_SPREAD:
                    found.setdefault(sentences[anchor], []).append((term, positions, spread))
        return found.values()

    def _candidates(self, stems: list[int]) -> list[int]:
        """The terms all of whose stems a note has."""
        starts, words = self.tables.starts, self.tables.words
        ranges = [torch.arange(starts[stem], starts[stem + 1]) for stem in stems if starts[stem] < starts[stem + 1]]
        if not ranges:
            return []
        is_there = torch.zeros(len(starts), dtype=torch.bool)  # the last entry, which -1 reads, is of no stem
        is_there[torch.tensor(stems)] = True
        is_there[-1] = True
        rows = torch.cat(ranges)
        return rows[is_there[words[rows]].all(dim=1)].tolist()

    def _said(self, positions: Sequence[int], roles: list[int], scopes: list[int]) -> tuple[bool, bool, bool]:
        """Whether a term is denied or of a relative, uncertain, or past, unless it says so itself."""
        own = within = 0
        for position in positions:
            own |= roles[position]
            within |= scopes[position]
        is_denied = within & DENIES and not own & (DENIES | DENIES_BEFORE)
        is_of_family = within & FAMILY and not own & FAMILY
        return (
            bool(is_denied or is_of_family),
            bool(within & UNCERTAIN and not own & UNCERTAIN),
            bool(within & PAST and not own & PAST),
        )

    def _scopes(self, roles: list[int]) -> list[int]:
        """Of each token what is said of it, as bits: `DENIES`, `UNCERTAIN`, `PAST`, and `FAMILY`, of a relative."""
        scopes = [0] * len(roles)
        left = dict.fromkeys((DENIES, UNCERTAIN, PAST), 0)  # words that each still reaches
        is_family = behind_mark = False
        start = 0  # where the reach of a denial behind it begins
        for position, role in enumerate(roles):
            if role & END or role & BUT:
                left, is_family, start = dict.fromkeys(left, 0), False, position + 1
            if role & END:
                continue
            behind_mark = bool(role & MARK) or (behind_mark and bool(role & (SMALL | SUBJECT)))
            if role & SUBJECT and behind_mark:
                is_family = False
            for cue, words in left.items():
                scopes[position] |= cue if words else 0
                left[cue] = self.denial_scope if role & cue else max(words - (not role & MARK), 0)
            scopes[position] |= FAMILY if is_family else 0
            if role & DENIES_BEFORE:
                before = [i for i in range(start, position) if not roles[i] & (SMALL | MARK)]
                for i in before[-self.scope_before :]:
                    scopes[i] |= DENIES
            is_family = is_family or bool(role & FAMILY)
        return scopes


def _sentences_and_order(roles: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of each stem of a note the number of its sentence, and its place among all but small words and marks."""
    sentences, order, number, count = [], [], 0, 0
    for role in roles:
        sentences.append(number)
        order.append(count)
        number += bool(role & END)
        count += not role & (SMALL | END | MARK)
    return sentences, order


def _near(anchor: int, others: list[list[int]], sentence: Sequence[int]) -> tuple[int, ...] | None:
    """The places of a term's stems in the sentence of its rarest one, each the one nearest to that; `None` where it lacks one."""
    positions = [anchor]
    for places in others:
        within = [place for place in places if sentence[place] == sentence[anchor]]
        if not within:
            return None
        positions.append(min(within, key=lambda place: abs(place - anchor)))
    return tuple(sorted(positions))


class TermsForICD(ModelPushGuard, PreTrainedModel):
    """Codes notes by the terms of codes, without a backbone; `score` is a [`TermMatcher`]. Nothing in it is trained."""

    config_class = TermsConfig
    config: TermsConfig
    base_model_prefix = "model"
    _auto_class = "AutoModel"  # as in `ModelForICDCoding`

    def __init__(self, config: TermsConfig):
        config._check_fields()
        super().__init__(config)
        self.num_labels = config.num_labels
        self.score = TermMatcher(config)
        self.post_init()

    def shared_record(self):
        return self.config.training_data

    def _init_weights(self, module):
        """Leaves all as it is: terms that a file lacks are named by `from_pretrained`."""

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves terms, configuration and the code that both need, for `AutoModel` and `AutoModelForSequenceClassification` with
        `trust_remote_code=True`."""
        self.config.auto_map = {
            "AutoConfig": "terms_icd.TermsConfig",
            "AutoModel": "terms_icd.TermsForICD",
            "AutoModelForSequenceClassification": "terms_icd.TermsForICD",
        }
        self.config.custom_pipelines = CUSTOM_PIPELINES
        super().save_pretrained(save_directory, *args, **kwargs)

    def read_hidden_states(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> torch.LongTensor:
        """What the head reads of notes: their stems themselves, `(B, L, 1)`."""
        return input_ids[..., None]  # type: ignore[return-value]

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        hidden_states: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ICDCodingOutput | tuple:
        """Scores every code for every note.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, L)`): stems of whole notes, of any length, padded at the end.
            attention_mask (`torch.LongTensor` of shape `(B, L)`, *optional*): 1 for a real one; by default all are.
            hidden_states (`torch.LongTensor` of shape `(B, L, 1)`, *optional*): what [`read_hidden_states`] gave, in place of
                `input_ids`.
            output_hidden_states (`bool`, *optional*): whether to return `hidden_states` `(B, L, 1)`, the stems again, which the
                head reads once more where evidence is asked for.
            kwargs: other arguments of `forward` of a trained model; `labels` among them is refused.

        Raises:
            ValueError: where there is no note, or something is to be learned.
        """
        if hidden_states is None and input_ids is None:
            raise ValueError("Give `input_ids`: a coder by terms reads nothing else.")
        if kwargs.get("labels") is not None:
            raise ValueError("A coder by terms has nothing to learn: leave `labels` out, or train another model.")
        states = self.read_hidden_states(input_ids) if hidden_states is None else hidden_states  # type: ignore[arg-type]
        if attention_mask is None:
            attention_mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        logits, _ = self.score(states, attention_mask)
        output = ICDCodingOutput(logits=logits, hidden_states=states if output_hidden_states else None)
        return output if return_dict is not False else output.to_tuple()
