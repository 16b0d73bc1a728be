"""The arguments that every environment takes, checked once at construction."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from rlroute.envs.terms import Range, TermRanges, ends
from rlroute.log import Log
from rlroute.rewards import REWARDS
from rlroute.splits import SPLITS
from rlroute.text import FEATURISERS


@dataclass(frozen=True)
class EpisodeArguments:
    """Arguments common to all families; a family adds its own and its defaults."""

    log: str | Log = "questions"  # a folder, the name of a built-in log, or a Log
    split: str = "train"  # "train", "val", "test"
    split_salt: int = 0  # another salt, another split
    reward: str = "linear"  # a name of rlroute.rewards.REWARDS that the family knows
    preference: Range = 0.1  # weight of cost, or a range drawn log-uniformly per episode
    latency_preference: Range = 0.0  # weight of latency, likewise
    budget_usd: Range | None = None  # hard cap in USD, or a range drawn uniformly per episode
    budget_calls: Range | None = None  # hard cap in calls of expensive choices, or a range drawn uniformly
    obs: str = "features"  # "features", or "index": the state's row and the dynamic features only
    group_noise: str = "own"  # slots of one group draw their "own" attempts, or "shared" ones
    max_episode_steps: int | None = None  # time limit; default: enough for any episode without invalid actions

    def __post_init__(self) -> None:
        allowed = {
            "split": SPLITS,
            "reward": REWARDS,
            "obs": ("features", "index"),
            "group_noise": ("own", "shared"),
        }
        for name, values in allowed.items():
            require_one_of(name, getattr(self, name), values)
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps={self.max_episode_steps!r}: expected a positive number of steps")
        _ = self.ranges

    @property
    def ranges(self) -> TermRanges:
        return TermRanges(self.preference, self.latency_preference, self.budget_usd, self.budget_calls)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a policy file; the log is recorded by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        data = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        data["log"] = self.log if isinstance(self.log, str) else self.log.name
        return data


@dataclass(frozen=True)
class ReplayArguments(EpisodeArguments):
    """Arguments of the families that replay a log."""

    reward_metric: str = "em"  # of router_r1: "em" (quality ≥ 0.999) or "f1" (quality as recorded)
    reward_window: str = "frozen"  # of router_r1: "frozen" on train, or "running" over the last 1,000 episodes
    repeat: str = "mask"  # attempts used up: "mask", or the "same" answer again; no effect where states never recur
    missing: str = "error"  # unrecorded (state, choice): "error" refuses partial logs, "mask" masks them
    featuriser: str = "hashed"  # of texts: "hashed" or "minilm"
    pool_size: Range | None = None  # choices that may be called in an episode, drawn anew; or a range of their number
    newcomers: tuple[str, ...] = ()  # choices that nothing was fitted on: known by price list and probe queries alone
    probes: int = 30  # queries of the train split to each newcomer, one response each
    probe_seed: int = 0  # of the draw of these queries

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = {
            "reward_metric": ("em", "f1"),
            "reward_window": ("frozen", "running"),
            "repeat": ("mask", "same"),
            "missing": ("error", "mask"),
            "featuriser": tuple(FEATURISERS),
        }
        for name, values in allowed.items():
            require_one_of(name, getattr(self, name), values)
        if self.pool_size is not None:
            low, high = ends(self.pool_size)
            if not 1 <= low <= high or low != int(low) or high != int(high):
                raise ValueError(f"pool_size={self.pool_size!r}: expected a number of choices ≥ 1, or a range of it")
        if self.newcomers and (self.probes < 1 or self.obs != "features"):
            found = f"probes={self.probes!r}" if self.probes < 1 else f"obs={self.obs!r}"
            raise ValueError(f"{found}: newcomers are known by at least 1 probe query, and by obs='features'")
        if self.reward == "router_r1" and _high(self.preference) > 1:
            raise ValueError(f"preference={self.preference!r}: router_r1 expects a cost weight in [0, 1]")


def require_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def _high(value: Range) -> float:
    return float(value[1]) if isinstance(value, (tuple, list)) else float(value)


A = TypeVar("A", bound=EpisodeArguments)


def parse_arguments(kind: type[A], given: dict[str, Any]) -> A:
    """An instance of `kind` from keyword arguments; an unknown one raises a TypeError that names those allowed."""
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise TypeError(f"unknown environment argument {name!r}{hint}: expected one of {', '.join(known)}")
    plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in given.items()}
    return kind(**plain)
