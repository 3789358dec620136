import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.builders.stratify import EVERY_DOCUMENT, Shares, stratify_groups


HALVES = {"train": 0.5, "test": 0.5}


def test_by_hand():
    # b (2 documents) comes before a (4): one group of it to each half, and so with a's other two groups.
    groups = {1: [{"a", "b"}], 2: [{"a", "b"}], 3: [{"a"}], 4: [{"a"}]}
    split_of = stratify_groups(groups, HALVES, seed=0)
    assert {split_of[1], split_of[2]} == {split_of[3], split_of[4]} == {"train", "test"}


def test_a_group_counts_with_all_its_documents():
    # Group 1 has half of the documents: it fills one half alone.
    groups = {1: [{"a"}] * 4, **{group: [{"a"}] for group in range(2, 6)}}
    split_of = stratify_groups(groups, HALVES, seed=0)
    assert {split_of[group] for group in range(2, 6)} == {"train", "test"} - {split_of[1]}


def test_groups_without_codes_even_out_the_sizes():
    split_of = stratify_groups({group: [set()] for group in range(10)}, {"train": 0.8, "test": 0.2}, seed=0)
    assert Counter(split_of.values()) == {"train": 8, "test": 2}


@given(
    groups=st.dictionaries(
        st.integers(0, 50), st.lists(st.sets(st.sampled_from("abcde")), min_size=1, max_size=3), max_size=20
    ),
    seed=st.integers(0, 3),
)
def test_every_group_once_in_any_order(groups, seed):
    split_of = stratify_groups(groups, HALVES, seed)
    assert split_of.keys() == groups.keys()
    assert stratify_groups(dict(reversed(groups.items())), HALVES, seed) == split_of


def test_what_one_part_took_the_next_one_makes_up_for():
    # Of four documents of a, two are due to each half. Group 1 takes both of one half: the other two go to the other.
    shares = Shares({"a": 4, EVERY_DOCUMENT: 4}, HALVES)
    first = stratify_groups({1: [{"a"}] * 2}, HALVES, 0, shares)[1]
    second = stratify_groups({2: [{"a"}], 3: [{"a"}]}, HALVES, 0, shares)
    assert set(second.values()) == HALVES.keys() - {first}


def test_shares_of_every_code():
    """A long tail of codes, subjects of one to four admissions: far nearer to the shares than a random split, and also in parts."""
    rng = random.Random(0)
    weights = [1 / rank for rank in range(1, 201)]
    groups = {
        subject: [set(rng.choices(range(200), weights, k=8)) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        for subject in range(2000)
    }
    groups = {subject: [set(map(str, codes)) for codes in admissions] for subject, admissions in groups.items()}
    fractions = {"train": 0.75, "validation": 0.10, "test": 0.15}

    def error(split_of):
        counts = {split: Counter() for split in fractions}
        for subject, admissions in groups.items():
            for codes in admissions:
                counts[split_of[subject]].update(codes)
        total = sum(counts.values(), Counter())
        return sum(
            abs(counts[split][code] - share * total[code]) for split, share in fractions.items() for code in total
        )

    shuffled = {subject: rng.choices(list(fractions), list(fractions.values()))[0] for subject in groups}
    assert error(stratify_groups(groups, fractions, seed=0)) < error(shuffled) / 4

    counts = Counter(
        code for admissions in groups.values() for codes in admissions for code in (*codes, EVERY_DOCUMENT)
    )
    shares = Shares(counts, fractions)
    in_parts = {}
    for start in range(0, 2000, 300):
        part = {subject: groups[subject] for subject in range(start, min(start + 300, 2000))}
        in_parts |= stratify_groups(part, fractions, 0, shares)
    assert in_parts.keys() == groups.keys()
    assert error(in_parts) < error(shuffled) / 3
