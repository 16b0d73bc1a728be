"""What live episodes share: a policy's pool, units and text model, and the terms an episode is played for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.observing import text_size
from rlroute.envs.recording import CALL_SIZE, PROMPT_TOKENS, Recording, price_features, state_rows
from rlroute.envs.slots import idle_slots
from rlroute.envs.terms import TermRanges, Terms, ends
from rlroute.features import TextModel
from rlroute.jit import records
from rlroute.policy import WEIGHTS_FILE, PolicyError, TrainedPolicy
from rlroute.pool import Pool
from rlroute.prices import is_billed
from rlroute.router import Response, require_number

# The terms of an episode, and the arguments of training that say where they came from.
TRAINED = {
    "cost_weight": "preference",
    "latency_weight": "latency_preference",
    "budget_usd": "budget_usd",
    "budget_calls": "budget_calls",
}
POOL_COLUMNS = tuple(name for name in Pool.__dataclass_fields__ if name != "names")
PRICES = ("input_usd", "cached_input_usd", "output_usd")
TEXT_TENSORS = ("components", "centre", "scale", "prior_weights", "prior_bias", "extra_mean", "extra_scale")


class LiveEpisode(ABC):
    """What any live episode has: a layout, the terms it is played for, and what was spent."""

    # Terms that this family has no use for, with what to give instead: refused, since ignoring a cap would break it.
    foreign_terms: ClassVar[dict[str, str]] = {}
    slot_fields: ClassVar[dict[str, Any]]  # what its slot holds, as in the family's dynamics
    sections: ClassVar[dict[str, type]] = {"arguments": dict, "choices": dict, "reference": dict, "constants": dict}

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        """Raises PolicyError where the policy lacks something that a live episode needs; a family adds its own."""
        for section, kind in cls.sections.items():
            policy.value(section, kind=kind)
        policy.value("arguments", "obs")
        ranges: list[Any] = [
            None if name in cls.foreign_terms else policy.value("arguments", argument)
            for name, argument in TRAINED.items()
        ]
        try:
            TermRanges(*ranges)
        except (TypeError, ValueError) as error:
            raise policy.fault(("arguments",), f"unusable terms ({error})", "those of an environment") from error
        for unit in ("cost_usd", "latency_s"):
            policy.value("reference", unit, kind=Real)
        choices, size = policy.card["choices"], policy.layout.num_choices
        if len(choices) != size:
            raise policy.fault(("choices",), f"{len(choices)} choices", f"{size}, as in the layout")

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        card = policy.card
        self.layout = policy.layout
        self.c_ref, self.l_ref = card["reference"]["cost_usd"], card["reference"]["latency_s"]
        self.arguments: dict[str, Any] = card["arguments"]
        self.constants: dict[str, float] = card["constants"]
        if self.arguments["obs"] != "features":
            raise ValueError("this policy observes rows of its log (obs='index') and cannot act on live texts")
        self.untrained: list[str] = []
        self.slots = idle_slots(1, self.slot_fields)
        self.terms = Terms(*(self.slots[name] for name in Terms._fields))
        self._set_terms(terms)
        self.slots["usd_left"] = self.slots["budget_usd"]
        self.usd_left, self.spent_usd = self.slots["usd_left"], self.slots["cost_usd"]

    def _set_terms(self, given: Mapping[str, float | None]) -> None:
        for name, argument in TRAINED.items():
            value = given[name]
            trained: Any = self.arguments.get(argument)
            if value is not None:
                self._refuse_or_note(name, value, trained)
                self.slots[name] = value
            elif name.endswith("_weight"):
                low, high = ends(trained)
                self.slots[name] = np.sqrt(low * high)

    def _refuse_or_note(self, name: str, value: float, trained: Any) -> None:
        """Refuses a term that means nothing here, and notes one that the policy never saw in training."""
        if name in self.foreign_terms:
            raise ValueError(f"{name}: found {value!r}, expected {self.foreign_terms[name]}")
        require_number(name, value, whole=name == "budget_calls")
        outside = f"{name} is outside what the policy was trained on"
        if trained is None:
            self.untrained.append(f"{outside}: it never saw such a cap")
            return
        low, high = ends(trained)
        # Weights drawn in training come out of a power, and may miss an end by a rounding.
        if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
            self.untrained.append(f"{outside}: {low:g}" + (f" to {high:g}" if low < high else ""))

    @property
    @abstractmethod
    def choices(self) -> tuple[str, ...]:
        """Names of the choices of this episode, in the order of the layout."""

    @abstractmethod
    def completion_limit(self, choice: int) -> int | None:
        """The limit of completion tokens to send with a call; None where there is none."""

    def accepted(self, choice: int) -> tuple[int, int]:
        """Whose response is accepted, and which; for families that can accept."""
        raise RuntimeError("nothing can be accepted here: expected a call")

    def checked(self, verdict: float) -> None:
        """The verdict on the latest response, for families that can check."""
        raise RuntimeError("nothing was checked: expected record() of a call")

    def pay(self, cost_usd: float) -> float:
        self.usd_left -= cost_usd
        self.spent_usd += cost_usd
        return cost_usd


class LiveBase(LiveEpisode):
    """The batch of one that the observation functions of replay families expect, from a policy instead of a log."""

    estimates: ClassVar[tuple[str, ...]]  # as in the family's dynamics
    sections = {**LiveEpisode.sections, "extra_names": list, "featuriser": str}

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        for choice in policy.card["choices"]:
            for column in POOL_COLUMNS:
                policy.value("choices", choice, column, kind=Real)
            for column in PRICES:
                cls.check_price(policy, "choices", choice, column)
        for name in TEXT_TENSORS:
            if f"text/{name}" not in policy.tensors:
                raise PolicyError(policy.folder / WEIGHTS_FILE, f"tensors.text/{name}", "no such tensor", "an array")

    @staticmethod
    def check_price(policy: TrainedPolicy, *path: str) -> None:
        """A negative or undefined price would refund the budget."""
        price = policy.value(*path, kind=Real)
        if not 0 <= price < np.inf:
            raise policy.fault(path, repr(price), "a price ≥ 0")

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        self.pool = Pool.from_dict(policy.card["choices"])
        self.model = TextModel.from_tensors(policy.card["featuriser"], policy.tensors)
        self.extra_names: list[str] = policy.card["extra_names"]
        self._text: str | None = None
        unknown = self.pool.without_limit()
        if terms["budget_usd"] is not None and unknown:
            raise ValueError(
                f"budget_usd needs max_completion_tokens and prices of every choice, unknown for: {', '.join(unknown)}"
            )

    @property
    def choices(self) -> tuple[str, ...]:
        return self.pool.names

    def completion_limit(self, choice: int) -> int | None:
        limit = int(self.pool.max_completion_tokens[choice])
        return limit if limit >= 0 else None

    def read(self, text: str, features: Mapping[str, float], prompt_tokens: int) -> None:
        """Turn the text at hand into features, (1, …) each."""
        missing = [name for name in self.extra_names if name not in features]
        unknown = [name for name in features if name not in self.extra_names]
        if missing or unknown:
            found = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
            raise ValueError(f"features {found}: expected {', '.join(self.extra_names) or 'none'}")
        if text != self._text:
            self._full_text = self.model.texts([text])
            self._text = text
        # A log keeps extra features in single precision.
        given = np.array([features[name] for name in self.extra_names], np.float32)
        extra = self.model.standardise(given[None].astype(np.float64))
        components = self.model.project(self._full_text)[:, : text_size(self.layout)]
        prior, prospect = self.model.estimates(self._full_text, extra)
        self.prompt_tokens = np.full((1, self.pool.size), prompt_tokens)
        price = price_features(self.pool, self.prompt_tokens, self.c_ref)
        estimates = {"prior": prior, "prospect": prospect, "price": price}
        known = (components, extra, *(estimates[name] for name in self.estimates))
        calls = np.zeros((1, self.pool.size, CALL_SIZE), np.int32)
        calls[:, :, PROMPT_TOKENS] = self.prompt_tokens
        nothing = np.zeros((1, self.pool.size), np.int16)
        rows = state_rows(nothing[:, 0], calls, nothing[:, 0], nothing, np.concatenate(known, axis=1))
        self.recording = Recording(rows.shape[1], rows, rows.view(np.int16), records(0, {}))

    @abstractmethod
    def callable(self) -> np.ndarray:
        """(1, num_choices) bool: choices that may be called now."""

    @abstractmethod
    def write(self, out: np.ndarray) -> None:
        """Fill `out`, (1, layout.size) float32, by the family's observation kernels."""

    def observe(self) -> np.ndarray:
        """(1, layout.size) float32."""
        out = np.empty((1, self.layout.size), np.float32)
        self.write(out)
        return out

    def affordable(self) -> np.ndarray:
        """(1, num_choices) bool: choices whose reserve is covered."""
        if not np.isfinite(self.usd_left[0]):
            return np.ones((1, self.pool.size), bool)
        return self.pool.reserve_usd(self.prompt_tokens) <= self.usd_left[:, None]

    def cost_usd(self, choice: int, response: Response, cached_tokens: int) -> float:
        """What the provider says a call cost, or what its tokens cost; 0 for an error unbilled or without tokens."""
        if response.cost_usd is not None:
            return response.cost_usd
        if not is_billed(response.error):
            return 0.0
        if response.completion_tokens is None:
            if response.error is not None:
                return 0.0
            raise ValueError("record() needs cost_usd or completion_tokens (and prompt_tokens) to keep the budget")
        prompt = response.prompt_tokens if response.prompt_tokens is not None else int(self.prompt_tokens[0, choice])
        cached = response.cached_tokens if response.cached_tokens is not None else cached_tokens
        one = np.array([choice])
        tokens = (np.array([n]) for n in (prompt, min(cached, prompt), response.completion_tokens))
        return float(self.pool.cost_usd(one, *tokens)[0])
