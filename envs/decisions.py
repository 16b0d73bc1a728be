"""Text faces in which every turn is one decision: ``<think>why</think><route>NAME</route>``, after which comes a state.

The tags are [ours]: BoPO and Ares (arXiv 2602.21227, 2603.07915) only say that a rationale precedes the decision.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from rlroute.envs.text import RoutingTextEnv, Turn, tagged

OPEN, CLOSE = "<route>", "</route>"


class DecisionTextEnv(RoutingTextEnv):
    """One legal name between the tags; what stands before it is rationale, what follows is cut off.

    A turn without a name, or with one that is unknown, changes nothing, is rewarded with −1 and uses a turn; with
    `malformed_ends` it ends the episode. A known name that is masked is the numeric environment's masked action.
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
            self.move(turn, names[name.lower()])
        else:
            self.fault(turn, f"unknown name {name!r}" if name else "no decision")
            turn.terminated = self.malformed_ends
        turn.truncated |= not self.turns_left and not turn.terminated
        turn.reply = f"\n\n{tagged('state', self.tokens.head(self.state(), self.limits.reply_tokens))}\n\n"

    def narrate(self, action: int, rationale: str = "", dynamics: Any = None) -> str:
        reason = tagged("think", rationale) if rationale else ""
        return reason + tagged("route", self.name(action, dynamics or self.dynamics))


def decided(text: str) -> str:
    """What stands in the first ``<route>…</route>``, without white space around it; "" where there is none."""
    start = text.find(OPEN)
    end = text.find(CLOSE, start + len(OPEN))
    return text[start + len(OPEN) : end].strip() if 0 <= start < end else ""
