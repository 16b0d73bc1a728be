"""Other people's recordings made into logs: one module a kind, listed here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.errors import Fault, LogError

if TYPE_CHECKING:
    from rlroute.log import Log


@dataclass(frozen=True)
class Importer:
    """A kind of recording: the module that reads it, and the file by which a folder of it is known."""

    module: str
    marker: str
    summary: str

    @property
    def read(self) -> Callable[..., Log]:
        """``read(path, **options) -> Log``."""
        read: Callable[..., Log] = import_module(self.module).read
        return read

    @property
    def add_arguments(self) -> Callable[[Any], None]:
        """Declares the options of ``read`` on an argparse parser."""
        add: Callable[[Any], None] = import_module(self.module).add_arguments
        return add


IMPORTERS: dict[str, Importer] = {
    "generic": Importer(
        "rlroute.importers.generic",
        "mapping.yaml",
        "CSV, JSONL or parquet of (query, model, quality, …), with a mapping of columns in YAML",
    ),
    "routeprofile": Importer(
        "rlroute.importers.routeprofile",
        "routing_test_data.json",
        "RouteProfile: 600 queries of 12 tasks, answered by 8 models",
    ),
    "router_r1": Importer(
        "rlroute.importers.router_r1",
        "router_train_data_nq.json",
        "Router-R1: Natural Questions answered by its six models",
    ),
    "reasoning_gym": Importer(
        "rlroute.importers.reasoning_gym",
        "responses.jsonl.gz",
        "reasoning-gym-eval: procedural puzzles at two levels, with a checker's verdict on seven tasks",
    ),
}

LOG = "log"


def detect(path: str | Path) -> str:
    """Kind of recording in a folder or file: a key of IMPORTERS, or "log" for what is a log already."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and (path / "card.yaml").is_file():
        return LOG
    for kind, importer in IMPORTERS.items():
        if path.exists() and (folder / importer.marker).is_file():
            return kind
    markers = ", ".join(["card.yaml", *(importer.marker for importer in IMPORTERS.values())])
    found = "a folder with none of the known files" if path.exists() else "no such file or folder"
    raise LogError([Fault(str(path), None, None, found, f"a folder with one of {markers}")])


def import_log(kind: str, path: str | Path, **options: Any) -> Log:
    """The log made of a recording of the given kind."""
    if kind not in IMPORTERS:
        known = ", ".join(IMPORTERS)
        raise LogError([Fault(f"kind {kind!r}", None, None, "an unknown kind of recording", f"one of {known}")])
    return IMPORTERS[kind].read(Path(path), **options)
