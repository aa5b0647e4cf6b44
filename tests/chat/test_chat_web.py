"""The web page in real headless Chromium: upload, ask, stream, second turn, bad files, scripts as text, phone width.

pytest tests/chat/test_chat_web.py                                     needs Chromium: apt-get install chromium, or
                                                                  playwright install chromium
RNAGPT_SCREENSHOTS=folder pytest tests/chat/test_chat_web.py           leaves pictures to look at
"""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest
from test_chat import LET7, TRNA, TYPE, YEAST, said_directly, user_turn

from rnagpt.chat.web import LAUNCH, Page
from rnagpt.serving.confidence import Evidence
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Engine
from rnagpt.serving.worker import Worker
from rnagpt_core.safe_text import printable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = "<img src=x onerror=window.attacked=1><script>window.attacked=1</script>"
WAIT = 120_000  # ms


@pytest.fixture(scope="module")
def address(tiny_model, tmp_path_factory):
    with Worker(Engine(*tiny_model)) as worker:
        page = Page(worker, [], Sampling(12), Evidence(), tmp_path_factory.mktemp("saved")).build()
        _, address, _ = page.launch(**LAUNCH | {"max_file_size": 1_000_000})
        yield address
        page.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no Chromium here: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page at a desk's width, no visitor before; errors of its scripts fail the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address, timeout=WAIT)
    page.locator("#question textarea").wait_for(timeout=WAIT)
    yield page
    assert errors == []
    page.close()


