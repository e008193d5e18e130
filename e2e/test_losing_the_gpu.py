"""What a person sees when the GPU or the tab is taken away in an answer.

The page, its engine and its tiny model are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from e2e.chat_page import ChatPage
from e2e.conftest import open_tab
from e2e.server_process import running_server
from tests.model.conftest import TinyModels

# Init scripts do not run in workers: this precedes the worker's own. A message says after how many more pieces of work
# the device is destroyed.
HOOK = """
let newest, left = Infinity;
const count = (device) => { if (device === newest && --left < 0) { left = Infinity; device.destroy(); } };
const realRequestDevice = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...options) {
  const device = newest = await realRequestDevice.apply(this, options);
  const submit = device.queue.submit.bind(device.queue);
  device.queue.submit = (work) => { submit(work); count(device); };
  return device;
};
new BroadcastChannel("test-gpu").onmessage = ({ data }) => { left = data; };
"""
LOSE_AFTER = "(pieces) => new BroadcastChannel('test-gpu').postMessage(pieces)"
# What the line above the message box has said, and how much of the answer was there.
NOTE_NOTICES = """
globalThis.notices = [];
addEventListener("DOMContentLoaded", () => {
  const notice = document.getElementById("notice");
  const note = () => {
    const answer = [...document.querySelectorAll("article[data-role=assistant]")].at(-1);
    if (notice.textContent) notices.push({ text: notice.textContent, written: answer.innerText.trim().length });
  };
  new MutationObserver(note).observe(notice, { childList: true });
});
"""
RESET = "The GPU was reset. Loading the model again, then the answer goes on."
# Several chunks of prefill.
QUESTION = "Say something long, and then say it again in other words. " * 2


@pytest.fixture(scope="module")
def loaded(browser: Browser, shared: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatPage]:
    """The page with a tiny model, answers of 24 tokens, temperature 0."""
    folder = tmp_path_factory.mktemp("tiny-server")
    environment = {"WEBGEMMA_HOME": str(folder), "WEBGEMMA_BUILD_AT_START": "false"}
    for page in open_tab(browser):
        (shared / "tiny" / "checkpoints").mkdir(parents=True, exist_ok=True)
        name = TinyModels(page, shared / "tiny", home, "").get("base", "q4").name
        models = shared / "tiny" / "models"
        with running_server(folder, "--model", name, "--models-dir", str(models), environment=environment) as address:

            def patch(route: Route) -> None:
                response = route.fetch()
                route.fulfill(response=response, body=HOOK + response.text())

            page.route("**/static/engine/worker.js*", patch)
            page.add_init_script(NOTE_NOTICES)
            chat = ChatPage(page, address)
            chat.open(model=name, temperature=0, max_tokens=24)
            chat.wait_until_ready()
            yield chat


def test_a_gpu_that_is_lost_in_the_prompt_and_in_the_answer_is_told_and_the_same_answer_comes(loaded: ChatPage) -> None:
    """To the last bit: tests/model/test_lost_gpu.py."""
    loaded.page.evaluate(LOSE_AFTER, 2)
    loaded.type_and_send(QUESTION)
    loaded.wait_for_first_words()
    loaded.page.evaluate(LOSE_AFTER, 0)
    found = loaded.wait_for_answer()
    notices = loaded.page.evaluate("notices")
    assert [notice["text"] for notice in notices] == [RESET, RESET]
    assert notices[0]["written"] == 0 < notices[1]["written"]
    expect(loaded.page.locator("#notice")).to_be_hidden()
    assert found.state == "done"
    loaded.start_over()
    assert loaded.ask(QUESTION) == found


def test_a_tab_that_is_hidden_and_frozen_in_an_answer_goes_on_with_it(loaded: ChatPage) -> None:
    loaded.start_over()
    expected = loaded.ask(QUESTION)
    loaded.start_over()
    other = loaded.page.context.new_page()
    cdp = loaded.page.context.new_cdp_session(loaded.page)
    loaded.page.bring_to_front()
    loaded.type_and_send(QUESTION)
    other.bring_to_front()
    assert loaded.answers.last.get_attribute("data-state") == "streaming"
    cdp.send("Page.setWebLifecycleState", {"state": "frozen"})
    other.wait_for_timeout(300)
    cdp.send("Page.setWebLifecycleState", {"state": "active"})
    other.close()
    assert loaded.wait_for_answer() == expected
