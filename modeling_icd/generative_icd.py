"""A generative coder: a language model that is asked for the codes of a note, and answers with a list of them, or is asked about each
code that another coder proposes (verify_icd.py).

Its folder is one of a plain language model: `AutoModelForCausalLM` and servers load it as such. What makes a coder of it is in
`config.json`: the codes, the instruction, and how answers are decoded. [`GenerativeForICD`] reads that, and gives logits for each
code as every other model does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LogitsProcessorList, PreTrainedModel

from .answers_icd import AnswerGrammar, CodeTrie, CodeTrieProcessor, check_written, read_codes
from .base_configuration_icd import CUSTOM_PIPELINES, ICDBaseConfig
from .decision_icd import decision_fields
from .modeling_icd import ICDCodingOutput
from .prompts_icd import Prompter, check_lengths, check_settings, complete_settings
from .sharing_icd import REMEDY, ModelPushGuard, guard_parts, options_by_name, refuse_push
from .verify_icd import Retriever, Verifier
from .versions_icd import VERSION
from .windows_icd import pad_rows


ATTENTIONS = ("sdpa", "eager")
"""Which read the tokens of other codes beside an answer, for which a mask says what each of them sees."""
LEAST = 1e-6  # of the probability of a code, so that its logit is finite
KEPT_FIELDS = ("id2label", "label2id", "code_descriptions", "training_data", *decision_fields())


class GenerativeConfig(ICDBaseConfig):
    """Configuration of [`GenerativeForICD`]: codes, thresholds and descriptions as of every model, and these fields.

    What it saves is the configuration of the language model, with these fields beside its own.

    Args:
        causal_config (`dict`): of the language model.
        generative (`dict`): how it is asked, and how its answers become codes:
            `mode`: `list`: the answer to a note lists its codes; `verify`: the codes that a retriever proposes are asked about one
            by one;
            `instruction`: the text in front of the note;
            `max_note_tokens`: of one prompt; a longer note is an error (`long_notes` `refuse`), or is read part by part, ending
            where a line ends if possible, and each code has the highest of its scores (`sections`);
            `seed`: of whatever is drawn;
            and of the mode `list` alone:
            `codes_in_prompt`: `none`, or whether the prompt lists all `codes`, or their `titles`, too;
            `titles`: whether an answer has the title behind each code;
            `examples`: notes with their answers that come before the note, lists `[note, answer]`;
            `max_codes`: of an answer;
            `constrained`: whether codes of the set alone can be generated, none twice; else the answer is free, and what of it is
            a code of the set counts;
            `num_beams`: of a beam search; 1 is greedy;
            `num_samples`, `temperature`: above 1, so many answers are drawn instead;
            `tree_tokens`: tokens at most that are read beside the answer, at each code of it, to tell how likely the others
            would have been; below these, codes that begin alike are taken as equally likely.
            and of the mode `verify` alone:
            `question`: what is asked about a code, with `{code}` where it comes, its title behind it;
            `num_candidates`, `candidate_threshold`: how many codes of a note are asked about at most, and the score that the
            retriever must give them;
            `passage_tokens`: of the passage that is read of a note, around the words that spoke for the code; 0, and where the
            retriever does not tell these: whole notes;
            `retriever_weight`: the share of the retriever in the logit of a code, in [0, 1].
    """

    model_type = "icd_generative"
    backbone_type: ClassVar[str] = "generative"
    head_field: ClassVar[str] = "head"
    head: ClassVar[str] = "generative"
    hidden_size: ClassVar[int] = 1
    num_hidden_layers: ClassVar[int] = 0
    max_position_embeddings: ClassVar[None] = None
    vocab_size: ClassVar[int] = 1
    _auto_class = "AutoConfig"  # so that saving brings the code; the entry itself is left out below

    causal_config: dict[str, Any] | None = None
    generative: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        self.generative = complete_settings(self.generative or {})
        super().__post_init__(**kwargs)

    @classmethod
    def of_causal(cls, config: Any) -> "GenerativeConfig":
        """The configuration of a coder, from the one of its language model as it was saved.

        Raises:
            ValueError: where that is none of a coder.
        """
        fields = config.to_dict()
        if not is_generative(config):
            raise ValueError("config.json has no `generative`: this is a language model, and no coder made of one.")
        own = {name: fields[name] for name in (*KEPT_FIELDS, "generative") if name in fields}
        causal = {name: value for name, value in fields.items() if name not in (*own, *ADDED_FIELDS)}
        return cls(**own, causal_config=causal)

    def _check_head(self) -> None:
        check_settings(self.generative or {})

    def to_dict(self):
        """What config.json holds: the language model's fields, the codes and the settings."""
        own = {name: vars(self)[name] for name in KEPT_FIELDS if vars(self).get(name) is not None}
        return {
            **(self.causal_config or {}),
            **own,
            "id2label": {str(i): code for i, code in (self.id2label or {}).items()},
            "generative": self.generative,
            "auto_map": {"AutoModelForSequenceClassification": "generative_icd.GenerativeForICD"},
            "custom_pipelines": CUSTOM_PIPELINES,
            "modeling_icd_version": VERSION,
        }

    def to_diff_dict(self):
        return self.to_dict()


