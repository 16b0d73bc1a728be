"""Checkpoints of a run: written whole or not at all, found again, and resumed only as the same run.

They are RLlib's and hold pickles: resume only your own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

# What may differ between a run and its continuation.
FREE = {"total_steps", "checkpoint_every", "threads", "address", "profile"}


def save_checkpoint(algorithm: Algorithm, checkpoints: Path, done: int, run: dict[str, Any]) -> Path:
    """Writes ``step-…`` under another name, renames it, points ``latest`` to it, and removes older ones."""
    final = checkpoints / f"step-{done:012d}"
    fresh = checkpoints / f".{final.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    algorithm.save_to_path(fresh.resolve() / "algorithm")
    (fresh / "run.json").write_text(json.dumps(run, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    pointer = checkpoints / ".latest.new"
    pointer.write_text(final.name)
    pointer.replace(checkpoints / "latest")
    for other in set(checkpoints.glob("step-*")) - {final}:
        shutil.rmtree(other, ignore_errors=True)
    return final


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that ``latest`` points to, or None."""
    pointer = checkpoints / "latest"
    return checkpoints / pointer.read_text().strip() if pointer.is_file() else None


def refuse_another_run(checkpoint: Path, new: dict[str, Any]) -> None:
    """A run may be resumed with more steps or other checkpoints, but not as a different one."""
    old = json.loads((checkpoint / "run.json").read_text())

    def pairs(run: dict[str, Any]) -> dict[str, Any]:
        settings = {name: value for name, value in run["arguments"].items() if name not in FREE}
        return {"env": run["env"], **run["env_arguments"], **settings}

    before, now = pairs(old), pairs(new)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{checkpoint}: cannot resume, {name} was {before.get(name)!r} and is now {now.get(name)!r}"
            )
