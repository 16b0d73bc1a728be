"""ThinkRoute over texts: Router-R1's protocol, played by the numeric environment."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from rlroute.answers import answer_key, f1
from rlroute.envs.prompts import brief_lines, choice_lines, number
from rlroute.envs.text import RoutingTextEnv, Turn, tagged
from rlroute.envs.think_route import protocol
from rlroute.envs.think_route.env import ThinkRouteEnv
from rlroute.features import root_cost_percentiles
from rlroute.replies import Reply, texts_of
from rlroute.rewards import COST_USD, EXACT_MATCH, FORMAT, QUALITY, RECENT, push, router_r1, router_r1_fixed

POOL_TOKENS = 512  # of a reply
ROUTER_USD_PER_MTOK = 0.10  # of a router of about 3 B parameters [ours]
NOTHING = "None"
FIXED = "router_r1_fixed"


class Way(NamedTuple):
    """A state that a query may be about, and the numeric action that leads there (None: it is the current one)."""

    state: int
    action: int | None


class ThinkRouteTextEnv(RoutingTextEnv):
    """ThinkRoute, see `rlroute.envs.think_route`, over texts, by Router-R1's protocol (arXiv 2506.09033, code).

    ## Action
    A turn of text, cut at the first ``</search>``, else at the first ``</answer>``:

    | turn | what it does |
    |---|---|
    | ``<think>…</think><search> NAME:query </search>`` | calls NAME, who replies in ``<information>`` |
    | ``<think>…</think><answer>…</answer>`` | ends the episode |
    | neither | nothing; the turn is used |

    There are `max_rounds` turns (4) that may call, and one last turn that may not. The query selects, by token F1, the
    current question, the sub-question that thinking opens, or one that accepting a heard reply opens [ours]; ties go
    to the first of these, and so does a query that has no word in common with any. Selecting a sub-question counts as
    `think`, or as `accept`. Without a colon, with a placeholder or with an empty query nothing is called; an unknown
    name, a call that is masked and a reply with an error bring ``None``. An unknown name is a fault of format; a masked
    call is the numeric environment's masked action, and an error costs what the log says that it was billed.

    A written answer that equals a heard one in normal form has its quality, unless that was about a sub-question that
    another follows; any other is scored by the metric of the question where texts alone tell (em, f1), else 0.

    ## Observation
    The transcript: the prompt (template `prompt`: choices with prices and latency, rounds, weight of cost, question)
    and all turns with their replies. With `checker="observe"` a reply ends with the verdict [ours]; the protocol has
    none, so `checker` is None under Router-R1's rewards unless given.

    ## Reward
    `linear` as in the numeric face, and −1 at the end for a wrong format. `router_r1` as in `rlroute.rewards`, where
    the format is that of the whole transcript: a name matches as a substring, and pool text counts. `router_r1_fixed`
    [ours]: pool text cannot break the format, a name has to be exact, cost is that of all prompts, replies and router
    tokens (`router_usd_per_mtok`, 0.10 unless given), and it counts on wrong answers too.

    ## Version history
    v0: first version.
    """

    numeric_type = ThinkRouteEnv
    folder: ClassVar[Path] = Path(__file__).parent
    fields: ClassVar[tuple[str, ...]] = (
        "choices",
        "brief_choices",
        "names",
        "rounds",
        "cost_weight",
        "budget",
        "question",
    )
    stops: ClassVar[tuple[str, ...]] = protocol.STOPS

    def __init__(self, *, reward: str = "linear", router_usd_per_mtok: float | None = None, **arguments: Any) -> None:
        if arguments.get("commit", "policy") != "policy":
            raise ValueError(f"commit={arguments['commit']!r}: here the router writes the answer, expected 'policy'")
        if arguments.get("checker") == "action":
            raise ValueError("checker='action' has no words in this protocol: expected 'observe' or None")
        own = {"reward": reward, "router_usd_per_mtok": router_usd_per_mtok, **arguments}
        self.fixed = reward == FIXED
        if reward != "linear":
            arguments.setdefault("checker", None)
        price = router_usd_per_mtok if router_usd_per_mtok is not None else ROUTER_USD_PER_MTOK * self.fixed
        numeric_reward = "router_r1" if self.fixed else reward
        super().__init__(reward=numeric_reward, router_usd_per_mtok=price, **arguments)
        gym.utils.EzPickle.__init__(self, **own)
        names = self.dynamics.pool.names
        for name in names:
            if ":" in name:
                raise ValueError(f"choice {name!r}: expected a name without a colon, which ends names in this protocol")
        self.resolve = protocol.exact_name(names) if self.fixed else protocol.substring_name(names)
        self.texts = texts_of(self.dynamics.log)
        self._heard: list[Reply] = []  # of the whole episode, but for those that lead on to a sub-question
        self._judged = ""  # the transcript of which the format is judged
        self._recent = np.zeros((2, RECENT + 1))

    @property
    def max_turns(self) -> int:
        return int(self.dynamics.arguments.max_rounds) + 1

    def begin(self) -> None:
        self._heard = []
        self._judged = ""

    def situation(self) -> dict[str, str]:
        dynamics = self.dynamics
        return {
            "choices": choice_lines(dynamics.pool, dynamics.log.choices["description"].to_pylist()),
            "brief_choices": brief_lines(dynamics.pool),
            "names": ", ".join(dynamics.pool.names),
            "rounds": str(dynamics.arguments.max_rounds),
            "cost_weight": number(dynamics.w_cost[0]),
            "budget": number(dynamics.usd_left[0]),
            "question": self.texts.state(int(dynamics.state[0])),
        }

    def cut(self, text: str) -> str:
        return protocol.cut(text)

    # -- a turn -------------------------------------------------------------------------------------------------

    def play(self, turn: Turn) -> None:
        action = protocol.first_action(turn.kept)
        answered = action is not None and action.kind == protocol.ANSWER
        if action is not None and answered:
            self._answer(turn, action.body)
        elif action is not None and self.turns_left:
            said = self._search(turn, action.body)
            turn.reply = "" if said is None else f"\n\n{tagged('information', said)}\n\n"
        stopped = turn.terminated or turn.truncated  # by the numeric environment: nothing is left to do
        turn.terminated |= not self.turns_left and not turn.truncated
        information = tagged("information", "") if turn.reply else ""
        self._judged += turn.kept + (information if self.fixed else turn.reply)
        ended = turn.terminated or turn.truncated
        if ended:
            self._check_format(turn, finished=answered or not stopped)
        if self.dynamics.arguments.reward != "linear":
            turn.reward = self._router_r1(turn) if ended else 0.0

    def _search(self, turn: Turn, body: str) -> str | None:
        """What the pool says to a search; None where nothing is said."""
        route = protocol.parse_route(body)
        if route is None:
            return None
        choice = self.resolve(route.name)
        if choice is None:
            return NOTHING
        layout = self.numeric.layout
        way = self._meant(route.query)
        if way.action is not None and self.move(turn, way.action):
            return NOTHING
        before = int(self.dynamics.num_heard[0])
        self.move(turn, layout.action("call", choice))
        if int(self.dynamics.num_heard[0]) == before:
            return NOTHING
        return self._said(int(self.dynamics.heard_row[0, before]), float(self.dynamics.verdict_seen[0, before]))

    def _said(self, row: int, verdict: float) -> str:
        """The reply in `row`, as the router reads it."""
        reply = self.texts.reply(row)
        if leads_on(self.dynamics, row) < 0:  # the quality of others is about a sub-question
            self._heard.append(reply)
        if reply.error is not None:
            return NOTHING
        text = self.tokens.head(reply.text, POOL_TOKENS)
        text = protocol.without_tags(text) if self.fixed else text
        checked = "" if np.isnan(verdict) else f" [checker: {verdict:.2g}]"
        return self.tokens.head(text, max(0, self.limits.reply_tokens - self.tokens.count(checked))) + checked

    def _ways(self) -> Iterator[Way]:
        """What a query may be about, in the order in which ties are decided."""
        dynamics, layout = self.dynamics, self.numeric.layout
        mask = dynamics.action_mask[0]
        yield Way(int(dynamics.state[0]), None)
        think = layout.action("think")
        if mask[think]:
            yield Way(int(dynamics.slots["think_state"][0]), think)
        if dynamics.rounds_left[0] > 0:
            for choice in dynamics.heard_choice[0, : dynamics.num_heard[0]]:
                accept = layout.action("accept", int(choice))
                following = leads_to(dynamics, accept)
                if mask[accept] and following >= 0:
                    yield Way(following, accept)

    def _meant(self, query: str) -> Way:
        """The way whose text has the most in common with the query."""
        return max(self._ways(), key=lambda way: f1(query, [self.texts.state(way.state)]))

    def _answer(self, turn: Turn, written: str) -> None:
        """Accept the latest heard reply that says this and can be accepted for good, else score what is written."""
        dynamics, layout = self.dynamics, self.numeric.layout
        key = answer_key(written)
        here = range(int(dynamics.num_heard[0]))
        for position in reversed(here):
            choice = int(dynamics.heard_choice[0, position])
            accept = layout.action("accept", choice)
            latest = int(dynamics.latest_row[0, choice])
            final = dynamics.rounds_left[0] == 0 or leads_to(dynamics, accept) < 0
            if final and key and answer_key(self.texts.reply(latest).said) == key:
                self.move(turn, accept)
                return
        earlier = (reply.quality for reply in reversed(self._heard) if key and answer_key(reply.said) == key)
        quality = next((known for known in earlier if known is not None), None)
        root = int(dynamics.task[0])
        self.settle(turn, self.texts.score(root, written) if quality is None else quality)

    # -- the reward ---------------------------------------------------------------------------------------------

    def _check_format(self, turn: Turn, finished: bool) -> None:
        faults = protocol.format_faults(self._judged, self.resolve, finished)
        if faults:
            self.fault(turn, *faults)

    def _router_r1(self, turn: Turn) -> float:
        """Reward of the whole episode, which this turn ends."""
        arguments, dynamics = self.dynamics.arguments, self.dynamics
        totals = self.totals + turn.vector
        right = totals[QUALITY] if arguments.reward_metric == "f1" else float(totals[QUALITY] >= EXACT_MATCH)
        cost_usd = totals[COST_USD] if self.fixed else float(dynamics.totals.output_cost_usd[0])
        if arguments.reward_window == "running":
            low, high = push(self._recent, float(np.sqrt(cost_usd)))
        elif self.fixed:
            low, high = self._percentiles
        else:
            reference = dynamics.features.reference
            low, high = reference.root_cost_p5, reference.root_cost_p95
        rule = router_r1_fixed if self.fixed else router_r1
        return rule(right, float(totals[FORMAT]), float(cost_usd), float(dynamics.w_cost[0]), low, high)

    @cached_property
    def _percentiles(self) -> tuple[float, float]:
        """Of √cost of whole calls, prompts included, under uniform routing on train."""
        dynamics = self.dynamics
        return root_cost_percentiles(dynamics.arrays, dynamics.split, np.asarray(dynamics.arrays.cost_usd))

    # -- the other direction ------------------------------------------------------------------------------------

    def narrate(self, action: int, rationale: str = "", dynamics: Any = None) -> str | None:
        dynamics = dynamics or self.dynamics
        kind, choice = self.numeric.layout.describe_action(action)
        reason = tagged("think", rationale or "I go on.")
        if kind == "call":
            question = self.texts.state(int(dynamics.state[0])).replace(":", " ")
            return f"{reason}{tagged('search', f' {dynamics.pool.names[choice]}:{question} ')}"
        if kind == "accept" and (dynamics.rounds_left[0] == 0 or leads_to(dynamics, action) < 0):
            reply = self.texts.reply(int(dynamics.latest_row[0, choice]))
            return f"{reason}{tagged('answer', reply.said)}"
        return None


def leads_to(dynamics: Any, accept: int) -> int:
    """The sub-question that a legal `accept` action opens; −1 where it ends the episode, or nothing was heard."""
    _, choice = dynamics.layout.describe_action(accept)
    row = int(dynamics.latest_row[0, choice])
    return -1 if row < 0 else leads_on(dynamics, row)


def leads_on(dynamics: Any, row: int) -> int:
    """The sub-question that the response in `row` leads to; −1 where accepting it ends the episode."""
    following = int(dynamics.arrays.next_state[row])
    return -1 if following < 0 or dynamics.arrays.terminal[following] else following
