"""The reader of word models: the words of a note as vectors, with or without a recurrent network over them.

It is a backbone like any other: a folder with a configuration, weights and a tokenizer, which `AutoModel` loads, so that any head
of heads.py can stand on it. `modeling-icd train` makes the folder from the training notes.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .layers_icd import values_are_known
from .pooled_icd import require_positive


RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU}


class WordReaderConfig(PreTrainedConfig):
    """Configuration of [`WordReader`].

    Args:
        vocab_size (`int`): words, with those for padding and for unknown words.
        embedding_size (`int`, defaults to 100): width of a word's vector.
        embedding_dropout (`float`, defaults to 0.2): on these vectors, in [0, 1).
        train_vectors (`bool`, defaults to `True`): whether they learn with the rest of a model; else they stay as they are.
        rnn (`str`, *optional*): `"lstm"` or `"gru"` over the words of a note; by default none.
        rnn_size (`int`, defaults to 256): hidden units of each direction.
        num_rnn_layers (`int`, defaults to 1): one above the other.
        bidirectional (`bool`, defaults to `True`): whether a second network reads each note from its end.
        pad_token_id (`int`, defaults to 0): whose vector is 0, and stays so.
        max_position_embeddings (`int`, *optional*): words of a note that are read, where the tokenizer cuts it there.

    Raises:
        ValueError: where a field is out of range; the message names it.
    """

    model_type = "icd_words"

    vocab_size: int = 2
    embedding_size: int = 100
    embedding_dropout: float = 0.2
    train_vectors: bool = True
    rnn: str | None = None
    rnn_size: int = 256
    num_rnn_layers: int = 1
    bidirectional: bool = True
    pad_token_id: int | None = 0
    max_position_embeddings: int | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.rnn is not None and self.rnn not in RECURRENT:
            raise ValueError(f"`rnn` must be {' or '.join(map(repr, RECURRENT))}, or None, got {self.rnn!r}.")
        sizes = {
            "vocab_size": self.vocab_size,
            "embedding_size": self.embedding_size,
            "rnn_size": self.rnn_size,
            "num_rnn_layers": self.num_rnn_layers,
        }
        for name, value in sizes.items():
            require_positive(name, value)
        if self.max_position_embeddings is not None:
            require_positive("max_position_embeddings", self.max_position_embeddings)
        dropout = self.embedding_dropout
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"`embedding_dropout` must be a number in [0, 1), got {dropout!r}.")
        for name, flag in {"bidirectional": self.bidirectional, "train_vectors": self.train_vectors}.items():
            if not isinstance(flag, bool):
                raise ValueError(f"`{name}` must be true or false, got {flag!r}.")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"`pad_token_id` ({self.pad_token_id}) is none of the {self.vocab_size} words.")

    @property
    def hidden_size(self) -> int:
        """Width of what a head reads."""
        if self.rnn is None:
            return self.embedding_size
        return self.rnn_size * (2 if self.bidirectional else 1)

    @property
    def num_hidden_layers(self) -> int:
        """Layers above the word vectors."""
        return 0 if self.rnn is None else 1


class WordReader(PreTrainedModel):
    """Word vectors, and above them a recurrent network where the configuration has one.

    The network reads each note alone: no padding enters its states, also not in the direction that begins at a note's end.
    """

    config_class = WordReaderConfig
    config: WordReaderConfig
    base_model_prefix = "model"

    def __init__(self, config: WordReaderConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.rnn: Any = None
        if config.rnn is not None:
            self.rnn = RECURRENT[config.rnn](
                config.embedding_size,
                config.rnn_size,
                num_layers=config.num_rnn_layers,
                bidirectional=config.bidirectional,
                batch_first=True,
            )
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def set_input_embeddings(self, value):
        self.embeddings = value

    def _init_weights(self, module):
        """Leaves a layer as torch has made it; weights that a file lacks are named by `from_pretrained`."""

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Reads notes.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, L)`): words, padded at the end.
            attention_mask (`torch.LongTensor` of shape `(B, L)`, *optional*): 1 for a real word; by default all are.
            inputs_embeds (`torch.FloatTensor` of shape `(B, L, embedding_size)`, *optional*): in place of `input_ids`.
            output_hidden_states (`bool`, *optional*): whether to return the word vectors and, where there is one, the states of
                the recurrent network.

        Returns:
            `last_hidden_state` `(B, L, hidden_size)`; `hidden_states`, where they are asked for.
        """
        embedded = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        embedded = self.dropout(embedded)
        layers = (embedded,) if self.rnn is None else (embedded, self._read(embedded, attention_mask))
        return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if output_hidden_states else None)

    def _read(self, embedded, attention_mask):
        """States `(B, L, hidden_size)` of the recurrent network, 0 on padding."""
        if attention_mask is None or not values_are_known(attention_mask) or bool(attention_mask.all()):
            return self.rnn(embedded)[0]
        lengths = attention_mask.sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.rnn(packed)
        return nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=embedded.shape[1])[0]


AutoConfig.register(WordReaderConfig.model_type, WordReaderConfig, exist_ok=True)
AutoModel.register(WordReaderConfig, WordReader, exist_ok=True)
