"""Builds a data set of the user's own notes: tables, a folder of `datasets`, or a data set of the Hub.

The notes are read twice. The first time, what their division takes is written into an index on the disk (see
`own_index.py`), and everything is checked before the first record is written; the second time, the records are. So
memory does not grow with the notes.
"""

import os
import shutil
import socket
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from .. import tables
from ..codes.classification import Classification
from ..codes.systems import CODE_SYSTEMS, CodeSystem
from ..counts import counted
from ..facts import FACTS
from ..files import make_folder, remove_abandoned
from ..tables import find_column
from . import own_index, own_rows, own_sources
from .own_index import Index, IndexedNote, divide_in_order, hash_id
from .own_rows import CodeReader, Columns, NoteReader, read_codings, read_titles
from .own_sources import SPLITS, NotRead, Source, find_given_sources, find_sources, is_hub_id
from .records import ICDBuilder, ICDConfig, check_positive, find_given_file, most_frequent, record_features
from .sources import absolute_path
from .stratify import EVERY_DOCUMENT, Shares, stratify_groups


FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
VALIDATION_FRACTIONS = {"train": 0.9, "validation": 0.1}  # of train notes that come with a test split alone
LEAST_TO_STRATIFY = 10  # notes of a code; a tenth of fewer is no whole note
SUBJECTS_AT_ONCE = 2_000  # more of them make the shares hardly more even, and take memory
FEWEST_NOTES = 10  # that are divided
PATH_OPTIONS = ("train_file", "validation_file", "test_file", "codes_file", "descriptions_file")


@dataclass
class OwnFilesConfig(ICDConfig):
    """How to read the user's own notes.

    Args:
        train_file, validation_file, test_file (`str`, *optional*):
            Tables of notes (csv, tsv, jsonl, parquet), in place of `data_dir`.
        text_column (`list[str]`, *optional*):
            The column of the text, `text` if left out. Several are joined, each under its name as a heading.
        codes_column (`str`, *optional*): The column of the codes, `codes` if left out; in `codes_file` also `code`.
        code_separator (`str`, *optional*):
            What divides the codes of a cell; `;`, `,`, `|` and white space if left out. A list of strings in a jsonl or
            parquet file needs none.
        procedures_column (`str`, *optional*):
            A column with the codes of procedures beside those of diagnoses, which ICD-9-CM cannot tell apart without dots.
        id_column, subject_column (`str`, *optional*):
            The columns of the note's id and of its patient; if left out, `note_id`, `hadm_id` or `id`, and `subject_id` or
            `patient_id`. Without an id, it is the number of the row, `5`, where all notes are in one file, and else it names
            the split, the file (counted from 0, train before validation before test) and the row, `train-0-5`; without a
            subject, each note is one of its own.
        codes_file (`str`, *optional*):
            A second table with a row for each code of a note, which `id_column` and `codes_column` name.
        code_kind_column (`str`, *optional*):
            A column of `codes_file` that says `diagnosis` (or diagnoses, d, dx, cm) or `procedure` (or procedures, proc, p,
            px, pcs); rows that say something else are left out.
        code_system (`str`):
            `icd9cm`, `icd10cm` (with ICD-10-PCS in `procedures_column`), `icd10pcs`, or `other`: any strings.
        descriptions_file (`str`, *optional*): A table with the columns `code` and `description`.
        encoding (`str`): Of the tables.
        codes (`list[str]`, *optional*): The codes to use, as the data set has them. A note with none of them is left out.
        num_codes (`int`, *optional*): Use the codes of most train notes alone, this many.
        min_count (`int`, *optional*): Use the codes of at least this many train notes alone.
        split_by (`str`):
            How notes without splits are divided: `codes`, stratified by code; or `date`, the oldest to train.
        date_column (`str`, *optional*): For `split_by="date"`; `date`, `note_date`, `charttime` or `chartdate` if left out.
        seed (`int`, *optional*): Makes the stratified splits; 0 if left out.
        unsplit (`bool`): In place of the splits, make one, `unsplit`, of every note with codes.
    """

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: list[str] | None = None
    codes_column: str | None = None
    code_separator: str | None = None
    procedures_column: str | None = None
    id_column: str | None = None
    subject_column: str | None = None
    codes_file: str | None = None
    code_kind_column: str | None = None
    code_system: str = "other"
    descriptions_file: str | None = None
    encoding: str = "utf-8"
    codes: list[str] | None = None
    num_codes: int | None = None
    min_count: int | None = None
    split_by: str = "codes"
    date_column: str | None = None
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.code_system not in CODE_SYSTEMS:
            raise ValueError(f"`code_system` ({self.code_system!r}) must be one of {', '.join(CODE_SYSTEMS)}.")
        if self.split_by not in ("codes", "date"):
            raise ValueError(f"`split_by` ({self.split_by!r}) must be 'codes' or 'date'.")
        if self.date_column is not None and self.split_by != "date":
            raise ValueError("`date_column` is read for `split_by='date'` alone: give both, or none.")
        if self.code_separator == "":
            raise ValueError(
                "`code_separator` must not be empty: leave it out to divide codes at `;`, `,`, `|` and white space."
            )
        if self.codes_file is None and self.code_kind_column is not None:
            raise ValueError("`code_kind_column` is a column of `codes_file`: give both, or none.")
        if self.codes_file is not None and self.procedures_column is not None:
            raise ValueError(
                "`procedures_column` is a column of the notes: in `codes_file`, `code_kind_column` says the kind."
            )
        check_positive(self, "num_codes")
        check_positive(self, "min_count")
        if isinstance(self.text_column, str):
            self.text_column = [self.text_column]
        if self.codes is not None:
            self.codes = sorted(set(self.codes))
            wrong = [code for code in self.codes if self.system.read_code(code) != code]
            if wrong:
                raise ValueError(
                    f"`codes` has {len(wrong)} that are not written as {self.system.name} writes them: {wrong[:3]}."
                )
        for option in PATH_OPTIONS:
            if getattr(self, option) is not None:
                setattr(self, option, absolute_path(getattr(self, option)))

    @property
    def system(self) -> CodeSystem:
        return CODE_SYSTEMS[self.code_system]

    @property
    def given_files(self) -> dict[str, str | None]:
        return {split: getattr(self, f"{split}_file") for split in SPLITS}


