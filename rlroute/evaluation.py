"""Tuning on val, playing on test, comparing on the same episodes.

A *setting* is one thing that policies are compared at: a cost weight, or a hard cap. `tune` keeps of every
family of references the candidate with the largest mean reward on `val`, separately at each setting.
`evaluate` plays policies on a split with common random numbers: every policy meets the same tasks, and hears
the same attempt wherever it calls the same choice. `Evaluation` holds the episodes, makes the `results` of
``metrics.json``, and says who beats whom by paired bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlroute import metrics
from rlroute.policies import Policy, dynamics_of
from rlroute.rollout import Episodes, rollout

Floats = NDArray[np.float64]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Setting:
    """What policies are compared at: environment arguments and a name, e.g. ``Setting.weight(0.1)``."""

    name: str
    arguments: Mapping[str, Any]
    kind: str  # "weight", "budget_calls", "budget_usd" or "model_cost"
    value: float

    @classmethod
    def weight(cls, value: float) -> Setting:
        """A cost weight w_c: reward = quality − w_c · cost / c_ref."""
        return cls(f"w = {value:g}", {"preference": float(value)}, "weight", float(value))

    @classmethod
    def calls(cls, cap: int) -> Setting:
        """A hard cap on expensive calls."""
        return cls(f"cap {cap} calls", {"budget_calls": int(cap)}, "budget_calls", float(cap))

    @classmethod
    def usd(cls, cap: float) -> Setting:
        """A hard cap in USD."""
        return cls(f"cap ${cap:.3g}", {"budget_usd": float(cap)}, "budget_usd", float(cap))

    @classmethod
    def model_cost(cls, value: float) -> Setting:
        """What a model call costs on a tool graph, in utility."""
        return cls(f"c_model = {value:g}", {"model_cost": float(value)}, "model_cost", float(value))


class MakeEnv(Protocol):
    """Makes a native vector environment with ``autoreset="disabled"`` on a split of the log."""

    def __call__(self, split: str, **arguments: Any) -> Any: ...


def roots(env: Any) -> NDArray[np.int64]:
    """The tasks of an environment's split."""
    return np.asarray(dynamics_of(env).roots, np.int64)


@dataclass(frozen=True)
class Score:
    """One number per episode of one policy at one setting: what a `Result` and a comparison are made of."""

    group: NDArray[np.int64]
    quality: Floats
    cost_usd: Floats
    reward: Floats
    success: Floats | None = None
    violation: Floats | None = None
    overspend_usd: Floats | None = None
    calls: Floats | None = None
    expensive_calls: Floats | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # what the family tells beside

    @classmethod
    def of(cls, played: Episodes) -> Score:
        """The scores of a rollout."""
        return cls(
            group=np.asarray(played.group, np.int64),
            quality=np.asarray(played.quality, float),
            cost_usd=np.asarray(played.cost_usd, float),
            reward=np.asarray(played.reward, float),
            success=np.asarray(played.success, float),
            violation=np.asarray(played.violation, float),
            overspend_usd=np.asarray(played.overspend_usd, float),
            calls=np.asarray(played.calls, float),
            expensive_calls=np.asarray(played.expensive_calls, float),
            extra=played.extra,
        )


class _Player:
    """Plays policies, each once for all weights, or prices of a model call, that change nothing but the reward."""

    def __init__(self, episodes: int, seed: int) -> None:
        self.episodes, self.seed = episodes, seed
        self.seen: dict[int, tuple[Policy, Score]] = {}  # with the price of a model call taken out of the reward

    def play(self, env: Any, policy: Policy, setting: Setting) -> Score:
        arguments = dynamics_of(env).arguments
        linear = arguments.reward == "linear" and arguments.latency_preference == 0.0
        if setting.kind == "model_cost" and not getattr(policy, "reads_model_cost", True):
            if id(policy) not in self.seen:
                score = Score.of(rollout(env, policy, roots(env), self.episodes, self.seed))
                free = score.reward + setting.value * score.extra["model_calls"]
                self.seen[id(policy)] = (policy, replace(score, reward=free))
            score = self.seen[id(policy)][1]
            return replace(score, reward=score.reward - setting.value * score.extra["model_calls"])
        if setting.kind != "weight" or not linear or getattr(policy, "reads_terms", True):
            return Score.of(rollout(env, policy, roots(env), self.episodes, self.seed))
        if id(policy) not in self.seen:  # the policy is kept beside its score, so that its id stays its own
            score = Score.of(rollout(env, policy, roots(env), self.episodes, self.seed))
            self.seen[id(policy)] = (policy, score)
        score = self.seen[id(policy)][1]
        return replace(score, reward=score.quality - setting.value * score.cost_usd / _c_ref(env))


