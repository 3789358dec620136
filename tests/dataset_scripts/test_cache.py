"""What every builder owes to its cache: it is as fresh as files, options and code, and is never half built."""

import ast
import errno
import importlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import datasets
import pytest
from faults import SECRET, assert_clean, cached_files
from own_tables import make_rows, write_table
from test_cmc2007 import write_document, write_file
from test_codiesp import write_corpus as write_codiesp

import dataset_scripts
from dataset_scripts import BUILDERS
from dataset_scripts.synthetic.mimic4 import write_corpus as write_mimic4


ARGUMENTS = {
    "mimic3": {},
    "mimic4": {"config_name": "icd9", "min_count": 5},  # the titles of ICD-10 take seconds to load
    "cmc2007": {"config_name": "fold0"},
    "codiesp": {"config_name": "procedures_en"},
    "files": {"seed": 2},
}
FILE = object()  # stands for the path of some file
STAYS = object()  # stands for the path of the same tables with one of ICU stays
LISTS = {"splits_dir": object()}  # stands for the path of a folder with Edin et al.'s lists, or what is called so
# For each option of a data set a value that is not the default, and the configuration that has it if not all do, or the
# other arguments that it needs.
OPTIONS = {
    "mimic3": {
        "sections": (["sex"],), "addenda": (False,), "note_categories": (["discharge summary", "nursing"],),
        "carevue": (True, {"data_dir": STAYS}), "granularity": ("chapter",), "to_icd10": (True,),
        "text": ("caml",), "deid_token": ("",), "code_kinds": (True,), "unsplit": (True,), "codes": (["401.9"],),
        "min_count": (2, "clean"), "seed": (1, "clean"), "descriptions_file": (FILE,), "splits_dir": (FILE,),
        "splits": ("edin", "clean", LISTS), "subset": ("subsplit_0.2", "clean", {"splits": "edin", **LISTS}),
        "num_codes": (2, "custom"), "codes_file": (FILE, "custom"), "evidence": (FILE,),
    },
    "mimic4": {
        "sections": (["sex"],), "addenda": (False,), "note_categories": (["discharge"],), "granularity": ("chapter",),
        "to_icd10": (True,),
        "text": ("caml",), "deid_token": ("",), "code_kinds": (True,), "unsplit": (True,), "codes": (["401.9"],),
        "min_count": (2,), "seed": (1,), "descriptions_file": (FILE,), "splits_dir": (FILE,),
        "splits": ("edin", LISTS), "release": ("3.1",), "subset": ("train_subset_10k", {"splits": "edin", **LISTS}),
    },
    "cmc2007": {"unsplit": (True,)},
    "codiesp": {"min_count": (1,), "unsplit": (True,)},
    "files": {
        "text_column": (["codes"],), "codes_column": ("text",), "code_separator": (" ",), "procedures_column": ("codes",),
        "id_column": ("date",), "subject_column": ("id",), "codes_file": (FILE,), "code_kind_column": ("id", {"codes_file": FILE}),
        "code_system": ("icd10cm",), "descriptions_file": (FILE,), "encoding": ("cp1252",), "codes": (["I10"],),
        "num_codes": (2,), "min_count": (2,), "split_by": ("date",), "date_column": ("date", {"split_by": "date"}), "seed": (1,),
        "unsplit": (True,), **dict.fromkeys(("train_file", "validation_file", "test_file"), (FILE, {"data_dir": None})),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(corpus, tmp_path_factory):
    """The source files of each data set, invented; to be read, not to be changed."""
    folder = tmp_path_factory.mktemp("sources")
    write_mimic4(folder / "mimic4", num_admissions=150, length="short", show_progress=False)
    train = {f"S1-{i:02}": (["r50.9"] if i % 3 else ["r50.9", "n23"], ["bw20"] if i % 2 else []) for i in range(20)}
    write_codiesp(folder / "codiesp", train, {"S2-1": (["r50.9"], ["bw20"])})
    documents = [write_document(i, ["786.2"] if i % 2 else ["486"]) for i in range(1, 21)]
    for name in ("cmc2007", "files"):
        (folder / name).mkdir()
    write_table(folder / "files" / "notes.tsv", make_rows(30))
    write_file(folder / "cmc2007" / "reports.xml", *documents)
    return {name: corpus if name == "mimic3" else folder / name for name in BUILDERS}


@pytest.fixture(params=BUILDERS)
def dataset(request):
    return request.param


@pytest.fixture
def make(dataset, sources, tmp_path):
    """Make a builder, from the package or from a copy of it."""

    def make(package=dataset_scripts, **options):
        arguments = {"data_dir": sources[dataset], "cache_dir": tmp_path / "cache", **ARGUMENTS[dataset], **options}
        return package.BUILDERS[dataset](**arguments)

    return make


def records_of(builder):
    builder.download_and_prepare()
    return {name: list(split) for name, split in builder.as_dataset().items()}


@pytest.fixture(scope="module")
def expected(sources, tmp_path_factory):
    """The records of each data set."""
    cache = tmp_path_factory.mktemp("expected")
    return {
        name: records_of(BUILDERS[name](data_dir=folder, cache_dir=cache, **ARGUMENTS[name]))
        for name, folder in sources.items()
    }


# ---- freshness


def imported_modules(file):
    """A module and the modules of its package that it imports, directly or not."""
    found, needed = set(), [file]
    while needed:
        file = needed.pop()
        if file not in found:
            found.add(file)
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    place = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                    modules = [place / alias.name for alias in node.names] if place.is_dir() else [place]
                    needed += [module.with_suffix(".py") for module in modules]
    return found


def test_follows_code(dataset, make, tmp_path, monkeypatch):
    """Every module that a builder imports, directly or not, is changed in turn."""
    copy = tmp_path / f"copy_for_{dataset}"
    shutil.copytree(Path(dataset_scripts.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module(copy.name)
    first = make(package).cache_dir
    modules = imported_modules(Path(sys.modules[package.BUILDERS[dataset].__module__].__file__))
    assert {"records.py", "sources.py", "icd9.py", "stratify.py"} < {file.name for file in modules}
    for file in modules:
        code = file.read_text()
        file.write_text(code + "# changed\n")
        assert make(package).cache_dir != first, file.name
        file.write_text(code)
    assert make(package).cache_dir == first


def test_follows_source_files(dataset, sources, make, tmp_path):
    """Each source file is changed in turn, by a byte more and by another time."""
    data_dir = shutil.copytree(sources[dataset], tmp_path / "data")
    builder = make(data_dir=data_dir)
    last = builder.cache_dir
    files = builder._find_sources(builder.config)
    assert {file for file in data_dir.rglob("*.*") if file.suffix in (".gz", ".xml", ".tsv")} <= {
        *files,
        *data_dir.rglob("evidence.jsonl.gz"),
        *data_dir.glob("*/*X.tsv"),  # of the Spanish texts alone
    }
    for file in files:
        content = file.read_bytes()
        for change in (content + b"\n", content):
            file.write_bytes(change)
            assert make(data_dir=data_dir).cache_dir != last, file.name
            last = make(data_dir=data_dir).cache_dir
    assert make(data_dir=data_dir).cache_dir == last


def test_follows_options(dataset, sources, make, tmp_path):
    own = {field.name for field in fields(BUILDERS[dataset].BUILDER_CONFIG_CLASS)}
    assert OPTIONS[dataset].keys() == own - {field.name for field in fields(datasets.BuilderConfig)}
    file = tmp_path / "file.txt"
    file.write_text("401.9\tHypertension\n")
    if dataset == "files":
        file = shutil.copy(sources["files"] / "notes.tsv", tmp_path)
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "1-ICD-9.json").write_text("{}")
    folders = {"splits_dir": sources[dataset], "evidence": tmp_path / "charts"}
    seen = {
        make(config_name=config.name).cache_dir
        for config in BUILDERS[dataset].BUILDER_CONFIGS
        if config.name not in ("custom", "mdace", "mdace_charts")  # which need an option
    }
    for option, (value, *needed) in OPTIONS[dataset].items():
        arguments = {option: value}
        for of_option in needed:
            arguments.update(of_option if isinstance(of_option, dict) else {"config_name": of_option})
        if arguments.get("data_dir") is STAYS:
            arguments["data_dir"] = shutil.copytree(sources[dataset], tmp_path / "stays")
            (arguments["data_dir"] / "ICUSTAYS.csv").write_text("SUBJECT_ID,DBSOURCE\n")
            seen.add(make(data_dir=arguments["data_dir"]).cache_dir)
        if arguments.get("splits_dir") is LISTS["splits_dir"]:
            arguments["splits_dir"] = tmp_path
            for name in ("clean_splits", "clean_subsplit_0.2"):
                (tmp_path / f"mimiciii_{name}.feather").write_bytes(b"")
            for name in ("icd9_split", "icd9_train_subset_10k"):
                (tmp_path / f"mimiciv_{name}.feather").write_bytes(b"")
        for name in [name for name, value in arguments.items() if value is FILE]:
            arguments[name] = folders.get(name, file)
        builder = make(**arguments)
        assert builder.cache_dir not in seen, option
        seen.add(builder.cache_dir)


# ---- never half built


@pytest.mark.parametrize("place", ["_generate_examples", "_split_generators"])
def test_full_disk(dataset, make, expected, tmp_path, monkeypatch, place):
    def no_space(*args, **kwargs):
        raise OSError(errno.ENOSPC, f"No space left on device: {SECRET}")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"disk of `cache_dir` .* is full") as error:
        patch.setattr(BUILDERS[dataset], place, no_space)
        make().download_and_prepare()
    assert_clean(error, tmp_path / "cache", tmp_path)
    assert records_of(make()) == expected[dataset]


def test_disk_without_a_byte_left(make, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.builder.has_sufficient_disk_space", lambda *args, **kwargs: False)
    with pytest.raises(OSError, match=r"disk of `cache_dir` .* is full: free some space") as error:
        make().download_and_prepare()
    assert_clean(error, tmp_path / "cache", tmp_path)


def test_interrupted(dataset, make, expected, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BUILDERS[dataset], "_generate_examples", interrupted)
        make().download_and_prepare()
    assert cached_files(tmp_path) == []
    assert records_of(make()) == expected[dataset]


# Each build is a process of its own, forked from one that has done the imports.
BUILDS = """
import json, os, signal, sys, time
from dataset_scripts import BUILDERS

def build(dataset, arguments, killed_in):
    builder = BUILDERS[dataset](**arguments)
    generate, splits = builder._generate_examples, []

    def slow(**options):
        splits.append(options)
        for number, example in enumerate(generate(**options)):
            if number == 1 or len(splits) > 1:
                if len(splits) == killed_in:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield example
        time.sleep(0.1)

    builder._generate_examples = slow
    builder.download_and_prepare()

def start(case):
    pid = os.fork()
    if pid == 0:
        build(*case)
        os._exit(0)
    return pid

for cases in json.loads(sys.argv[1]):
    pids = [start(case) for case in cases]
    print(*(os.waitpid(pid, 0)[1] for pid in pids), flush=True)  # or the next fork has it in its buffer, too
"""


def run_builds(cases):
    """Run builds, those of one list at once; gives the status of each."""
    command = [sys.executable, "-c", BUILDS, json.dumps(cases)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    return [[int(status) for status in line.split()] for line in output.splitlines()]


def arguments_of(dataset, sources, cache):
    return {"data_dir": str(sources[dataset]), "cache_dir": str(cache), **ARGUMENTS[dataset]}


def test_killed_build_completes_the_second_time(sources, expected, tmp_path):
    """`kill -9` in the middle of the first split, and of the last one after the others are written."""
    places = [(name, place) for name in BUILDERS for place in (1, 3)]
    cases = [[(name, arguments_of(name, sources, tmp_path / f"{name}{place}"), place)] for name, place in places]
    assert run_builds(cases) == [[signal.SIGKILL]] * len(cases)
    for name, place in places:
        cache = tmp_path / f"{name}{place}"
        assert [path for path in cache.rglob("*.incomplete") if path.is_dir()] != []
        assert records_of(BUILDERS[name](**arguments_of(name, sources, cache))) == expected[name]
        assert [path for path in cache.rglob("*.incomplete") if path.is_dir()] == []


def test_only_its_owner_may_read_a_data_set(dataset, make, tmp_path, monkeypatch):
    """Whatever the user's mask; a cache that is there keeps its permissions, as others' data sets may be in it."""
    old = os.umask(0o022)
    try:
        make().download_and_prepare()
        (tmp_path / "common").mkdir()
        make(cache_dir=tmp_path / "common").download_and_prepare()
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "default")
        make(cache_dir=None).download_and_prepare()
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert (modes[tmp_path / "cache"], modes[tmp_path / "common"], modes[tmp_path / "default"]) == (
        0o700,
        0o755,
        0o755,
    )
    for cache in ("cache", "common", "default"):
        folder = tmp_path / cache / make().dataset_name
        assert modes[folder] == 0o700
        built = [path for path in folder.rglob("*.*") if path.suffix in (".arrow", ".json")]
        assert len(built) > 1
        assert {modes[path] for path in built} == {0o600}
        assert {modes[path.parent] for path in built} == {0o700}


def test_two_builds_at_once(sources, expected, tmp_path):
    cases = [[(name, arguments_of(name, sources, tmp_path / name), None)] * 2 for name in BUILDERS]
    assert run_builds(cases) == [[0, 0]] * len(cases)
    for name in BUILDERS:
        assert [path for path in (tmp_path / name).rglob("*.incomplete") if path.is_dir()] == []
        assert records_of(BUILDERS[name](**arguments_of(name, sources, tmp_path / name))) == expected[name]