class OwnFiles(ICDBuilder):
    """Build a data set of the user's own notes and codes.

    `data_dir` is one of these; or it is left out, and `train_file`, `validation_file` and `test_file` give tables:

    - a table of notes: .csv, .tsv or .jsonl, each with `.gz` or without, or .parquet;
    - a folder with such tables, one, or some named `train`, `validation` (`valid`, `val`, `dev`) and `test`; others beside
      them are not read, which is counted, and no table may be there in two formats;
    - a folder that `datasets` wrote with `save_to_disk`;
    - the id of a data set of the Hub, `OWNER/NAME`.

    **Splits.** Notes that come without splits, or as train notes alone, are divided into train, validation and test
    (80 / 10 / 10 %): a table is divided alike whether `data_dir` is the table or the folder that it is in, or it is given as
    `train_file`. Train notes that come with a test split but without a validation split are divided into train and
    validation (90 / 10 %). Subjects, not notes, are divided, stratified by code (see [`stratify_groups`]) or by date. The
    result depends on the subjects, the codes and the seed, not on the order of the rows.

    **Records.** `hadm_id` is the note's id and `subject_id` that of its subject, both strings. A row without a text, id or
    code, one that cannot be read, and a code that is not in the form of `code_system` are left out and counted; where they
    are most of the file, and where two notes have one id, that is an error.

    See [`ICDBuilder`] for the arguments and [`OwnFilesConfig`] for the options.
    """

    BUILDER_CONFIG_CLASS = OwnFilesConfig
    BUILDER_CONFIGS = [OwnFilesConfig(name="default", description="Notes and codes of the user's own files.")]
    ABOUT = FACTS["files"]

    @classmethod
    def own_code(cls) -> list[Path]:
        modules = (tables, own_index, own_rows, own_sources)
        return [*super().own_code(), *(Path(str(module.__file__)) for module in modules)]

    def _find_data_dir(self, data_dir: str | Path | None) -> str | None:
        if not data_dir:
            return None
        return str(data_dir) if is_hub_id(data_dir) else absolute_path(data_dir)

    def _find_sources(self, config: OwnFilesConfig) -> list[Path]:
        apart = [find_given_file(config, option) for option in ("codes_file", "descriptions_file")]
        given = find_given_sources(config.given_files, config.encoding)
        if (config.data_dir is None) == (not given):
            raise ValueError(
                "Give the notes either by `data_dir` or by `train_file`, `validation_file` and `test_file`."
            )
        tables_apart = [path for path in apart if path is not None]
        self.sources, self.not_read = given, NotRead()
        if not given:
            hub_cache = self.downloads_dir.parent / "hub-private"
            self.sources, self.not_read = find_sources(str(config.data_dir), config.encoding, tables_apart, hub_cache)
        by_date = config.split_by == "date" and not config.unsplit
        divided = {None, "train"} if self._fractions else set()
        self.columns = [find_columns(source, config, by_date and source.split in divided) for source in self.sources]
        # Those that are not read are in the report, which has to be made anew when there are others.
        return [*(file for source in self.sources for file in source.files), *tables_apart, *self.not_read.files]

    @property
    def classification(self) -> Classification | None:
        return self.config.system.classification

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """Titles by code: those of `descriptions_file`, then those that are known of the code system."""
        system, path = self.config.system, self.config.descriptions_file
        own = {} if path is None else read_titles(Path(path), self.config.encoding, system)
        return {**system.load_titles(), **own}

    def _describe(self) -> str:
        config = self.config
        parts = [f"Codes of {config.system.name}."]
        if all(columns.subject is None for columns in self.columns):
            parts.append("No column names the patient, so each note counts as one patient's alone.")
        if config.unsplit:
            parts.append("One split of every note.")
        elif fractions := self._fractions:
            shares = " / ".join(f"{share:.0%}" for share in fractions.values())
            how = "by date" if config.split_by == "date" else f"stratified by code, seed {config.seed or 0}"
            parts.append(f"Split into {', '.join(fractions)} here ({shares}, {how}), no patient in two of them.")
        return " ".join(parts)

    @property
    def _fractions(self) -> dict[str, float]:
        """The splits that have to be made, and their shares; none if all are there."""
        there = {source.split for source in self.sources}
        if there <= {None, "train"}:
            return FRACTIONS
        return VALIDATION_FRACTIONS if "validation" not in there and "train" in there else {}

    def download_and_prepare(self, *args, **kwargs):
        streamed, self._scratch[:] = list(self._scratch), []
        try:
            super().download_and_prepare(*args, **kwargs)
        finally:
            _remove_folders(self._scratch, os.getpid())
            self._scratch[:] = streamed

    # ---- the first time: the index

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        path = self._make_scratch() / "index.sqlite"
        try:
            with closing(Index(path, is_new=True)) as index:
                return self._fill(index, path)
        except BaseException:
            _remove_folders(self._scratch[-1:], os.getpid())
            raise

    @cached_property
    def _scratch(self) -> list[str]:
        """Folders to be removed with the builder: whoever streams reads the index for as long as there is one."""
        folders: list[str] = []
        weakref.finalize(self, _remove_folders, folders, os.getpid())
        return folders

    def _make_scratch(self) -> Path:
        """Make a private folder, which is removed with the builder, and at the next build if this one is killed."""
        folder = make_folder(Path(self._cache_dir_root, self.dataset_name), private=True, ours=True)
        remove_abandoned(folder / "index")
        prefix, suffix = f".index.{socket.gethostname()}-", f"-{os.getpid()}.tmp"
        self._scratch.append(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder))
        return Path(self._scratch[-1])

    def _fill(self, index: Index, path: Path) -> list[datasets.SplitGenerator]:
        """Read, check and divide the notes; returns the generators of the splits' records."""
        _ = self.code_descriptions  # what is wrong with their file is said before the notes are read
        codes = CodeReader(self.config.system, self.config.code_separator)
        counts: Counter[str] = Counter(self.not_read.counts)
        if self.config.codes_file is not None:
            counts["left out, code rows that repeat another one"] = self._index_codings(index, codes, counts)
        index.add_notes(self._read_notes(index, codes, counts))
        index.add_names(codes.names)
        counts.update(codes.check())
        if self.config.codes_file is not None:
            counts["code rows with the id of no note"] = index.count_codings_without_note()
        self._check_ids(index)
        if not self.config.unsplit:
            counts["patients with notes in two of the given splits"] = index.count_divided_subjects()
            self._divide(index, list(codes.names), counts)
        return self._make_generators(index, path, list(codes.names), counts)

    def _index_codings(self, index: Index, codes: CodeReader, counts: Counter[str]) -> int:
        config = self.config
        options = {name: getattr(config, name) for name in ("id_column", "codes_column", "code_kind_column")}
        rows = read_codings(Path(config.codes_file), config.encoding, options, codes, counts)
        return index.add_codings((hash_id(note_id), code) for note_id, code in rows)

    def _read_notes(self, index: Index, codes: CodeReader, counts: Counter[str]) -> Iterator[IndexedNote]:
        """Read the notes of all sources that have codes."""
        for place, source in enumerate(self.sources):
            reader = self._reader(place, codes)
            split = 0 if self.config.unsplit else None if source.split is None else SPLITS.index(source.split)
            for number, note in reader:
                note_id = hash_id(note.id)
                found = index.codes_of(note_id) if self.config.codes_file is not None else note.codes
                if found:
                    yield IndexedNote(place, number, note_id, hash_id(note.subject), note.date, found, split)
                else:
                    reader.counts["left out, notes without codes"] += 1
            counts.update(reader.check())

    def _reader(self, place: int, codes: CodeReader | None = None) -> NoteReader:
        """The reader of a source; without one of codes, it reads what a record takes of the row, and no more."""
        source, columns = self.sources[place], self.columns[place]
        if codes is None:
            columns = replace(columns, codes=None, procedures=None, date=None)
        prefix = "" if len(self.sources) == 1 else f"{source.split}-{place}-"
        return NoteReader(source, columns, prefix, codes)

    def _check_ids(self, index: Index) -> None:
        repeated, places = index.find_repeated()
        if repeated:
            first, second = (f"row {row} of {self.sources[place].name}" for place, row in places)
            raise ValueError(
                f"{counted(repeated, 'note has', 'notes have')} the id of an earlier one, such as {second} that of {first}. Remove one of the two, "
                "or give `id_column` a column that tells notes apart."
            )

    # ---- the division

    def _divide(self, index: Index, names: list[str], counts: Mapping[str, int]) -> None:
        """Make the splits that are not given."""
        if not self._fractions:
            return
        if "train" in {source.split for source in self.sources}:
            index.release(SPLITS.index("train"))
        num_notes = index.count_to_divide()
        if num_notes < FEWEST_NOTES:
            raise ValueError(
                f"{self.sources[0].name}: {num_notes} notes with codes are too few to be divided, expected {FEWEST_NOTES} at "
                f"least. {list_counts(counts)}Give the splits as files of their own, or read the notes as a whole with "
                "`unsplit=True`."
            )
        if self.config.split_by == "date":
            fractions = {SPLITS.index(split): share for split, share in self._fractions.items()}
            index.divide(divide_in_order(index.subjects_by_date(), fractions, num_notes))
        else:
            self._stratify(index, names, num_notes)
        index.finish_division()

    def _stratify(self, index: Index, names: list[str], num_notes: int) -> None:
        counts = index.count_codes(None, len(names))
        frequent = {number: name for number, name in enumerate(names) if counts[number] >= LEAST_TO_STRATIFY}
        due = {name: int(counts[number]) for number, name in frequent.items()}
        shares = Shares({**due, EVERY_DOCUMENT: num_notes}, self._fractions)
        for groups in index.groups_to_divide(SUBJECTS_AT_ONCE):
            named = {
                subject: [sorted(frequent[number] for number in codes if number in frequent) for codes in notes]
                for subject, notes in groups.items()
            }
            split_of = stratify_groups(named, self._fractions, self.config.seed or 0, shares)
            index.divide((subject, SPLITS.index(split)) for subject, split in split_of.items())

    # ---- the codes, and what was left out

    def _make_generators(
        self, index: Index, path: Path, names: list[str], counts: Counter[str]
    ) -> list[datasets.SplitGenerator]:
        splits = self._splits
        of_split = {split: index.count_codes(number, len(names)) for split, number in splits.items()}
        reference = of_split["train"] if "train" in of_split else np.sum(list(of_split.values()), axis=0)
        chosen = self._choose_codes(dict(zip(names, reference.tolist(), strict=True)))
        is_chosen = np.array([name in chosen for name in names], dtype=bool)
        kept = index.count_notes(is_chosen)
        for split, number in splits.items():
            if not kept.get(number, (0, 0))[0]:
                raise ValueError(
                    f"{self.sources[0].name}: no note with one of the chosen codes would be in split {split!r}. "
                    f"{list_counts(counts)}Give more notes, or read them as a whole with `unsplit=True`."
                )
        self.info.features = record_features(chosen, "string")
        self._report(
            {
                **counts,
                "left out, codes outside of the code set": int((~is_chosen).sum()),
                "left out, notes with none of the chosen codes": sum(none for _, none in kept.values()),
                "codes that no note has": len(chosen - set(names)),
            },
            {
                split: [[name for name, count in zip(names, of_split[split], strict=True) if count and name in chosen]]
                for split in splits
            },
        )
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"index_file": str(path), "split": number})
            for split, number in splits.items()
        ]

    @property
    def _splits(self) -> dict[str, int]:
        """The splits of the data set, and their numbers in the index."""
        if self.config.unsplit:
            return {"unsplit": 0}
        there = {source.split for source in self.sources} | self._fractions.keys()
        return {split: number for number, split in enumerate(SPLITS) if split in there}

    def _choose_codes(self, counts: Mapping[str, int]) -> set[str]:
        """Choose the codes of the data set, given in how many train notes, or of all if there is no train, each is."""
        config = self.config
        if config.codes is not None:
            return set(config.codes)
        if (config.num_codes or config.min_count) and not {"train", "unsplit"} & self._splits.keys():
            raise ValueError(
                "`num_codes` and `min_count` count train notes, and there are none: give `codes`, the ones to use."
            )
        chosen = {code: count for code, count in counts.items() if count >= (config.min_count or 0)}
        if config.num_codes is None and chosen:
            return set(chosen)
        if len(chosen) < (config.num_codes or 1):
            raise ValueError(
                f"{self.sources[0].name}: {len(chosen)} codes are in as many notes as asked for. Lower `min_count` or "
                "`num_codes`."
            )
        return set(most_frequent(chosen, config.num_codes or 0))

    # ---- the second time: the records

    def _generate_examples(self, index_file: str, split: int) -> Iterator[tuple[str, dict[str, Any]]]:
        with closing(Index(Path(index_file))) as index:
            classes = [self.code2id.get(name) for name in index.names()]
            for place, source in enumerate(self.sources):
                wanted = index.notes_of(split, place)
                expected = next(wanted, None)
                reader = self._reader(place)
                for number, row in reader.rows() if expected else ():
                    if expected is None:
                        break
                    if number < expected.row:
                        continue
                    note = reader.read(row, number)
                    if note is None or hash_id(note.id) != expected.id:
                        break
                    ids = sorted(i for i in (classes[code] for code in expected.codes) if i is not None)
                    if ids:
                        record = {"subject_id": note.subject, "hadm_id": note.id, "text": note.text, "codes": ids}
                        yield f"{place}-{number}", record
                    expected = next(wanted, None)
                if expected is not None:
                    raise ValueError(f"{source.name} was changed while it was read. Build the data set again.")


