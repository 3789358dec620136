"""The grammar of answers: what may be generated, and how likely each code is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_icd.answers_icd import AnswerGrammar, CodeTrieProcessor, State, answer_pieces, check_written, read_codes


CODES = ["250", "250.0", "250.01", "401.9", "V12.71", "427.31"]  # of which some begin with others
END = 2


def tokens(text: str) -> list[int]:
    return [ord(character) for character in text]


def grammar_of(codes, max_codes=3) -> AnswerGrammar:
    return AnswerGrammar([tokens(code) for code in codes], [tokens(f"; {code}") for code in codes], [END], max_codes)


@settings(max_examples=20)
@given(
    st.lists(st.from_regex(r"[0-9V]{1,3}(\.[0-9]{1,2})?", fullmatch=True), min_size=1, max_size=8, unique=True),
    st.integers(0, 2**32),
    st.integers(1, 4),
)
def test_whatever_the_logits_only_codes_of_the_set_come_out_and_none_twice(codes, seed, max_codes):
    grammar = grammar_of(codes, min(max_codes, len(codes)))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((3, 2), 99)  # a prompt
    process = CodeTrieProcessor(grammar, prompt_length=2)
    for _ in range(grammar.max_tokens):
        scores = process(ids, torch.randn(3, 128, generator=generator))
        ids = torch.cat([ids, scores.argmax(dim=1, keepdim=True)], dim=1)
    for row in ids[:, 2:].tolist():
        text = "".join(chr(token) for token in row[: row.index(END)])  # it has come to an end in time
        found = grammar.read(row)
        assert text == "".join(answer_pieces([codes[i] for i in found]))
        assert len(set(found)) == len(found) <= max_codes


def log_probs_by_hand(grammar, token_logits, used) -> dict[int, float]:
    """The log probability of each code, found by walking through all ways token by token.

    Places of `token_logits`: those of the answer, with the prompt's last in front, then one for each node but the root.
    """
    found, length = {}, len(grammar.tokens_of(used))

    def chances(place, ways):
        logits = {token: token_logits[place, grammar.table.index(token)].item() for token in ways}
        total = math.log(sum(map(math.exp, logits.values())))
        return {token: logit - total for token, logit in logits.items()}

    def walk(state, so_far):
        ways = grammar.next_states(state)
        by_token = chances(length + state.node, ways)
        inside = [token for token, after in ways.items() if after.used == state.used and not after.is_over]
        if len(grammar.pending(state)) > len(used):  # its tokens have come to the end of a code
            out = sum(math.exp(chance) for token, chance in by_token.items() if token not in inside)
            found[grammar.pending(state)[-1]] = so_far + math.log(out)
        for token in inside:
            walk(ways[token], so_far + by_token[token])

    state = State()
    for token in grammar.tokens_of(used):
        state = grammar.next_states(state)[token]
    # Behind a code, what goes on within another one that begins with it is left out: the code has ended.
    ways = {t: after for t, after in grammar.next_states(state).items() if after.used == tuple(used) or after.is_over}
    for token, chance in chances(length, ways).items():
        if not ways[token].is_over:
            walk(ways[token], chance)
    return found


@pytest.mark.parametrize("used", [[], [3], [0, 4], [1, 2]])
def test_the_probability_of_each_code_is_that_of_its_tokens(used):
    grammar = grammar_of(CODES)
    trie, length = grammar.trie(used), len(grammar.tokens_of(used))
    generator = torch.Generator().manual_seed(0)
    token_logits = torch.randn(length + len(trie.children), len(grammar.table), generator=generator)
    index = torch.arange(len(trie.children)) + length
    found = grammar.log_probs(token_logits, index, used)
    expected = log_probs_by_hand(grammar, token_logits, used)
    assert expected.keys() == set(range(len(CODES))) - set(used)
    for code, value in expected.items():
        assert found[code].item() == pytest.approx(value), CODES[code]
    assert all(found[code] == -math.inf for code in used)


def test_what_the_model_has_not_read_is_shared_evenly():
    grammar = grammar_of(["100", "101", "102", "200"])
    index = torch.full((len(grammar.first.children),), -1)
    index[0] = 0
    logits = torch.full((1, len(grammar.table)), -30.0)
    logits[0, grammar.table.index(ord("1"))] = logits[0, grammar.table.index(ord("2"))] = 0.0
    # At the root "1" and "2" are as likely, and the end is not; below "1" are three codes.
    torch.testing.assert_close(
        grammar.log_probs(logits, index, []).exp(), torch.tensor([1 / 6] * 3 + [1 / 2], dtype=torch.double)
    )


def test_codes_that_a_tokenizer_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="same tokens of two codes"):
        AnswerGrammar([[5], [5]], [[6, 5], [6, 5]], [END], 2)
    with pytest.raises(ValueError, match="no token for a code"):
        AnswerGrammar([[5], []], [[6, 5], [6]], [END], 2)


def test_codes_are_found_in_free_text():
    label2id = {"401.9": 0, "V12.71": 1, "J18.9": 2, "486": 3}
    found = read_codes("The codes: 401.9, V12.71 (ulcer); 401.9 and 999.9. Give 5 mg at 12.30.45", label2id)
    assert found == ([0, 1], 4, 1, 1)
    assert read_codes("None apply.", label2id) == ([], 0, 0, 0)
    assert read_codes("486\n401.9 Hypertension", label2id).class_ids == [3, 0]


def test_what_cannot_be_found_in_free_text_is_said():
    codes = ["401.9", "E950.1", "V12.71", "99.04", "U07.1", "C7A.021", "V43.52XA", "0DTJ4ZZ"]
    check_written(codes)
    assert read_codes("; ".join(codes), {code: i for i, code in enumerate(codes)}) == (list(range(8)), 8, 0, 0)
    for group in ("A00-A09", "1"):
        with pytest.raises(ValueError, match=f"1 of 2 codes, such as '{group}', are not written as codes of ICD"):
            check_written(["401.9", group])
