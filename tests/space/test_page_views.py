"""Audit, comparison and files of notes; odd inputs; and a server that is busy or gone."""

import csv
import io
import json

import pytest
from visit import NOTE, result_of


ATTACK = """<script>window.attacked = 1</script><img src=x onerror="window.attacked = 2"> fever and cough
</textarea><svg onload="window.attacked = 3"> <b>sepsis</b> {{7*7}} javascript:alert(1) acute renal failure"""
RIGHT_TO_LEFT = "المريض لديه fever و cough\nלחולה אין pneumonia"  # noqa: RUF001


def group(here, title: str) -> list[str]:
    """Codes under a heading, whether or not they can be seen at once."""
    return here.page.eval_on_selector_all(
        f"#results .group:has(h3:text('{title}')) :is(.row, .plain li)",
        "(rows) => rows.map((row) => row.dataset.code ?? row.querySelector('.code').textContent)",
    )


def open_view(here, view: str) -> None:
    here.page.click(f"nav [data-view={view}]")


def audit(here, assigned: str, note: str = NOTE) -> None:
    open_view(here, "audit")
    here.paste(note)
    here.page.fill("#assigned", assigned)
    here.page.click("#run")
    here.page.wait_for_selector("#results .row:visible")


# Audit


def test_an_audit_lists_what_was_missed_and_what_has_no_support(visit, address):
    plain = result_of(address, NOTE)["codes"]
    predicted = [code["code"] for code in plain if code["predicted"]]
    others = [code["code"] for code in plain if not code["predicted"]]
    assigned = [predicted[0], predicted[1], others[0], "Z99.2"]
    result = result_of(address, NOTE, assigned=assigned)
    here = visit()
    audit(
        here,
        f"{assigned[0].replace('.', '').lower()}; {assigned[1]}\n{assigned[2]} (never seen)\tZ99.2,, {assigned[0]}",
    )
    assert group(here, "Likely missed") == [code for code in result["audit"]["missed"] if code in predicted]
    assert group(here, "Next best") == [code for code in result["audit"]["missed"] if code not in predicted]
    assert group(here, "Likely unsupported") == result["audit"]["unsupported"] == [others[0]]
    assert sorted(group(here, "In agreement")) == sorted(assigned[:2])
    assert group(here, "Not known to this model") == ["Z99.2"]
    for code in group(here, "Likely missed")[:1] + group(here, "Likely unsupported"):
        here.select(code)
        assert [mark[1:3] for mark in here.marks()] == [
            tuple(word[:2]) for word in result["by_code"][code]["evidence"]
        ]
    here.page.click(f"[aria-label='Accept {group(here, 'Likely missed')[0]}']")
    assert here.final() == [(group(here, "Likely missed")[0], "accepted")]


# Comparison


def test_two_models_are_compared_side_by_side(visit, address):
    first, second = (result_of(address, NOTE, model) for model in "ab")
    found = [{code["code"] for code in result["codes"] if code["predicted"]} for result in (first, second)]
    assert found[0] & found[1] and found[0] - found[1] and found[1] - found[0]
    here = visit()
    open_view(here, "compare")
    here.paste(NOTE)
    here.page.click("#run")
    here.page.wait_for_selector("#results .line")
    bodies = here.page.eval_on_selector_all(
        "#results tbody",
        "(bodies) => bodies.map((b) => [...b.querySelectorAll('.line')].map((line) => line.dataset.code))",
    )
    assert [set(codes) for codes in bodies] == [found[0] - found[1], found[1] - found[0], found[0] & found[1]]
    code = bodies[2][0]
    line = here.page.locator(f"#results .line[data-code='{code}']")
    assert [text.split("score ")[1][:4] for text in line.locator(".number").all_text_contents()] == [
        f"{result['by_code'][code]['score']:.2f}" for result in (first, second)
    ]
    if line.locator(".pick").get_attribute("aria-pressed") == "false":
        line.locator(".pick").click()
    marks = here.marks()
    for result, layer in ((first, "evidence"), (second, "other")):
        expected = [(start, end) for start, end, _ in result["by_code"][code]["evidence"]]
        assert [mark[1:3] for mark in marks if mark[0].startswith(layer)] == expected


