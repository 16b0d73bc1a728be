"""Two small invented logs on which routing pays, for tests of references and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from logs import make_log, response

from rlroute.log import Log

Row = dict[str, Any]
PRICES = {"cheap": 1.0, "middle": 4.0, "dear": 20.0}
# Chance of being right on questions of each kind.
SKILL = {"cheap": (0.9, 0.2), "middle": (0.5, 0.7), "dear": (0.95, 0.85)}


def _choices() -> list[Row]:
    return [
        {
            "name": name,
            "input_usd_per_mtok": price,
            "output_usd_per_mtok": price,
            "max_completion_tokens": 100,
        }
        for name, price in PRICES.items()
    ]


def _split(i: int) -> str:
    return ("train", "train", "train", "val", "test")[i % 5]


def question_log(questions: int = 150, seed: int = 0, checker: bool = True, spoil_test: bool = False) -> Log:
    """Two kinds of question told apart by their text; right answers coincide; the checker is right always.

    `spoil_test` inverts every quality and flips nothing else on the test split.
    """
    rng = np.random.default_rng(seed)
    states, responses = [], []
    for i in range(questions):
        kind = int(rng.random() < 0.5)
        name = f"q{i:03d}"
        text = f"{'add these numbers' if kind == 0 else 'prove the theorem'} {'xyz'[i % 3]}"
        states.append({"state_id": name, "group_id": name, "text": text, "task_name": str(kind), "split": _split(i)})
        for choice, skill in SKILL.items():
            right = bool(rng.random() < skill[kind])
            answer = "right" if right else f"wrong {rng.integers(3)}"
            quality = float(right != (spoil_test and _split(i) == "test"))
            verdict = float(right) if checker else None
            cost = 100e-6 * PRICES[choice]
            responses.append(response(name, choice, answer, quality, verdict=verdict, cost_usd=cost))
    return make_log(states, responses, _choices())


def partial_log(questions: int = 150, seed: int = 0, propensity: bool = True) -> Log:
    """The kinds of `question_log`, each answered by one choice: the logger prefers dear for the second."""
    rng = np.random.default_rng(seed)
    states, responses = [], []
    for i in range(questions):
        kind = int(rng.random() < 0.5)
        name = f"q{i:04d}"
        text = f"{'add these numbers' if kind == 0 else 'prove the theorem'} {'xyz'[i % 3]}"
        states.append({"state_id": name, "group_id": name, "text": text, "split": _split(i)})
        chances = ((0.5, 0.3, 0.2), (0.1, 0.2, 0.7))[kind]
        pick = int(rng.choice(3, p=chances))
        choice = list(PRICES)[pick]
        right = bool(rng.random() < SKILL[choice][kind])
        known = chances[pick] if propensity else None
        cost = 100e-6 * PRICES[choice]
        responses.append(response(name, choice, "a", float(right), propensity=known, cost_usd=cost))
    return make_log(states, responses, _choices(), coverage="partial")


def task_log(tasks: int = 120, steps: int = 5, seed: int = 0) -> Log:
    """Tasks of five steps; where the text of a step says so, cheap loses the task most of the time."""
    rng = np.random.default_rng(seed)
    states, responses = [], []
    for i in range(tasks):
        for step in range(steps):
            hard = rng.random() < 0.3
            name = f"t{i:03d}/{step}"
            states.append(
                {
                    "state_id": name, "task_id": f"t{i:03d}", "group_id": f"t{i:03d}", "step": step,
                    "text": "boil the noble oath" if hard else "see", "split": _split(i), "hard": float(hard),
                }
            )  # fmt: skip
            after = f"t{i:03d}/{step + 1}" if step + 1 < steps else f"t{i:03d}/won"
            for choice, chance in (("cheap", 0.3 if hard else 0.98), ("dear", 0.97 if hard else 0.99)):
                moved = after if rng.random() < chance else f"t{i:03d}/lost"
                cost = 100e-6 * PRICES[choice]
                responses.append(response(name, choice, None, None, next_state_id=moved, cost_usd=cost))
        for end, success in (("won", True), ("lost", False)):
            states.append(
                {
                    "state_id": f"t{i:03d}/{end}", "task_id": f"t{i:03d}", "group_id": f"t{i:03d}",
                    "step": steps, "text": end, "split": _split(i), "hard": 0.0,
                    "terminal": True, "success": success,
                }
            )  # fmt: skip
    choices = [c for c in _choices() if c["name"] != "middle"]
    return make_log(states, responses, choices)
