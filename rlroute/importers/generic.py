"""Anybody's recording of (query, model, quality, …) in CSV, JSONL or parquet, its columns mapped in YAML.

A long recording has one row for each response::

    name: my-recording
    columns: {query: prompt, model: model_name, quality: score, completion_tokens: tokens_out}
    prices:
      small: {input_usd_per_mtok: 0.4, output_usd_per_mtok: 1.6, price_source: vendor, price_date: 2026-01-01}

A wide one has one row for each query, and for each model columns of its own::

    name: my-recording
    columns: {query: prompt, task: topic}
    models:
      small: {quality: small_score, cost_usd: small_cost}
      large: {quality: large_score, cost_usd: large_cost}

Each field names the column it is read from; those of `QueryColumns` belong to the query, those of
`ResponseColumns` to a response. Several rows of one query and model are several attempts.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rlroute.answers import answer_key
from rlroute.card import Card
from rlroute.errors import Fault, LogError
from rlroute.importers.reading import coverage, read_jsonl
from rlroute.prices import price_of
from rlroute.schema import Column, columns

if TYPE_CHECKING:
    from rlroute.log import Log

MAPPING = "mapping.yaml"
# A recording with faults in every row need not be read to its end.
MAX_FAULTS = 20


class Strict(BaseModel):
    """Refuses fields that it does not know, so that a misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")


class QueryColumns(Strict):
    """Columns of a query."""

    query: str
    id: str | None = None  # default: a hash of the query
    task: str | None = None  # kind of task or data set
    gold: str | None = None  # a string, or a list (JSON, in CSV)
    split: str | None = None  # train, val or test


class ResponseColumns(Strict):
    """Columns of a response."""

    quality: str
    cost_usd: str | None = None
    prompt_tokens: str | None = None
    cached_tokens: str | None = None
    completion_tokens: str | None = None
    reasoning_tokens: str | None = None
    latency_s: str | None = None
    answer: str | None = None
    text: str | None = None
    attempt: str | None = None
    verdict: str | None = None
    propensity: str | None = None
    error: str | None = None


class LongColumns(QueryColumns, ResponseColumns):
    """Columns of a recording with one row for each response."""

    model: str


class ModelPrice(Strict):
    """Price and limits of one model, in the units of the choices table."""

    description: str | None = None
    input_usd_per_mtok: float | None = Field(None, ge=0)
    cached_input_usd_per_mtok: float | None = Field(None, ge=0)
    output_usd_per_mtok: float | None = Field(None, ge=0)
    first_token_s: float | None = Field(None, ge=0)
    output_tokens_per_s: float | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=1)
    cache_ttl_s: float | None = Field(None, ge=0)
    price_source: str | None = None
    price_date: str | None = None


class Mapping(Strict):
    """What a recording is and what its columns mean, whatever its format."""

    name: str = Field(min_length=1)
    file: str | None = None  # the recording, relative to the mapping; needed where a folder is imported
    prices: dict[str, ModelPrice] = {}
    quality_range: tuple[float, float] = (0.0, 1.0)  # what the recording calls worst and best
    normalise_answers: bool = True  # fold case, punctuation and articles; false where −5 and 5 must differ
    origin: str = ""
    licence: str = ""
    description: str = ""

    @field_validator("quality_range")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("[worst, best] with worst < best")
        return value


class LongMapping(Mapping):
    """One row for each response."""

    columns: LongColumns


class WideMapping(Mapping):
    """One row for each query, with columns for each model."""

    columns: QueryColumns
    models: dict[str, ResponseColumns] = Field(min_length=1)


def add_arguments(parser: Any) -> None:
    """Options of `read` on an argparse parser."""
    parser.add_argument("--mapping", metavar="YAML", help=f"mapping of columns; default: {MAPPING} beside the data")