def test_the_codes_of_another_model_are_one_choice_away(visit, address):
    second = result_of(address, NOTE, "b")
    here = visit()
    here.code()
    here.page.select_option("#model", "b")
    expected = {code["code"] for code in second["codes"] if code["predicted"]}
    here.heard(f"{len(expected)} codes predicted")
    assert {row["code"] for row in here.rows()} == expected


# Files of notes


def table_of(notes: list[str]) -> dict:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["note_id", "text"])
    writer.writerows([f"n{i}", note] for i, note in enumerate(notes, start=1))
    return {"name": "my notes.csv", "mimeType": "text/csv", "buffer": lines.getvalue().encode()}


def test_a_file_of_notes_is_coded(visit, address):
    here = visit()
    here.code()  # the note that is coded is still there afterwards
    open_view(here, "batch")
    here.page.set_input_files("#batch-file", table_of([NOTE, "", "fever and cough"]))
    here.page.click("#batch-run")
    here.page.wait_for_selector("#batch-results h3")
    assert here.page.inner_text("#batch-results h3") == "2 notes coded, 1 row not"
    assert here.page.locator(".rejected tbody tr").count() == 1
    with here.page.expect_download() as file:
        here.page.click("text=Download the codes")
    assert file.value.suggested_filename == "my notes-codes.csv"
    rows = list(csv.DictReader(io.StringIO(file.value.path().read_text(encoding="utf-8-sig"))))
    of_first = {row["code"] for row in rows if row["id"] == "n1"}
    assert of_first == {code["code"] for code in result_of(address, NOTE)["codes"] if code["predicted"]}
    assert {row["id"] for row in rows} == {"n1", "n3"}
    open_view(here, "code")
    assert here.rows() and here.page.locator("#note").text_content() == NOTE


def test_a_file_of_notes_shows_its_progress_and_can_be_cancelled(visit):
    here = visit()
    open_view(here, "batch")
    here.page.set_input_files("#batch-file", table_of([NOTE * 20] * 2000))
    here.page.click("#batch-run")
    here.page.wait_for_selector(
        "#batch-progress-text:text-matches('[1-9][0-9,]* of 2,000 notes coded, about .* left')"
    )
    assert 0 < float(here.page.get_attribute("#batch-progress-bar", "value")) < 1
    here.page.click("#batch-cancel")
    here.heard("cancelled")
    assert here.page.locator("#batch-run").is_visible()  # the file is still chosen
    open_view(here, "code")
    here.code()  # and the model is free for others
    assert here.rows()


# Odd inputs


def test_a_note_without_text_and_an_audit_without_codes_get_a_message(visit):
    here = visit()
    for text in ("", " \n\t "):
        here.paste(text)
        here.page.click("#run")
        assert "There is no text to code" in here.message()
        here.page.click("#message >> text=Close")
        assert here.page.locator("#message .message").count() == 0
    open_view(here, "audit")
    here.paste(NOTE)
    here.page.fill("#assigned", "none so far")
    here.page.click("#run")
    assert "no assigned codes" in here.message()


def test_an_odd_note_is_shown_as_the_text_that_it_is(visit):
    """Markup, text from right to left, and control characters."""
    here = visit()
    for note in (ATTACK, RIGHT_TO_LEFT, "\u202efever\u202c \u0000 cough"):
        here.code(note)
        shown = note.translate(dict.fromkeys([0x202E, 0x202C, 0], "\xa4"))  # what acts or is unseen is a mark
        assert here.page.locator("#note").text_content() == shown and len(shown) == len(note)
        assert here.page.locator("#note *").count() == 0
        here.page.wait_for_selector("#note-hint", state="hidden" if shown == note else "visible")
        assert shown == note or "The text holds 3 characters that cannot be seen" in here.page.inner_text("#note-hint")
        for row in here.rows():
            here.select(row["code"])
            assert all(shown[start:end] == words for _, start, end, words in here.marks())
            texts = here.page.locator("#results .word").all_text_contents()
            assert all(text in shown for text in texts)
        here.page.evaluate("document.getSelection().selectAllChildren(document.querySelector('#note'))")
        here.page.wait_for_selector("#speaks li")
        assert here.page.evaluate("window.attacked") is None
        here.page.click("#edit")


