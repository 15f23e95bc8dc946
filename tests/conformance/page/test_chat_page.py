"""The chat page in a browser: what a person sees and does."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.conformance.page.conftest import ROOT
from tests.conformance.page.events import end, event, usage

expect.set_options(timeout=10_000)

AXE = ROOT / "deploy/page/node_modules/axe-core/axe.min.js"


def ask(page: Page, text: str) -> Locator:
    """Types and sends `text`; the turn of the model that follows."""
    page.get_by_label("Question", exact=True).fill(text)
    page.keyboard.press("Enter")
    return page.locator(".turn.model").last


def done(turn: Locator) -> Locator:
    """`turn`, when its answer is complete."""
    expect(turn.locator(".usage")).not_to_be_empty()
    return turn


def fold(turn: Locator) -> Locator:
    return turn.get_by_role("button", name=re.compile("Thinking|Thought"))


def wait_until_idle(engine_running: Callable[[], int]) -> None:
    deadline = time.monotonic() + 5
    while engine_running():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def body_of(request: Request) -> dict[str, Any]:
    """The JSON of a request that was waited for."""
    body: dict[str, Any] | None = request.post_data_json
    assert body is not None
    return body


def stream_of(deltas: Sequence[Mapping[str, object]], finish: str = "stop") -> str:
    return "".join(event(delta) for delta in deltas) + end(finish, usage(10, 0, 1, 1))


def answer_with(page: Page, body: str) -> None:
    """Every completion is `body` from now on, whatever the server would say."""
    page.route(
        "**/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )


def refuse(route: Route, status: int, message: str) -> None:
    """Answers with an error in the official shape."""
    error = {"message": message, "type": "t", "param": None, "code": "invalid_request_error"}
    body = json.dumps({"error": error})
    route.fulfill(status=status, content_type="application/json", body=body)


# --- a session ---------------------------------------------------------------------------------


def test_a_person_watches_the_thought_and_reads_the_answer(page: Page) -> None:
    turn = ask(page, "THINK 150\nSAY: Short waves scatter **more**.")
    expect(fold(turn)).to_have_text(re.compile("Thinking"))
    expect(fold(turn)).to_have_attribute("aria-expanded", "true")
    expect(turn.locator(".thought-text")).not_to_be_empty()
    expect(page.get_by_role("status")).to_have_text("Thinking.")
    done(turn)
    expect(fold(turn)).to_have_text(re.compile(r"Thought for \d+ s"))
    expect(fold(turn)).to_have_attribute("aria-expanded", "false")
    expect(turn.locator(".thought-text")).to_be_hidden()
    expect(turn.locator(".answer")).to_have_text("Short waves scatter more.")
    expect(turn.locator(".answer strong")).to_have_text("more")
    expect(turn.locator(".usage")).to_have_text(
        re.compile(r"Prompt \d+ cached \+ \d+ new · thinking \d+ · answer \d+ tokens")
    )
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    fold(turn).click()
    expect(turn.locator(".thought-text")).to_be_visible()


def test_the_clock_runs_while_the_model_thinks(page: Page) -> None:
    turn = ask(page, "THINK 250\nSAY: Done.")
    expect(fold(turn)).to_have_text(re.compile(r"Thinking… \d+ s"))
    done(turn)


def test_a_thought_that_the_reader_folded_or_opened_is_left_as_it_is(page: Page) -> None:
    turn = ask(page, "THINK 80\nSAY: One.")
    fold(turn).click()
    expect(fold(turn)).to_have_attribute("aria-expanded", "false")
    fold(turn).click()
    done(turn)
    expect(fold(turn)).to_have_attribute("aria-expanded", "true")
    expect(turn.locator(".thought-text")).to_be_visible()


def test_earlier_turns_are_sent_without_their_thoughts(page: Page) -> None:
    done(ask(page, "THINK 5\nSAY: First."))
    with page.expect_request("**/chat/completions") as asked:
        done(ask(page, "THINK 5\nSAY: Second."))
    body = body_of(asked.value)
    assert body["stream"] is True
    assert body["model"] == "deepseek-reasoner"
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert body["messages"][1] == {"role": "assistant", "content": "First."}
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(1)  # of the last answer


def test_stop_in_mid_thought_frees_the_engine(
    page: Page, engine_running: Callable[[], int]
) -> None:
    turn = ask(page, "THINK 3000\nSAY: Never.")
    expect(turn.locator(".thought-text")).not_to_be_empty()
    assert engine_running() == 1
    page.get_by_role("button", name="Stop").click()
    expect(turn.locator(".note")).to_have_text("Stopped.")
    wait_until_idle(engine_running)
    expect(fold(turn)).to_have_text(re.compile("Thought for"))
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    with page.expect_request("**/chat/completions") as asked:
        ask(page, "And now?")
    messages = body_of(asked.value)["messages"]
    assert [message["role"] for message in messages] == ["user"]  # the API takes turns
    assert messages[0]["content"] == "THINK 3000\nSAY: Never.\n\nAnd now?"
    page.keyboard.press("Escape")


def test_regenerate_asks_again_and_replaces_the_answer(page: Page) -> None:
    turn = done(ask(page, "THINK 3\nSAY: Once."))
    with page.expect_request("**/chat/completions") as asked:
        turn.get_by_role("button", name="Regenerate").click()
    assert len(body_of(asked.value)["messages"]) == 1
    done(page.locator(".turn.model").last)
    assert page.locator(".turn.model").count() == 1


def test_a_new_chat_forgets_the_old_one_and_stops_its_answer(
    page: Page, engine_running: Callable[[], int]
) -> None:
    ask(page, "THINK 3000\nSAY: Never.")
    expect(page.locator(".thought-text")).not_to_be_empty()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    with page.expect_request("**/chat/completions") as asked:
        done(ask(page, "THINK 1\nSAY: Fresh."))
    assert len(body_of(asked.value)["messages"]) == 1
    wait_until_idle(engine_running)


def test_a_whole_session_by_keyboard(page: Page) -> None:
    question = page.get_by_label("Question", exact=True)
    expect(question).to_be_focused()
    page.keyboard.type("THINK 3000")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("SAY: x")
    assert question.input_value() == "THINK 3000\nSAY: x"
    page.keyboard.press("Enter")
    expect(question).to_have_value("")
    expect(page.locator(".thought-text")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator(".note")).to_have_text("Stopped.")
    expect(question).to_be_focused()
    fold(page.locator(".turn.model")).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".thought-text")).to_be_visible()
    page.keyboard.press("Space")
    expect(page.locator(".thought-text")).to_be_hidden()
    page.get_by_role("button", name="Regenerate").focus()
    page.keyboard.press("Enter")
    expect(question).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Settings")).to_be_focused()


# --- what a model may write --------------------------------------------------------------------

HOSTILE = """<script>window.harmed = 1</script> <img src=x onerror="window.harmed = 1">
<svg onload="window.harmed = 1"><a xlink:href="javascript:window.harmed = 1">t</a></svg>
<iframe srcdoc="<script>parent.harmed = 1</script>"></iframe> <style>body { display: none }</style>
<form action="https://example.org"><input name=x></form>
<math><mi xlink:href="javascript:window.harmed = 1">x</mi></math>
<div id="composer" style="position:fixed;inset:0">over everything</div>

