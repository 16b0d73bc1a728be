"""Logs small enough to write down, as rows that a test may spoil before it makes a log of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlroute.card import Card
from rlroute.errors import LogError
from rlroute.log import Log

Rows = dict[str, list[dict[str, Any]]]


def choices() -> list[dict[str, Any]]:
    """A cheap and a dear model."""
    return [
        {
            "name": "small",
            "input_usd_per_mtok": 1.0,
            "output_usd_per_mtok": 2.0,
            "max_completion_tokens": 100,
        },
        {
            "name": "large",
            "input_usd_per_mtok": 10.0,
            "cached_input_usd_per_mtok": 1.0,
            "output_usd_per_mtok": 40.0,
        },
    ]


def query_rows(questions: int = 40) -> Rows:
    """Questions answered once by both; the large model fails on every fifth, the small one on every other."""
    states = [
        {
            "state_id": f"q{i}",
            "text": f"Question {i}?",
            "task_name": "even" if i % 2 == 0 else "odd",
            "difficulty": i / 10,
        }
        for i in range(questions)
    ]
    responses = [
        {
            "state_id": f"q{i}",
            "choice": choice,
            "quality": float(i % 2 == 0 if choice == "small" else i % 5 != 0),
            "answer": f"Answer {i}",
            "text": f"The answer is {i}.",
            "prompt_tokens": 10 + i,
            "completion_tokens": 5 + i,
            "latency_s": 1.0 if choice == "small" else 3.0,
        }
        for i in range(questions)
        for choice in ("small", "large")
    ]
    return {"choices": choices(), "states": states, "responses": responses}


def task_rows() -> Rows:
    """One task of two steps: the small model loses at the first, the large one succeeds in both attempts."""
    states = [
        {"state_id": "start", "step": 0, "text": "Begin."},
        {"state_id": "middle", "step": 1, "task_id": "start", "text": "Go on."},
        {"state_id": "won", "step": 2, "task_id": "start", "terminal": True, "success": True},
        {"state_id": "lost", "step": 2, "task_id": "start", "terminal": True, "success": False},
    ]
    moves = [
        ("start", "small", 0, "lost", 1.0),
        ("start", "large", 0, "middle", 5.0),
        ("start", "large", 1, "middle", 7.0),
        ("middle", "small", 0, "won", 1.0),
        ("middle", "large", 0, "won", 5.0),
    ]
    responses = [
        {"state_id": s, "choice": c, "attempt": a, "next_state_id": n, "cost_usd": usd, "latency_s": usd / 2}
        for s, c, a, n, usd in moves
    ]
    return {"choices": choices(), "states": states, "responses": responses}


def think_rows() -> Rows:
    """A question of two hops: thinking leads to the first, its reply to one of two versions of the second."""
    states = [
        {"state_id": "q", "text": "Where was the maker of X born?", "step": 0, "gold": ["Rome"]},
        {"state_id": "q.1", "text": "Who made X?", "step": 1, "parent_id": "q", "gold": ["Ada"]},
        {"state_id": "q.2.ada", "text": "Where was Ada born?", "step": 2, "parent_id": "q", "gold": ["Rome"]},
        {"state_id": "q.2.bob", "text": "Where was Bob born?", "step": 2, "parent_id": "q", "gold": ["Rome"]},
    ]
    replies = [
        ("q", "small", None, "Oslo", 0.0),
        ("q", "large", None, "Bonn", 0.0),
        ("q.1", "small", "q.2.bob", "Bob", 0.0),
        ("q.1", "large", "q.2.ada", "Ada", 1.0),
        ("q.2.ada", "small", None, "Rome", 1.0),
        ("q.2.ada", "large", None, "rome ", 1.0),
        ("q.2.bob", "small", None, "Oslo", 0.0),
        ("q.2.bob", "large", None, "", 0.0),
    ]
    responses = [
        {
            "state_id": s,
            "choice": c,
            "next_state_id": n,
            "answer": answer,
            "quality": quality,
            "cost_usd": 1.0,
        }
        for s, c, n, answer, quality in replies
    ]
    return {"choices": choices(), "states": states, "responses": responses}


def refusal(action: Callable[[], Any]) -> LogError | None:
    """The error with which an action refuses its input, None if it takes it."""
    try:
        action()
    except LogError as error:
        return error
    return None


def make(rows: Rows, **card: Any) -> Log:
    """A log of rows."""
    return Log.from_tables(Card(**{"name": "small-log", **card}), **rows)
