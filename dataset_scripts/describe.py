"""Counts what is in a data set: records, codes, lengths of notes, rare codes, and codes that the train split lacks.

Everything here is a count: no text of a record is shown.
"""

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .arguments import PATH_OPTIONS
from .builders.records import ICDBuilder
from .files import whole_file


BANDS = ((0, 0), (1, 1), (2, 10), (11, 50), (51, 100), (101, 500), (501, None))  # records in train that have a code
MOST_FREQUENT = 10


@dataclass(frozen=True)
class SplitDescription:
    """One split of a data set.

    Args:
        words (`np.ndarray` of shape `(N,)`): Words of each record's text, divided by white space.
        codes (`np.ndarray` of shape `(N,)`): Codes of each record.
        subjects (`int`): Different `subject_id`s.
        counts (`np.ndarray` of shape `(C,)`): Records that have each code.
        unseen (`np.ndarray` of shape `(C,)`): True for a code that this split has and train does not.
    """

    words: np.ndarray
    codes: np.ndarray
    subjects: int
    counts: np.ndarray
    unseen: np.ndarray

    @property
    def unseen_share(self) -> float:
        """Share of the split's codes that train does not have."""
        return float(self.unseen.sum() / max((self.counts > 0).sum(), 1))

    @property
    def unseen_occurrences_share(self) -> float:
        """Share of the split's gold codes, counted once for each record, that train does not have."""
        return float(self.counts[self.unseen].sum() / max(self.counts.sum(), 1))


@dataclass(frozen=True)
class Description:
    """A whole data set; `reference` is the split that its frequencies are counted in, train if there is one."""

    title: str
    names: list[str]
    splits: dict[str, SplitDescription]
    reference: str


def describe(builder: ICDBuilder) -> Description:
    """Count what a prepared data set holds."""
    splits = builder.as_dataset()
    reference = "train" if "train" in splits else next(iter(splits))
    names = splits[reference].features["codes"].feature.names
    counts = {split: np.array([of_split[name] for name in names]) for split, of_split in builder.code_counts.items()}
    return Description(
        title=", ".join([f"{type(builder).__name__}, configuration {builder.config.name}", *_show_options(builder)]),
        names=names,
        splits={
            split: SplitDescription(
                words=_count_words(dataset),
                codes=pc.list_value_length(dataset.data.column("codes")).to_numpy(),
                subjects=len(pc.unique(dataset.data.column("subject_id"))),
                counts=counts[split],
                unseen=(counts[split] > 0) & (counts[reference] == 0),
            )
            for split, dataset in splits.items()
        },
        reference=reference,
    )


def print_description(description: Description, builder: ICDBuilder, console: Console) -> None:
    """Print tables of the splits, of the long tail, and of the most frequent codes."""
    console.print(builder.info.description, highlight=False, markup=False)
    table = Table(title=description.title)
    for column in ("", *description.splits):
        table.add_column(column, justify="left" if not column else "right")
    for label, value in {
        "records": lambda split: f"{len(split.codes):,}",
        "subjects": lambda split: f"{split.subjects:,}",
        "codes": lambda split: f"{(split.counts > 0).sum():,}",
        "codes a record: mean": lambda split: f"{split.codes.mean():.1f}",
        "codes a record: median, largest": lambda split: f"{np.median(split.codes):,.0f}, {split.codes.max():,}",
        "words a record: mean": lambda split: f"{split.words.mean():,.0f}",
        "words a record: median, largest": lambda split: f"{np.median(split.words):,.0f}, {split.words.max():,}",
        f"codes never seen in {description.reference}": lambda split: f"{split.unseen.sum():,}",
        "  share of its codes": lambda split: f"{split.unseen_share:.1%}",
        "  share of its occurrences of codes": lambda split: f"{split.unseen_occurrences_share:.2%}",
    }.items():
        table.add_row(label, *(value(split) for split in description.splits.values()))
    console.print(table)

    reference = description.splits[description.reference].counts
    total = np.sum([split.counts for split in description.splits.values()], axis=0)
    table = Table(title=f"The long tail: codes by their number of {description.reference} records")
    for column in ("records", "codes", "share of codes", "share of occurrences"):
        table.add_column(column, justify="right")
    for low, high in BANDS:
        inside = (reference >= low) & (reference <= (high or low) if high is not None else reference >= low)
        label = f"{low}" if low == high else f"{low}-{high}" if high is not None else f"{low} and more"
        share = total[inside].sum() / max(total.sum(), 1)
        table.add_row(label, f"{inside.sum():,}", f"{inside.mean():.1%}", f"{share:.1%}")
    console.print(table)

    table = Table(title="Most frequent codes")
    for column in ("code", "description", *description.splits):
        table.add_column(column, justify="right" if column in description.splits else "left")
    descriptions = builder.code_descriptions
    for code_id in np.argsort(-reference, kind="stable")[:MOST_FREQUENT]:
        name = description.names[code_id]
        numbers = (f"{split.counts[code_id]:,}" for split in description.splits.values())
        table.add_row(escape(name), escape(descriptions.get(name, "")), *numbers)
    console.print(table)


