"""What is in a log, in figures: per choice, and what the best choosing could reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlroute.graph import always, best_single, clairvoyant
from rlroute.splits import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

    from rlroute.arrays import LogArrays
    from rlroute.log import Log


@dataclass(frozen=True)
class ChoiceFigures:
    """Means over the roots that a choice answered, always calling and accepting it."""

    name: str
    answered: int
    quality: float
    cost_usd: float
    latency_s: float
    input_usd_per_mtok: float
    output_usd_per_mtok: float


@dataclass(frozen=True)
class Summary:
    """Figures of a log over its roots: questions, or tasks whose quality is the success at the end."""

    name: str
    is_task_log: bool
    roots: int
    states: int
    responses: int
    coverage: str
    splits: dict[str, int]  # roots in each split at salt 0
    choices: tuple[ChoiceFigures, ...]
    best_single: str
    best_single_quality: float
    best_per_task: float
    best_per_root: float  # the best single choice for each root, means over attempts known
    clairvoyant: float  # the best recorded way through the log, draws known
    uniform: float  # mean over choices


def summarise(log: Log) -> Summary:
    """The summary of a log."""
    arrays = log.arrays
    roots = np.flatnonzero(arrays.root)
    quality, cost, latency = (total[roots] for total in always(arrays))
    best = best_single(quality)
    split = log.splits()[roots]
    choices = tuple(
        ChoiceFigures(
            name=name,
            answered=int((~np.isnan(quality[:, c])).sum()),
            quality=_mean(quality[:, c]),
            cost_usd=_mean(cost[:, c]),
            latency_s=_mean(latency[:, c]),
            input_usd_per_mtok=float(arrays.input_usd[c] * 1e6),
            output_usd_per_mtok=float(arrays.output_usd[c] * 1e6),
        )
        for c, name in enumerate(arrays.choice_names)
    )
    answered = ~np.isnan(quality).all(axis=1)
    return Summary(
        name=log.name,
        is_task_log=bool(arrays.terminal.any()),
        roots=len(roots),
        states=arrays.num_states,
        responses=arrays.num_responses,
        coverage=log.card.coverage,
        splits={name: int((split == index).sum()) for index, name in enumerate(SPLITS)},
        choices=choices,
        best_single=arrays.choice_names[best],
        best_single_quality=choices[best].quality,
        best_per_task=_best_per_task(arrays, roots, quality),
        best_per_root=_mean(np.nanmax(quality[answered], axis=1)),
        clairvoyant=_mean(clairvoyant(arrays)[roots]),
        uniform=_mean(quality),
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _best_per_task(arrays: LogArrays, roots: np.ndarray, quality: np.ndarray) -> float:
    """Mean quality where the best choice is known for each task name."""
    total, count = 0.0, 0
    for task in np.unique(arrays.task_name[roots]):
        of_task = quality[arrays.task_name[roots] == task]
        if not np.isnan(of_task).all():
            total += _mean(of_task[:, best_single(of_task)]) * len(of_task)
            count += len(of_task)
    return total / count if count else float("nan")


def render(summary: Summary, log: Log, console: Console) -> None:
    """Print a summary as text."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    card = log.card
    unit = "task" if summary.is_task_log else "query"
    measure = "success" if summary.is_task_log else "quality"

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    say(f"{summary.name}: {card.description.strip()}")
    source = ", ".join(part for part in (card.origin, card.licence) if part)
    if source:
        say(f"from {source}")
    splits = ", ".join(f"{name} {count:,}" for name, count in summary.splits.items())
    say(
        f"{summary.roots:,} root states, {summary.states:,} states, {summary.responses:,} responses; "
        f"coverage {summary.coverage}; {splits}; hash {log.content_hash}"
    )
    shown = {
        "answered": [f"{row.answered:,}" for row in summary.choices],
        measure: [f"{row.quality:.3f}" for row in summary.choices],
        "USD": [f"{row.cost_usd:.3g}" for row in summary.choices],
        "seconds": [f"{row.latency_s:.3g}" for row in summary.choices],
        "USD/M in": [f"{row.input_usd_per_mtok:.3g}" for row in summary.choices],
        "USD/M out": [f"{row.output_usd_per_mtok:.3g}" for row in summary.choices],
    }
    if summary.coverage == "full":
        del shown["answered"]
    # What is 0 everywhere was not recorded.
    shown = {column: cells for column, cells in shown.items() if set(cells) != {"0"}}
    table = Table(
        title=f"always one choice, means a {unit}",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("choice", overflow="fold")
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    order = sorted(range(len(summary.choices)), key=lambda c: -np.nan_to_num(summary.choices[c].quality, nan=-1.0))
    for c in order:
        table.add_row(escape(summary.choices[c].name), *(cells[c] for cells in shown.values()))
    console.print(table)
    lines = (
        ("uniform over choices", summary.uniform),
        (f"best single ({summary.best_single})", summary.best_single_quality),
        ("best per task name", summary.best_per_task),
        (f"best single for each {unit}", summary.best_per_root),
        ("clairvoyant (knows every draw)", summary.clairvoyant),
    )
    for label, value in lines:
        say(f"  {label:<50} {measure} {value:.3f}")
    if card.notes:
        say(f"notes: {card.notes.strip()}")
