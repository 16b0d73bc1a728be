"""What no ThinkRoute policy can beat, and by how much: two ceilings over a log.

`latent_knowing` is told, on entering a state, the probabilities of every choice's outcomes there and what
each kind of outcome is worth, but neither the draws nor which of the answers it hears is of which kind. It is
solved exactly, over histories in which answers are anonymous labels. `clairvoyant` knows the draws as well.

Both move by the rules of the environment: at most `max_rounds` calls an episode, each choice at most as often
in a state as it has recorded attempts, only the latest reply of a choice can be accepted, a state entered
without rounds left ends in quality 0, a terminal state (`clairvoyant` only) in its success. Answers heard in an
earlier state are forgotten, as they are in the observation. The reward is quality - w * cost / c_ref, the
latency being free.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.evaluation import Evaluation, MakeEnv, Setting
from rlroute.log import Log
from rlroute.outcomes import Outcomes, outcomes_of
from rlroute.rollout import places

# A history in one state: for every choice its replies in order, each (label, verdict). Labels number the
# distinct answers in the order in which they appear in this very structure, so that equivalent histories are
# equal; label -1 is an empty reply.
Reply = tuple[int, int]
History = tuple[tuple[Reply, ...], ...]

MAX_KINDS = 4  # of answers, up to which `latent_knowing` is solved
_EMPTY = -1
_IMPOSSIBLE = -1e9  # value of a call that cannot be made


@dataclass(frozen=True)
class LatentKnowing:
    """Expected result of the optimal policy: per cost weight and task, (W, M) each."""

    value: np.ndarray  # quality - w * cost / c_ref
    quality: np.ndarray
    cost_usd: np.ndarray


def latent_knowing(
    log: Log,
    tasks: np.ndarray,
    cost_weights: np.ndarray,
    c_ref: float,
    max_rounds: int = 4,
    checker: Literal["observe"] | None = "observe",
    think_cost_usd: float = 0.0,
    thinking: bool = True,
    outcomes: Outcomes | None = None,
) -> LatentKnowing:
    """The exact optimum for the root states `tasks` (M,) at every weight of `cost_weights` (W,).

    `thinking=False` shows what is lost by never decomposing a question.
    """
    if checker not in ("observe", None):
        raise ValueError(f"checker {checker!r}: the ceiling is defined for 'observe' and None")
    arrays = log.arrays
    outcomes = outcomes_of(log) if outcomes is None else outcomes
    weights = np.asarray(cost_weights, np.float64)
    think_state = np.asarray(arrays.think_state) if thinking else np.full(len(arrays.step), -1)
    rounds = _most_rounds(outcomes, think_state, tasks, max_rounds)
    # Quality and cost from entering a state with r rounds left; the last row is "nowhere", and r = 0 is worth
    # nothing.
    entered = np.zeros((max_rounds + 1, 2, len(weights), len(arrays.step) + 1))
    reached = np.flatnonzero(rounds > 0)
    step = np.asarray(arrays.step)[reached]
    for value in np.unique(step)[::-1]:
        level = reached[step == value]
        for left in range(1, max_rounds + 1):
            # A whole question is only ever entered with all rounds left.
            states = level[(rounds[level] >= left) & (~np.asarray(arrays.root)[level] | (rounds[level] == left))]
            if len(states):
                game = _Game(
                    states, outcomes, np.asarray(arrays.num_attempts), entered, think_state, weights / c_ref,
                    think_cost_usd, observe=checker == "observe",
                )  # fmt: skip
                entered[left][..., states] = game.solve(left)
    quality, cost = entered[max_rounds][..., tasks]
    return LatentKnowing(quality - weights[:, None] * cost / c_ref, quality, cost)


def _most_rounds(outcomes: Outcomes, think_state: np.ndarray, tasks: np.ndarray, max_rounds: int) -> np.ndarray:
    """The most rounds that can be left on entering each state, (S,); -1: not reached from the tasks."""
    rounds = np.full(len(think_state), -1)
    rounds[tasks] = max_rounds
    frontier = np.unique(tasks)
    while len(frontier):
        thought = think_state[frontier]
        following = outcomes.next_state[frontier].reshape(len(frontier), -1)
        states = np.concatenate([thought, following.ravel()])
        left = np.concatenate([rounds[frontier], np.repeat(rounds[frontier] - 1, following.shape[1])])
        better = (states >= 0) & (left > rounds[states])
        np.maximum.at(rounds, states[better], left[better])
        frontier = np.unique(states[better])
    return rounds


def _answers(outcomes: Outcomes) -> list[int]:
    """The kinds of outcome that are an answer."""
    return [k for k, kind in enumerate(outcomes.kinds) if kind != "empty"]


class _Game:
    """The decision problem inside a batch of states, all entered with the same number of rounds left."""

    def __init__(
        self,
        states: np.ndarray,
        outcomes: Outcomes,
        num_attempts: np.ndarray,
        entered: np.ndarray,
        think_state: np.ndarray,
        price_of_cost: np.ndarray,
        think_cost_usd: float,
        observe: bool,
    ) -> None:
        answers = _answers(outcomes)
        if len(answers) > MAX_KINDS:
            raise ValueError(
                f"{len(answers)} kinds of answers: the ceiling is exact for up to {MAX_KINDS}; merge the rarest"
            )
        probability = outcomes.probability[states]  # (n, C, K)
        self.num_states, self.num_choices, _ = probability.shape
        self.num_kinds = len(answers)
        verdict = np.nan_to_num(outcomes.verdict[states])
        says = np.stack([1.0 - verdict, verdict]) if observe else np.ones((1, *verdict.shape))
        # P(kind and verdict), (C, V, K, n); and P(empty), (C, n). What the checker says of an empty reply
        # tells nothing, as the reply is known to be empty.
        self.likelihood = np.ascontiguousarray((says * probability)[..., answers].transpose(2, 0, 3, 1))
        self.empty = (probability.sum(axis=-1) - probability[..., answers].sum(axis=-1)).T
        self.call_cost = outcomes.mean_cost_usd[states].T  # (C, n)
        self.attempts = np.minimum(num_attempts[states], np.where(outcomes.available[states], 99, 0)).T  # (C, n)
        # A kind leads to the same next state and quality whichever choice gave it; take those of a choice
        # that can.
        giver = probability[..., answers].argmax(axis=1)  # (n, K)
        pick = (np.arange(self.num_states)[:, None], giver, np.array(answers))
        following = outcomes.next_state[states][pick].T  # (K, n)
        ends = np.where(following < 0, outcomes.quality[states][pick].T, 0.0)
        # worth[r]: quality and cost on accepting an answer of kind k with r rounds left, (K, 2, W, n).
        self.worth = entered[:, :, :, following].transpose(0, 3, 1, 2, 4).copy()
        self.worth[:, :, 0] += ends[:, None]
        self.last_worth = ends  # (K, n): with no rounds left only a final answer is worth anything
        thought = think_state[states]
        self.thought = entered[..., thought].copy()  # (R, 2, W, n)
        self.thought[:, 1] += think_cost_usd
        self.can_think = thought >= 0
        self.price_of_cost = price_of_cost[:, None]  # (W, 1)
        self.memo: dict[History, np.ndarray] = {}

    def solve(self, rounds: int) -> np.ndarray:
        """Quality and cost of the optimal policy, (2, W, n)."""
        nothing: History = ((),) * self.num_choices
        return self._result(nothing, rounds)

    def _result(self, history: History, left: int) -> np.ndarray:
        """Quality and cost from this history on, times its probability, (2, W, n)."""
        known = self.memo.get(history)
        if known is not None:
            return known
        assignments, weight = self._belief(history)
        options = self._accepts(history, left, assignments, weight)
        allowed = [np.ones(self.num_states, bool)] * len(options)
        if self.can_think.any():
            options.append(self.thought[left] * weight.sum(axis=0))
            allowed.append(self.can_think)
        for choice in range(self.num_choices):
            possible = self.attempts[choice] > len(history[choice])
            if left and possible.any():
                options.append(self._call(history, choice, left, assignments, weight))
                allowed.append(possible)
        result = _best(options, allowed, self.price_of_cost, (2, len(self.price_of_cost), self.num_states))
        self.memo[history] = result
        return result

    def _belief(self, history: History) -> tuple[np.ndarray, np.ndarray]:
        """Injective assignments of labels to kinds (A, labels), and P(assignment and history), (A, n)."""
        num_labels = 1 + max((label for replies in history for label, _ in replies), default=-1)
        assignments = np.array(list(itertools.permutations(range(self.num_kinds), num_labels)), np.int64)
        weight = np.ones((len(assignments), self.num_states))
        for choice, replies in enumerate(history):
            for label, verdict in replies:
                if label == _EMPTY:
                    weight *= self.empty[choice]
                else:
                    weight *= self.likelihood[choice, verdict, assignments[:, label]]
        return assignments, weight

    def _accepts(self, history: History, left: int, assignments: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
        """Results of accepting each of the latest replies; accepting an empty one is worth nothing."""
        options = []
        for label in {replies[-1][0] for replies in history if replies}:
            if label == _EMPTY:
                options.append(np.zeros((2, 1, self.num_states)))
                continue
            marginal = np.stack([weight[assignments[:, label] == k].sum(axis=0) for k in range(self.num_kinds)])
            options.append((marginal[:, None, None] * self.worth[left]).sum(axis=0))
        return options

    def _call(
        self, history: History, choice: int, left: int, assignments: np.ndarray, weight: np.ndarray
    ) -> np.ndarray:
        """Result of calling `choice` next."""
        if left == 1:
            total = np.zeros((2, 1, self.num_states))
            total[0, 0] = self._last_call(history, choice, assignments, weight)
        else:
            num_labels = assignments.shape[1]
            replies = [(_EMPTY, 0)]
            replies += itertools.product(range(min(num_labels + 1, self.num_kinds)), range(self.likelihood.shape[1]))
            total = sum(
                (self._result(_extended(history, choice, reply), left - 1) for reply in replies),
                np.zeros((2, len(self.price_of_cost), self.num_states)),
            )
        total[1] += weight.sum(axis=0) * self.call_cost[choice]
        return total

    def _last_call(self, history: History, choice: int, assignments: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Quality after one last call of `choice`, (n,): the best acceptance for each reply that may come."""
        if not self.last_worth.any():
            return np.zeros(self.num_states)
        others = {replies[-1][0] for c, replies in enumerate(history) if replies and c != choice} - {_EMPTY}
        worth = {label: weight * self.last_worth[assignments[:, label]] for label in range(assignments.shape[1])}
        zero = np.zeros(self.num_states)
        best_other = np.max([zero, *(worth[label].sum(axis=0) for label in others)], axis=0)
        quality = self.empty[choice] * best_other
        for likelihood in self.likelihood[choice]:  # (K, n) for each verdict
            for heard in worth:
                factor = likelihood[assignments[:, heard]]
                quality = quality + np.max(
                    [np.einsum("an,an->n", worth[label], factor) for label in others | {heard}], axis=0
                )
            unheard = _unheard(assignments, self.num_kinds)  # (A, K)
            if unheard.any():
                factor = unheard @ likelihood
                fresh = np.einsum("an,an->n", weight, unheard @ (likelihood * self.last_worth))
                quality = quality + np.max(
                    [fresh, *(np.einsum("an,an->n", worth[label], factor) for label in others)], axis=0
                )
        return quality


