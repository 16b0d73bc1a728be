"""Episodes of a numeric policy told as transcripts: what supervised warm starts imitate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlroute.envs.faces import RoutingEnv
from rlroute.envs.text import RoutingTextEnv

Act = Callable[[RoutingEnv], int]  # the next action, where the numeric environment stands
Rationale = Callable[[RoutingEnv, int], str]  # why an action is taken there


@dataclass(frozen=True)
class Transcript:
    """One episode as text."""

    prompt: str
    turns: tuple[tuple[str, str], ...]  # (what the policy wrote, what the environment replied)
    reward: float
    totals: np.ndarray  # (4,), see rlroute.rewards
    faults: tuple[str, ...]
    numeric_reward: float  # of the same decisions, played by the numeric environment alone
    numeric_totals: np.ndarray  # (4,)


def demonstrate(
    env: RoutingTextEnv,
    numeric: RoutingEnv,
    act: Act,
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    rationale: Rationale = lambda env, action: "",
) -> Transcript:
    """Play `act` on `numeric`, and the same decisions, written, on `env`: two environments with equal arguments."""
    env.reset(seed=seed, options=options)
    numeric.reset(seed=seed, options=options)
    reward = told_reward = 0.0
    over = ended = False
    info: dict[str, Any] = {}
    while not over:
        action = int(act(numeric))
        text = env.narrate(action, rationale(numeric, action), numeric.dynamics)
        _, paid, terminated, truncated, info = numeric.step(action)
        reward += paid
        over = terminated or truncated
        if text is not None:
            _, paid, terminated, truncated, _ = env.step(text)
            told_reward += paid
            ended = terminated or truncated
        if ended and not over:
            raise RuntimeError(f"the text face ended before the numeric one, after {text!r}")
    return Transcript(
        env.prompt, tuple(env.written), told_reward, env.totals.copy(), env.faults, reward, info["totals"].copy()
    )
