"""One note on the page: coded, looked at, decided on, and downloaded."""

import csv
import gc
import io
import json
import re
import time

import pytest
from visit import NOTE, Visit, result_of


def weight_class(weight: float) -> int:
    """Weights are shown in five steps of a fifth each."""
    return max(1, -int(-weight * 5 // 1))


def expected_marks(code: dict, layer: str = "evidence") -> list[tuple[str, int, int]]:
    return [(f"{layer}-{weight_class(weight)}", start, end) for start, end, weight in code["evidence"]]


def without_words(marks) -> list[tuple[str, int, int]]:
    return [mark[:3] for mark in marks]


@pytest.fixture(scope="module")
def result(address):
    """What the server says of the note; the codes of the first model."""
    return result_of(address, NOTE)


def test_a_pasted_note_gets_the_codes_of_the_model(visit, result):
    here = visit()
    here.code()
    rows = here.rows()
    predicted = [code for code in result["codes"] if code["predicted"]]
    assert {code["decision"] for code in predicted} == {"confident", "review"}  # else this test would see little
    assert {code["kind"] for code in predicted} == {"diagnosis", "procedure"}
    shown = [(row["code"], row["score"], row["state"], row["title"], row["kind"]) for row in rows]
    in_order = sorted(predicted, key=lambda code: code["kind"])  # diagnoses stand before procedures
    assert shown == [(c["code"], f"{c['score']:.2f}", c["decision"], c["title"], c["kind"]) for c in in_order]
    assert all(row["word"] == row["state"] for row in rows)  # as a word, too, and not by colour alone
    assert here.page.locator("#results .row .shape").count() >= len(rows)
    assert here.page.inner_text("#codes-size") == str(len(predicted))


def test_a_selected_code_marks_its_words_where_the_offsets_say(visit, result):
    here = visit()
    here.code()
    assert here.row(here.rows()[0]["code"]).locator(".pick").get_attribute("aria-pressed") == "true"  # at once
    for row in here.rows():
        here.select(row["code"])
        code = result["by_code"][row["code"]]
        marks = here.marks()
        assert without_words(marks) == expected_marks(code)
        assert all(NOTE[start:end] == words for _, start, end, words in marks)
        heaviest = max(code["evidence"], key=lambda word: word[2])
        first = here.row(row["code"]).locator(".word").first
        assert first.inner_text() == NOTE[heaviest[0] : heaviest[1]].strip(".,")
    here.row(row["code"]).locator(".pick").click()
    assert here.marks() == []


def test_marks_of_a_note_beyond_the_basic_plane_lie_on_its_words(visit, address):
    note = "🩺🩺 patient 👩‍⚕️ has fever 🤒🤒 and cough\r\nאין חום patient failure 🫀 acute é renal"  # noqa: RUF001
    shown = note.replace("\r\n", "\n")
    result = result_of(address, shown)
    here = visit()
    here.code(note)
    assert here.page.locator("#note").text_content() == shown
    seen = set()
    for row in here.rows():
        here.select(row["code"])
        assert without_words(here.marks()) == expected_marks(result["by_code"][row["code"]])
        seen |= {words for *_, words in here.marks()}
    assert seen & {"fever", "cough", "failure", "renal", "acute", "patient"}
    assert not any(re.search(r"\s", words) for words in seen)


def test_the_first_strong_word_is_scrolled_into_view(visit, address):
    note = "of the out " * 900 + NOTE
    result = result_of(address, note)
    here = visit(reduced_motion="reduce")
    here.code(note)
    inside = """([start, end]) => {
        const range = document.createRange();
        const node = document.querySelector("#note").firstChild;
        range.setStart(node, start);
        range.setEnd(node, end);
        const [word, box] = [range, document.querySelector("#note")].map((part) => part.getBoundingClientRect());
        return word.top >= box.top && word.bottom <= box.bottom;
    }"""
    for row in here.rows():
        here.page.evaluate("document.querySelector('#note').scrollTop = 0")
        here.row(row["code"]).locator(".pick").press("Enter")
        here.select(row["code"])
        first = next(word for word in result["by_code"][row["code"]]["evidence"] if word[2] >= 0.5)
        assert here.page.evaluate(inside, first[:2])


def test_the_threshold_moves_at_once_and_without_the_server(visit, result):
    here = visit()
    here.code()
    as_decided = here.rows()
    asked = len(here.requests)
    slider = here.page.locator("#threshold")
    assert slider.get_attribute("aria-valuetext") == "as the model decides"
    assert slider.input_value() == "50"  # the model's own
    for key, value in (("ArrowRight", "0.51"), ("ArrowLeft", "0.50"), ("ArrowLeft", "0.49")):
        slider.press(key)
        assert here.page.inner_text(".threshold output") == value
    counts = []
    for value in (1, 40, 80, 97):
        slider.fill(str(value))
        expected = {code["code"] for code in result["codes"] if code["score"] > value / 100}
        selected = set(here.page.eval_on_selector_all(".row.selected", "(rows) => rows.map((r) => r.dataset.code)"))
        assert {row["code"] for row in here.rows() if row["state"] != "below"} == expected
        assert {row["code"] for row in here.rows()} <= expected | selected
        counts.append(len(expected))
    assert counts[0] > counts[-1] > 0
    here.page.click("text=As the model decides")
    assert here.rows() == as_decided
    here.page.click("text=/Show \\d+ codes below the threshold/")
    assert {row["code"] for row in here.rows()} == set(result["by_code"])
    assert len(here.requests) == asked


def test_codes_are_accepted_rejected_added_undone_and_downloaded(visit, result):
    here = visit()
    here.code()
    first, second, third = [row["code"] for row in here.rows()][:3]
    here.page.click(f"[aria-label='Accept {first}']")
    here.page.click(f"[aria-label='Reject {second}']")
    here.page.click(f"[aria-label='Accept {third}']")
    assert here.final() == [(first, "accepted"), (third, "accepted")]
    assert {row["code"]: row["status"] for row in here.rows()}[second] == "rejected"
    here.page.keyboard.press("Control+z")
    here.page.click("#undo")
    assert here.final() == [(first, "accepted")]
    assert {row["code"]: row["status"] for row in here.rows()}[second] == ""
    here.page.click("#redo")
    here.page.keyboard.press("Control+Shift+z")
    assert here.final() == [(first, "accepted"), (third, "accepted")]
    here.page.click(f"[aria-label='Remove {third}']")
    here.page.fill("#search", "migrane with aura not intractible without status migrainosus")  # two mistakes
    here.page.wait_for_selector("#search-list [role=option]")
    added = here.page.inner_text("#search-list [role=option] >> nth=0 >> .code")
    assert added.startswith("G43")
    here.page.press("#search", "ArrowDown")
    here.page.press("#search", "Enter")
    assert here.final() == [(first, "accepted"), (added, "added")]
    table, bundle = download(here, "csv"), json.loads(download(here, "fhir"))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["code"], row["status"]) for row in rows] == here.final()
    assert rows[0]["title"] == result["by_code"][first]["title"] and "Migraine" in rows[1]["title"]
    assert (
        float(rows[0]["score"]) == pytest.approx(result["by_code"][first]["score"], abs=1e-4)
        and rows[1]["score"] == ""
    )
    assert bundle["resourceType"] == "Bundle"
    codings = [entry["resource"]["code"]["coding"][0] for entry in bundle["entry"]]
    assert [coding["code"] for coding in codings] == [first, added]

    def verified(sent):
        return sent["entry"][0]["resource"]["verificationStatus"]["coding"][0]["code"]

    assert verified(bundle) == "provisional"
    here.page.check("#confirmed")
    assert verified(json.loads(download(here, "fhir"))) == "confirmed"
    assert codings[1]["system"] == "http://hl7.org/fhir/sid/icd-10-cm"


