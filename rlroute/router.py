"""A trained policy in a live agent loop: what to call next, given what has happened so far.

The observation is built by the same functions that built it in training; the family is looked up in the registry by
the id that the policy carries.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from rlroute.layout import Layout
from rlroute.policy import CARD_FILE, PolicyError, TrainedPolicy, load_policy

CHARS_PER_TOKEN = 4.0


@dataclass(frozen=True)
class Decision:
    """What to do next. `choice` is the name of the choice to call, or whose response to accept; None otherwise."""

    action: str  # an action of the family: "choose", "call", "accept", "think", "check"
    choice: str | None
    max_completion_tokens: int | None  # send this limit with the call: the budget's reserve counts on it
    scores: dict[str, float]  # probability of every legal action under the policy
    reason: str
    seconds: float
    response: int | None = None  # of "accept": which response recorded at this question is accepted, from 0


@dataclass(frozen=True)
class Response:
    """What came back from a call; unknown numbers are None."""

    choice: str
    text: str = ""
    answer: str | None = None
    verdict: float | None = None
    error: str | None = None
    latency_s: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


class Live(Protocol):
    """One live episode of a family, kept as the batch of one that its observation function expects."""

    untrained: list[str]  # terms outside what the policy was trained on, in words
    choices: tuple[str, ...]  # names, in the order of the layout

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None: ...

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        """Raises PolicyError where the policy lacks something that a live episode needs."""

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        """The episode stands at `text` now."""

    def action_mask(self) -> np.ndarray: ...  # (1, num_actions) int8

    def observe(self) -> np.ndarray: ...  # (1, layout.size) float32

    def completion_limit(self, choice: int) -> int | None:
        """The limit of completion tokens to send with a call; None where there is none."""

    def taken(self, action: str, choice: int | None) -> float:
        """An action that is no call (think, check, accept) was decided; returns its cost in USD."""

    def accepted(self, choice: int) -> tuple[int, int]:
        """Whose response, and which of those heard, is accepted where the policy asks for that of `choice`."""

    def checked(self, verdict: float) -> None:
        """A check of the latest response came back."""

    def record(self, choice: int, response: Response) -> float:
        """A response came back; returns its cost in USD."""


class Router:
    """A policy folder ready to decide: ``Router.load("runs/demo/budget_route/policy")``."""

    def __init__(self, policy: TrainedPolicy) -> None:
        from rlroute import REGISTRY, entry

        self.policy = policy
        family = policy.value("family", kind=str)
        try:
            module, name = entry(family).live.split(":")
        except ValueError as error:
            known = ", ".join(row.id for row in REGISTRY)
            raise policy.fault(("family",), repr(family), f"one of {known}") from error
        self._live: type[Live] = getattr(import_module(module), name)
        self._live.check(policy)

    @classmethod
    def load(cls, path: str | Path) -> Router:
        policy = load_policy(path)
        if not isinstance(policy, TrainedPolicy):
            expected = "a policy that acts on observations; a text router goes on with a transcript by `act`"
            raise PolicyError(Path(path) / CARD_FILE, "loader", repr(policy.card["loader"]), expected)
        return cls(policy)

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.policy.card["choices"])

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numbers that `decide` wants beside the text: the extra features of the training log."""
        return tuple(self.policy.card["extra_names"])

    def episode(
        self,
        task: str = "",
        *,
        budget_usd: float | None = None,
        budget_calls: int | None = None,
        cost_weight: float | None = None,
        latency_weight: float | None = None,
    ) -> Episode:
        """A new episode. Weights default to those of training, or the geometric middle of their range.

        Warns where a cap or a weight given lies outside what the policy was trained on.
        """
        terms = {
            "budget_usd": budget_usd,
            "budget_calls": budget_calls,
            "cost_weight": cost_weight,
            "latency_weight": latency_weight,
        }
        live = self._live(self.policy, terms)
        if live.untrained:
            # Without the values given, so that a loop with a cap of its own every task is warned once.
            warnings.warn("; ".join(live.untrained), UserWarning, stacklevel=2)
        return Episode(self, task, live)


