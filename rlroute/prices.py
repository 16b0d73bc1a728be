"""List prices with source and date, the price of a call, and how to replace either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROUTER_R1 = "Router-R1 (arXiv 2506.09033), price table of its code"
GPT_5 = "list prices of GPT-5 (platform.openai.com)"
GPT_4_1 = "list prices of the GPT-4.1 family (platform.openai.com)"

# Errors that providers do not charge for begin like this: 429 and 5xx.
UNBILLED = r"^(429|5\d\d)\b"
# Seconds a provider keeps a cached prefix where it does not say.
DEFAULT_CACHE_TTL_S = 300.0


@dataclass(frozen=True)
class Price:
    """What a model costs, USD per million tokens, with where and when the price was read."""

    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None
    cached_input_usd_per_mtok: float | None = None
    price_source: str = ""
    price_date: str = ""

    def to_row(self) -> dict[str, Any]:
        """The price columns of a row of the choices table."""
        return asdict(self)


def _output_only(usd: float) -> Price:
    """Router-R1 charges completion tokens and gives prompts away."""
    return Price(0.0, usd, None, ROUTER_R1, "2025-06-10")


PRICES: dict[str, Price] = {
    "qwen2.5-7b-instruct": _output_only(0.30),
    "llama-3.1-70b-instruct": _output_only(0.88),
    "llama-3.1-8b-instruct": _output_only(0.18),
    "mistral-7b-instruct": _output_only(0.20),
    "mixtral-8x22b-instruct": _output_only(1.20),
    "gemma-2-27b-it": _output_only(0.80),
    "palmyra-creative-122b": _output_only(1.80),
    "llama3-chatqa-1.5-8b": _output_only(0.18),
    "gpt-5": Price(1.25, 10.0, 0.125, GPT_5, "2025-08-07"),
    "gpt-4.1": Price(2.0, 8.0, 0.50, GPT_4_1, "2025-04-14"),
    "gpt-4.1-mini": Price(0.40, 1.60, 0.10, GPT_4_1, "2025-04-14"),
}


def price_of(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """The price of a model, exactly by name (after the provider's prefix and without its version tag).

    ``overrides`` come first. There is no match by substring: a model that is not listed has no price.
    """
    if overrides and model in overrides:
        return overrides[model]
    short = re.sub(r"-v\d+(\.\d+)*$", "", model.lower().rsplit("/", 1)[-1])
    return PRICES.get(short)


def is_billed(error: str | None) -> bool:
    """Whether a call is charged: nothing for 429 and 5xx, full price for every other error and for none."""
    return error is None or re.match(UNBILLED, error) is None


def call_cost_usd(
    prompt_tokens: np.ndarray,
    cached_tokens: np.ndarray,
    completion_tokens: np.ndarray,
    input_usd: np.ndarray,
    cached_input_usd: np.ndarray,
    output_usd: np.ndarray,
) -> np.ndarray:
    """USD of calls from tokens and USD a token, elementwise; unknown (negative) token counts count as 0."""
    prompt = np.maximum(prompt_tokens, 0)
    cached = np.minimum(np.maximum(cached_tokens, 0), prompt)
    usd: np.ndarray = (prompt - cached) * input_usd + cached * cached_input_usd
    usd += np.maximum(completion_tokens, 0) * output_usd
    return usd
