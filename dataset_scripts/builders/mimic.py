"""What the builders of MIMIC-III and MIMIC-IV share: options, notes and codes by admission, splits, records.

What belongs to one release only (names of tables and columns, which rows count, published splits) is in `mimic3.py` or
`mimic4.py`.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..codes.classification import ICD9, Classification
from ..codes.icd9 import Kind
from .caml_splits import check_subjects
from .records import ICDBuilder, ICDConfig, check_positive, most_frequent, record_features
from .sources import absolute_path, has_text
from .stratify import stratify_groups


TOP_CODES = 50
MIN_COUNT = 10
OWN_FRACTIONS = {"train": 0.75, "validation": 0.10, "test": 0.15}
KINDS: tuple[Kind, ...] = get_args(Kind)
# What becomes of each ASCII character in CAML's words: its lower case, or a space if it belongs to none.
CAML_BYTES = re.sub(r"\W", " ", "".join(map(chr, range(128))).lower()).encode().ljust(256)


@dataclass
class MIMICConfig(ICDConfig):
    """What to make of a folder of MIMIC tables.

    Args:
        text (`str`):
            `"raw"` for the notes as written, `"caml"` for CAML's words: lower-cased runs of letters and digits, those
            without a letter dropped, one space between two. (CAML's own script drops purely numeric words only, so
            that it also keeps a row of underscores.)
        deid_token (`str`, *optional*):
            What to put in the place of each de-identification mark: `[**2101-1-1**]` in MIMIC-III, `___` in MIMIC-IV;
            marks are kept if left out.
        code_kinds (`bool`):
            Add the column `code_kinds`: for each of the record's codes, whether it is a diagnosis or a procedure.
        unsplit (`bool`):
            In place of the splits, make one, `unsplit`, of every admission in the folder.
        codes (`list[str]`, *optional*):
            Dotted codes to use in place of the configuration's own set. An admission with none of them is left out.
        min_count (`int`, *optional*):
            Where the splits are our own: in how many admissions a code must occur; 10 if left out.
        seed (`int`, *optional*):
            Where the splits are our own: makes them; 0 if left out.
        descriptions_file (`str`, *optional*):
            CAML's `ICD9_descriptions.txt`, for the descriptions of ICD-9-CM codes that the tables lack.
    """

    text: str = "raw"
    deid_token: str | None = None
    code_kinds: bool = False
    codes: list[str] | None = None
    min_count: int | None = None
    seed: int | None = None
    descriptions_file: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.text not in ("raw", "caml"):
            raise ValueError(f"`text` ({self.text!r}) must be 'raw' or 'caml'.")
        check_positive(self, "min_count")
        if self.descriptions_file is not None:
            self.descriptions_file = absolute_path(self.descriptions_file)
        if self.codes is not None:
            for code in self.codes:
                self.classification.kind_of(code)
            self.codes = sorted(set(self.codes))

    @property
    def classification(self) -> Classification:
        return ICD9

    @property
    def splits_note(self) -> str:
        """How splits of our own are made."""
        return f"`min_count` is {self.min_count or MIN_COUNT}, `seed` {self.seed or 0}."


class MIMICBuilder(ICDBuilder):
    """A builder of records from the discharge summaries and the codes of admissions."""

    DEID_MARK: ClassVar[str]  # a regular expression of RE2

    @property
    def classification(self) -> Classification:
        return self.config.classification

    def _describe_own_options(self) -> list[str]:
        """Say in sentences what the options make that are the release's own."""
        raise NotImplementedError

    def _describe(self) -> str:
        config = self.config
        parts = [str(config.description)]
        if config.codes is not None:
            parts.append(f"In place of its codes: {len(config.codes)} codes given by the caller.")
        parts += self._describe_own_options()
        if config.unsplit:
            parts.append("In place of its splits: one split of every admission.")
        if config.text == "caml":
            parts.append("The text is cut into CAML's words.")
        if config.deid_token is not None:
            parts.append(f"De-identification marks are replaced by {config.deid_token!r}.")
        return " ".join(parts)

    def _set_features(self, names: Collection[str]) -> None:
        self.info.features = record_features(names)
        if self.config.code_kinds:
            self.info.features["code_kinds"] = datasets.List(datasets.ClassLabel(names=list(KINDS)))

    def _make_generators(
        self, notes: "DischargeSummaries", codes: Mapping[int, set[str]], splits: Mapping[str, list[int]]
    ) -> list[datasets.SplitGenerator]:
        """Make a generator of each split, given its admissions; one without any is refused."""
        for name, hadm_ids in splits.items():
            if not hadm_ids:
                whole = "" if self.config.unsplit else ", or read all admissions as one split with `unsplit=True`"
                raise ValueError(
                    f"Split {name!r} of configuration {self.config.name!r} would be empty: {self.config.data_dir} has no "
                    f"admission with a chosen code for it ({len(codes):,} in all have one). Give a folder with more admissions, "
                    f"choose more codes (where splits are our own, `min_count=1` keeps all){whole}."
                )
        return [
            datasets.SplitGenerator(
                name=name, gen_kwargs={"notes": notes, "codes": codes, "hadm_ids": tuple(hadm_ids)}
            )
            for name, hadm_ids in splits.items()
        ]

    def _generate_examples(
        self, notes: "DischargeSummaries", codes: Mapping[int, set[str]], hadm_ids: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        kinds = [KINDS.index(self.classification.kind_of(code)) for code in self.code2id]
        for hadm_id in hadm_ids:
            ids = sorted(self.code2id[code] for code in codes[hadm_id])
            record = {
                "subject_id": notes.subject_ids[hadm_id],
                "hadm_id": hadm_id,
                "text": self._join(notes.texts_of(hadm_id))[0],
                "codes": ids,
            }
            if self.config.code_kinds:
                record["code_kinds"] = [kinds[code_id] for code_id in ids]
            yield hadm_id, record

    def _join(self, texts: Sequence[str]) -> tuple[str, list[int]]:
        """A record's text, made of its rows', and where in it each of them begins."""
        is_caml = self.config.text == "caml"
        joint = " " if is_caml else "\n\n"
        starts, end = [], 0
        for text in texts:
            starts.append(end)
            end += len(text) + len(joint) if text or not is_caml else 0
        return joint.join(filter(None, texts) if is_caml else texts), starts

    def _prepare_texts(self, texts: pa.StringArray) -> pa.StringArray:
        """Make of rows of notes what the options ask for."""
        if self.config.deid_token is not None:
            texts = self._replace_marks(texts, self.config.deid_token)
        return caml_texts(texts) if self.config.text == "caml" else texts

    def _replace_marks(self, texts: pa.StringArray, token: str) -> pa.StringArray:
        return replace_marks(texts, self.DEID_MARK, token)


@dataclass
class DischargeSummaries:
    """The discharge summary rows of a table of notes, by admission; shown without text.

    Args:
        path (`Path`): The table.
        texts (`pa.ChunkedArray`): Texts of the rows, made ready, in the order of the file.
        rows (`dict[int, list[int]]`): Numbers of each admission's rows, in the order in which its text has them.
        subject_ids (`dict[int, int]`): Subject of each admission.
        left_out (`Counter[str]`): How many rows were left out, by reason.
        row_ids (`pa.ChunkedArray`): Ids of the rows in the table, in the order of `texts`; null where it gives none.
    """

    path: Path
    texts: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()), repr=False)
    rows: dict[int, list[int]] = field(default_factory=dict)
    subject_ids: dict[int, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    row_ids: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()))

    def leave_out(self, reason: str, rows: pa.Array) -> None:
        """Count rows, given as booleans, that are left out."""
        self.left_out[f"left out, {reason}"] += pc.sum(rows).as_py() or 0

    def texts_of(self, hadm_id: int) -> list[str]:
        return [self.texts[row].as_py() for row in self.rows[hadm_id]]

    def count_repeated_texts(self) -> int:
        """How many rows have the text of an earlier row of their admission."""
        several = {hadm_id: rows for hadm_id, rows in self.rows.items() if len(rows) > 1}
        return sum(len(rows) - len(set(self.texts_of(hadm_id))) for hadm_id, rows in several.items())

    def count_other_subjects(self, rows: Iterable[tuple[pa.Array, pa.Array]]) -> int:
        """How many rows of other tables, given by admission and subject, have another subject than the admission's notes."""
        hadm_ids, subject_ids = (
            pa.array(list(ids), type=pa.int64()) for ids in zip(*self.subject_ids.items(), strict=True)
        )
        return sum(
            pc.sum(pc.not_equal(subjects, subject_ids.take(pc.index_in(admissions, hadm_ids)))).as_py() or 0
            for admissions, subjects in rows
        )

    def leave_out_blank(self, splits: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Take the admissions out of the splits whose text is blank, and count them."""
        blank = set(np.flatnonzero(~has_text(self.texts).to_numpy()).tolist())
        kept = {
            name: [hadm_id for hadm_id in hadm_ids if not blank.issuperset(self.rows[hadm_id])]
            for name, hadm_ids in splits.items()
        }
        self.left_out["left out, admissions without a text"] += sum(map(len, splits.values())) - sum(
            map(len, kept.values())
        )
        return kept


@dataclass
class Codings:
    """The codes of admissions, gathered from the rows of the tables of codes.

    Args:
        codes (`dict[int, set[str]]`): Dotted codes of each admission that has any.
        in_table (`dict[str, set[int]]`): Admissions with a code, by table.
        subjects (`list[tuple[pa.Array, pa.Array]]`): Admission and subject of all rows, batch by batch.
        num_rows (`int`): Rows with a code.
        rows_without_code (`int`): Rows whose code is empty.
    """

    codes: dict[int, set[str]] = field(default_factory=dict)
    in_table: dict[str, set[int]] = field(default_factory=dict)
    subjects: list[tuple[pa.Array, pa.Array]] = field(default_factory=list)
    num_rows: int = 0
    rows_without_code: int = 0

    def add(self, table: str, hadm_ids: pa.Array, subject_ids: pa.Array, dotted: pa.Array, is_empty: pa.Array) -> None:
        """Take over rows of a table; those whose dotted code is null have none that counts."""
        self.subjects.append((hadm_ids, subject_ids))
        self.rows_without_code += pc.sum(is_empty).as_py() or 0
        has_code = pc.is_valid(dotted)
        coded = hadm_ids.filter(has_code).to_pylist()
        self.num_rows += len(coded)
        self.in_table.setdefault(table, set()).update(coded)
        encoded = dotted.filter(has_code).dictionary_encode()
        codes = encoded.dictionary.to_pylist()  # one string for all rows that have the code
        for hadm_id, i in zip(coded, encoded.indices.to_pylist(), strict=True):
            self.codes.setdefault(hadm_id, set()).add(codes[i])

    def count_rows(self) -> dict[str, int]:
        """Count the rows that add nothing."""
        return {
            "left out, code rows without a code": self.rows_without_code,
            "left out, code rows that repeat another one": self.num_rows - sum(map(len, self.codes.values())),
        }

    def count_missing(self, hadm_ids: Set[int]) -> dict[str, int]:
        """Count the admissions, of those given, that a table has no code of."""
        return {
            f"coded admissions without a row in {table}": len(hadm_ids - inside)
            for table, inside in self.in_table.items()
        }


class Gathering:
    """Gathers rows of a table into `notes`, whose texts are complete once the block is left.

    Args:
        path (`Path`): The table.
        prepare (`Callable`): Makes some rows' texts ready, in a second thread while the table is unpacked and read.
    """

    def __init__(self, path: Path, prepare: Callable[[pa.StringArray], pa.StringArray]):
        self.notes = DischargeSummaries(path)
        self.prepare = prepare
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.chunks: list[Future[pa.StringArray]] = []
        self.num_rows = 0

    def __enter__(self) -> "Gathering":
        return self

    def __exit__(self, *fault: Any) -> None:
        self.worker.shutdown(cancel_futures=fault[0] is not None)
        if fault[0] is None:
            self.notes.texts = pa.chunked_array([chunk.result() for chunk in self.chunks], type=pa.string())

    def add(self, hadm_ids: pa.Array, subject_ids: pa.Array, texts: pa.Array) -> None:
        """Take over rows of the table, all of them with an admission."""
        self.chunks.append(self.worker.submit(self.prepare, texts))
        ids = zip(hadm_ids.to_pylist(), subject_ids.to_pylist(), strict=True)
        for row, (hadm_id, subject_id) in enumerate(ids, start=self.num_rows):
            if self.notes.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                raise ValueError(
                    f"{self.notes.path}: HADM_ID {hadm_id} has two SUBJECT_IDs. Restore the original table."
                )
            self.notes.rows.setdefault(hadm_id, []).append(row)
        self.num_rows += len(texts)


def stratify_by_subject(
    notes: DischargeSummaries, codes: Mapping[int, Collection[str]], seed: int | None
) -> dict[str, list[int]]:
    """Give each subject a split, and each split the admissions of its subjects in the order of the file.

    After Edin et al. (arXiv 2304.10909): subjects, not admissions, are given to the splits by iterative stratification;
    see [`stratify_groups`].

    Args:
        notes (`DischargeSummaries`): Whose admissions to split.
        codes (`Mapping[int, Collection[str]]`): Codes of each admission; one that is not in it gets no split.
        seed (`int`, *optional*): Makes the splits; 0 if left out.
    """
    admissions: dict[int, list[Collection[str]]] = {}
    for hadm_id, of_admission in codes.items():
        admissions.setdefault(notes.subject_ids[hadm_id], []).append(of_admission)
    split_of = stratify_groups(admissions, OWN_FRACTIONS, seed or 0)
    splits: dict[str, list[int]] = {name: [] for name in OWN_FRACTIONS}
    for hadm_id in notes.rows:
        if hadm_id in codes:
            splits[split_of[notes.subject_ids[hadm_id]]].append(hadm_id)
    check_subjects(
        {name: {notes.subject_ids[hadm_id] for hadm_id in hadm_ids} for name, hadm_ids in splits.items()},
        {name: f"split {name!r}" for name in splits},
    )
    return splits


def choose_most_frequent(counts: Mapping[str, int], num_codes: int, remedy: str) -> set[str]:
    """Choose the codes of most admissions; of two equally frequent ones the one that sorts first."""
    if len(counts) < num_codes:
        raise ValueError(
            f"The admissions with a discharge summary have {len(counts)} codes, fewer than the {num_codes} asked for: "
            f"{remedy}."
        )
    return set(most_frequent(counts, num_codes))


def choose_frequent(counts: Mapping[str, int], config: MIMICConfig) -> set[str]:
    """Choose the codes of at least `min_count` admissions."""
    min_count = config.min_count or MIN_COUNT
    return {code for code, count in counts.items() if count >= min_count}


def replace_marks(texts: pa.StringArray, mark: str, token: str) -> pa.StringArray:
    """Put a token in the place of each de-identification mark."""
    return pc.replace_substring_regex(texts, mark, token.replace("\\", r"\\"))


def caml_text(text: str) -> str:
    """Cut a note into CAML's words: lower-cased runs of letters, digits and underscores that hold a letter."""
    words = re.findall(r"\w+", text.lower())
    return " ".join(word for word in words if any(map(str.isalpha, word)))


def caml_texts(texts: pa.StringArray) -> pa.StringArray:
    """Apply [`caml_text`] to many notes, the faster and without the interpreter's lock if all are ASCII."""
    validity, offsets, data = texts.buffers()
    characters = data.to_pybytes() if data is not None else b""
    if not characters.isascii():
        return pa.array([caml_text(text.as_py()) for text in texts], type=pa.string())
    buffers = [validity, offsets, pa.py_buffer(characters.translate(CAML_BYTES))]
    words = pc.ascii_split_whitespace(pa.Array.from_buffers(pa.string(), len(texts), buffers, offset=texts.offset))
    kept = pc.ascii_is_lower(words.values)  # all letters are lower case, and there is one
    kept_before = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])
    offsets = pa.array(kept_before[words.offsets.to_numpy()], type=pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words.values.filter(kept)), " ")
