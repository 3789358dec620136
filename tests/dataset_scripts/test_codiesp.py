import gzip
import json
import logging
import shutil

import pytest
from faults import assert_clean
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts import CodiEsp, load_builder, load_split
from dataset_scripts.builders.codiesp import (
    case_number,
    describe_codes,
    parse_position,
    read_background,
    read_rows,
)
from dataset_scripts.builders.records import most_frequent
from dataset_scripts.codes import icd10_hierarchy


SPANISH = "Caso inventado: fiebre y dolor, ahora en el riñón.\n"  # fiebre is at 16, dolor at 25, riñón at 44
ENGLISH = "Invented case: fever and pain, now in the kidney.\n"
BACKGROUND = [{"id": "S1000-1", "text": "Invented background."}, {"id": "S1000-2", "text": "Another invented one."}]


def write_folder(folder, name, cases):
    """Write `{case id: (diagnoses, procedures)}`; each code is justified by `fiebre`."""
    for texts, text in (("text_files", SPANISH), ("text_files_en", ENGLISH)):
        (folder / name / texts).mkdir(parents=True)
        for case_id in cases:
            (folder / name / texts / f"{case_id}.txt").write_text(text, "utf-8")
    rows = {"D": [], "P": [], "X": []}
    for case_id, kinds in cases.items():
        for letter, label, codes in zip("DP", ("DIAGNOSTICO", "PROCEDIMIENTO"), kinds, strict=True):
            rows[letter] += [[case_id, code] for code in codes]
            rows["X"] += [[case_id, label, code, "fiebre", "16 22"] for code in codes]
    for letter, table in rows.items():
        (folder / name / f"{name}{letter}.tsv").write_text("".join("\t".join(row) + "\n" for row in table), "utf-8")


