import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.builders.stratify import stratify_groups


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


def test_shares_of_every_code():
    """A long tail of codes, subjects of one to four admissions: far nearer to the shares than a random split."""
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
