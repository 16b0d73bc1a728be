"""One picture a question: how a figure grows with the size of something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot(path: Path, sizes: Sequence[float], lines: Mapping[str, Sequence[float]], x: str, y: str, log: bool) -> None:
    """`lines` by their names over `sizes`; axes are labelled `x` and `y`, both logarithmic where `log` is set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(sizes, values, marker="o", label=name)
    if log:
        axes.set(xscale="log", yscale="log")
    else:
        axes.set_xticks(sizes)
        axes.set_ylim(bottom=0)
    if len(lines) > 1:
        axes.legend(fontsize=8)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