def write_corpus(folder, train, dev):
    write_folder(folder, "train", train)
    write_folder(folder, "dev", dev)
    with gzip.open(folder / "background_en.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in BACKGROUND)
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Twenty invented cases of train, every second with a procedure and the last without any code, and two of dev."""
    train = {f"S1-{i:02}": (["r50.9"] if i % 3 else ["r50.9", "n23"], ["bw20"] if i % 2 else []) for i in range(20)}
    dev = {"S2-1": (["r52", "n23"], ["0tt10zz"]), "S2-2": (["r50.9"], [])}
    return write_corpus(tmp_path / "codiesp", {**train, "S1-19": ([], [])}, dev)


@pytest.fixture
def build(corpus, tmp_path):
    def build(config=None, **options):
        return load_builder("codiesp", config, data_dir=corpus, cache_dir=tmp_path / "cache", **options)

    return build


def names_of(dataset):
    return dataset.features["codes"].feature.names


def codes_by_case(dataset):
    names = names_of(dataset)
    return {
        case_id: [names[i] for i in codes] for case_id, codes in zip(dataset["case_id"], dataset["codes"], strict=True)
    }


def append(path, *values):
    with path.open("a", encoding="utf-8") as file:
        file.write("\t".join(values) + "\n")


# ---- invented cases


def test_records_by_hand(corpus, build):
    append(corpus / "dev/devX.tsv", "S2-1", "DIAGNOSTICO", "n23", "dolor riñón", "25 30;44 49")
    append(corpus / "dev/devX.tsv", "S2-1", "DIAGNOSTICO", "n23", "riñón dolor", "44 49;25 30")
    dataset = build("both_es").as_dataset(split="test")
    assert names_of(dataset) == ["0TT10ZZ", "BW20", "N23", "R50.9", "R52"]
    assert dataset.features["evidence"].feature["code"] == dataset.features["codes"].feature
    number = case_number("S2-1")
    assert 0 <= number < 2**48
    assert dataset[0] == {
        "subject_id": number,
        "hadm_id": number,
        "text": SPANISH,  # the line break at its end included
        "codes": [0, 2, 4],
        "case_id": "S2-1",
        "evidence": [
            {"code": 4, "spans": [[16, 22]]},
            {"code": 2, "spans": [[16, 22]]},
            {"code": 0, "spans": [[16, 22]]},
            {"code": 2, "spans": [[25, 30], [44, 49]]},
            {"code": 2, "spans": [[44, 49], [25, 30]]},
        ],
    }


def test_english_has_no_evidence_and_needs_no_table_of_it(corpus, build):
    for name in ("train", "dev"):
        (corpus / f"{name}/{name}X.tsv").unlink()
        shutil.rmtree(corpus / f"{name}/text_files")
    splits = build("both_en").as_dataset()
    assert set(splits["test"]["text"]) == {ENGLISH}
    assert all(evidence == [] for split in splits.values() for evidence in split["evidence"])


def test_the_description_tells_configurations_apart(build):
    english, spanish = (
        build(config, min_count=min_count, unsplit=True).info.description
        for config, min_count in (("diagnoses_en_top50", 0), ("both_es", 2))
    )
    task = "The task of Miranda-Escalada et al. (CLEF eHealth 2020); test is its dev, validation a part of its train."
    assert (
        "\n\nConfiguration diagnoses_en_top50: The 50 most frequent diagnoses; text machine-translated into English, "
        f"without evidence, whose offsets are of the Spanish text. {task} In place of the splits: one split" in english
    )
    assert (
        f"\n\nConfiguration both_es: The diagnoses and procedures; text in Spanish, with evidence. {task} `min_count` is 2."
        in spanish
    )


def test_background(corpus, build):
    splits = build().as_dataset()
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 17,
        "validation": 3,
        "test": 2,
        "background": 2,
    }
    assert [(r["case_id"], r["text"], r["codes"]) for r in splits["background"]] == [
        (entry["id"], entry["text"], []) for entry in BACKGROUND
    ]
    assert "background" not in build("diagnoses_es").as_dataset()
    (corpus / "background_en.jsonl.gz").unlink()
    with pytest.raises(ValueError, match=r"No split 'background' .*: choose from train, validation, test, all"):
        build().as_dataset(split="background")


@pytest.mark.parametrize(
    ("config", "min_count", "codes"),
    [
        ("diagnoses_en", 0, ["N23", "R50.9", "R52"]),  # R52 is only in dev
        ("diagnoses_en", 1, ["N23", "R50.9"]),
        ("diagnoses_en", 8, ["R50.9"]),  # N23 has seven cases of train and one of dev
        ("diagnoses_en_top50", 0, ["N23", "R50.9"]),
        ("diagnoses_en_top50", 8, ["R50.9"]),
        ("procedures_es", 0, ["0TT10ZZ", "BW20"]),
        ("procedures_es", 1, ["BW20"]),
        ("both_es", 0, ["0TT10ZZ", "BW20", "N23", "R50.9", "R52"]),
        ("both_es", 8, ["BW20", "R50.9"]),
    ],
)
def test_kinds_and_code_sets(build, config, min_count, codes):
    dataset = build(config, min_count=min_count).as_dataset(split="test")
    assert names_of(dataset) == codes
    given = {"S2-1": {"N23", "R52", "0TT10ZZ"}, "S2-2": {"R50.9"}}
    assert {case: set(kept) for case, kept in codes_by_case(dataset).items()} == {
        case: kept & set(codes) for case, kept in given.items()
    }


def test_top50_is_counted_on_train_and_ties_go_to_the_first(tmp_path):
    """Fifty places: 48 codes of two cases each, then a tie of four codes of one case each, which the first two win."""
    frequent = [f"a{i:02}.0" for i in range(48)]
    train = {f"S1-{i}": (frequent if i < 2 else [], ["bw20"]) for i in range(10)}
    train["S1-5"] = (["z04", "z02"], [])
    train["S1-6"] = (["z01", "z03"], [])
    dev = {f"S2-{i}": (["z04", "z03"], ["bw20"]) for i in range(5)}  # frequent in dev, which counts for nothing
    folder = write_corpus(tmp_path / "codiesp", train, dev)
    expected = [code.upper() for code in [*frequent, "z01", "z02"]]
    for options in ({}, {"unsplit": True}):
        builder = load_builder("codiesp", data_dir=folder, cache_dir=tmp_path / "cache", **options)
        assert list(builder.info.features["codes"].feature.names) == expected


@given(st.dictionaries(st.text("AB.01", min_size=1), st.integers(1, 4)), st.integers(0, 8), st.randoms())
def test_most_frequent_depends_on_counts_alone(counts, k, random):
    shuffled = list(counts.items())
    random.shuffle(shuffled)
    chosen = most_frequent(counts, k)
    assert chosen == most_frequent(dict(shuffled), k)
    assert len(chosen) == min(k, len(counts))
    for code in chosen:
        assert all(
            counts[other] < counts[code] or (counts[other] == counts[code] and other > code)
            for other in counts.keys() - set(chosen)
        )


def test_cases_without_codes_are_kept(build, caplog):
    with caplog.at_level(logging.WARNING, logger="dataset_scripts"):
        builder = build("procedures_en_top50")
    records = {
        **codes_by_case(builder.as_dataset(split="train")),
        **codes_by_case(builder.as_dataset(split="validation")),
    }
    assert len(records) == 20
    assert records["S1-19"] == records["S1-00"] == []
    assert records["S1-01"] == ["BW20"]
    # Ten of train with an even number or no code at all, and both of dev, one of which has a procedure of its own alone.
    assert "cases with none of the codes: 13" in caplog.text
    assert "cases with none of the codes: 13" in builder.info.description


def test_unsplit(corpus, tmp_path, build):
    dataset = load_split("codiesp", "all", "diagnoses_es", data_dir=corpus, cache_dir=tmp_path / "cache")
    assert dataset["case_id"][:] == [*(f"S1-{i:02}" for i in range(20)), "S2-1", "S2-2"]
    assert list(build(unsplit=True).as_dataset()) == ["unsplit"]  # the background has no codes


def test_few_cases_are_read_as_a_whole_only(tmp_path):
    train = {f"S1-{i}": (["r52"], ["bw20"]) for i in range(6)}
    folder = write_corpus(tmp_path / "codiesp", train, {"S2-1": (["r52"], ["bw20"])})
    with pytest.raises(
        ValueError, match=r"6 cases of train with 2 codes are too few to divide: expected 7 .*`unsplit=True`"
    ):
        load_builder("codiesp", data_dir=folder, cache_dir=tmp_path / "cache")
    assert len(load_split("codiesp", "all", data_dir=folder, cache_dir=tmp_path / "cache")) == 7


def test_order_of_the_rows_changes_nothing(corpus, build):
    before = {name: codes_by_case(split) for name, split in build("both_es").as_dataset().items()}
    for table in corpus.glob("*/*.tsv"):
        table.write_text("".join(reversed(table.read_text().splitlines(keepends=True))))
    assert before == {name: codes_by_case(split) for name, split in build("both_es").as_dataset().items()}


def test_deviations_are_counted(corpus, build, caplog):
    append(corpus / "dev/devX.tsv", "S2-1", "DIAGNOSTICO", "n23", "dolor.", "25 30")
    append(corpus / "dev/devX.tsv", "S2-1", "DIAGNOSTICO", "r52", "dolor  riñón", "25 30;30 30;44 49")
    with caplog.at_level(logging.WARNING, logger="dataset_scripts"):
        dataset = build("diagnoses_es").as_dataset(split="test")
    assert [mention["spans"] for mention in dataset[0]["evidence"][-2:]] == [[[25, 30]], [[25, 30], [44, 49]]]
    assert "places whose offsets give other words than the table quotes: 1; left out, empty spans: 1" in caplog.text
    assert "inventado" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="dataset_scripts"):
        build("procedures_es")
    assert "cases with none" in caplog.text
    assert "places" not in caplog.text  # they are of diagnoses


def test_line_ends_are_characters_too(corpus, build):
    """Translated to \\n, the text would be shorter than its offsets say."""
    text = "Caso\r\ninventado: fiebre.\r\n"
    (corpus / "dev/text_files/S2-2.txt").write_bytes(text.encode())
    append(corpus / "dev/devX.tsv", "S2-2", "DIAGNOSTICO", "r50.9", "fiebre", "17 23")
    record = build("diagnoses_es").as_dataset(split="test")[1]
    start, end = record["evidence"][-1]["spans"][0]
    assert (record["text"], record["text"][start:end]) == (text, "fiebre")


def test_streaming(corpus, tmp_path):
    builder = CodiEsp("diagnoses_es", data_dir=corpus, cache_dir=tmp_path / "cache")
    assert next(iter(builder.as_streaming_dataset(split="test")))["text"] == SPANISH


# ---- faults


def edit(name, old, new):
    """Change a file's bytes, once."""

    def change(corpus):
        path = corpus / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return change


def append_mention(*values):
    return lambda corpus: append(corpus / "dev/devX.tsv", *values)


def write_background(data):
    return lambda corpus: (corpus / "background_en.jsonl.gz").write_bytes(gzip.compress(data))


CASE = b'{"id": "S3-1", "text": "Invented."}\n'
FAULTS = {
    "columns": (edit("train/trainD.tsv", b"S1-01\t", b"S1-01 "), "trainD.tsv: row 3 has 1 columns parted by tabs instead of 2"),
    "columns of X": (edit("dev/devX.tsv", b"\t16 22", b""), "devX.tsv: row 1 has 4 columns parted by tabs instead of 5"),
    "empty row": (edit("train/trainP.tsv", b"S1-01", b"\nS1-01"), "trainP.tsv: row 1 has 1 columns"),
    "empty table": (lambda corpus: (corpus / "dev/devP.tsv").write_text(""), "devP.tsv is empty: expected 2 columns"),
    "not UTF-8": (edit("train/trainD.tsv", b"S1-01\tr50.9", b"S1-01\t\xff"), "trainD.tsv: row 3 is not valid UTF-8"),
    "text not UTF-8": (edit("dev/text_files/S2-1.txt", b"\n", b"\nri\xf1on\n"), "S2-1.txt: line 2 is not valid UTF-8"),
    "no text": (
        lambda corpus: (corpus / "train/text_files/S1-03.txt").unlink(),
        r"trainD.tsv: row 5 is of case S1-03, which has no text: expected .*train/text_files/S1-03.txt",
    ),
    "not a case": (edit("dev/devD.tsv", b"S2-1", b"caso inventado"), "devD.tsv: the first column of row 1 is not the id of a case"),
    "not a code": (edit("dev/devD.tsv", b"r52", b"inventado"), "devD.tsv: the second column of row 1 is not an ICD-10 code such as r50.9"),
    "other kind": (edit("dev/devP.tsv", b"0tt10zz", b"r52"), "devP.tsv: the second column of row 1 is not an ICD-10 code such as bw03zzz"),
    "no label": (edit("dev/devX.tsv", b"DIAGNOSTICO", b"inventado"), "devX.tsv: .* row 1 is not DIAGNOSTICO or PROCEDIMIENTO"),
    "stray evidence": (
        append_mention("S2-2", "DIAGNOSTICO", "r52", "fiebre", "16 22"),
        "devX.tsv: row 5 justifies a code that devD.tsv does not give to case S2-2",
    ),
    "end outside": (
        append_mention("S2-1", "DIAGNOSTICO", "r52", "fiebre", "16 52"),
        "devX.tsv: the fifth column of row 5 gives no offsets inside the 51 characters of case S2-1",
    ),
    "end before start": (append_mention("S2-1", "DIAGNOSTICO", "r52", "fiebre", "22 16"), "fifth column of row 5 gives no offsets"),
    "no numbers": (append_mention("S2-1", "DIAGNOSTICO", "r52", "inventado", "inventado"), "fifth column of row 5 gives no offsets"),
    "in both": (
        lambda corpus: shutil.copy(corpus / "train/text_files/S1-03.txt", corpus / "dev/text_files"),
        "1 case is in both train and dev, e.g. S1-03",
    ),
}  # fmt: skip
BACKGROUND_FAULTS = {
    "no gzip": (lambda corpus: (corpus / "background_en.jsonl.gz").write_bytes(CASE), "cut short, damaged or empty"),
    "background not UTF-8": (write_background(CASE + CASE.replace(b"ed", b"\xff")), r'row 2 is not {"id": ..., "text": ...} in UTF-8'),
    "no JSON": (write_background(CASE + CASE[:-4]), "row 2 is not"),
    "no object": (write_background(CASE + b"[]"), "row 2 is not"),
    "of train": (write_background(CASE + CASE.replace(b"S3-1", b"S1-01")), "1 of its cases are in train or dev, e.g. S1-01"),
    "no key": (write_background(CASE + CASE.replace(b"text", b"txt")), "row 2 is not"),
    "repeated": (write_background(CASE + CASE), "row 2 has the id of an earlier row"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [("both_es", *fault) for fault in FAULTS.values()]
    + [("both_en_top50", *fault) for fault in BACKGROUND_FAULTS.values()],
    ids=[*FAULTS, *BACKGROUND_FAULTS],
)
def test_fault_in_the_files(corpus, tmp_path, config, change, message):
    change(corpus)
    builder = CodiEsp(config, data_dir=corpus, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=message) as error:
        builder.download_and_prepare()
    assert_clean(error, corpus, tmp_path, ("inventado", "Invented", "fiebre"))


def test_cases_without_a_text_are_left_out_and_counted(corpus, build):
    """One of train, with places of its codes, one of dev and one of the background."""
    (corpus / "train/text_files/S1-01.txt").write_text(" \n")
    (corpus / "dev/text_files/S2-2.txt").write_text("")
    splits = build("both_es").as_dataset()
    assert "S1-01" not in {case_id for split in splits.values() for case_id in split["case_id"]}
    assert list(splits["test"]["case_id"]) == ["S2-1"]
    assert "left out, cases without a text: 2;" in build("both_es").info.description
    write_background(CASE + CASE.replace(b"Invented.", b" \\n").replace(b"S3-1", b"S3-2"))(corpus)
    builder = build("both_en")
    assert list(builder.as_dataset()["background"]["case_id"]) == ["S3-1"]
    (corpus / "dev/text_files/S2-1.txt").write_text("\t")
    with pytest.raises(ValueError, match=r"codiesp: no case of dev has a text"):
        build("diagnoses_es")


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("", r"`data_dir` \(.*codiesp/train\) does not exist: expected a folder with trainD.tsv, trainP.tsv, trainX.tsv"),
        ("dev", r"`data_dir` \(.*codiesp/dev\) does not exist: expected a folder with devD.tsv"),
        ("train/text_files", r"`data_dir` \(.*train/text_files\) does not exist: expected a folder with one .txt file a case"),
        ("dev/devX.tsv", "No devX.tsv in .*codiesp/dev: give `data_dir` the folder of CodiEsp"),
        ("dev/text_files/*", "No .txt file in .*dev/text_files: give `data_dir` the folder of CodiEsp"),
    ],
)  # fmt: skip
def test_missing_files(corpus, remove, message):
    for path in corpus.glob(remove) if remove else [corpus]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        CodiEsp("diagnoses_es", data_dir=corpus)


