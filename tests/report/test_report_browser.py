"""The report's page in Chromium: it asks nobody, fits a phone, and its steps open and close."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pytest
from test_page import write_inputs, write_report

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = browsing.marks


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    write_report(write_inputs(root), root)
    return root / "report.html"


@pytest.fixture(params=[(size, theme) for size in SIZES for theme in ("light", "dark")])
def page(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    """The page at one size and in one theme; what it asked for and said is checked at the end."""
    size, theme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size == "phone"
    )
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_file.as_uri())
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert said == []
    context.close()


@pytest.fixture
def expect() -> Any:
    return pytest.importorskip("playwright.sync_api").expect


def test_a_step_opens_and_closes(page: Any, expect: Any) -> None:
    steps, opened = page.locator("button.t"), page.locator("[popover]:popover-open")
    steps.nth(1).click()
    expect(opened).to_have_count(1)
    expect(opened).to_contain_text("Step 1: &")
    expect(opened).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    steps.nth(0).focus()
    page.keyboard.press("Enter")
    expect(opened).to_contain_text("Step 0: <b>")
    page.mouse.click(5, 5)
    expect(opened).to_have_count(0)


def test_one_step_is_open_at_a_time(page: Any, expect: Any) -> None:
    opened = page.locator("[popover]:popover-open")
    for step in (0, 4):
        page.locator("button.t").nth(step).evaluate("button => button.click()")
        expect(opened).to_have_count(1)


def test_nothing_is_wider_than_the_window(page: Any) -> None:
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0


BROKEN_WORDS = """() => {
  const broken = [];
  for (const cell of document.querySelectorAll("th, td:not(.scores td)")) {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let text = walk.nextNode(); text; text = walk.nextNode())
      for (const word of text.data.matchAll(/[\\w.,%+-]+/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const tops = [...range.getClientRects()].map(line => Math.round(line.top));
        if (new Set(tops).size > 1) broken.push(word[0]);
      }
  }
  return broken;
}"""
"""Words in tables that stand on more than one line."""


def test_no_cell_breaks_inside_a_word(page: Any) -> None:
    page.locator("button.t").nth(1).click()
    assert page.evaluate(BROKEN_WORDS) == []


def test_a_curve_says_its_numbers_under_the_pointer(page: Any) -> None:
    says = "strip => getComputedStyle(strip, '::after').content"
    for text in ("update 10: loss 1.53, mean 1.53, held out 0.8 nats", "update 20: "):
        strip = page.locator(f"[data-text^='{text}']")
        assert strip.evaluate(says) == "none"
        strip.hover()
        assert text in strip.evaluate(says)
    assert page.locator("figure [data-text]").count() == 21 + 41


def test_changed_problems_open_and_can_be_filtered_by_set(page: Any, expect: Any) -> None:
    listed = page.locator("details[class]")
    count = listed.count()
    last = listed.last
    for is_open in (False, True):
        last.locator("summary").click()
        expect(last.locator("article")).to_be_visible(visible=is_open)
    page.get_by_role("radio", name="transfer").check()
    shown = [each for each in listed.all() if each.is_visible()]
    assert 0 < len(shown) < count
    assert all("transfer/" in each.locator("summary").inner_text() for each in shown)
    page.get_by_role("radio", name="all sets").check()
    assert sum(each.is_visible() for each in listed.all()) == count


def test_changed_problems_can_be_searched(page: Any, expect: Any) -> None:
    """In what is closed too, within the set that is shown, and regardless of case."""
    listed, box = page.locator("details[class]"), page.get_by_role("searchbox")
    found = page.locator("#search output")
    count = listed.count()
    page.locator("details[class][open] summary").first.click()
    for wanted, shown in (("0 & 2 < 5?", 1), ("<B>1</b> \\boxed", 2), ("no such text", 0)):
        box.fill(wanted)
        assert sum(each.is_visible() for each in listed.all()) == shown
        expect(found).to_have_text(f"{shown} found")
    box.fill("boxed{5}")
    assert sum(each.is_visible() for each in listed.all()) > 1
    page.get_by_role("radio", name="transfer").check()
    expect(found).to_have_text("1 found")
    page.get_by_role("radio", name="all sets").check()
    box.fill("")
    expect(found).to_have_text("")
    assert sum(each.is_visible() for each in listed.all()) == count


def test_without_scripts_there_is_no_search_box(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.get_by_role("radio", name="transfer").is_visible()
    assert not page.get_by_role("searchbox").is_visible()
    context.close()
