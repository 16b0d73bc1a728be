"""The learned sequential reference: a belief over which answers are right, backward induction over what to do.

A node of the decision tree is the joint weight of the latent ease z and of which of the distinct answers heard are
right (`belief` says how they hang together). Accepting is worth the weight in which the best answer is right;
calling a choice costs its predicted price and leads to one child per outcome: it agrees with an earlier answer or
brings a new one, times what the checker says. Weights are never normalised, so a value is a sum over children.
Each choice is called once in a state. The candidates at a node are the best few by Weitzman's index 1 − price/p,
which orders boxes optimally when outcomes are independent and a right answer is recognised (Weitzman 1979).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass
class Node:
    """A belief of n episodes that have heard the same pattern of answers.

    `weight` (n, Z, 2^J) is the joint weight of z and of which of J distinct answers are right (bit j of the index);
    `sizes` says how many responses gave each of them.
    """

    weight: Floats
    sizes: tuple[int, ...]

    def rightness(self) -> Bools:
        """(2^J, J) bit j of every hypothesis."""
        return ((np.arange(2 ** len(self.sizes))[:, None] >> np.arange(len(self.sizes))) & 1).astype(bool)

    def answer_weights(self) -> Floats:
        """(n, J) weight in which each distinct answer is right."""
        return np.asarray(self.weight.sum(axis=1) @ self.rightness())

    def accept_value(self) -> Floats:
        """(n,) weight in which the best answer is right; 0 where nothing was heard."""
        if not self.sizes:
            return np.zeros(len(self.weight))
        return np.asarray(self.answer_weights().max(axis=1))

    def joined(self, p: Floats, j: int, yes: tuple[Floats, Floats], coincide: tuple[Floats, Floats]) -> Node:
        """After a response that agrees with answer j; p (n, Z), `yes` and `coincide` for (wrong, right) (n,)."""
        bits = self.rightness()
        sizes = np.asarray(self.sizes, np.float64)
        right_total, wrong_total = bits @ sizes, ~bits @ sizes
        right = sizes[j] / np.maximum(right_total, 1) * bits[:, j]
        wrong = sizes[j] / np.maximum(wrong_total, 1) * ~bits[:, j]
        like = (yes[1] * coincide[1])[:, None, None] * p[:, :, None] * right
        like += (yes[0] * coincide[0])[:, None, None] * (1 - p)[:, :, None] * wrong
        grown = tuple(n + (i == j) for i, n in enumerate(self.sizes))
        return Node(self.weight * like, grown)

    def with_new(self, p: Floats, yes: tuple[Floats, Floats], coincide: tuple[Floats, Floats]) -> Node:
        """After a response that brings an answer not heard before."""
        bits = self.rightness()
        apart_right = np.where(bits.any(axis=1), (1 - coincide[1])[:, None], 1.0)  # (n, 2^J)
        apart_wrong = np.where((~bits).any(axis=1), (1 - coincide[0])[:, None], 1.0)
        wrong = self.weight * (yes[0][:, None] * (1 - p))[:, :, None] * apart_wrong[:, None, :]
        right = self.weight * (yes[1][:, None] * p)[:, :, None] * apart_right[:, None, :]
        return Node(np.concatenate([wrong, right], axis=2), (*self.sizes, 1))

    def with_empty(self, p: Floats) -> Node:
        """After an empty response, which is wrong and agrees with nothing."""
        return Node(self.weight * (1 - p)[:, :, None], self.sizes)

    def take(self, rows: Ints) -> Node:
        return Node(self.weight[rows], self.sizes)


@dataclass(frozen=True)
class Outlook:
    """What the search knows of n episodes: p (n, C, Z), prices (n, C) in units of quality, how answers behave."""

    right: Floats
    price: Floats
    coincide: tuple[Floats, Floats]  # (wrong, right) (n,)
    has_verdict: bool
    yes: tuple[float, float]  # the checker's yes to (wrong, right)

    def verdicts(self, n: int) -> Iterator[tuple[tuple[Floats, Floats], bool]]:
        """What the checker may say, as likelihoods under (wrong, right), and whether that ends the search."""
        if not self.has_verdict:
            yield (np.ones(n), np.ones(n)), False
            return
        wrong, right = self.yes
        yield (np.full(n, wrong), np.full(n, right)), wrong < SURE
        yield (np.full(n, 1 - wrong), np.full(n, 1 - right)), False


def search(node: Node, outlook: Outlook, open_calls: Bools, depth: int) -> tuple[Floats, Ints]:
    """Value (n,) of the best call with up to `depth` calls ahead, in weights of `node`, and that call (n,).

    The value is −inf, and the call −1, where nothing is open.
    """
    n = len(node.weight)
    each = np.arange(n)
    over_z = node.weight.sum(axis=2)
    mass = over_z.sum(axis=1)
    p_mean = np.einsum("ncz,nz->nc", outlook.right, over_z) / np.maximum(mass, 1e-300)[:, None]
    index = 1.0 - outlook.price / np.maximum(p_mean, 1e-9) + 1e-3 * p_mean
    index = np.where(open_calls, index, -np.inf)
    width = min(CANDIDATES[depth - 1], index.shape[1])
    candidates = np.argsort(-index, axis=1, kind="stable")[:, :width]
    best, best_call = np.full(n, -np.inf), np.full(n, -1)
    for k in range(width):
        choice = candidates[:, k]
        allowed = open_calls[each, choice]
        if not allowed.any():
            continue
        p = outlook.right[each, choice]
        value = -outlook.price[each, choice] * mass
        left = open_calls.copy()
        left[each, choice] = False
        for yes, ends in outlook.verdicts(n):
            children = [node.joined(p, j, yes, outlook.coincide) for j in range(len(node.sizes))]
            children.append(node.with_new(p, yes, outlook.coincide))
            for child in children:
                worth = child.accept_value()
                if depth > 1 and not ends:
                    worth = np.maximum(worth, search(child, outlook, left, depth - 1)[0])
                value += worth
        better = allowed & (value > best)
        best, best_call = np.where(better, value, best), np.where(better, choice, best_call)
    return best, best_call


class Posterior(ThinkPolicy):
    """Accepts the likeliest answer, or calls the choice that backward induction finds worth its price.

    `think_below`: think first where the value of answering the whole question is below it (−inf: never).
    `price_scale` multiplies the predicted prices in the search; above 1 it stops earlier.
    """

    name = "learned sequential"

    def __init__(
        self, experience: Experience, belief: Belief, think_below: float = -np.inf, price_scale: float = 1.0
    ) -> None:
        super().__init__(experience)
        self.belief, self.think_below, self.price_scale = belief, think_below, price_scale

    def plan(self, rows: Ints, legal: Bools) -> tuple[Bools, Ints, Ints]:
        d = self.dynamics
        think = np.zeros(len(rows), bool)
        call, accept = np.full(len(rows), -1), self.last_heard(rows)
        open_calls = self.open_calls(rows, legal) & (d.count[rows] == 0)
        can_think = self.can_think(rows, legal)
        patterns = self._patterns(rows)
        verdict = self.belief.has_verdict[d.state[rows]]
        depth = np.minimum(DEPTH, np.maximum(d.rounds_left[rows], 0))
        keys = np.column_stack([patterns, verdict, depth])
        for key in np.unique(keys, axis=0):
            here = np.flatnonzero((keys == key).all(axis=1))
            slots = rows[here]
            node, first_of = self._heard(slots, key[:-2])
            outlook = self._outlook(slots, bool(key[-2]))
            value, best_call = np.full(len(here), -np.inf), np.full(len(here), -1)
            if key[-1] > 0:
                value, best_call = search(node, outlook, open_calls[here], int(key[-1]))
            if node.sizes:
                best = node.answer_weights().argmax(axis=1)
                accept[here] = d.heard_choice[slots, np.asarray(first_of)[best]]
            # Nothing has been paid for yet where nothing was heard, so the first call is made at any price.
            worth_calling = (value > node.accept_value()) | (d.num_heard[slots] == 0)
            call[here] = np.where(worth_calling, best_call, -1)
            think[here] = can_think[here] & (value < self.think_below)
        return think, call, accept

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

    def _heard(self, slots: Ints, pattern: Ints) -> tuple[Node, list[int]]:
        """The belief after what was heard, and where each distinct answer was heard first."""
        d, belief = self.dynamics, self.belief
        state = d.state[slots]
        coincide = belief.wrong_coincide[state], belief.right_coincide[state]
        node = Node(np.broadcast_to(GRID_WEIGHT[None, :, None], (len(slots), len(GRID_WEIGHT), 1)), ())
        first_of: list[int] = []
        for k, answer in enumerate(pattern):
            if answer == -2:
                break
            p = belief.right[state, d.heard_choice[slots, k]]
            verdict = d.verdict_seen[slots, k]
            looks = np.exp(belief.looks[d.heard_row[slots, k]])
            yes = _likelihood(verdict, belief.yes_if_wrong), looks * _likelihood(verdict, belief.yes_if_right)
            if answer == -1:
                node = node.with_empty(p)
            elif answer < len(node.sizes):
                node = node.joined(p, int(answer), yes, coincide)
            else:
                node = node.with_new(p, yes, coincide)
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
