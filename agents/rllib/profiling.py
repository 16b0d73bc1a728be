"""Where the time of a training goes, from what runner and learner measured themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Profile:
    """Seconds by part, added up over updates; those of remote runners are a mean over the runners."""

    def __init__(self, num_env_runners: int) -> None:
        self.runners = max(1, num_env_runners)
        self.remote = num_env_runners > 0
        self.seconds: dict[str, float] = {}

    def add(self, results: Mapping[str, Any], wall_s: float) -> None:
        """What RLlib returned of one update that took `wall_s` in all."""
        runner, learner = results.get("env_runners", {}), results.get("learners", {}).get("__all_modules__", {})
        stepping = float(runner.get("env_step_s", 0.0)) / self.runners
        forward = float(runner.get("module_forward_s", 0.0)) / self.runners
        sampling = float(results.get("sampling_s", 0.0))
        parts = {
            "env step": stepping,
            "module forward": forward,
            "rest of sampling": 0.0 if self.remote else sampling - stepping - forward,
            "waiting for remote runners": sampling if self.remote else 0.0,
            "advantage": float(learner.get("advantage_s", 0.0)),
            "learner update": float(learner.get("update_s", 0.0)),
            "weight sync": float(results.get("weight_sync_s", 0.0)),
        }
        here = parts if not self.remote else {k: v for k, v in parts.items() if k not in ("env step", "module forward")}
        parts["other"] = wall_s - sum(here.values())
        for name, seconds in {**parts, "total": wall_s}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def table(self, steps: int) -> str:
        """Seconds, share of the whole and microseconds a decision, as text."""
        total = self.seconds.get("total", 0.0)
        lines = [f"{'where the time went':28} {'s':>8} {'share':>7} {'µs a decision':>14}"]
        for name, seconds in self.seconds.items():
            if seconds:
                lines.append(f"{name:28} {seconds:8.2f} {seconds / total:7.1%} {seconds / steps * 1e6:14.2f}")
        if self.remote:
            lines.append("Env step and module forward are what a runner spent meanwhile, and no part of the total.")
        return "\n".join(lines)
