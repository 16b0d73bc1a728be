"""Labels of minimum sufficient effort, computed from a log (Ares, arXiv 2603.07915).

`ares` labels follow the paper: take the all-high success of fewest steps; at each of its steps a level suffices if a
majority of its attempts repeats the step's action; the label is the lowest level that does. `value` labels [ours]: a
level suffices where a majority of its attempts reaches states from which all-high still succeeds, more likely than not;
they are defined for every state, not only on that path. Steps where no level suffices are dropped, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.features import SPLITS
from rlroute.graph import always
from rlroute.report import write_text

if TYPE_CHECKING:
    from rlroute.log import Log

LEAST_ATTEMPTS = 3  # K of the paper
KINDS = ("ares", "value")


@dataclass(frozen=True)
class Labels:
    """The label of every state: a choice of the log, −1 where there is none."""

    level: np.ndarray  # (S,)
    considered: int  # states that could have got one
    dropped: int  # of them, those where no level suffices


def label_states(log: Log, levels: Sequence[int], kind: str = "value") -> Labels:
    """Labels of the states of a log; `levels` are its choices from the least effort to the most.

    Raises ValueError where a state has fewer than three attempts at a level, or has no actions though `ares` needs
    them.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    arrays = log.arrays
    acting = ~np.asarray(arrays.terminal)
    short = acting[:, None] & (np.asarray(arrays.num_attempts) < LEAST_ATTEMPTS)
    if short.any():
        state, choice = np.argwhere(short)[0]
        raise ValueError(
            f"log {log.name!r}: state {str(arrays.state_ids[state])!r} has {arrays.num_attempts[state, choice]} "
            f"attempts at level {arrays.choice_names[choice]!r}, expected at least {LEAST_ATTEMPTS} for a majority"
        )
    considered, good = (_on_path if kind == "ares" else _everywhere)(log, acting, levels[-1])
    suffices = _majority(arrays, good)  # (S, C)
    level = np.full(arrays.num_states, -1)
    for choice in reversed(list(levels)):
        level = np.where(suffices[:, choice], choice, level)
    level = np.where(considered, level, -1)
    return Labels(level, int(considered.sum()), int((considered & (level < 0)).sum()))


def _everywhere(log: Log, acting: np.ndarray, high: int) -> tuple[np.ndarray, np.ndarray]:
    """States to label, and of every response whether it leads to where all-high still succeeds."""
    arrays = log.arrays
    return acting, success_after(arrays, high) >= 0.5


def success_after(arrays: LogArrays, choice: int) -> np.ndarray:
    """(R,) chance that a task succeeds if after this response one choice is taken always."""
    quality = always(arrays)[0][:, choice]
    worth = np.where(arrays.terminal, arrays.success, np.nan_to_num(quality))
    following = np.asarray(arrays.next_state)
    return np.where(following >= 0, worth[following], 0.0)


def _on_path(log: Log, acting: np.ndarray, high: int) -> tuple[np.ndarray, np.ndarray]:
    """States on the fewest-step all-high successes, and of every response whether it repeats the step's action."""
    import pyarrow.compute as pc

    arrays = log.arrays
    column = log.source("responses").encoded("action")
    if pc.is_null(column.indices).to_numpy(zero_copy_only=False).all():
        raise ValueError(f"log {log.name!r}: column action of responses is empty, expected normalised actions")
    keys, attempt = log.keys, log.source("responses").column("attempt").to_numpy(zero_copy_only=False)
    cell = keys.state.astype(np.int64) * arrays.num_choices + keys.choice
    order = np.lexsort((attempt, cell))  # rows of the table in the order of the arrays
    action = np.asarray(column.indices.fill_null(-1).to_numpy(zero_copy_only=False))[order]
    steps = np.where(arrays.terminal & arrays.success, 0.0, np.inf)
    chosen = np.full(arrays.num_states, -1)
    row_cell = arrays.row_cell
    state, choice = np.divmod(row_cell, arrays.num_choices)
    rows = np.flatnonzero((choice == high) & (arrays.next_state >= 0))
    for row in rows[np.argsort(-arrays.step[state[rows]], kind="stable")]:
        through = 1.0 + steps[arrays.next_state[row]]
        if through < steps[state[row]]:
            steps[state[row]], chosen[state[row]] = through, row
    on_path = np.zeros(arrays.num_states, bool)
    for root in np.flatnonzero(arrays.root & np.isfinite(steps)):
        at = int(root)
        while chosen[at] >= 0 and not arrays.terminal[at]:
            on_path[at] = True
            at = int(arrays.next_state[chosen[at]])
    expected = np.where(chosen >= 0, action[chosen], -2)
    return on_path & acting, action == expected[state]


def _majority(arrays: LogArrays, good: np.ndarray) -> np.ndarray:
    """(S, C) bool: more than half of the attempts of a cell are `good` (R,)."""
    counts = np.bincount(arrays.row_cell, good, minlength=arrays.num_states * arrays.num_choices)
    attempts = np.asarray(arrays.num_attempts)
    return (2 * counts.reshape(attempts.shape) > attempts) & (attempts > 0)


def export_labels(log: Log, labels: Labels, path: str | Path, split: str = "train", split_salt: int = 0) -> int:
    """Write the labelled states of a split as JSON lines of text and label; returns how many."""
    wanted = np.flatnonzero((labels.level >= 0) & (log.splits(split_salt) == SPLITS.index(split)))
    names = log.arrays.choice_names
    lines = [
        json.dumps({"text": log.state_text(int(s)), "label": names[labels.level[s]]}, ensure_ascii=False)
        for s in wanted
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def keep_prompts(rewards: np.ndarray, success: np.ndarray, share: float = 0.3) -> np.ndarray:
    """The prompt filter of the paper, (P,) bool, from rollouts (P, 8) of their rewards and successes.

    Prompts without a success are dropped; of those that always succeed the `share` with the largest variance of reward
    stays; all others stay.
    """
    rate = success.mean(axis=1)
    keep = (rate > 0) & (rate < 1)
    always_won = np.flatnonzero(rate == 1)
    most = always_won[np.argsort(-rewards[always_won].var(axis=1), kind="stable")]
    keep[most[: int(np.ceil(share * len(most)))]] = True
    return keep
