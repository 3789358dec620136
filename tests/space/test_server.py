"""The server of the page: every route and call, what it refuses, who may use it, and that nothing of a note outlives its call."""

import asyncio
import csv
import io
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fhirclient.models.bundle import Bundle
from serving import CODES, code, http, join, last, messages, routes_of, save_coder, served, upload, wait_until

from modeling_icd.inference.predict_notes import Row
from modeling_icd.space import server as server_module
from modeling_icd.space.access import Gate
from modeling_icd.space.batch import Batch
from modeling_icd.space.coding import Coder, CodingError
from modeling_icd.space.line import Cancelled, Line, LineIsFull, Watch
from modeling_icd.space.server import Page


ROOT = Path(__file__).resolve().parents[2]
NOTE = "patient has acute renal failure and sepsis due to pneumonia no fever"


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory) -> str:
    return save_coder(backbone, tmp_path_factory.mktemp("coder"))


@pytest.fixture(scope="module")
def running(folder):
    with served([Coder(folder, "a"), Coder(folder, "b")]) as (page, address, server):
        yield page, address, server


@pytest.fixture
def page(running):
    return running[0]


@pytest.fixture
def address(running) -> str:
    return running[1]


@pytest.fixture
def held(page, monkeypatch):
    """Coding waits, between the passes of the model, until the event is set or the work is called off."""
    go = threading.Event()
    read = Coder._read

    def slowly(coder, input_ids, watch):
        watch.begin(len(input_ids))
        while not go.wait(0.01):
            watch.check()
        return read(coder, input_ids, watch)

    monkeypatch.setattr(Coder, "_read", slowly)
    yield go
    go.set()
    wait_until(lambda: not len(page.line))


# What the page is told


def test_about(address):
    about = http.get(f"{address}/api/about").json()
    assert "does not decide" in about["banner"] and server_module.PRIVACY in about["banner"]
    quoted = " ".join((ROOT / "docs" / "page.md").read_text(encoding="utf-8").replace("\n> ", " ").split())
    assert server_module.PRIVACY in quoted  # the page and its document promise the same
    assert [model["id"] for model in about["models"]] == ["a", "b"]
    assert about["limits"]["max_characters"] == 200_000
    assert all(example["title"] and len(example["text"]) > 500 for example in about["examples"])
    assert re.fullmatch(r"\d+\.\d+\..*", about["version"])


def test_every_answer_forbids_what_the_page_does_not_need(address):
    for path in ("/api/about", "/nothing", "/static/page.css"):
        headers = http.get(address + path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_nothing_of_gradio_can_be_reached_but_the_two_calls(running):
    _, address, server = running
    kept = {"/", "/static/{name}", "/static/{path:path}", "/gradio_api/call/{api_name}"}
    kept |= {"/gradio_api/call/{api_name}/{event_id}"} | {f"/api/{name}" for name in ROUTES} | {"/api/about"}
    others = [(method, path) for method, path in routes_of(server) if path not in kept]
    assert len(others) > 40
    with httpx.Client(base_url=address) as client:
        for method, path in others:
            answer = client.request(method, re.sub(r"\{[^}]*\}", "x", path), content=b"{}")
            assert answer.status_code == 404, path
            assert method == "HEAD" or answer.json() == {"message": "There is nothing here."}
    for path in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/gradio_api/call/nothing",
        "/gradio_api/file=/etc/passwd",
    ):
        assert http.get(address + path).status_code == 404
    assert http.post(f"{address}/gradio_api/upload", files={"files": b"x"}).status_code == 404


# Coding a note


def test_a_note_is_coded_with_progress(address):
    told = list(messages(address, "code_note", [f"{NOTE} " * 20, "a", ["I10", "Z99.9"], ""]))
    assert {message["status"] for message in told[:-1]} <= {"reading"}
    assert told[-1]["status"] == "done"
    result = told[-1]["result"]
    assert result["model"] == "a" and result["words"] == 240
    assert {entry["code"] for entry in result["codes"]} == set(CODES)
    assert result["unknown"] == [{"code": "Z99.9", "title": None}]
    assert result["audit"]["missed"]
    assert last(address, "code_note", [NOTE, "b", [], ""])["result"]["model"] == "b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "<script>alert(1)</script> <img src=x onerror=alert(1)>",
        "\u05d7\u05d5\u05dc\u05d4 \u0639\u0631\u0628\u064a \u202efever",
        "\x00\x01 fever \x7f",
        "\ud83d fever \ude00",  # halves of a character
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 " * 50,
        "x" * 200_000,
        '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
    ],
)
def test_any_text_is_coded_or_blank(address, text):
    message = code(address, text)
    assert message["status"] == "done"
    for entry in message["result"]["codes"]:
        for start, end, weight in entry["evidence"]:
            assert 0 <= start < end <= len(text.encode("utf-16-le", errors="surrogatepass")) // 2
            assert 0 < weight <= 1