def read(path: Path, mapping: str | Path | None = None) -> Log:
    """The log of a recording: a CSV, JSONL or parquet file, or a folder whose mapping names one."""
    from rlroute.log import Log

    folder = path if path.is_dir() else path.parent
    mapping_file = Path(mapping) if mapping is not None else folder / MAPPING
    spec = read_mapping(mapping_file)
    if path.is_dir():
        if spec.file is None:
            raise LogError([Fault(mapping_file.name, None, "file", "nothing", "the recording in this folder")])
        path = folder / spec.file
    states: dict[str, dict[str, Any]] = {}
    responses: list[dict[str, Any]] = []
    attempts: dict[tuple[str, str], int] = {}
    faults: list[Fault] = []
    for number, row in read_rows(path):
        reader = _Row(path, number, row, spec)
        state = reader.query()
        state_id = state.get("state_id", "")
        states.setdefault(state_id, state)
        for model, response in reader.responses():
            key = (state_id, model)
            attempts[key] = attempts.get(key, -1) + 1
            responses.append({"state_id": state_id, "choice": model, "attempt": attempts[key], **response})
        faults += reader.faults
        if len(faults) >= MAX_FAULTS:
            break
    if not faults and not responses:
        faults.append(Fault(path.name, None, None, "no rows", "at least one response"))
    if faults:
        raise LogError(faults)
    models = sorted({response["choice"] for response in responses})
    faults = [
        Fault(
            mapping_file.name,
            None,
            f"prices.{name}",
            "a model that is not in the recording",
            ", ".join(models),
        )
        for name in spec.prices
        if name not in models
    ]
    if faults:
        raise LogError(faults)
    choices = [_choice(name, spec) for name in models]
    rows = list(states.values())
    card = Card(
        name=spec.name,
        origin=spec.origin or path.name,
        licence=spec.licence,
        generator="rlroute.importers.generic",
        parameters={"file": path.name, "mapping": spec.model_dump(mode="json", exclude_defaults=True)},
        coverage=coverage(choices, rows, responses),
        description=spec.description,
    )
    return Log.from_tables(card, choices, rows, responses)


