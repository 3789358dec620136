"""The heads of the models that ours are compared with: CAML, DR-CAML, the CNN beside them, LAAT, JointLAAT and PLM-CA.

Each computes what its authors' code does, but for padding, which changes no answer here and does in most of them.
"""

import torch
from torch import nn

from .attention_icd import AttendingHead, widened
from .layers_icd import RealTokens, SameConvolution, without_autocast
from .pooled_icd import PooledHead, require_positive


def upper_codes(codes: list[str]) -> list[int]:
    """Of each code the number of the one above it, which is its first three characters, as JointLAAT (arXiv 2007.06351) has
    it; they are numbered in sorted order."""
    uppers = sorted({code[:3] for code in codes})
    numbers = {upper: number for number, upper in enumerate(uppers)}
    return [numbers[code[:3]] for code in codes]


class CAMLHead(AttendingHead):
    """A convolution over the tokens and one attention query per code (CAML, arXiv 1802.05695, `ConvAttnPool`).

    With a `description_weight` it is DR-CAML: the output vector of each code that a note has is drawn towards what a second
    convolution makes of the words of the code's title.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        num_filter_maps (`int`): F, channels of the convolution.
        filter_size (`int`): width of the convolution. An even one has `L + 1` places; the weight of the last of them, behind
            a note's end, counts as the last token's.
        dropout (`float`): on the hidden states.
        description_weight (`float`): lambda of DR-CAML; 0: none.
        description_words (`int`): size of the vocabulary that titles are written in.

    Attributes:
        titles (`torch.LongTensor` of shape `(C, T)`, *optional*):
            Words of each code's title, padded with the word 0. DR-CAML must be given them before it learns; they are not saved.
    """

    reads_features = False  # there may be more features than tokens

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        num_filter_maps: int = 50,
        filter_size: int = 10,
        dropout: float = 0.0,
        description_weight: float = 0.0,
        description_words: int = 0,
    ):
        super().__init__(num_filter_maps, num_labels, dropout)
        self.convolution = SameConvolution(hidden_size, num_filter_maps, filter_size, bias=True)
        self.description_weight = description_weight
        self.titles: torch.Tensor | None = None
        if description_weight:
            require_positive("description_words", description_words)
            self.title_words = nn.Embedding(description_words, hidden_size, padding_idx=0)
            self.title_convolution = SameConvolution(hidden_size, num_filter_maps, filter_size, bias=True)
            self.title_output = nn.Linear(num_filter_maps, num_filter_maps)

    @property
    def is_between(self) -> bool:
        """Whether a filter stands between two tokens."""
        return self.convolution.kernel_size[0] % 2 == 0

    def features(self, hidden_states, attention_mask):
        states = RealTokens(attention_mask).clear(self.dropout(hidden_states))
        return torch.tanh(self.convolution(states))

    def places(self, attention_mask):
        if not self.is_between:
            return attention_mask
        behind = nn.functional.pad(attention_mask, (1, 0))
        return torch.maximum(nn.functional.pad(attention_mask, (0, 1)), behind)

    def of_tokens(self, attentions, attention_mask):
        if not self.is_between:
            return attentions
        real = attention_mask[:, None, :].to(attentions.dtype)
        is_last = 1 - nn.functional.pad(real, (0, 1))[..., 1:]
        return real * (attentions[..., :-1] + is_last * attentions[..., 1:])

    def title_vectors(self, codes: torch.Tensor) -> torch.Tensor:
        """What the output vectors of the codes `(K,)` are drawn towards, `(K, F)`."""
        if self.titles is None:
            raise ValueError("This head learns from the titles of its codes: give their words as its `titles` first.")
        words = self.title_words(self.titles.to(codes.device)[codes])
        return self.title_output(torch.tanh(self.title_convolution(words)).amax(dim=1))

    def own_loss(self, labels, is_mean: bool):
        if not self.description_weight:
            return None
        codes = labels.nonzero()[:, 1]
        wanted, inverse = codes.unique(return_inverse=True)
        distances = (self.output.weight[wanted] - self.title_vectors(wanted)).square().mean(dim=1)
        return self.description_weight * distances[inverse].sum()


class CNNHead(PooledHead):
    """The highest value of each filter over a note, then one linear layer (`VanillaConv` beside CAML, arXiv 1802.05695).

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        num_filter_maps (`int`): F.
        filter_size (`int`): tokens that a filter reads. A note of fewer tokens is read with zeros behind it.
        dropout (`float`): on the highest values.
    """

    evidence_method = "integrated_gradients"

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        num_filter_maps: int = 500,
        filter_size: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__(num_filter_maps, num_labels, pooling="filters", dropout=dropout, score_bias=True)
        self.filter_size = filter_size
        self.convolution = nn.Conv1d(hidden_size, num_filter_maps, filter_size)

    def pooled(self, hidden_states, attention_mask):
        """`(B, F)`."""
        real = attention_mask.bool()
        states = hidden_states * real[..., None]
        behind = self.filter_size - 1
        values = self.convolution(nn.functional.pad(states, (0, 0, 0, behind)).mT)  # (B, F, L), by its first token
        is_whole = real & nn.functional.pad(real, (0, behind))[:, behind:]
        first = real & (real.cumsum(dim=1) == 1)
        is_read = is_whole | (first & ~is_whole.any(dim=1, keepdim=True))
        lowest = torch.finfo(values.dtype).min
        return torch.tanh(values.masked_fill(~is_read[:, None, :], lowest).amax(dim=2))


