"""One table of a log, in memory or as a parquet file, read column by column in the types of the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlroute.errors import Fault, LogError
from rlroute.schema import arrow_type, columns, conform
from rlroute.splits import group_of

# Rows of a column read at once where it need not be in memory whole.
BATCH_ROWS = 131_072
# What arrow is known to raise over a damaged file: its own errors all derive from these.
READ_ERRORS = (OSError, ValueError, TypeError, LookupError, MemoryError, NotImplementedError, OverflowError)


class Source:
    """A table by name; either ``table`` (pa.Table) or ``path`` (a parquet file) is given."""

    def __init__(self, name: str, table: Any = None, path: Path | None = None) -> None:
        self.name = name
        self._table = table
        self._path = path

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, so that logs travel between processes."""
        return {key: value for key, value in self.__dict__.items() if key != "_file"}

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        path = self._path
        assert path is not None
        expected = f"a parquet file {path.name}"
        if not path.is_file():
            others = sorted(file.name for file in path.parent.glob(f"{path.stem}.*"))
            found = "no such file" + (f", but {', '.join(others)} (only parquet is read)" if others else "")
            if path.exists():
                found = f"{path}, which is no file"
            raise LogError([Fault(self.name, None, None, found, expected)])
        try:
            return pq.ParquetFile(path, pre_buffer=False)
        except READ_ERRORS as error:
            try:
                with path.open("rb") as handle:
                    magic = handle.read(4)
            except OSError as unreadable:
                found = f"{path}, which cannot be read ({unreadable.strerror})"
                raise LogError([Fault(self.name, None, None, found, expected)]) from None
            start = f"no parquet file (it starts with {magic!r})"
            found = "a truncated parquet file" if magic == b"PAR1" else start
            raise LogError([Fault(self.name, None, None, f"{found}: {_one_line(error)}", expected)]) from None

    @property
    def names(self) -> list[str]:
        """Names of the columns that are there."""
        return list(self._table.column_names if self._table is not None else self._file.schema_arrow.names)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows if self._table is not None else self._file.metadata.num_rows)

    def raw(self, column: str) -> Any:
        """A column as it lies there, pa.ChunkedArray."""
        if self._table is not None:
            return self._table[column]
        with self._reading(column):
            values = self._file.read(columns=[column], use_threads=False)[column]
            return self._sound(values, len(values))

    def column(self, name: str) -> Any:
        """A column in the type of the schema, nulls replaced by its default; all null where it is missing."""
        import pyarrow as pa

        spec = columns(self.name)[name]
        if name in self.names:
            return conform(self.name, spec, self.raw(name))
        if spec.required:
            raise LogError([Fault(self.name, None, name, "no such column", spec.expected)])
        nulls = pa.chunked_array([pa.nulls(self.num_rows, arrow_type(spec))])
        return conform(self.name, spec, nulls)

    def type(self, name: str) -> Any:
        """The arrow type in which a column lies there, without reading it."""
        schema = self._table.schema if self._table is not None else self._file.schema_arrow
        return schema.field(name).type

    def batches(self, name: str) -> Iterator[tuple[slice, Any]]:
        """(rows, values) of a column piece by piece, so that a long one need not be in memory whole."""
        import pyarrow as pa

        if self._table is not None or name not in self.names:
            pieces = iter(self.column(name).chunks)
        else:
            with self._reading(name):
                pieces = self._file.iter_batches(BATCH_ROWS, columns=[name], use_threads=False)
        spec, start = columns(self.name)[name], 0
        while True:
            with self._reading(name):
                piece = next(pieces, None)
                if piece is None:
                    self._sound(None, start)
                    return
                values = piece if isinstance(piece, pa.Array) else piece.column(0)
                values.validate(full=True)
            yield slice(start, start + len(values)), conform(self.name, spec, pa.chunked_array([values]))
            start += len(values)

    def lengths(self, name: str) -> np.ndarray:
        """Lengths in characters of a column of strings, int32, −1 for null."""
        import pyarrow.compute as pc

        out = np.empty(self.num_rows, np.int32)
        for rows, values in self.batches(name):
            out[rows] = ints(pc.utf8_length(values))
        return out

    def index(self, name: str, keys: Any) -> np.ndarray:
        """Row of every value of a column among ``keys``, int32: see `index_in`."""
        out = np.empty(self.num_rows, np.int32)
        for rows, values in self.batches(name):
            out[rows] = index_in(values, keys)
        return out

    def encoded(self, name: str) -> Any:
        """A column of strings as one pa.DictionaryArray; from a file it never is in memory as strings."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._table is None and name in self.names and self.type(name) == pa.string():
            with self._reading(name):
                file = pq.ParquetFile(self._path, read_dictionary=[name], pre_buffer=False)
                values = file.read(columns=[name], use_threads=False)[name]
                self._sound(values, len(values))
            if columns(self.name)[name].default is None or not values.null_count:
                return values.unify_dictionaries().combine_chunks()
        return self.column(name).dictionary_encode().unify_dictionaries().combine_chunks()

    @contextmanager
    def _reading(self, column: str) -> Iterator[None]:
        """Turns what arrow raises over damaged bytes into a LogError that names the column."""
        try:
            yield
        except READ_ERRORS as error:
            found = f"bytes that cannot be read ({_one_line(error)})"
            raise LogError([Fault(self.name, None, column, found, "a complete parquet file")]) from None

    def _sound(self, values: Any, length: int) -> Any:
        """``values``, if strings are UTF-8, offsets lie inside, and there are as many as rows."""
        if values is not None:
            values.validate(full=True)
        if length != self.num_rows:
            raise ValueError(f"{length} values in {self.num_rows} rows")
        return values

    def table(self) -> Any:
        """The whole table as a pa.Table: the columns of the schema in its order, then all others."""
        import pyarrow as pa

        known = {name: self.column(name) for name in columns(self.name)}
        others = {name: self.raw(name) for name in self.extra_names}
        return pa.table({**known, **others})

    @property
    def extra_names(self) -> list[str]:
        """Columns that the schema does not know."""
        known = columns(self.name)
        return [name for name in self.names if name not in known]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def make_table(name: str, data: Any) -> Any:
    """A pa.Table of the schema from a pa.Table, columns by name, or rows; missing columns become null."""
    import pyarrow as pa

    if not isinstance(data, pa.Table):
        if not isinstance(data, Mapping):
            rows = list(data)
            keys = dict.fromkeys(key for row in rows for key in row)
            data = {key: [row.get(key) for row in rows] for key in keys}
        sizes = {key: len(values) for key, values in data.items()}
        if len(set(sizes.values())) > 1:
            raise LogError([Fault(name, None, None, f"columns of different lengths {sizes}", "one length")])
        data = pa.table({key: _array(name, key, values) for key, values in data.items()})
    table = Source(name, table=data).table()
    return fill_states(table) if name == "states" else table


def _array(table: str, name: str, values: Any) -> Any:
    """A column from plain Python or numpy values; the first value that does not fit is named."""
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    spec = columns(table).get(name)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return pa.array(values)
    target = arrow_type(spec) if spec is not None else None
    values = list(values)
    try:
        return pa.array(values)  # as what it is: told to make integers, arrow would cut 2.5 to 2
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        expected = spec.expected if spec is not None else "values of one type"
        for row, value in enumerate(values):
            try:
                pa.array([value], target)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                raise LogError([Fault(table, row, name, repr(value), expected)]) from None
        raise LogError([Fault(table, None, name, "values of several types", expected)]) from None


def fill_states(states: Any) -> Any:
    """The states table with every null task_id and group_id filled.

    A state belongs to the task of the whole question it is part of, else to one of its own; a task's group is
    the hash of its root's text, so that copies of one question, and all that follows from it, stay together.
    """
    import pyarrow as pa

    if not states["task_id"].null_count and not states["group_id"].null_count:
        return states
    names = ("state_id", "task_id", "group_id", "parent_id", "text", "step")
    ids, tasks, groups, parents, texts, steps = (states[name].to_pylist() for name in names)
    index = {state_id: row for row, state_id in enumerate(ids)}
    for row in range(len(ids)):
        if tasks[row] is None:
            top, seen = row, set()
            while tasks[top] is None and parents[top] in index and top not in seen:
                seen.add(top)
                top = index[parents[top]]
            tasks[row] = tasks[top] if tasks[top] is not None else ids[top]
    group_of_task: dict[str, str] = {}
    for row, task in enumerate(tasks):
        if steps[row] == 0 and parents[row] is None and task not in group_of_task:
            group_of_task[task] = groups[row] if groups[row] is not None else group_of(texts[row].strip() or task)
    for row, task in enumerate(tasks):
        if groups[row] is None:
            groups[row] = group_of_task[task] if task in group_of_task else group_of(task)
    filled = {"task_id": tasks, "group_id": groups}
    return pa.table({name: filled.get(name, states[name]) for name in states.column_names})


def write_table(table: Any, sink: Any) -> None:
    """Write parquet, the same bytes for the same table."""
    import pyarrow.parquet as pq

    pq.write_table(table, sink, compression="zstd", row_group_size=131_072, version="2.6")


def floats(values: Any) -> np.ndarray:
    """A column of numbers as float64, NaN for null; a copy that may be written to."""
    return _writable(values.to_numpy(zero_copy_only=False), np.float64)


def ints(values: Any, null: int = -1) -> np.ndarray:
    """A column of integers as int32, ``null`` for null; a copy that may be written to."""
    import pyarrow.compute as pc

    return _writable(pc.fill_null(values, null).to_numpy(zero_copy_only=False), np.int32)


def bools(values: Any) -> np.ndarray:
    """A column of booleans, False for null."""
    import pyarrow.compute as pc

    return _writable(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


def _writable(values: np.ndarray, dtype: Any) -> np.ndarray:
    array = np.asarray(values, dtype)
    return array if array.flags.writeable else array.copy()


def index_in(values: Any, keys: Any) -> np.ndarray:
    """Row of every value among ``keys`` (a pa.Array), int32: −1 for null, −2 for a value not there."""
    import pyarrow.compute as pc

    rows = ints(pc.index_in(values, value_set=keys), null=-2)
    if values.null_count:
        rows[bools(pc.is_null(values))] = -1
    return rows


def release_memory() -> None:
    """Give memory that arrow has no more use for back to the system."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def value_at(column: Any, row: int) -> Any:
    """One value of a column as a Python object."""
    return column[int(row)].as_py()
