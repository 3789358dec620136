"""`modeling-icd build | describe | verify`."""

import csv
import gzip
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dataset_scripts import MIMIC3, kind_of
from dataset_scripts.__main__ import main
from dataset_scripts.builders.admissions import MIN_COUNT
from dataset_scripts.builders.caml_splits import SPLITS_SHA256, find_split_lists, read_split_list
from dataset_scripts.builders.edin_splits import read_edin_list
from dataset_scripts.describe import Description, SplitDescription, describe, draw_description
from dataset_scripts.synthetic import write_corpus
from dataset_scripts.verify import PUBLISHED, Published, read_distribution


COLUMNS = {"train": "train", "validation": "dev", "test": "test"}
CONFIGS = {"full": "full", "top50": "50"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "corpus"
    write_corpus(folder, num_admissions=150, length="short", show_progress=False)
    return folder


def write_distribution(path, counts, codes=None):
    """Write counts per split and code as they are published."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["code", "total", "train", "dev", "test"])
        for code in codes or counts["train"]:
            numbers = [counts[split][code] for split in COLUMNS]
            writer.writerow([code, sum(numbers), *numbers])


def published_as(monkeypatch, folder, admissions, codes, codes_in_train):
    """Take the folder's lists for CAML's, and these numbers for the published ones."""
    for config, suffix in CONFIGS.items():
        for path in find_split_lists(str(folder), suffix).values():
            monkeypatch.setitem(SPLITS_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        published = Published(
            "mimic3", admissions[config], codes[config], codes_in_train[config], PUBLISHED[config].distribution
        )
        monkeypatch.setitem(PUBLISHED, config, published)


@pytest.fixture
def matching(corpus, tmp_path, monkeypatch):
    """A corpus, and a folder of published counts that it agrees with."""
    admissions, codes, codes_in_train = {}, {}, {}
    for config in CONFIGS:
        builder = MIMIC3(config, data_dir=corpus, cache_dir=tmp_path / "cache")
        builder.download_and_prepare()
        counts = builder.code_counts
        write_distribution(tmp_path / PUBLISHED[config].distribution, counts)
        admissions[config] = {name: split.num_examples for name, split in builder.info.splits.items()}
        codes[config] = len(counts["train"])
        codes_in_train[config] = sum(count > 0 for count in counts["train"].values())
    published_as(monkeypatch, corpus, admissions, codes, codes_in_train)
    return tmp_path


def run_verify(corpus, folder, *arguments):
    command = ["verify", "--data_dir", str(corpus), "--cache_dir", str(folder / "cache"), *arguments]
    return main([*command, "--published_dir", str(folder)])


def copy_of(corpus, tmp_path, table, change):
    """Copy the corpus with another table."""
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in corpus.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    path = folder / f"{table}.csv.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return folder


def test_verify_agrees(corpus, matching, capsys):
    assert run_verify(corpus, matching) == 0
    assert capsys.readouterr().out == (
        "full: agrees with the published counts of each code and split.\n"
        "top50: agrees with the published counts of each code and split.\n"
    )
    assert main(["verify", "--data_dir", str(corpus), "--cache_dir", str(matching / "cache")]) == 0
    assert "full: agrees with the published numbers of admissions and codes." in capsys.readouterr().out


def test_verify_finds_a_planted_difference(corpus, matching, capsys):
    """One row of a diagnosis that a train admission has is gone."""
    train = read_split_list(corpus / "train_full_hadm_ids.csv")[0]
    with gzip.open(corpus / "DIAGNOSES_ICD.csv.gz", "rt", newline="") as file:
        row = next(row for row in csv.DictReader(file) if int(row["HADM_ID"]) == train)
    code = row["ICD9_CODE"]
    line = f'{row["ROW_ID"]},{row["SUBJECT_ID"]},{train},{row["SEQ_NUM"]},"{code}"\n'.encode()
    changed = copy_of(corpus, matching, "DIAGNOSES_ICD", lambda data: data.replace(line, b""))
    assert run_verify(changed, matching, "--config", "full") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "full: 1 difference from the published counts of each code and split."
    assert len(out) == 2
    dotted, where = out[1].split(" in ")
    assert dotted.strip().replace(".", "") == code
    built, published = (int(word) for word in where.replace(",", "").split() if word.isdigit())
    assert where.startswith("train: ") and published == built + 1


def test_verify_finds_other_differences(corpus, matching, capsys):
    lists = find_split_lists(str(corpus), "full")
    train, test = read_split_list(lists["train"]), read_split_list(lists["test"])

    def without_codes(data):
        return b"".join(line for line in data.splitlines(keepends=True) if f",{test[0]},".encode() not in line)

    changed = copy_of(corpus, matching, "DIAGNOSES_ICD", without_codes)
    path = changed / "PROCEDURES_ICD.csv.gz"
    path.write_bytes(gzip.compress(without_codes(gzip.decompress(path.read_bytes()))))
    (changed / lists["train"].name).write_text("".join(f"{hadm_id}\n" for hadm_id in train[1:]))
    assert run_verify(changed, matching, "--config", "full", "--max_lines", "2") == 1
    out = capsys.readouterr().out
    assert "test: 1 listed admissions without a code make no record." in out
    assert f"{lists['train'].name} is not CAML's list" in out
    assert f"train: {len(train) - 1} admissions listed, {len(train)} published." in out
    assert "more: raise `--max_lines`" in out

    path = changed / "NOTEEVENTS.csv.gz"
    hadm_id = f",{test[1]},".encode()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(hadm_id, b",1,")))
    assert run_verify(changed, matching, "--config", "full") == 1
    assert f"test: 1 listed admissions lack a discharge summary, e.g. HADM_ID {test[1]}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("code,count\n", "line 1 must be the header code,total,train,dev,test"),
        ("code,total,train,dev,test\n401.9,3,1,1,1\n038.9,3,1,1,x\n", "line 3 holds a count that is no whole number"),
        ("code,total,train,dev,test\n401.9,4,1,1,1\n", "line 2: the total is not the sum"),
        ("code,total,train,dev,test\n401.9,3,1,1,1\n401.9,3,1,1,1\n", "line 3 repeats the code of an earlier line"),
        ("code,total,train,dev,test\n401.9,\xff,1,1,1\n", "line 2 holds a count that is no whole number"),
    ],
)
def test_fault_in_published_counts(tmp_path, content, message):
    path = tmp_path / "counts.csv"
    with pytest.raises(FileNotFoundError, match=r"No counts.csv in `published_dir`"):
        read_distribution(path)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_distribution(path)


def test_describe(corpus, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "120")
    png = tmp_path / "corpus.png"
    assert main(["describe", str(corpus), "--cache_dir", str(tmp_path), "--png", str(png)]) == 0
    out = capsys.readouterr().out
    for words in ("MIMIC3, configuration full", "codes never seen in train", "The long tail", "Hypertension".lower()):
        assert words in out.lower() or words in out
    assert png.read_bytes().startswith(b"\x89PNG")

    builder = MIMIC3("full", data_dir=corpus, cache_dir=tmp_path)
    builder.download_and_prepare()
    description = describe(builder)
    train, test = builder.as_dataset(split="train"), builder.as_dataset(split="test")
    assert description.splits["train"].words.tolist() == [len(text.split()) for text in train["text"]]
    assert description.splits["train"].codes.tolist() == [len(codes) for codes in train["codes"]]
    assert description.splits["train"].subjects == len(set(train["subject_id"]))
    seen = {code for codes in train["codes"] for code in codes}
    gold = [code for codes in test["codes"] for code in codes]
    unseen = [code for code in gold if code not in seen]
    assert description.splits["test"].unseen_share == len(set(unseen)) / len(set(gold))
    assert description.splits["test"].unseen_occurrences_share == len(unseen) / len(gold)


def test_the_title_names_the_options(corpus, tmp_path):
    (tmp_path / "codes.csv").write_text("401.9\n")
    titles = []
    for config, options in {
        "full": {"text": "raw"},  # as it is anyway
        "top50": {"codes": ["401.9", "428.0"], "text": "caml", "unsplit": True},
        "custom": {"codes_file": tmp_path / "codes.csv"},
    }.items():
        builder = MIMIC3(config, data_dir=corpus, cache_dir=tmp_path, **options)
        builder.download_and_prepare()
        titles.append(describe(builder).title)
    assert titles == [
        "MIMIC3, configuration full",
        "MIMIC3, configuration top50, codes=2 given, text='caml', unsplit=True",
        "MIMIC3, configuration custom, codes_file=codes.csv",
    ]


def test_a_split_without_codes_is_not_drawn_as_one_with_them(tmp_path, monkeypatch):
    """CodiEsp's background: no share of unseen codes, no curve, and no bar at 0 beside which the others vanish."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []
    save = figure_module.Figure.savefig
    monkeypatch.setattr(
        figure_module.Figure,
        "savefig",
        lambda self, *args, **options: figures.append(self) or save(self, *args, **options),
    )
    labelled = SplitDescription(np.array([5]), np.array([1]), 1, np.array([1, 0]), np.array([False, False]))
    background = SplitDescription(np.array([7]), np.array([0]), 1, np.array([0, 0]), np.array([False, False]))
    description = Description("Invented", ["A", "B"], {"train": labelled, "background": background}, "train")
    draw_description(description, tmp_path / "x.png")
    sizes, curve, words, codes = figures[0].axes
    assert [text.get_text() for text in sizes.texts] == ["1\n0.0%", "1\nno codes"]
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (curve, words, codes)]
    assert legends == [["train"], ["train", "background"], ["train"]]
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_describe_draws_where_it_is_asked_to_alone(corpus, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["describe", str(corpus), "--cache_dir", str(tmp_path)]) == 0
    assert list((tmp_path / "here").iterdir()) == [] and "Drawn" not in capsys.readouterr().out
    assert (
        main(["describe", str(corpus), "--cache_dir", str(tmp_path / "other"), "--png", str(tmp_path / "here")]) == 2
    )
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'here'}: it is a folder, where a file is expected")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", ["build", "describe", "verify"])
def test_the_data_are_given_with_or_without_the_name_of_the_option(command, corpus, tmp_path, capsys):
    cache = ["--cache_dir", str(tmp_path)]
    statuses = [main([command, *given, *cache]) for given in ([str(corpus)], ["--data_dir", str(corpus)])]
    assert statuses[0] == statuses[1] != 2
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :] != ""
    assert main([command, str(corpus), "--data_dir", str(tmp_path), *cache]) == 2
    assert "The data are given twice" in capsys.readouterr().err
    assert main([command, *cache]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_options_are_given_as_to_train(tmp_path, capsys):
    path = tmp_path / "notes.csv"
    path.write_text("note,codes\n" + "".join(f"Invented {i},A{i % 5};B\n" for i in range(20)))
    cache = ["--cache_dir", str(tmp_path / "cache")]
    options = ["text_column=note", "min_count=2"]
    separate = [word for option in options for word in ("--option", option)]
    for given in (["--dataset_options", *options], separate):
        assert main(["build", str(path), "--dataset", "files", *given, *cache]) == 0
        assert "6 codes; records: train 16, validation 2, test 2" in capsys.readouterr().out
    # A file of one's own is enough to say that the data are.
    assert main(["build", "--dataset_options", f"train_file={path}", *options, *cache]) == 0


@pytest.mark.parametrize("command", ["build", "describe"])
def test_notes_of_ones_own_are_recognised(command, tmp_path, capsys):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "train.csv").write_text("text,codes\nInvented,A\n")
    for path, what in ((folder, "holds tables"), (folder / "train.csv", "is a table")):
        assert main([command, str(path), "--cache_dir", str(tmp_path / "cache")]) == 2
        assert capsys.readouterr().err == (
            f"error: {path} {what}, and none of MIMIC-III: if they are notes of your own, give `--dataset files` (one of mimic3, "
            "mimic4, cmc2007, codiesp, files).\n"
        )
    (folder / "train.csv").rename(folder / "NOTEEVENTS.csv")
    assert main([command, str(folder), "--cache_dir", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No DIAGNOSES_ICD.csv.gz, ") and "for another one give `--dataset`" in said
    assert main([command, str(folder), "--dataset", "mimic3", "--cache_dir", str(tmp_path / "cache")]) == 2
    assert "--dataset" not in capsys.readouterr().err


def test_describe_prints_without_matplotlib(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["describe", str(corpus), "--cache_dir", str(tmp_path), "--png", str(tmp_path / "x.png")]) == 2
    output = capsys.readouterr()
    assert "The long tail" in output.out
    assert "matplotlib is missing" in output.err


def test_build(corpus, tmp_path, capsys):
    options = ["--option", "num_codes=5", "--option", "code_kinds=true", "--option", "text=caml"]
    command = ["build", "--data_dir", str(corpus), "--config", "custom", "--cache_dir", str(tmp_path), *options]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "5 codes; records: train " in out
    said = " ".join(out.split())
    assert "`num_codes` is 5." in said and "The text is cut into CAML's words." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--option", "num_codes=many"], "error: `--option num_codes=many` must be a whole number."),
        (["--option", "code_kinds=1"], "error: `--option code_kinds=1` must be true or false."),
        (["--option", "text"], "error: `--option text` must be NAME=VALUE"),
        (["--option", "colour=red"], "error: MIMIC3 has no option colour"),
        (["--option", "codes=401.9,4019"], "error: '4019' is not a dotted ICD-9-CM code"),
        (["--config", "top10"], "error: MIMIC3 has no configuration 'top10'"),
    ],
)
def test_a_fault_is_one_line(corpus, tmp_path, capsys, arguments, message):
    assert main(["build", "--data_dir", str(corpus), "--cache_dir", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "error: ended by SIGTERM."),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "error: interrupted."),
        (lambda: int("x"), 2, "error: invalid literal for int()"),
    ],
    ids=["SIGTERM", "Ctrl-C", "wrapped"],
)
def test_what_ends_a_build_is_one_line_and_leaves_nothing(
    corpus, tmp_path, capsys, monkeypatch, fault, status, message
):
    """Also an error that `datasets` wraps in one that does not say what it was."""

    def generate(self, *args, **options):
        fault()
        time.sleep(10)
        yield from ()

    monkeypatch.setattr(MIMIC3, "_generate_examples", generate)
    assert main(["build", "--data_dir", str(corpus), "--cache_dir", str(tmp_path)]) == status
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(message) and not any("Traceback" in line for line in error)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert list(tmp_path.rglob("*.incomplete")) == []


