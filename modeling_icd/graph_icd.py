"""A graph of codes in a head: the output vector of each code takes in something of those of its neighbours.

A code that few notes have so learns with those that are like it, or that come with it. As in ZAGCNN (Rios and Kavuluru, EMNLP
2018, aclanthology.org/D18-1352) it is the vectors that the logits are made with which the graph refines; the queries, by which a code finds
its words, stay its own. What differs from ZAGCNN: each code has a vector of its own, which is learned, in place of the mean of
the word vectors of its title; codes above those of the model are no nodes; each layer is added to what it reads, where ZAGCNN puts all layers
side by side; and a second kind of neighbours are codes that notes often have together.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import initialization as init

from .attention_icd import widened
from .layers_icd import values_are_known, without_autocast
from .pooled_icd import require_positive


GRAPH_SOURCES = ("hierarchy", "co_occurrence")
"""What makes codes neighbours: that they share a category (or, alone in theirs, a block), or that notes have them together."""

DEFAULTS: dict[str, Any] = {"layers": 1, "neighbours": 16, "threshold": 0.4}


def complete_label_graph(given: Any) -> dict[str, Any]:
    """The field `label_graph` of a configuration, checked, with the defaults of what is left out.

    Args:
        given (`dict`): `sources`, some of `GRAPH_SOURCES`; `layers`, how often vectors are refined; `neighbours`, of a code and
            source at most; `threshold`, the share of a code's notes that must have another one, for that to be its neighbour.

    Raises:
        ValueError: where it is none, or a value is out of range.
    """
    if not isinstance(given, Mapping) or not given.get("sources") or set(given) - {"sources", *DEFAULTS}:
        raise ValueError(
            f"`label_graph` must be a dictionary with `sources` and, as you like, {', '.join(f'`{name}`' for name in DEFAULTS)}, "
            f"got {given!r}."
        )
    complete = {**DEFAULTS, **given, "sources": list(given["sources"])}
    wrong = [source for source in complete["sources"] if source not in GRAPH_SOURCES]
    if wrong or len(set(complete["sources"])) < len(complete["sources"]):
        raise ValueError(
            f"The sources of `label_graph` must be {' and '.join(map(repr, GRAPH_SOURCES))}, or one of them, got "
            f"{complete['sources']!r}."
        )
    for name in ("layers", "neighbours"):
        require_positive(f"{name} of label_graph", complete[name])
    share = complete["threshold"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"`threshold` of label_graph must be a number above 0 and up to 1, got {share!r}.")
    return complete


def mean_of_neighbours(vectors: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Of vectors `(C, F)` the mean of those of each code's neighbours `(R, K)`, -1 where it has fewer; 0 where it has none:
    `(R, F)`."""
    there = neighbours >= 0
    shares = there / there.sum(dim=1, keepdim=True).clamp(min=1)
    return nn.functional.embedding_bag(
        neighbours.clamp(min=0), vectors, per_sample_weights=shares.to(vectors.dtype), mode="sum"
    )


