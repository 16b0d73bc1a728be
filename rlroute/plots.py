"""The frontier plot: cost against quality of a query router, success against the cap of a budget router, utility
against the price of a model call on tool graphs.

It is drawn from the `results` of ``metrics.json`` alone (a list of plain dicts), so it can be redrawn from
the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlroute.metrics import upper_hull

Row = Mapping[str, Any]
TRAINED_COLOURS = (  # one router is red, others beside it are told apart
    "#c1121f", "#000000", "#0f5132", "#6f1d77", "#b45309", "#1e3a8a", "#047481", "#9d174d",
)  # fmt: skip
CEILING_COLOUR = "#444444"
SINGLE_COLOUR = "#9a9a9a"
BASELINE_COLOURS = (
    "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2",
    "#17becf", "#bcbd22", "#ff7f0e", "#7f7f7f", "#003049",
)  # fmt: skip
MARKERS = "osD^vPX<>h"
CROWDED = 8  # more single choices than this are named only on the frontier


def plot_frontier(results: Sequence[Row], path: str | Path) -> Path:
    """Write a PNG with a panel for every family, log and kind of setting that the results hold."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds: dict[Any, Callable[[Any, Sequence[Row]], None]] = {
        "weight": draw_weights,
        "budget_calls": draw_caps,
        "budget_usd": draw_caps,
        "model_cost": draw_model_costs,
    }
    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in results:
        for kind in kinds:
            if row.get(kind) is not None:
                panels.setdefault((str(row["family"]), str(row["log"]), kind), []).append(row)
    if not panels:
        raise ValueError("no result at a weight, under a cap or at a price of model calls: nothing to plot")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(8.6 * columns, 5.2 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, ((_, _, kind), rows) in zip(axes.flat, panels.items(), strict=False):
        kinds[kind](axis, rows)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    figure.tight_layout()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    plt.close(figure)
    return target


def draw_weights(axis: Any, rows: Sequence[Row]) -> None:
    """Cost (log scale) against quality: single choices as dots with their hull, policies as lines."""
    singles = _by_policy(r for r in rows if r["kind"] == "single")
    cost = np.array([np.mean([r["cost_usd"] for r in part]) for part in singles.values()])
    quality = np.array([np.mean([r["quality"] for r in part]) for part in singles.values()])
    if len(cost):
        axis.scatter(cost, quality, s=26, color=SINGLE_COLOUR, zorder=3)
        hull = upper_hull(cost, quality)
        names = list(singles)
        # The frontier's own choices are always named; the others only where the plot is not crowded.
        for i in range(len(names)) if len(names) <= CROWDED else hull:
            left = cost[i] < np.sqrt(cost.min() * cost.max())  # names stay inside the axes
            axis.annotate(
                names[i],
                (cost[i], quality[i]),
                xytext=(4, -10) if left else (-4, -10),
                ha="left" if left else "right",
                textcoords="offset points",
                fontsize=7,
                color="#555",
            )
        # Mixes lie on straight lines between vertices; on a log axis those are curves, so they are drawn in
        # points.
        along = np.unique(np.concatenate([cost[hull], np.geomspace(cost[hull][0], cost[hull][-1], 100)]))
        axis.plot(
            along,
            np.interp(along, cost[hull], quality[hull]),
            color=SINGLE_COLOUR,
            lw=1.2,
            label="mixes of single choices",
        )
    # The best single choice and the best mix lie on the dots and their hull: no lines of their own.
    _lines(axis, [r for r in rows if r["policy"] not in ("best single", "best mix")], "cost_usd", "quality")
    axis.set_xscale("log")
    axis.set_xlabel("mean cost per question (USD, log scale)")
    axis.set_ylabel("mean quality")
    axis.set_title(_title(rows, "five cost weights" if len({r["weight"] for r in rows}) == 5 else "cost weights"))
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_caps(axis: Any, rows: Sequence[Row]) -> None:
    """Success against the hard cap, with 95 % intervals for the trained router."""
    calls = any(r.get("budget_calls") is not None for r in rows)
    key = "budget_calls" if calls else "budget_usd"
    part = [{**r, "success": r.get("success", r["quality"])} for r in rows if r.get(key) is not None]
    _lines(axis, part, key, "success", interval="quality_ci95")
    axis.set_xlabel("cap on expensive calls per task" if calls else "cap per task (USD)")
    axis.set_ylabel("success rate")
    axis.set_title(_title(part, "hard caps"))
    if calls:
        axis.set_xticks(sorted({r[key] for r in part}))
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_model_costs(axis: Any, rows: Sequence[Row]) -> None:
    """Utility on a tool graph against what a model call costs."""
    _lines(axis, rows, "model_cost", "reward", interval="ci95")
    axis.set_xscale("log")
    axis.set_xlabel("price of a model call (utility, log scale)")
    axis.set_ylabel("mean utility")
    axis.set_title(_title(rows, "prices of a model call"))
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _lines(axis: Any, rows: Sequence[Row], x: str, y: str, interval: str | None = None) -> None:
    baselines = trained = 0
    for name, part in _by_policy(r for r in rows if r["kind"] != "single").items():
        part = sorted(part, key=lambda r: float(r[x]))
        xs, ys = [r[x] for r in part], [r[y] for r in part]
        kind = part[0]["kind"]
        if kind == "trained":
            colour = TRAINED_COLOURS[trained % len(TRAINED_COLOURS)]
            axis.plot(xs, ys, "-o", color=colour, lw=2.8, ms=6, label=name, zorder=6)
            trained += 1
            if interval and all(interval in r for r in part):
                low, high = zip(*(r[interval] for r in part), strict=True)
                axis.fill_between(xs, low, high, color=colour, alpha=0.15, lw=0)
        elif kind == "ceiling":
            style = (0, (5, 2)) if "latent" in name else (0, (1, 1.5))
            axis.plot(xs, ys, ls=style, color=CEILING_COLOUR, lw=1.4, label=name, zorder=4)
        else:
            colour = BASELINE_COLOURS[baselines % len(BASELINE_COLOURS)]
            marker = MARKERS[baselines % len(MARKERS)]
            axis.plot(xs, ys, color=colour, marker=marker, ms=3.5, lw=1.1, alpha=0.9, label=name, zorder=5)
            baselines += 1


def _by_policy(rows: Any) -> dict[str, list[Row]]:
    table: dict[str, list[Row]] = {}
    for row in rows:
        table.setdefault(str(row["policy"]), []).append(row)
    return table


def _title(rows: Sequence[Row], what: str) -> str:
    first = rows[0]
    return f"{str(first['family']).split('/')[-1]} on {first['log']} ({first['split']}), {what}"
