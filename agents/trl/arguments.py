"""What the training of a language model can be told, and a command line made of it."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar


@dataclass(frozen=True)
class TrainingArguments:
    """The knobs that all trainers share; the comment beside each is its help text."""

    env: str = "rlroute/ThinkRouteText-v0"  # id of an environment of texts
    out: str = "runs/text"  # folder for checkpoints, samples and policy
    env_arguments: dict[str, Any] = field(default_factory=dict)  # arguments of the environment as JSON
    model: str = "tiny"  # "tiny", "smollm2", or a folder with a causal language model or a text policy
    lora: int = 0  # rank of LoRA adapters on all linear layers; 0: all weights are trained
    short_queries: bool = False  # ThinkRoute's demonstrations ask "this" in place of the question at hand
    teacher: str = "paper"  # of BudgetRoute and EffortRoute: the "paper"'s data, or the best "reference" on val
    steps: int = 100  # updates
    learning_rate: float = 1e-4  # AdamW's step size at the start; it falls linearly to 0
    micro_batch: int = 16  # sequences that go through the model at once while it learns
    gradient_checkpointing: bool = False  # compute activations twice in place of keeping them
    turn_tokens: int = 96  # tokens that a turn may have while sampling; it is cut there
    eval_every: int = 50  # updates between two evaluations on val; 0: none
    eval_tasks: int = 64  # tasks of an evaluation
    checkpoint_every: int = 50  # updates between two checkpoints
    resume: bool = False  # go on from the last checkpoint in the folder
    seed: int = 0  # of the weights, the tasks and what is sampled
    threads: int = 1  # threads of torch
    tensorboard: bool = True  # log to TensorBoard, in OUT/logs
    trackio: bool = False  # log to trackio as well
    quiet: bool = False  # no progress bar


T = TypeVar("T", bound=TrainingArguments)


def command_line(arguments_type: type[TrainingArguments], description: str) -> argparse.ArgumentParser:
    """The command line, made from the fields of a class of arguments and the comments beside them."""
    comments: dict[str, str] = {}
    for kind in reversed(arguments_type.__mro__[:-1]):
        comments |= dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    defaults = arguments_type()
    for knob in fields(arguments_type):
        default = getattr(defaults, knob.name)
        how: dict[str, Any] = {"type": json.loads if isinstance(default, dict) else type(default)}
        if isinstance(default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        name = f"--{knob.name.replace('_', '-')}"
        command.add_argument(name, default=default, help=comments[knob.name].replace("%", "%%"), **how)
    return command


def parse(arguments_type: type[T], description: str) -> T:
    """The arguments given on the command line of this process."""
    command = command_line(arguments_type, description)
    return arguments_type(**vars(command.parse_args()))
