"""What live episodes share: a policy's pool, units and text model, and the terms an episode is played for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlroute.envs import observing
from rlroute.envs.terms import Terms, ends
from rlroute.features import TextModel
from rlroute.policy import TrainedPolicy
from rlroute.pool import Pool
from rlroute.prices import is_billed
from rlroute.router import Response


class LiveBase:
    """The batch of one that observation functions expect, from a policy instead of a log."""

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        card = policy.card
        self.layout = policy.layout
        self.pool = Pool.from_dict(card["choices"])
        self.model = TextModel.from_tensors(card["featuriser"], policy.tensors)
        self.c_ref, self.l_ref = card["reference"]["cost_usd"], card["reference"]["latency_s"]
        self.arguments: dict[str, Any] = card["arguments"]
        self.constants: dict[str, float] = card["constants"]
        self.extra_names: list[str] = card["extra_names"]
        if self.arguments["obs"] != "features":
            raise ValueError("this policy observes rows of its log (obs='index') and cannot act on live texts")
        self.terms = self._terms(terms)
        self.usd_left = self.terms.budget_usd.copy()
        self.spent_usd = np.zeros(1)
        self._text: str | None = None

    def _terms(self, given: Mapping[str, float | None]) -> Terms:
        terms = Terms.empty(1)
        for name, argument in (("cost_weight", "preference"), ("latency_weight", "latency_preference")):
            value = given[name]
            low, high = ends(self.arguments[argument])
            getattr(terms, name)[:] = value if value is not None else np.sqrt(low * high)
        if given["budget_usd"] is not None:
            unknown = self.pool.without_limit()
            if unknown:
                raise ValueError(
                    f"budget_usd needs max_completion_tokens of every choice, unknown for: {', '.join(unknown)}"
                )
            terms.budget_usd[:] = given["budget_usd"]
        if given["budget_calls"] is not None:
            terms.budget_calls[:] = given["budget_calls"]
        return terms

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
        extra = np.array([features[name] for name in self.extra_names], np.float32)
        self.extra = self.model.standardise(extra[None].astype(np.float64))
        self.text = self.model.project(self._full_text)[:, : observing.text_size(self.layout)]
        self.prior, self.prospect = self.model.estimates(self._full_text, self.extra)
        self.prompt_tokens = np.full((1, self.pool.size), prompt_tokens)

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

    def checked(self, verdict: float) -> None:
        """The verdict on the latest response, for families that can check."""
        raise RuntimeError("nothing was checked: expected record() of a call")

    def pay(self, cost_usd: float) -> float:
        self.usd_left -= cost_usd
        self.spent_usd += cost_usd
        return cost_usd