def test_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "dataset_scripts", "build", "--data_dir", str(tmp_path / "nowhere")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("error: `data_dir` ") and "Traceback" not in process.stderr


# ---- real counts and lists


def write_published_corpus(folder, distribution, lists):
    """Tables whose codes have exactly the published counts: notes of two words, each subject with one admission."""
    rng = random.Random(0)
    rows = {"diagnosis": [], "procedure": []}
    for split, hadm_ids in lists.items():
        codes = [code for code, counts in distribution.items() for _ in range(counts[split])]
        codes.sort(key=lambda code: -distribution[code][split])
        free = list(hadm_ids)
        rng.shuffle(free)
        # Codes in a row go to admissions in a row, so that none has a code twice; every admission gets one.
        for i, code in enumerate(codes):
            rows[kind_of(code)].append((free[i % len(free)], code.replace(".", "")))
    tables = {"diagnosis": ("DIAGNOSES_ICD", "D_ICD_DIAGNOSES"), "procedure": ("PROCEDURES_ICD", "D_ICD_PROCEDURES")}
    for kind, (table, titles) in tables.items():
        with gzip.open(folder / f"{table}.csv.gz", "wt", compresslevel=1) as file:
            file.write('"ROW_ID","SUBJECT_ID","HADM_ID","SEQ_NUM","ICD9_CODE"\n')
            file.writelines(f'1,{hadm_id},{hadm_id},1,"{code}"\n' for hadm_id, code in rows[kind])
        with gzip.open(folder / f"{titles}.csv.gz", "wt") as file:
            file.write('"ROW_ID","ICD9_CODE","SHORT_TITLE","LONG_TITLE"\n')
    with gzip.open(folder / "NOTEEVENTS.csv.gz", "wt", compresslevel=1) as file:
        file.write("SUBJECT_ID,HADM_ID,CATEGORY,ISERROR,TEXT\n")
        for hadm_ids in lists.values():
            file.writelines(f"{hadm_id},{hadm_id},Discharge summary,,Invented note\n" for hadm_id in hadm_ids)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_verify_at_full_size(shared_dir, tmp_path, capsys, config):
    """52,726 admissions on CAML's own lists, 8,929 codes with the published counts."""
    data = tmp_path / "data"
    data.mkdir()
    splits_dir = shared_dir / "data/caml_mimic3_splits"
    published_dir = shared_dir / "data/mimic3_published"
    lists = {
        split: read_split_list(path) for split, path in find_split_lists(str(splits_dir), CONFIGS[config]).items()
    }
    distribution = read_distribution(published_dir / PUBLISHED[config].distribution)
    write_published_corpus(data, distribution, lists)
    command = [
        "verify",
        "--data_dir",
        str(data),
        "--splits_dir",
        str(splits_dir),
        "--cache_dir",
        str(tmp_path / "cache"),
    ]
    command += ["--config", config, "--published_dir", str(published_dir)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{config}: agrees with the published counts of each code and split.\n"

    path = data / "PROCEDURES_ICD.csv.gz"  # one row of 38.93 becomes 38.94
    table = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(table.replace(b',"3893"\n', b',"3894"\n', 1), compresslevel=1))
    assert main(command) == 1
    out = capsys.readouterr().out
    assert re.search(r"38\.93 in (train|validation|test): [0-9,]+ admissions built, [0-9,]+ published", out)