def test_what_cannot_be_coded_is_one_message(address):
    message = code(address, "fever " * 170_000)  # 1 MB
    expected = "The note has 1,020,000 characters, and at most 200,000 are read at once: shorten it or divide it."
    assert message == {"status": "error", "message": expected}
    assert code(address, NOTE, model="c") == {"status": "error", "message": "This model is not here: reload the page."}
    too_many = code(address, NOTE, [f"X{i}" for i in range(501)])
    assert (too_many["status"], too_many["message"][:22]) == ("error", "501 codes are assigned")
    assert (
        last(address, "code_batch", ["nothing", "a", ""])["message"]
        == "The file of notes is no longer here: choose it again."
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"data": 1}', b'{"data": ["SECRET"]}', b'{"data": [{"path": "/etc/passwd"}, "a", [], ""]}', b"[" * 100_000,
     b'{"data": ["SECRET", "a", "I10", ""]}', b'{"data": ["SECRET", "a", [1], ""]}', b'{"data": ["SECRET", "a", [], "", 1]}'],
)  # fmt: skip
def test_a_call_that_is_not_well_formed_is_refused_and_not_printed(address, body, capfd):
    answer = http.post(f"{address}/gradio_api/call/code_note", content=body)
    assert answer.status_code == 400
    assert answer.json() == {"message": "This is no well-formed request of the page: reload it."}
    assert "SECRET" not in "".join(capfd.readouterr())


def test_a_fault_of_the_program_is_one_message_and_a_place_in_the_log(address, monkeypatch, capfd, caplog):
    def fail(*_):
        raise RuntimeError("SECRET")

    monkeypatch.setattr(Coder, "code_note", fail)
    message = code(address, "SECRET note")
    assert message["status"] == "error" and "Something went wrong" in message["message"]
    monkeypatch.setattr(server_module, "read_document", fail)
    answer = upload(address, "document", "a.txt", b"SECRET")
    assert (answer.status_code, answer.json()) == (500, {"message": "Something went wrong in the server."})
    assert "SECRET" not in "".join(capfd.readouterr()) + caplog.text
    assert "A note could not be coded: RuntimeError in test_server.py, line" in caplog.text
    assert "A request failed: RuntimeError in test_server.py, line" in caplog.text


# The line