def test_a_note_runs_in_the_direction_of_its_language(visit):
    here = visit()
    direction = "(note) => getComputedStyle(note).direction"
    for note, expected in ((RIGHT_TO_LEFT, "rtl"), (NOTE, "ltr")):
        here.paste(note)
        assert here.page.eval_on_selector("#text", direction) == expected
        here.page.click("#run")
        here.page.wait_for_selector("#results .row:visible")
        assert here.page.eval_on_selector("#note", direction) == expected
        here.page.click("#edit")


def test_a_note_of_a_megabyte_gets_a_message_that_says_how_long_it_may_be(visit):
    here = visit()
    here.paste("fever and cough " * 65_536)
    here.page.click("#run")
    assert "characters; at most 200,000" in here.message()
    assert len(here.page.input_value("#text")) == 1 << 20


def test_a_file_that_holds_no_text_gets_one_message_and_what_was_there_is_not_taken_for_its_text(visit):
    here = visit(faults=True)
    files = {"<b>x.bin": bytes(range(256)) * 40, "empty.txt": b"", "sc\u202ean.pdf": b"%PDF-1.4\n%%EOF"}
    here.page.set_input_files("#file", {"name": "empty.txt", "mimeType": "text/plain", "buffer": b""})
    assert here.message().startswith("empty.txt is empty") and here.page.inner_text("#note-source") == ""
    here.paste("what was there")
    for name, content in files.items():
        here.page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
        shown = name.replace("\u202e", "\xa4")
        here.page.wait_for_selector(f"#note-source:text-is('the earlier text, not {shown}')")
        said = here.message()
        assert name.replace("\u202e", "") in said and said.endswith("The text in the box is still the earlier one.")
        assert here.page.locator("#message b").count() == 0
        assert here.page.input_value("#text") == "what was there"
    here.page.set_input_files("#file", {"name": "note.txt", "mimeType": "text/plain", "buffer": b"fever and cough"})
    here.page.wait_for_selector("#note-source:text-is('from note.txt')")
    assert here.page.inner_text("#message") == ""  # a success takes the old message away
    here.paste("typed")
    assert here.page.inner_text("#note-source") == ""


SPANISH = (
    "La paciente presenta fiebre y tos sin dolor en el pecho; se ingresa en la planta con una neumonia de la base. "
)


def test_a_note_in_another_language_than_the_coder_s_gets_a_hint_and_is_coded(visit):
    here = visit()
    here.paste(SPANISH)
    here.page.wait_for_selector("#note-hint:text('This looks like Spanish, and first-coder reads English.')")
    assert "The coder codiesp-es reads Spanish." in here.page.inner_text("#note-hint")
    here.code(SPANISH)
    assert here.page.is_visible("#note-hint")
    here.page.click("#edit")
    for plain in (NOTE * 3, "fiebre y tos", SPANISH + NOTE * 3):  # its own language, too short, and mixed
        here.paste(plain)
        here.page.wait_for_selector("#note-hint", state="hidden")


def test_an_old_message_goes_when_something_else_succeeds(visit):
    here = visit(faults=True)
    here.page.click("#csv")
    assert "accept or add at least one code" in here.message()
    here.code()
    assert here.page.inner_text("#message") == ""
    here.page.route("**/api/export", lambda route: route.abort())
    here.page.click(f"[aria-label='Accept {here.rows()[0]['code']}']")
    here.page.click("#csv")
    assert "does not answer" in here.message()
    here.page.unroute_all()
    with here.page.expect_download():
        here.page.click("#fhir")
    here.page.wait_for_selector("#message:empty", state="attached")
    open_view(here, "batch")
    here.page.set_input_files("#batch-file", {"name": "bad.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"})
    here.page.click("#batch-run")
    assert "text" in here.message() and "Traceback" not in here.message()
    here.page.set_input_files("#batch-file", table_of([NOTE]))
    assert here.page.inner_text("#message") == ""


