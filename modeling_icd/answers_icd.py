"""The answers of a generative coder: codes as text, the tokens that may come next, and how likely each code is.

An answer lists codes, `401.9; 428.0`, each with its title where the coder was made so. Its tokens are made piece by piece, a
code at a time, so that what is learned, what is generated and what is scored are the same tokens.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor


SEPARATOR = "; "
CODE = re.compile(
    r"(?<![\w.])(?:E\d{3}(?:\.\d)?|V\d{2}(?:\.\d{1,2})?|[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?|\d{3}(?:\.\d{1,2})?|\d{2}\.\d{1,2}"
    r"|(?=[A-Z]*\d)[0-9A-HJ-NP-Z]{7})(?![\w.]*\w)"
)
"""What is written as a code of ICD-9-CM, ICD-10-CM or ICD-10-PCS; whether there is such a code it does not say."""


def answer_pieces(codes: Sequence[str], titles: Mapping[str, str] | None = None) -> list[str]:
    """The pieces of an answer, which joined are its text: codes in the order given, the separator before all but the first."""
    texts = [f"{code} {titles[code]}" if titles and code in titles else code for code in codes]
    return [text if i == 0 else SEPARATOR + text for i, text in enumerate(texts)]


def check_written(codes: Sequence[str]) -> None:
    """Raise a `ValueError` where codes are not written as codes of ICD are, so that [`read_codes`] would find none of them."""
    unseen = [code for code in codes if not CODE.fullmatch(code)]
    if unseen:
        raise ValueError(
            f"{len(unseen)} of {len(codes)} codes, such as {unseen[0]!r}, are not written as codes of ICD (they may be groups, or a "
            "hospital's own), and are not found in an answer that is generated freely, as with `constrained` false and in the stage "
            "`grpo`: choose `constrained` true and the stage `prompt` or `sft`."
        )


class Found(NamedTuple):
    """What a text that was generated freely says.

    Args:
        class_ids (`list[int]`): codes of the set, each once, in their order.
        num_codes (`int`): strings written as codes.
        num_invalid (`int`): those of them that are not in the set.
        num_repeated (`int`): those that were there before.
    """

    class_ids: list[int]
    num_codes: int
    num_invalid: int
    num_repeated: int


def read_codes(text: str, label2id: Mapping[str, int]) -> Found:
    """Find the codes in a text that was generated freely."""
    found, invalid, repeated, total = [], 0, 0, 0
    for match in CODE.finditer(text):
        total += 1
        class_id = label2id.get(match[0])
        if class_id is None:
            invalid += 1
        elif class_id in found:
            repeated += 1
        else:
            found.append(class_id)
    return Found(found, total, invalid, repeated)


class CodeTrie:
    """The tokens of all codes as a tree: node 0 is its root, children have higher numbers than their parent.

    Args:
        sequences (`Sequence[Sequence[int]]`): the tokens of each code, by class id.
        tokens (`Mapping[int, int]`): the column of each token in a table of those that answers have.

    Raises:
        ValueError: where a code has no token, or two have the same ones.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], tokens: Mapping[int, int]):
        self.children: list[dict[int, int]] = [{}]
        self.code: list[int | None] = [None]
        parents, depths, columns = [0], [0], [0]
        self.paths: list[list[int]] = [[0] for _ in sequences]
        at_depth = list(range(len(sequences)))
        while at_depth:  # level by level, so that nodes are numbered by their depth
            longer = []
            for class_id in at_depth:
                path, sequence = self.paths[class_id], sequences[class_id]
                token = sequence[len(path) - 1] if len(sequence) >= len(path) else None
                if token is None or len(sequence) == 0:
                    raise ValueError("The tokenizer has no token for a code: it is not one for such text.")
                node = self.children[path[-1]].get(token)
                if node is None:
                    node = len(self.children)
                    self.children[path[-1]][token] = node
                    self.children.append({})
                    self.code.append(None)
                    parents.append(path[-1])
                    depths.append(depths[path[-1]] + 1)
                    columns.append(tokens[token])
                path.append(node)
                if len(path) <= len(sequence):
                    longer.append(class_id)
                elif self.code[node] is not None:
                    raise ValueError(
                        "The tokenizer makes the same tokens of two codes, so that none could be told from its answer."
                    )
                else:
                    self.code[node] = class_id
            at_depth = longer
        self.parent, self.depth, self.column = torch.tensor(parents), torch.tensor(depths), torch.tensor(columns)
        self.ends = torch.tensor([path[-1] for path in self.paths])
        self.code_at = torch.tensor([-1 if code is None else code for code in self.code])
        self.sizes = torch.zeros(len(parents), dtype=torch.long)  # codes at or below each node
        for path in self.paths:
            self.sizes[path] += 1

    def available(self, used: Sequence[int]) -> torch.Tensor:
        """How many codes at or below each node `(V,)` are not used."""
        left = self.sizes.clone()
        for class_id in used:
            left[self.paths[class_id]] -= 1
        return left

    def branching(self, limit: int) -> list[int]:
        """The first nodes at which more than one thing may come next, and all above these, but for the root; at most `limit`."""
        kept: set[int] = set()
        for node in range(1, len(self.children)):
            if len(self.children[node]) + (self.code[node] is not None) < 2:
                continue
            above = {node}
            while (parent := int(self.parent[min(above)])) != 0:
                above.add(parent)
            if len(kept | above) > limit:
                break
            kept |= above
        return sorted(kept)


