"""The page for everybody: keyboard alone, a narrow window, dark colours, and what axe finds."""

from collections import Counter
from types import SimpleNamespace

import pytest
from serving import served
from visit import NOTE, PHONE, Visit, page_weight

from modeling_icd.space.coding import Coder


VIEWS = ("empty", "coded", "selected words", "message", "search", "audit", "compare", "batch", "batch coded")
FOCUS = """() => {
    const element = document.activeElement;
    return element.id || element.getAttribute("aria-label") || element.textContent.trim();
}"""
RING = """() => {
    const shown = document.activeElement.closest("label") ?? document.activeElement;
    return [document.activeElement, shown].some((element) => {
        const style = getComputedStyle(element);
        return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    });
}"""
BATCH = {"name": "notes.csv", "mimeType": "text/csv", "buffer": f'note_id,text\n1,"{NOTE}"\n2,\n'.encode()}


def show(here: Visit, view: str) -> None:
    """Bring a page that was just opened to a view with something in it."""
    page = here.page
    if view in ("coded", "selected words", "message", "search"):
        here.code()
    if view == "coded":
        for label, i in (("Accept", 0), ("Reject", 1)):
            page.click(f"[aria-label='{label} {here.rows()[i]['code']}']")
        page.click("text=/Show \\d+ codes? below/")
    if view == "selected words":
        here.select_words(NOTE.index("acute renal"), len(NOTE) - 1)
        page.wait_for_selector("#speaks li")
    if view == "message":
        page.click("#csv")
        here.message()
    if view == "search":
        page.fill("#search", "diabetis")
        page.wait_for_selector("#search-list [role=option]")
        page.press("#search", "ArrowDown")
    if view in ("audit", "compare", "batch", "batch coded"):
        page.click(f"nav [data-view={view.split()[0]}]")
    if view in ("audit", "compare"):
        here.paste(NOTE)
        if view == "audit":
            page.fill("#assigned", "I10 J18.9 D64.9 Z99.2 R05.9")
        page.click("#run")
        page.wait_for_selector("#results .pick:visible")
    if view == "audit":
        page.click("summary")
    if view.startswith("batch"):
        page.set_input_files("#batch-file", BATCH)
    if view == "batch coded":
        page.click("#batch-run")
        page.wait_for_selector("#batch-results h3")


@pytest.fixture(scope="module", params=VIEWS)
def shown(request, windows, address):
    """A window with a view that the tests may look at, and not change."""
    here = Visit(windows, address)
    show(here, request.param)
    yield here
    here.close()
    here.check()


