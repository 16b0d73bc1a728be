"""Looks at a model while it learns: evaluations on val, transcripts, a line of figures each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from rlroute.agents.trl.arguments import TrainingArguments
from rlroute.agents.trl.evaluate import figures, play_tasks, side_by_side, write_samples
from rlroute.agents.trl.models import LanguageModel, merged
from rlroute.agents.trl.rollouts import Player, make_envs


class Watcher(TrainerCallback):
    """Plays tasks of val greedily, every `eval_every` updates and where told so before the first.

    Figures go to the trainer's loggers and to ``OUT/metrics.jsonl``, transcripts to ``OUT/samples``.
    """

    def __init__(
        self, trainer: Any, language: LanguageModel, arguments: TrainingArguments, out: Path, from_start: bool
    ) -> None:
        self.trainer, self.arguments, self.out, self.from_start = trainer, arguments, out, from_start
        self.latest: dict[str, float] = {}
        self.steps = 0  # made in this process
        self.player: Player | None = None
        if not arguments.eval_every:
            return
        given = {**arguments.env_arguments, "split": "val"}
        self.envs = make_envs(arguments.env, given, language, side_by_side(arguments.eval_tasks))
        self.tasks = np.asarray(self.envs[0].dynamics.roots)[: arguments.eval_tasks]
        self.player = Player(language, self.envs[0].stops, arguments.turn_tokens)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and self.from_start:
            self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps += 1
        step = int(state.global_step)
        every = self.arguments.eval_every
        if every and (step % every == 0 or step == self.arguments.steps):
            self._look(step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        own = {name: value for name, value in (logs or {}).items() if not name.startswith("eval_")}
        if own:
            self._write(int(state.global_step), own)

    def _look(self, step: int) -> None:
        if self.player is None:
            return
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training = model.training
        model.eval()
        with merged(model) as bare:
            rollouts = play_tasks(self.player, self.envs, self.tasks, seed=0, model=bare)
        model.train(training)
        self.latest = figures(rollouts)
        told = {f"eval_{name}": value for name, value in self.latest.items()}
        self._write(step, told)
        write_samples(self.out / "samples" / f"step-{step:06d}.md", rollouts, f"Step {step}, val, greedy")
        # Not `trainer.log`, which would empty the averages of training along the way.
        handler, state = self.trainer.callback_handler, self.trainer.state
        handler.on_log(self.trainer.args, state, self.trainer.control, told)

    def _write(self, step: int, figures_: dict[str, Any]) -> None:
        numbers = {key: value for key, value in figures_.items() if isinstance(value, int | float)}
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