def download(here, kind: str) -> str:
    with here.page.expect_download() as file:
        here.page.click(f"#{kind}")
    assert file.value.suggested_filename == {"csv": "codes.csv", "fhir": "codes.fhir.json"}[kind]
    return file.value.path().read_text(encoding="utf-8-sig")


def test_selected_words_say_which_codes_they_speak_for(visit, result):
    here = visit()
    here.code()
    start, end = NOTE.index("acute renal"), NOTE.index("acute renal") + len("acute renal failure")
    here.select_words(start, end)
    here.page.wait_for_selector("#speaks li")
    shares = {
        code["code"]: sum(w for s, e, w in code["evidence"] if s < end and e > start)
        / sum(w for *_, w in code["evidence"])
        for code in result["codes"]
    }

    def said(part: str) -> list[tuple[str, ...]]:
        read = """(items) => items.map((item) => ['.code', '.number', '.share'].map((part) => item.querySelector(part)
            .lastChild.data))"""
        return [tuple(item) for item in here.page.eval_on_selector_all(f"#speaks {part}", read)]

    spoken = sorted((code for code, share in shares.items() if share >= 0.05), key=lambda code: -shares[code])
    by_code = result["by_code"]
    above, below = (
        [
            (code, f"{by_code[code]['score']:.2f}", f"{int(shares[code] * 100 + 0.5)} % of its evidence")
            for code in spoken
            if by_code[code]["predicted"] == is_predicted
        ][:6]
        for is_predicted in (True, False)
    )
    assert said("> ul > li") == above and said("details li") == below and above and below
    assert not here.page.locator("#speaks details li").first.is_visible()  # the weak ones are folded away
    here.page.click("#speaks summary")
    assert "below threshold" in here.page.get_attribute("#speaks details li button >> nth=0", "aria-label")
    here.page.click("#speaks li button >> nth=0")
    assert here.page.locator(f".row.selected[data-code='{above[0][0]}']").is_visible()
    assert said("> ul > li") == above  # still there, to try the next one
    white = NOTE.index("\n\n")
    here.select_words(white, white + 1)
    here.page.wait_for_selector("#speaks :text('speaks for no code')")


