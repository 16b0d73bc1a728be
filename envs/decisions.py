"""Text faces in which every turn is one decision: ``<think>why</think><route>NAME</route>``, after which comes a state.

The tags are [ours]: BoPO and Ares (arXiv 2602.21227, 2603.07915) only say that a rationale precedes the decision.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.text import RoutingTextEnv, Turn, tagged

OPEN, CLOSE = "<route>", "</route>"


class DecisionTextEnv(RoutingTextEnv):
    """One legal name between the tags; what stands before it is rationale, what follows is cut off.

    A turn without a name, or with one that is unknown, changes nothing, is rewarded with −1 and counts towards the time
    limit, as a masked action does; with `malformed_ends` it ends the episode. A known name that is masked is the
    numeric environment's masked action, unless a family takes another `instead`.
    """

    stops: ClassVar[tuple[str, ...]] = (CLOSE,)
    malformed_ends: bool = False

    @abstractmethod
    def name(self, action: int, dynamics: Any) -> str:
        """How a numeric action is written."""

    @abstractmethod
    def state(self) -> str:
        """The state as it stands, as text."""

    @property
    def max_turns(self) -> int:
        return int(self.dynamics.max_episode_steps)

    def cut(self, text: str) -> str:
        end = text.find(CLOSE)
        return text if end < 0 else text[: end + len(CLOSE)]

    def play(self, turn: Turn) -> None:
        name = decided(turn.kept)
        actions = range(self.numeric.layout.num_actions)
        names = {self.name(action, self.dynamics).lower(): action for action in actions}
        if name.lower() in names:
            self.move(turn, self.instead(names[name.lower()]))
        else:
            self.pass_over(turn, f"unknown name {name!r}" if name else "no decision")
        turn.truncated |= not self.turns_left and not turn.terminated
        turn.reply = f"\n\n{tagged('state', self.tokens.head(self.state(), self.limits.reply_tokens))}\n\n"

    def instead(self, action: int) -> int:
        """The action that is taken where `action` was decided on."""
        return action

    def pass_over(self, turn: Turn, fault: str) -> None:
        """A malformed turn: a masked action where there is one, so that time passes for the numeric environment too."""
        masked = np.flatnonzero(self.dynamics.action_mask[0] == 0)
        if len(masked):
            self.move(turn, int(masked[0]))
            self.note(turn, fault)
        else:
            self.fault(turn, fault)
        turn.terminated |= self.malformed_ends

    def narrate(self, action: int, rationale: str = "", dynamics: Any = None) -> str:
        reason = tagged("think", rationale) if rationale else ""
        return reason + tagged("route", self.name(action, dynamics or self.dynamics))


def decided(text: str) -> str:
    """What stands in the first ``<route>…</route>``, without white space around it; "" where there is none."""
    start = text.find(OPEN)
    end = text.find(CLOSE, start + len(OPEN))
    return text[start + len(OPEN) : end].strip() if 0 <= start < end else ""
