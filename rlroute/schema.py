"""The tables of a replay log, column by column: the data that reading, filling and validation all use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlroute.errors import Fault, LogError

ColumnType = Literal["string", "int", "float", "bool", "strings"]

# Token counts and steps are stored as 32-bit integers.
INT_MAX = 2**31 - 1
# USD and seconds beyond this are mistakes of unit, and would not fit the 32-bit arrays.
FLOAT_MAX = 1e9


@dataclass(frozen=True)
class Column:
    """One column: its type, whether it must be there, its bounds, and what it means."""

    name: str
    type: ColumnType
    meaning: str
    required: bool = False  # the column must exist and hold no null
    default: Any = None  # what a null, or a missing column, stands for
    low: float | None = None
    high: float | None = None
    low_open: bool = False  # the lower bound itself is excluded
    allowed: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What a value of this column has to be, in words."""
        if self.allowed:
            words = "one of " + ", ".join(self.allowed)
        else:
            words = {
                "string": "a string",
                "int": "an integer",
                "float": "a finite number",
                "bool": "true or false",
                "strings": "a list of strings",
            }[self.type]
            if self.high is not None and self.high != INT_MAX:
                words += f" in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}]"
            elif self.low is not None:
                words += f" of at least {self.low:g}"
        return words if self.required else f"{words}, or null"


def _tokens(name: str, meaning: str) -> Column:
    return Column(name, "int", meaning, low=0, high=INT_MAX)


def _usd(name: str, meaning: str) -> Column:
    return Column(name, "float", meaning, low=0, high=FLOAT_MAX)


def _seconds(name: str, meaning: str) -> Column:
    return Column(name, "float", meaning, low=0, high=FLOAT_MAX)


CHOICES = (
    Column("name", "string", "name of the model, of the model at an effort level, or of the tool", required=True),
    Column("kind", "string", "what it is: model, effort, tool, …", default="model"),
    Column("description", "string", "what it is good at, in prose", default=""),
    _usd("input_usd_per_mtok", "price of a million input tokens, USD; null = unknown"),
    _usd("cached_input_usd_per_mtok", "price of a million cached input tokens, USD; null = the input price"),
    _usd("output_usd_per_mtok", "price of a million output tokens, USD; null = unknown"),
    _seconds("first_token_s", "latency to the first token, seconds; null = unknown"),
    Column("output_tokens_per_s", "float", "output tokens a second; null = unknown", low=0, high=FLOAT_MAX),
    Column("max_completion_tokens", "int", "the completion is cut at this many tokens; null = unknown", low=1),
    _seconds("cache_ttl_s", "time to live of a cached prefix, seconds; null = 300 with a cached price, else 0"),
    Column("price_source", "string", "where the prices come from"),
    Column("price_date", "string", "when they were read, YYYY-MM-DD"),
)

STATES = (
    Column("state_id", "string", "name of the state, unique in the log", required=True),
    Column("task_id", "string", "the task or question it belongs to; null = its root's state_id"),
    Column("group_id", "string", "what splits keep together; null = hash of the normalised root text"),
    Column(
        "step",
        "int",
        "decisions since the root; increases along next_state_id",
        default=0,
        low=0,
        high=2**15 - 1,
    ),
    Column("text", "string", "the query, or what is seen at this step", default=""),
    Column("parent_id", "string", "the whole question this is a sub-question of"),
    Column("task_name", "string", "name of the data set or kind of task", default=""),
    Column("gold", "strings", "right answers; never observed"),
    Column("metric", "string", "how quality was scored"),
    Column(
        "split",
        "string",
        "split the log came with; null = by hash of group_id",
        allowed=("train", "val", "test"),
    ),
    Column("terminal", "bool", "the episode is over here", default=False),
    Column("success", "bool", "outcome at a terminal state; null = failure"),
)