def serious_faults(here: Visit, options: dict | None = None) -> dict[str, list[str]]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = [
        fault
        for fault in axe.Axe().run(here.page, options=options).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    return {fault["id"]: [node["html"] for node in fault["nodes"]] for fault in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shown, scheme):
    shown.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # or colours on their way are measured
    options = {"runOnly": ["color-contrast"]} if scheme == "dark" else None  # the rest was seen in light colours
    assert serious_faults(shown, options) == {}


@pytest.mark.parametrize("width", [360, 700, 1024])
def test_no_view_scrolls_sideways(shown, width):
    shown.page.set_viewport_size({"width": width, "height": 740})
    inner = shown.page.evaluate("document.scrollingElement.scrollWidth")
    wide = "(parts) => parts.filter((p) => p.checkVisibility() && p.getBoundingClientRect().right > innerWidth + 1).map((p) => p.outerHTML)"
    outside = shown.page.eval_on_selector_all(
        "button, input:not([type=file]), select, textarea, h1, h2, h3, p, .bar", wide
    )
    shown.page.set_viewport_size({"width": 1440, "height": 900})
    assert inner <= width and outside == []


def test_the_login_is_for_everybody(browser, coders):
    """Without the page behind it, which it opens."""
    with served([Coder(coders[0], "a")], accounts={"user": "secret word"}) as (_, address, _):
        window = browser.new_context(viewport={"width": 360, "height": 740})
        page = window.new_page()
        page.goto(address)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert serious_faults(SimpleNamespace(page=page)) == {}
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
        for text in ("user", "\t", "secret word", "\n"):
            page.keyboard.type(text) if text.strip() else page.keyboard.press({"\t": "Tab", "\n": "Enter"}[text])
        page.wait_for_selector("#version:not(:empty)")
        assert page.get_by_role("button", name="Compare").count() == 0 and not page.is_visible(
            "#model"
        )  # of one model
        window.close()


def test_on_a_phone_the_words_of_a_code_are_seen_beside_it(visit):
    here = visit(**PHONE, reduced_motion="reduce")
    here.code(NOTE * 12)
    here.row(here.rows()[-1]["code"]).locator(".pick").tap()
    shown = """() => [document.querySelector("#note"), document.querySelector(".row.selected .pick")].map((part) => {
        const box = part.getBoundingClientRect();
        return box.bottom > 0 && box.top < innerHeight && document.elementFromPoint(box.x + 30, box.y + 12).closest("#note, .pick") === part;
    })"""
    assert here.page.evaluate(shown) == [True, True]
    assert here.marks()


BOX = "(part) => (({ left, right, top, bottom, height }) => ({ left, right, top, bottom, height }))(part.getBoundingClientRect())"


def test_the_banner_is_low_on_a_phone_and_folds(visit):
    here = visit(viewport={"width": 360, "height": 740})
    banner = here.page.locator(".banner")
    folded = banner.evaluate(BOX)["height"]
    assert folded <= 120 and not here.page.is_visible("#banner")
    here.page.click(".banner summary")
    assert here.page.is_visible("#banner") and banner.evaluate(BOX)["height"] > folded
    here.page.click("nav [data-view=batch]")
    assert here.page.is_visible("#banner")  # it stays as a person left it
    here.page.click(".banner summary")
    here.page.click("nav [data-view=code]")
    assert not here.page.is_visible("#banner")
    assert visit().page.is_visible("#banner")  # in a wide window it is open at first


@pytest.mark.parametrize("width", [360, 1024])
def test_the_way_to_a_final_list_that_is_out_of_sight_is_always_seen(visit, width):
    here = visit(viewport={"width": width, "height": 740}, reduced_motion="reduce")
    here.code()
    assert not here.page.is_visible("#to-final")
    for count, row in enumerate(here.rows()[:2], start=1):
        here.page.click(f"[aria-label='Accept {row['code']}']")
        here.page.evaluate("scrollTo(0, 0)")
        here.page.wait_for_selector(f"#to-final:text-is('Final list: {count} code{'s' * (count > 1)}')")
        box = here.page.locator("#to-final").evaluate(BOX)
        assert box["left"] >= 0 and box["right"] <= width and box["bottom"] <= 740
        here.heard(f"The final list has {count} code")
    here.page.press("#to-final", "Enter")
    here.page.wait_for_selector("#to-final", state="hidden")
    assert here.page.evaluate("document.activeElement.id") == "final-heading"
    assert 0 <= here.page.locator("#final-heading").evaluate(BOX)["top"] < 740


def test_on_a_phone_a_row_keeps_code_and_score_on_one_line(visit):
    here = visit(viewport={"width": 360, "height": 740})
    here.page.click("nav [data-view=audit]")
    here.paste(NOTE)
    here.page.fill("#assigned", "I10 J18.9 D64.9 02HV33Z R05.9")
    here.page.click("#run")
    here.page.wait_for_selector("#results .pick:visible")
    assert here.page.locator("#results .row:visible .tag").count() >= 2
    for row in here.page.locator("#results .row:visible").all():
        code, score, bar = (row.locator(part).evaluate(BOX) for part in (".code", ".score .number", ".bar"))
        assert code["top"] < score["bottom"] and score["top"] < code["bottom"] and code["right"] <= bar["left"]
        assert score["height"] < 30
        for tag in row.locator(".tag, .state").all():
            assert tag.evaluate(BOX)["height"] < 26  # on one line


def test_dark_colours_follow_the_system(visit):
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    page = visit(color_scheme="light").page
    light = page.evaluate(colours)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colours)

    def lightness(colour: str) -> int:
        return sum(int(part) for part in colour[4:-1].split(","))

    assert lightness(light[0]) > lightness(light[1]) and lightness(dark[0]) < lightness(dark[1])


def test_forced_colours_keep_scores_states_and_marks(visit):
    here = visit(forced_colors="active")
    here.code()
    bar = here.page.locator("#results .row .bar").first
    assert bar.evaluate("(bar) => getComputedStyle(bar).backgroundImage") != "none"
    assert here.marks() and here.page.locator("#results .row .state").first.inner_text().strip()
    assert here.page.evaluate(
        "['outlineStyle', 'outlineWidth'].map((name) => getComputedStyle(document.querySelector('.row.selected'))[name])"
    ) == ["solid", "2px"]