[link](javascript:window.harmed=1) [data](data:text/html,<script>window.harmed=1</script>)
[mixed](JaVaScRiPt:window.harmed=1) ![picture](https://example.org/spy.png) [fine](https://example.org/a)

$\\href{javascript:window.harmed=1}{x}$ $\\includegraphics{https://example.org/spy.png}$
$\\htmlStyle{position:fixed}{y}$ $$\\def\\a{\\a\\a}\\a$$

```html" onmouseover="window.harmed=1
<img src=x onerror="window.harmed = 1">
```"""


def check_inert(page: Page, part: Locator) -> None:
    page.wait_for_timeout(200)
    assert page.evaluate("window.harmed") is None
    elements = (
        "script, img, svg, iframe, style, form, input, object, embed, [onerror], [onload], [id]"
    )
    assert part.locator(elements).count() == 0
    links = part.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
    assert all(link.startswith("https://") for link in links)
    expect(page.locator("#composer textarea")).to_be_visible()


def test_hostile_markdown_in_an_answer_is_shown_and_does_nothing(page: Page) -> None:
    turn = done(ask(page, f"THINK 2\nSAY: {HOSTILE}"))
    answer = turn.locator(".answer")
    expect(answer).to_contain_text("<script>window.harmed = 1</script>")
    check_inert(page, answer)
    fine = answer.get_by_role("link", name="fine")
    assert fine.get_attribute("rel") == "noopener noreferrer"
    assert fine.get_attribute("target") == "_blank"
    answer.get_by_text("mixed").click()
    answer.locator("pre").hover()
    assert page.evaluate("window.harmed") is None


def test_hostile_markup_in_a_thought_is_plain_text(page: Page) -> None:
    thought = {"content": None, "reasoning_content": HOSTILE}
    answer_with(page, stream_of([thought, {"content": "Fine.", "reasoning_content": None}]))
    turn = done(ask(page, "Think evil"))
    fold(turn).click()
    expect(turn.locator(".thought-text")).to_contain_text("<script>window.harmed = 1</script>")
    check_inert(page, turn.locator(".thought-text"))


def test_hostile_markup_in_a_question_and_an_error_is_plain_text(page: Page) -> None:
    page.route("**/chat/completions", lambda route: refuse(route, 400, HOSTILE))
    turn = ask(page, HOSTILE)
    expect(turn.locator(".error")).to_contain_text("<script>")
    check_inert(page, turn.locator(".error"))
    check_inert(page, page.locator(".turn.user"))


def test_formulas_of_all_kinds_are_set(page: Page) -> None:
    text = (
        "Since \\(a^2\\) and $b^2$:\n\n\\[\n\\sqrt{a^2\n+ b^2} = c\n\\]\n\n$$\\frac{1}{2}$$\n\n"
        "We get \\[ x \\] too.\n\n- in a list \\(y\\)\n\nSo \\boxed{\\text{it is } {42}}."
    )
    answer = done(ask(page, f"THINK 2\nSAY: {text}")).locator(".answer")
    expect(answer.locator(".formula")).to_have_count(7)
    expect(answer.locator(".formula .katex-html")).to_have_count(7)
    expect(answer.locator(".katex-display")).to_have_count(3)
    expect(answer.locator(".katex .fbox")).to_have_count(1)
    expect(answer.locator("math")).to_have_count(7)  # for screen readers
    tops = answer.locator(".katex-display .mfrac .mord.mtight, .katex-display .mfrac .mord > .mord")
    two, one = tops.evaluate_all("all => all.map(part => part.getBoundingClientRect().top)")
    assert two > one + 10  # one above the other: both style sheet and styles of nodes count


def test_prices_and_code_are_not_formulas_and_a_wrong_formula_is_shown_as_it_is(page: Page) -> None:
    text = "It costs $5 or $10, `$x$`.\n\n\\(\\frac{1\\) and $\\nosuch{x}$"
    answer = done(ask(page, f"THINK 2\nSAY: {text}")).locator(".answer")
    expect(answer.locator("p").first).to_have_text("It costs $5 or $10, $x$.")
    expect(answer.locator(".formula.wrong")).to_have_text(["\\frac{1", "\\nosuch{x}"])


def test_code_can_be_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn = done(ask(page, "THINK 2\nSAY: Try:\n\n```python\nprint('<b>')\n```"))
    button = turn.get_by_role("button", name="Copy the python code")
    button.click()
    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "print('<b>')\n"
    turn.get_by_role("button", name="Copy", exact=True).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("Try:\n\n```python")


def test_without_its_libraries_the_page_shows_plain_text(page: Page) -> None:
    page.route("**/page/vendor/**", lambda route: route.fulfill(status=404, body="Not Found"))
    page.reload()
    turn = done(ask(page, "THINK 3\nSAY: **Bold** <img src=x onerror=window.harmed=1> \\(x\\)"))
    expect(turn.locator(".answer")).to_have_text(
        "**Bold** <img src=x onerror=window.harmed=1> \\(x\\)"
    )
    check_inert(page, turn.locator(".answer"))
    expect(fold(turn)).to_have_attribute("aria-expanded", "false")


# --- the wire ----------------------------------------------------------------------------------


def test_a_stream_can_be_cut_anywhere(page: Page) -> None:
    text = ': keep-alive\r\n\r\ndata: {"a":"é漢🙂"}\r\n\r\n: x\n\ndata:1\ndata: 2\n\ndata: cut'
    cuts = """async ([url, text]) => {
        const { eventData } = await import(url);
        const bytes = new TextEncoder().encode(text);
        const read = async (...parts) => {
            const from = parts.values();
            const body = new ReadableStream({ pull(control) {
                const { done, value } = from.next();
                if (done) control.close(); else control.enqueue(value);
            } });
            const all = [];
            for await (const data of eventData(body)) all.push(data);
            return JSON.stringify(all);
        };
        const results = new Set([await read(...Array.from(bytes, (b) => new Uint8Array([b])))]);
        for (let i = 0; i <= bytes.length; i += 1) {
            results.add(await read(bytes.subarray(0, i), bytes.subarray(i)));
        }
        return [...results];
    }"""
    url = page.evaluate("new URL('page/sse.js', document.baseURI).href")
    results = page.evaluate(cuts, [url, text])
    assert [json.loads(result) for result in results] == [['{"a":"é漢🙂"}', "1\n2"]]


def test_a_refusal_is_shown_in_the_servers_words_and_can_be_retried(page: Page) -> None:
    refused = 0

    def refuse_once(route: Route) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            refuse(route, 503, "The server is overloaded, please try again later")
        else:
            route.continue_()

    page.route("**/chat/completions", refuse_once)
    turn = ask(page, "THINK 2\nSAY: At last.")
    expect(turn.locator(".error p")).to_have_text(
        "The server is overloaded, please try again later (503)"
    )
    expect(page.get_by_role("status")).to_contain_text("Error: The server is overloaded")
    turn.get_by_role("button", name="Retry").click()
    expect(done(page.locator(".turn.model").last).locator(".answer")).to_have_text("At last.")
    expect(page.locator(".turn.model")).to_have_count(1)


@pytest.mark.parametrize(
    ("finish", "note"),
    [
        ("length", "The answer stopped at the length limit."),
        ("insufficient_system_resource", "ended this answer early"),
    ],
)
def test_an_answer_that_ended_early_says_so(page: Page, finish: str, note: str) -> None:
    answer_with(page, stream_of([{"content": "Half an", "reasoning_content": None}], finish))
    turn = done(ask(page, "Go"))
    expect(turn.locator(".note")).to_contain_text(note)
    expect(turn.locator(".answer")).to_have_text("Half an")


def test_a_connection_that_breaks_keeps_what_came_and_offers_a_retry(page: Page) -> None:
    answer_with(page, event({"content": "Half an", "reasoning_content": None}))
    turn = ask(page, "Go")
    expect(turn.locator(".error p")).to_contain_text("The connection ended")
    expect(turn.locator(".answer")).to_have_text("Half an")
    page.unroute("**/chat/completions")
    page.route("**/chat/completions", lambda route: route.abort())
    turn.get_by_role("button", name="Retry").click()
    expect(page.locator(".error p")).to_have_text("The server cannot be reached.")


def test_a_key_is_asked_for_once_and_kept_in_the_tab(page: Page) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer sk-right":
            route.continue_()
        else:
            refuse(route, 401, "Authentication Fails (no such user)")

    page.route("**/chat/completions", guard)
    ask(page, "THINK 2\nSAY: Come in.")
    dialog = page.get_by_role("dialog", name="Settings")
    expect(dialog).to_contain_text("Authentication Fails (no such user)")
    dialog.get_by_label("API key").fill("sk-right")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    turn = done(page.locator(".turn.model").last)
    expect(turn.locator(".answer")).to_have_text("Come in.")
    assert page.evaluate("Object.values(localStorage).join()").find("sk-right") == -1
    page.reload()
    expect(done(ask(page, "THINK 2\nSAY: Again.")).locator(".answer")).to_have_text("Again.")
    other = page.context.new_page()
    other.goto(page.url)
    assert other.evaluate("sessionStorage.length") == 0


def test_models_that_need_a_key_open_the_settings_at_once(page: Page) -> None:
    page.route("**/models", lambda route: refuse(route, 401, "Authentication Fails"))
    page.reload()
    expect(page.get_by_role("dialog")).to_contain_text("Authentication Fails")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#hint")).to_have_text("Authentication Fails")


def test_it_works_below_a_path_prefix(page: Page, prefixed_url: str) -> None:
    page.goto(prefixed_url)
    turn = done(ask(page, "THINK 3\nSAY: Behind a *proxy*: \\(x\\)"))
    expect(turn.locator(".answer em")).to_have_text("proxy")
    expect(turn.locator(".katex-html")).to_have_count(1)
    paths = page.evaluate(
        "performance.getEntriesByType('resource').map(r => new URL(r.name).pathname)"
    )
    assert paths
    assert all(path.startswith("/r1/") for path in paths)


# --- models and files --------------------------------------------------------------------------


def list_models(page: Page, *models: dict[str, object]) -> None:
    body = json.dumps({"object": "list", "data": [{"object": "model"} | model for model in models]})
    page.route("**/models", lambda route: route.fulfill(content_type="application/json", body=body))
    page.reload()
    expect(page.locator("#model option")).to_have_count(len(models))


def test_deepthink_switches_between_the_reasoner_and_the_chat_model(page: Page) -> None:
    list_models(page, {"id": "deepseek-chat", "thinking": False}, {"id": "deepseek-reasoner"})
    switch = page.get_by_role("button", name="DeepThink")
    picker = page.get_by_label("Model", exact=True)
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(picker).to_have_value("deepseek-reasoner")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")
    expect(picker).to_have_value("deepseek-chat")
    answer_with(page, stream_of([{"role": "assistant", "content": "Hi."}]))
    with page.expect_request("**/chat/completions") as asked:
        turn = done(ask(page, "Hello"))
    assert body_of(asked.value)["model"] == "deepseek-chat"
    expect(turn.locator(".thought")).to_be_hidden()
    picker.select_option("deepseek-reasoner")
    expect(switch).to_have_attribute("aria-pressed", "true")


def test_with_r1_alone_deepthink_stays_on_and_says_why(page: Page) -> None:
    list_models(
        page,
        {"id": "DeepSeek-R1-Distill-Qwen-7B", "licence": "Apache-2.0"},
        {"id": "deepseek-reasoner", "thinking": True, "licence": "MIT"},
    )
    switch = page.get_by_role("button", name="DeepThink")
    expect(switch).to_have_attribute("aria-disabled", "true")
    switch.click(force=True)
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#hint")).to_contain_text("Only models that think are deployed")
    expect(page.locator("#hint")).to_contain_text("MIT licence")
    expect(page.get_by_label("Model", exact=True)).to_have_value("deepseek-reasoner")


def test_a_text_file_goes_along_in_the_official_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Grüße\nline 2")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00\xff")
    page.locator("#picked").set_input_files([tmp_path / "notes.txt", tmp_path / "picture.png"])
    expect(page.locator("#files li")).to_have_count(1)
    expect(page.locator("#hint")).to_have_text("picture.png is not a text file.")
    with page.expect_request("**/chat/completions") as asked:
        done(ask(page, "THINK 1\nSAY: Read."))
    assert body_of(asked.value)["messages"][0]["content"] == (
        "[file name]: notes.txt\n[file content begin]\nGrüße\nline 2\n[file content end]\n"
        "THINK 1\nSAY: Read."
    )
    expect(page.locator(".turn.user .attached")).to_have_text("notes.txt")
    expect(page.locator("#files")).to_be_hidden()


# --- how it looks ------------------------------------------------------------------------------


def ground(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def test_dark_follows_the_system_until_the_reader_chooses(page: Page) -> None:
    light = ground(page)
    page.emulate_media(color_scheme="dark")
    switch = page.get_by_role("button", name="Dark mode")
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert ground(page) != light
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")
    assert ground(page) == light
    page.reload()
    assert ground(page) == light


def test_nothing_moves_for_those_who_asked_for_that(page: Page) -> None:
    moves = "document.getAnimations().length"
    ask(page, "THINK 3000\nSAY: x")
    expect(page.locator(".thought-text")).not_to_be_empty()
    assert page.evaluate(moves) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moves) == 1


WIDE = (
    "| a | b | c | d | e | f |\n|---|---|---|---|---|---|\n| "
    + " | ".join(["someratherlongword"] * 6)
    + " |\n\n```\n"
    + "x" * 200
    + "\n```\n\n"
    + "w" * 150
    + "\n\n$$"
    + "+".join(["x^{2}"] * 40)
    + "$$"
)


def test_at_400_px_nothing_sticks_out(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 720})
    (tmp_path / f"{'long-' * 20}name.txt").write_text("x")
    page.locator("#picked").set_input_files(list(tmp_path.iterdir()))
    turn = done(ask(page, f"THINK 30\nSAY: {WIDE}"))
    fold(turn).click()
    for element in ("document.documentElement", "document.getElementById('log')"):
        assert page.evaluate(f"{element}.scrollWidth - {element}.clientWidth") <= 0
    for name in ("New chat", "Settings", "DeepThink", "Send"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 400


def test_the_end_stays_in_view_until_the_reader_scrolls_up(page: Page) -> None:
    lines = "\n\n".join(f"Line {i} of the answer." for i in range(80))
    from_end = """(() => {
        const log = document.getElementById("log");
        return log.scrollHeight - log.scrollTop - log.clientHeight;
    })()"""
    turn = ask(page, f"THINK 3\nSAY: {lines}")
    expect(turn.locator(".answer")).to_contain_text("Line 30")
    for _ in range(50):  # it follows at the next paint
        if page.evaluate(from_end) < 80:
            break
        page.wait_for_timeout(100)
    assert page.evaluate(from_end) < 80
    page.mouse.move(500, 300)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(300)
    kept = page.evaluate("document.getElementById('log').scrollTop")
    done(turn)
    assert page.evaluate("document.getElementById('log').scrollTop") == kept


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(page: Page, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip(f"there is no {AXE}: run deploy/page/build.sh")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    text = "### Title\n\n- \\(x\\)\n\n| a |\n|---|\n| b |\n\n```python\nx\n```\n\n[l](https://example.org)"
    fold(done(ask(page, f"THINK 20\nSAY: {text}"))).click()
    page.route("**/chat/completions", lambda route: refuse(route, 503, "Overloaded"))
    expect(ask(page, "Again").locator(".error")).to_be_visible()
    page.evaluate(AXE.read_text())
    check = "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))"
    assert page.evaluate(check) == []
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate(check) == []


def test_a_long_thought_costs_little_to_show(page: Page) -> None:
    """60,000 tokens, in one go: the page must neither hang nor take seconds for the layout."""
    words = [{"content": None, "reasoning_content": "word " * 20 + "\n\n"} for _ in range(3000)]
    answer_with(page, stream_of([*words, {"content": "Done.", "reasoning_content": None}]))
    began = time.monotonic()
    done(ask(page, "Go"))
    assert time.monotonic() - began < 8
