"""A log of two-hop questions small enough that every reply, cost and quality of a transcript can be written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlroute.card import Card
from rlroute.log import Log

OUTPUT_USD = {"small": 2e-6, "small-plus": 4e-6, "large": 40e-6}  # a token
INPUT_USD = {"small": 1e-6, "small-plus": 1e-6, "large": 10e-6}
COMPLETION_TOKENS = {"small": 100, "small-plus": 50, "large": 25}
PROMPT_TOKENS = 10
LONG = "Fox " * 1000

# (state, choice): text, answer, next state, quality, error. # stands for the number of the question.
SAID: dict[tuple[str, str], tuple[str, str | None, str | None, float | None, str | None]] = {
    ("q#", "small"): ("It is Bob Ray.", "Bob Ray", None, 0.0, None),
    ("q#", "small-plus"): ("<answer>Ann Lee</answer>", "Ann Lee", None, 1.0, None),
    ("q#", "large"): ("It is Ann Lee.", "Ann Lee", None, 1.0, None),
    ("q#/1", "small"): ("It is Acme.", "Acme", "q#/2.0", None, None),
    ("q#/1", "small-plus"): ("Service unavailable", None, None, 0.0, "503 unavailable"),
    ("q#/1", "large"): ("It is Bolt.", "Bolt", "q#/2.1", None, None),
    ("q#/2.0", "small"): ("It is Ann Lee.", "Ann Lee", None, 1.0, None),
    ("q#/2.0", "small-plus"): ("It is Bob Ray.", "Bob Ray", None, 0.0, None),
    ("q#/2.0", "large"): ("It is Ann Lee.", "Ann Lee", None, 1.0, None),
    ("q#/2.1", "small"): ("It is Eve Fox.", "Eve Fox", None, 0.0, None),
    ("q#/2.1", "small-plus"): ("It is Eve Fox.", "Eve Fox", None, 0.0, None),
    ("q#/2.1", "large"): (LONG, "Fox", None, 0.0, None),
}
TEXTS = {
    "q#": "Who founded the firm that built bridge #?",
    "q#/1": "Which firm built bridge #?",
    "q#/2.0": "Who founded Acme?",
    "q#/2.1": "Who founded Bolt?",
}


def two_hop_log(changes: Mapping[str, str] | None = None, questions: int = 6, parts: float | None = None) -> Log:
    """The log; `changes` replace texts by "state|choice", and answers by "state|choice|answer".

    `parts` is the quality of responses that lead on.
    """
    changes = changes or {}
    choices = [
        {
            "name": name,
            "description": f"a {name} model",
            "input_usd_per_mtok": 1e6 * INPUT_USD[name],
            "output_usd_per_mtok": 1e6 * OUTPUT_USD[name],
            "max_completion_tokens": 512,
        }
        for name in OUTPUT_USD
    ]
    states: list[dict[str, Any]] = []
    responses: list[dict[str, Any]] = []
    for q in range(questions):
        for name, text in TEXTS.items():
            states.append(
                {
                    "state_id": name.replace("#", str(q)),
                    "task_id": f"q{q}",
                    "group_id": f"q{q}",
                    "parent_id": None if name == "q#" else f"q{q}",
                    "step": {"q#": 0, "q#/1": 1}.get(name, 2),
                    "text": text.replace("#", str(q)),
                    "gold": ["Ann Lee"] if name == "q#" else None,
                    "metric": "em" if name == "q#" else None,
                    "split": {questions - 1: "test", questions - 2: "val"}.get(q, "train"),
                }
            )
        for (state, choice), (text, answer, following, quality, error) in SAID.items():
            responses.append(
                {
                    "state_id": state.replace("#", str(q)),
                    "choice": choice,
                    "text": changes.get(f"{state}|{choice}", text),
                    "answer": changes.get(f"{state}|{choice}|answer", answer),
                    "next_state_id": following and following.replace("#", str(q)),
                    "quality": parts if following else quality,
                    "error": error,
                    "prompt_tokens": PROMPT_TOKENS,
                    "completion_tokens": 0 if error else COMPLETION_TOKENS[choice],
                    "latency_s": 1.0,
                }
            )
    return Log.from_tables(Card(name="two-hop", version="1"), choices, states, responses)
