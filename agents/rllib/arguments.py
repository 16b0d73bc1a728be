"""What the training of every algorithm can be told, and a command line made of it."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainingArguments:
    """The knobs that all algorithms share; the comment beside each is its help text."""

    total_steps: int = 500_000  # decisions to train on, over all environments
    num_envs: int = 256  # environments stepped side by side, by every runner
    learning_rate: float = 3e-3  # Adam's step size at the start
    anneal: bool = True  # let the learning rate fall linearly to 0 over the run
    clip: float = 0.2  # largest change of an action's probability ratio that an update may profit from
    entropy: float = 0.01  # weight of the entropy bonus at the start
    entropy_end: float = 0.0  # and at the end; between them it falls linearly
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    epochs: int = 3  # passes over every batch
    minibatch: int = 2048  # rows of one gradient step
    hidden: int = 64  # width of every layer of the network
    start: str = ""  # policy folder whose weights training starts from; default: random ones
    text_noise: float = 0.3  # noise on the text features while training, against learning the texts by heart
    seed: int = 0  # of the weights, the actions and the environments
    checkpoint_every: int = 20  # updates between two checkpoints
    threads: int = 1  # threads of torch; the network is too small to gain much from more
    num_env_runners: int = 0  # remote processes that step environments, a CPU each; 0: this process does
    overlap: bool = False  # remote runners go on while the learner works, with the weights of one update ago
    address: str = ""  # of a Ray cluster to run on, "auto" for the one that runs here; default: a Ray of its own
    profile: bool = False  # print at the end where the time went


def command_line(arguments_type: type[TrainingArguments], description: str) -> argparse.ArgumentParser:
    """The command line, made from the fields of a class of arguments and the comments beside them."""
    comments: dict[str, str] = {}
    for kind in reversed(arguments_type.__mro__[:-1]):
        comments |= dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("env", help="environment id, such as rlroute:rlroute/ThinkRoute-v0")
    command.add_argument("out", type=Path, help="folder for checkpoints and policy")
    command.add_argument("--env-arguments", type=json.loads, default={}, help="arguments of the environment as JSON")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    for knob in fields(arguments_type):
        how: dict[str, Any] = {"type": type(knob.default)}
        if isinstance(knob.default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        name = f"--{knob.name.replace('_', '-')}"
        command.add_argument(name, default=knob.default, help=comments[knob.name].replace("%", "%%"), **how)
    return command
