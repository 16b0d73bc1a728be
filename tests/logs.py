"""Small logs made by hand, whose every outcome is known, and a way to play one episode by names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rlroute.card import Card
from rlroute.envs.budget_route.env import BudgetRouteEnv, BudgetRouteVectorEnv
from rlroute.envs.think_route.env import ThinkRouteEnv, ThinkRouteVectorEnv
from rlroute.log import Log
from rlroute.text import HashedNgrams

Row = dict[str, Any]

# Prices in USD per million tokens; small and dear enough to tell apart, and round.
SMALL: Row = {
    "name": "small",
    "input_usd_per_mtok": 1.0,
    "cached_input_usd_per_mtok": 0.25,
    "output_usd_per_mtok": 2.0,
    "max_completion_tokens": 100,
    "cache_ttl_s": 100.0,
}
LARGE: Row = SMALL | {
    "name": "large",
    "input_usd_per_mtok": 10.0,
    "cached_input_usd_per_mtok": 1.0,
    "output_usd_per_mtok": 20.0,
}


class Letters(HashedNgrams):
    """Counts of eight letters, scaled to length 1: quick to fit, and different for different texts."""

    name = "letters"
    size = 8

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.lower().count(letter) for letter in "abehinot"] for text in texts], np.float32)
        norm = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.divide(counts, norm, out=counts, where=norm > 0)


def response(state: str, choice: str, answer: str | None = None, quality: float | None = 0.0, **more: Any) -> Row:
    """A row of responses: 100 prompt and 10 completion tokens, 1 s, unless `more` says otherwise."""
    row: Row = {"state_id": state, "choice": choice, "attempt": 0, "answer": answer, "quality": quality}
    return row | {"prompt_tokens": 100, "completion_tokens": 10, "latency_s": 1.0, "verdict": None} | more


def make_log(
    states: Iterable[Row],
    responses: Iterable[Row],
    choices: Iterable[Row] = (SMALL, LARGE),
    coverage: str = "full",
) -> Log:
    """A log in memory; responses are put in the order of (state, choice, attempt), so row i is response i."""
    states, choices = list(states), list(choices)
    place = {row["state_id"]: i for i, row in enumerate(states)}
    rank = {row["name"]: i for i, row in enumerate(choices)}
    rows = sorted(responses, key=lambda r: (place[r["state_id"]], rank[r["choice"]], r["attempt"]))
    return Log.from_tables(Card("handmade", coverage=coverage), choices, states, rows)


def background() -> tuple[list[Row], list[Row]]:
    """A plain question in train and one in val, which a log with a split column needs. large knows them."""
    states = [
        {"state_id": "train", "text": "What is iron?", "split": "train"},
        {"state_id": "val", "text": "What is tin?", "split": "val"},
    ]
    responses = [
        response(state["state_id"], choice, answer, quality, completion_tokens=tokens)
        for state in states
        for choice, answer, quality, tokens in (("small", "gas", 0.0, 30), ("large", "metal", 1.0, 20))
    ]
    return states, responses


def hop_log() -> Log:
    """A question of two hops in test. Who wrote it? (Ann is wrong, Bob is right.) Where was that person born?

    | state | small says | large says |
    |---|---|---|
    | hop | Rome (0), then Rome and Oslo in other attempts | Oslo (1) |
    | hop/1 | Ann, leads to hop/2.ann | Bob, leads to hop/2.bob |
    | hop/2.ann | Rome (0) | Rome (0) |
    | hop/2.bob | Rome (0) | Oslo (1) |

    `silent` is a question whose first sub-question small answers with nothing.
    """
    states, responses = background()
    for name, title in (("hop", "Emma"), ("silent", "Hamlet")):
        common = {"split": "test", "task_id": name, "group_id": name}
        states += [
            common | {"state_id": name, "text": f"Where was the author of {title} born?", "gold": ["Oslo"]},
            common | {"state_id": f"{name}/1", "text": f"Who wrote {title}?", "parent_id": name, "step": 1},
            common
            | {
                "state_id": f"{name}/2.ann",
                "text": f"{title}: where was Ann born?",
                "parent_id": name,
                "step": 2,
            },
            common
            | {
                "state_id": f"{name}/2.bob",
                "text": f"{title}: where was Bob born?",
                "parent_id": name,
                "step": 2,
            },
        ]
        first = response(f"{name}/1", "small", "Ann", None, next_state_id=f"{name}/2.ann", verdict=0.0)
        if name == "silent":
            first |= {"answer": None, "quality": 0.0, "next_state_id": None}
        responses += [
            response(name, "small", "Rome", 0.0, verdict=0.0),
            response(name, "small", "Rome", 0.0, verdict=0.0, attempt=1, completion_tokens=40),
            response(name, "small", "Oslo", 1.0, verdict=1.0, attempt=2, completion_tokens=70),
            response(name, "large", "Oslo", 1.0, verdict=1.0, latency_s=5.0),
            first,
            response(f"{name}/1", "large", "Bob", None, next_state_id=f"{name}/2.bob", verdict=1.0),
            response(f"{name}/2.ann", "small", "Rome", 0.0, verdict=0.0),
            response(f"{name}/2.ann", "large", "Rome", 0.0, verdict=0.0),
            response(f"{name}/2.bob", "small", "Rome", 0.0, verdict=0.0),
            response(f"{name}/2.bob", "large", "Oslo", 1.0, verdict=1.0),
        ]
    return make_log(states, responses)


def walk_log(length: int = 4, last: str = "won", prompts: Sequence[int] = (), latency_s: float = 60.0) -> Log:
    """A task of `length` steps in each split. large always moves on, and so does small but for the last step.

    There large reaches `last` (won or lost) and small `lost`; with `last="nowhere"` both lead nowhere.
    Step k has a prompt of ``prompts[k]`` tokens (default 100 · (k + 1)); a call takes `latency_s`.
    """
    states: list[Row] = []
    responses: list[Row] = []
    for split in ("train", "val", "test"):
        common = {"split": split, "task_id": split, "group_id": split}
        states += [
            common | {"state_id": f"{split}/{k}", "step": k, "text": f"{split}, step {k}", "left": length - k}
            for k in range(length)
        ]
        states += [
            common
            | {"state_id": f"{split}/{end}", "step": length, "text": end, "left": 0, "terminal": True}
            | {"success": end == "won"}
            for end in ("won", "lost")
        ]
        for k in range(length):
            for choice in ("small", "large"):
                following: str | None = f"{split}/{k + 1}"
                if k == length - 1:
                    end = last if choice == "large" or last == "nowhere" else "lost"
                    following = None if end == "nowhere" else f"{split}/{end}"
                tokens = prompts[k] if prompts else 100 * (k + 1)
                row = response(f"{split}/{k}", choice, None, 0.0, next_state_id=following)
                responses.append(row | {"prompt_tokens": tokens, "latency_s": latency_s})
    return make_log(states, responses)


# Environments on such a log. The dynamics of a family have more to show than mypy can know: hence Any.
DEFAULTS: Row = {"split": "test", "featuriser": "letters"}


def think_env(log: Log, **arguments: Any) -> Any:
    return ThinkRouteEnv(**DEFAULTS | {"log": log, "preference": 0.1} | arguments)


def think_vec(log: Log, num_envs: int, **arguments: Any) -> Any:
    defaults = DEFAULTS | {"log": log, "preference": 0.1, "autoreset": "disabled"}
    return ThinkRouteVectorEnv(num_envs, **defaults | arguments)


def budget_env(log: Log, **arguments: Any) -> Any:
    return BudgetRouteEnv(**DEFAULTS | {"log": log} | arguments)


def budget_vec(log: Log, num_envs: int, **arguments: Any) -> Any:
    return BudgetRouteVectorEnv(num_envs, **DEFAULTS | {"log": log, "autoreset": "disabled"} | arguments)


class Play:
    """One episode of a scalar environment, played by names: ``play.do("call small")``."""

    def __init__(self, env: Any, task: str, seed: int = 0) -> None:
        self.env, self.layout, self.dynamics = env, env.layout, env.dynamics
        self.names = self.dynamics.arrays.choice_names
        self.observation, self.info = env.reset(seed=seed, options={"task": task})
        self.reward, self.terminated, self.truncated = 0.0, False, False

    def action(self, name: str) -> int:
        kind, _, choice = name.partition(" ")
        return int(self.layout.action(kind, self.names.index(choice) if choice else None))

    def do(self, *names: str) -> Play:
        for name in names:
            self.observation, self.reward, self.terminated, self.truncated, self.info = self.env.step(self.action(name))
        return self

    @property
    def legal(self) -> set[str]:
        actions = (self.layout.describe_action(int(a)) for a in np.flatnonzero(self.info["action_mask"]))
        return {kind if choice is None else f"{kind} {self.names[choice]}" for kind, choice in actions}

    @property
    def state(self) -> str:
        return str(self.dynamics.arrays.state_ids[self.dynamics.state[0]])

    @property
    def quality(self) -> float:
        return float(self.info["totals"][0])

    @property
    def cost_usd(self) -> float:
        return float(self.info["totals"][1])

    def seen(self, feature: str, choice: str | None = None) -> Any:
        """A feature of the present observation by name; a float, or an array where it has several."""
        name = feature if choice is None else f"{feature}/{self.names.index(choice)}"
        values = self.observation[self.layout.slices()[name]]
        return float(values[0]) if len(values) == 1 else values
