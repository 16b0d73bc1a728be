"""Built-in logs: seeded, bit-for-bit repeatable, and shipped with the probabilities they were drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlroute.log import Log


def _questions() -> Log:
    from rlroute.generators.questions import generate

    return generate()


def _tasks() -> Log:
    from rlroute.generators.tasks import generate

    return generate()


def _efforts() -> Log:
    from rlroute.generators.efforts import generate

    return generate()


GENERATORS: dict[str, Callable[[], Log]] = {"questions": _questions, "tasks": _tasks, "efforts": _efforts}
