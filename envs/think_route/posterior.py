"""The learned sequential reference: a belief over which answers are right, backward induction over what to
do.

A node of the decision tree is the joint weight of the latent ease z and of which of the distinct answers
heard are right (`belief` says how they hang together). Accepting is worth the weight in which the best answer
is right; calling a choice costs its predicted price and leads to one child per outcome: it agrees with an
earlier answer or brings a new one, times what the checker says. Weights are never normalised, so a value is a
sum over children. Each choice is called once in a state. The candidates at a node are the best few by
Weitzman's index 1 − price/p, which orders boxes optimally when outcomes are independent and a right answer is
recognised (Weitzman 1979).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.belief import GRID_WEIGHT, Belief
from rlroute.envs.think_route.experience import Experience
from rlroute.envs.think_route.planning import ThinkPolicy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
SURE = 0.03  # a checker that says yes to fewer wrong answers than this ends the search when it says yes
CANDIDATES = (3, 4, 5)  # choices considered with one, two, three calls ahead
DEPTH = 3  # calls looked ahead


def hypotheses(answers: int) -> Bools:
    """(2^J, J) which of J distinct answers are right under each hypothesis: bit j of its index."""
    return ((np.arange(2**answers)[:, None] >> np.arange(answers)) & 1).astype(bool)


@dataclass
class Node:
    """A belief of n episodes that have heard the same pattern of answers.

    `weight` (n, Z, 2^J) is the joint weight of z and of which of J distinct answers are right (bit j of the
    index); `sizes` says how many responses gave each of them.
    """

    weight: Floats
    sizes: tuple[int, ...]

    def answer_weights(self) -> Floats:
        """(n, J) weight in which each distinct answer is right."""
        return np.asarray(self.weight.sum(axis=1) @ hypotheses(len(self.sizes)))

    def accept_value(self) -> Floats:
        """(n,) weight in which the best answer is right; 0 where nothing was heard."""
        if not self.sizes:
            return np.zeros(len(self.weight))
        return np.asarray(self.answer_weights().max(axis=1))

    def heard(self, p: Floats, answer: int, if_wrong: Floats, if_right: Floats, joins: tuple[Floats, Floats]) -> Node:
        """After a response that gives `answer` (the next free number: a new one), by its likelihoods."""
        right = self.weight * (if_right[:, None] * p)[:, :, None] * joins[1][:, None, answer]
        wrong = self.weight * (if_wrong[:, None] * (1 - p))[:, :, None] * joins[0][:, None, answer]
        if answer == len(self.sizes):
            return Node(np.concatenate([wrong, right], axis=2), (*self.sizes, 1))
        return Node(wrong + right, tuple(n + (i == answer) for i, n in enumerate(self.sizes)))

    def with_empty(self, p: Floats) -> Node:
        """After an empty response, which is wrong and agrees with nothing."""
        return Node(self.weight * (1 - p)[:, :, None], self.sizes)


@dataclass(frozen=True)
class Outlook:
    """What the search knows of n episodes: p (n, C, Z), prices (n, C) in quality, how answers behave."""

    right: Floats
    price: Floats
    coincide: tuple[Floats, Floats]  # (wrong, right) (n,)
    has_verdict: bool
    yes: tuple[float, float]  # the checker's yes to (wrong, right)
    _joins: dict[tuple[int, ...], tuple[Floats, Floats]] = field(default_factory=dict)

    def take(self, rows: Ints) -> Outlook:
        """The outlook of some of the episodes."""
        wrong, right = self.coincide
        return Outlook(self.right[rows], self.price[rows], (wrong[rows], right[rows]), self.has_verdict, self.yes)

    def verdicts(self) -> list[tuple[float, float, bool]]:
        """What the checker may say: likelihood if wrong, if right, and whether that ends the search."""
        wrong, right = self.yes
        return [(wrong, right, wrong < SURE), (1 - wrong, 1 - right, False)] if self.has_verdict else [(1, 1, False)]

    def joins(self, sizes: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Probability (n, J+1, 2^J) that a (wrong, right) response joins each answer, or brings a new one."""
        if sizes not in self._joins:
            bits, weight = hypotheses(len(sizes)), np.asarray(sizes, np.float64)
            tables = []
            for side, alike in zip((~bits, bits), self.coincide, strict=True):
                total = side @ weight
                table = np.empty((len(alike), len(sizes) + 1, len(bits)))
                table[:, :-1] = alike[:, None, None] * (side * weight / np.maximum(total, 1)[:, None]).T
                table[:, -1] = np.where(total > 0, 1 - alike[:, None], 1.0)
                tables.append(table)
            self._joins[sizes] = (tables[0], tables[1])
        return self._joins[sizes]


