"""How a generative coder is asked: its settings, and the prompts that notes are put into.

What a note says stays text: where it holds the words of a special token, such as `<|im_end|>`, which ends a turn of a
conversation, it is read as these words, and never as that token.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .answers_icd import SEPARATOR, AnswerGrammar, answer_pieces


NOTE, EXAMPLE = "\x01note\x01", "\x01example\x01"
"""Stand for the note, and for the note of an example, in the text of a prompt, until their tokens take the place."""
LONG_NOTES = ("refuse", "sections")
SETTINGS: dict[str, Any] = {
    "instruction": "Give the ICD codes of this clinical note, separated by semicolons, and nothing else.",
    "codes_in_prompt": "none",
    "titles": False,
    "examples": [],
    "max_note_tokens": 1024,
    "long_notes": "refuse",
    "max_codes": 40,
    "constrained": True,
    "num_beams": 1,
    "num_samples": 1,
    "temperature": 1.0,
    "tree_tokens": 512,
    "seed": 0,
}
"""What `generative` in config.json may hold, with its defaults; see [`~modeling_icd.generative_icd.GenerativeConfig`]."""


class Prompter:
    """Puts notes into prompts, by the chat template of the tokenizer.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): with a chat template.
        config (`GenerativeConfig`): which says what is asked.

    Raises:
        ValueError: where the tokenizer has no chat template, or one that does not take such a conversation.
    """

    def __init__(self, tokenizer: Any, config: Any):
        if not tokenizer.chat_template:
            raise ValueError(
                "The tokenizer has no chat template, so nothing says how this language model is asked: take one that follows "
                "instructions, such as SmolLM2-135M-Instruct."
            )
        self.tokenizer, self.config, self.settings = tokenizer, config, config.generative or {}
        self.before, self.after = self.template_tokens()
        bare = self.tokens("a")
        around = tokenizer("a")["input_ids"]
        # Special tokens that the tokenizer puts around a text: those of a note are left out, since the template has its own.
        self.start = next(i for i in range(len(around)) if around[i : i + len(bare)] == bare)
        self.stop = len(around) - self.start - len(bare)
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = special - {tokenizer.unk_token_id}

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text of ours, in which special tokens count as such."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a note's text, in which nothing is a special token, and the characters of each."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        return encoded["input_ids"], encoded["offset_mapping"]

    def text_tokens(self, text: str) -> list[int]:
        """The tokens of a note's text; see [`encode`]."""
        return self.encode(text)[0]

    def template_tokens(self) -> tuple[list[int], list[int]]:
        """The tokens of a prompt in front of the note, and behind it."""
        examples = [note for note, _ in self.settings["examples"]]
        marks = [EXAMPLE] * len(examples) + [NOTE]
        first, *others = re.split(f"({EXAMPLE}|{NOTE})", self.filled_template())
        if others[::2] != marks:
            raise ValueError(
                "The chat template of the tokenizer does not have each note of a prompt once, and in its place: take another language "
                "model."
            )
        before = self.tokens(first)
        for example, piece in zip(examples, others[1::2], strict=False):
            before += [*self.text_tokens(example), *self.tokens(piece)]
        return before, self.tokens(others[-1])

    def filled_template(self) -> str:
        """The text of a prompt, with `NOTE` where the note comes, and `EXAMPLE` where those of examples come."""
        marked = [[EXAMPLE, answer] for _, answer in self.settings["examples"]]
        try:
            return self.tokenizer.apply_chat_template(
                self.conversation(NOTE, marked), tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except ImportError:
            raise
        except Exception:  # of the template's own language; what it quotes may be an example, which is a note
            raise ValueError(
                "The chat template of the tokenizer refuses a turn of the system, or what follows it, so this language model cannot be asked "
                "in this way: take one whose template has a system's turn, such as SmolLM2 or Qwen3."
            ) from None

    def messages(self, note: str) -> list[dict[str, str]]:
        """The turns of a conversation that ask for the codes of a note."""
        return self.conversation(note, self.settings["examples"])

    def conversation(self, note: str, examples: Sequence[Sequence[str]]) -> list[dict[str, str]]:
        """The turns that ask for the codes of a note, with examples `[note, answer]` before it."""
        turns = [{"role": "system", "content": self.instruction()}]
        for example, answer in examples:
            turns += [{"role": "user", "content": example}, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": note}]

    def instruction(self) -> str:
        """The instruction, and the codes where the prompt lists them."""
        codes, titles = self.codes(), self.config.code_descriptions or {}
        if self.settings["codes_in_prompt"] == "none":
            return self.settings["instruction"]
        with_titles = self.settings["codes_in_prompt"] == "titles"
        lines = [f"{code} {titles[code]}" if with_titles and code in titles else code for code in codes]
        separator = "\n" if with_titles else SEPARATOR
        return f"{self.settings['instruction']}\nThe codes to choose from:\n{separator.join(lines)}"

    def codes(self) -> list[str]:
        return [self.config.id2label[i] for i in range(self.config.num_labels)]

    def answer(self, codes: Sequence[str]) -> str:
        """The text of an answer."""
        return "".join(answer_pieces(codes, self.titles()))

    def titles(self) -> dict[str, str] | None:
        return self.config.code_descriptions if self.settings["titles"] else None

    def grammar(self, end: Sequence[int]) -> AnswerGrammar:
        """What answers may be; `end` are the tokens that end one."""
        first, later = [], []
        for code in self.codes():
            filler, piece = answer_pieces(["", code], self.titles())
            first.append(self.tokens(piece.removeprefix(SEPARATOR)))
            later.append(self.tokens(filler + piece))
        return AnswerGrammar(first, later, end, min(self.settings["max_codes"], len(first)))

    def note_tokens(self, input_ids: Sequence[int]) -> list[int]:
        """The tokens of a note alone, of those that the tokenizer gives for it. Where it took words of the note for a special
        token, these are words again."""
        own = list(input_ids[self.start : len(input_ids) - self.stop])
        return own if self.special.isdisjoint(own) else self.text_tokens(self.text_of(own))

    def text_of(self, note_tokens: Sequence[int]) -> str:
        """The text of a note's tokens."""
        return self.tokenizer.decode(list(note_tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def prompt(self, note_tokens: Sequence[int]) -> list[int]:
        return [*self.before, *note_tokens, *self.after]


def split_tokens(note: Sequence[int], limit: int, line_ends: frozenset[int]) -> list[list[int]]:
    """A note in parts of at most `limit` tokens; a part ends where a line does, if one does in its second half."""
    parts, rest = [], list(note)
    while len(rest) > limit:
        cut = next((i + 1 for i in range(limit - 1, limit // 2, -1) if rest[i] in line_ends), limit)
        parts.append(rest[:cut])
        rest = rest[cut:]
    return [*parts, rest]


def check_lengths(lengths: Sequence[int], settings: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where notes have more tokens than a prompt may have, unless they are read in sections."""
    limit = settings["max_note_tokens"]
    too_long = [length for length in lengths if length > limit]
    if too_long and settings["long_notes"] == "refuse":
        raise ValueError(
            f"{len(too_long)} of {len(lengths)} notes have more than {limit} tokens (`max_note_tokens`), the longest {max(too_long)}, and "
            "none is cut: raise `max_note_tokens` as far as the model's context goes, or give `long_notes` 'sections', which reads "
            "them part by part."
        )