def picture(page, name: str) -> None:
    """A screenshot, where one is wanted."""
    if folder := os.environ.get("RNAGPT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def upload(page, tmp_path, content: str | bytes, name: str = "rna.fa") -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    page.locator("#upload input[type=file]").set_input_files(path)


def ask(page, question: str, turn: int) -> str:
    """Type a question, press Enter, wait for the answer; `turn` counts questions from 1."""
    # what stands beside the answer before goes when this one begins, but a bubble is there earlier ("Loading content")
    page.evaluate("() => document.querySelectorAll('#beside p').forEach(p => { p.dataset.old = 1; })")
    page.locator("#question textarea").fill(question)
    page.keyboard.press("Enter")
    answers = page.locator("#chat .bot.message, #chat .message.bot")
    page.wait_for_function(
        "n => document.querySelectorAll('#chat .bot.message, #chat .message.bot').length >= n", arg=turn, timeout=WAIT
    )
    page.locator("#beside p:not([data-old])").first.wait_for(timeout=WAIT)
    return answers.nth(turn - 1).inner_text().strip()


def squeezed(text: str) -> str:
    """A text without its white space, which a browser may break otherwise."""
    return "".join(text.split())


def test_upload_ask_and_a_second_turn(tiny_model, page, tmp_path):
    upload(page, tmp_path, f">tRNA-Phe yeast\n{TRNA.sequence}\n>let-7\n{LET7.sequence}\n")
    card = page.locator("#card")
    card.get_by_text("76 nt").wait_for(timeout=WAIT)
    assert "tRNA-Phe yeast" in card.inner_text() and "54%" in card.inner_text()
    assert card.locator("svg.fold .nucleotide:not(.end)").count() == 76
    turns = [user_turn(TYPE, TRNA)]
    first = said_directly(tiny_model, turns, 12)
    assert squeezed(ask(page, TYPE, 1)) == squeezed(printable(first))
    turns += [{"role": "assistant", "content": first}, user_turn(YEAST)]
    assert squeezed(ask(page, YEAST, 2)) == squeezed(printable(said_directly(tiny_model, turns, 12)))
    assert "confidence" in page.locator("#beside").inner_text()
    assert "Closest known RNAs" in page.locator("#beside").inner_text()
    picture(page, "desk")
    with page.expect_download(timeout=WAIT) as download:
        page.locator("#save-json").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert [turn["role"] for turn in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["rnas"][0]["sequence"] == TRNA.sequence


def test_it_streams(page):
    page.get_by_role("button", name="tRNA-Phe").click()
    page.locator("#card").get_by_text("76 nt").wait_for(timeout=WAIT)
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
             const all = document.querySelectorAll('#chat .bot.message, #chat .message.bot');
             if (all.length) window.seen.push(all[all.length - 1].innerText.trim());
           }).observe(document.querySelector('#chat'), {subtree: true, childList: true, characterData: true}); }"""
    )
    whole = ask(page, TYPE, 1)
    seen = page.evaluate("() => window.seen")
    parts = {text for text in seen if text and text != whole and squeezed(whole).startswith(squeezed(text))}
    assert len(parts) >= 2, seen


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (">P1 insulin\nMALWMRLLPL\n", "protein.fa", "protein.fa, line 2: record P1: 'L' at position 3"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "picture.png", "picture.png is a binary file"),
        (gzip.compress(b">a\n" + b"A" * 30_000_000), "bomb.fa.gz", "holds more than 10,000,000 bytes"),
        ("".join(f">r{i}\nACGU\n" for i in range(10_000)), "many.fa", "holds 10,000 records, more than 1,000"),
        (f">{SCRIPT}\nMALW\n", "script.fa", "record <img: 'L' at position 3"),
        ("", "empty.fa", "empty"),
    ],
)
def test_a_bad_file_is_one_sentence(page, tmp_path, content, name, sentence):
    upload(page, tmp_path, content, name)
    alert = page.locator("[role=alert]", has_text=sentence)
    alert.first.wait_for(timeout=WAIT)
    assert page.evaluate("() => window.attacked") is None
    picture(page, f"bad-{name}")


def test_of_a_file_with_an_rna_too_long_another_can_be_chosen(page, tmp_path):
    upload(page, tmp_path, f">genome\n{'A' * 100_000}\n>tRNA\n{TRNA.sequence}\n")
    sentence = "record genome has 100,000 nt, which take 100,000 tokens or more, and this model's context has 512"
    page.locator("#told [role=alert]", has_text=sentence).wait_for(timeout=WAIT)
    page.locator("#chosen input").click()
    page.get_by_role("option", name="tRNA").click()
    page.locator("#card").get_by_text("76 nt").wait_for(timeout=WAIT)
    assert page.locator("#told").inner_text().strip() == ""
    page.keyboard.press("Escape")
    assert ask(page, TYPE, 1)


def test_an_upload_over_the_limit(page, tmp_path):
    upload(page, tmp_path, b">a\n" + b"A" * 1_100_000)
    page.get_by_text("exceed the maximum allowed size").first.wait_for(timeout=WAIT)
    picture(page, "over-the-limit")


def test_scripts_are_shown_as_text(tiny_model, page, tmp_path):
    upload(page, tmp_path, f">{SCRIPT.replace(' ', '_')} {SCRIPT}\n{TRNA.sequence}\n>b\nACGU\n")
    page.locator("#card").get_by_text("76 nt").wait_for(timeout=WAIT)
    assert SCRIPT in page.locator("#card").inner_text()
    ask(page, f"{SCRIPT} **bold** [link](javascript:window.attacked=1)", 1)
    said = page.locator("#chat").inner_text()
    assert SCRIPT in said and "**bold**" in said
    assert page.locator("#chat img[src=x], #chat script, #chat a[href^=javascript], #card img").count() == 0
    assert page.evaluate("() => window.attacked") is None
    picture(page, "scripts")


def test_a_question_without_an_rna_says_what_is_missing(page):
    page.locator("#question textarea").fill(TYPE)
    page.keyboard.press("Enter")
    page.locator("[role=alert]", has_text="there is no RNA to ask about yet").wait_for(timeout=WAIT)


def test_phone_width_and_keyboard_alone(browser, address):
    page = browser.new_page(viewport={"width": 375, "height": 740})
    page.goto(address, timeout=WAIT)
    page.locator("#typed textarea").wait_for(timeout=WAIT)
    page.locator("#typed textarea").focus()
    page.keyboard.type(TRNA.sequence)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.innerText") == "Read"
    page.keyboard.press("Enter")
    page.locator("#card").get_by_text("76 nt").wait_for(timeout=WAIT)
    reached = False
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => !!document.activeElement.closest('#question')"):
            reached = True
            break
    assert reached, "the question cannot be reached by the Tab key"
    page.keyboard.type(TYPE)
    page.keyboard.press("Enter")
    page.locator("#beside").get_by_text("The last answer").wait_for(timeout=WAIT)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
    picture(page, "phone")
    page.close()
