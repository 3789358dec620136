"""Stratified splits: divides documents, or whole groups of them, so that each split gets its share of every code.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD
2011) goes from the rarest code to the most frequent, and gives each of a code's documents to the split that lacks most
of that code. In `stratify_groups` a whole group (the admissions of a subject) goes at once, to the split where it helps
most with all of its codes: judged by the rarest code alone, rounding down in thousands of rare codes leaves the
largest split short of the frequent ones.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np


EVERY_DOCUMENT = ""  # stands for a code that each document has, so that a split's size counts like a code


def check_enough(what: str, documents: int, codes: int, least: int) -> None:
    """Refuse to divide fewer than `least` documents, or documents of one code; `what` names them in the message."""
    if documents < least or codes < 2:
        raise ValueError(
            f"{what} with {codes} codes are too few to divide: expected {least} with 2 codes at least. Read them as a "
            "whole with `unsplit=True`."
        )


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide documents in two by iterative stratification: sorted rows of those kept, and of those held out.

    Args:
        labels (`np.ndarray` of shape `(N, C)`): 1 where a document has a code.
        share (`float`): How much of the documents is held out.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit  # here: it brings scikit-learn

    halves = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    kept, held_out = next(halves.split(labels, labels))
    return np.sort(kept), np.sort(held_out)


class Shares:
    """What each split is due of each code, and what it still lacks of it.

    Args:
        counts (`Mapping[str, int]`): Documents of each code; of `EVERY_DOCUMENT`, all of them.
        fractions (`Mapping[str, float]`): For each split, its share of the documents, above 0; together 1.
    """

    def __init__(self, counts: Mapping[str, int], fractions: Mapping[str, float]):
        self.due = {
            code: {split: count * share for split, share in fractions.items()} for code, count in counts.items()
        }
        self.lacking = {code: dict(of_split) for code, of_split in self.due.items()}


def stratify_groups(
    groups: Mapping[int, Sequence[Collection[str]]],
    fractions: Mapping[str, float],
    seed: int,
    shares: Shares | None = None,
) -> dict[int, str]:
    """Give each group a split.

    The result depends on the groups' ids, their codes and the seed, not on any order. For a code of `n` documents, a
    split of share `s` should get `s * n`; a group goes to the split where it lowers the sum over its codes of
    `(got - s * n) ** 2 / (s * n)` most, or raises it least, and to the first of `fractions` if that is the same.

    Args:
        groups (`Mapping[int, Sequence[Collection[str]]]`): For each group, the codes of each of its documents.
        fractions (`Mapping[str, float]`): For each split, its share of the documents, above 0; together 1.
        seed (`int`): Makes the order in which groups with equally many documents of a code are given away.
        shares (`Shares`, *optional*): Of all documents, where the groups are some of many that are given away part by
            part; what these take is taken off it. If left out, the groups are all that there are.
    """
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    counts = {group: Counter(code for codes in groups[group] for code in (*codes, EVERY_DOCUMENT)) for group in order}
    groups_of: dict[str, list[int]] = defaultdict(list)
    left: Counter[str] = Counter()  # documents of each code that are not given away yet
    for group in order:
        for code, count in counts[group].items():
            groups_of[code].append(group)
            left[code] += count
    shares = shares or Shares(left, fractions)
    due, lacking = shares.due, shares.lacking

    split_of: dict[int, str] = {}
    queue = [(count, code) for code, count in left.items()]
    heapq.heapify(queue)
    while queue:
        count, rarest = heapq.heappop(queue)
        if count != left[rarest] or count == 0:
            continue  # outdated: a later entry says how many are left
        waiting = [group for group in groups_of[rarest] if group not in split_of]
        for group in sorted(waiting, key=lambda group: counts[group][rarest], reverse=True):
            gains = {
                split: sum(n * (2 * lacking[code][split] - n) / due[code][split] for code, n in counts[group].items())
                for split in fractions
            }
            split_of[group] = split = max(gains, key=lambda split: gains[split])
            for code, n in counts[group].items():
                lacking[code][split] -= n
                left[code] -= n
                heapq.heappush(queue, (left[code], code))
    return split_of