def test_going_back_to_the_text_loses_nothing(visit):
    here = visit()
    here.code()
    code = here.rows()[0]["code"]
    here.page.click(f"[aria-label='Accept {code}']")
    here.page.click("#edit")
    assert here.page.input_value("#text") == NOTE
    asked = len(here.requests)
    here.page.click("#run")  # the same text: nothing is asked again
    here.page.wait_for_selector("#results .row:visible")
    assert len(here.requests) == asked and here.final() == [(code, "accepted")]
    here.page.click("#new")
    assert here.page.input_value("#text") == "" and here.final() == []
    here.page.click("#undo")
    assert here.page.input_value("#text") == NOTE and here.final() == [(code, "accepted")]


def test_the_note_on_show_cannot_be_changed(visit):
    here = visit()
    here.code()
    here.page.click("#note")
    here.page.keyboard.type("changed")
    for keys in ("Backspace", "Enter", "Control+b", "Control+x", "Control+v"):
        here.page.keyboard.press(keys)
    assert here.page.locator("#note").text_content() == NOTE
    here.row(here.rows()[0]["code"]).locator(".pick").press("Enter")
    assert here.page.locator("#note").inner_html() == NOTE  # one piece of text, and no element


def test_coding_can_be_cancelled_and_started_again(visit, busy_model):
    here, other = visit(), visit()
    here.paste(NOTE)
    here.page.click("#run")
    here.page.wait_for_selector("#progress-text:has-text('reading')")
    other.paste(NOTE)
    other.page.click("#run")
    other.page.wait_for_selector("#progress-text:has-text('Waiting: 1 note before yours')")
    here.page.click("#cancel")
    here.heard("Coding was cancelled")
    assert here.page.input_value("#text") == NOTE and not here.rows()
    other.page.wait_for_selector("#progress-text:has-text('reading')")  # its turn has come
    busy_model.set()
    other.page.wait_for_selector("#results .row:visible")
    here.code()
    assert here.rows()


