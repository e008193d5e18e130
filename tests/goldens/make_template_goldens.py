"""Writes template.json: what transformers' apply_chat_template makes of the demo's template and of features.jinja.

    python -m tests.goldens.make_template_goldens

Each case has the request in OpenAI's form, which the page gets; transformers gets the form that Gemma's templates read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from build_wasm.hub import DEMO_FOLDER

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The "weather" in a city.',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "array", "items": {"type": "integer"}},
                "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
            },
            "required": ["city"],
        },
    },
}
ARGUMENTS = {"city": "Rome", "days": [1, 2.5], "on": True, "place": {"lat": -3, "note": None}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def called(as_text: bool, **fields: Any) -> dict[str, Any]:
    """The assistant's call; OpenAI has arguments as text."""
    arguments: Any = json.dumps(ARGUMENTS) if as_text else ARGUMENTS
    call: dict[str, Any] = {"function": {"name": "get_weather", "arguments": arguments}}
    return assistant("", tool_calls=[({"id": "a", "type": "function"} if as_text else {}) | call], **fields)


def called_twice(as_text: bool, **fields: Any) -> dict[str, Any]:
    """Two calls at once, after some words."""
    calls: list[dict[str, Any]] = []
    for id_, city in (("a", "Rome"), ("b", "Zürich")):
        arguments: Any = {"city": city, "days": [1.5, -0.002, 12345678]}
        call = {"function": {"name": "get_weather", "arguments": json.dumps(arguments) if as_text else arguments}}
        calls.append(({"id": id_, "type": "function"} if as_text else {}) | call)
    return assistant(" Let me look. ", tool_calls=calls, **fields)


def result(content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "a", "content": content}


def answered(response: Any) -> dict[str, Any]:
    return {"tool_responses": [{"name": "get_weather", "response": response}]}


SYSTEM = {"role": "system", "content": " Be brief. "}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Two "}, {"type": "text", "text": "parts"}]}
TURNS = [user("Hi\n"), assistant(" Hello! "), user("Bye")]
# name: (request's messages, native messages or None if they are the same, tools, thinking)
CASES: dict[str, tuple[list[Any], list[Any] | None, bool, bool]] = {
    "one turn": ([user("Hi")], None, False, False),
    "several turns": (TURNS, None, False, False),
    "system": ([SYSTEM, *TURNS], None, False, False),
    "parts": ([PARTS], None, False, False),
    "thinking": (TURNS, None, False, True),
    "thinking, system": ([SYSTEM, *TURNS], None, False, True),
    "tools": (TURNS, None, True, False),
    "tools, system, thinking": ([SYSTEM, *TURNS], None, True, True),
    "a call and its result": (
        [user("Weather?"), called(True), result('{"degrees": 20, "sky": "clear"}')],
        [user("Weather?"), called(False, **answered({"degrees": 20, "sky": "clear"}))],
        True,
        False,
    ),
    "a result that is a text, thoughts before the call": (
        [user("Weather?"), called(True, reasoning_content="Hm."), result("no idea")],
        [user("Weather?"), called(False, reasoning_content="Hm.", **answered("no idea"))],
        True,
        True,
    ),
    "two calls at once beside words, and their results": (
        [user("Weather?"), called_twice(True), result("warm"), result('{"degrees": 2}') | {"tool_call_id": "b"}],
        [
            user("Weather?"),
            called_twice(
                False, tool_responses=[*answered("warm")["tool_responses"], *answered({"degrees": 2})["tool_responses"]]
            ),
        ],
        True,
        False,
    ),
    "after two calls, the next question": (
        [
            user("Weather?"),
            called_twice(True),
            result("warm"),
            result("cold") | {"tool_call_id": "b"},
            assistant("Warm, cold."),
            user("And now?"),
        ],
        [
            user("Weather?"),
            called_twice(
                False, tool_responses=[*answered("warm")["tool_responses"], *answered("cold")["tool_responses"]]
            ),
            assistant("Warm, cold."),
            user("And now?"),
        ],
        True,
        False,
    ),
    "after a call, the next question": (
        [user("Weather?"), called(True, reasoning_content="Hm."), result("20"), assistant("Warm."), user("And now?")],
        [
            user("Weather?"),
            called(False, reasoning_content="Hm.", **answered("20")),
            assistant("Warm."),
            user("And now?"),
        ],
        True,
        False,
    ),
}


def main() -> None:
    """Writes the file."""
    from transformers.utils.chat_template_utils import render_jinja_template

    here = Path(__file__).parent
    templates = {"demo": DEMO_FOLDER / "chat_template.jinja", "features": here / "features.jinja"}
    cases = []
    for name, (messages, native, tools, thinking) in CASES.items():
        options: dict[str, Any] = {"enable_thinking": True} if thinking else {}
        rendered = {}
        for template, path in templates.items():
            (rendered[template],), _ = render_jinja_template(
                conversations=[native or messages],
                tools=[WEATHER] if tools else None,
                chat_template=path.read_text("utf-8"),
                add_generation_prompt=True,
                bos_token="<bos>",
                **options,
            )
        request = {"messages": messages, "tools": [WEATHER] if tools else [], "thinking": thinking}
        cases.append({"name": name, **request, "rendered": rendered})
    out = here / "template.json"
    out.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
