"""The replay log: what every choice answered in every state, as parquet tables and a card."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.arrays import LogArrays, load_arrays
from rlroute.cache import atomic_folder, cache_root
from rlroute.card import Card
from rlroute.errors import Fault, LogError
from rlroute.schema import OPTIONAL_TABLES, TABLES
from rlroute.splits import split_groups
from rlroute.tables import Source, fill_states, make_table, release_memory, write_table

if TYPE_CHECKING:
    from rlroute.keys import Keys

# Bumped when the arrays of the same tables would come out differently.
ARRAYS_VERSION = 2
# Cached properties of a Log that hold tables or memory-mapped arrays.
READ_AGAIN = ("choices", "states", "responses", "outcomes", "keys", "arrays")


class LogWarning(UserWarning):
    """Something odd about a log that does not keep it from being used."""


class Log:
    """A log, on disk or in memory. Tables are read when asked for, arrays are built once and cached."""

    def __init__(self, card: Card, sources: Mapping[str, Source], path: Path | None = None) -> None:
        self.card = card
        self.path = path
        self.sources = dict(sources)
        self._checked = False
        self._ids_filled = False
        self._splits: dict[int, np.ndarray] = {}
        self._reference: dict[str, Any] | None = None

    @classmethod
    def open(cls, path: str | Path) -> Log:
        """The log in a folder, nothing but its card read as yet."""
        path = Path(path)
        if not path.is_dir():
            expected = "a log: a folder with card.yaml and parquet tables"
            raise LogError([Fault(str(path), None, None, "no such folder", expected)])
        card = Card.load(path / "card.yaml")
        sources = {
            name: Source(name, path=path / f"{name}.parquet")
            for name in TABLES
            if name not in OPTIONAL_TABLES or (path / f"{name}.parquet").exists()
        }
        return cls(card, sources, path)

    @classmethod
    def from_tables(cls, card: Card, choices: Any, states: Any, responses: Any, outcomes: Any = None) -> Log:
        """A log in memory; each table a pa.Table, columns by name, or rows. Missing columns become null."""
        tables = {"choices": choices, "states": states, "responses": responses, "outcomes": outcomes}
        sources = {
            name: Source(name, table=make_table(name, data)) for name, data in tables.items() if data is not None
        }
        return cls(card, sources)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is read again where it is wanted, so that logs travel between processes light."""
        return {key: value for key, value in self.__dict__.items() if key not in READ_AGAIN}

    def __repr__(self) -> str:
        return f"Log({self.name!r}, {str(self.path) if self.path else 'in memory'})"

    @property
    def name(self) -> str:
        """Name of the log, from its card."""
        return self.card.name

    def source(self, table: str) -> Source:
        """A table to be read column by column; null task and group ids of states are filled on the way."""
        source = self.sources[table]
        if table == "states" and not self._ids_filled:
            if any(source.column(name).null_count for name in ("task_id", "group_id")):
                source = self.sources["states"] = Source("states", table=fill_states(source.table()))
            self._ids_filled = True
        return source

    @cached_property
    def keys(self) -> Keys:
        """The string keys as row numbers; forgotten once the arrays are built."""
        from rlroute.keys import Keys

        return Keys.of(self)

    @property
    def has_outcomes(self) -> bool:
        """Whether the log stores the distribution that its responses were drawn from."""
        return "outcomes" in self.sources

    @cached_property
    def choices(self) -> Any:
        """The choices table, pa.Table."""
        return self.source("choices").table()

    @cached_property
    def states(self) -> Any:
        """The states table, pa.Table."""
        return self.source("states").table()

    @cached_property
    def responses(self) -> Any:
        """The responses table, pa.Table."""
        return self.source("responses").table()

    @cached_property
    def outcomes(self) -> Any:
        """The outcomes table, pa.Table, or None. Never read by an environment."""
        return self.source("outcomes").table() if self.has_outcomes else None

    @cached_property
    def content_hash(self) -> str:
        """Hash over the bytes of the table files, or over those that ``save`` would write."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.sources:
            digest.update(f"{name}\n".encode())
            digest.update(self._table_digest(name))
        return digest.hexdigest()

    def _table_digest(self, name: str) -> bytes:
        if self.path is None:
            import pyarrow as pa

            sink = pa.BufferOutputStream()
            write_table(self.source(name).table(), sink)
            return hashlib.blake2b(sink.getvalue()).digest()
        try:
            with (self.path / f"{name}.parquet").open("rb") as handle:
                return hashlib.file_digest(handle, hashlib.blake2b).digest()
        except OSError:
            _ = self.sources[name].names  # raises a LogError that says what is wrong with the file
            raise

    def validate(self) -> list[Fault]:
        """Every fault of the log, errors and warnings."""
        from rlroute.validate import validate

        faults = validate(self)
        if not any(fault.severity == "error" for fault in faults):
            faults = [*self._reference_faults(self.source("choices").column("name").to_pylist()), *faults]
        return faults

    def check(self) -> None:
        """Raise LogError if the log has errors; print its warnings, once."""
        if self._checked:
            return
        faults = self.validate()
        errors = [fault for fault in faults if fault.severity == "error"]
        if errors:
            raise LogError(errors, source=f"log {self.path or self.name}")
        for fault in faults:
            warnings.warn(f"log {self.name}: {fault}", LogWarning, stacklevel=2)
        self._checked = True

    @property
    def _card_is_stale(self) -> bool:
        """Whether the card was written for other tables than those that are here."""
        return self.card.content_hash not in ("", self.content_hash)

    def _reference_faults(self, choices: Sequence[str]) -> list[Fault]:
        """What is wrong with the reference on the card, unless it is stale and so not used."""
        given = self.card.reference
        if given is None or given["choice"] in choices or self._card_is_stale:
            return []
        expected = f"a choice of the log, one of {', '.join(choices)}"
        return [Fault("card.yaml", None, "reference", f"the choice {given['choice']!r}", expected)]

    @property
    def _arrays_folder(self) -> Path:
        return cache_root() / "arrays" / f"{self.content_hash}-{ARRAYS_VERSION}-{self.card.coverage}"

    @cached_property
    def arrays(self) -> LogArrays:
        """The log as dense arrays, memory-mapped from the cache; checked and built there first if need be."""
        folder = self._arrays_folder
        if not folder.is_dir():
            from rlroute.dense import build_arrays

            self.check()
            with atomic_folder(folder) as partial:
                build_arrays(self, partial)
            self.__dict__.pop("keys", None)
            release_memory()
        elif not self._checked and self.path is not None and self._card_is_stale:
            # The cache is of these tables, so they have been checked; the card beside them may be another.
            found = f"{self.card.content_hash}, which is not the hash of the tables"
            fault = Fault("card.yaml", None, "content_hash", found, self.content_hash, "warning")
            warnings.warn(f"log {self.name}: {fault}", LogWarning, stacklevel=2)
        self._checked = True
        return load_arrays(folder)

    def splits(self, salt: int = 0) -> np.ndarray:
        """Split of every state, int8 (S,): 0 train, 1 val, 2 test. A split that came along wins at salt 0."""
        if salt not in self._splits:
            arrays = self.arrays
            codes = split_groups(arrays.group_ids, salt)[arrays.group]
            if salt == 0:
                codes = np.where(arrays.given_split >= 0, arrays.given_split, codes).astype(np.int8)
            codes.flags.writeable = False
            self._splits[salt] = codes
        return self._splits[salt]

    def state_text(self, state: int) -> str:
        """The text of a state, by its row."""
        return str(self.states["text"][state].as_py() or "")

    def answer_text(self, response: int) -> str:
        """What a response said, its answer or else its text, by its row in the arrays."""
        import pyarrow.compute as pc

        arrays = self.arrays
        cell = int(np.searchsorted(arrays.cell, response, side="right")) - 1
        state, choice = divmod(cell, arrays.num_choices)
        here = pc.and_(
            pc.equal(self.responses["state_id"], str(arrays.state_ids[state])),
            pc.equal(self.responses["choice"], arrays.choice_names[choice]),
        )
        rows = self.responses.filter(here).sort_by("attempt").slice(response - int(arrays.cell[cell]), 1).to_pylist()
        return str(rows[0]["answer"] or rows[0]["text"] or "")

    def without(self, choices: Sequence[str]) -> Log:
        """The log as if `choices` had never been in the pool: a log of its own, see `rlroute.sublog`."""
        from rlroute.sublog import without

        return without(self, choices)

    @property
    def reference(self) -> dict[str, Any]:
        """{choice, cost_usd, latency_s} of the best single choice on train: c_ref and l_ref of rewards.

        That of the card, or computed where the card has none or was written for other tables.
        """
        if self._reference is None:
            arrays = self.arrays
            if faults := self._reference_faults(arrays.choice_names):
                raise LogError(faults, source=f"log {self.path or self.name}")
            if self.card.reference is None or self._card_is_stale:
                from rlroute.graph import reference

                self.card.reference = reference(arrays, self.splits())
            self._reference = self.card.reference
        return self._reference

    def save(self, path: str | Path) -> Path:
        """Check the log and write it as a folder, whole or not at all. A log that is there is replaced."""
        target = Path(path)
        if target.exists() and not (target / "card.yaml").is_file() and not _is_empty_folder(target):
            raise FileExistsError(f"{target} exists and is not a log: choose another folder")
        self.card.reference = self.reference
        self.card.content_hash = self.content_hash
        with atomic_folder(target, replace=True) as partial:
            for name, source in self.sources.items():
                if self.path is not None:
                    (partial / f"{name}.parquet").write_bytes((self.path / f"{name}.parquet").read_bytes())
                else:
                    write_table(source.table(), partial / f"{name}.parquet")
            self.card.save(partial / "card.yaml")
        return target


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def load_log(source: str | Path | Log) -> Log:
    """A log from a folder, by the name of a built-in generator, or as it is; checked, with its arrays.

    A built-in log is generated once and kept in the cache, under a name that changes with the generators.
    """
    log = find_log(source)
    _ = log.arrays  # checks the log too, unless the cache shows that this was done
    _ = log.reference
    return log


def find_log(source: str | Path | Log) -> Log:
    """The log that `load_log` would return, unchecked."""
    if isinstance(source, Log):
        return source
    if isinstance(source, str) and source.isidentifier() and not Path(source).exists():
        return _builtin(source)
    return Log.open(source)


def _builtin(name: str) -> Log:
    folder = Path(__file__).parent / "generators"
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    target = cache_root() / "logs" / f"{name}-{digest.hexdigest()}"
    if not target.is_dir():
        from rlroute.generators import GENERATORS

        if name not in GENERATORS:
            expected = "a folder, or one of the built-in logs " + ", ".join(sorted(GENERATORS))
            raise LogError([Fault(f"log {name!r}", None, None, "no such folder or built-in log", expected)])
        GENERATORS[name]().save(target)
    return Log.open(target)