def test_a_page_that_is_closed_frees_its_place_and_leaves_nothing_in_the_log(windows, server, busy_model, caplog):
    page, address = server
    here = Visit(windows, address)
    here.paste(NOTE)
    here.page.click("#run")
    here.page.wait_for_selector("#progress-text:has-text('reading')")
    assert len(page.line) == 1
    here.page.context.close()
    for _ in range(200):
        if not len(page.line):
            break
        time.sleep(0.05)
    assert len(page.line) == 0
    busy_model.set()
    page.thread.submit(gc.collect).result(timeout=20)  # after whatever was to be read
    time.sleep(0.1)
    gc.collect()
    assert [record.name for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_an_example_is_one_click_and_undo_brings_the_text_back(visit):
    here = visit()
    here.paste("mine")
    here.page.click("#examples button >> nth=0")
    assert len(here.page.input_value("#text").split()) > 50
    here.page.click("#undo")
    assert here.page.input_value("#text") == "mine"


WITHOUT_RANGES = "delete window.Highlight"
FRAMES = """async ([pick]) => {
    const frame = () => new Promise(requestAnimationFrame);
    const times = [];
    for (let i = 0; i < 5; i++) {
        const start = performance.now();
        pick.click();
        await frame();
        await frame();
        times.push(performance.now() - start);
    }
    return times.sort((one, other) => one - other);
}"""


def time_marking(here) -> None:
    """10,000 words: milliseconds from the click on a code to the frame after the one with its marks."""
    note = "\n".join([NOTE.strip()] * (10_000 // len(NOTE.split()) + 1))
    here.code(note)
    times = here.row(here.rows()[1]["code"]).locator(".pick").evaluate_all(FRAMES)
    print(f"marking a note of {len(note.split()):,} words: median {times[2]:.0f} ms, longest {times[-1]:.0f} ms")
    assert times[2] < 300


def test_marking_a_long_note_is_quick(visit):
    time_marking(visit())


def test_a_browser_without_ranges_shows_the_same_marks_as_quickly(visit, result):
    here = visit(script=WITHOUT_RANGES)
    here.code()
    for row in here.rows():
        here.select(row["code"])
        marks = here.page.eval_on_selector_all(
            "#note mark", "(marks) => marks.map((m) => [m.className, m.textContent])"
        )
        code = result["by_code"][row["code"]]
        assert marks == [[name, NOTE[start:end]] for name, start, end in expected_marks(code)]
        assert here.page.locator("#note").text_content() == NOTE
    here.page.click("#edit")
    time_marking(here)


OTHER = "Another patient has cough.\n"


@pytest.mark.parametrize("way", ["edit", "example"])
def test_the_list_of_one_note_is_not_that_of_the_next(visit, way):
    here = visit()
    here.code()
    code = here.rows()[0]["code"]
    here.page.click(f"[aria-label='Accept {code}']")
    here.page.click("#edit")
    if way == "edit":
        here.code(OTHER)
    else:
        here.page.click("#examples button >> nth=0")
        here.page.click("#run")
        here.page.wait_for_selector("#results .row:visible")
    assert here.message() == "The list of the earlier note was cleared." and here.final() == []
    coded = here.page.input_value("#text")
    here.page.click("#message >> text=Undo")
    assert here.page.text_content("#note") == NOTE and here.final() == [(code, "accepted")] and here.rows()
    here.page.click("#redo")
    assert here.page.text_content("#note") == coded and here.final() == [] and here.rows()


def test_undo_and_redo_lose_no_note(visit):
    here = visit()
    here.code()
    here.page.click("#new")
    here.code(OTHER)
    code = here.rows()[0]["code"]
    here.page.click("#undo")
    assert here.page.text_content("#note") == NOTE and here.rows()
    here.page.click("#redo")
    assert here.page.text_content("#note") == OTHER and here.rows()
    here.page.click("#undo")
    here.page.click(f"[aria-label='Accept {code}']")  # nothing is left to redo, and the other note is still there
    here.page.click("#undo")
    here.page.click("#undo")
    assert here.page.text_content("#note") == OTHER


def test_a_category_is_marked_and_taken_only_after_a_question(visit, result):
    """One that is searched for, and one that the model suggests."""
    here = visit()
    here.page.fill("#search", "I50")
    here.page.click("#search-list [role=option]:has-text('category, not billable') >> nth=0")
    assert "I50 is a category and cannot be billed" in here.message() and here.final() == []
    here.page.click("nav [data-view=batch]")
    assert here.page.inner_text("#message") == ""  # a message does not outlive what it was about
    here.page.click("nav [data-view=code]")
    said = {key: value for key, value in result.items() if key != "by_code"}
    first, second = [code["code"] for code in said["codes"] if code["predicted"]][:2]
    said["codes"] = [{**code, "heading": code["code"] == first} for code in said["codes"]]

    def told() -> str:
        return f"event: complete\ndata: {json.dumps([{'status': 'done', 'result': said}])}\n\n"

    here.page.route(
        "**/gradio_api/call/code_note/*",
        lambda route: route.fulfill(body=told(), content_type="text/event-stream"),
    )
    here.code()
    assert here.page.locator("#results .category").count() == 1
    assert "category, not billable" in here.row(first).locator(".pick").inner_text()
    here.row(first).locator(".pick").press("a")
    assert f"{first} is a category" in here.message() and here.final() == []
    here.page.click(f"[aria-label='Accept {second}']")
    assert here.page.inner_text("#message") == "" and here.final() == [(second, "accepted")]
    here.page.click(f"[aria-label='Accept {first}']")
    here.page.click("text=Take it all the same")
    assert (first, "accepted") in here.final()
    assert here.page.locator("#final .category").count() == 1
    # A model that was trained on categories: they are what it is asked for, and keep their mark.
    said["codes_categories"] = True
    here.page.reload()
    here.code()
    here.row(first).locator(".pick").press("a")
    assert here.final() == [(first, "accepted")] and here.page.inner_text("#message") == ""
    assert here.page.locator("#final .category").count() == 1
