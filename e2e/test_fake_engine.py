"""The scripted engine does to the page what the real one would."""

from __future__ import annotations

from playwright.sync_api import expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine


def test_it_answers_as_scripted_and_ends_where_it_is_stopped(faked: ChatPage, fake_engine: FakeEngine) -> None:
    assert faked.ask("Hi").text == "You said: Hi"
    fake_engine.answer("one two three four", hold_after=2)
    faked.type_and_send("Count")
    expect(faked.answers.last).to_have_text("one two")
    faked.stop.click()
    stopped = faked.wait_for_answer()
    assert (stopped.text, stopped.finish_reason) == ("one two", "abort")
    assert [message["content"] for message in fake_engine.requests[1]["messages"]] == ["Hi", "You said: Hi", "Count"]


def test_it_refuses_what_the_engine_refuses(faked: ChatPage) -> None:
    message = faked.page.evaluate(
        """async () => {
          const page = document.querySelector("script[type=module]").src;
          const { Engine } = await import(page.replace("chat/app.js", "engine/engine.js"));
          const engine = await Engine.load("/models/demo/", {});
          const messages = [{ role: "user", content: "word ".repeat(3000) }];
          return await engine.chat.completions.create({ messages }).then(() => "", (error) => error.message);
        }"""
    )
    assert message.endswith(" tokens long, but the context holds 2048.")


def test_it_fails_where_it_is_told_to(fake_engine: FakeEngine, bare_address: str) -> None:
    fake_engine.set_up(error={"code": "out-of-memory", "message": "no room", "once": True})
    chat = ChatPage(fake_engine.page, bare_address)
    chat.open()
    expect(chat.page.get_by_role("alert", name="The GPU ran out of memory")).to_be_visible()
    chat.retry.click()
    chat.wait_until_ready()
    fake_engine.answer("half an answer", error={"code": "device-lost", "after": 2})
    assert chat.ask("Hi").state == "error"
