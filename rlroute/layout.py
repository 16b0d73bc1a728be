"""What the numbers of an observation mean: a context, then one block of features per choice.

A flat observation is ``[context, block of choice 0, block of choice 1, …]``. Because every choice is described by
the same features, a policy can score choices one by one with shared weights, whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Feature:
    """A named slice of an observation: `size` floats in [`low`, `high`], in `unit`."""

    name: str
    unit: str
    low: float = 0.0
    high: float = 1.0
    size: int = 1


@dataclass(frozen=True)
class Layout:
    """Names, slices and units of an observation, and the order of the actions.

    Actions are numbered: `context_actions` first, then the first of `choice_actions` for every choice, then the
    second for every choice, and so on.
    """

    context: tuple[Feature, ...]
    choice: tuple[Feature, ...]
    num_choices: int
    context_actions: tuple[str, ...]
    choice_actions: tuple[str, ...]

    @cached_property
    def context_size(self) -> int:
        return sum(feature.size for feature in self.context)

    @cached_property
    def block_size(self) -> int:
        return sum(feature.size for feature in self.choice)

    @cached_property
    def size(self) -> int:
        return self.context_size + self.num_choices * self.block_size

    @cached_property
    def num_actions(self) -> int:
        return len(self.context_actions) + self.num_choices * len(self.choice_actions)

    def action(self, name: str, choice: int | None = None) -> int:
        """The number of an action: ``layout.action("think")``, ``layout.action("call", 3)``."""
        known = self.context_actions if choice is None else self.choice_actions
        if name not in known:
            raise KeyError(f"no action {name!r}: expected one of {', '.join(known) or 'none'}")
        if choice is None:
            return self.context_actions.index(name)
        if not 0 <= choice < self.num_choices:
            raise IndexError(f"choice {choice}: expected 0 to {self.num_choices - 1}")
        return len(self.context_actions) + self.choice_actions.index(name) * self.num_choices + choice

    def describe_action(self, action: int) -> tuple[str, int | None]:
        """The inverse of `action`: ``("call", 3)``, or ``("think", None)``."""
        if action < len(self.context_actions):
            return self.context_actions[action], None
        kind, choice = divmod(action - len(self.context_actions), self.num_choices)
        return self.choice_actions[kind], choice

    def slices(self) -> dict[str, slice]:
        """Where each feature lies: ``"budget_left"`` in the context, ``"price/2"`` for choice 2."""
        slices, at = {}, 0
        for feature in self.context:
            slices[feature.name] = slice(at, at + feature.size)
            at += feature.size
        for choice in range(self.num_choices):
            for feature in self.choice:
                slices[f"{feature.name}/{choice}"] = slice(at, at + feature.size)
                at += feature.size
        return slices

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest value of every float of an observation, each of shape (size,)."""
        features = self.context + self.choice * self.num_choices
        sizes = [feature.size for feature in features]
        low = np.repeat(np.array([feature.low for feature in features], np.float32), sizes)
        high = np.repeat(np.array([feature.high for feature in features], np.float32), sizes)
        return low, high

    def describe(self) -> str:
        """The layout as a Markdown table."""
        rows = ["| feature | floats | range | unit |", "|---|---|---|---|"]
        for scope, features in (("", self.context), (" (each choice)", self.choice)):
            rows += [f"| {f.name}{scope} | {f.size} | [{f.low:g}, {f.high:g}] | {f.unit} |" for f in features]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a policy file."""
        return {
            "context": [vars(feature).copy() for feature in self.context],
            "choice": [vars(feature).copy() for feature in self.choice],
            "num_choices": self.num_choices,
            "context_actions": list(self.context_actions),
            "choice_actions": list(self.choice_actions),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        return cls(
            context=tuple(Feature(**feature) for feature in data["context"]),
            choice=tuple(Feature(**feature) for feature in data["choice"]),
            num_choices=int(data["num_choices"]),
            context_actions=tuple(data["context_actions"]),
            choice_actions=tuple(data["choice_actions"]),
        )
