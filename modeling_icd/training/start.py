"""Starts a new head from the training notes, in place of random numbers, before the first step of training.

Gradient descent finds out slowly where a code stands in a note: a random query attends to everything alike, and a rare
code gives it a gradient a few times an epoch. What the notes say is there at once, in closed form:

1. The layer that reads the hidden states whitens them: linear discriminants need no more than that.
2. Every code gets a prototype. Where its evidence is marked, this is the mean state of these words. Elsewhere it is found
   in a few rounds: beginning with the mean of its notes, or of its title, each code attends to the tokens that are more
   like its own prototype than like those of the other codes of the same note, and the tokens' mean is its next prototype.
3. Its query and its output vector are the direction that tells the prototype from all other tokens (Fisher's linear
   discriminant). Its bias is chosen so that its mean logit is the log odds of a note having it.

So the weights of a code that one note has come from that note's words. They are as confidential as those of a trained head.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..attention_icd import AttendingHead, SeveralQueries
from ..heads import members_of, start_at_prior
from ..inference.tokens import is_raw, tokenize_split
from .arguments import nothing_to_start
from .notes import notes_per_code


# Spread of a token's score for a code before training, for the attention and for the logit; and how sharply tokens are
# chosen while prototypes are looked for.
QUERY_SCALE, OUTPUT_SCALE, SEARCH_SCALE = 2.0, 1.0, 2.0
ROUNDS = 3
# Of the mean variance, added to every direction: directions that hardly vary would be blown up.
SHRINKAGE = 0.01
KEPT_BYTES = 1 << 30
# Where the backbone must read the notes, their states are kept in memory, and so these must be few.
UNCACHED_NOTES = 200
MAX_START_NOTES = 2000
ENSEMBLE_SHARE = 0.8

Read = Callable[[list[int]], torch.Tensor]


def log_odds(counts: Sequence[int], num_notes: int) -> torch.Tensor:
    """Log odds `(C,)` of a note having each code, of `counts` among `num_notes` training notes, each half a note more."""
    share = (torch.tensor(counts, dtype=torch.float64) + 0.5) / (num_notes + 1)
    return torch.logit(share).float()


def choose_notes(label_ids: Sequence[Sequence[int]], max_notes: int, seed: int) -> list[int]:
    """Which notes a head is started from: all of them, or of more than `max_notes` those with the rarest codes, so that
    every code has a note if that is possible; in random order."""
    order = np.random.default_rng(seed).permutation(len(label_ids))
    if len(order) <= max_notes:
        return order.tolist()
    counts = notes_per_code(label_ids, 1)
    rarest = [min((int(counts[code]) for code in label_ids[i]), default=len(order)) for i in order]
    return order[np.argsort(rarest, kind="stable")[:max_notes]].tolist()


class Moments:
    """Mean and covariance of vectors that are seen in parts; in fp64 on the CPU, since some devices have no such type."""

    def __init__(self, width: int):
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, vectors: torch.Tensor) -> None:
        """Take in vectors `(N, D)`."""
        vectors = vectors.float()
        self.count += len(vectors)
        self.sum += vectors.sum(dim=0).cpu().double()
        self.products += (vectors.T @ vectors).cpu().double()

    def mean(self) -> torch.Tensor:
        """`(D,)`, fp64."""
        return self.sum / self.count

    def whitener(self, width: int, shrinkage: float) -> torch.Tensor:
        """The `width` directions `(width, D)`, fp64, of the largest variance, each divided by its standard deviation."""
        mean = self.mean()
        values, vectors = torch.linalg.eigh(self.products / self.count - torch.outer(mean, mean))
        values, vectors = values.flip(0), vectors.flip(1)
        scales = (values.clamp(min=0) + shrinkage * values.mean()).rsqrt()
        return (vectors * scales)[:, :width].T


def weights_of_tokens(similar: torch.Tensor) -> torch.Tensor:
    """How much each token of a note is evidence of each of its codes, `(L, codes)`, summing to 1 over the tokens.

    A token speaks for the code that it is most like, not for the others of the note, nor for any if it is like none.

    Args:
        similar (`torch.Tensor` of shape `(L, codes)`): product of the whitened token and the code's prototype.
    """
    none = similar.new_zeros(len(similar), 1)
    shares = (SEARCH_SCALE * torch.cat([similar, none], dim=1)).log_softmax(dim=1)
    return shares[:, :-1].softmax(dim=0)


def features_of(head: AttendingHead, states: torch.Tensor) -> torch.Tensor:
    """What a head attends over, fp32 `(L, F)`, of the hidden states `(L, D)` of one text."""
    states = states.to(head.queries.weight.device, head.queries.weight.dtype)
    mask = torch.ones(1, len(states), dtype=torch.long, device=states.device)
    return head.features(states[None], mask)[0].float()


class HeadStarter:
    """Starts one head from notes.

    Args:
        head (`AttendingHead`): newly initialised.
        notes (`datasets.Dataset`): `input_ids`, `length` and `label_ids` of each; `evidence`, where it is marked.
        read (`Callable`): gives the hidden states `(L, D)` of the `input_ids` of a note.
        titles (`dict[int, torch.Tensor]`): hidden states `(L, D)` of the titles of codes, where they are used.
    """

    def __init__(
        self,
        head: AttendingHead,
        notes: datasets.Dataset,
        read: Read,
        titles: Mapping[int, torch.Tensor],
        show_progress: bool = True,
    ):
        self.head, self.notes, self.read, self.titles, self.show_progress = head, notes, read, titles, show_progress
        self.kept: list[torch.Tensor] = []
        self.device = head.queries.weight.device

    def progress(self, rows, description: str):
        shown = f"Starting the head: {description}"
        return tqdm(rows, desc=shown, unit="note", leave=False, disable=not self.show_progress)

    def features(self, states: torch.Tensor) -> torch.Tensor:
        return features_of(self.head, states)

    def passes(self, description: str) -> Iterator[tuple[dict, torch.Tensor]]:
        """The notes and their features `(L, F)`. Features are kept from pass to pass where all of them fit into
        `KEPT_BYTES`."""
        are_kept = 2 * sum(self.notes["length"]) * self.head.queries.in_features <= KEPT_BYTES
        for row, note in enumerate(self.progress(self.notes, description)):
            if row < len(self.kept):
                yield note, self.kept[row].to(self.device).float()
                continue
            features = self.features(self.read(note["input_ids"]))
            if are_kept:
                self.kept.append(features.half().cpu())
            yield note, features

    @torch.no_grad()
    def run(self, prior: torch.Tensor) -> None:
        """Set the weights; `prior` are the log odds `(C,)` of the codes."""
        was_training = self.head.training
        self.head.eval()
        self.whiten_first_layer()
        moments = Moments(self.head.queries.in_features)
        for _, features in self.passes("spread"):
            moments.add(features)
        self.mean = moments.mean().float().to(self.device)
        self.whitener = moments.whitener(len(self.mean), SHRINKAGE).float().to(self.device)
        prototypes = self.find_prototypes()
        found = prototypes.norm(dim=1) > 0  # (C,)
        directions = nn.functional.normalize(prototypes) @ self.whitener
        for layer, scale in ((self.head.queries, QUERY_SCALE), (self.head.output, OUTPUT_SCALE)):
            layer.weight.data[found] = (scale * directions)[found].to(layer.weight.dtype)
        self.centre_logits(prior)
        self.head.train(was_training)

    def whiten_first_layer(self) -> None:
        layer: Any = self.head.first_layer
        if layer is None or layer.bias is None:
            return
        moments = Moments(layer.weight.shape[1])
        for ids in self.progress(self.notes["input_ids"], "states"):
            moments.add(self.read(ids))
        rows = self.head.first_scale * moments.whitener(layer.weight.shape[0], 1e-3)
        used = layer.weight.data[: len(rows)]  # wider than the states, the rest stays random
        used.copy_(rows.reshape(used.shape))
        layer.bias.data[: len(rows)].copy_(-rows @ moments.mean())

    def whitened(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) @ self.whitener.T

    def find_prototypes(self) -> torch.Tensor:
        """A vector `(C, F)` for each code, in the space of whitened features, where all tokens have the mean 0; 0 for a code
        that no note has."""
        shape = self.head.queries.weight.shape
        marked, self.is_marked = torch.zeros(shape, device=self.device), torch.zeros(shape[0], dtype=torch.bool)
        prototypes = torch.zeros(shape, device=self.device)
        for step in range(ROUNDS + 1):
            sums = torch.zeros(shape, device=self.device)
            for note, features in self.passes(f"prototypes {step}/{ROUNDS}"):
                tokens = self.whitened(features)  # (L, F)
                codes = torch.tensor(note["label_ids"], dtype=torch.long, device=self.device)
                if step == 0:
                    sums[codes] += tokens.mean(dim=0)
                    self.add_marked(note.get("evidence") or [], tokens, marked)
                elif len(codes):
                    sums[codes] += weights_of_tokens(tokens @ prototypes[codes].T).T @ tokens
            for code, states in self.titles.items() if step == 0 else ():
                if sums[code].any():  # of a code that no note has, nothing could be learned further
                    sums[code] = self.whitened(self.features(states)).mean(dim=0)
            sums[self.is_marked] = marked[self.is_marked]
            prototypes = nn.functional.normalize(sums)
            if self.is_marked.all():
                break
        return prototypes

    def add_marked(self, evidence: list[list[int]], tokens: torch.Tensor, sums: torch.Tensor) -> None:
        """Add the mean of the marked tokens of each code of a note."""
        places: dict[int, list[int]] = {}
        for code, token in evidence:
            places.setdefault(code, []).append(token)
        for code, positions in places.items():
            sums[code] += tokens[positions].mean(dim=0)
            self.is_marked[code] = True

    def centre_logits(self, prior: torch.Tensor) -> None:
        """Choose the biases so that the mean logit of a code over the notes is its log odds."""
        start_at_prior(self.head, torch.zeros_like(prior))
        sums = torch.zeros(len(prior), device=self.device)
        for _, features in self.passes("biases"):
            mask = torch.ones(1, len(features), dtype=torch.long, device=self.device)
            summaries, _ = self.head.queries(features[None], mask, False)
            sums += self.head.output(summaries)[0].float()
        start_at_prior(self.head, prior.to(self.device) - sums / len(self.notes))


@torch.no_grad()
def start_queries(head: AttendingHead, titles: Mapping[int, Sequence[torch.Tensor]], codes: Sequence[int]) -> None:
    """Start the queries of some codes at their titles (as PLM-CA, MSMN and GKI-ICD do): at the mean of what the head attends over
    in a title, less the mean of all titles, as long as random queries are. Those of other codes stay random. Where a code has
    several queries, the next ones start at its other terms, in turn, each at the part of the features that it reads.

    Args:
        titles (`dict[int, Sequence[torch.Tensor]]`): hidden states `(L, D)` of the title and of other terms of codes, these among
            them.
        codes (`Sequence[int]`): at least one.
    """
    was_training = head.training
    head.eval()
    weight = head.queries.weight.data
    found = {code: torch.stack([features_of(head, text).mean(dim=0) for text in own]) for code, own in titles.items()}
    middle = torch.cat([*found.values()]).mean(dim=0)
    number = queries_per_code(head)
    turns = torch.arange(number)
    chosen = torch.stack([found[code][turns % len(found[code])] for code in codes]) - middle  # (K, M, F)
    parts = chosen.unflatten(-1, (number, -1))[:, turns, turns]  # (K, M, F / M)
    length = weight.norm(dim=1).mean()
    weight.unflatten(0, (-1, number))[list(codes)] = (length * nn.functional.normalize(parts, dim=-1)).to(weight.dtype)
    head.train(was_training)


def queries_per_code(head: nn.Module) -> int:
    """How many queries a head has for each code; 1 where it does not attend."""
    queries = getattr(head, "queries", None)
    return queries.num_queries if isinstance(queries, SeveralQueries) else 1


def make_weights_small(head: nn.Module) -> None:
    """Draw the random weights of a head again, from the range that torch's own layers start in. Half as wide as that of
    Glorot, in which the original of MultiResCNN starts, it fits few and short notes less by heart."""
    for layer in head.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            layer.reset_parameters()


def start_head(
    model,
    notes: datasets.Dataset,
    read: Read | None = None,
    max_notes: int = MAX_START_NOTES,
    seed: int = 0,
    titles: Mapping[int, list[int]] | None = None,
    show_progress: bool = True,
    tokenizer: PreTrainedTokenizerBase | None = None,
    titles_up_to: int | None = None,
    terms: Mapping[int, Sequence[list[int]]] | None = None,
) -> None:
    """Start the new head of a model: its biases at the log odds of the codes; where it attends, its queries and outputs, too,
    from what sets the words of each code apart. A head with batch norm, whose features change as it learns, one that
    does not attend, one whose output vectors read something else than its queries, and one with several queries for each
    code get the biases alone. One that attends and is not to look at notes gets small random weights. With titles, the
    queries that do not start from notes start from them.

    Args:
        notes (`datasets.Dataset`): training notes, tokenized or, with `tokenizer`, with `text` and `codes`; those without a
            token are passed over.
        read (`Callable`, *optional*):
            Gives hidden states of the `input_ids` of a note. By default the backbone reads at most 200 notes, once.
        max_notes (`int`): to look at; 0: none.
        seed (`int`): chooses the notes; each head of an ensemble is started from other 80 % of them.
        titles (`dict[int, list[int]]`, *optional*): `input_ids` of the titles of codes, which the backbone reads. Where the head
            is started from notes, it begins to look for what sets a code apart at its title.
        tokenizer (*optional*): the backbone's, for notes that are not tokenized.
        titles_up_to (`int`, *optional*): only codes that at most so many of the notes have start from their titles; by default
            all that have one.
        terms (`dict[int, Sequence[list[int]]]`, *optional*): `input_ids` of other terms of codes, which the further queries of a
            head with several for each code start from.

    Raises:
        ValueError: where the model's head was loaded, or started before: starting it would undo its training; where notes are
            to be tokenized, and there is no tokenizer; where there are titles, and the head does not attend.
    """
    if not getattr(model, "head_is_new", True):
        raise ValueError(
            "This model's head was loaded with it, or started before: starting it again would undo its training."
        )
    notes = notes_with_tokens(notes, tokenizer, model.config)
    model.head_is_new = False
    counts = notes_per_code(notes["label_ids"], model.config.num_labels).tolist()
    prior = log_odds(counts, len(notes))
    start_at_prior(model.score, prior)
    members: list[Any] = members_of(model.score)
    if titles and not isinstance(members[0], AttendingHead):
        raise ValueError(
            f"Titles start the queries of a head that attends, and a {type(members[0]).__name__} has none: leave out "
            "`start_titles`."
        )
    is_alike = has_fixed_features(members[0])
    can_start = is_alike and members[0].reads_features
    if is_alike and not max_notes:
        make_weights_small(model.score)
        start_at_prior(model.score, prior)
    read_by_backbone = backbone_reader(model)
    titles = {code: ids for code, ids in (titles or {}).items() if ids}
    starting = codes_to_start(titles, counts, titles_up_to)
    if not can_start or not max_notes:
        if starting:
            start_from_terms(members, titles, terms or {}, starting, read_by_backbone)
        return
    title_states = {code: read_by_backbone(titles[code]) for code in starting}
    chosen = notes.select(
        choose_notes(notes["label_ids"], max_notes if read else min(max_notes, UNCACHED_NOTES), seed)
    )
    for member, own in zip(members, notes_of_members(chosen, len(members), seed), strict=True):
        HeadStarter(member, own, read or read_by_backbone, title_states, show_progress).run(prior)


def notes_with_tokens(
    notes: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None, config: Any
) -> datasets.Dataset:
    """Tokenized notes, without those that have no token.

    Raises:
        ValueError: where they are to be tokenized, and there is no tokenizer.
    """
    if is_raw(notes):
        if tokenizer is None:
            raise ValueError("These notes are not tokenized: give the backbone's `tokenizer`, too.")
        notes = tokenize_split(notes, tokenizer, config.label2id)
    return notes.select(np.flatnonzero(notes["length"]))


def has_fixed_features(head: Any) -> bool:
    """Whether queries and outputs of a head read the same features, which no statistics that are learned later change."""
    has_statistics = any(isinstance(module, nn.BatchNorm1d) for module in head.modules())
    return isinstance(head, AttendingHead) and type(head).reads_features and not has_statistics


def start_from_terms(
    members: Sequence[Any],
    titles: Mapping[int, list[int]],
    terms: Mapping[int, Sequence[list[int]]],
    starting: Sequence[int],
    read: Read,
) -> None:
    """Start the queries of heads from titles, and further ones of the same code from its other terms; the arguments are those of
    [`start_head`], `starting` the codes that do."""
    number = queries_per_code(members[0])
    states = {code: [read(text) for text in [ids, *terms.get(code, [])][:number]] for code, ids in titles.items()}
    for member in members:
        start_queries(member, states, starting)


def notes_of_members(notes: datasets.Dataset, number: int, seed: int) -> Iterator[datasets.Dataset]:
    """The notes that each head of an ensemble is started from, drawn at random; all of them where there is one head."""
    if number == 1:
        yield notes
        return
    for member in range(number):
        order = np.random.default_rng([seed, member]).permutation(len(notes))
        yield notes.select(order[: max(1, round(ENSEMBLE_SHARE * len(notes)))])


def codes_to_start(titled: Iterable[int], counts: Sequence[int], limit: int | None) -> list[int]:
    """Of the codes with a title those that start from it: all of them, or those that at most `limit` of the notes have that the
    head is started with; `counts` `(C,)` are of these notes."""
    return [code for code in titled if limit is None or counts[code] <= limit]


def check_codes_to_start(model, label_ids: Iterable[Sequence[int]], limit: int | None) -> None:
    """Raise a `ValueError` where no code of a model would start from its title, since more than `limit` notes have each.

    Args:
        label_ids (`Iterable[Sequence[int]]`): of all notes that the head of the model that is saved is started with.
    """
    counts = notes_per_code(label_ids, model.config.num_labels).tolist()
    titled = [model.config.label2id[code] for code in model.config.code_descriptions or {}]
    if titled and not codes_to_start(titled, counts, limit):
        raise nothing_to_start(
            f"no code with a title has at most {limit} training notes (`start_titles_up_to`), the rarest has "
            f"{min(counts[code] for code in titled)}"
        )


def backbone_reader(model) -> Read:
    """Reads one note at a time with the model's own backbone, and remembers its states in half precision."""
    known: dict[tuple[int, ...], torch.Tensor] = {}

    @torch.no_grad()
    def read(input_ids: list[int]) -> torch.Tensor:
        key = tuple(input_ids)
        if key not in known:
            ids = torch.tensor([input_ids], device=model.device)
            known[key] = model.read_hidden_states(ids, torch.ones_like(ids))[0].to("cpu", torch.bfloat16)
        return known[key].to(model.device).float()

    return read
