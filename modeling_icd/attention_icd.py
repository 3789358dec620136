"""Label attention: each code has a query of its own over the tokens of a note, and an output vector for what it finds.

Without attention weights of all codes, nothing of the size `(B, C, L)` is ever held in memory.
"""

from typing import Any

import torch
from torch import nn

from .layers_icd import RealTokens, SameConvolution, values_are_known, without_autocast


CODES_AT_A_TIME = 1024  # whose scores stay in the processor's cache


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in fp32, or in double precision where it is: products of half-precision vectors can exceed their range."""
    return tensor if tensor.dtype == torch.double else tensor.float()


def attend_per_label(scores: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Softmax of each code's scores over the real tokens, in fp32 or wider: in half precision it overflows.

    Args:
        scores (`torch.Tensor` of shape `(B, C, L)`): any floating type.
        attention_mask (`torch.Tensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.

    Returns:
        Weights `(B, C, L)`, each row summing to 1 and 0 on padding.
    """
    padding = attention_mask[:, None, :] == 0
    scores = widened(scores)
    return scores.masked_fill(padding, torch.finfo(scores.dtype).min).softmax(dim=-1)


def of_codes(attentions: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Of attention weights `(B, C, L)` those of the codes `(K,)`, or of other codes of each note `(B, K)`, -1 where it has
    fewer, whose weights are 0: `(B, K, L)`."""
    if codes.dim() == 1:
        return attentions[:, codes]
    rows = torch.arange(len(codes), device=codes.device)[:, None]
    return attentions[rows, codes.clamp(min=0)] * (codes >= 0)[..., None]


class LabelQueries(nn.Linear):
    """One attention query per code (CAML, arXiv 1802.05695, section 2.2): its weight is `(C, F)`, without a bias.

    This is done in fp32, or in double precision where states and weight are, and no autocast context may undo it.
    """

    def __init__(self, features: int, num_labels: int):
        super().__init__(features, num_labels, bias=False)

    def forward(  # type: ignore[override]
        self, states, attention_mask, need_attentions: bool | torch.Tensor = True, only_codes=None, values=None
    ):
        """Sums the states of a note for each code, weighted by the code's attention.

        Args:
            states (`torch.Tensor` of shape `(B, L, F)`): any floating type.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.
            need_attentions (`bool` or `torch.LongTensor`): for which codes to return attention weights: all, none, or those
                with these ids, `(K,)` or `(B, K)` as in [`of_codes`]. Only for all of them is `(B, C, L)` held in memory.
            only_codes (`torch.LongTensor` of shape `(K,)`, *optional*): the codes that there are; C is then K.
            values (`torch.Tensor` of shape `(B, L, V)`, *optional*): what is summed in place of the states.

        Returns:
            Summaries `(B, C, F)`, or `(B, C, V)`, and attention weights `(B, C, L)`, `(B, K, L)` or `None`, in fp32 or wider.
        """
        with without_autocast(states):
            states, queries = widened(states), widened(self.weight)
            values = states if values is None else widened(values)
            if only_codes is not None:
                queries = queries[only_codes.to(queries.device)]
            return attend(queries, states, attention_mask, need_attentions, values)


class SeveralQueries(LabelQueries):
    """Several queries per code, each over a part of the features of its own; of what they find, each entry is the highest of theirs.
    It is the decoder of MSMN (Yuan et al., ACL 2022, `MultiLabelMultiHeadLAATV2`), but for its queries and output vectors, which
    are learned for each code here, and made of the vectors of the code's terms there.

    Args:
        features (`int`): F, of which each query reads `F / num_queries`.
        num_labels (`int`): C; the weight is `(C * num_queries, F / num_queries)`, the queries of a code one after the other.
        num_queries (`int`): of each code.

    Raises:
        ValueError: where the features cannot be divided so.
    """

    def __init__(self, features: int, num_labels: int, num_queries: int):
        if features % num_queries:
            raise ValueError(
                f"`num_queries` ({num_queries}) must divide the width that is attended over ({features}), of which each query of "
                "a code reads a part."
            )
        super().__init__(features // num_queries, num_labels * num_queries)
        self.num_queries = num_queries

    def forward(  # type: ignore[override]
        self, states, attention_mask, need_attentions: bool | torch.Tensor = True, only_codes=None, values=None
    ):
        """As that of [`LabelQueries`]; attention weights are the mean of those of a code's queries."""
        with without_autocast(states):
            states, queries = (
                widened(states),
                widened(self.weight).unflatten(0, (-1, self.num_queries)),
            )  # (C, M, F / M)
            values = states if values is None else widened(values)
            if only_codes is not None:
                queries = queries[only_codes.to(queries.device)]
            highest, mean = None, None
            for own, part in zip(queries.unbind(1), states.chunk(self.num_queries, dim=-1), strict=True):
                summaries, attentions = attend(own, part, attention_mask, need_attentions, values)
                highest = summaries if highest is None else torch.maximum(highest, summaries)
                if attentions is not None:
                    attentions = attentions / self.num_queries
                    mean = attentions if mean is None else mean + attentions
            return highest, mean


def attend(queries, states, attention_mask, need_attentions: bool | torch.Tensor, values):
    """What [`LabelQueries`] gives for queries `(C, F)`, states `(B, L, F)` and values `(B, L, V)`, all in fp32 or wider."""
    if need_attentions is True:
        scores = nn.functional.linear(states, queries).transpose(1, 2)  # (B, C, L)
        attentions = attend_per_label(scores, attention_mask)
        return attentions @ values, attentions
    summaries = summaries_per_label(queries, states, attention_mask, values)
    if need_attentions is False:
        return summaries, None
    codes = need_attentions.to(queries.device)
    attentions = attend_per_label(queries[codes.clamp(min=0)] @ states.mT, attention_mask)  # (B, K, L)
    return summaries, attentions if codes.dim() == 1 else attentions * (codes >= 0)[..., None]


def summaries_per_label(
    queries: torch.Tensor, states: torch.Tensor, attention_mask: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Of the values `(B, L, V)` what each query `(C, F)` attends to by the states `(B, L, F)` of each note: `(B, C, V)`."""
    queries = queries.expand(states.shape[0], 1, *queries.shape)  # (B, 1, C, F)
    real = attention_mask.bool()[:, None, None, :]
    attended = nn.functional.scaled_dot_product_attention(
        queries, states[:, None], values[:, None], attn_mask=real, scale=1.0
    )
    return attended.squeeze(1)


def highest_scores(queries: torch.Tensor, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The highest score that each query `(C, F)` gives to a token of the states `(B, L, F)`: `(B, C)`, to the precision of
    bfloat16, in which a processor that has it multiplies several times as fast."""
    narrow, rows = queries.bfloat16(), []
    for note, real in zip(states.bfloat16(), attention_mask.bool(), strict=True):
        tokens = note[real].T
        parts = [(some @ tokens).amax(dim=-1) for some in narrow.split(CODES_AT_A_TIME)]
        rows.append(torch.cat(parts))
    return torch.stack(rows).to(queries.dtype)


class LabelOutput(nn.Linear):
    """One output vector and bias per code, each for the summary of its own code, in fp32 or wider.

    Attributes:
        graph (`LabelGraph`, *optional*): what refines the vectors by those of other codes; see graph_icd.py.
    """

    def __init__(self, features: int, num_labels: int):
        super().__init__(features, num_labels)
        self.graph: Any = None

    def vectors(self, only_codes: torch.Tensor | None = None) -> torch.Tensor:
        """The vectors that logits are made with, `(C, F)`, or those of the codes `(K,)` alone, `(K, F)`."""
        if self.graph is not None:
            return self.graph(self.weight, only_codes)
        weight = widened(self.weight)
        return weight if only_codes is None else weight[only_codes.to(weight.device)]

    def forward(self, summaries, only_codes=None):  # type: ignore[override]
        """Summaries `(B, C, F)` to logits `(B, C)`; `only_codes` `(K,)` are the codes that there are, by default all."""
        weight, bias = self.vectors(only_codes), widened(self.bias)
        if only_codes is not None:
            bias = bias[only_codes.to(bias.device)]
        with without_autocast(summaries):
            return torch.einsum("bcf,cf->bc", widened(summaries), weight) + bias


class AttendingHead(nn.Module):
    """Base class of the heads that attend: a subclass makes `features` of the hidden states; every code has one query over
    them, in `queries`, and one output vector for what it attends to, in `output`. What a head sums may be other `values`
    than the features that its queries are compared with.

    Args:
        features (`int`): F, the width of what is attended over.
        num_labels (`int`): C.
        dropout (`float`): where the subclass puts it.
        summary_size (`int`, *optional*): width of what a code's output vector reads, where it is not F.
        num_queries (`int`): of each code; see [`SeveralQueries`].
    """

    evidence_method = "attention"  # what says best which words a code was read from; see evidence_icd.py
    # Whether the output vector of a code reads the features that its query is compared with: only then can a head be started
    # from notes, and its logits be estimated.
    reads_features = True
    # Whether each code has an output vector of its own, which a graph of codes can refine.
    has_label_outputs = True
    # Standard deviation of the random weights that the published model starts from; by default those of Glorot.
    initial_std: float | None = None

    def __init__(
        self, features: int, num_labels: int, dropout: float, summary_size: int | None = None, num_queries: int = 1
    ):
        super().__init__()
        self.queries: LabelQueries = LabelQueries(features, num_labels)
        if num_queries > 1:
            self.queries = SeveralQueries(features, num_labels, num_queries)
            self.reads_features = False  # each of them a part alone
        self.output: Any = LabelOutput(summary_size or features, num_labels)
        self.dropout = nn.Dropout(dropout)
        self.keeps_summaries = False  # whether what was attended to in training is kept for `take_summaries`
        self._summaries: torch.Tensor | None = None

    def __getstate__(self):
        """What a copy has: nothing of the last pass."""
        return vars(self) | {"_summaries": None}

    def take_summaries(self) -> torch.Tensor | None:
        """What each code attended to in the last pass of training, `(B, C, V)`, once; `None` where it was not kept."""
        summaries, self._summaries = self._summaries, None
        return summaries

    first_scale = 1.0
    """Standard deviation of what the first layer makes of the hidden states, where a head is started from notes."""

    @property
    def first_layer(self) -> nn.Module | None:
        """The layer that reads the hidden states, a linear one or a convolution of width 1, if there is one."""
        return None

    def features(self, hidden_states, attention_mask):
        """What is attended over, `(B, L, F)`, of hidden states `(B, L, D)` and their mask `(B, L)`."""
        raise NotImplementedError

    def memory(self, hidden_states, attention_mask):
        """The features `(B, L, F)`, and the values `(B, L, V)` that are summed: by default the features again."""
        features = self.features(hidden_states, attention_mask)
        return features, features

    def places(self, attention_mask):
        """Which of the features are real, `(B, P)`: by default there are as many as tokens."""
        return attention_mask

    def of_tokens(self, attentions, attention_mask):
        """The attention of the tokens `(B, K, L)`, made of that of the features `(B, K, P)`."""
        return attentions

    def complete(self, summaries, hidden_states, attention_mask):
        """What the output vectors read, `(B, C, S)`, of what each code attends to, `(B, C, V)`."""
        return summaries

    def own_loss(self, labels, is_mean: bool) -> torch.Tensor | None:
        """What the head adds in training to the loss of the batch that it has just read, summed over notes `labels` `(B, C)`;
        `None` if nothing. Where it is a sum over codes, `is_mean` asks for their mean."""
        return None

    def forward(
        self,
        hidden_states,
        attention_mask,
        need_attentions: bool | torch.Tensor = True,
        only_codes=None,
        shortlist: int | None = None,
    ):
        """Scores every code against every token, then classifies each code from its own summary.

        Args:
            hidden_states (`torch.FloatTensor` of shape `(B, L, D)`): windows already stitched into one sequence.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.
            need_attentions (`bool` or `torch.LongTensor`): for which codes to return attention weights: all, none, or those
                with these ids, `(K,)`, or `(B, K)` with -1 where a note has fewer. Without those of all codes less memory is
                needed, and the logits are the same to rounding.
            only_codes (`torch.LongTensor` of shape `(K,)`, *optional*): computes these codes alone, as if the head had no
                others; by default all C.
            shortlist (`int`, *optional*): where no attention weights are needed, how many codes of each note to compute
                exactly; see [`shortlisted_logits`].

        Returns:
            Logits `(B, C)`, before the sigmoid, and attention weights `(B, C, L)` or `(B, K, L)`, each row summing to 1 and
            0 on padding, or `None`.
        """
        given = hidden_states.to(self.queries.weight.dtype)
        states, values = self.memory(given, attention_mask)
        # A weight that lies on disk is there only while its own layer is called.
        are_there = all(
            values_are_known(weight) for part in (self.queries, self.output) for weight in part.parameters()
        )
        can_estimate = need_attentions is False and only_codes is None and are_there and self.reads_features
        if can_estimate and shortlist is not None and shortlist < self.queries.out_features:
            return self.shortlisted_logits(states, attention_mask, shortlist).to(hidden_states.dtype), None
        real = self.places(attention_mask)
        summaries, attentions = self.queries(states, real, need_attentions, only_codes, values)
        self._summaries = summaries if self.keeps_summaries and self.training and torch.is_grad_enabled() else None
        if attentions is not None:
            attentions = self.of_tokens(attentions, attention_mask)
        summaries = self.complete(summaries, given, attention_mask)
        return self.output(summaries, only_codes).to(hidden_states.dtype), attentions

    def shortlisted_logits(self, states: torch.Tensor, attention_mask: torch.Tensor, size: int) -> torch.Tensor:
        """Logits `(B, C)` of states `(B, L, F)`, exact for the `size` codes of each note whose estimate is highest. The others
        keep their estimates, but for those above the lowest exact logit, which are set just below it.
        """
        logits = self.estimated_logits(states, attention_mask)
        listed = logits.topk(size).indices  # (B, K)
        for i, codes in enumerate(listed):
            summaries, _ = self.queries(states[i : i + 1], attention_mask[i : i + 1], False, codes)
            exact = self.output(summaries, codes)[0]
            logits[i] = logits[i].clamp(max=exact.min() - 1e-4).scatter(0, codes, exact)
        return logits

    def estimated_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """What the logits `(B, C)` of states `(B, L, F)` are near: the token with the highest score of a code stands for all
        that the code attends to, and what its output vector makes of the direction of its query for all that it makes of this
        token. Estimates are made where the queries lie, and come out where the output vectors do, as logits do.
        """
        place = self.queries.weight.device
        with without_autocast(states):
            queries, outputs = widened(self.queries.weight), self.output.vectors().to(place)
            gains = (queries * outputs).sum(dim=-1) / queries.square().sum(dim=-1).clamp(min=1e-12)
            highest = highest_scores(queries, widened(states).to(place), attention_mask.to(place))
            return (highest * gains).to(self.output.bias.device) + widened(self.output.bias)


class LabelAttentionHead(AttendingHead):
    """One attention query and one output vector per code over a tanh projection of the hidden states. As CAML (arXiv
    1802.05695) does, a code sums the states that its query is compared with; LAAT sums the hidden states in front of the
    projection, see `LAATHead`. What stands around a token may count in the projection, too.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        projection_size (`int`, *optional*, defaults to `hidden_size`): width of the projection that is attended over.
        dropout (`float`): on the projected states.
        context_size (`int`, *optional*): odd width of a convolution that is added to the projection; by default none.
        num_queries (`int`): of each code; see [`SeveralQueries`].
    """

    first_scale = 0.3  # where a tanh is nearly linear

    def __init__(
        self, hidden_size: int, num_labels: int, projection_size=None, dropout=0.0, context_size=None, num_queries=1
    ):
        width = projection_size or hidden_size
        super().__init__(width, num_labels, dropout, num_queries=num_queries)
        self.projection = nn.Linear(hidden_size, width)
        self.context = None if context_size is None else SameConvolution(hidden_size, width, context_size)

    @property
    def first_layer(self):
        return self.projection

    def features(self, hidden_states, attention_mask):
        states = self.projection(hidden_states)
        if self.context is not None:
            states = states + self.context(RealTokens(attention_mask).clear(hidden_states))
        return self.dropout(torch.tanh(states))
