"""Plays the tasks of a split with a text router: ``python agents/trl/evaluate.py POLICY`` or `play_tasks`.

Episodes hear the same attempts as those of `rlroute.rollout.rollout` on a vector environment with a slot for every
task, so text routers and numeric policies are compared on common random numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlroute.agents.trl.rollouts import Player, Rollout, make_envs
from rlroute.evaluation import Score
from rlroute.report import write_text
from rlroute.rollout import Episodes


def side_by_side(tasks: int) -> int:
    """Episodes that are played at once: more of them on a GPU, where a whole split of a log may fit."""
    return min(tasks, 512 if torch.cuda.is_available() else 64)


def play_tasks(
    player: Player, envs: Sequence[Any], tasks: np.ndarray, seed: int = 0, greedy: bool = True, model: Any = None
) -> list[Rollout]:
    """One episode of every task, the i-th with the draws of slot i."""
    rollouts: list[Rollout] = []
    for start in range(0, len(tasks), len(envs)):
        chunk = tasks[start : start + len(envs)]
        starts = [(seed, {"task": int(task), "slot": start + i}) for i, task in enumerate(chunk)]
        rollouts += player.play(envs[: len(chunk)], starts, greedy=greedy, model=model)
    return rollouts


def episodes_of(rollouts: Sequence[Rollout]) -> Episodes:
    """All episodes as arrays of one row each."""
    parts = [rollout.episode for rollout in rollouts if rollout.episode is not None]
    names = [name for name in Episodes.__dataclass_fields__ if name != "extra"]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Episodes(**columns)


def score_of(rollouts: Sequence[Rollout]) -> Score:
    """What `rlroute.evaluation` compares."""
    return Score.of(episodes_of(rollouts))


def figures(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Means over episodes; `quality` is exact match where the log's quality is, `top_share` the share of the calls
    that the most used choice got (0 without calls)."""
    played = episodes_of(rollouts)
    calls = np.bincount([choice for rollout in rollouts for choice in rollout.called] or [0])
    top = calls.max() / calls.sum() if any(rollout.called for rollout in rollouts) else 0.0
    return {
        "reward": float(played.reward.mean()),
        "quality": float(played.quality.mean()),
        "success": float(played.success.mean()),
        "cost_usd": float(played.cost_usd.mean()),
        "router_cost_usd": float(np.mean([rollout.router_cost_usd for rollout in rollouts])),
        "calls": float(played.calls.mean()),
        "expensive_calls": float(played.expensive_calls.mean()),
        "top_share": float(top),
        "faulty": float(np.mean([bool(rollout.faults) for rollout in rollouts])),
        "turns": float(np.mean([len(rollout.turns) for rollout in rollouts])),
        "written_tokens": float(np.mean([rollout.written for rollout in rollouts])),
    }


def write_samples(path: str | Path, rollouts: Sequence[Rollout], title: str, count: int = 8) -> Path:
    """The first transcripts as a Markdown file, one section each."""
    parts = [f"# {title}"]
    for number, rollout in enumerate(rollouts[:count]):
        assert rollout.episode is not None
        told = f"reward {rollout.reward:.3f}, quality {rollout.episode.quality[0]:.2f}"
        told += f", {rollout.episode.cost_usd[0]:.3g} USD" + "".join(f", fault: {fault}" for fault in rollout.faults)
        rest = rollout.transcript[len(rollout.prompt) :]
        parts.append(f"## {number}: {told}\n\n````\n{rollout.prompt}\n````\n\n````\n{rest}\n````")
    return write_text(path, "\n\n".join(parts) + "\n")


def evaluate(
    policy: Any,
    split: str = "test",
    tasks: int | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    greedy: bool = True,
) -> list[Rollout]:
    """Episodes of a `TextPolicy` on all or the first `tasks` tasks of a split.

    The environment is that of its training; `changes` are other arguments, such as a log or a preference. `seed` is of
    the draws of the log; tokens that are drawn go by the seed that the policy was loaded with.
    """
    from rlroute.agents.trl.policy import PROMPT_FILE

    card = policy.card
    arguments = {**card["env_arguments"], "prompt": policy.folder / PROMPT_FILE, "split": split, **(changes or {})}
    first = make_envs(card["environment"], arguments, policy.language, 1)[0]
    roots = np.asarray(first.dynamics.roots)[:tasks]
    envs = make_envs(card["environment"], arguments, policy.language, side_by_side(len(roots)))
    player = Player(policy.language, envs[0].stops, int(card["turn_tokens"]))
    player.sampler.generator = policy.sampler.generator
    return play_tasks(player, envs, roots, seed, greedy)


def main() -> None:
    from rlroute import load_policy

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("policy", type=Path, help="folder of a text router")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, help="only the first so many tasks")
    parser.add_argument("--env-arguments", type=json.loads, default={}, help="changes to the environment, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of the log, and of tokens")
    parser.add_argument("--sampled", action="store_true", help="draw tokens instead of taking the likeliest")
    parser.add_argument("--samples", type=Path, help="file to write some transcripts to")
    options = parser.parse_args()
    policy, greedy = load_policy(options.policy, seed=options.seed), not options.sampled
    rollouts = evaluate(policy, options.split, options.tasks, options.env_arguments, options.seed, greedy)
    if options.samples:
        write_samples(options.samples, rollouts, f"{options.policy} on {options.split}")
    print(json.dumps({"episodes": len(rollouts), **figures(rollouts)}, indent=1))


if __name__ == "__main__":
    main()
