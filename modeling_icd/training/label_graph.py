"""Finds which codes are neighbours in the graph of a head: by the hierarchy, and by what notes have together.

What notes have together is counted in the training notes alone.
"""

from collections.abc import Iterable, Mapping, Sequence

import datasets
import torch
from scipy import sparse

from dataset_scripts.codes.classification import Classification, classification_of
from dataset_scripts.counts import counted

from ..graph_icd import complete_label_graph, give_neighbours
from ..heads import members_of
from ..inference.tokens import codes_of_notes
from .notes import notes_per_code


TOGETHER_AT_LEAST = 2  # notes that must have two codes, so that one odd note joins none


def give_graph(model, notes: datasets.Dataset, say: bool = False) -> None:
    """Tell a new head which codes are neighbours, where its configuration has a `label_graph`.

    Args:
        model (`ModelForICDCoding`): its head has learned nothing yet.
        notes (`datasets.Dataset`): training notes, tokenized or with `codes`; nothing but their codes is read.
        say (`bool`): print how many codes have neighbours.

    Raises:
        ValueError: where a source joins no two codes, or the hierarchy of the codes is not known.
    """
    config = model.config
    if config.label_graph is None:
        return
    graph = complete_label_graph(config.label_graph)
    codes = [config.id2label[i] for i in range(config.num_labels)]
    label_ids = known_codes(notes, config.label2id)
    counts = notes_per_code(label_ids, len(codes)).tolist()
    tables = {}
    for source in graph["sources"]:
        if source == "hierarchy":
            table = hierarchy_neighbours(codes, counts, graph["neighbours"])
        else:
            table = co_occurrence_neighbours(label_ids, len(codes), graph["threshold"], graph["neighbours"])
        there = table >= 0
        if not there.any():
            raise ValueError(f"`label_graph` {source} joins no two of the {len(codes)} codes: leave this source out.")
        if say:
            joined, mean = int(there.any(dim=1).sum()), float(there.sum() / there.any(dim=1).sum())
            print(
                f"Graph of codes: {source} gives {joined:,} of {counted(len(codes), 'code')} {mean:.1f} neighbours each."
            )
        tables[source] = table
    for head in members_of(model.score):
        give_neighbours(head, tables)


def known_codes(notes: datasets.Dataset, label2id: Mapping[str, int]) -> list[list[int]]:
    """The ids of the codes of each note that are among the model's."""
    if "label_ids" in notes.column_names:
        return list(notes["label_ids"])
    return [[label2id[code] for code in codes if code in label2id] for codes in codes_of_notes(notes)]


def hierarchy_neighbours(codes: Sequence[str], counts: Sequence[int], size: int) -> torch.Tensor:
    """Of each code the other codes of its category, or, where there are none, those of its block: `(C, size)`, -1 where there are
    fewer. Of more than `size` those that most notes have (`counts`).

    Raises:
        ValueError: where the codes are of no known classification.
    """
    classification = classification_of(codes)
    if classification is None:
        raise ValueError(
            "`label_graph` hierarchy needs codes of ICD-9-CM or ICD-10, all of one, and these are not: leave this source out."
        )
    by_count = sorted(range(len(codes)), key=lambda code: (-counts[code], code))
    rows: list[list[int]] = [[] for _ in codes]
    for level in ("category", "block"):
        groups = groups_of(codes, by_count, classification, level)
        for group in groups:
            for code in group:
                rows[code] = rows[code] or [other for other in group[: size + 1] if other != code][:size]
    return as_table(rows, size)


def groups_of(
    codes: Sequence[str], order: Iterable[int], classification: Classification, level: str
) -> list[list[int]]:
    """The codes of each category, or of each block (`level`), in this order."""
    groups: dict[str, list[int]] = {}
    for code in order:
        groups.setdefault(getattr(classification.family_of(codes[code]), level), []).append(code)
    return [*groups.values()]


def co_occurrence_neighbours(
    label_ids: Sequence[Sequence[int]], num_labels: int, threshold: float, size: int
) -> torch.Tensor:
    """Of each code those that at least the share `threshold` of its notes have, too, and two notes at least (as ML-GCN, arXiv
    1904.03582, joins labels by `P(other | code)`): `(C, size)`, -1 where there are fewer. Of more than `size` those that most
    of its notes have."""
    columns = [code for codes in label_ids for code in codes]
    rows = [note for note, codes in enumerate(label_ids) for _ in codes]
    shape = (len(label_ids), num_labels)
    has = sparse.csr_array(([1] * len(rows), (rows, columns)), shape=shape, dtype="int64")
    together = (has.T @ has).tocsr()
    counts = together.diagonal()
    found: list[list[int]] = []
    for code in range(num_labels):
        others, shared = row_of(together, code)
        chosen = [
            (-int(count), int(other))
            for other, count in zip(others, shared, strict=True)
            if other != code and count >= max(TOGETHER_AT_LEAST, threshold * counts[code])
        ]
        found.append([other for _, other in sorted(chosen)[:size]])
    return as_table(found, size)


def row_of(matrix: sparse.csr_array, row: int) -> tuple:
    """Columns and values of what a row of a sparse matrix holds."""
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part], matrix.data[part]


def as_table(rows: Sequence[Sequence[int]], size: int) -> torch.Tensor:
    """Rows of at most `size` ids as one tensor `(C, size)`, filled with -1."""
    return torch.tensor([[*row, *[-1] * (size - len(row))] for row in rows], dtype=torch.long)
