"""The codes of a model: each has one logit, and what was chosen for other codes does not stay when they change."""

from collections import Counter
from typing import Any

from transformers.utils import logging

from .decision_icd import decision_fields
from .heads import ARCHITECTURES


logger = logging.get_logger(__name__)


def codes_by_number(label2id: dict[str, int]) -> dict[int, str]:
    """`id2label` made from `label2id`.

    Raises:
        ValueError: where two codes have one number.
    """
    id2label: dict[int, str] = {}
    for code, i in label2id.items():
        if id2label.setdefault(int(i), code) != code:
            raise ValueError(
                f"`label2id` gives {id2label[int(i)]!r} and {code!r} one number, {i}: each code has its own."
            )
    return dict(sorted(id2label.items()))


def check_labels(id2label: dict[int, str], label2id: dict[str, int]) -> None:
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(
            f"`id2label` must number {len(id2label)} codes from 0 to {len(id2label) - 1}, one for each logit; its numbers run "
            f"from {min(id2label)} to {max(id2label)}."
        )
    codes = list(id2label.values())
    no_code = [i for i, code in id2label.items() if not isinstance(code, str) or not code.strip()]
    if no_code:
        raise ValueError(f"`id2label` must hold codes as text: {no_code[0]} is {id2label[no_code[0]]!r}.")
    if len(set(codes)) != len(codes):
        repeated = [code for code, count in Counter(codes).items() if count > 1]
        raise ValueError(
            f"`id2label` holds codes twice: {repeated[:3]}. Every code has one logit: leave the others out."
        )
    wrong = [code for i, code in id2label.items() if label2id.get(code) != i]
    if wrong or len(label2id) != len(id2label):
        named = wrong[0] if wrong else next(code for code in label2id if code not in set(codes))
        raise ValueError(
            f"`label2id` is not the reverse of `id2label`, e.g. for {named!r}: leave `label2id` out, and it is made from "
            "`id2label`."
        )


def with_new_labels(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a saved configuration, without those that belong to its labels where `given` brings other labels."""
    if not fields.get("id2label") and fields.get("label2id"):
        fields = fields | {"id2label": codes_by_number(fields["label2id"])}
    stored = {int(i): code for i, code in (fields.get("id2label") or {}).items()}
    count = len(stored) if stored else fields.get("num_labels")
    labels = given.get("id2label")
    if labels is None and given.get("label2id") is not None:
        labels = codes_by_number(given["label2id"])
    if labels is not None:
        changed = {int(i): code for i, code in labels.items()} != stored
    else:
        changed = given.get("num_labels") not in (None, count)
    if not changed:
        return fields
    decided = [name for name, default in decision_fields().items() if fields.get(name) not in (None, default)]
    if decided:
        logger.warning(
            f"The labels are not those that the model was saved with: {', '.join(decided)} were chosen for those, and are set "
            "back to the defaults."
        )
    # Which codes are neighbours in a graph says nothing of other codes.
    left_out = ("id2label", "label2id", "num_labels", "label_graph", "shortlist", *decision_fields())
    kept = {name: value for name, value in fields.items() if name not in left_out}
    if kept.get("head_options"):
        kept["head_options"] = {name: value for name, value in kept["head_options"].items() if name != "parents"}
    return kept | ({} if labels is None else {"id2label": labels, "label2id": given.get("label2id")})


def with_new_words(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a saved configuration, without those that another loss or architecture, if one is given, sets anew."""
    for word, settings in (("loss", ("loss_options",)), ("architecture", tuple(ARCHITECTURES["paper"]))):
        if word in given and given[word] != fields.get(word):
            fields = {name: value for name, value in fields.items() if name not in settings} | {word: given[word]}
    return fields
