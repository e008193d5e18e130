"""The prompts that every build must answer well, on the real page, with greedy decoding."""

from __future__ import annotations

from e2e.chat_page import ChatPage


def test_hi_gets_a_short_greeting(greedy: ChatPage) -> None:
    answer = greedy.ask("Hi")
    assert answer.state == "done"
    assert answer.finish_reason == "stop"
    assert 0 < len(answer.text) < 200
    assert "hello" in answer.text.lower()


def test_capital_of_france_in_one_word_is_paris_at_the_first_attempt(greedy: ChatPage) -> None:
    answer = greedy.ask("What is the capital of France? Answer in one word.")
    assert answer.text.strip(" .!") == "Paris"
    assert answer.finish_reason == "stop"


def test_haiku_about_the_sea_has_three_lines_and_ends_by_itself(greedy: ChatPage) -> None:
    answer = greedy.ask("Write a short haiku about the sea.")
    lines = [line for line in answer.text.splitlines() if line.strip()]
    assert len(lines) == 3
    assert all(2 <= len(line.split()) <= 8 for line in lines)
    assert answer.finish_reason == "stop"


def test_a_follow_up_question_knows_what_was_said(greedy: ChatPage) -> None:
    greedy.ask("What is the capital of Italy?")
    assert "Madrid" in greedy.ask("And Spain?").text