@pytest.mark.slow
def test_verify_clean_at_full_size(shared_dir, tmp_path, capsys):
    """Edin et al.'s lists, and the published total of each of the 3,681 codes of at least ten admissions."""
    data = tmp_path / "data"
    data.mkdir()
    lists_dir, published_dir = shared_dir / "data/caml_mimic3_splits", shared_dir / "data/mimic3_published"
    lists = {split: read_split_list(path) for split, path in find_split_lists(str(lists_dir), "full").items()}
    theirs = {
        i
        for ids in read_edin_list(shared_dir / "data/edin_splits/mimiciii_clean_splits.feather").values()
        for i in ids
    }
    distribution = read_distribution(published_dir / PUBLISHED["full"].distribution)
    # Rare codes alone are what the fourteen admissions have that are in no list of theirs.
    frequent = {code: counts for code, counts in distribution.items() if sum(counts.values()) >= MIN_COUNT}
    lists = {split: [i for i in ids if i in theirs] for split, ids in lists.items()}
    write_published_corpus(data, frequent, lists)
    command = ["verify", str(data), "--config", "clean", "--splits_dir", str(shared_dir / "data/edin_splits")]
    command += ["--cache_dir", str(tmp_path / "cache"), "--published_dir", str(published_dir)]
    assert main(command) == 0
    assert capsys.readouterr().out == "clean: agrees with the published counts of each code.\n"
