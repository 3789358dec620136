"""MultiResCNN, a head of filters of several widths and residual blocks (arXiv 1912.00862)."""

import itertools
import re

import torch
from torch import nn

from .attention_icd import AttendingHead
from .layers_icd import NORMS, RealTokens, SameConvolution


class ResidualBlock(nn.Module):
    """conv, norm, tanh, conv, norm, plus a 1x1 convolution and norm of the input, then tanh (arXiv 1912.00862, 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout: float, norm: str = "batch"):
        super().__init__()
        make_norm = NORMS[norm]
        self.conv1 = SameConvolution(in_channels, out_channels, kernel_size)
        self.norm1 = make_norm(out_channels)
        self.conv2 = SameConvolution(out_channels, out_channels, kernel_size)
        self.norm2 = make_norm(out_channels)
        self.shortcut_conv = SameConvolution(in_channels, out_channels, 1)
        self.shortcut_norm = make_norm(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states, real: RealTokens):
        """`states` `(B, L, in)`, 0 on padding. Returns `(B, L, out)`, 0 on padding."""
        inner = real.clear(torch.tanh(self.norm1(self.conv1(states), real)))
        inner = self.norm2(self.conv2(inner), real)
        shortcut = self.shortcut_norm(self.shortcut_conv(states), real)
        return self.dropout(real.clear(torch.tanh(inner + shortcut)))


class FilterChannel(nn.Module):
    """One filter size: tanh of the base convolution D -> D, then the residual blocks."""

    def __init__(self, channels: list[int], kernel_size: int, dropout: float, norm: str = "batch"):
        super().__init__()
        self.base = SameConvolution(channels[0], channels[0], kernel_size, bias=True)
        self.blocks = nn.ModuleList(
            ResidualBlock(n_in, n_out, kernel_size, dropout, norm) for n_in, n_out in itertools.pairwise(channels)
        )

    def forward(self, states, real: RealTokens):
        """`states` `(B, L, D)`, 0 on padding. Returns `(B, L, num_filter_maps)`, 0 on padding."""
        states = real.clear(torch.tanh(self.base(states)))
        for block in self.blocks:
            states = block(states, real)
        return states


def residual_channels(width: int, num_filter_maps: int, num_residual_layers: int) -> list[int]:
    """Channels through the residual blocks of one filter, as in the original: 1 layer D -> maps, 2 layers
    D -> 100 -> maps, 3 layers D -> 150 -> 100 -> maps, and so on by steps of 50."""
    return [width, *(50 * (i + 1) for i in range(num_residual_layers - 1, 0, -1)), num_filter_maps]


class MultiResCNNHead(AttendingHead):
    """Multi-filter residual CNN with label attention (arXiv 1912.00862), over any hidden states.

    With the last four arguments left out it is the original; the others of the table are what `ARCHITECTURES` says.

    Args:
        hidden_size (`int`): D of the hidden states.
        num_labels (`int`): C.
        filter_sizes (`Sequence[int]`): odd kernel widths, one channel each.
        num_filter_maps (`int`): what each channel contributes to the states that are attended over.
        num_residual_layers (`int`): residual blocks per channel.
        reduction_size (`int`, *optional*): width of a 1x1 convolution in front; `None` is the original.
        dropout (`float`): on the hidden states and after each residual block.
        norm (`str`): `"batch"` or `"layer"`.
        reduced_path (`bool`): whether the states in front of the filters are attended over, too, beside what each filter
            makes of them: a code that one word tells need not be learned through three convolutions.
        projection_size (`int`): width of a layer norm, projection and tanh behind the filters, as in front of the
            attention of LAAT; 0: none.
        num_queries (`int`): of each code; see `SeveralQueries`.
    """

    evidence_method = "integrated_gradients"  # what is attended over, the filters made of several tokens

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        filter_sizes=(3, 5, 9, 15, 19, 25),
        num_filter_maps: int = 50,
        num_residual_layers: int = 1,
        reduction_size: int | None = None,
        dropout: float = 0.2,
        norm: str = "batch",
        reduced_path: bool = False,
        projection_size: int = 0,
        num_queries: int = 1,
    ):
        width = hidden_size if reduction_size is None else reduction_size
        joined = len(filter_sizes) * num_filter_maps + (width if reduced_path else 0)
        super().__init__(projection_size or joined, num_labels, dropout, num_queries=num_queries)
        self.reduction = None if reduction_size is None else SameConvolution(hidden_size, reduction_size, 1, bias=True)
        channels = residual_channels(width, num_filter_maps, num_residual_layers)
        self.channels = nn.ModuleDict(
            {str(size): FilterChannel(channels, size, dropout, norm) for size in filter_sizes}
        )
        self.reduced_path = reduced_path
        self.projection = None
        if projection_size:
            self.projection = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, projection_size), nn.Tanh())

    @property
    def first_layer(self):
        return self.reduction

    def features(self, hidden_states, attention_mask):
        real = RealTokens(attention_mask)
        states = self.dropout(hidden_states)
        if self.reduction is not None:
            states = self.reduction(states)
        states = real.clear(states)
        parts = [channel(states, real) for channel in self.channels.values()]
        states = torch.cat([*parts, *([states] if self.reduced_path else [])], dim=-1)
        return states if self.projection is None else self.projection(states)

    @classmethod
    def from_original(cls, state_dict, filter_sizes, dropout: float = 0.2):
        """Builds a head from a checkpoint of the original implementation.

        Args:
            state_dict (`dict[str, torch.Tensor]`):
                Weights under the original's names, less `word_rep.*` (ignored where present):
                `conv.channel-{k}.baseconv`, `conv.channel-{k}.resconv-{i}.left|shortcut.*`, `output_layer.U|final`.
            filter_sizes (`Sequence[int]`): in the order in which the original concatenates them.

        Raises:
            ValueError: naming weights that are missing or not the original's.
        """
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith("word_rep.")}
        renamed = {}
        for name, value in state_dict.items():
            # The original's attention query has a bias that its forward pass never reads.
            if name != "output_layer.U.bias":
                renamed[_from_original_name(name)] = value
        try:
            num_labels, features = renamed["queries.weight"].shape
            width = renamed[f"channels.{filter_sizes[0]}.base.weight"].shape[0]
        except KeyError as error:
            raise ValueError(
                f"The checkpoint has no weight {error}: is `filter_sizes` {filter_sizes} right?"
            ) from None
        num_layers = 1 + max(int(n.split(".")[3]) for n in renamed if ".blocks." in n)
        head = cls(width, num_labels, filter_sizes, features // len(filter_sizes), num_layers, None, dropout)
        missing, unexpected = head.load_state_dict(renamed, strict=False)
        if missing or unexpected:
            raise ValueError(
                f"Not a MultiResCNN with filters {list(filter_sizes)}: missing {missing[:3]}, unexpected {unexpected[:3]}."
            )
        return head


_ORIGINAL_NAMES = {
    "left.0": "conv1",
    "left.1": "norm1",
    "left.3": "conv2",
    "left.4": "norm2",
    "shortcut.0": "shortcut_conv",
    "shortcut.1": "shortcut_norm",
}


def _from_original_name(name: str) -> str:
    name = re.sub(r"^output_layer\.U\.", "queries.", name)
    name = re.sub(r"^output_layer\.final\.", "output.", name)
    name = re.sub(r"^conv\.channel-(\d+)\.baseconv\.", r"channels.\1.base.", name)
    return re.sub(
        r"^conv\.channel-(\d+)\.resconv-(\d+)\.((?:left|shortcut)\.\d)\.",
        lambda m: f"channels.{m[1]}.blocks.{m[2]}.{_ORIGINAL_NAMES.get(m[3], m[3])}.",
        name,
    )