ADDED_FIELDS = ("auto_map", "custom_pipelines", "modeling_icd_version", "_name_or_path", "problem_type", "num_labels")


def is_generative(config: Any) -> bool:
    """Whether a configuration is the one of a language model that codes notes."""
    return isinstance(getattr(config, "generative", None), Mapping)


class _NoHead(nn.Module):
    """In place of a head, which this model has none of: nothing says which words a code was read from."""

    pooling = "last"


class GenerativeForICD(ModelPushGuard, PreTrainedModel):
    """Codes notes with a language model: `model` answers a prompt, and its answer becomes logits for each code.

    With n answers (1, or `num_samples`), t of which have a code, and p the highest probability that it had to come next, at the
    beginning of an answer or behind any code of one, its score is (t + p) / (n + 1), and its logit the log odds of that. So with
    one answer just the codes of that score above 0.5. In the mode `verify` the logit of a code that is asked about is the log odds of
    yes against no; see [`~modeling_icd.verify_icd.Verifier`].

    Args:
        config (`GenerativeConfig`): of the coder.
        model (`PreTrainedModel`): a language model of `AutoModelForCausalLM`.
        tokenizer (`PreTrainedTokenizerFast`): its own, with a chat template.
        retriever (`Retriever`, *optional*): in the mode `verify`, and in no other, what proposes codes.
    """

    config_class = GenerativeConfig
    config: GenerativeConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    grammar: AnswerGrammar  # in the mode `list`
    verifier: Verifier  # in the mode `verify`

    def __init__(self, config: GenerativeConfig, model: Any, tokenizer: Any, retriever: Retriever | None = None):
        config._check_fields()
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model, self.tokenizer, self.score = model, tokenizer, _NoHead()
        check_attention(model.config._attn_implementation)
        self.config._attn_implementation = model.config._attn_implementation
        self.end = end_tokens(model, tokenizer)
        # What the language model's makers recommend for chats, such as a temperature, must not shape answers.
        model.generation_config = GenerationConfig(
            bos_token_id=model.generation_config.bos_token_id,
            pad_token_id=model.generation_config.pad_token_id,
            eos_token_id=self.end,
        )
        self.prompter = Prompter(tokenizer, config)
        self.retriever = retriever
        if (self.settings["mode"] == "verify") != (retriever is not None):
            raise ValueError(f"A retriever belongs to `mode` verify, and `mode` is {self.settings['mode']!r}.")
        if retriever is None:
            self._prepare_lists()
        else:
            self.verifier = Verifier(self.prompter, retriever, self.end)
        guard_parts(self)

    def _prepare_lists(self) -> None:
        """Make what answers that list codes are generated and scored by."""
        if not self.settings["constrained"]:
            check_written(self.prompter.codes())
        self.grammar = self.prompter.grammar(self.end)
        limit = self.settings["tree_tokens"]
        # At the beginning of an answer, and behind a code.
        self._branching = [Branches(self.grammar, trie, limit) for trie in (self.grammar.first, self.grammar.later)]
        self.counts = dict.fromkeys(("notes", "answers", "codes", "invalid", "repeated"), 0)

    @property
    def verifies(self) -> bool:
        """Whether it asks about the candidates of a retriever, one by one."""
        return self.retriever is not None

    @property
    def settings(self) -> dict[str, Any]:
        return self.config.generative or {}

    def shared_record(self):
        return self.config.training_data

    @classmethod
    def from_pretrained(cls, name, *args, config=None, output_loading_info=False, **kwargs):
        """Loads the language model and makes a coder of it; arguments as those of `AutoModelForCausalLM.from_pretrained`."""
        kwargs = {key: value for key, value in kwargs.items() if key not in ("trust_remote_code", "code_revision")}
        check_attention(kwargs.get("attn_implementation"))
        model, info = AutoModelForCausalLM.from_pretrained(name, *args, output_loading_info=True, **kwargs)
        of_hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
        settings = GenerativeConfig.of_causal(model.config)
        is_verifier = (settings.generative or {})["mode"] == "verify"
        retriever = Retriever.from_pretrained(name, **of_hub) if is_verifier else None
        coder = cls(settings, model, AutoTokenizer.from_pretrained(name, **of_hub), retriever)
        return (coder, info) if output_loading_info else coder

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves the language model, and the configuration and code of the coder; it pushes neither.

        Raises:
            ValueError: where it is told to push.
        """
        if options_by_name(self.model.save_pretrained, args, kwargs).get("push_to_hub"):
            refuse_push(self.shared_record(), type(self).__name__)
            raise ValueError(
                f"`save_pretrained` of a {type(self).__name__} saves and does not push; nothing was uploaded. {REMEDY}"
            )
        self.model.save_pretrained(save_directory, *args, **kwargs)
        self.config.causal_config = {**(self.config.causal_config or {}), **plain_fields(self.model)}
        self.config.save_pretrained(save_directory)
        if self.retriever is not None:
            self.retriever.save_pretrained(save_directory)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ICDCodingOutput | tuple:
        """Answers for each note, and scores every code.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, L)`): tokens of whole notes, without a prompt, padded at the end.
            attention_mask (`torch.LongTensor` of shape `(B, L)`, *optional*): 1 for a real one; by default all are.
            output_hidden_states (`bool`, *optional*): whether to return `hidden_states` `(B, L, 1)`, which hold nothing.
            kwargs: other arguments of `forward` of a trained model; `labels` among them is refused.

        Raises:
            ValueError: where there are no `input_ids`, where something is to be learned, or where a note is too long.
        """
        if input_ids is None:
            raise ValueError("Give `input_ids`: a generative coder reads the tokens of notes.")
        if kwargs.get("labels") is not None:
            raise ValueError(
                "A generative coder is trained by `modeling-icd train` (docs/generative.md), not by its `forward`."
            )
        lengths = [input_ids.shape[1]] * len(input_ids) if attention_mask is None else attention_mask.sum(1).tolist()
        notes = [self.prompter.note_tokens(ids[:n]) for ids, n in zip(input_ids.tolist(), lengths, strict=True)]
        with torch.no_grad():
            logits = (self.verified(notes) if self.verifies else self.code_logits(notes)).to(input_ids.device)
        states = torch.zeros(*input_ids.shape, 1, device=input_ids.device) if output_hidden_states else None
        output = ICDCodingOutput(logits=logits, hidden_states=states)
        return output if return_dict is not False else output.to_tuple()

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raise a `ValueError` where notes of so many tokens are more than a prompt may have; called before any is read."""
        if not self.reads_passages:
            check_lengths([length - self.prompter.start - self.prompter.stop for length in lengths], self.settings)

    @property
    def reads_passages(self) -> bool:
        """Whether passages are read in place of whole notes, which may then have any length."""
        return self.retriever is not None and self.settings["passage_tokens"] > 0 and self.retriever.has_evidence

    def verified(self, notes: Sequence[Sequence[int]]) -> torch.Tensor:
        """As [`code_logits`], of a coder that verifies the candidates of its retriever."""
        if not self.reads_passages:
            check_lengths([len(note) for note in notes], self.settings)
        return self.verifier.code_logits(self.model, [self.prompter.text_of(note) for note in notes])

    def code_logits(self, notes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits `(B, C)`, fp32, of notes without special tokens; see the class."""
        check_lengths([len(note) for note in notes], self.settings)
        parts = [(row, part) for row, note in enumerate(notes) for part in self.prompter.sections(note)]
        answers, prompts = self.answer([self.prompter.prompt(part) for _, part in parts])
        samples, likely = self.settings["num_samples"], self.code_probs(prompts, answers)
        score = torch.zeros(len(notes), self.num_labels, dtype=torch.double)
        for number, (row, _) in enumerate(parts):
            of_part = slice(number * samples, (number + 1) * samples)
            total = likely[of_part].amax(dim=0).clamp(LEAST, 1 - LEAST)
            for codes in answers[of_part]:
                total[codes] += 1
            score[row] = torch.maximum(score[row], total / (samples + 1))
        self.counts["notes"] += len(notes)
        return (score / (1 - score)).log().float()

    def answer(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
        """What the model answers: the codes of `num_samples` answers for each prompt, and the prompt of each answer."""
        settings, samples = self.settings, self.settings["num_samples"]
        pad = self.end[0]
        length = max(map(len, prompts))
        input_ids = torch.tensor([[pad] * (length - len(ids)) + list(ids) for ids in prompts], device=self.device)
        mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts], device=self.device)
        processors = [CodeTrieProcessor(self.grammar, length)] if settings["constrained"] else []
        drawn = {"temperature": settings["temperature"], "top_k": 0, "top_p": 1.0, "num_return_sequences": samples}
        with torch.random.fork_rng(enabled=samples > 1):
            if samples > 1:
                torch.manual_seed(settings["seed"])
            found = self.model.generate(
                input_ids,
                attention_mask=mask,
                logits_processor=LogitsProcessorList(processors),
                max_new_tokens=self.grammar.max_tokens,
                num_beams=settings["num_beams"],
                do_sample=samples > 1,
                **(drawn if samples > 1 else {}),
                eos_token_id=self.end,
                pad_token_id=pad,
                use_cache=True,
            )
        rows = [self.read(tokens) for tokens in found[:, length:].tolist()]
        return rows, [list(prompts[i // samples]) for i in range(len(rows))]

    def read(self, tokens: Sequence[int]) -> list[int]:
        """The codes of a generated answer, which are counted."""
        self.counts["answers"] += 1
        if self.settings["constrained"]:
            codes = self.grammar.read(tokens)
            self.counts["codes"] += len(codes)
            return codes
        found = read_codes(self.tokenizer.decode(tokens, skip_special_tokens=True), self.config.label2id or {})
        for name, number in zip(("codes", "invalid", "repeated"), found[1:], strict=True):
            self.counts[name] += number
        return found.class_ids[: self.grammar.max_codes]

    def say_counts(self, seconds: float) -> dict[str, Any]:
        """What was generated, for `results.json`: notes and how many a second, strings written as codes, and the shares of them that
        are not in the set, and that were there before; or how many candidates were verified. Also printed. Of several processes
        that of one."""
        if self.verifies:
            return self.verifier.say_counts(seconds)
        codes = self.counts["codes"]
        shares = {f"{name}_rate": self.counts[name] / codes if codes else 0.0 for name in ("invalid", "repeated")}
        figures = {**self.counts, **shares, "notes_per_second": self.counts["notes"] / max(seconds, 1e-9)}
        print(
            f"{codes:,} codes generated for {self.counts['notes']:,} notes, {figures['notes_per_second']:.2f} notes a second; "
            f"{shares['invalid_rate']:.1%} are not in the set, {shares['repeated_rate']:.1%} were given twice."
        )
        return {"constrained": self.settings["constrained"], **figures}

    def code_probs(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """The highest probability that each code had to come next, `(N, C)`: at the beginning of an answer, or behind any code.

        One pass reads each prompt and its answer. Others read, at some places where a code may come at a time, the tokens of other
        codes, which see what is before that place and their own beginnings alone.
        """
        texts = [[*prompt, *self.grammar.tokens_of(codes)] for prompt, codes in zip(prompts, answers, strict=True)]
        inputs, mask = pad_rows([torch.tensor(text) for text in texts], self.end[0])
        output = self.model.base_model(
            input_ids=inputs.to(self.device), attention_mask=mask.to(self.device), use_cache=True
        )
        cache = output.past_key_values
        rows = [
            AnswerTree(self.grammar, codes, self.table_logits(states[len(prompt) - 1 : len(text)]), len(prompt))
            for prompt, codes, text, states in zip(prompts, answers, texts, output.last_hidden_state, strict=True)
        ]
        highest = torch.zeros(len(rows), self.grammar.num_codes, dtype=torch.double)
        for number in range(max(row.num_places for row in rows)):
            blocks = [self._branching[row.used(number) != []] for row in rows]
            read = self.read_branches(rows, number, blocks, mask, cache)
            for i, row in enumerate(rows):
                if number < row.num_places:
                    found = row.log_probs(number, blocks[i].nodes, read[i, : len(blocks[i].nodes)])
                    highest[i] = torch.maximum(highest[i], found.exp())
        return highest

    def read_branches(
        self, rows: "Sequence[AnswerTree]", number: int, blocks: "Sequence[Branches]", mask: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Read the tokens of other codes at one place of each answer, and leave the cache as it was.

        Args:
            rows (`Sequence[AnswerTree]`): the answers; one that has no such place gives numbers without a meaning.
            number (`int`): of codes before the place.
            blocks (`Sequence[Branches]`): what is read there.
            mask (`torch.LongTensor` of shape `(N, L)`): of prompts and answers.
            cache (`Cache`): of these.

        Returns:
            Logits `(N, K, T)` of the tokens of answers, behind each of the tokens that are read.
        """
        width = max(len(block.nodes) for block in blocks)
        if not width:
            return torch.zeros(len(rows), 0, len(self.grammar.table))
        input_ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
        sees = torch.zeros(len(rows), 1, width, mask.shape[1] + width, dtype=torch.bool)
        for i, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            size, before = len(block.nodes), row.start + row.place(number)
            input_ids[i, :size], positions[i, :size] = block.tokens, before + block.depths - 1
            sees[i, 0, :, :before] = True
            sees[i, 0, :size, mask.shape[1] : mask.shape[1] + size] = block.sees
        bias = torch.zeros(sees.shape, dtype=self.dtype).masked_fill(~sees, torch.finfo(self.dtype).min)
        states = self.model.base_model(
            input_ids=input_ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=bias.to(self.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        cache.crop(-width)
        return self.table_logits(states)

    def table_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens that answers have, `(..., T)`, on the CPU; of others they are not computed."""
        table = torch.tensor(self.grammar.table, device=self.device)
        head = self.model.get_output_embeddings()
        bias = None if head.bias is None else head.bias[table]
        return nn.functional.linear(states, head.weight[table], bias).float().cpu()


class Branches:
    """The tokens of a trie that are read beside an answer.

    Args:
        grammar (`AnswerGrammar`): which has the trie.
        trie (`CodeTrie`): of codes at the beginning of an answer, or behind a code.
        limit (`int`): tokens at most.

    Attributes:
        nodes (`list[int]`): of the trie, K of them.
        tokens, depths (`torch.LongTensor` of shape `(K,)`): the token of each, and how many it is with those above it.
        sees (`torch.BoolTensor` of shape `(K, K)`): which of the others are above a node, and itself.
    """

    def __init__(self, grammar: AnswerGrammar, trie: CodeTrie, limit: int):
        self.nodes = trie.branching(limit)
        self.tokens = torch.tensor([grammar.table[int(trie.column[node])] for node in self.nodes], dtype=torch.long)
        self.depths = trie.depth[self.nodes]
        self.sees = torch.eye(len(self.nodes)).bool()
        at = {node: i for i, node in enumerate(self.nodes)}
        for i, node in enumerate(self.nodes):  # those above a node come before it
            if (parent := int(trie.parent[node])) in at:
                self.sees[i] |= self.sees[at[parent]]


class AnswerTree:
    """An answer, and the places in it where a code may come.

    Args:
        grammar (`AnswerGrammar`): what an answer may be.
        codes (`Sequence[int]`): of the answer.
        logits (`torch.Tensor` of shape `(1 + L, T)`): of the tokens of answers, at the prompt's last token and at those of the answer.
        start (`int`): tokens of the prompt.
    """

    def __init__(self, grammar: AnswerGrammar, codes: Sequence[int], logits: torch.Tensor, start: int):
        self.grammar, self.codes, self.logits, self.start = grammar, list(codes), logits, start
        self.num_places = min(len(codes), grammar.max_codes - 1) + 1

    def used(self, number: int) -> list[int]:
        """The codes before a place."""
        return self.codes[:number]

    def place(self, number: int) -> int:
        """How many tokens of the answer are before a place."""
        return len(self.grammar.tokens_of(self.used(number)))

    def log_probs(self, number: int, nodes: Sequence[int], read: torch.Tensor) -> torch.Tensor:
        """The log probability of each code at a place, `(C,)`.

        Args:
            nodes (`Sequence[int]`): nodes of the trie that have been read there.
            read (`torch.Tensor` of shape `(K, T)`): the logits behind them.
        """
        trie, place = self.grammar.trie(self.used(number)), self.place(number)
        index = torch.full((len(trie.children),), -1)
        index[0] = place
        index[nodes] = torch.arange(len(nodes)) + len(self.logits)
        if number < len(self.codes):  # the tokens of the code that did come have been read in any case
            path = trie.paths[self.codes[number]][1:]
            index[path] = torch.arange(len(path)) + place + 1
        return self.grammar.log_probs(torch.cat([self.logits, read]), index, self.used(number))


def check_attention(name: str | None) -> None:
    """Raise a `ValueError` where a language model would attend in a way that takes no mask of ours; see `ATTENTIONS`."""
    if name is not None and name not in ATTENTIONS:
        raise ValueError(
            f"A generative coder needs `attn_implementation` {' or '.join(ATTENTIONS)}, got {name!r}: it scores codes with a mask of its "
            "own, which other implementations, such as FlashAttention, do not take. Leave it out."
        )


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, that of the tokenizer first."""
    of_model = model.generation_config.eos_token_id
    others = [] if of_model is None else [of_model] if isinstance(of_model, int) else list(of_model)
    return list(dict.fromkeys([tokenizer.eos_token_id, *others]))


def plain_fields(model: Any) -> dict[str, Any]:
    """What the saved configuration of a language model says of itself."""
    fields = model.config.to_diff_dict()
    return {name: value for name, value in fields.items() if name not in (*KEPT_FIELDS, *ADDED_FIELDS, "generative")}
