"""A log with some of its choices taken out, as if they had never been in the pool when it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.dense import think_targets
from rlroute.errors import Fault, LogError
from rlroute.tables import ints

if TYPE_CHECKING:
    from rlroute.log import Log


def without(log: Log, choices: Sequence[str]) -> Log:
    """The log without `choices`: a log of its own, with its own content hash, units and features.

    Their rows go from `choices`, `responses` and `outcomes`, and with them every state that only they led to: what
    they said is part of its text. Other states stay, those that nothing in the whole log leads to included. A
    reference choice on the card is forgotten, and so are figures of the whole pool. Raises LogError where a name is
    unknown, or nothing would be left.
    """
    names = log.source("choices").column("name").to_pylist()
    _refuse(log, choices, names)
    kept_choice = np.array([name not in choices for name in names])
    kept_state = _led_to(log, kept_choice)
    state_ids, choice_names = log.states["state_id"], log.choices["name"]
    tables: dict[str, Any] = {
        "choices": log.choices.filter(_mask(kept_choice)),
        "states": log.states.filter(_mask(kept_state)),
    }
    for name in ("responses", "outcomes"):
        if name in log.sources:
            table = log.source(name)
            rows = kept_choice[table.index("choice", choice_names.combine_chunks())]
            rows &= kept_state[table.index("state_id", state_ids.combine_chunks())]
            tables[name] = table.table().filter(_mask(rows))
    card = replace(
        log.card,
        name=f"{log.name} without {', '.join(name for name in names if name in choices)}",
        content_hash="",
        figures={},
        reference=None,
    )
    return type(log).from_tables(card, **tables)


def _refuse(log: Log, choices: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in choices if name not in names]
    if unknown or len(set(choices)) == len(names):
        found = f"no choice {unknown[0]!r} to leave out" if unknown else "every choice to leave out"
        expected = f"some, but not all, of {', '.join(names)}"
        raise LogError([Fault("choices", None, "name", found, expected)], source=f"log {log.name}")


def _led_to(log: Log, kept_choice: np.ndarray) -> np.ndarray:
    """(S,) bool: states that the kept choices lead to, or that nothing leads to at all."""
    keys, steps = log.keys, ints(log.source("states").column("step"))
    think = think_targets(steps, keys.parent)
    thinker = np.flatnonzero(think >= 0)
    before, after, by = [keys.state], [keys.next_state], [keys.choice]
    if log.has_outcomes:
        outcomes, ids = log.source("outcomes"), log.source("states").column("state_id").combine_chunks()
        before.append(outcomes.index("state_id", ids))
        after.append(outcomes.index("next_state_id", ids))
        by.append(outcomes.index("choice", log.source("choices").column("name").combine_chunks()))
    moves = np.concatenate(after) >= 0
    sources, targets = np.concatenate(before)[moves], np.concatenate(after)[moves]
    stays = kept_choice[np.concatenate(by)[moves]]

    led = np.zeros(len(steps), bool)
    led[targets] = led[think[thinker]] = True
    kept = ~led
    while True:  # at most once for every step of the longest way through the log
        following = np.concatenate([targets[stays & kept[sources]], think[thinker[kept[thinker]]]])
        questions = keys.parent[kept & (keys.parent >= 0)]  # a sub-question needs the question it is part of
        reached = np.concatenate([following, questions])
        reached = reached[~kept[reached]]
        if not len(reached):
            return kept
        kept[reached] = True


def _mask(rows: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(rows)
