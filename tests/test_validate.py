"""Every kind of bad log gets one clear error that names table, row and column."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_logs import Rows, make, query_rows, refusal, task_rows, think_rows

from rlroute.errors import Fault, LogError
from rlroute.log import Log, load_log
from rlroute.schema import TABLES, columns
from rlroute.validate import LISTED

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLROUTE_CACHE", str(tmp_path / "cache"))


def faults_of(rows: Rows, **card: Any) -> list[Fault]:
    """The faults of a log of these rows, whether its making or its validation finds them."""
    try:
        return make(rows, **card).validate()
    except LogError as error:
        return list(error.faults)


def errors_of(rows: Rows, **card: Any) -> list[Fault]:
    return [fault for fault in faults_of(rows, **card) if fault.severity == "error"]


@pytest.mark.parametrize("rows", [query_rows(), task_rows(), think_rows()], ids=["query", "task", "think"])
def test_good_logs_have_no_errors(rows: Rows) -> None:
    assert errors_of(rows) == []


def spoil(table: str, row: int, **values: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[table][row].update(values)

    return change


def add(table: str, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(values)


def both(*changes: Callable[[Rows], None]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for one in changes:
            one(rows)

    return change


def repeat(table: str, row: int) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(dict(rows[table][row]))


def each(table: str, **of_row: Callable[[int], Any]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for i, row in enumerate(rows[table]):
            row.update({column: value(i) for column, value in of_row.items()})

    return change


def drop(table: str, row: int) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[table].pop(row)

    return change


# What is done to a good log, and where the one error has to point: table, row, column, and what was found.
Case = tuple[Callable[[], Rows], Callable[[Rows], None], tuple[str, int | None, str | None, str]]
SPOILED: dict[str, Case] = {
    "unknown choice": (
        query_rows,
        spoil("responses", 7, choice="huge"),
        ("responses", 7, "choice", "'huge'"),
    ),
    "unknown state": (
        query_rows,
        spoil("responses", 7, state_id="q99"),
        ("responses", 7, "state_id", "'q99'"),
    ),
    "dangling next state": (
        task_rows,
        spoil("responses", 1, next_state_id="nowhere"),
        ("responses", 1, "next_state_id", "'nowhere'"),
    ),
    "dangling parent": (think_rows, spoil("states", 2, parent_id="z"), ("states", 2, "parent_id", "'z'")),
    "NaN": (query_rows, spoil("responses", 5, quality=math.nan), ("responses", 5, "quality", "nan")),
    "infinite cost": (
        query_rows,
        spoil("responses", 5, cost_usd=math.inf),
        ("responses", 5, "cost_usd", "inf"),
    ),
    "infinite feature": (
        query_rows,
        spoil("states", 4, difficulty=math.inf),
        ("states", 4, "difficulty", "inf"),
    ),
    "negative cost": (query_rows, spoil("responses", 2, cost_usd=-0.1), ("responses", 2, "cost_usd", "-0.1")),
    "negative price": (
        query_rows,
        spoil("choices", 1, output_usd_per_mtok=-1.0),
        ("choices", 1, "output_usd_per_mtok", "-1.0"),
    ),
    "negative tokens": (
        query_rows,
        spoil("responses", 2, prompt_tokens=-1),
        ("responses", 2, "prompt_tokens", "-1"),
    ),
    "seconds that cannot be": (
        query_rows,
        spoil("responses", 2, latency_s=1e12),
        ("responses", 2, "latency_s", "1000000000000.0"),
    ),
    "quality above one": (
        query_rows,
        spoil("responses", 17, quality=1.2),
        ("responses", 17, "quality", "1.2"),
    ),
    "quality below zero": (
        query_rows,
        spoil("responses", 17, quality=-0.2),
        ("responses", 17, "quality", "-0.2"),
    ),
    "verdict above one": (query_rows, spoil("responses", 1, verdict=1.5), ("responses", 1, "verdict", "1.5")),
    "propensity of zero": (
        query_rows,
        spoil("responses", 3, propensity=0.0),
        ("responses", 3, "propensity", "0.0"),
    ),
    "propensity above one": (
        query_rows,
        spoil("responses", 3, propensity=1.1),
        ("responses", 3, "propensity", "1.1"),
    ),
    "unknown split": (query_rows, spoil("states", 3, split="dev"), ("states", 3, "split", "'dev'")),
    "duplicate state": (query_rows, repeat("states", 3), ("states", 40, "state_id", "'q3'")),
    "duplicate choice": (query_rows, repeat("choices", 0), ("choices", 2, "name", "'small'")),
    "duplicate attempt": (
        task_rows,
        spoil("responses", 2, attempt=0),
        ("responses", 2, "attempt", "attempt 0 a second time"),
    ),
    "missing name": (query_rows, add("choices", name=None), ("choices", 2, "name", "None")),
    "empty name": (query_rows, add("choices", name=""), ("choices", 2, "name", "''")),
    "no quality at an end": (
        query_rows,
        spoil("responses", 9, quality=None),
        ("responses", 9, "quality", "null"),
    ),
    "text for a number": (
        query_rows,
        spoil("responses", 9, quality="good"),
        ("responses", 9, "quality", "'good'"),
    ),
    "number for text": (query_rows, spoil("states", 9, text=3), ("states", 9, "text", "3")),
    "half a token": (
        query_rows,
        spoil("responses", 9, prompt_tokens=2.5),
        ("responses", 9, "prompt_tokens", "2.5"),
    ),
    "step backwards": (
        task_rows,
        spoil("responses", 3, next_state_id="start"),
        ("responses", 3, "next_state_id", "from step 1 to step 0"),
    ),
    "step to itself": (
        task_rows,
        spoil("responses", 3, next_state_id="middle"),
        ("responses", 3, "next_state_id", "from step 1 to step 1"),
    ),
    "step into another group": (
        task_rows,
        both(
            add("states", state_id="alien", step=3, terminal=True),
            spoil("responses", 3, next_state_id="alien"),
        ),
        ("responses", 3, "next_state_id", "'alien'"),
    ),
    "two places to think": (
        think_rows,
        both(
            add("states", state_id="q.1b", text="Who else made X?", step=1, parent_id="q"),
            *(add("responses", state_id="q.1b", choice=c, quality=0.0, cost_usd=1.0) for c in ("small", "large")),
        ),
        ("states", 4, "parent_id", "a second sub-question of step 1"),
    ),
    "responses at an end": (
        task_rows,
        spoil("states", 1, terminal=True),
        ("states", 1, "terminal", "'middle'"),
    ),
    "no responses before the end": (
        task_rows,
        spoil("states", 3, terminal=False),
        ("states", 3, "terminal", "'lost'"),
    ),
    "no tokens and no cost": (
        query_rows,
        spoil("responses", 6, completion_tokens=None),
        ("responses", 6, "cost_usd", "null"),
    ),
    "no price where one is needed": (
        query_rows,
        spoil("choices", 1, output_usd_per_mtok=None),
        ("choices", 1, "output_usd_per_mtok", "null"),
    ),
    "a choice that did not answer": (
        query_rows,
        drop("responses", 9),
        ("states", 4, "state_id", "'large'"),
    ),
    "an empty split": (
        query_rows,
        each("states", split=lambda i: "train" if i else "test"),
        ("states", None, "split", "'val'"),
    ),
    "no root": (
        query_rows,
        each("states", step=lambda i: 1),
        ("states", None, "step", "no state with step 0"),
    ),
    "no rows": (
        query_rows,
        lambda rows: rows["responses"].clear(),
        ("responses", None, "state_id", "no such column"),
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_log_gets_one_error_that_says_where(name: str, tmp_path: Path) -> None:
    good, change, (table, row, column, found) = SPOILED[name]
    rows = good()
    change(rows)
    errors = errors_of(rows)
    assert [(fault.table, fault.row, fault.column) for fault in errors] == [(table, row, column)]
    assert found in errors[0].found
    line = str(errors[0])
    assert "\n" not in line
    assert all(str(part) in line for part in (table, row, column) if part is not None)
    with pytest.raises(LogError) as caught:
        make(rows).save(tmp_path / "log")
    assert line in str(caught.value)
    assert not (tmp_path / "log").exists()


WARNED: dict[str, tuple[Callable[[], Rows], Callable[[Rows], Any], tuple[str, str]]] = {
    "constant tokens": (
        query_rows,
        each("responses", prompt_tokens=lambda i: 7),
        ("responses", "prompt_tokens"),
    ),
    "unknown column": (query_rows, spoil("responses", 0, mood="fine"), ("responses", "mood")),
    "cost far from tokens × prices": (
        query_rows,
        spoil("responses", 0, cost_usd=1.0),
        ("responses", "cost_usd"),
    ),
    "a completion longer than the limit of its choice": (
        query_rows,
        spoil("responses", 2, completion_tokens=101),
        ("responses", "completion_tokens"),
    ),
    "unknown price": (
        task_rows,
        spoil("choices", 0, output_usd_per_mtok=None),
        ("choices", "output_usd_per_mtok"),
    ),
    "outcome before the end": (task_rows, spoil("states", 1, success=True), ("states", "success")),
    "a state that nothing leads to": (
        think_rows,
        spoil("states", 3, parent_id=None, task_id="q"),
        ("states", "state_id"),
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_an_odd_log_gets_a_warning_and_can_be_used(name: str) -> None:
    good, change, where = WARNED[name]
    rows = good()
    change(rows)
    if name == "a state that nothing leads to":
        rows["responses"][2]["next_state_id"] = "q.2.ada"
    faults = faults_of(rows)
    assert [fault for fault in faults if fault.severity == "error"] == []
    assert where in [(fault.table, fault.column) for fault in faults]
    assert make(rows).arrays.num_choices == 2


def test_a_completion_above_the_limit_is_named_and_one_at_it_is_fine() -> None:
    rows = query_rows()
    spoil("responses", 2, completion_tokens=101)(rows)  # small may say 100 tokens, large any number
    spoil("responses", 3, completion_tokens=5000)(rows)
    spoil("responses", 4, completion_tokens=100)(rows)
    faults = [fault for fault in faults_of(rows) if fault.column == "completion_tokens"]
    assert [(fault.row, fault.severity, fault.found) for fault in faults] == [
        (2, "warning", "101 tokens, above the limit of 100")
    ]


def test_text_of_test_that_occurs_in_train_is_a_warning() -> None:
    rows = query_rows()
    for i, row in enumerate(rows["states"]):
        row["split"], row["group_id"] = ("train", "val", "test")[i % 3], f"g{i}"
    assert not [fault for fault in faults_of(rows) if fault.column == "text"]
    rows["states"][5]["text"] = "question  0?"  # a copy of a question of train but for case and space
    leaks = [fault for fault in faults_of(rows) if fault.column == "text"]
    assert [(fault.row, fault.severity) for fault in leaks] == [(5, "warning")]


def test_a_group_on_two_sides_is_an_error() -> None:
    rows = query_rows()
    for i, row in enumerate(rows["states"]):
        row["split"], row["group_id"] = ("train", "val", "test")[i % 3], f"g{i}"
    rows["states"][4]["group_id"] = "g3"
    assert [(fault.row, fault.column) for fault in errors_of(rows)] == [(4, "split")]


def test_missing_responses_are_fine_where_the_card_says_partial() -> None:
    rows = query_rows()
    rows["responses"].pop(9)
    assert errors_of(rows, coverage="partial") == []


def test_many_rows_with_one_fault_are_counted_not_listed() -> None:
    rows = query_rows()
    for row in rows["responses"]:
        row["quality"] = 2.0
    errors = errors_of(rows)
    assert len(errors) == LISTED
    assert errors[-1].more == 80 - LISTED
    assert "(and 77 more such rows)" in str(errors[-1])


def test_outcomes_add_up_to_one_in_every_state_and_choice() -> None:
    rows = query_rows(10)
    outcome = {"state_id": "q0", "choice": "small", "kind": "right", "probability": 0.5}
    rows["outcomes"] = [outcome, {**outcome, "kind": "wrong"}]
    assert errors_of(rows) == []
    rows["outcomes"][1]["probability"] = 0.4
    assert [(f.table, f.row, f.column) for f in errors_of(rows)] == [("outcomes", 0, "probability")]


def required_columns() -> list[tuple[str, str]]:
    return [(table, c.name) for table in TABLES if table != "outcomes" for c in TABLES[table] if c.required]


@pytest.mark.parametrize(("table", "column"), required_columns())
def test_a_missing_column_is_named(table: str, column: str, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / f"{table}.parquet"
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(LogError, match=f"{table}, column {column}: found no such column"):
        load_log(path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("quality", pa.array(["1"] * 80)),
        ("state_id", pa.array(range(80))),
        ("quality", pa.array([True] * 80)),
    ],
)
def test_a_column_of_the_wrong_type_is_named(column: str, values: pa.Array, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / "responses.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.column_names.index(column), column, values), file)
    with pytest.raises(LogError, match=f"responses, column {column}: found values of type {values.type}"):
        load_log(path)


@pytest.mark.parametrize("table", ["choices", "states", "responses"])
def test_an_empty_table_is_named(table: str, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / f"{table}.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(LogError, match=f"{table}: found no rows"):
        load_log(path)


@pytest.mark.parametrize("kept", [0, 3, 4, 100, -1, -9])
def test_a_truncated_file_is_named(kept: int, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / "responses.parquet"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(LogError, match=r"responses: found (a truncated|no) parquet file"):
        load_log(path)


def test_damaged_pages_are_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / "responses.parquet"
    data = bytearray(file.read_bytes())
    data[4:2000] = bytes(1996)
    file.write_bytes(bytes(data))
    with pytest.raises(LogError, match=r"responses, column \w+: found bytes"):
        load_log(path)


@pytest.mark.parametrize("name", ["states", "responses"])
def test_text_that_is_not_utf_8_is_named(name: str, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    file = path / f"{name}.parquet"
    table = pq.read_table(file)
    text = pa.array([b"\xff"] * table.num_rows, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("text"), "text", text), file)
    with pytest.raises(LogError, match=f"{name}, column text: found bytes that cannot be read"):
        load_log(path)


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_in_place_of_a_table_is_refused_and_never_loaded(tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    (path / "states.parquet").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(LogError, match="states: found no parquet file"):
        load_log(path)
    (path / "states.parquet").rename(path / "states.pkl")
    with pytest.raises(LogError, match=r"states: found no such file, but states.pkl"):
        load_log(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "no YAML"),
        ("- a\n- b", "list"),
        ("version: 2", "column name: found None"),
        ("name: x\ncolour: red", "column colour: found an unknown field"),
        ("name: x\ncoverage: most", "'most'"),
        ("name: x\nreference: {choice: a}", "column reference"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_a_bad_card_is_named(text: str, found: str, tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    (path / "card.yaml").write_text(text)
    with pytest.raises(LogError, match=r"card\.yaml") as caught:
        load_log(path)
    assert found in str(caught.value)


def test_tables_changed_behind_the_card_are_a_warning(tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    make(query_rows(30)).save(tmp_path / "other")
    for file in (tmp_path / "other").glob("*.parquet"):
        (path / file.name).write_bytes(file.read_bytes())
    faults = Log.open(path).validate()
    assert [(fault.table, fault.column, fault.severity) for fault in faults] == [
        ("card.yaml", "content_hash", "warning")
    ]


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.just(1e300),
    st.text(max_size=5),
    st.lists(st.text(max_size=2), max_size=2),
)
cells = st.sampled_from([(table, column) for table in ("choices", "states", "responses") for column in columns(table)])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([query_rows, task_rows, think_rows]),
    changes=st.lists(st.tuples(cells, st.integers(0, 79), anything), min_size=1, max_size=3),
)
def test_whatever_is_put_into_a_log_it_is_refused_by_name_or_usable(
    base: Callable[[], Rows], changes: list[tuple[tuple[str, str], int, Any]]
) -> None:
    rows = base()
    for (table, column), row, value in changes:
        rows[table][row % len(rows[table])][column] = value
    error = refusal(lambda: make(rows).check())
    if error is not None:
        for fault in error.faults:
            assert fault.table in TABLES
            assert fault.column is not None
            assert "\n" not in str(fault)
        return
    arrays = make(rows).arrays
    for name in ("cost_usd", "latency_s", "input_usd", "output_usd"):
        assert (getattr(arrays, name) >= 0).all()
    quality = arrays.quality[arrays.next_state < 0]
    assert ((quality >= 0) & (quality <= 1)).all()
    assert (arrays.step[arrays.next_state[arrays.next_state >= 0]] > 0).all()


# The same bytes every time: what a C++ parser makes of damage should not decide by chance whether tests pass.
@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    table=st.sampled_from(["choices", "states", "responses"]),
    data=st.binary(max_size=200),
    at=st.integers(0, 10**6),
)
def test_whatever_bytes_a_table_holds_loading_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, table: str, data: bytes, at: int
) -> None:
    path = make(query_rows()).save(tmp_path_factory.mktemp("fuzz") / "log")
    file = path / f"{table}.parquet"
    good = file.read_bytes()
    at %= len(good)
    file.write_bytes(good[:at] + data + good[at + len(data) :])
    error = refusal(lambda: load_log(path))
    assert error is None or {fault.table for fault in error.faults} <= set(TABLES)
