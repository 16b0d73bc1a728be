"""The text faces: a state as a prompt, a decision as a written turn. The numeric environment plays what is decided.

A text environment holds the scalar environment of its family and adds a transcript. A turn of the policy is parsed
into numeric actions; whatever they cost and bring is what the numeric environment says.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np

from rlroute.envs.faces import RoutingEnv
from rlroute.envs.prompts import Prompt, prompt_path
from rlroute.rewards import COST_USD, FORMAT, QUALITY, VECTOR_NAMES, linear

MAX_CHARACTERS = 1 << 20
CHARACTERS_PER_TOKEN = 4
MILLION = 1e6


class AnyText(gym.spaces.Text):
    """Every string of at most `max_length` characters, whatever they are; samples are letters and digits."""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


class Tokens(Protocol):
    """How a router counts: by its tokenizer, or by `FourCharacters`."""

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ...

    def head(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text."""
        ...

    def tail(self, text: str, limit: int) -> str:
        """The last `limit` tokens of a text."""
        ...


class FourCharacters:
    """Four characters a token [ours]: near enough for English where no tokenizer is at hand."""

    def count(self, text: str) -> int:
        return -(-len(text) // CHARACTERS_PER_TOKEN)

    def head(self, text: str, limit: int) -> str:
        return text[: CHARACTERS_PER_TOKEN * limit]

    def tail(self, text: str, limit: int) -> str:
        return text[max(0, len(text) - CHARACTERS_PER_TOKEN * limit) :]


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens of the router's tokenizer (Router-R1's, arXiv 2506.09033, code)."""

    context_tokens: int = 4096  # of a transcript; what is older falls off its beginning
    prompt_tokens: int = 2048  # of the prompt, likewise
    turn_tokens: int = 1024  # of a turn of the policy; it is cut there
    reply_tokens: int = 600  # of what an environment adds after a turn

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a number of tokens ≥ 1")
        if self.prompt_tokens + self.turn_tokens > self.context_tokens:
            raise ValueError(
                f"context_tokens={self.context_tokens}: too short for one round, expected at least "
                f"{self.prompt_tokens + self.turn_tokens} (prompt_tokens + turn_tokens)"
            )


@dataclass
class Turn:
    """What a turn of the policy brought."""

    kept: str  # the part of what it wrote that counted
    reply: str = ""  # what the environment wrote after it
    reward: float = 0.0
    vector: np.ndarray = field(default_factory=lambda: np.zeros(len(VECTOR_NAMES)))  # see rlroute.rewards
    terminated: bool = False
    truncated: bool = False


class RoutingTextEnv(gym.Env[str, str], gym.utils.EzPickle):
    """A family over texts. The observation is the transcript so far, the action a turn of the policy.

    Arguments beside those of the family: `prompt` ("full", "brief", or the path of a template), `tokens` (how the
    router counts, see `Tokens`), `router_usd_per_mtok` (price of a million tokens that the router itself writes: part
    of the cost and of the reward `linear`, not charged to the family's budget) and the lengths of `Limits`. ``info``
    holds, beside that of the numeric face, `reply` (what was added after the turn), `kept` (the part of the turn that
    counted), `faults` of format so far and `turns_left`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    numeric_type: ClassVar[type[RoutingEnv]]
    folder: ClassVar[Path]  # of the family, where its templates lie
    fields: ClassVar[tuple[str, ...]]  # of its templates
    stops: ClassVar[tuple[str, ...]]  # a turn ends after any of these

    def __init__(
        self,
        *,
        prompt: str | Path = "full",
        tokens: Tokens | None = None,
        router_usd_per_mtok: float = 0.0,
        context_tokens: int = Limits.context_tokens,
        prompt_tokens: int = Limits.prompt_tokens,
        turn_tokens: int = Limits.turn_tokens,
        reply_tokens: int = Limits.reply_tokens,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        lengths = {
            "context_tokens": context_tokens,
            "prompt_tokens": prompt_tokens,
            "turn_tokens": turn_tokens,
            "reply_tokens": reply_tokens,
        }
        own = {"prompt": prompt, "tokens": tokens, "router_usd_per_mtok": router_usd_per_mtok, **lengths}
        gym.utils.EzPickle.__init__(self, **own, render_mode=render_mode, **arguments)
        if not 0 <= router_usd_per_mtok < np.inf:
            raise ValueError(f"router_usd_per_mtok={router_usd_per_mtok!r}: expected a price ≥ 0 in USD")
        if arguments.get("obs", "features") != "features":
            raise ValueError(f"obs={arguments['obs']!r} is for numeric faces: expected none, a text face shows texts")
        self.limits = Limits(**lengths)
        self.tokens: Tokens = tokens or FourCharacters()
        self.router_usd_per_mtok = router_usd_per_mtok
        self.template = Prompt(prompt_path(prompt, self.folder), self.fields)
        self.numeric = self.numeric_type(render_mode=render_mode, **arguments)
        self.render_mode = render_mode
        self.observation_space = AnyText(MAX_CHARACTERS)
        self.action_space = AnyText(MAX_CHARACTERS)
        self.prompt = self.transcript = ""
        self.written: list[tuple[str, str]] = []  # (turn, reply) so far
        self.faults: tuple[str, ...] = ()
        self.router_tokens = 0  # that the policy wrote in this episode
        self.totals = np.zeros(len(VECTOR_NAMES))
        self.turns_left = 0
        self._info: dict[str, Any] = {}  # of the numeric environment's latest step

    # -- what a family provides ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """Turns of the policy in an episode, at most."""

    @abstractmethod
    def situation(self) -> dict[str, str]:
        """The fields of the template at the beginning of an episode."""

    @abstractmethod
    def cut(self, text: str) -> str:
        """`text` up to where the turn ends by the protocol."""

    @abstractmethod
    def play(self, turn: Turn) -> None:
        """Act on what `turn.kept` decides, by `move`, and fill in the rest of the turn."""

    @abstractmethod
    def narrate(self, action: int, rationale: str = "", dynamics: Any = None) -> str | None:
        """The turn that decides for a numeric action, where `dynamics` (by default its own) stand.

        None where the decision is told by a later turn.
        """

    # -- the Gymnasium interface --------------------------------------------------------------------------------

    @property
    def dynamics(self) -> Any:
        """The family's dynamics, a batch of one."""
        return self.numeric.dynamics

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        _, info = self.numeric.reset(seed=seed, options=options)
        self._info = info
        self.written, self.faults, self.router_tokens = [], (), 0
        self.totals = np.zeros(len(VECTOR_NAMES))
        self.turns_left = self.max_turns
        self.begin()
        prompt = self.tokens.tail(self.template.fill(self.situation()), self.limits.prompt_tokens)
        self.prompt = self.transcript = prompt
        return self.transcript, self._told(Turn(""))

    def begin(self) -> None:
        """An episode has begun: forget the one before."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if not isinstance(action, str):
            raise TypeError(f"a turn of type {type(action).__name__}: expected a string")
        if not self.turns_left:
            raise gym.error.ResetNeeded("the episode is over: expected a reset before the next turn")
        turn = Turn(self.cut(self.tokens.head(action, self.limits.turn_tokens)))
        self.turns_left -= 1
        self._charge(turn)
        self.play(turn)
        turn.reply = "" if turn.terminated or turn.truncated else turn.reply
        if turn.terminated or turn.truncated:
            self.turns_left = 0
        self.written.append((turn.kept, turn.reply))
        self.totals = self.totals + turn.vector
        whole = self.transcript + turn.kept + turn.reply
        self.transcript = self.tokens.tail(whole, self.limits.context_tokens)[-MAX_CHARACTERS:]
        return self.transcript, float(turn.reward), turn.terminated, turn.truncated, self._told(turn)

    def render(self) -> Any:
        """The prompt and all turns so far, with render_mode="ansi"."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without render_mode="ansi"')
            return None
        return self.prompt + "".join(kept + reply for kept, reply in self.written)

    # -- for families -------------------------------------------------------------------------------------------

    def move(self, turn: Turn, action: int) -> bool:
        """Step the numeric environment; its reward goes to the turn. Returns whether its episode is over."""
        _, reward, terminated, truncated, self._info = self.numeric.step(action)
        turn.reward += reward
        turn.vector += self._info["reward_vector"]
        turn.terminated |= terminated
        turn.truncated |= truncated
        return terminated or truncated

    def settle(self, turn: Turn, quality: float) -> None:
        """End the episode with a quality that the numeric environment does not know."""
        turn.reward += quality
        turn.vector[QUALITY] += quality
        turn.terminated = True

    def fault(self, turn: Turn, *faults: str) -> None:
        """Malformed text: −1, once a turn."""
        self.note(turn, *faults)
        turn.reward -= 1.0

    def note(self, turn: Turn, *faults: str) -> None:
        """Malformed text whose reward is paid elsewhere."""
        self.faults += faults
        turn.vector[FORMAT] = -1.0

    def _charge(self, turn: Turn) -> None:
        written = self.tokens.count(turn.kept)
        self.router_tokens += written
        cost_usd = written * self.router_usd_per_mtok / MILLION
        turn.vector[COST_USD] += cost_usd
        if self.dynamics.arguments.reward == "linear":
            turn.reward += linear(0.0, cost_usd, 0.0, self.dynamics.w_cost[0], 0.0, self.dynamics.c_ref, 1.0)

    def _told(self, turn: Turn) -> dict[str, Any]:
        return {
            **self._info,
            "reward_vector": turn.vector,
            "totals": self.totals.copy(),
            "reply": turn.reply,
            "kept": turn.kept,
            "faults": self.faults,
            "turns_left": self.turns_left,
        }


def tagged(tag: str, body: str) -> str:
    """``<tag>body</tag>``."""
    return f"<{tag}>{body}</{tag}>"