# --------------------------------------------------------------------------------------------------- tuning


@dataclass(frozen=True)
class Tuned:
    """The candidate that did best on val at one setting, with its figures there."""

    policy: Policy
    reward: float
    quality: float
    cost_usd: float


def tune(
    make_env: MakeEnv,
    settings: Sequence[Setting],
    references: Mapping[str, Sequence[Policy]],
    episodes: int = 1,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, list[Tuned]]:
    """The best candidate of every family of references at every setting, by mean reward on ``val``.

    A candidate with ``reads_terms = False`` acts alike at every weight, so one rollout serves all weights.
    """
    best: dict[str, list[Tuned]] = {name: [] for name in references}
    player = _Player(episodes, seed)
    for setting in settings:
        env = make_env("val", **setting.arguments)
        for name, candidates in references.items():
            choices: list[Tuned] = []
            for policy in candidates:
                score = player.play(env, policy, setting)
                figures = (score.reward, score.quality, score.cost_usd)
                choices.append(Tuned(policy, *(_mean(x, score.group) for x in figures)))
            # Of equals the first: candidates are listed from plain to elaborate.
            best[name].append(max(choices, key=lambda t: t.reward))
            if progress is not None:
                progress(1)
    return best


def _c_ref(env: Any) -> float:
    return float(dynamics_of(env).c_ref)


def _mean(values: Any, groups: Any) -> float:
    return float(metrics.group_means(values, groups)[1].mean())


# ----------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Result:
    """One line of ``metrics.json``: a policy at a setting. Means are over groups; `ci95` is the reward's."""

    family: str
    log: str
    split: str
    policy: str
    kind: str  # "trained", "reference", "single" or "ceiling"
    setting: str
    quality: float
    cost_usd: float
    reward: float
    ci95: tuple[float, float]
    quality_ci95: tuple[float, float]
    episodes: int
    groups: int
    weight: float | None = None
    budget_calls: float | None = None
    budget_usd: float | None = None
    model_cost: float | None = None
    success: float | None = None
    violation_rate: float | None = None
    overspend_usd: float | None = None
    calls: float | None = None
    expensive_calls: float | None = None
    coverage: str = "full"  # "partial": replayed on what was recorded only, so no gain can be read from it
    detail: str | None = None  # which candidate of a family of references val chose

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what does not apply is left out."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v is not None}


@dataclass
class Evaluation:
    """Scores of policies at settings on one split of one log."""

    family: str
    log: str
    split: str
    settings: list[Setting]
    c_ref: float
    scores: dict[str, list[Score]] = field(default_factory=dict)  # by policy, one a setting
    kinds: dict[str, str] = field(default_factory=dict)
    details: dict[str, list[str]] = field(default_factory=dict)
    coverage_full: bool = True
    off_policy: dict[str, list[str]] = field(default_factory=dict)  # estimates for partial logs, one a setting

    def add(self, name: str, kind: str, scores: Sequence[Score], details: Sequence[str] | None = None) -> None:
        """Add a policy: one score a setting, of the same episodes as all others."""
        if len(scores) != len(self.settings):
            raise ValueError(f"{name!r}: {len(scores)} scores for {len(self.settings)} settings")
        self.scores[name], self.kinds[name] = list(scores), kind
        if details is not None:
            self.details[name] = list(details)

    def add_ceiling(self, name: str, group: Any, quality: Any, cost_usd: Any, reward: Any) -> None:
        """Add a ceiling of expected values per task: `group` (M,), the others (settings, M)."""
        rows = zip(np.asarray(quality), np.asarray(cost_usd), np.asarray(reward), strict=True)
        self.add(name, "ceiling", [Score(np.asarray(group, np.int64), q, c, r) for q, c, r in rows])

    def results(self) -> list[Result]:
        """All results, policy by policy."""
        return [
            self._result(name, i) for name in self.scores for i in range(len(self.settings))
        ]  # fmt: skip

    def _result(self, name: str, i: int) -> Result:
        score, setting = self.scores[name][i], self.settings[i]

        def optional(values: Floats | None) -> float | None:
            return None if values is None else _mean(values, score.group)

        return Result(
            family=self.family,
            log=self.log,
            split=self.split,
            policy=name,
            kind=self.kinds[name],
            setting=setting.name,
            quality=_mean(score.quality, score.group),
            cost_usd=_mean(score.cost_usd, score.group),
            reward=_mean(score.reward, score.group),
            ci95=metrics.interval_over_groups(score.reward, score.group),
            quality_ci95=metrics.interval_over_groups(score.quality, score.group),
            episodes=len(score.group),
            groups=len(np.unique(score.group)),
            weight=setting.value if setting.kind == "weight" else None,
            budget_calls=setting.value if setting.kind == "budget_calls" else None,
            budget_usd=setting.value if setting.kind == "budget_usd" else None,
            model_cost=setting.value if setting.kind == "model_cost" else None,
            success=optional(score.success),
            violation_rate=optional(score.violation),
            overspend_usd=optional(score.overspend_usd),
            calls=optional(score.calls),
            expensive_calls=optional(score.expensive_calls),
            coverage="full" if self.coverage_full else "partial",
            detail=self.details[name][i] if name in self.details else None,
        )

    def points(self, name: str) -> tuple[Floats, Floats]:
        """(cost, quality) of a policy at every setting."""
        scores = self.scores[name]
        cost = np.array([_mean(s.cost_usd, s.group) for s in scores])
        return cost, np.array([_mean(s.quality, s.group) for s in scores])

    def rewards(self, name: str) -> Floats:
        """Mean reward of a policy at every setting."""
        return np.array([_mean(s.reward, s.group) for s in self.scores[name]])

    def compare(self, a: str, b: str, by: str = "reward") -> list[metrics.Comparison]:
        """Does a beat b? One verdict a setting."""
        return compare([self], a, b, by)


