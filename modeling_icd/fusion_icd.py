"""A model that joins what was learned of words, titles and notes with a head over hidden states: one score for a note and a code.

Its reader gives the hidden states of the backbone together with the tokens, and its head reads both: the states by a head of
heads.py over the codes of training, the tokens as text (fusion_text_icd.py). What both know of a code are its features
(fusion_features_icd.py), and boosted trees make its logit of them, to which linear scores of words are added
(fusion_words_icd.py). All is saved as tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .configuration_icd import ICDConfig
from .fusion_features_icd import PARTS, FeatureMaker, Scored, are_told
from .fusion_tables_icd import Tables, unpack
from .fusion_text_icd import StemReader, TermFinder, TokenText
from .heads import build_head, find_head, require_positive
from .modeling_icd import ModelForICDCoding


TOKEN_DIGITS = 3
"""Numbers in front of each state that say its token, in base 256: so they are whole in half precision, too."""
NOT_SCORED = -12.0
"""Logit of a code that no training note has, and that nothing in a note speaks for."""
COUNT_WORTH = 0.5
"""How much higher that of another one is, for each unit of the log of its training notes."""
_MATRICES = ("terms", "notes", "note_codes", "titles", "translations")
# Kept as the bits of 32-bit floats.
_NUMBERS = ("rarity", "pairs", "codes", "title_rarity", "gram_rarity", "gram_weights", "gram_biases")
_INTEGERS = ("pair_starts", "pair_codes", "category", "title_codes", "title_sources", "grams", "gram_codes")
_STRINGS = ("stems", "title_stems", "tokens")
_TREES = ("tree_features", "tree_children")
_TREE_NUMBERS = ("tree_thresholds", "tree_values")  # kept as the bits of 64-bit floats


def table_names() -> dict[str, torch.dtype]:
    """The tensors of a fused model, and their types. Numbers are kept as bits of integers, which no library rounds when it loads a
    model in half precision."""
    return {
        **{f"{name}_letters": torch.uint8 for name in _STRINGS},
        **{f"{name}_starts": torch.int32 for name in (*_STRINGS, *_MATRICES)},
        **{f"{name}_columns": torch.int32 for name in _MATRICES},
        **dict.fromkeys([f"{name}_values" for name in _MATRICES], torch.int32),
        **dict.fromkeys((*_NUMBERS, *_INTEGERS, *_TREES, *_TREE_NUMBERS), torch.int32),
    }


class FusionConfig(ICDConfig):
    """Configuration of [`FusionForICD`]: that of the head over hidden states, whose codes are the first `num_known`, and these fields.

    Args:
        num_known (`int`): codes that training notes have; those behind them are told by their titles alone.
        parts (`list[str]`): of `PARTS`, what the scores are made of. Without `head` no hidden states are read.
        tables (`dict[str, list[int]]`): shapes of the tensors that are looked up; see [`table_names`].
        finder (`list[int]`): stems, terms, and stems of the longest term.
    """

    model_type = "icd_fusion"

    num_known: int = 1
    parts: list[str] | None = None
    tables: dict[str, list[int]] | None = None
    finder: list[int] | None = None

    def _check_head(self) -> None:
        super()._check_head()
        require_positive("num_known", self.num_known)
        unknown = sorted(set(self.parts or ()) - set(PARTS))
        if unknown:
            raise ValueError(f"`parts` must be of {', '.join(PARTS)}, got {unknown[0]!r}.")
        if self.num_known > self.num_labels:
            raise ValueError(
                f"`num_known` ({self.num_known}) is more than the codes that there are ({self.num_labels})."
            )

    @property
    def states_width(self) -> int:
        return TOKEN_DIGITS + self.hidden_size

    def make_head(self) -> "FusionHead":
        """The head of the model; see [`~modeling_icd.heads.head_of_config`]."""
        return FusionHead(self)


class FusionHead(nn.Module):
    """From hidden states with their tokens to a logit for each code, and the words that speak for it.

    Its tensors are those of [`table_names`]; where `parts` has `head`, `states` is the head over hidden states. M trees of at most Q
    nodes each:
        tree_features `(M, Q)`: which feature a node looks at; 0 in a leaf.
        tree_children `(M, Q, 2)`: where it goes with at most the threshold, and with more; a leaf stays where it is.
        tree_thresholds `(M, 2 * Q)` and tree_values `(M, 2 * Q)`: bits of 64-bit numbers; the value is that of a leaf. What all
            trees start from is in the values of the first one.
    """

    evidence_method = "attention"
    evidence_methods = ("attention",)
    gives_codes_alone = True

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.num_labels, self.num_known = config.num_labels, config.num_known
        self.parts = tuple(PARTS if config.parts is None else config.parts)
        shapes = config.tables or {}
        for name, dtype in table_names().items():
            # A folder of an earlier version lacks those of later ones.
            is_saved = not shapes or name in shapes
            self.register_buffer(name, torch.zeros(shapes.get(name, [0]), dtype=dtype), persistent=is_saved)
        self.finder = TermFinder(*(config.finder or (1, 1, 1)))
        has_head = "head" in self.parts
        self.attends = has_head and find_head(config.head).attends
        if has_head:
            self.states = build_head(config, config.num_known)
        self._reading: tuple[TokenText, StemReader, FeatureMaker] | None = None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        need_attentions: bool | torch.Tensor = True,
        only_codes: torch.Tensor | None = None,
        shortlist: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores codes.

        Args:
            hidden_states (`torch.Tensor` of shape `(B, L, TOKEN_DIGITS + D)`): as [`FusionForICD`] reads them.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token.
            need_attentions (`bool` or `torch.LongTensor`): for which codes to return weights: all, none, or those with these ids,
                `(K,)` or `(B, K)` with -1 where a note has fewer.
            only_codes (`torch.LongTensor` of shape `(K,)`, *optional*): the codes to give; C is then K.
            shortlist: has no effect.

        Returns:
            Logits `(B, C)`, and weights of the tokens `(B, C, L)`, `(B, K, L)` or `None`. Those of a code sum to 1, or to 0 where
            nothing in the note speaks for it.
        """
        device, states = hidden_states.device, hidden_states[..., TOKEN_DIGITS:]
        tokens = _tokens_of(hidden_states)  # (B, L)
        head_logits = self._of_states(states, attention_mask) if "head" in self.parts else None
        logits = self.untold().repeat(len(tokens), 1)
        trees, weights = self.trees, []
        for row, mask in enumerate(attention_mask.cpu().bool()):
            scored, of_stems = self._look_up(tokens[row], mask, None if head_logits is None else head_logits[row])
            logits[row, scored.codes] = logits_of(trees, scored)
            codes = _codes_asked_for(need_attentions, only_codes, row, self.num_labels)
            if codes is not None:
                one = slice(row, row + 1)
                weights.append(_mean_of(self._by_source(scored, of_stems, codes, states[one], attention_mask[one])))
        if only_codes is not None:
            logits = logits[:, only_codes.cpu()]
        return logits.to(device), torch.stack(weights).to(device) if weights else None

    def weights_by_source(self, hidden_states: torch.Tensor, class_ids: list[int]) -> dict[str, torch.Tensor]:
        """See [`~modeling_icd.evidence_icd.weights_by_source`]: those of terms, titles and attention."""
        mask = torch.ones(1, len(hidden_states), dtype=torch.long, device=hidden_states.device)
        scored, of_stems = self._read_one(hidden_states, mask)
        return self._by_source(scored, of_stems, class_ids, hidden_states[None, :, TOKEN_DIGITS:], mask)

    def told_codes(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Which codes something in a note speaks for, bool `(C,)`, given what was read of it `(L, TOKEN_DIGITS + D)`; the others have
        a score that tells how frequent they are."""
        mask = torch.ones(1, len(hidden_states), dtype=torch.long, device=hidden_states.device)
        scored, _ = self._read_one(hidden_states, mask)
        told = torch.zeros(self.num_labels, dtype=torch.bool)
        told[scored.codes] = are_told(scored.features, scored.word_scores)
        return told

    def _read_one(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[Scored, list[torch.Tensor]]:
        """[`_look_up`] of one note without padding."""
        states = hidden_states[None, :, TOKEN_DIGITS:]
        head_logits = self._of_states(states, mask)[0] if "head" in self.parts else None
        return self._look_up(_tokens_of(hidden_states), mask[0].cpu().bool(), head_logits)

    def _look_up(
        self, tokens: torch.Tensor, mask: torch.Tensor, head_logits: torch.Tensor | None
    ) -> tuple[Scored, list[torch.Tensor]]:
        """The codes of a note to score, and the places of the tokens of each of its stems; `tokens` and `mask` `(L,)`."""
        text, token_of = self.reading[0].read(tokens[mask].tolist())
        words = self.reading[1].read(text)
        places = mask.nonzero().flatten()
        of_stems = [places[token_of[start:end].unique()] for start, end in words.spans]
        return self.reading[2].make(words.stems, head_logits), of_stems

    @property
    def evidence_sources(self) -> tuple[str, ...]:
        """What evidence can come from, the surest first."""
        sources = {"phrases": "term", "titles": "title", "head": "attention"}
        return tuple(sources[part] for part in parts_with_evidence(self.parts, self.attends))

    @property
    def reading(self) -> tuple[TokenText, StemReader, FeatureMaker]:
        """What reads the text of tokens, makes stems of it, and features of these."""
        if self._reading is None:
            tables = self.tables
            tokens = TokenText(unpack(self.get_buffer("tokens_letters").cpu(), self.get_buffer("tokens_starts").cpu()))
            self._reading = tokens, StemReader(), FeatureMaker(tables, self.finder, self.num_known, self.parts)
        return self._reading

    @property
    def tables(self) -> Tables:
        def strings(name: str) -> list[str]:
            letters, starts = (self.get_buffer(f"{name}_{part}").cpu() for part in ("letters", "starts"))
            return [part.decode() for part in unpack(letters, starts)]

        def matrix(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            starts, columns, values = (
                self.get_buffer(f"{name}_{part}").cpu() for part in ("starts", "columns", "values")
            )
            return starts, columns, values.view(torch.float32)

        found: dict[str, Any] = {name: self.get_buffer(name).cpu().view(torch.float32) for name in _NUMBERS}
        found |= {name: self.get_buffer(name).cpu() for name in _INTEGERS}
        found |= {name: matrix(name) for name in _MATRICES}
        return Tables(stems=strings("stems"), title_stems=strings("title_stems"), **found)

    def untold(self) -> torch.Tensor:
        """Logits `(C,)` of codes that nothing in a note speaks for."""
        counts = self.get_buffer("codes").cpu().view(torch.float32)[:, 0]  # the log of their training notes
        return NOT_SCORED + COUNT_WORTH * counts

    @property
    def trees(self) -> dict[str, torch.Tensor]:
        """The trees, on the CPU, as [`tree_sums`] takes them."""
        return {name: self.get_buffer(name).cpu() for name in (*_TREES, *_TREE_NUMBERS)}

    def _of_states(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits `(B, S)` of the head over hidden states."""
        logits, _ = self.states(states, attention_mask, False)
        return (logits.mean(dim=0) if logits.dim() == 3 else logits).detach().float().cpu()

    def _by_source(
        self, scored: Scored, of_stems: list[torch.Tensor], codes: list[int], states: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Weights `(K, L)` of the tokens of a note for some codes, by `term`, `title` and `attention`: of each the weights of a code
        sum to 1, or to 0 where it knows nothing."""
        found = {source: torch.zeros(len(codes), states.shape[1]) for source in ("term", "title", "attention")}
        for row, code in enumerate(codes):
            for score, positions, source in scored.evidence.get(code, ()):
                for tokens in _tokens_between(of_stems, positions):
                    found[source][row, tokens] = found[source][row, tokens].clamp(min=score)
        known = torch.tensor([code if 0 <= code < self.num_known else -1 for code in codes], dtype=torch.long)
        if self.attends and (known >= 0).any():
            _, attended = self.states(states, mask, True, only_codes=known.clamp(min=0).to(mask.device))
            found["attention"] = attended[0].detach().float().cpu() * (known >= 0)[:, None]
        return {source: _normed(weights) for source, weights in found.items()}


def parts_with_evidence(parts: Sequence[str], attends: bool) -> tuple[str, ...]:
    """Of the parts of a model those that say what a code was read from, the surest first; `attends`: whether its head does."""
    return tuple(part for part in ("phrases", "titles", "head") if part in parts and (part != "head" or attends))


def tree_sums(trees: Mapping[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """The sums `(K,)` of trees, as [`FusionHead`] keeps them, for features `(K, F)`, in double precision."""
    features = features.double()
    at, children = trees["tree_features"].long(), trees["tree_children"].long()
    thresholds, values = (trees[name].view(torch.float64) for name in _TREE_NUMBERS)
    rows = torch.arange(len(at))
    node = torch.zeros(len(features), len(at), dtype=torch.long)  # (K, M)
    while True:
        value = features.gather(1, at[rows, node])
        after = children[rows, node, (value > thresholds[rows, node]).long()]
        if (after == node).all():
            return values[rows, node].sum(dim=1)
        node = after


def logits_of(trees: Mapping[str, torch.Tensor], scored: Scored) -> torch.Tensor:
    """The logits `(K,)` of the codes of a note that are scored: what the trees give, and the linear scores of words."""
    return tree_sums(trees, scored.features).float() + scored.word_scores


def _tokens_of(hidden_states: torch.Tensor) -> torch.Tensor:
    """The tokens in front of states `(..., TOKEN_DIGITS + D)`, `(...)`, on the CPU."""
    base = torch.tensor([1, 256, 65536])
    return (hidden_states[..., :TOKEN_DIGITS].detach().float().cpu().long() * base).sum(dim=-1)


def _normed(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)


def _mean_of(by_source: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """One weight for each token: half that of what is said, half that of the attention; all of one where the other knows nothing."""
    said = _normed(torch.maximum(by_source["term"], by_source["title"]))
    return _normed(said + by_source["attention"])


def _codes_asked_for(
    need_attentions: bool | torch.Tensor, only_codes: torch.Tensor | None, row: int, num_labels: int
) -> list[int] | None:
    """The codes whose weights are wanted of a note."""
    if isinstance(need_attentions, torch.Tensor):
        return (need_attentions if need_attentions.dim() == 1 else need_attentions[row]).tolist()
    if not need_attentions:
        return None
    return list(range(num_labels)) if only_codes is None else only_codes.tolist()


def _tokens_between(of_stems: list[torch.Tensor], positions: tuple[int, ...]) -> list[torch.Tensor]:
    """The tokens of a term's stems; where small words alone can stand between them, of these, too."""
    first, last = positions[0], positions[-1]
    is_close = last - first < 2 * len(positions)
    return [of_stems[i] for i in (range(first, last + 1) if is_close else positions)]


class FusionForICD(ModelForICDCoding):
    """Codes notes by their words, by titles, by training notes like them and by a head over hidden states; see [`FusionHead`]."""

    config_class = FusionConfig
    config: FusionConfig
    own_module = config_module = "fusion_icd"

    def read_hidden_states(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        """Hidden states as of every model, each with its token in front, `(B, L, TOKEN_DIGITS + D)`.

        Raises:
            ValueError: where there are no `input_ids`.
        """
        if input_ids is None:
            raise ValueError("A fused model reads words, too: give `input_ids`, not `inputs_embeds`.")
        return _with_tokens(super().read_hidden_states(input_ids, attention_mask), input_ids)

    def read_joined(self, joined, lengths: list[int], tokens_per_pass: int | None = None):
        return _with_tokens(super().read_joined(joined, lengths, tokens_per_pass), joined)


def _with_tokens(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    digits = [tokens % 256, tokens // 256 % 256, tokens // 65536]
    return torch.cat([torch.stack(digits, dim=-1).to(states.device, states.dtype), states], dim=-1)


def buffers_of(
    tables: Tables, tokens: tuple[torch.Tensor, torch.Tensor], trees: Mapping[str, torch.Tensor], packed: Any
) -> dict:
    """The tensors of a head, by the names of [`table_names`]."""
    buffers: dict[str, torch.Tensor] = {"tokens_letters": tokens[0], "tokens_starts": tokens[1], **trees}
    for name in ("stems", "title_stems"):
        letters, starts = packed([stem.encode() for stem in tables._asdict()[name]])
        buffers |= {f"{name}_letters": letters, f"{name}_starts": starts}
    for name in _MATRICES:
        starts, columns, values = tables._asdict()[name]
        buffers |= {f"{name}_starts": starts, f"{name}_columns": columns, f"{name}_values": values.view(torch.int32)}
    buffers |= {name: tables._asdict()[name].contiguous().view(torch.int32) for name in _NUMBERS}
    return buffers | {name: tables._asdict()[name].int() for name in _INTEGERS}