def test_wrong_arguments(corpus, build):
    with pytest.raises(
        ValueError, match="CodiEsp has no configuration 'top50': choose from diagnoses_en_top50, diagno"
    ):
        build("top50")
    with pytest.raises(ValueError, match="CodiEsp has no option language: choose from min_count, unsplit"):
        build("diagnoses_en", language="es")
    with pytest.raises(ValueError, match=r"`min_count` \(-1\) must be 0 or more"):
        build("diagnoses_en", min_count=-1)
    with pytest.raises(ValueError, match=r"no case of train has a code that `min_count` \(21\) keeps"):
        build("diagnoses_en", min_count=21)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder for files that each example writes anew."""
    return tmp_path_factory.mktemp("scratch")


@given(st.data())
def test_a_background_cut_anywhere_is_refused(scratch, data):
    whole = gzip.compress(CASE * 3)
    path = scratch / "background_en.jsonl.gz"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"background_en.jsonl.gz: the gzip stream is cut short, damaged or empty"):
        read_background(path)


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\t\n\r\ufeff", exclude_categories=["Cs"])),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
    )
)
def test_a_table_reads_as_it_was_written(scratch, rows):  # whatever else parts lines elsewhere: \x85, \u2028
    path = scratch / "trainD.tsv"
    for end in ("\n", "\r\n"):
        path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
        assert list(read_rows(path, 2)) == list(enumerate(rows, start=1))


@given(st.binary())
def test_any_bytes_are_a_table_or_one_clear_error(scratch, data):
    path = scratch / "trainD.tsv"
    path.write_bytes(data)
    try:
        assert all(len(values) == 2 for _, values in read_rows(path, 2))
    except ValueError as error:
        assert str(path) in str(error)
        assert "zenodo" in str(error)


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1)


@given(SPANS, st.integers(0, 30))
def test_position_is_read_if_inside_the_text(spans, length):
    position = ";".join(f"{start} {end}" for start, end in spans)
    inside = all(start <= end <= length for start, end in spans)
    empty = all(start == end for start, end in spans)
    assert parse_position(position, length) == (spans if inside and not empty else None)


@given(st.text("0123456789 ;-²"), st.integers(0, 30))
def test_position_is_offsets_inside_the_text_or_nothing(position, length):
    spans = parse_position(position, length)
    assert spans is None or all(0 <= start <= end <= length for start, end in spans)


# ---- descriptions


def test_descriptions(corpus, build, monkeypatch):
    titles = {"R50.9": "Fever, unspecified", "T81.4": "Infection following a procedure", "W19": "Unspecified fall"}
    monkeypatch.setattr(icd10_hierarchy, "load_titles", lambda: titles)
    assert describe_codes(["T81.4XX", "W19.XXX", "W19", "R50.9", "R52"]) == {
        "T81.4XX": "Infection following a procedure",
        "W19.XXX": "Unspecified fall",
        "W19": "Unspecified fall",
        "R50.9": "Fever, unspecified",
    }
    for _ in range(2):  # the second is found in the cache
        assert build("both_en").code_descriptions == {"R50.9": "Fever, unspecified"}
    assert build("procedures_en").code_descriptions == {}


def test_without_titles_there_are_no_descriptions(build, monkeypatch):
    monkeypatch.setattr(icd10_hierarchy, "load_titles", dict)
    assert build("diagnoses_en").code_descriptions == {}