def list_counts(counts: Mapping[str, int]) -> str:
    """What was counted, as a sentence with a space behind it; nothing if nothing was."""
    said = "; ".join(f"{what}: {count:,}" for what, count in counts.items() if count)
    return f"{said[0].upper()}{said[1:]}. " if said else ""


def find_columns(source: Source, config: OwnFilesConfig, needs_date: bool) -> Columns:
    """Find the columns of a source that the options name, or that have a usual name; of the date where it is needed.

    Raises:
        ValueError: where one is missing that is needed or named.
    """
    there = source.column_names()

    def find(option: str, usual: str, needed: bool = True) -> str | None:
        return find_column(source.name, there, option, getattr(config, option), usual, needed, named)

    options = ("codes_column", "procedures_column", "id_column", "subject_column", "date_column")
    named = [*(config.text_column or ()), *filter(None, (getattr(config, option) for option in options))]
    text_columns: list[str | None] = [*config.text_column] if config.text_column else [None]
    texts = [find_column(source.name, there, "text_column", name, "text", named=named) for name in text_columns]
    has_codes_file = config.codes_file is not None
    return Columns(
        texts=tuple(text for text in texts if text is not None),
        codes=None if has_codes_file else find("codes_column", "codes"),
        procedures=None if config.procedures_column is None else find("procedures_column", "codes"),
        id=find("id_column", "id", needed=has_codes_file),
        subject=find("subject_column", "subject", needed=False),
        date=find("date_column", "date") if needs_date else None,
    )


def _remove_folders(folders: list[str], pid: int) -> None:
    """Remove folders that this process made; a process that was forked since leaves them to it."""
    if os.getpid() == pid:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
