"""Evidence by hand: which words a token's attention belongs to, whatever the tokenizer calls a token."""

import pytest
import torch

from modeling_icd.pipeline_icd import evidence_spans


def spans_of(note, offsets, weights, num_spans=9):
    (spans,) = evidence_spans(note, torch.tensor(offsets), torch.tensor([weights]), num_spans)
    assert all(span["text"] == note[span["start"] : span["end"]] for span in spans)
    return [(span["text"], pytest.approx(span["weight"])) for span in spans]


def test_a_token_with_the_space_before_it_belongs_to_the_word_behind_the_space():
    offsets = [(0, 0), (0, 2), (2, 8), (8, 12), (12, 14), (14, 18)]  # <s>, no, ` fever`, ` but`, ` a`, ` bad`
    assert spans_of("no fever but a bad", offsets, [0.3, 0.0, 0.5, 0.0, 0.0, 0.2]) == [("fever", 0.5), ("bad", 0.2)]


def test_white_space_between_words_belongs_to_none():
    offsets = [(0, 2), (2, 4), (4, 9), (9, 10)]  # no, two line breaks, fever, a line break
    assert spans_of("no\n\nfever\n", offsets, [0.1, 0.4, 0.2, 0.3]) == [("no\n\nfever", 0.3)]
    assert spans_of("no\n\nfever\n", offsets, [0.0, 0.6, 0.0, 0.4]) == []


def test_parts_of_a_word_and_the_bytes_of_a_character_are_added_up():
    # pneu, monia; then four tokens for the bytes of one picture, with the space before it in the first
    offsets = [(0, 4), (4, 9), (9, 11), (10, 11), (10, 11), (10, 11)]
    assert spans_of("pneumonia \U0001f600", offsets, [0.2, 0.2, 0.1, 0.1, 0.1, 0.3]) == [("pneumonia \U0001f600", 1.0)]
    assert spans_of(
        "pneumonia x \U0001f600", [(s + 2 * (s > 8), e + 2 * (e > 9)) for s, e in offsets], [0.2] + [0] * 4 + [0.8]
    ) == [
        ("\U0001f600", 0.8),
        ("pneumonia", 0.2),
    ]


def test_a_mark_that_joins_a_letter_stays_in_its_word():
    note = "cafe\u0301 fie\u0301vre"  # each accent a character of its own, and a token of its own
    assert spans_of(note, [(0, 4), (4, 5), (5, 9), (9, 10), (10, 13)], [0, 0.5, 0, 0, 0.05]) == [("cafe\u0301", 0.5)]


def test_a_token_over_several_words_is_shared_out():
    assert spans_of("no acute distress", [(0, 8), (8, 17)], [0.6, 0.02]) == [("no acute", 0.6)]


def test_each_code_has_its_own_spans_and_at_most_so_many():
    offsets = torch.tensor([(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)])
    weights = torch.tensor([[0.4, 0, 0.3, 0, 0.3], [0, 0, 0, 1.0, 0.1]])
    first, second = evidence_spans("a b c d e", offsets, weights, 2)
    assert [span["text"] for span in first] == ["a", "c"]  # equal weights: the earlier one
    assert [span["text"] for span in second] == ["d"]  # a tenth of the heaviest is left out
    assert evidence_spans("a b c d e", offsets, weights[:0], 2) == []
    assert evidence_spans("a b c d e", offsets, weights, 0) == [[], []]