def search(node: Node, outlook: Outlook, open_calls: Bools, depth: int) -> tuple[Floats, Ints]:
    """Value (n,) of the best call with up to `depth` calls ahead, in weights of `node`, and that call (n,).

    The value is −inf, and the call −1, where nothing is open.
    """
    n = len(node.weight)
    each = np.arange(n)
    over_z = node.weight.sum(axis=2)
    mass = over_z.sum(axis=1)
    p_mean = np.matmul(outlook.right, over_z[:, :, None])[:, :, 0] / np.maximum(mass, 1e-300)[:, None]
    index = 1.0 - outlook.price / np.maximum(p_mean, 1e-9) + 1e-3 * p_mean
    index = np.where(open_calls, index, -np.inf)
    width = min(CANDIDATES[depth - 1], index.shape[1])
    candidates = np.argsort(-index, axis=1, kind="stable")[:, :width]
    allowed = open_calls[each[:, None], candidates]
    values = -outlook.price[each[:, None], candidates] * mass[:, None]
    if depth == 1:
        values += last_call(node, outlook, candidates)
    else:
        for k in range(width):
            choice = candidates[:, k]
            p = outlook.right[each, choice]
            left = open_calls.copy()
            left[each, choice] = False
            for child, ends in children(node, outlook, p):
                worth = child.accept_value()
                if not ends:
                    worth = np.maximum(worth, search(child, outlook, left, depth - 1)[0])
                values[:, k] += worth
    values = np.where(allowed, values, -np.inf)
    best = values.argmax(axis=1)
    value = values[each, best]
    return value, np.where(np.isfinite(value), candidates[each, best], -1)


def children(node: Node, outlook: Outlook, p: Floats) -> Iterator[tuple[Node, bool]]:
    """Every outcome of calling a choice that is right with p (n, Z); and whether the search ends there."""
    wrong_joins, right_joins = outlook.joins(node.sizes)
    if_right = node.weight * p[:, :, None]
    if_wrong = node.weight - if_right
    for yes_wrong, yes_right, ends in outlook.verdicts():
        for j in range(len(node.sizes)):
            weight = if_right * (yes_right * right_joins[:, None, j])
            weight += if_wrong * (yes_wrong * wrong_joins[:, None, j])
            yield Node(weight, tuple(n + (i == j) for i, n in enumerate(node.sizes))), ends
        wrong = if_wrong * (yes_wrong * wrong_joins[:, None, -1])
        right = if_right * (yes_right * right_joins[:, None, -1])
        yield Node(np.concatenate([wrong, right], axis=2), (*node.sizes, 1)), ends


def last_call(node: Node, outlook: Outlook, candidates: Ints) -> Floats:
    """Expected weight of the answer accepted after one more call, for every candidate (n, K).

    The same as the sum of `accept_value` over `children`, but the grid and the hypotheses are summed out
    first.
    """
    bits = hypotheses(len(node.sizes)).astype(np.float64)
    p = outlook.right[np.arange(len(candidates))[:, None], candidates]
    if_right = np.matmul(p, node.weight)  # (n, K, 2^J)
    if_wrong = node.weight.sum(axis=1)[:, None] - if_right
    wrong_joins, right_joins = outlook.joins(node.sizes)
    right = if_right[:, :, None] * right_joins[:, None]  # (n, K, J+1 outcomes, 2^J)
    wrong = if_wrong[:, :, None] * wrong_joins[:, None]
    value = np.zeros(candidates.shape)
    new_right = right[:, :, -1].sum(axis=2)
    heard_right, heard_wrong = right @ bits, wrong @ bits  # (n, K, outcomes, J)
    for yes_wrong, yes_right, _ in outlook.verdicts():
        best = yes_right * new_right
        if node.sizes:
            answers = (yes_right * heard_right + yes_wrong * heard_wrong).max(axis=3)
            best = np.maximum(best, answers[:, :, -1]) + answers[:, :, :-1].sum(axis=2)
        value += best
    return value


