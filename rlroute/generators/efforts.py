"""The built-in log `efforts`: agent tasks done by one model at low, mid or high reasoning effort at every step.

The same graphs as `tasks`, with one choice a level of effort instead of one a model. Levels differ in reasoning tokens,
and so in cost and seconds; and in what they are good at: most steps need no thought, some need much, and some are
spoilt by it. Always low, always mid and always high are calibrated to gpt-5 on 225 coding cases of Aider's polyglot
leaderboard: pass 81.3 / 86.7 / 88.0 %, completion tokens 3,465 / 6,528 / 11,660 and seconds 62 / 119 / 194 a case.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rlroute.generators.fields import DOMAINS, Domain, StepKind
from rlroute.generators.tasks import Model, TasksParameters, tables
from rlroute.prices import PRICES

if TYPE_CHECKING:
    from rlroute.log import Log

# Logits of progress (low, mid, high), and the share of failures that ruin the task, by what a step asks for.
ROUTINE = (4.2, 4.3, 4.2)
CAREFUL = (2.9, 3.1, 3.5)  # and not to be undone
THOUGHT = (1.55, 2.0, 3.0)
SPOILT = (3.2, 3.4, 1.5)  # by too much thought
FATAL = (0.45, 0.45, 0.45)

# What the kinds of steps of each field (see fields.DOMAINS) ask of a model that may think.
NEEDS = {
    "kitchen": (ROUTINE, SPOILT, THOUGHT, CAREFUL, THOUGHT),
    "office": (ROUTINE, SPOILT, THOUGHT, CAREFUL, THOUGHT),
    "shop": (ROUTINE, SPOILT, THOUGHT, THOUGHT, CAREFUL),
    "laboratory": (ROUTINE, SPOILT, THOUGHT, THOUGHT, CAREFUL),
}


def _thinking(domain: Domain) -> Domain:
    """A field of work with the needs of its steps in place of the abilities of two models."""
    kinds = [
        StepKind(kind.texts, ease, FATAL if any(kind.fatal) else (0.0, 0.0, 0.0), kind.weight)
        for kind, ease in zip(domain.kinds, NEEDS[domain.name], strict=True)
    ]
    return replace(domain, kinds=tuple(kinds))


def _level(name: str, description: str, median_tokens: float) -> Model:
    """One level of effort of gpt-5, at its list price."""
    price = PRICES["gpt-5"]
    usd = (price.input_usd_per_mtok, price.cached_input_usd_per_mtok, price.output_usd_per_mtok)
    return Model(name, description, *usd, 0.8, 60, median_tokens, visible_tokens=60, kind="effort")  # type: ignore[arg-type]


LEVELS = (
    _level("low", "answers almost at once", 361),
    _level("mid", "thinks a while", 675),
    _level("high", "thinks for long", 1154),
)

DEFAULT = TasksParameters(
    seed=20260707,
    num_attempts=3,
    max_completion_tokens=8192,
    domains=tuple(_thinking(domain) for domain in DOMAINS),
    models=LEVELS,
)


def generate(parameters: TasksParameters = DEFAULT) -> Log:
    """The log `efforts`: bit-for-bit the same for the same parameters."""
    from rlroute.generators.cards import efforts_card
    from rlroute.log import Log

    return Log.from_tables(efforts_card(asdict(parameters)), **tables(parameters))
