"""Nothing of a note outlives its call: neither in memory, nor on a disk, nor in a log, nor elsewhere."""

import gc
import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import free_port, save_coder, served, wait_until

from modeling_icd.space.cli import main
from modeling_icd.space.coding import Coder
from modeling_icd.space.server import launch


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory) -> str:
    return save_coder(backbone, tmp_path_factory.mktemp("coder"))


CLIENT = """
import json, sys, urllib.error, urllib.request
urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
address, marker = sys.argv[1], sys.argv[2] + sys.argv[3]
def post(path, content, **headers):
    return urllib.request.urlopen(urllib.request.Request(address + path, content, headers)).read()
def call(name, data):
    event = json.loads(post("/gradio_api/call/" + name, json.dumps({"data": data}).encode()))["event_id"]
    return urllib.request.urlopen(address + "/gradio_api/call/" + name + "/" + event).read().decode()
assert '"done"' in call("code_note", ["fever " + marker + " sepsis", "a", [marker], ""])
document = json.loads(post("/api/document", ("note " + marker).encode(), **{"X-File-Name": "a.txt"}))
assert marker in document["text"]
for given in (["fever " + marker], [marker, marker, [marker, 1], marker]):
    try:
        post("/gradio_api/call/code_note", json.dumps({"data": given}).encode())
        raise SystemExit("accepted")
    except urllib.error.HTTPError as error:
        assert error.code == 400
try:
    post("/api/batch", (marker + "\\n" + marker + "\\n").encode(), **{"X-File-Name": "a.csv"})
    raise SystemExit("accepted")
except urllib.error.HTTPError as error:
    assert error.code == 422
batch = json.loads(post("/api/batch", ("id,text\\n1," + marker + " fever\\n2,\\n").encode(), **{"X-File-Name": "a.csv"}))
assert marker in call("code_batch", [batch["batch"], "a", ""])
post("/api/titles", json.dumps({"query": marker}).encode())
"""


def talk(address: str, first: str, second: str) -> None:
    """Uses every route from another process, with notes that hold a marker, given in two halves."""
    subprocess.run([sys.executable, "-I", "-c", CLIENT, address, first, second], check=True, timeout=100)


def held_in_memory(first: str, second: str) -> list[str]:
    """What in the memory of this process holds the marker: type and length of each text that something refers to."""
    gc.unfreeze()  # what was imported may hold it, too
    gc.collect()
    referred = gc.get_referents(*gc.get_objects())
    texts = [held for held in referred if type(held) in (str, bytes, bytearray) and len(held) >= len(first)]
    found = []
    for held in texts:
        a, b = (first, second) if isinstance(held, str) else (first.encode(), second.encode())
        if a in held and b in held:
            found.append(f"{type(held).__name__} of {len(held)}")
    return found


@pytest.fixture
def running(folder):
    with served([Coder(folder)]) as running:
        yield running


def test_nothing_of_a_note_is_left_in_memory(running):
    page, address, server = running
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    talk(address, first, second)
    queue = server.get_blocks()._queue
    wait_until(lambda: not (queue.event_ids_to_events or queue.pending_messages_per_session or page.watches))
    for _ in range(5):  # a connection is closed a little later
        if not (left := held_in_memory(first, second)):
            break
        time.sleep(1)
    assert left == []
    assert not server.iterators and not server.state_holder.session_data
    kept = [first + second]
    assert held_in_memory(first, second) == ["str of 64"], kept  # it does find what is there


class Watched:
    """Notes, while it is on, each file that this process opens for writing, and each machine that it connects to."""

    def __init__(self):
        self.is_on, self.seen = False, []
        sys.addaudithook(self._hear)  # which stays until the process ends

    def _hear(self, event, arguments):
        if not self.is_on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
                self.seen.append(str(path))
        if event == "socket.connect":
            host = arguments[1][0] if isinstance(arguments[1], tuple) else arguments[1]
            if host not in ("127.0.0.1", "localhost", "::1"):
                self.seen.append(str(host))


def test_nothing_of_a_note_is_written_or_sent_anywhere(folder, tmp_path, monkeypatch, capfd):
    """The command itself, from its start until a signal ends it."""
    for name in ("HOME", "TMPDIR", "GRADIO_TEMP_DIR", "XDG_CACHE_HOME", "HF_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY"):  # as in a hospital; there is none
        monkeypatch.setenv(name, "" if name == "NO_PROXY" else "http://127.0.0.1:9")
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    port, watched, servers = free_port(), Watched(), []
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    with ThreadPoolExecutor(1) as visitor:

        def launch_and_visit(server, *arguments):
            address = launch(server, *arguments)
            servers.append(server)
            watched.is_on = True  # what libraries keep for their next start is written by now
            visits.append(visitor.submit(visit_and_end, address))
            return address

        def visit_and_end(address):
            try:
                talk(address.rstrip("/"), first, second)
            finally:
                watched.is_on = False
                os.kill(os.getpid(), signal.SIGTERM)

        visits: list = []
        monkeypatch.setattr("modeling_icd.space.server.launch", launch_and_visit)
        status = main([folder, "--port", str(port)])
        for server in servers:
            server.get_blocks().close(verbose=False)
        visits[0].result()
    printed, errors = capfd.readouterr()
    assert (status, watched.seen) == (143, [])
    assert f"The page is at http://127.0.0.1:{port}/ (Ctrl-C ends it).\n" in printed
    assert errors.endswith("error: ended by SIGTERM. The page is closed.\n")
    assert first not in printed + errors and second not in printed + errors
    marker = (first + second).encode()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if marker in path.read_bytes()] == []
    watched.is_on = True
    (tmp_path / "written").write_text("x")
    watched.is_on = False
    assert watched.seen == [str(tmp_path / "written")]  # it does see what is written