def tab_to(here: Visit, goal: str, back: bool = False) -> None:
    """Press Tab until an element has the focus; it must be seen to have it."""
    passed = []
    for _ in range(40):
        here.page.keyboard.press("Shift+Tab" if back else "Tab")
        passed.append(here.page.evaluate(FOCUS))
        if passed[-1] == goal:
            assert here.page.evaluate(RING), f"nothing shows that {goal} has the focus"
            return
    raise AssertionError(f"Tab never reaches {goal!r}, but {passed}")


def test_everything_can_be_done_by_the_keyboard_alone(visit):
    here = visit()
    keyboard = here.page.keyboard
    keyboard.press("Tab")
    assert here.page.evaluate(FOCUS) == "Skip to the note"
    keyboard.press("Enter")
    tab_to(here, "text")
    keyboard.insert_text(NOTE)
    tab_to(here, "run")
    keyboard.press("Enter")
    here.page.wait_for_selector("#results .row:visible")
    rows = here.rows()
    here.page.wait_for_selector(f".row.selected[data-code='{rows[0]['code']}'] .pick:focus")
    keyboard.press("ArrowDown")
    assert here.page.locator(f".row.selected[data-code='{rows[1]['code']}'] .pick:focus").count() == 1 and here.marks()
    keyboard.press("a")
    keyboard.press("ArrowDown")
    keyboard.press("r")
    assert here.final() == [(rows[1]["code"], "accepted")]
    keyboard.press("Control+z")
    keyboard.press("Tab")
    assert here.page.evaluate(FOCUS) == f"Accept {rows[2]['code']}"  # one row is in reach of Tab, and not all of them
    keyboard.press("Space")
    assert here.final() == [(rows[1]["code"], "accepted"), (rows[2]["code"], "accepted")]
    tab_to(here, "threshold", back=True)
    keyboard.press("End")
    assert "0.99" in here.page.inner_text(".threshold output")
    keyboard.press("Home")
    assert "0.00" in here.page.inner_text(".threshold output")
    here.page.get_by_role("button", name="As the model decides").press("Enter")
    assert "as the model decides" in here.page.inner_text(".threshold output")
    tab_to(here, "search")
    keyboard.type("unspecified athsma uncomplicated")
    here.page.wait_for_selector("#search-list [role=option] .code")
    keyboard.press("ArrowDown")
    active = here.page.get_attribute("#search", "aria-activedescendant")
    added = here.page.inner_text(f"#{active} .code")
    keyboard.press("Enter")
    assert (added, "added") in here.final()
    tab_to(here, "csv")
    with here.page.expect_download() as file:
        keyboard.press("Enter")
    assert file.value.path().stat().st_size > 20


def test_words_are_selected_by_the_keyboard(visit):
    here = visit()
    here.code()
    tab_to(here, "note", back=True)
    here.page.keyboard.press("Control+Home")
    for _ in range(4):
        here.page.keyboard.press("Control+Shift+ArrowRight")
    here.page.wait_for_selector("#speaks li")
    assert here.page.inner_text("#speaks q").startswith("The patient has")
    tab_to(here, here.page.get_attribute("#speaks li button", "aria-label"))
    here.page.keyboard.press("Enter")
    assert here.page.locator(".row.selected").count() == 1


def test_what_happens_is_said_to_those_who_hear_the_page(visit):
    here = visit()
    here.code()
    here.heard("codes predicted in")
    here.page.click(f"[aria-label='Accept {here.rows()[0]['code']}']")
    here.heard("The final list has 1 code.")
    assert (
        here.page.get_attribute("#message", "role") == "alert"
        and here.page.get_attribute("#status", "role") == "status"
    )
    landmarks = here.page.eval_on_selector_all(
        "header, nav, main, aside, footer", "(parts) => parts.map((p) => p.tagName)"
    )
    assert Counter(landmarks) == Counter(["HEADER", "NAV", "ASIDE", "MAIN", "FOOTER"])


def test_the_page_is_small_and_whole(visit):
    """All of it together, as it goes over the line, is less than one photograph."""
    here = visit()
    weight = page_weight(here)
    print(f"the page: {len(weight)} files, {sum(weight.values()) / 1000:.0f} kB")
    assert len(weight) > 10 and all(weight.values()) and sum(weight.values()) < 125_000


def test_who_has_logged_in_can_log_out(browser, coders):
    with served([Coder(coders[0], "a")], {"anna": "secret"}) as (_, address, _server):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.fill("[name=user]", "anna")
        page.fill("[name=password]", "secret")
        page.press("[name=password]", "Enter")
        page.click("text=Log out")
        page.wait_for_selector("[name=password]")
        page.goto(address)
        assert page.url.endswith("/login")
        context.close()