class LAATHead(AttendingHead):
    """Queries over a tanh projection of the hidden states, and the sum of the hidden states themselves (LAAT, arXiv
    2007.06351, equations 5 to 8).

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        projection_size (`int`, *optional*, defaults to `hidden_size`): width of the projection.
        dropout (`float`): on the hidden states.
        summary_size (`int`, *optional*, defaults to `hidden_size`): width of what output vectors read.
        num_queries (`int`): of each code; see `SeveralQueries`. With several it is the decoder of MSMN.
    """

    reads_features = False
    initial_std = 0.03

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        projection_size: int | None = None,
        dropout: float = 0.0,
        summary_size: int | None = None,
        num_queries: int = 1,
    ):
        width = projection_size or hidden_size
        super().__init__(width, num_labels, dropout, summary_size or hidden_size, num_queries)
        self.projection = nn.Linear(hidden_size, width, bias=False)

    def features(self, hidden_states, attention_mask):
        return torch.tanh(self.projection(hidden_states))

    def memory(self, hidden_states, attention_mask):
        states = self.dropout(hidden_states)
        return self.features(states, attention_mask), states


class JointLAATHead(LAATHead):
    """LAAT over two levels of codes: what it finds of the upper one enters the scores of the lower one (JointLAAT, arXiv
    2007.06351, section 3.5), and both are learned.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C, codes of the lower level.
        parents (`Sequence[int]`): of each code the number of its code of the upper level, from 0.
        projection_size (`int`, *optional*, defaults to `hidden_size`): width of both levels' projections.
        level_projection_size (`int`): width of what the lower level is told of the upper one.
        dropout (`float`): on the hidden states.
    """

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        parents,
        projection_size: int | None = None,
        level_projection_size: int = 128,
        dropout: float = 0.0,
    ):
        super().__init__(hidden_size, num_labels, projection_size, dropout, hidden_size + level_projection_size)
        num_parents = max(parents) + 1
        self.upper = LAATHead(hidden_size, num_parents, projection_size, dropout)
        self.level_projection = nn.Linear(num_parents, level_projection_size, bias=False)
        self.parents = list(parents)
        self.upper_logits: torch.Tensor | None = None

    def __getstate__(self):
        """What a copy has: nothing of the last pass."""
        return vars(self) | {"upper_logits": None, "_summaries": None}

    def complete(self, summaries, hidden_states, attention_mask):
        logits, _ = self.upper(hidden_states, attention_mask, need_attentions=False)  # (B, parents)
        self.upper_logits = logits if self.training and torch.is_grad_enabled() else None
        # The authors' code puts the projection of the scores through a sigmoid, too.
        told = torch.sigmoid(self.level_projection(torch.sigmoid(logits)))[:, None]
        return torch.cat([summaries, told.expand(-1, summaries.shape[1], -1).to(summaries.dtype)], dim=-1)

    def own_loss(self, labels, is_mean: bool):
        """The binary cross-entropy of the upper level, of which a note has the codes that its own have above them."""
        logits, self.upper_logits = self.upper_logits, None
        if logits is None:  # it has been asked for this pass already
            return None
        parents = torch.tensor(self.parents, device=labels.device)
        targets = labels.new_zeros(logits.shape).index_add(1, parents, labels).clamp(max=1)
        losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
        return losses.sum() / (logits.shape[1] if is_mean else 1)


class SharedOutput(nn.Module):
    """A layer norm and one output vector for all codes, in fp32 or wider: `(B, C, D)` to `(B, C)`."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1)

    def forward(self, summaries, only_codes=None):
        """Summaries of the codes that there are, whichever these are."""
        with without_autocast(summaries):
            weight, bias = widened(self.norm.weight), widened(self.norm.bias)
            normed = nn.functional.layer_norm(
                widened(summaries), self.norm.normalized_shape, weight, bias, self.norm.eps
            )
            return nn.functional.linear(normed, widened(self.output.weight), widened(self.output.bias)).squeeze(-1)


class CrossAttentionHead(AttendingHead):
    """Each code is a query of a cross attention over the note, and all codes share the output vector (PLM-CA, Edin et al.,
    arXiv 2406.08958, `LabelCrossAttention`).

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        dropout (`float`): on the hidden states.
    """

    reads_features = False
    has_label_outputs = False
    initial_std = 0.03

    def __init__(self, hidden_size: int, num_labels: int, dropout: float = 0.0):
        super().__init__(hidden_size, num_labels, dropout)
        self.projection = nn.Linear(hidden_size, hidden_size, bias=False)
        self.values = nn.Linear(hidden_size, hidden_size)
        self.output = SharedOutput(hidden_size)

    def features(self, hidden_states, attention_mask):
        return self.projection(hidden_states)

    def memory(self, hidden_states, attention_mask):
        states = self.dropout(hidden_states)
        return self.projection(states), self.values(states)
