"""Success against expensive calls, from the committed figures: ``python experiments/bopo/frontiers.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlroute.metrics import upper_hull
from rlroute.plots import BASELINE_COLOURS, CEILING_COLOUR, MARKERS, SINGLE_COLOUR, TRAINED_COLOURS

RESULTS = Path(__file__).parent / "results"
FIRST = "BoPO"


def draw(results: dict[str, Any], path: Path) -> None:
    """On the left soft preferences, on the right hard caps; one line a seed, mixes of points along their hull."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    caps = list(results["caps"])
    soft = next(cap for cap in results["curves"]["references"]["random mix"] if cap not in caps)
    figure, (left, right) = plt.subplots(1, 2, figsize=(14.5, 5.2))
    _soft(left, results["curves"], soft)
    _caps(right, results["caps"], caps, list(results["curves"]["trained"]))
    for axis in (left, right):
        axis.set_ylabel("success")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    left.set_xlabel("expensive calls a task")
    left.set_title("soft preferences (test)")
    left.legend(fontsize=8, frameon=False, loc="lower right")
    right.set_xlabel("expensive calls a task")
    right.set_title(f"hard caps of {', '.join(caps)} expensive calls (test)")
    right.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _soft(axis: Any, curves: dict[str, Any], soft: str) -> None:
    for name, style in (("random mix", "-"), ("per-step rule", ":"), ("latent-knowing", (0, (5, 2)))):
        points = curves["references"][name][soft]
        calls, success = zip(*points, strict=True)
        hull = upper_hull(calls, success)
        colour = CEILING_COLOUR if name == "latent-knowing" else SINGLE_COLOUR
        axis.plot([calls[i] for i in hull], [success[i] for i in hull], ls=style, color=colour, lw=1.4, label=name)
    for i, (name, seeds) in enumerate(curves["trained"].items()):
        for k, seed in enumerate(seeds):
            calls, success = zip(*seed[soft], strict=True)
            look = _look(name, i)
            axis.plot(calls, success, "-", lw=1.2, ms=3.5, alpha=0.75, label=name if k == 0 else None, **look)


def _caps(axis: Any, parts: dict[str, Any], caps: list[str], trained: list[str]) -> None:
    for i, name in enumerate(parts[caps[0]]["policies"]):
        rows = [parts[cap]["policies"][name] for cap in caps]
        calls, success = [r["calls"][0] for r in rows], [r["success"][0] for r in rows]
        if name == "latent-knowing":
            axis.plot(calls, success, ls=(0, (5, 2)), color=CEILING_COLOUR, lw=1.4, label=name)
        elif name in trained:
            look = _look(name, trained.index(name))
            axis.errorbar(calls, success, [r["success"][1] for r in rows], lw=1.1, ms=5, label=name, **look)
        else:
            axis.plot(calls, success, marker=MARKERS[i], color=SINGLE_COLOUR, lw=1.1, ms=5, label=name)


def _look(name: str, i: int) -> dict[str, Any]:
    colour = TRAINED_COLOURS[0] if name == FIRST else BASELINE_COLOURS[i % len(BASELINE_COLOURS)]
    return {"color": colour, "marker": MARKERS[i % len(MARKERS)], "zorder": 6 if name == FIRST else 5}


if __name__ == "__main__":
    draw(json.loads((RESULTS / "bopo.json").read_text()), RESULTS / "frontier.png")