class Episode:
    """One task on its way: `decide` before every call, `record` after it."""

    def __init__(self, router: Router, task: str, live: Live) -> None:
        self.router = router
        self.task = task
        self.spent_usd = 0.0
        self.decisions: list[Decision] = []
        self._live = live
        self._pending: int | None = None
        self._checking = False

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def decide(
        self,
        text: str,
        features: Mapping[str, float] | None = None,
        *,
        prompt_tokens: int | None = None,
        can_think: bool = False,
    ) -> Decision:
        """What to do at `text`. Prompt tokens default to a quarter of its characters.

        Raises BudgetExhausted where no action is legal: nothing affordable is left.
        """
        started = time.perf_counter()
        tokens = prompt_tokens if prompt_tokens is not None else int(np.ceil(len(text) / CHARS_PER_TOKEN))
        require_number("prompt_tokens", tokens)
        self._live.situate(text, features or {}, tokens, can_think)
        mask = self._live.action_mask()
        if not mask.any():
            raise BudgetExhausted(f"no call is affordable any more, {self.spent_usd:.6f} USD spent on {self.task!r}")
        logits = self.router.policy.logits(self._live.observe(), mask)[0]
        layout: Layout = self.router.policy.layout
        index = int(np.where(mask[0] == 1, logits, -np.inf).argmax())
        name, choice = layout.describe_action(index)
        reason, limit, position = self._reason(mask[0], index), None, None
        if name == "accept" and choice is not None:
            asked = choice
            choice, position = self._live.accepted(asked)
            if choice != asked:
                reason += f"; the rule it was trained with accepts this instead of {self._live.choices[asked]}"
        label = None if choice is None else self._live.choices[choice]
        self._checking = name == "check"
        if name in ("call", "choose") and choice is not None:
            limit = self._live.completion_limit(choice)
            self._pending = choice
        else:
            self._pending = None
            self.spent_usd += self._live.taken(name, choice)
        decision = Decision(
            action=name,
            choice=label,
            max_completion_tokens=limit,
            scores=_probabilities(layout, self._live.choices, logits, mask[0]),
            reason=reason,
            seconds=time.perf_counter() - started,
            response=position,
        )
        self.decisions.append(decision)
        return decision

    def record(
        self,
        *,
        text: str = "",
        answer: str | None = None,
        verdict: float | None = None,
        error: str | None = None,
        latency_s: float = 0.0,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
        cost_usd: float | None = None,
        choice: str | None = None,
    ) -> float:
        """What the call decided last brought back; returns what it cost in USD, from tokens if not given.

        `choice` names who was called, where the caller overruled the decision. After a check `verdict` alone counts;
        its price was charged when it was decided. A report that is refused changes nothing: it can be made again.
        """
        require_number("latency_s", latency_s)
        amounts = {
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens,
            "completion_tokens": completion_tokens,
            "cost_usd": cost_usd,
        }
        for number, amount in amounts.items():
            if amount is not None:
                require_number(number, amount)
        if verdict is not None:
            require_number("verdict", verdict, most=1)
        if self._checking:
            if verdict is None:
                raise ValueError("record() after a check needs its verdict: found None, expected a number in [0, 1]")
            self._live.checked(verdict)
            self._checking = False
            return 0.0
        if self._pending is None:
            raise RuntimeError("record() without a call: expected decide() to have chosen a call first")
        called = self._pending
        if choice is not None:
            if choice not in self._live.choices:
                raise ValueError(f"choice={choice!r}: expected one of {', '.join(self._live.choices)}")
            called = self._live.choices.index(choice)
        name = self._live.choices[called]
        response = Response(
            name,
            text,
            answer,
            verdict,
            error,
            latency_s,
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            cost_usd,
        )
        spent = self._live.record(called, response)
        self._pending = None
        self.spent_usd += spent
        return spent

    def _reason(self, mask: np.ndarray, index: int) -> str:
        legal, total = int(mask.sum()), len(mask)
        if legal == 1:
            return "the only legal action: budget, rounds or attempts forbid the rest"
        return f"highest score of {legal} legal actions" + (f" ({total - legal} masked)" if legal < total else "")


class BudgetExhausted(RuntimeError):
    """No action is legal within what is left of the budget."""


def require_number(name: str, value: object, *, most: float = math.inf, whole: bool = False) -> None:
    """Refuses what is no finite number in [0, most]: a negative or undefined amount would refund the budget."""
    if isinstance(value, Real):
        number = float(value)
        if math.isfinite(number) and 0 <= number <= most and (not whole or number.is_integer()):
            return
    kind = "a whole number" if whole else "a number"
    bounds = "≥ 0" if most == math.inf else f"in [0, {most:g}]"
    raise ValueError(f"{name}: found {value!r}, expected {kind} {bounds}")


def _probabilities(layout: Layout, names: tuple[str, ...], logits: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Softmax over the legal actions, by readable name."""
    legal = np.flatnonzero(mask)
    weights = np.exp(logits[legal] - logits[legal].max())
    shares = weights / weights.sum()
    scores = {}
    for action, share in zip(legal, shares, strict=True):
        name, choice = layout.describe_action(int(action))
        scores[name if choice is None else f"{name} {names[choice]}"] = float(share)
    return scores