class LabelGraph(nn.Module):
    """Residual graph convolutions over the output vectors of codes: `H + tanh(sum over the sources of A H W)`, once for each
    layer, where `A` takes the mean of a code's neighbours. Each source and layer has a `W`, which starts at 0, so that a
    head starts as it would without the graph.

    The neighbours are saved with the weights as ids of codes, in one buffer for each source, which is named after it. The
    entries of `A` are made of their number, so that no type is too narrow for them.

    Args:
        num_labels (`int`): C.
        features (`int`): F, the width of the output vectors.
        sources, layers, neighbours, threshold: see [`complete_label_graph`].
    """

    def __init__(self, num_labels: int, features: int, sources, layers: int, neighbours: int, threshold: float):
        super().__init__()
        self.sources = tuple(sources)
        self.weight = nn.Parameter(torch.zeros(layers, len(self.sources), features, features))
        for source in self.sources:
            self.register_buffer(source, torch.zeros(num_labels, neighbours, dtype=torch.long) - 1)
        self.is_known = False  # whether there are neighbours: seen once, before anything is learned
        self._refined: tuple[list, torch.Tensor] | None = None

    def reset_parameters(self) -> None:
        init.zeros_(self.weight)
        for source in self.sources:
            init.constant_(self.get_buffer(source), -1)

    def __getstate__(self):
        """What a copy has: nothing that is made of the weights."""
        return vars(self) | {"_refined": None}

    def train(self, mode: bool = True):
        """As in torch; what was kept of the refined vectors is made again."""
        self._refined = None
        return super().train(mode)

    def forward(self, vectors: torch.Tensor, only_codes: torch.Tensor | None = None) -> torch.Tensor:
        """The refined output vectors `(C, F)`, or those of some codes alone `(K, F)`, in fp32 or wider. In use they are made
        once, and kept until a weight changes.

        Args:
            vectors (`torch.Tensor` of shape `(C, F)`): of all codes, the weight itself, of any floating type.

        Raises:
            ValueError: where the head learns, and it was not told which codes are neighbours.
        """
        if self.training:
            self.check_neighbours()
        may_keep = not self.training and not torch.is_grad_enabled() and values_are_known(vectors)
        if not may_keep or any(weight.is_inference() for weight in (vectors, self.weight)):
            return self.refine(vectors, only_codes)
        made_of = [
            (weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in (vectors, self.weight)
        ]
        if self._refined is None or self._refined[0] != made_of:
            self._refined = (made_of, self.refine(vectors))
        refined = self._refined[1]
        return refined if only_codes is None else refined[only_codes.to(refined.device)]

    def refine(self, vectors: torch.Tensor, only_codes: torch.Tensor | None = None) -> torch.Tensor:
        """What [`forward`] gives, made anew."""
        vectors, weights = widened(vectors), widened(self.weight)
        with without_autocast(vectors):
            for number, layer in enumerate(weights):
                tables = [self.get_buffer(source) for source in self.sources]
                own = vectors
                if only_codes is not None and number == len(weights) - 1:  # those before read the vectors of all
                    chosen = only_codes.to(vectors.device)
                    tables, own = [table[chosen] for table in tables], vectors[chosen]
                told = [
                    mean_of_neighbours(vectors, table) @ weight for table, weight in zip(tables, layer, strict=True)
                ]
                vectors = own + torch.tanh(sum(told[1:], told[0]))
        return vectors

    def check_neighbours(self) -> None:
        """Raise a `ValueError` where no code has a neighbour: such a graph could learn nothing."""
        if self.is_known or self.weight.is_meta:
            return
        if not any(bool((self.get_buffer(source) >= 0).any()) for source in self.sources):
            raise ValueError(
                "This head reads a graph of its codes (`label_graph`), and was not told which of them are neighbours: call "
                "`give_graph(model, notes)` of modeling_icd.training before it learns."
            )
        self.is_known = True


def give_neighbours(head: nn.Module, tables: Mapping[str, torch.Tensor]) -> None:
    """Tell the graph of a head which codes are neighbours.

    Args:
        head (`AttendingHead`): with a graph.
        tables (`dict[str, torch.Tensor]`): of each of its sources `(C, K)`; see [`mean_of_neighbours`].
    """
    graph = graph_of(head)
    for source in graph.sources:
        graph.get_buffer(source).copy_(tables[source])
    graph.is_known, graph._refined = False, None


def graph_of(head: nn.Module) -> Any:
    """The graph of a head of this project, or `None`."""
    return getattr(getattr(head, "output", None), "graph", None)


def fold_graph(head: Any) -> None:
    """Put what the graph of a head makes of its output vectors in their place, and leave the graph out: the head gives the same,
    and learns without it. A head without a graph stays as it is."""
    graph = graph_of(head)
    if graph is None:
        return
    with torch.no_grad():
        head.output.weight.copy_(graph.refine(head.output.weight))
    head.output.graph = None