def _unheard(assignments: np.ndarray, num_kinds: int) -> np.ndarray:
    """Which kinds an assignment leaves for a new label, (A, K) float64."""
    unheard = np.ones((len(assignments), num_kinds))
    np.put_along_axis(unheard, assignments, 0.0, axis=1)
    return unheard


def _extended(history: History, choice: int, reply: Reply) -> History:
    """The history after one more reply, labels renumbered in order of appearance."""
    grown = (*history[:choice], (*history[choice], reply), *history[choice + 1 :])
    names: dict[int, int] = {_EMPTY: _EMPTY}
    return tuple(
        tuple((names.setdefault(label, len(names) - 1), verdict) for label, verdict in replies) for replies in grown
    )


def _best(
    options: list[np.ndarray], allowed: list[np.ndarray], price_of_cost: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Of several results (2, W or 1, n) the one with the largest value, for every weight and state."""
    best = np.zeros(shape)
    best_value = np.full(shape[1:], _IMPOSSIBLE)
    for option, possible in zip(options, allowed, strict=True):
        value = option[0] - price_of_cost * option[1]
        better = possible & (value > best_value)
        np.copyto(best_value, value, where=better)
        np.copyto(best, option, where=better)
    return best


@dataclass(frozen=True)
class Clairvoyant:
    """The best that one replay of the log allows, per task in the order asked for."""

    value: np.ndarray  # (W, M) largest quality - w * cost / c_ref
    least_cost_usd: np.ndarray  # (M,) cost of the cheapest episode of quality 1, inf where there is none


def clairvoyant(
    arrays: LogArrays,
    tasks: np.ndarray,
    cost_weights: np.ndarray,
    c_ref: float,
    rows: np.ndarray,
    max_rounds: int = 4,
    think_cost_usd: float = 0.0,
) -> Clairvoyant:
    """Know in advance what every call brings: `rows` (S, C, A), the response row of the k-th call; -1: none.

    Knowing the draws there is no use in hearing more than one choice in a state: call it until the reply
    wanted comes, accept that.
    """
    weights = np.asarray(cost_weights, np.float64)[:, None]
    num_states, num_choices, most_attempts = rows.shape
    # By rounds left on entering; the last row is "nowhere". A state entered without rounds left is worth
    # nothing, unless the episode ends there.
    value = np.zeros((max_rounds + 1, len(weights), num_states + 1))
    cheapest = np.full((max_rounds + 1, num_states + 1), np.inf)
    step, terminal = np.asarray(arrays.step), np.asarray(arrays.terminal)
    won = np.flatnonzero(terminal & np.asarray(arrays.success))
    value[..., won] = 1.0
    cheapest[:, won] = 0.0
    think_state = np.asarray(arrays.think_state)
    within = np.flatnonzero(np.isin(arrays.group, np.unique(np.asarray(arrays.group)[tasks])) & ~terminal)
    for at in np.unique(step[within])[::-1]:
        states = within[step[within] == at]
        thought = think_state[states]
        thinks = thought >= 0
        for left in range(1, max_rounds + 1):
            best = np.where(thinks, value[left][:, thought] - weights * think_cost_usd / c_ref, -np.inf)
            least = np.where(thinks, cheapest[left][thought] + think_cost_usd, np.inf)
            for choice in range(num_choices):
                spent = np.zeros(len(states))
                for k in range(min(most_attempts, left)):
                    row = rows[states, choice, k]
                    spent = spent + np.where(row >= 0, arrays.cost_usd[row], np.inf)
                    following = arrays.next_state[row]
                    ends = following < 0
                    quality = np.where(ends, np.nan_to_num(arrays.quality[row]), 0.0)
                    onward = np.where(ends, 0.0, value[left - k - 1][:, following])
                    reachable = np.isfinite(spent)
                    gain = quality + onward - weights * np.where(reachable, spent, 0.0) / c_ref
                    best = np.maximum(best, np.where(reachable, gain, -np.inf))
                    success = np.where(ends, np.where(quality >= 0.999, 0.0, np.inf), cheapest[left - k - 1][following])
                    least = np.minimum(least, spent + success)
            value[left][:, states] = np.where(np.isfinite(best), best, 0.0)
            cheapest[left][states] = least
    return Clairvoyant(value[max_rounds][:, tasks], cheapest[max_rounds][tasks])


def add_ceilings(
    evaluation: Evaluation, make_env: MakeEnv, settings: Sequence[Setting], episodes: int, seed: int
) -> None:
    """Latent-knowing where the log stores its probabilities, in expectation; clairvoyant on the draws of the others.

    Both are derived for episodes that are worth quality − w · cost / c_ref at fixed weights, without a cap in USD or
    an early time limit, whose policy commits to a reply itself (`commit="policy"`) and hears each attempt once
    (`repeat="mask"`). Latent-knowing moreover for a checker that is observed or hidden and a question log (no terminal
    states, at most `MAX_KINDS` kinds of answers). Where that is not so, they are left out.
    """
    env = make_env(evaluation.split, **settings[0].arguments)
    dynamics, arguments = env.dynamics, env.dynamics.arguments
    plain = dynamics.only_cost_counts and arguments.commit == "policy" and arguments.repeat == "mask"
    if not plain or any(setting.kind != "weight" for setting in settings):
        return
    tasks, weights = dynamics.roots, np.array([setting.value for setting in settings])
    group, c_ref = dynamics.arrays.group[tasks], dynamics.c_ref
    asks = dynamics.log.has_outcomes and not np.any(dynamics.arrays.terminal) and arguments.checker != "action"
    outcomes = outcomes_of(dynamics.log) if asks else None
    if outcomes is not None and len(_answers(outcomes)) <= MAX_KINDS:
        best = latent_knowing(
            dynamics.log,
            tasks,
            weights,
            c_ref,
            arguments.max_rounds,
            arguments.checker,
            arguments.think_cost_usd,
            outcomes=outcomes,
        )
        evaluation.add_ceiling("latent-knowing", group, best.quality, best.cost_usd, best.value)
    env.reset(seed=seed)  # the key of the rollouts
    values, costs = [], []
    for repetition in range(episodes):
        rows = dynamics.drawn_rows(tasks, *places(env, len(tasks), episodes, repetition))
        known = clairvoyant(
            dynamics.arrays, tasks, weights, c_ref, rows, arguments.max_rounds, arguments.think_cost_usd
        )
        values.append(known.value)
        costs.append(known.least_cost_usd)
    value = np.concatenate(values, axis=1)
    least = np.concatenate(costs)
    right = np.isfinite(least)
    evaluation.add_ceiling(
        "clairvoyant",
        np.tile(group, episodes),
        np.broadcast_to(right.astype(float), value.shape),
        np.broadcast_to(np.where(right, least, 0.0), value.shape),
        value,
    )