def draw_description(description: Description, path: Path) -> None:
    """Draw splits, lengths and the frequency curve into a PNG file; a split without any code has no curve and no codes."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ImportError(f"{path} is not drawn, since matplotlib is missing: `pip install matplotlib`.") from None

    figure = Figure(figsize=(11, 8), layout="constrained")
    (sizes, curve), (words, codes) = figure.subplots(2, 2)
    figure.suptitle(description.title)

    bars = sizes.bar(list(description.splits), [len(split.codes) for split in description.splits.values()])
    labels = [
        f"{len(split.codes):,}\n{f'{split.unseen_share:.1%}' if split.counts.any() else 'no codes'}"
        for split in description.splits.values()
    ]
    sizes.bar_label(bars, labels)
    sizes.margins(y=0.15)
    sizes.set(title=f"Records, and the share of codes never seen in {description.reference}", ylabel="records")
    longest = max(int(split.words.max()) for split in description.splits.values())
    most_codes = max(int(split.codes.max()) for split in description.splits.values())
    for name, split in description.splits.items():
        frequencies = np.sort(split.counts[split.counts > 0])[::-1]
        if len(frequencies):
            curve.loglog(np.arange(1, len(frequencies) + 1), frequencies, label=name)
            codes.hist(split.codes, bins=np.arange(most_codes + 2) - 0.5, density=True, histtype="step", label=name)
        words.hist(split.words, bins=30, range=(0, longest), density=True, histtype="step", label=name)
    curve.set(title="Frequency of the codes", xlabel="rank of the code", ylabel="records that have it")
    words.set(title="Length of the text", xlabel="words", ylabel="share of records per word")
    codes.set(title="Codes of a record", xlabel="codes", ylabel="share of records")
    for axes in (curve, words, codes):
        axes.legend()
    codes.xaxis.set_major_locator(MaxNLocator(integer=True))
    with whole_file(path, "wb") as file:
        figure.savefig(file, dpi=120, format=path.suffix[1:] or "png")


def _show_options(builder: ICDBuilder) -> list[str]:
    """Write the options that are not the defaults; of a path the last part, of a list how long it is."""
    shown = {}
    for name, value in builder.options.items():
        if isinstance(value, list):
            shown[name] = f"{len(value)} given"
        elif name.endswith(PATH_OPTIONS):
            shown[name] = Path(value).name
        else:
            shown[name] = repr(value)
    return [f"{name}={value}" for name, value in shown.items()]


def _count_words(dataset: datasets.Dataset) -> np.ndarray:
    counts = [
        pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(batch))).to_numpy(zero_copy_only=False)
        for batch in dataset.data.column("text").cast(pa.large_string()).chunks
    ]
    return np.concatenate(counts)
