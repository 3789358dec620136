"""Fits the boosted trees of a fused model on features of notes whose own codes were not looked up, and writes them as tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from ..fusion_features_icd import AT, FEATURES, Scored


PENALTY = 5.0
EASY_SHARE = 0.3
"""Share of the rows that are learned from, each with more weight, of codes that hardly anything in a note speaks for."""


class TreeSize(NamedTuple):
    """How large boosted trees are.

    Args:
        num_trees (`int`), learning_rate (`float`), num_leaves (`int`).
        least_rows (`int`): rows of a leaf, at least.
        feature_share (`float`): share of the features that a split is chosen from.
    """

    num_trees: int
    learning_rate: float
    num_leaves: int
    least_rows: int
    feature_share: float


SIZES = {"small": TreeSize(120, 0.08, 8, 30, 0.5), "large": TreeSize(160, 0.05, 48, 8, 0.3)}
"""Large trees are better where there are marked phrases, small ones take less time; docs/experiments/fusion.md."""


class Rows(NamedTuple):
    """Pairs of a note and a code that are learned from.

    Args:
        features (array of shape `(R, F)`), is_right (array of shape `(R,)`).
    """

    features: np.ndarray
    is_right: np.ndarray


def rows_of(scored: Sequence[Scored], gold: Sequence[set[int]]) -> Rows:
    """The rows of notes.

    Args:
        gold (`Sequence[set[int]]`): the codes of each, as the numbers that `scored` has.
    """
    features = [each.features.numpy() for each in scored]
    is_right = [
        np.array([code in own for code in each.codes.tolist()], bool) for each, own in zip(scored, gold, strict=True)
    ]
    return Rows(
        np.concatenate(features or [np.zeros((0, len(FEATURES)))]), np.concatenate(is_right or [np.zeros(0, bool)])
    )


def fit_trees(
    parts: Sequence[Rows], num_seeds: int, seed: int, size: TreeSize = SIZES["large"]
) -> dict[str, torch.Tensor]:
    """Boosted trees as tensors; see [`~modeling_icd.fusion_icd.FusionHead`].

    Args:
        parts (`Sequence[Rows]`): of all folds that are learned from.
        num_seeds (`int`): how often they are fitted, each time with other features for each tree; the mean is taken.
        size (`TreeSize`): of the trees.
    """
    features, is_right = np.concatenate([p.features for p in parts]), np.concatenate([p.is_right for p in parts])
    if not is_right.any() or is_right.all():
        raise ValueError(
            "Nothing in the training notes speaks for one of their codes, or only for them: there is nothing to weigh. Give more "
            "notes, or more `parts`."
        )
    is_hard = is_right | (features[:, AT["precision"]] > 0) | (features[:, AT["title"]] > 0.85)
    is_hard |= features[:, AT["part"]] > 0.75
    is_kept = is_hard | (np.random.default_rng(seed).random(len(is_right)) < EASY_SHARE)
    weights = np.where(is_hard, 1.0, 1 / EASY_SHARE)[is_kept]
    fitted = []
    for number in range(num_seeds):
        trees = HistGradientBoostingClassifier(
            max_iter=size.num_trees,
            learning_rate=size.learning_rate,
            max_leaf_nodes=size.num_leaves,
            min_samples_leaf=size.least_rows,
            l2_regularization=PENALTY,
            max_features=size.feature_share,
            early_stopping=False,
            random_state=seed + number,
        )
        fitted.append(trees.fit(features[is_kept], is_right[is_kept], weights))
    return as_tensors(fitted)


def as_tensors(fitted: Sequence[HistGradientBoostingClassifier]) -> dict[str, torch.Tensor]:
    """The nodes of fitted trees."""
    every = [(trees, step[0].nodes) for trees in fitted for step in trees._predictors]
    size = max(len(nodes) for _, nodes in every)
    features = np.zeros((len(every), size), np.int32)
    children = np.tile(np.arange(size, dtype=np.int32)[None, :, None], (len(every), 1, 2))
    thresholds, values = np.zeros((len(every), size)), np.zeros((len(every), size))
    for row, (_, nodes) in enumerate(every):
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        features[row, inner] = nodes["feature_idx"][inner]
        thresholds[row, inner] = nodes["num_threshold"][inner]
        children[row, inner, 0], children[row, inner, 1] = nodes["left"][inner], nodes["right"][inner]
        values[row, : len(nodes)] = nodes["value"] / len(fitted)
    values[0] += sum(float(trees._baseline_prediction.item()) for trees in fitted) / len(fitted)
    return {
        "tree_features": torch.from_numpy(features),
        "tree_children": torch.from_numpy(children),
        "tree_thresholds": torch.from_numpy(thresholds).view(torch.int32),
        "tree_values": torch.from_numpy(values).view(torch.int32),
    }