RESPONSES = (
    Column("state_id", "string", "the state it was given in", required=True),
    Column("choice", "string", "the choice that gave it", required=True),
    Column(
        "attempt",
        "int",
        "number of the attempt of this choice in this state",
        default=0,
        low=0,
        high=2**15 - 1,
    ),
    Column("next_state_id", "string", "where accepting it leads; null = the episode ends"),
    Column("quality", "float", "score against gold; null only where next_state_id is set", low=0, high=1),
    Column("answer", "string", "the answer in it, normalised; null or empty = none"),
    Column("text", "string", "the whole response"),
    _tokens("prompt_tokens", "tokens of the prompt, cached ones included"),
    _tokens("cached_tokens", "tokens of the prompt served from a cache"),
    _tokens("completion_tokens", "tokens generated, reasoning included"),
    _tokens("reasoning_tokens", "tokens of hidden reasoning among them"),
    _usd("cost_usd", "what the call cost, USD; null = computed from tokens and prices"),
    _seconds("latency_s", "seconds until it was complete; null = from tokens and speeds, else 0"),
    Column("error", "string", "what went wrong (starts with the HTTP status if there is one); null = nothing"),
    Column("action", "string", "normalised action, for labels of minimum sufficient effort"),
    Column("propensity", "float", "probability with which this choice was drawn", low=0, high=1, low_open=True),
    Column("verdict", "float", "what a checker that sees no gold said of it; null = no checker", low=0, high=1),
)

OUTCOMES = (
    Column("state_id", "string", "the state", required=True),
    Column("choice", "string", "the choice", required=True),
    Column("kind", "string", "name of the outcome", required=True),
    Column("probability", "float", "its probability under the generator", required=True, low=0, high=1),
    Column("next_state_id", "string", "where it leads; null = the episode ends"),
    Column("quality", "float", "its quality", low=0, high=1),
    _usd("cost_usd", "its expected cost, USD"),
    _seconds("latency_s", "its expected latency, seconds"),
    Column("verdict", "float", "probability that the checker says 1", low=0, high=1),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "choices": CHOICES,
    "states": STATES,
    "responses": RESPONSES,
    "outcomes": OUTCOMES,
}
OPTIONAL_TABLES = ("outcomes",)


def columns(table: str) -> dict[str, Column]:
    """The columns of a table by name."""
    return {column.name: column for column in TABLES[table]}


def arrow_type(column: Column) -> Any:
    """The arrow type in which a column is kept."""
    import pyarrow as pa

    return {
        "string": pa.string(),
        "int": pa.int32(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
    }[column.type]


def conform(table: str, column: Column, values: Any) -> Any:
    """``values`` (a pa.ChunkedArray) cast to the column's type, with nulls replaced by its default.

    Only lossless casts between numbers, or between kinds of strings, are made; anything else is a LogError.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    target = arrow_type(column)
    found = values.type
    if found != target:
        text = pt.is_string(found) or pt.is_large_string(found) or pt.is_dictionary(found) or pt.is_date(found)
        number = pt.is_integer(found) or pt.is_floating(found)
        castable = (
            pt.is_null(found)
            or {
                "string": text,
                "int": number,
                "float": number,
                "bool": False,
                "strings": pt.is_list(found) or pt.is_large_list(found),
            }[column.type]
        )
        if not castable:
            raise LogError([Fault(table, None, column.name, f"values of type {found}", column.expected)])
        try:
            values = values.cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            row, value = _uncastable(values, target)
            found_text = repr(value) if row is not None else f"values of type {found} ({error})"
            raise LogError([Fault(table, row, column.name, found_text, column.expected)]) from None
    if column.default is not None and values.null_count:
        values = pc.fill_null(values, column.default)
    return values


def _uncastable(values: Any, target: Any) -> tuple[int | None, Any]:
    """The first row that cannot be cast, by bisection on slices."""
    import pyarrow as pa

    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            values.slice(low, middle - low).cast(target)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
    return (low, values[low].as_py()) if len(values) else (None, None)
