import gc
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import pytest
from own_process import end_server
from tqdm import std


# What somebody has set for other work (a proxy, a mirror, a token, a cache, a width of lines, a user name that is a
# word) changes no test: of the environment only this is kept, names and beginnings of names.
KEPT = (
    "PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_", "TZ", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTEST_", "CUDA_",
    "NVIDIA_", "ICD_SHARED",
)  # fmt: skip


def scrub_environment() -> str:
    """Set the environment of the tests and of the processes that they start; the home folder, an empty one, is returned.

    Caches lie in the home folder, and none in the checkout, which may be read-only.
    """
    for name in list(os.environ):
        if not name.startswith(KEPT):
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="home-of-tests-")
    os.environ |= {
        "HOME": home,
        "HYPOTHESIS_STORAGE_DIRECTORY": home,
        "OMP_NUM_THREADS": "1",  # the processes of pytest-xdist share the cores
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    sys.dont_write_bytecode = True
    return home


def give_bars_their_own_lock() -> None:
    """Give a forked process another lock of progress bars. That of tqdm is shared with the process that it was forked from, which
    would wait for ever where the new one is killed while it holds it."""
    classes = [std.tqdm]
    for bar in classes:
        classes += bar.__subclasses__()
        if bar is std.tqdm or "_lock" in vars(bar):
            bar.set_lock(threading.RLock())


os.register_at_fork(after_in_child=give_bars_their_own_lock)


# A shell that starts the tests in the background lets them and their processes ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # what is imported does not go away again, and looking through it takes seconds
HOME = scrub_environment()  # before torch and the Hugging Face libraries, which read it when they are imported

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from dataset_scripts.codes import icd9_hierarchy, icd10_hierarchy  # noqa: E402
from dataset_scripts.synthetic import write_corpus  # noqa: E402


# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("any machine")
torch.set_num_threads(1)

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WORDS = [
    "fever",
    "cough",
    "pneumonia",
    "ruled",
    "out",
    "no",
    "evidence",
    "of",
    "the",
    "patient",
    "has",
    "sepsis",
    "due",
    "to",
    "and",
    "with",
    "acute",
    "renal",
    "failure",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test comes first, so that no process is left with it when the others have ended."""
    items.sort(key=lambda item: not item.name.startswith("test_every_block_runs"))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Tables of codes stay until the end: every training looks for garbage, and need not look through them."""
    if nextitem is not None and nextitem.path != item.path and len(gc.get_objects()) > 300_000:
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    end_server()
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def no_published_titles(monkeypatch):
    """The package with the titles of ICD-9-CM and ICD-10-PCS is not there, whether or not it is installed."""
    monkeypatch.setattr(icd9_hierarchy, "icd9cm_titles", dict)
    monkeypatch.setattr(icd10_hierarchy, "icd10pcs_titles", dict)


@pytest.fixture(autouse=True)
def plots_take_no_time(request, monkeypatch):
    """Only the tests of reports draw them: a report has five, which take a second."""
    if request.path.name != "test_report.py":
        monkeypatch.setattr("modeling_icd.evaluation.report.make_plots", lambda results: {"hierarchy": "<svg/>"})


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and golden outputs, which are not part of the project."""
    folder = Path(os.environ.get("ICD_SHARED") or Path(__file__).resolve().parents[1] / ".." / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set ICD_SHARED to the folder that holds data/ and golden/")
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    """A two-layer CausalLM checkpoint of width 16 and its tokenizer, on disk."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.3)).save_pretrained(folder)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{word: i + 2 for i, word in enumerate(dict.fromkeys(WORDS))}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, with tokens that pad, begin and end a text."""
    vocabulary = {
        token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def byte_backbone(tmp_path_factory, byte_tokenizer) -> str:
    """A Llama of width 8 whose tokens are bytes, as those of a fused model must be."""
    folder = tmp_path_factory.mktemp("bytes")
    byte_tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(byte_tokenizer), pad_token_id=0, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def small_fusion() -> list[str]:
    """Options that make any configuration of a fused model small enough for a test; the rest of it is as it stands."""
    options = {
        "hidden_layer": 1,
        "window_size": 256,
        "window_stride": 256,
        "projection_size": 4,
        "num_folds": 2,
        "hidden_states_format": "float16",
        "num_train_epochs": 1,
        "tree_size": "small",
        "use_cpu": "true",
        "disable_tqdm": "true",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """An invented corpus of 60 admissions in MIMIC-III's files; to be read, not to be changed."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, num_admissions=60, length="short", show_progress=False)
    return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The `bin` folder of a new environment with the project, as `pip install .` brings it, and the packages of this one."""
    root = Path(__file__).resolve().parents[1]
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "env"], check=True)
    # A path in a .pth file is searched, but not for further .pth files, so that a project installed in place is not found.
    (own,) = (place / "env/lib").glob("python*/site-packages")
    (own / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(place / "env/bin/python"), "--quiet"]
    options = ["--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*pip, "install", *options, root], check=True)
    return place / "env/bin"