class Posterior(ThinkPolicy):
    """Accepts the likeliest answer, or calls the choice that backward induction finds worth its price.

    `think_bonus` is added to the predicted net value of thinking before it is compared with that of the best
    call (−inf never thinks). `price_scale` multiplies the predicted prices in the search; above 1 it stops
    earlier.
    """

    def __init__(
        self, experience: Experience, belief: Belief, think_bonus: float = -np.inf, price_scale: float = 1.0
    ) -> None:
        super().__init__(experience)
        self.belief, self.think_bonus, self.price_scale = belief, think_bonus, price_scale
        self.name = f"posterior, think bonus {think_bonus:g}, prices × {price_scale:g}"

    def plan(self, rows: Ints, legal: Bools) -> tuple[Bools, Ints, Ints]:
        d = self.dynamics
        call, accept = np.full(len(rows), -1), self.last_heard(rows)
        value = np.full(len(rows), -np.inf)
        open_calls = self.open_calls(rows, legal) & (d.count[rows] == 0)
        heard = d.num_heard[rows]
        verdict = self.belief.has_verdict[d.state[rows]]
        depth = np.clip(self.rounds_to_spare(rows), np.where(heard == 0, 1, 0), DEPTH)
        depth = np.where(open_calls.any(axis=1), depth, 0)
        keys = np.column_stack([self._patterns(rows), verdict, depth])
        for key in np.unique(keys, axis=0):
            here = np.flatnonzero((keys == key).all(axis=1))
            slots = rows[here]
            outlook = self._outlook(slots, bool(key[-2]))
            node, first_of = self._heard(slots, key[:-2], outlook)
            if key[-1] > 0:
                value[here], call[here] = self._search(slots, node, outlook, open_calls[here], int(key[-1]))
            if node.sizes:
                best = node.answer_weights().argmax(axis=1)
                accept[here] = d.heard_choice[slots, np.asarray(first_of)[best]]
                call[here] = np.where(value[here] > node.accept_value(), call[here], -1)
        think = self.can_think(rows, legal) & (self.think_bonus > -np.inf)
        if think.any():
            think = self.worth_thinking(think, rows, "ensemble", self.think_bonus, value)
        return think, call, accept

    def _search(self, slots: Ints, node: Node, outlook: Outlook, open_calls: Bools, depth: int) -> tuple[Floats, Ints]:
        """`search`; before anything is heard, episodes of one question and one weight are searched once."""
        d = self.dynamics
        if d.num_heard[slots[0]] > 0:
            return search(node, outlook, open_calls, depth)
        same = np.column_stack([d.state[slots], d.w_cost[slots], d.w_latency[slots], open_calls])
        _, first, inverse = np.unique(same, axis=0, return_index=True, return_inverse=True)
        part = Node(node.weight[first], node.sizes)
        value, call = search(part, outlook.take(first), open_calls[first], depth)
        return value[inverse.ravel()], call[inverse.ravel()]

    def _patterns(self, rows: Ints) -> Ints:
        """(n, K) which distinct answer each response gave, in order of appearance; −1 empty, −2 not heard."""
        d = self.dynamics
        slots = d.heard_row.shape[1]
        present = np.arange(slots) < d.num_heard[rows, None]
        answer = np.where(present, self.experience.arrays.answer[d.heard_row[rows]], -1)
        pattern = np.where(present, -1, -2)
        count = np.zeros(len(rows), np.int64)
        for k in range(slots):
            valid = answer[:, k] >= 0
            pattern[valid, k] = count[valid]
            for earlier in range(k):
                same = valid & (answer[:, earlier] == answer[:, k])
                pattern[same, k] = pattern[same, earlier]
            count = np.maximum(count, pattern[:, k] + 1)
        return pattern

    def _heard(self, slots: Ints, pattern: Ints, outlook: Outlook) -> tuple[Node, list[int]]:
        """The belief after what was heard, and where each distinct answer was heard first."""
        d, belief = self.dynamics, self.belief
        each = np.arange(len(slots))
        node = Node(np.broadcast_to(GRID_WEIGHT[None, :, None], (len(slots), len(GRID_WEIGHT), 1)), ())
        first_of: list[int] = []
        for k, answer in enumerate(pattern):
            if answer == -2:
                break
            p = outlook.right[each, d.heard_choice[slots, k]]
            verdict = d.verdict_seen[slots, k]
            looks = np.exp(belief.looks[d.heard_row[slots, k]])
            if_wrong = _likelihood(verdict, belief.yes_if_wrong)
            if_right = looks * _likelihood(verdict, belief.yes_if_right)
            if answer == -1:
                node = node.with_empty(p)
                continue
            node = node.heard(p, int(answer), if_wrong, if_right, outlook.joins(node.sizes))
            if answer == len(first_of):
                first_of.append(k)
        total = node.weight.sum(axis=(1, 2), keepdims=True)
        return Node(node.weight / np.maximum(total, 1e-300), node.sizes), first_of

    def _outlook(self, slots: Ints, has_verdict: bool) -> Outlook:
        d, belief = self.dynamics, self.belief
        state = d.state[slots]
        return Outlook(
            right=belief.right[state],
            price=self.price(slots) * self.price_scale,
            coincide=(belief.wrong_coincide[state], belief.right_coincide[state]),
            has_verdict=has_verdict,
            yes=(belief.yes_if_wrong, belief.yes_if_right),
        )


def _likelihood(verdict: Floats, yes: float) -> Floats:
    """Probability of the verdict seen; 1 where none was."""
    said_yes = np.nan_to_num(verdict) >= 0.5
    return np.where(np.isnan(verdict), 1.0, np.where(said_yes, yes, 1 - yes))
