"""`modeling-icd predict` with several processes: the same output, whichever of them is killed, and none left behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_pipeline import save_coder
from test_predict import invented, write_table

from modeling_icd.inference.predict import main


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_coder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def arguments(model, tmp_path):
    """The command on notes of 40 chunks, by the name of its output."""
    rows = [{"id": f"n{i}", "text": text if i % 7 else " "} for i, text in enumerate(invented(320))]
    source = write_table(tmp_path / "notes.csv", rows)
    return lambda name: [model, str(source), "-o", str(tmp_path / name), "--chunk_rows=8"]


@pytest.fixture
def expected(arguments, tmp_path) -> bytes:
    assert main(arguments("whole.jsonl")) == 0
    return (tmp_path / "whole.jsonl").read_bytes()


def finished(tmp_path: Path) -> int:
    return len(list((tmp_path / "codes.jsonl.parts").glob("part-*")))


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.005)


def children(of: int) -> list[int]:
    """Processes with this parent whose command says that they are workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_three_times_while_two_workers_code_it_gives_the_bytes_of_one_process(arguments, expected, tmp_path):
    command = [sys.executable, "-m", "modeling_icd.inference.predict", *arguments("codes.jsonl"), "--processes=2"]
    draw = random.Random(2)
    for _ in range(3):
        before = finished(tmp_path)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda before=before: finished(tmp_path) >= before + 2)
        workers = children(process.pid)
        time.sleep(draw.random() / 50)
        process.kill()
        process.wait()
        wait_until(lambda workers=workers: not any(map(is_alive, workers)))
        assert len(workers) == 2 and not (tmp_path / "codes.jsonl").exists()
    assert 6 <= finished(tmp_path) < 40
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and " notes are coded already." in done.stderr
    assert "274 notes coded, " in done.stdout and "leaked" not in done.stderr
    assert (tmp_path / "codes.jsonl").read_bytes() == expected


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_nothing_is_lost(arguments, expected, tmp_path, capsys):
    def kill_one():
        wait_until(lambda: finished(tmp_path) >= 2)
        os.kill(children(os.getpid())[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert main([*arguments("codes.jsonl"), "--processes=2"]) == 2
    killer.join()
    message = capsys.readouterr().err
    assert "error: A worker process was ended by SIGKILL; the system kills one where memory runs out." in message
    assert 2 <= finished(tmp_path) < 40 and not children(os.getpid())
    assert main([*arguments("codes.jsonl"), "--processes=2"]) == 0
    assert (tmp_path / "codes.jsonl").read_bytes() == expected


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_the_commands_own_message(arguments, model, tmp_path, capsys):
    weights = Path(model, "model.safetensors")
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-100])
        assert main([*arguments("codes.jsonl"), "--processes=2"]) == 2
    finally:
        weights.write_bytes(content)
    assert f"error: {weights} is cut short or damaged" in capsys.readouterr().err


RAY_WORKER = "ray::MapWorker(MapBatches(NoteCoder))"


def ray_workers(of: int) -> list[int]:
    """Ray's processes that hold an actor of ours, on a cluster that process `of` has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(RAY_WORKER.encode()) and of in ancestors(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


@pytest.mark.slow
def test_ray_gives_the_same_when_one_of_its_two_workers_is_killed(arguments, expected, tmp_path):
    pytest.importorskip("ray.data")
    command = [sys.executable, "-m", "modeling_icd.inference.predict", *arguments("codes.jsonl"), "--ray"]
    process = subprocess.Popen(
        [*command, "--processes=2"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_until(lambda: finished(tmp_path) >= 2)
        workers = ray_workers(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        killed_at = finished(tmp_path)
        printed = process.communicate(timeout=180)[0]
    finally:
        process.kill()
    assert process.returncode == 0, printed[-2000:]
    assert killed_at < 40
    assert (tmp_path / "codes.jsonl").read_bytes() == expected
    assert not (tmp_path / "codes.jsonl.parts").exists()
