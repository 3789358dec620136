"""The cache of hidden states: nothing wrong is ever read from it, and what is damaged is computed again."""

import errno
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import modeling_icd
from modeling_icd.inference import hidden_states
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.state_shards import Shard


NOTES = [[2 + i] * (1 + i) for i in range(6)]


@pytest.fixture
def model(backbone):
    return modeling_icd.LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, window_size=8, window_stride=6, freeze_backbone=True
    )


@pytest.fixture
def filled(model, tmp_path):
    """A store of `NOTES`, and their states as they were computed."""
    store = HiddenStates(tmp_path / "states", model)
    assert store.fill(NOTES) == len(NOTES)
    return store, [store.read(ids) for ids in NOTES]


@pytest.fixture
def one_note_a_shard(monkeypatch):
    monkeypatch.setattr(hidden_states, "TOKENS_TOGETHER", 1)
    monkeypatch.setattr(hidden_states, "SHARD_BYTES", 1)


def assert_same(store, expected):
    for ids, states in zip(NOTES, expected, strict=True):
        # Computed again among other notes of a batch, a state may differ in the last bit of its float16.
        torch.testing.assert_close(store.read(ids), states, rtol=2e-3, atol=2e-3)


def reopened(store) -> HiddenStates:
    return HiddenStates(store.folder.parent, store.model)


def shards(store) -> list:
    return sorted(store.folder.glob("*.states"))


def test_hidden_states_come_back_as_they_were_and_are_computed_once(model, tmp_path):
    notes = [[2, 3, 4], list(range(2, 20)), [5]]
    store = HiddenStates(tmp_path, model, "float32")
    assert store.fill(notes) == 3
    expected = []
    for ids in notes:
        mask = torch.ones(1, len(ids), dtype=torch.long)
        expected.append(model.eval().read_hidden_states(torch.tensor([ids]), mask)[0])
        torch.testing.assert_close(store.read(ids), expected[-1], atol=1e-5, rtol=1e-5)
    padded, mask = store.read_padded(notes)
    assert mask.sum(dim=1).tolist() == [3, 18, 1]
    torch.testing.assert_close(padded[mask == 1], torch.cat(expected), atol=1e-5, rtol=1e-5)
    assert not padded[mask == 0].any()
    again = HiddenStates(tmp_path, model, "float32")
    (again.folder / "0-000007.unfinished").write_bytes(b"what a killed process leaves")
    assert again.fill([*notes, [7, 8]]) == 1
    assert torch.equal(again.read(notes[1]), store.read(notes[1]))
    assert again.read([7, 8]).shape == (2, 16)
    assert not list(again.folder.glob("*.unfinished"))


def test_an_interrupted_fill_goes_on_where_it_stopped(filled, model, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden_states, "TOKENS_TOGETHER", 1)  # one note a batch
    compute, done = HiddenStates._compute, []

    def interrupted(self, *batch):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(batch)
        return compute(self, *batch)

    monkeypatch.setattr(HiddenStates, "_compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        HiddenStates(tmp_path, model).fill(NOTES)
    monkeypatch.setattr(HiddenStates, "_compute", compute)
    again = HiddenStates(tmp_path, model)
    assert again.fill(NOTES) == 2
    assert_same(again, filled[1])


def fill_and_be_killed(folder, backbone):
    """Write shards of one note, and end as `kill -9` ends a process, in the middle of the fifth."""
    torch.set_num_threads(1)
    model = modeling_icd.LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, window_size=8, window_stride=6, freeze_backbone=True
    )
    store, add = HiddenStates(folder, model), hidden_states.ShardWriter.add

    def killed(self, key, length, states):
        add(self, key, length, states)
        if length == 5:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    hidden_states.ShardWriter.add = killed
    store.fill(NOTES)