class State(NamedTuple):
    """Where an answer stands.

    Args:
        used (`tuple[int, ...]`): codes that are given, in their order; without the one whose tokens may just have ended.
        node (`int`): of the trie.
        is_over (`bool`): whether it was ended.
    """

    used: tuple[int, ...] = ()
    node: int = 0
    is_over: bool = False


class AnswerGrammar:
    """What an answer may be: codes of the set, none twice, at most `max_codes`, and its end.

    Args:
        first, later (`Sequence[Sequence[int]]`): tokens of each code as the first one of an answer, and behind a separator, which
            they begin with.
        end (`Sequence[int]`): tokens that end an answer.
        max_codes (`int`): of an answer.
    """

    def __init__(
        self, first: Sequence[Sequence[int]], later: Sequence[Sequence[int]], end: Sequence[int], max_codes: int
    ):
        self.first_tokens, self.later_tokens, self.end, self.max_codes = first, later, list(end), max_codes
        self.num_codes = len(first)
        self.table = sorted({*self.end, *(token for part in (first, later) for ids in part for token in ids)})
        columns = {token: i for i, token in enumerate(self.table)}
        self.end_columns = [columns[token] for token in self.end]
        self.first, self.later = CodeTrie(first, columns), CodeTrie(later, columns)
        self.max_tokens = max_codes * max(len(ids) for part in (first, later) for ids in part) + 1

    def trie(self, used: Sequence[int]) -> CodeTrie:
        """The tokens of the code that comes next."""
        return self.later if used else self.first

    def tokens_of(self, class_ids: Sequence[int]) -> list[int]:
        """The tokens of an answer, without its end."""
        parts = [self.later_tokens[c] if i else self.first_tokens[c] for i, c in enumerate(class_ids)]
        return [token for part in parts for token in part]

    def pending(self, state: State) -> tuple[int, ...]:
        """The codes given, the one whose tokens have just ended among them."""
        code = self.trie(state.used).code[state.node]
        return state.used if code is None or code in state.used else (*state.used, code)

    def next_states(self, state: State) -> dict[int, State]:
        """The tokens that may come next, and where each leads."""
        if state.is_over:
            return dict.fromkeys(self.end, state)
        trie, given = self.trie(state.used), self.pending(state)
        found = {
            token: State(state.used, child)
            for token, child in trie.children[state.node].items()
            if len(state.used) < self.max_codes and self._has_other(trie, child, state.used)
        }
        if state.node and len(given) == len(state.used):
            return found  # within a code
        found |= {token: State(given, state.node, True) for token in self.end}
        if state.node and len(given) < self.max_codes:
            for token, child in self.later.children[0].items():
                if token not in found and self._has_other(self.later, child, given):
                    found[token] = State(given, child)
        return found

    def _has_other(self, trie: CodeTrie, node: int, used: Sequence[int]) -> bool:
        """Whether a code that is not used lies at a node or below it."""
        return int(trie.sizes[node]) > sum(node in trie.paths[class_id] for class_id in used)

    def read(self, tokens: Sequence[int]) -> list[int]:
        """The codes of a generated answer, whose last one counts if it is whole.

        Raises:
            ValueError: where a token may not stand where it does.
        """
        state = State()
        for token in tokens:
            if state.is_over:
                break
            after = self.next_states(state).get(token)
            if after is None:
                raise ValueError("These tokens are no answer of codes of the set.")
            state = after
        return list(state.used if state.is_over else self.pending(state))

    def log_probs(self, token_logits: torch.Tensor, index: torch.Tensor, used: Sequence[int]) -> torch.Tensor:
        """How likely each code is to come next, among all that the grammar allows.

        Args:
            token_logits (`torch.Tensor` of shape `(M, T)`): at M places of a text, the logits of the tokens of `table`.
            index (`torch.LongTensor` of shape `(V,)`): of each node of the trie, the place where its tokens have been read; -1
                where the model has not read them. Below such a node all codes are taken as equally likely.
            used (`Sequence[int]`): codes given before.

        Returns:
            The log probability of each code `(C,)`, -inf of one that is used, in double precision.
        """
        trie = self.trie(used)
        left = trie.available(used)
        logits = token_logits.double().cpu()
        places = index.clamp(min=0)
        is_read = index >= 0
        parent_read = is_read[trie.parent]
        raw = torch.where(parent_read, logits[places[trie.parent], trie.column], left.double().log())
        raw[(left <= 0)] = -torch.inf
        raw[0] = -torch.inf  # the root is nobody's child
        stop = self._stops(trie, logits, index, used, left)
        highest = torch.full_like(raw, -torch.inf).scatter_reduce(0, trie.parent, raw, "amax")
        highest = torch.maximum(highest, stop)
        highest = torch.where(highest.isfinite(), highest, torch.zeros_like(highest))
        total = (stop - highest).exp().index_add(0, trie.parent, (raw - highest[trie.parent]).exp())
        of_child = raw - highest[trie.parent] - total[trie.parent].log()
        reached = torch.zeros_like(raw)
        for depth in range(1, int(trie.depth.max()) + 1):
            nodes = (trie.depth == depth).nonzero().flatten()
            reached[nodes] = reached[trie.parent[nodes]] + of_child[nodes]
        found = reached[trie.ends] + (stop - highest - total.log())[trie.ends]
        found[list(used)] = -torch.inf
        return found

    def _stops(
        self, trie: CodeTrie, logits: torch.Tensor, index: torch.Tensor, used: Sequence[int], left: torch.Tensor
    ) -> torch.Tensor:
        """The logit of coming to an end at each node `(V,)`: of the answer at the root, of a code where its tokens end."""
        stop = torch.full((len(left),), -torch.inf, dtype=torch.double)
        ends = torch.tensor(self.end_columns)
        stop[0] = logits[index[0], ends].logsumexp(0)
        is_open = trie.code_at >= 0
        is_open &= ~torch.isin(trie.code_at, torch.tensor(list(used), dtype=torch.long))
        stop[is_open] = 0.0
        for node in (is_open & (index >= 0)).nonzero().flatten().tolist():
            if trie.children[node]:  # of another code that begins with this one
                ways = self.next_states(State(tuple(used), node))
                outward = [
                    i for i, token in enumerate(self.table) if token in ways and token not in trie.children[node]
                ]
                stop[node] = logits[index[node], torch.tensor(outward)].logsumexp(0)
        return stop


class CodeTrieProcessor(LogitsProcessor):
    """Lets `generate` give codes of the set alone, none twice, with separators between them.

    Args:
        grammar (`AnswerGrammar`): what may be generated.
        prompt_length (`int`): tokens in front of the answer, padding included.
    """

    def __init__(self, grammar: AnswerGrammar, prompt_length: int):
        self.grammar, self.prompt_length = grammar, prompt_length
        self._states: dict[tuple[int, ...], State] = {(): State()}

    def state(self, tokens: tuple[int, ...]) -> State:
        if tokens not in self._states:
            before = self.state(tokens[:-1])
            after = self.grammar.next_states(before)
            # Once an answer is over, padding follows, which may be any token.
            self._states[tokens] = before if before.is_over else after[tokens[-1]]
        return self._states[tokens]

    def __call__(self, input_ids: torch.Tensor, scores: Any) -> Any:
        masked = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(input_ids[:, self.prompt_length :].tolist()):
            allowed = list(self.grammar.next_states(self.state(tuple(tokens))))
            masked[row, allowed] = scores[row, allowed]
        return masked