def test_a_document_is_opened_by_choice_and_by_dropping(visit, tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("Fever and cough.")
    document.add_paragraph("No evidence of <b>pneumonia</b>.")
    document.save(tmp_path / "letter.docx")
    here = visit()
    here.page.set_input_files("#file", tmp_path / "letter.docx")
    here.heard("letter.docx is open")
    assert "No evidence of <b>pneumonia</b>." in here.page.input_value("#text")
    transfer = here.page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["caf\\u00e9 and fever\\r\\n"], "note.txt", { type: "text/plain" }));
            return transfer;
        }"""
    )
    for event in ("dragover", "drop"):
        here.page.dispatch_event("#text", event, {"dataTransfer": transfer})
    here.heard("note.txt is open")
    assert here.page.input_value("#text") == "café and fever\n"


# A server that is busy or gone


def test_a_server_that_is_gone_costs_nothing_that_was_done(visit):
    here = visit(faults=True)
    here.code()
    code = here.rows()[0]["code"]
    here.page.click(f"[aria-label='Accept {code}']")
    here.page.route("**/*", lambda route: route.abort())
    here.page.click("#csv")
    assert "The server does not answer" in here.message()
    here.page.click("#edit")
    here.page.fill("#text", NOTE + "fever")
    here.page.click("#run")
    assert "still here" in here.message()
    assert here.page.input_value("#text") == NOTE + "fever" and here.final() == [(code, "accepted")]
    here.page.unroute("**/*")
    here.page.get_by_role("button", name="Try again").click()
    here.page.wait_for_selector("#results .row:visible")
    # It is another text, so its list is another one; the way back is offered.
    assert here.final() == [] and "The list of the earlier note was cleared" in here.message()


def test_a_page_opened_while_the_server_is_away_comes_to_life_later(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/api/about", lambda route: route.abort())
    page.goto(address)
    page.wait_for_selector("#message >> text=The server does not answer")
    page.fill("#text", NOTE)
    page.unroute("**/api/about")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#version:not(:empty)")
    page.click("#run")
    page.wait_for_selector("#results .row:visible")
    assert page.input_value("#text") == NOTE
    context.close()


BUSY = {"status": "busy", "message": "20 notes are waiting already: try again in a minute."}


def test_a_server_that_is_busy_says_so_and_can_be_asked_again(visit):
    here = visit(faults=True)
    here.page.route(
        "**/gradio_api/call/code_note", lambda route: route.fulfill(status=503, json={"detail": BUSY["message"]})
    )
    here.paste(NOTE)
    here.page.click("#run")
    assert here.message() == BUSY["message"]
    here.page.unroute_all()
    events = f"event: generating\ndata: {json.dumps([BUSY])}\n\nevent: complete\ndata: {json.dumps([BUSY])}\n\n"
    stream = "**/gradio_api/call/code_note/*"
    here.page.route(stream, lambda route: route.fulfill(body=events, content_type="text/event-stream"))
    with here.page.expect_response(stream):
        here.page.get_by_role("button", name="Try again").click()
    assert here.message() == BUSY["message"]
    here.page.unroute_all()
    here.page.get_by_role("button", name="Try again").click()
    here.page.wait_for_selector("#results .row:visible")


def test_who_is_logged_out_meanwhile_can_log_in_and_go_on(visit):
    here = visit(faults=True)
    here.page.route("**/api/titles", lambda route: route.fulfill(status=401, json={"message": "Log in first."}))
    here.page.fill("#search", "fever")
    here.page.wait_for_selector("#search-list >> text=not signed in any more")
    here.page.unroute_all()
    here.page.fill("#search", "fever of")
    here.page.wait_for_selector("#search-list .code")


def test_a_stream_that_breaks_off_is_told(visit):
    here = visit(faults=True)
    events = 'event: generating\ndata: [{"status": "reading", "done": 1, "total": 9}]\n\n'
    here.page.route(
        "**/gradio_api/call/code_note/*", lambda route: route.fulfill(body=events, content_type="text/event-stream")
    )
    here.paste(NOTE)
    here.page.click("#run")
    assert "broke off" in here.message()
    assert here.page.input_value("#text") == NOTE