def read_mapping(file: Path) -> LongMapping | WideMapping:
    """A mapping, checked; each fault names the file and the field."""
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        raise LogError([Fault(str(file), None, None, "no such file", "a mapping of columns in YAML")]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise LogError([Fault(file.name, None, None, f"no YAML ({reason})", "a YAML mapping")]) from None
    format_ = WideMapping if isinstance(data, dict) and "models" in data else LongMapping
    try:
        return format_.model_validate(data)
    except ValidationError as error:
        raise LogError([_mapping_fault(file, problem) for problem in error.errors()]) from None


def _mapping_fault(file: Path, problem: Any) -> Fault:
    where = ".".join(str(part) for part in problem["loc"]) or None
    if problem["type"] == "missing":
        found = "nothing"
    elif problem["type"] == "extra_forbidden":
        return Fault(file.name, None, where, "an unknown field", "one that the mapping knows")
    else:
        found = repr(problem["input"])[:60]
    return Fault(file.name, None, where, found, problem["msg"][0].lower() + problem["msg"][1:])


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, values by column) of a CSV, JSONL or parquet file; lines of text files count from 1."""
    if not file.is_file():
        raise LogError([Fault(str(file), None, None, "no such file", "a recording in CSV, JSONL or parquet")])
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".csv"]:
        yield from _read_csv(file)
    elif suffixes[-1:] == [".jsonl"] or suffixes[-2:] == [".jsonl", ".gz"]:
        yield from read_jsonl(file)
    elif suffixes[-1:] == [".parquet"]:
        yield from _read_parquet(file)
    else:
        expected = "a file whose name ends in .csv, .jsonl, .jsonl.gz or .parquet"
        raise LogError([Fault(file.name, None, None, "a file of another kind", expected)])


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**30)  # texts may be long
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            for row in reader:
                if len(row) not in (0, len(header)):
                    expected = f"{len(header)} fields, as in the header"
                    raise LogError([Fault(file.name, reader.line_num, None, f"{len(row)} fields", expected)])
                if row:  # an empty field is a missing value: CSV has no other way to say so
                    yield (
                        reader.line_num,
                        {key: value or None for key, value in zip(header, row, strict=True)},
                    )
        except (csv.Error, UnicodeDecodeError) as error:
            fault = Fault(file.name, reader.line_num, None, f"no CSV ({error})", "well-formed CSV in UTF-8")
            raise LogError([fault]) from None


def _read_parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=8192):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LogError([Fault(file.name, None, None, f"no readable parquet ({reason})", "parquet")]) from None


class _Row:
    """One row of a recording; what is wrong with it gathers in ``faults``."""

    def __init__(self, file: Path, number: int, row: dict[str, Any], spec: LongMapping | WideMapping) -> None:
        self.file, self.number, self.row, self.spec = file, number, row, spec
        self.faults: list[Fault] = []

    def query(self) -> dict[str, Any]:
        """The row of the states table."""
        names = self.spec.columns
        text = self.value(names.query, columns("states")["state_id"], "a query")
        if text is None:
            return {}
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        state = {"state_id": digest, "text": text}
        for column, name in (("state_id", names.id), ("task_name", names.task), ("split", names.split)):
            if name is not None:
                value = self.value(name, columns("states")[column])
                state[column] = value if value is not None else state.get(column)
        if names.gold is not None:
            state["gold"] = self.gold(names.gold)
        return state

    def responses(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(model, row of the responses table) of every response in this row."""
        if isinstance(self.spec, LongMapping):
            names = self.spec.columns
            model = self.value(names.model, columns("responses")["choice"], "a model")
            if model is not None:
                yield model, self.response(names)
            return
        for model, own in self.spec.models.items():
            # In a wide recording a model that did not answer has no quality.
            if own.quality not in self.row or self.row[own.quality] is not None:
                yield model, self.response(own)

    def response(self, names: ResponseColumns) -> dict[str, Any]:
        """The columns of one response that the mapping names."""
        known = columns("responses")
        mapped = {name: getattr(names, name) for name in ResponseColumns.model_fields if getattr(names, name)}
        response = {name: self.value(column, known[name]) for name, column in mapped.items() if name != "quality"}
        worst, best = self.spec.quality_range
        scale = Column("quality", "float", "", required=True, low=worst, high=best)
        quality = self.value(names.quality, scale)
        response["quality"] = None if quality is None else (quality - worst) / (best - worst)
        if response.get("attempt") is None:
            response.pop("attempt", None)
        if self.spec.normalise_answers and response.get("answer"):
            response["answer"] = answer_key(response["answer"])
        return response

    def value(self, name: str, column: Column, required: str = "") -> Any:
        """A value in the type and bounds of a column of the log; None, and a fault, if it does not fit."""
        expected = required or column.expected
        if name not in self.row:
            found = f"no such column (there are {', '.join(map(str, self.row))})"
            return self.fault(name, found, expected)
        value = self.row[name]
        if value is None or value == "":
            return self.fault(name, "nothing", expected) if column.required else None
        converted = _convert(value, column)
        if converted is None or not _fits(converted, column):
            return self.fault(name, repr(value)[:60], expected)
        return converted

    def gold(self, name: str) -> list[str] | None:
        """Right answers: a list, a JSON list in a string, or one string."""
        if name not in self.row:
            self.fault(name, "no such column", "right answers")
            return None
        value = self.row[name]
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                value = [value]  # an answer that happens to begin with a bracket
        if value is None:
            return None
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def fault(self, name: str, found: str, expected: str) -> None:
        """Note a fault of this row."""
        self.faults.append(Fault(self.file.name, self.number, name, found, expected))


def _convert(value: Any, column: Column) -> Any:
    """A value as the column's type, None if it is none; text becomes a number where a number is wanted."""
    if column.type == "string":
        return str(value) if isinstance(value, (str, int, float)) else None
    if isinstance(value, bool):
        return float(value) if column.name in ("quality", "verdict") else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if number != number or number in (float("inf"), float("-inf")):
        return None
    if column.type == "int":
        return int(number) if number == int(number) else None
    return number


def _fits(value: Any, column: Column) -> bool:
    """Whether a value lies within the bounds of a column."""
    if column.allowed and value not in column.allowed:
        return False
    if column.low is not None and (value < column.low or (column.low_open and value == column.low)):
        return False
    return column.high is None or value <= column.high


def _choice(name: str, spec: Mapping) -> dict[str, Any]:
    """The row of the choices table: the prices of the mapping first, then those known by the model's name."""
    if name in spec.prices:
        return {"name": name, **spec.prices[name].model_dump()}
    listed = price_of(name)
    return {"name": name, **(listed.to_row() if listed is not None else {})}