def test_ten_people_at_once_get_their_own_answers(address):
    texts = [" ".join(NOTE.split()[i:] + ["cough"] * i) for i in range(10)]
    alone = [code(address, text)["result"]["codes"] for text in texts]
    together: dict[int, list] = {}

    def ask(i):
        together[i] = code(address, texts[i])["result"]["codes"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert [together[i] for i in range(10)] == alone


def test_who_waits_is_told_how_many_are_before_and_cancelling_lets_the_next_one_in(page, address, held):
    first = iter(messages(address, "code_note", [NOTE, "a", [], "first"]))
    assert next(first)["status"] == "reading"
    second = iter(messages(address, "code_note", [NOTE, "a", [], "second"]))
    assert {name: next(second)[name] for name in ("status", "done", "total")} == {
        "status": "waiting",
        "done": 0,
        "total": 1,
    }
    third = iter(messages(address, "code_note", [NOTE, "a", [], "third"]))
    assert next(third)["total"] == 2
    assert code(address, NOTE, token="third") == {"status": "error", "message": "This is being coded already."}
    cancel = f"{address}/api/cancel"
    assert http.post(cancel, json={"token": "second"}).json() == {"cancelled": True}  # while it waits
    assert list(second)[-1] == {"status": "cancelled"}
    assert http.post(cancel, json={"token": "first"}).json() == {"cancelled": True}  # while it is read
    assert list(first)[-1] == {"status": "cancelled"}
    held.set()
    assert list(third)[-1]["status"] == "done"
    assert http.post(cancel, json={"token": "third"}).json() == {"cancelled": False}
    for wrong in (b"", b"[]", b'{"token": 3}'):
        assert http.post(cancel, content=wrong).json() == {"cancelled": False}


def test_a_full_line_says_so_at_once(page, address, held, monkeypatch):
    monkeypatch.setattr(page.line, "max_waiting", 1)
    first = iter(messages(address, "code_note", [NOTE, "a", [], ""]))
    next(first)
    second = iter(messages(address, "code_note", [NOTE, "a", [], ""]))
    next(second)
    expected = {"status": "busy", "message": "1 note is waiting already: try again in a minute."}
    assert code(address, NOTE) == expected
    held.set()
    assert [list(stream)[-1]["status"] for stream in (first, second)] == ["done", "done"]
    assert code(address, NOTE)["status"] == "done"


@pytest.mark.parametrize("place", ["at work", "waiting"])
def test_who_goes_away_frees_the_place(page, address, held, place):
    if place == "waiting":
        ahead = iter(messages(address, "code_note", [NOTE, "a", [], "ahead"]))
        next(ahead)
    event = join(address, "code_note", [NOTE, "a", [], "gone"])
    with http.stream("GET", f"{address}/gradio_api/call/code_note/{event}", timeout=60) as stream:
        next(stream.iter_lines())
        assert "gone" in page.watches
    wait_until(lambda: "gone" not in page.watches)
    assert len(page.line) == (place == "waiting")


def test_a_call_that_nobody_comes_back_for_is_dropped(running, held, monkeypatch):
    page, address, server = running
    monkeypatch.setattr("modeling_icd.space.calls.CALLED_FOR_SECONDS", 0.1)
    join(address, "code_note", [NOTE, "a", [], "forgotten"])
    wait_until(lambda: "forgotten" in page.watches)
    queue = server.get_blocks()._queue
    wait_until(
        lambda: not ("forgotten" in page.watches or queue.event_ids_to_events or queue.pending_messages_per_session)
    )


def test_the_line_by_itself():
    line = Line(max_waiting=2)
    first, second, third = (line.join(words=100) for _ in range(3))
    assert [line.ahead_of(place) for place in (first, second, third)] == [0, 1, 2]
    assert line.seconds_until(second) is None
    with pytest.raises(LineIsFull, match=r"^2 notes are waiting already"):
        line.join()
    line.give_way(first)
    assert [line.ahead_of(place) for place in (first, second, third)] == [2, 0, 1]
    line.leave(third)
    line.leave(third)  # once is enough
    assert len(line) == 2


def test_how_long_a_note_waits_depends_on_the_words_of_those_before_it(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("modeling_icd.space.line.time", SimpleNamespace(monotonic=lambda: now[0]))
    line = Line(max_waiting=9)
    short, watch = line.join(100, "a"), Watch()
    now[0] += 2  # 100 words in 2 seconds
    line.leave(short, is_done=True)
    called_off = line.join(100, "a")
    now[0] += 500
    line.leave(called_off)  # says nothing of how long others take
    long, next_one, last_one = line.join(10_000, "a", watch), line.join(50, "a"), line.join(50, "a")
    assert line.seconds_until(next_one) == 200
    assert line.seconds_until(last_one) == 201
    now[0] += 150
    assert line.seconds_until(next_one) == 50
    now[0] += 60  # it takes longer than expected: nobody knows how long
    assert line.seconds_until(next_one) is None and line.seconds_until(last_one) is None
    watch.begin(1000)
    now[0] += 100
    watch.done = 250  # tokens: what is really read counts
    assert line.seconds_until(next_one) == 300
    line.leave(long)
    other_model = line.join(100, "b")
    assert line.seconds_until(other_model) == 2
    assert line.seconds_until(line.join(1, "a")) is None  # nothing is known of the other model


def test_rows_that_are_not_coded_say_nothing_of_how_long_others_take():
    class Slow:
        key = "a"

        def code_row(self, text, watch):
            if text == "no numbers":
                raise CodingError("x")
            time.sleep(0.02)
            return []

    async def read(page: Page) -> None:
        too_long = [Row(i, str(i), "x " * 20_000, "has a note of too many characters") for i in range(8)]
        batch = Batch([*too_long, Row(8, "8", "fever", ""), Row(9, "9", "no numbers", "")])
        watch = Watch()
        place = page.line.join(0, "a")
        told = [message async for message in page._code_batch(Slow(), batch, place, watch)]
        assert [rejected["row"] for rejected in told[-1]["rejected"]] == [*range(8), 9]
        page.line.leave(place)
        reading, waiting = page.line.join(1000, "a"), page.line.join(1000, "a")
        seconds = page.line.seconds_until(waiting)
        assert reading.since and seconds is not None and seconds > 10  # 1,000 words, of which each takes 0.02 s

    page = Page([])
    asyncio.run(read(page))
    page.close()


def test_a_page_that_is_closed_calls_off_the_note_that_is_read():
    page = Page([])
    page.watches["x"] = watch = Watch()

    def read():
        while True:
            watch.check()
            time.sleep(0.01)

    reading, next_one = page.thread.submit(read), page.thread.submit(read)
    page.close()
    assert isinstance(reading.exception(), Cancelled)
    assert next_one.cancelled()


# Files of notes


def test_a_file_is_coded_row_by_row(page, address):
    rows = [f"n{i},{NOTE}" for i in range(5)] + ["x,a,b", "y,"]
    answer = upload(address, "batch", "notes.csv", "\n".join(["id,text", *rows]).encode())
    assert answer.json()["rows"] == 7
    told = list(messages(address, "code_batch", [answer.json()["batch"], "a", ""]))
    assert told[-1]["status"] == "done"
    assert {message["status"] for message in told[:-1]} <= {"reading"}
    assert [rejected["row"] for rejected in told[-1]["rejected"]] == [6, 7]
    assert told[-1]["rejected"][1]["reason"] == "has no text"
    coded = list(csv.DictReader(io.StringIO(told[-1]["csv"])))
    assert {row["id"] for row in coded} == {f"n{i}" for i in range(5)}
    first = [row["code"] for row in coded if row["id"] == "n0"]
    assert first == [entry["code"] for entry in code(address, NOTE)["result"]["codes"] if entry["predicted"]]
    assert last(address, "code_batch", [answer.json()["batch"], "a", ""])["status"] == "error"  # it is gone
    assert not len(page.batches)


def test_a_note_goes_before_the_rest_of_a_file_and_a_file_can_be_called_off(page, address, monkeypatch):
    code_row = Coder.code_row
    go = threading.Event()

    def slowly(coder, text, watch):
        while not go.wait(0.01):
            watch.check()
        return code_row(coder, text, watch)

    monkeypatch.setattr(Coder, "code_row", slowly)
    content = "\n".join(["text", *[NOTE] * 2000]).encode()
    token = upload(address, "batch", "notes.csv", content).json()["batch"]
    file = iter(messages(address, "code_batch", [token, "a", "file"]))
    assert next(file)["total"] == 2000
    note = iter(messages(address, "code_note", [NOTE, "a", [], ""]))
    assert next(note)["status"] == "waiting"
    go.set()
    assert list(note)[-1]["status"] == "done"
    assert page.watches["file"].done < 2000
    assert http.post(f"{address}/api/cancel", json={"token": "file"}).json() == {"cancelled": True}
    assert list(file)[-1] == {"status": "cancelled"}
    token = upload(address, "batch", "notes.csv", content).json()["batch"]
    assert http.post(f"{address}/api/cancel", json={"token": token}).json() == {"cancelled": True}
    assert not len(page.batches)


# Routes


ROUTES = ("document", "titles", "export", "batch", "cancel")


def test_documents(address):
    answer = upload(address, "document", "na%C3%AFve.txt", "fi\u00e8vre et toux depuis trois jours\r\n\x00".encode())
    assert answer.json()["text"] == "fi\u00e8vre et toux depuis trois jours\n\ufffd"
    assert len(answer.json()["warnings"]) == 1
    answer = upload(address, "document", "na%C3%AFve.txt", b"")
    assert (answer.status_code, answer.json()) == (422, {"message": "na\u00efve.txt is empty: choose another file."})
    assert http.post(f"{address}/api/document", content=b"fever").json()["text"] == "fever"


def test_titles(address):
    answer = http.post(f"{address}/api/titles", json={"query": "acute kidny failure", "system": "icd10cm", "limit": 3})
    found = answer.json()["titles"]
    assert len(found) == 3
    assert set(found[0]) == {"code", "title", "chapter", "kind", "system", "heading", "because"}
    assert {code["code"]: code["heading"] for code in found}["N17"]
    (one,) = http.post(f"{address}/api/titles", json={"query": "I10", "limit": 1}).json()["titles"]
    assert not one["heading"]
    lay = http.post(f"{address}/api/titles", json={"query": "piles", "limit": 5}).json()["titles"]
    assert "piles = hemorrhoids" in [code["because"] for code in lay]
    about = http.get(f"{address}/api/about").json()
    # Of ICD-10-PCS the model brings titles, and of ICD-9-CM none.
    assert set(about["title_systems"]) >= {"icd10cm", "icd10pcs"}
    assert ("icd9cm" in about["title_systems"]) == ("ICD-9-CM" not in about["titles_lacking"])
    for wrong in (
        {},
        {"query": 1},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": "3"},
        {"query": "x", "system": "snomed"},
        *({"query": "x", "system": wrong} for wrong in ([], {}, ["icd10cm"], 0, 1, False)),
        {"query": "x", "limit": True},
        [],
    ):
        answer = http.post(f"{address}/api/titles", json=wrong)
        assert answer.status_code == 400 and answer.json()["message"].endswith(".")


def test_export(address):
    codes = [
        {"code": "I10", "title": "=x", "kind": "diagnosis", "system": "ICD-10-CM", "score": 0.5, "decision": None, "status": "accepted"},
        {"code": "0BH17EZ", "title": None, "kind": "procedure", "system": "ICD-10-PCS", "score": None, "status": "added"},
    ]  # fmt: skip
    table = http.post(f"{address}/api/export", json={"format": "csv", "codes": codes})
    assert table.headers["content-disposition"] == 'attachment; filename="codes.csv"'
    assert [row["title"] for row in csv.DictReader(io.StringIO(table.text))] == ["'=x", ""]
    bundle = http.post(f"{address}/api/export", json={"format": "fhir", "codes": codes})
    assert bundle.headers["content-type"] == "application/fhir+json"
    assert len(Bundle(bundle.json(), strict=True).entry) == 2
    for change in (
        {"code": ""},
        {"code": 1},
        {"title": 1},
        {"score": 2},
        {"kind": "x"},
        {"system": "x"},
        {"decision": "x"},
        {"status": "x"},
        *({name: wrong} for name in ("kind", "system", "decision", "status") for wrong in ([], {}, 1)),
    ):
        answer = http.post(f"{address}/api/export", json={"format": "csv", "codes": [codes[0] | change]})
        assert answer.status_code == 400 and answer.json()["message"].startswith("Code 1")
    for wrong in (
        {},
        {"codes": []},
        {"codes": [], "format": ["csv"]},
        {"codes": [], "format": "csv", "confirmed": 1},
        {"codes": {}, "format": "csv"},
        {"codes": [1], "format": "csv"},
    ):
        assert http.post(f"{address}/api/export", json=wrong).status_code == 400


def test_what_is_too_large_is_refused_before_it_is_read(address):
    def endless():
        sent = 0
        while sent < 40 << 20:  # says nothing of its length
            sent += 1 << 20
            yield b"x" * (1 << 20)

    for route, content in (
        ("document", b"x" * ((20 << 20) + 1)),
        ("titles", b"x" * (17 << 10)),
        ("document", endless()),
    ):
        try:
            answer = http.post(f"{address}/api/{route}", content=content, timeout=60)
        except httpx.WriteError:
            continue  # the server hung up on what it no longer reads
        assert (answer.status_code, answer.json()["message"]) == (
            413,
            "This is too large to be taken at once: send less.",
        )
    answer = http.post(f"{address}/gradio_api/call/code_note", content=b"x" * ((4 << 20) + 1))
    assert answer.status_code == 413


def test_another_website_cannot_use_the_page(address):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        answer = http.post(f"{address}/api/titles", json={"query": "fever"}, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status
    for origin, status in (("http://elsewhere.example", 403), ("null", 403), (address, 200)):
        answer = http.post(f"{address}/api/titles", json={"query": "fever"}, headers={"Origin": origin})
        assert answer.status_code == status


def test_the_page_is_answered_by_the_names_of_this_machine_alone(address, folder):
    for host, status in (("127.0.0.1:80", 200), ("localhost", 200), ("[::1]:7860", 200), ("evil.example:7860", 403)):
        answer = http.get(f"{address}/api/about", headers={"Host": host})
        assert answer.status_code == status
    assert "localhost" in answer.json()["message"]
    app = Gate(lambda *_: None, any_host=True)
    scope = {"type": "http", "path": "/api/about", "method": "GET", "headers": [(b"host", b"icd.example")]}
    assert asyncio.run(app._answer(scope, None)) is None