def test_after_kill_9_no_finished_shard_is_computed_again(filled, model, backbone, tmp_path, one_note_a_shard):
    process = multiprocessing.get_context("fork").Process(
        target=fill_and_be_killed, args=(tmp_path / "killed", backbone)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    again = HiddenStates(tmp_path / "killed", model)
    finished = shards(again)
    assert len(finished) == 4 and list(again.folder.glob("*.unfinished"))
    assert again.fill(NOTES) == 2
    assert shards(again)[:4] == finished and not list(again.folder.glob("*.unfinished"))
    assert_same(again, filled[1])


def test_of_200_flipped_bytes_none_gives_wrong_states(filled, capsys):
    store, expected = filled
    draw = random.Random(0)
    (path,) = shards(store)
    whole = path.read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        again = reopened(store)
        assert again.fill(NOTES) == len(NOTES)
        assert f"warning: {path} was damaged (" in capsys.readouterr().err
        assert_same(again, expected)
        assert again.fill(NOTES) == 0
        for file in shards(store):
            file.unlink()
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", ["lost", "short", "empty", "of other notes"])
def test_what_is_lost_of_the_cache_is_computed_again(damage, filled, one_note_a_shard):
    _, expected = filled
    store = HiddenStates(filled[0].folder.parent / "shards", filled[0].model)
    store.fill(NOTES)
    first, second = shards(store)[2:4]
    if damage == "lost":
        first.unlink()
    elif damage == "of other notes":
        first.write_bytes(second.read_bytes())
    else:
        content = first.read_bytes()
        first.write_bytes(content[: len(content) // 2 if damage == "short" else 0])
    again = reopened(store)
    assert again.fill(NOTES) == 1
    assert_same(again, expected)
    assert again.fill(NOTES) == 0


def test_a_shard_that_another_process_wrote_in_place_of_a_damaged_one_is_left(filled, capsys):
    (path,) = shards(filled[0])
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    both = reopened(filled[0]), reopened(filled[0])  # each knows the damaged one
    counts = [store.fill(NOTES, process, 2) for process, store in enumerate(both)]
    assert sum(counts) == len(NOTES) and 0 < counts[0] < len(NOTES)
    assert path not in shards(filled[0])  # its name is not given again
    assert capsys.readouterr().err.count("was damaged") == 1
    for store in both:
        store.reload()
        assert_same(store, filled[1])


@pytest.mark.parametrize("damage", ["at its end", "in the middle"])
def test_a_damaged_shard_is_removed_only_while_it_is_the_one_that_was_read(damage, filled, monkeypatch):
    """Another process puts a whole file of the same name there, right after this one has found the old one damaged."""
    store, expected = filled
    (path,) = shards(store)
    whole = path.read_bytes()
    place = len(whole) - 1 if damage == "at its end" else 0
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    remove, late = HiddenStates._remove, []

    def replaced_first(self, *given):
        if not late:
            other = path.with_suffix(".other")
            other.write_bytes(whole)
            late.append(other.replace(path))
        remove(self, *given)

    monkeypatch.setattr(HiddenStates, "_remove", replaced_first)
    again = reopened(store)
    assert again.fill(NOTES) == 0
    assert late and path.read_bytes() == whole
    assert_same(again, expected)


def test_a_shard_that_was_replaced_is_read_anew(filled, one_note_a_shard):
    store = HiddenStates(filled[0].folder.parent / "shards", filled[0].model)
    store.fill(NOTES[:2])
    one, two = shards(store)
    two.replace(one)
    store.reload()
    assert [store.has(ids) for ids in NOTES[:2]] == [False, True]


def test_what_was_just_written_is_not_compared_again(filled, monkeypatch):
    """Each worker of a data loader would do so, in every epoch, since it takes the store as it was when it began."""
    store = HiddenStates(filled[0].folder.parent / "new", filled[0].model)
    store.fill(NOTES)
    monkeypatch.setattr("modeling_icd.inference.state_shards.checksum", None)
    assert_same(store, filled[1])


def test_a_killed_fill_loses_no_more_than_a_shard_of_the_stated_size_and_time(model, tmp_path, monkeypatch):
    """What a shard holds and what is computed beside it, at every moment, where a token takes a second."""
    now, lost, token_bytes = [0.0], [], 32
    monkeypatch.setattr(hidden_states, "SHARD_BYTES", 40 * token_bytes)
    monkeypatch.setattr(hidden_states, "TOKENS_ON_CPU", 4)
    monkeypatch.setattr(hidden_states, "time", SimpleNamespace(monotonic=lambda: now[0]))
    compute, finish = HiddenStates._compute, HiddenStates._finish
    finished = [0.0]  # tokens, which are seconds, too

    def slow(self, batch, input_ids):
        tokens = sum(note.length for note in batch)
        assert tokens <= 10  # a fourth of a shard
        now[0] += tokens
        lost.append(now[0] - finished[0])
        return compute(self, batch, input_ids)

    def count(self, writer):
        finish(self, writer)
        finished[0] = now[0]

    monkeypatch.setattr(HiddenStates, "_compute", slow)
    monkeypatch.setattr(HiddenStates, "_finish", count)
    notes = [[2 + i % 20, 2 + i // 20] for i in range(80)]
    for seconds, most in ((1000.0, 40), (16.0, 16)):  # the bytes come first, then the time
        monkeypatch.setattr(hidden_states, "SHARD_SECONDS", seconds)
        store = HiddenStates(tmp_path / str(most), model)
        lost.clear()
        assert store.fill(notes) == 80
        assert most / 2 < max(lost) <= most
        assert max(path.stat().st_size for path in shards(store)) <= most * token_bytes + most * 36 + 32


def test_a_note_without_a_token_has_no_states(model, tmp_path):
    store = HiddenStates(tmp_path, model)
    assert store.fill([[], [5, 6], []]) == 1
    assert store.fill([[], [5, 6], []]) == 0
    joined = torch.tensor([5, 6])
    torch.testing.assert_close(model.read_joined(joined, [0, 2, 0]), model.read_joined(joined, [2]))
    with pytest.raises(ValueError, match="An empty note cannot be coded"):
        model.read_joined(joined[:0], [0])


def test_states_damaged_while_they_are_read_are_computed_again(filled, monkeypatch):
    store, expected = filled
    for is_empty in (True, False):
        assert_same(store, expected)  # the file is mapped
        (path,) = shards(store)
        content = path.read_bytes()
        path.write_bytes(b"" if is_empty else bytes([content[0] ^ 1]) + content[1:])
        with monkeypatch.context() as patch:
            patch.setattr(hidden_states, "get_worker_info", object)  # a worker of a data loader has no backbone
            with pytest.raises(ValueError, match="damaged during the training"):
                store.read(NOTES[0])
        assert_same(store, expected)
    with pytest.raises(KeyError):
        store.read([1])


def test_nan_is_not_stored(model, tmp_path):
    store = HiddenStates(tmp_path, model)
    store.fill(NOTES[:2])
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite, first seen in note 3 "):
        store.fill(NOTES)
    with pytest.raises(KeyError):
        store.read(NOTES[3])


def test_the_bytes_are_said_before_and_must_be_free(model, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    store = HiddenStates(tmp_path, model)
    needed = 21 * 16 * 2 + 6 * 36  # tokens, and a record a note
    with monkeypatch.context() as patch:
        patch.setattr(hidden_states.shutil, "disk_usage", lambda folder: usage(10**6, 0, needed - 1))
        with pytest.raises(OSError, match=r"6 notes \(21 tokens, 32 bytes each\) take 0.9 kB in .*Make room"):
            store.fill(NOTES)
    assert not shards(store)
    store.fill(NOTES)
    assert "(21 tokens, 32 bytes each) will take 0.9 kB in" in capsys.readouterr().err
    (path,) = shards(store)
    assert path.stat().st_size == needed + 32  # the footer
    store.fill(NOTES)
    assert "will take" not in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_stored(filled, monkeypatch):
    store, expected = filled
    open_private = hidden_states.ShardWriter.__init__.__globals__["open_private"]

    class FullDisk:
        def __init__(self, path):
            self.file = open_private(path)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modeling_icd.inference.state_shards.open_private", FullDisk)
    with pytest.raises(OSError, match=r"cannot be written to .*No space left on device.*make room"):
        store.fill([*NOTES, [9, 9]])
    monkeypatch.undo()
    again = reopened(store)
    assert again.fill([*NOTES, [9, 9]]) == 1
    assert_same(again, expected)


def fill(folder, backbone, process, num_processes):
    torch.set_num_threads(1)
    model = modeling_icd.LlamaForICDCoding.from_pretrained(
        backbone, num_labels=3, window_size=8, window_stride=6, freeze_backbone=True
    )
    HiddenStates(folder, model).fill(NOTES, process, num_processes)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_two_processes_fill_at_once(num_processes, filled, backbone, tmp_path):
    """Two runs (`num_processes` 1) that each want all notes, or two processes of one run with a share each."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=fill, args=(tmp_path / "both", backbone, i % num_processes, num_processes))
        for i in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    again = HiddenStates(tmp_path / "both", filled[0].model)
    keys = [key for path in shards(again) for key in list(Shard(path, again.token_bytes).keys())]
    assert len(keys) == len(set(keys)) == len(NOTES)  # each computed once
    assert_same(again, filled[1])


def test_the_cache_is_its_owners_alone(filled):
    folder = filled[0].folder
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_what_an_earlier_version_kept_is_removed(filled):
    for name in ("index.json", "index.jsonl", "index-1.jsonl", "vectors.bin", "vectors-1.bin"):
        (filled[0].folder / name).write_text("old")
    reopened(filled[0])
    assert {path.suffix for path in filled[0].folder.iterdir()} == {".states", ".lock"}


@pytest.mark.slow
def test_as_many_notes_as_mimics_cost_little_memory_and_no_quadratic_work():
    command = [sys.executable, "-m", "benchmarks.hidden_states", "--only", "keys"]
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    memory, growth = (
        float(line.split()[-1].replace(",", "")) for line in run.stdout.splitlines() if line.startswith("keys")
    )
    assert memory < 200 and growth < 2.6  # MB; 2 is linear, 4 quadratic
