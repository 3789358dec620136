"""The cache of hidden states: nothing wrong is ever read from it, and what is damaged is computed again."""

import errno
import json
import multiprocessing
import random
import stat

import pytest
import torch

import modeling_icd
from modeling_icd.inference import hidden_states
from modeling_icd.inference.hidden_states import HiddenStates


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


def assert_same(store, expected):
    for ids, states in zip(NOTES, expected, strict=True):
        # Computed again among other notes of a batch, a state may differ in the last bit of its float16.
        torch.testing.assert_close(store.read(ids), states, rtol=2e-3, atol=2e-3)


def reopened(store) -> HiddenStates:
    return HiddenStates(store.folder.parent, store.model)


def test_hidden_states_come_back_as_they_were_and_are_computed_once(model, tmp_path):
    notes = [[2, 3, 4], list(range(2, 20)), [5]]
    store = HiddenStates(tmp_path, model, "float32")
    assert store.fill(notes) == 3
    for ids in notes:
        mask = torch.ones(1, len(ids), dtype=torch.long)
        expected = model.eval().read_hidden_states(torch.tensor([ids]), mask)[0]
        torch.testing.assert_close(store.read(ids), expected, atol=1e-5, rtol=1e-5)
    again = HiddenStates(tmp_path, model, "float32")
    # what an interrupted run leaves behind the last note of its index is written over
    with open(again.folder / "vectors.bin", "ab") as file:
        file.write(b"unfinished")
    assert again.fill([*notes, [7, 8]]) == 1
    assert torch.equal(again.read(notes[1]), store.read(notes[1]))
    assert again.read([7, 8]).shape == (2, 16)


def test_an_interrupted_fill_goes_on_where_it_stopped(filled, model, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden_states, "TOKENS_PER_BATCH", 1)  # one note a batch
    compute, done = HiddenStates._compute, []

    def interrupted(self, batch):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(batch)
        return compute(self, batch)

    monkeypatch.setattr(HiddenStates, "_compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        HiddenStates(tmp_path, model).fill(NOTES)
    monkeypatch.setattr(HiddenStates, "_compute", compute)
    again = HiddenStates(tmp_path, model)
    assert again.fill(NOTES) == 2
    assert_same(again, filled[1])


def test_of_200_flipped_bytes_none_gives_wrong_states(filled, capsys):
    store, expected = filled
    draw = random.Random(0)
    files = {path: path.read_bytes() for path in (store.folder / "vectors.bin", store.folder / "index.jsonl")}
    num_computed = 0
    for _ in range(200):
        path = draw.choice(list(files))
        content = bytearray(files[path])
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        again = reopened(store)
        num_computed += again.fill(NOTES)
        assert_same(again, expected)
        assert again.fill(NOTES) == 0
        for name, whole in files.items():
            name.write_bytes(whole)
    assert 150 < num_computed < 400  # the note of each byte, seldom two
    assert (
        "are damaged (their length or checksum is wrong), of the notes asked for those at [" in capsys.readouterr().err
    )


@pytest.mark.parametrize("damage", ["vectors lost", "vectors short", "vectors empty", "index lost", "one entry less"])
def test_what_is_lost_of_the_cache_is_computed_again(damage, filled):
    store, expected = filled
    vectors, index = store.folder / "vectors.bin", store.folder / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    if damage == "vectors lost":
        vectors.unlink()
    elif damage.startswith("vectors"):
        content = vectors.read_bytes()
        vectors.write_bytes(content[: len(content) // 2 if damage == "vectors short" else 0])
    elif damage == "index lost":
        index.unlink()
    else:
        index.write_text("".join(lines[:2] + lines[3:]))
    again = reopened(store)
    assert 1 <= again.fill(NOTES) <= len(NOTES)
    assert_same(again, expected)
    assert again.fill(NOTES) == 0


def test_an_index_that_cannot_be_read_is_a_warning(filled, capsys):
    store, expected = filled
    index = store.folder / "index.jsonl"
    index.write_bytes(b'{"\xff\n["key", 1]\n' + index.read_bytes()[:-10])  # the last line cut short, too
    again = reopened(store)
    assert again.fill(NOTES) == 1
    assert_same(again, expected)
    assert "3 lines of" in capsys.readouterr().err
    assert reopened(again).fill(NOTES) == 0


def test_a_place_beyond_any_file_is_damage(filled):
    store, expected = filled
    index = store.folder / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[2][1], lines[4][1] = 2**63 - 1, 2**70
    index.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    again = reopened(store)
    assert again.fill(NOTES) == 2
    assert_same(again, expected)


def test_states_damaged_while_they_are_read_are_computed_again(filled, monkeypatch):
    store, expected = filled
    (store.folder / "vectors.bin").write_bytes(b"")
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


def test_a_full_disk_leaves_what_was_stored(filled, monkeypatch):
    store, expected = filled

    class FullDisk:
        def __init__(self, path):
            self.file = open_private(path)
            self.truncate, self.tell, self.flush = self.file.truncate, self.file.tell, self.file.flush

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    open_private = hidden_states.open_private
    monkeypatch.setattr(hidden_states, "open_private", FullDisk)
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
    assert sum(len(entries) for entries in again._entries.values()) == len(NOTES)  # each computed once
    assert_same(again, filled[1])


def test_the_cache_is_its_owners_alone(filled):
    folder = filled[0].folder
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
