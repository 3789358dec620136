"""How a generative coder is asked: its settings, and the prompts that notes are put into.

What a note says stays text: where it holds the words of a special token, such as `<|im_end|>`, which ends a turn of a
conversation, it is read as these words, and never as that token.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .answers_icd import SEPARATOR, AnswerGrammar, answer_pieces
from .heads import require_positive


NOTE, EXAMPLE, QUESTION = "\x01note\x01", "\x01example\x01", "\x01question\x01"
"""Stand for the note, the note of an example, and the question about a code in the text of a prompt, until their tokens take the
place."""
CODE_PLACE = "{code}"  # of `question`
MODES = ("list", "verify")
LONG_NOTES = ("refuse", "sections")
SETTINGS: dict[str, Any] = {
    "mode": "list",
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
    "question": f"Does this text support the code {CODE_PLACE}? Answer yes or no.",
    "num_candidates": 20,
    "candidate_threshold": 0.001,
    "passage_tokens": 128,
    "retriever_weight": 0.0,
    "seed": 0,
}
"""What `generative` in config.json may hold, with its defaults; see [`~modeling_icd.generative_icd.GenerativeConfig`]."""
VERIFY_INSTRUCTION = "You check codes of ICD that were proposed for a clinical note."
LIST_ONLY = (
    *("codes_in_prompt", "titles", "examples", "max_codes", "constrained"),
    *("num_beams", "num_samples", "temperature", "tree_tokens"),
)
VERIFY_ONLY = ("question", "num_candidates", "candidate_threshold", "passage_tokens", "retriever_weight")


def complete_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of those that are not given.

    Raises:
        ValueError: where there is no such setting.
    """
    unknown = sorted(given.keys() - SETTINGS.keys())
    if unknown:
        raise ValueError(f"`generative` has no setting {unknown[0]!r}: it knows {', '.join(SETTINGS)}.")
    own = {"instruction": VERIFY_INSTRUCTION} if given.get("mode") == "verify" else {}
    return {**SETTINGS, **own, **given}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where a setting is out of range, or has no effect in the mode that is chosen."""
    mode = settings["mode"]
    if mode not in MODES:
        raise ValueError(f"`mode` must be {' or '.join(MODES)}, got {mode!r}.")
    for name in VERIFY_ONLY if mode == "list" else LIST_ONLY:
        if settings[name] != SETTINGS[name]:
            raise ValueError(f"`{name}` has no effect with `mode` {mode!r}: leave it out.")
    for name in ("max_note_tokens", "max_codes", "num_beams", "num_samples", "tree_tokens", "num_candidates"):
        require_positive(name, settings[name])
    if settings["long_notes"] not in LONG_NOTES:
        raise ValueError(f"`long_notes` must be {' or '.join(LONG_NOTES)}, got {settings['long_notes']!r}.")
    if settings["codes_in_prompt"] not in ("none", "codes", "titles"):
        raise ValueError(f"`codes_in_prompt` must be none, codes or titles, got {settings['codes_in_prompt']!r}.")
    if settings["num_beams"] > 1 and settings["num_samples"] > 1:
        raise ValueError("`num_beams` searches and `num_samples` draws: choose one of them.")
    if settings["temperature"] <= 0:
        raise ValueError(f"`temperature` must be above 0, got {settings['temperature']}.")
    if CODE_PLACE not in settings["question"]:
        raise ValueError(f"`question` must say with {CODE_PLACE} where the code and its title come.")
    for name in ("candidate_threshold", "retriever_weight"):
        if not 0 <= settings[name] <= 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {settings[name]}.")
    if mode == "verify" and not 0 <= settings["passage_tokens"] <= settings["max_note_tokens"]:
        raise ValueError(
            f"`passage_tokens` must be between 0 (whole notes) and `max_note_tokens` ({settings['max_note_tokens']}), got "
            f"{settings['passage_tokens']}."
        )


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
        self.before, *self.behind, self.after = self.template_tokens()
        bare = self.tokens("a")
        around = tokenizer("a")["input_ids"]
        # Special tokens that the tokenizer puts around a text: those of a note are left out, since the template has its own.
        self.start = next(i for i in range(len(around)) if around[i : i + len(bare)] == bare)
        self.stop = len(around) - self.start - len(bare)
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = special - {tokenizer.unk_token_id}
        self._line_ends: frozenset[int] | None = None

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

    def template_tokens(self) -> list[list[int]]:
        """The tokens of a prompt in front of the note, and behind it; with a question those between the two come in between."""
        examples = [note for note, _ in self.settings["examples"]]
        marks = [EXAMPLE] * len(examples) + ([NOTE, QUESTION] if self.is_asked else [NOTE])
        first, *others = re.split(f"({EXAMPLE}|{NOTE}|{QUESTION})", self.filled_template())
        if others[::2] != marks:
            raise ValueError(
                "The chat template of the tokenizer does not have each note of a prompt once, and in its place: take another language "
                "model."
            )
        before = self.tokens(first)
        pieces = [self.tokens(piece) for piece in others[1::2]]
        for example, piece in zip(examples, pieces, strict=False):
            before += [*self.text_tokens(example), *piece]
        return [before, *pieces[len(examples) :]]

    def filled_template(self) -> str:
        """The text of a prompt, with `NOTE`, `EXAMPLE` and `QUESTION` where these come."""
        marked = [[EXAMPLE, answer] for _, answer in self.settings["examples"]]
        asked = f"{NOTE}\n\n{QUESTION}" if self.is_asked else NOTE
        try:
            return self.tokenizer.apply_chat_template(
                self.conversation(asked, marked), tokenize=False, add_generation_prompt=True, enable_thinking=False
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

    @property
    def is_asked(self) -> bool:
        """Whether a prompt asks about one code."""
        return self.settings["mode"] == "verify"

    def question(self, class_id: int) -> list[int]:
        """What comes behind a note, or a passage of one, in a prompt that asks about a code."""
        code = self.config.id2label[class_id]
        title = (self.config.code_descriptions or {}).get(code)
        text = self.settings["question"].replace(CODE_PLACE, f"{code}, {title}" if title else code)
        return [*self.behind[0], *self.text_tokens(text), *self.after]

    def sections(self, note_tokens: Sequence[int]) -> list[list[int]]:
        """The parts in which a note is read: all of it where it fits a prompt."""
        limit = self.settings["max_note_tokens"]
        return [list(note_tokens)] if len(note_tokens) <= limit else split_tokens(note_tokens, limit, self.line_ends)

    @property
    def line_ends(self) -> frozenset[int]:
        """Tokens at whose end a line ends."""
        if self._line_ends is None:
            ids = range(len(self.tokenizer))
            self._line_ends = frozenset(i for i in ids if self.tokenizer.decode([i]).endswith("\n"))
        return self._line_ends


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