def compare(evaluations: Sequence[Evaluation], a: str, b: str, by: str = "reward") -> list[metrics.Comparison]:
    """Does a beat b, over all evaluations (seeds and salts) together? One verdict a setting.

    Groups with the same number are one group, so all evaluations have to be of one log.
    """
    verdicts = []
    for i in range(len(evaluations[0].settings)):
        left, right, groups = [], [], []
        for evaluation in evaluations:
            one, other = evaluation.scores[a][i], evaluation.scores[b][i]
            names, x = metrics.group_means(getattr(one, by), one.group)
            others, y = metrics.group_means(getattr(other, by), other.group)
            if not np.array_equal(names, others):
                raise ValueError(f"{a!r} and {b!r} were not played on the same groups")
            left.append(x)
            right.append(y)
            groups.append(names)
        verdicts.append(metrics.beats(np.concatenate(left), np.concatenate(right), np.concatenate(groups)))
    return verdicts


def evaluate(
    make_env: MakeEnv,
    settings: Sequence[Setting],
    policies: Mapping[str, Policy | Sequence[Policy] | Sequence[Tuned]],
    split: str = "test",
    episodes: int = 1,
    seed: int = 0,
    kind: str = "reference",
    into: Evaluation | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Play policies at every setting; a policy is one for all settings or a list with one each.

    With `into`, the scores are added to an earlier evaluation at the same settings, seed and episodes.
    """
    evaluation = into
    scores: dict[str, list[Score]] = {name: [] for name in policies}
    details: dict[str, list[str]] = {name: [] for name in policies}
    player = _Player(episodes, seed)
    for i, setting in enumerate(settings):
        env = make_env(split, **setting.arguments)
        dynamics = dynamics_of(env)
        if evaluation is None:
            evaluation = Evaluation(
                dynamics.family, dynamics.log.name, split, list(settings), _c_ref(env),
                coverage_full=bool(dynamics.arrays.coverage_full),
            )  # fmt: skip
        for name, given in policies.items():
            chosen = given[i] if isinstance(given, Sequence) else given
            policy = chosen.policy if isinstance(chosen, Tuned) else chosen
            scores[name].append(player.play(env, policy, setting))
            details[name].append(getattr(policy, "name", name))
            if progress is not None:
                progress(1)
    assert evaluation is not None, "at least one setting"
    for name in policies:
        evaluation.add(name, kind, scores[name], details[name])
    return evaluation


def gap_closed(evaluation: Evaluation, policy: str, floor: str, ceiling: str) -> Floats:
    """Share of the reward between `floor` and `ceiling` that is closed, at every setting."""
    low, high = evaluation.rewards(floor), evaluation.rewards(ceiling)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(high > low, (evaluation.rewards(policy) - low) / (high - low), np.nan)
