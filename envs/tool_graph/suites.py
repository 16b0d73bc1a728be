"""Suites: named lists of tasks on tool graphs. A suite stands where a replay environment has its log.

Built in are `healing-19` and `healing-19-paper` (hand-made graphs with named outages), `stochastic` and
`stochastic-small` (generated graphs); `ultratool` is made from a recording of real tools; a folder of YAML graphs is
a suite as well: one task a graph, or one a scenario where the file has `scenarios`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from rlroute.envs.tool_graph.graph import GraphError, ToolGraph
from rlroute.envs.tool_graph.table import GraphTable
from rlroute.splits import SPLITS, split_groups

# The states of a task: where it starts, and the five ways in which it may end (numbered in dynamics).
STATES = ("start", "goal", "demoted", "escalated", "silent", "stopped")


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to do: a graph, and what is known of outages and risk beforehand."""

    id: str
    graph: ToolGraph
    group: str  # tasks of one group never lie in two splits
    text: str
    risk: float = 0.0  # prior probability that irreversible effects do harm
    down: tuple[str, ...] | None = None  # tools that are down, hidden; None: outages are drawn


@dataclass(frozen=True, eq=False)
class TaskArrays:
    """The states of all tasks, `len(STATES)` a task: S states."""

    state_ids: np.ndarray  # (S,) str
    root: np.ndarray  # (S,) bool: episodes start here
    group: np.ndarray  # (S,) index into group_ids
    group_ids: np.ndarray  # (G,) str
    coverage_full: bool = True
    choice_names: tuple[str, ...] = ()  # tools differ from graph to graph: no choice is the same one in all tasks


@dataclass(eq=False)
class Suite:
    """Tasks in a fixed order."""

    name: str
    tasks: tuple[Task, ...]
    faults: str = "independent"  # the regime that environments take if none is asked for
    only_split: str | None = None  # all tasks lie in this split: for suites that are played, but not trained on
    _splits: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def num_tools(self) -> int:
        """Tools of the largest graph."""
        return max(task.graph.size for task in self.tasks)

    @cached_property
    def arrays(self) -> TaskArrays:
        """The states of the tasks."""
        width = len(STATES)
        groups = sorted({task.group for task in self.tasks})
        number = {name: i for i, name in enumerate(groups)}
        return TaskArrays(
            state_ids=np.array([f"{task.id}/{state}" for task in self.tasks for state in STATES]),
            root=np.arange(len(self.tasks) * width) % width == 0,
            group=np.repeat([number[task.group] for task in self.tasks], width),
            group_ids=np.array(groups),
        )

    def task_of(self, state: int) -> Task:
        """The task that a state belongs to."""
        return self.tasks[state // len(STATES)]

    def table(self, num_tools: int) -> GraphTable:
        """All tasks as padded arrays, one row a task."""
        tasks = self.tasks
        risk, down = [task.risk for task in tasks], [task.down or () for task in tasks]
        return GraphTable.of([task.graph for task in tasks], risk, num_tools, down)

    def splits(self, salt: int = 0) -> np.ndarray:
        """Split of every state, int8 (S,): 0 train, 1 val, 2 test."""
        if salt not in self._splits:
            codes = split_groups(self.arrays.group_ids, salt)
            if self.only_split is not None:
                codes = np.full_like(codes, SPLITS.index(self.only_split))
            self._splits[salt] = codes[self.arrays.group]
        return self._splits[salt]

    def state_text(self, state: int) -> str:
        """The text of a task's state, by its row."""
        ending = STATES[state % len(STATES)]
        text = self.task_of(state).text
        return text if ending == "start" else f"{text} [{ending}]"

    @cached_property
    def content_hash(self) -> str:
        """Hash over all tasks and graphs."""
        digest = hashlib.blake2b(digest_size=16)
        for task in self.tasks:
            graph = task.graph
            content = (task.id, task.group, task.text, task.risk, task.down, graph.tools, graph.goals)
            digest.update(repr((*content, sorted(graph.provider_outage.items()))).encode())
        return digest.hexdigest()


def _stochastic() -> Suite:
    from rlroute.envs.tool_graph.generated import STOCHASTIC, generated_suite

    return generated_suite("stochastic", STOCHASTIC)


def _small() -> Suite:
    from rlroute.envs.tool_graph.generated import SMALL, generated_suite

    return generated_suite("stochastic-small", SMALL)


def _healing() -> Suite:
    from rlroute.envs.tool_graph.healing_suites import healing_19

    return healing_19()


def _healing_paper() -> Suite:
    from rlroute.envs.tool_graph.healing_suites import healing_19_paper

    return healing_19_paper()


def _ultratool() -> Suite:
    from rlroute.envs.tool_graph.ultratool import find_ultratool, ultratool_suite

    return ultratool_suite(find_ultratool())


SUITES: dict[str, Callable[[], Suite]] = {
    "stochastic-small": _small,
    "stochastic": _stochastic,
    "healing-19": _healing,
    "healing-19-paper": _healing_paper,
    "ultratool": _ultratool,
}


@cache
def _built_in(name: str) -> Suite:
    return SUITES[name]()


def load_suite(log: str | Path | Suite) -> Suite:
    """A suite by its name or as a folder of YAML graphs; a GraphError says what cannot be used."""
    if isinstance(log, Suite):
        return log
    if str(log) in SUITES:
        return _built_in(str(log))
    if not Path(log).is_dir():
        raise GraphError(str(log), "(the suite)", "no such folder", f"a folder, or one of {', '.join(SUITES)}")
    from rlroute.envs.tool_graph.healing_suites import folder_suite

    return folder_suite(Path(log))
