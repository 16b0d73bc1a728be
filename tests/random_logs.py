"""Larger logs with random contents, for what must hold whatever was recorded; a witness of what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from logs import Row, make_log, response

from rlroute.log import Log

SPLITS = ("train", "val", "test")
WORDS = ("bee", "tin", "oat", "hen", "boat", "note")
# What to do to the states and the responses, each in the order in which the log numbers them.
Change = Callable[[list[Row], list[Row]], None]
Draw = tuple[int, int, int, int, int, int]  # slot, episode, state, choice, position, response row


def many_questions(change: Change | None = None) -> Log:
    """Sixty questions of two hops, a third of them test; three attempts of three choices, all at random."""
    rng = np.random.default_rng(5)
    choices = [
        {
            "name": name,
            "input_usd_per_mtok": price,
            "output_usd_per_mtok": 2 * price,
            "max_completion_tokens": 60,
        }
        for name, price in (("a", 1.0), ("b", 2.0), ("c", 5.0))
    ]
    states: list[Row] = []
    responses: list[Row] = []

    def ask(name: str, leads: bool) -> None:
        for choice in "abc":
            for attempt in range(3):
                answer = ("red", "green", "blue", None)[rng.integers(4)]
                following = f"{name[:-2]}/2.{answer}" if leads and answer else None
                row = response(name, choice, answer, float(rng.integers(2)), attempt=attempt, next_state_id=following)
                row |= {
                    "prompt_tokens": int(rng.integers(40, 60)),
                    "completion_tokens": int(rng.integers(1, 61)),
                }
                row |= {"latency_s": float(rng.random()), "verdict": float(rng.integers(2))}
                row |= {
                    "text": "word " * int(rng.integers(1, 9)),
                    "error": "500" if rng.random() < 0.1 else None,
                }
                responses.append(row)

    for i in range(60):
        name, common = f"q{i}", {"split": SPLITS[i % 3], "task_id": f"q{i}", "group_id": f"q{i}"}
        text = " ".join(rng.choice(WORDS, 4))
        states.append(common | {"state_id": name, "text": text, "gold": ["red"]})
        states.append(common | {"state_id": f"{name}/1", "text": f"first {text}", "parent_id": name, "step": 1})
        ask(name, leads=False)
        ask(f"{name}/1", leads=True)
        for answer in ("red", "green", "blue"):
            child: Row = {"state_id": f"{name}/2.{answer}", "parent_id": name, "step": 2}
            states.append(common | child | {"text": f"then {answer} {text}"})
            ask(child["state_id"], leads=False)
    return _changed(states, responses, choices, change)


def many_tasks(change: Change | None = None) -> Log:
    """Sixty tasks of six steps, a third of them test; responses lead to one of two next steps, at random."""
    rng = np.random.default_rng(8)
    states: list[Row] = []
    responses: list[Row] = []
    for i in range(60):
        task = f"t{i}"
        common = {"split": SPLITS[i % 3], "task_id": task, "group_id": task}
        for step in range(6):
            for branch in range(1 if step == 0 else 2):
                name, text = f"{task}/{step}.{branch}", " ".join(rng.choice(WORDS, 4))
                states.append(common | {"state_id": name, "step": step, "text": text, "left": float(rng.random())})
                for choice in ("small", "large"):
                    for attempt in range(3):
                        to = f"{step + 1}.{rng.integers(2)}" if step < 5 else ("won", "lost")[rng.integers(2)]
                        row = response(name, choice, attempt=attempt, next_state_id=f"{task}/{to}")
                        row |= {
                            "prompt_tokens": 100 * (step + 1),
                            "completion_tokens": int(rng.integers(1, 101)),
                        }
                        responses.append(row | {"latency_s": float(rng.random() * 60)})
        for end in ("won", "lost"):
            ends = {
                "state_id": f"{task}/{end}",
                "step": 6,
                "left": 0.0,
                "terminal": True,
                "success": end == "won",
            }
            states.append(common | ends)
    return _changed(states, responses, None, change)


def _changed(states: list[Row], responses: list[Row], choices: list[Row] | None, change: Change | None) -> Log:
    more: Row = {} if choices is None else {"choices": choices}
    log = make_log(states, responses, **more)
    if change is None:
        return log
    responses = log.responses.to_pylist()
    change(states, responses)
    return make_log(states, responses, **more)


def of_test(states: list[Row], responses: list[Row]) -> list[tuple[int, Row]]:
    """The responses in states of the test split, with their numbers."""
    split = {row["state_id"]: row["split"] for row in states}
    return [(i, row) for i, row in enumerate(responses) if split[row["state_id"]] == "test"]


def witness_draws(dynamics: Any) -> set[Draw]:
    """A set that is filled with whatever these dynamics draw from now on."""
    drawn: set[Draw] = set()
    step = dynamics.step

    def keep(action: np.ndarray) -> Any:
        name = "choose" if "choose" in dynamics.layout.choice_actions else "call"
        choice = action - dynamics.layout.action(name, 0)
        legal = dynamics.active & (dynamics.action_mask[np.arange(len(action)), action] == 1)
        called = np.flatnonzero(legal & (choice >= 0) & (choice < dynamics.pool.size))
        # ThinkRoute counts the attempts drawn; elsewhere no state is met twice.
        position = dynamics.count if name == "call" else np.zeros((len(action), dynamics.pool.size), np.int64)
        before = dynamics.episode[called], dynamics.state[called], choice[called], position[called, choice[called]]
        shown = step(action)
        where = (called, *before, dynamics.slots["row"][called])
        drawn.update(zip(*(column.tolist() for column in where), strict=True))
        return shown

    dynamics.step = keep
    return drawn


def watch(env: Any) -> tuple[list[np.ndarray], list[np.ndarray], set[int]]:
    """One episode a slot under a fixed rule: what is shown but quality, what is paid, and the rows drawn."""
    drawn = witness_draws(env.dynamics)
    observation, info = env.reset(seed=11)
    shown: list[np.ndarray] = [observation, info["action_mask"]]
    paid: list[np.ndarray] = []
    while env.dynamics.active.any():
        mask = info["action_mask"]
        score = np.sin(3.7 * len(paid) + 11.3 * np.arange(len(mask))[:, None] + 5.1 * np.arange(mask.shape[1]))
        observation, reward, terminated, _, info = env.step(np.where(mask == 1, score, -2).argmax(axis=1))
        shown += [
            observation,
            info["action_mask"],
            terminated,
            info["totals"][:, 1:],
            info["reward_vector"][:, 1:],
        ]
        paid.append(reward)
    return shown, paid, {draw[-1] for draw in drawn}


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two stories are equal, bit for bit."""
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
