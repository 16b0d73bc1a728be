"""Every fault that a log can have, found on whole columns and said with table, row and column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.dense import is_root, numeric_extras
from rlroute.errors import Fault, LogError, Severity
from rlroute.keys import NULL, UNKNOWN, Keys
from rlroute.prices import UNBILLED, call_cost_usd
from rlroute.schema import OPTIONAL_TABLES, TABLES, Column, arrow_type
from rlroute.splits import empty_splits, split_groups
from rlroute.tables import Source, bools, floats, index_in, ints, value_at

if TYPE_CHECKING:
    from rlroute.log import Log

# Rows of one fault that are listed one by one.
LISTED = 3
# A token column that never changes over this many rows was not measured.
CONSTANT_ROWS = 20
# Recorded costs may differ from tokens × prices by this share (rounding, tiers) before it is worth a word.
COST_TOLERANCE = 0.05
PROBABILITY_TOLERANCE = 1e-6

Rule = Callable[["Log", Keys], Iterator[Fault]]


def validate(log: Log) -> list[Fault]:
    """All faults of a log, errors first. Later rules run only where the earlier ones found no error."""
    try:
        faults = list(structure(log))
        if not faults:
            faults += [fault for table in log.sources for fault in values(log.source(table))]
            faults += names(log, log.keys)
            if not any(fault.severity == "error" for fault in faults):
                for rule in RULES:
                    faults += rule(log, log.keys)
    except LogError as error:  # pages of a file that cannot be read
        faults = list(error.faults)
    return sorted(faults, key=lambda fault: fault.severity != "error")


def _report(
    table: str,
    column: str | None,
    bad: np.ndarray,
    found: Callable[[int], str],
    expected: str,
    severity: Severity = "error",
) -> Iterator[Fault]:
    """Faults for the rows where ``bad`` is set: the first few, the last with the number that remain."""
    rows = np.flatnonzero(bad)
    for position, row in enumerate(rows[:LISTED]):
        more = len(rows) - LISTED if position == LISTED - 1 else 0
        yield Fault(table, int(row), column, found(int(row)), expected, severity, more)


def _shown(column: Any) -> Callable[[int], str]:
    def found(row: int) -> str:
        text = repr(value_at(column, row))
        return text if len(text) <= 80 else text[:77] + "…"

    return found


def structure(log: Log) -> Iterator[Fault]:
    """Files that can be read, columns that are there, values of the right type; tables that hold rows."""
    for table, source in log.sources.items():
        try:
            present = set(source.names)
        except LogError as error:
            yield from error.faults
            continue
        if not source.num_rows and table not in OPTIONAL_TABLES:
            yield Fault(table, None, None, "no rows", "at least one row")
        for column in TABLES[table]:
            if column.name not in present and not column.required:
                continue
            if column.name in present and source.type(column.name) == arrow_type(column):
                continue
            try:
                source.column(column.name)
            except LogError as error:
                yield from error.faults


def values(source: Source) -> Iterator[Fault]:
    """No nulls where there must be none, no NaN, everything within its bounds; unknown columns."""
    present = set(source.names)
    for column in TABLES[source.name]:
        if column.name in present:
            yield from _values_of(source, column)
    for name in numeric_extras(source):
        if source.name == "states":
            numbers = floats(source.raw(name))
            null = bools(source.raw(name).is_null())
            found = _shown(source.raw(name))
            yield from _report(
                "states",
                name,
                ~np.isfinite(numbers.astype(np.float32)) & ~null,
                found,
                "a finite number, or null",
            )
    for name in source.extra_names:
        if source.name != "states" or name not in numeric_extras(source):
            kind = f"an unknown column of type {source.raw(name).type}"
            yield Fault(source.name, None, name, kind, "a column of the log's schema; it is ignored", "warning")


def _values_of(source: Source, column: Column) -> Iterator[Fault]:
    bad = np.zeros(source.num_rows, bool)
    for rows, values in source.batches(column.name):
        for mask in _unfit(values, column):
            bad[rows] |= bools(mask)
    if bad.any():
        yield from _report(source.name, column.name, bad, _shown(source.column(column.name)), column.expected)


def _unfit(values: Any, column: Column) -> Iterator[Any]:
    """Where values do not fit their column: masks, one for each reason."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.required:
        yield pc.is_null(values)
    if column.required and column.type == "string":
        yield pc.equal(values, "")
    if column.allowed:
        yield pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(column.allowed))))
    if column.type == "float":
        yield pc.invert(pc.is_finite(values))
    if column.type in ("float", "int") and column.low is not None:
        yield (pc.less_equal if column.low_open else pc.less)(values, column.low)
    if column.type in ("float", "int") and column.high is not None:
        yield pc.greater(values, column.high)


def names(log: Log, keys: Keys) -> Iterator[Fault]:
    """Keys that are unique, and references that lead somewhere."""
    choices, states, responses = (log.source(name) for name in ("choices", "states", "responses"))
    for source, column in ((choices, "name"), (states, "state_id")):
        data = source.column(column)
        first = index_in(data, data.combine_chunks())
        repeated = (first != np.arange(len(first))) & (first >= 0)
        yield from _report(source.name, column, repeated, _shown(data), "a name that no earlier row has")
    references = (
        (responses, "state_id", keys.state, "a state_id of states"),
        (responses, "choice", keys.choice, "a name of choices"),
        (responses, "next_state_id", keys.next_state, "a state_id of states, or null"),
        (states, "parent_id", keys.parent, "a state_id of states, or null"),
    )
    for source, column, rows, expected in references:
        if (rows == UNKNOWN).any():
            yield from _report(source.name, column, rows == UNKNOWN, _shown(source.column(column)), expected)
    yield from _repeated_attempts(responses, keys)


def _repeated_attempts(responses: Source, keys: Keys) -> Iterator[Fault]:
    """One row for each (state, choice, attempt)."""
    known = (keys.state >= 0) & (keys.choice >= 0)
    attempt = ints(responses.column("attempt")).astype(np.int64)
    num_choices = int(keys.choice.max(initial=0)) + 1
    key = (keys.state.astype(np.int64) * num_choices + keys.choice) * (int(attempt.max(initial=0)) + 1) + attempt
    if bool((key[1:] > key[:-1]).all()):
        return
    order = np.argsort(key, kind="stable")
    repeated = np.zeros(len(key), bool)
    repeated[order[1:]] = np.diff(key[order]) == 0
    repeated &= known
    if repeated.any():
        columns_ = [responses.column(name) for name in ("state_id", "choice", "attempt")]

        def found(row: int) -> str:
            state, choice, number = (value_at(column, row) for column in columns_)
            return f"state {state!r}, choice {choice!r}, attempt {number} a second time"

        yield from _report("responses", "attempt", repeated, found, "one row for each state, choice and attempt")


def graph(log: Log, keys: Keys) -> Iterator[Fault]:
    """Steps that increase, tasks that do not mix, one place to go by thinking, ends that are ends."""
    states = log.source("states")
    step = ints(states.column("step"))
    root = is_root(step, keys.parent)
    ids = states.column("state_id")
    if not root.any():
        yield Fault(
            "states",
            None,
            "step",
            "no state with step 0 and no parent_id",
            "at least one, where episodes start",
        )

    moves = keys.next_state >= 0
    ahead = np.where(moves, keys.next_state, 0)
    backwards = moves & (step[ahead] <= step[keys.state])
    yield from _report(
        "responses",
        "next_state_id",
        backwards,
        lambda row: f"a move from step {step[keys.state[row]]} to step {step[ahead[row]]}",
        "a state of a later step",
    )
    group = ints(states.encoded("group_id").indices)
    for table, column, bad in (
        ("responses", "next_state_id", moves & (group[ahead] != group[keys.state])),
        ("states", "parent_id", (keys.parent >= 0) & (group[np.maximum(keys.parent, 0)] != group)),
    ):
        shown = _shown(log.source(table).column(column))
        yield from _report(table, column, bad, shown, "a state of the same group_id")

    children = np.flatnonzero(keys.parent >= 0)
    order = children[np.lexsort((step[children], keys.parent[children]))]
    parent, at = keys.parent[order], step[order]
    first = np.ones(len(order), bool)
    first[1:] = parent[1:] != parent[:-1]
    ambiguous = np.zeros(len(step), bool)
    ambiguous[order[1:]] = first[:-1] & ~first[1:] & (at[1:] == at[:-1])
    expected = "one sub-question of the least step for each whole question"
    yield from _report(
        "states", "parent_id", ambiguous, lambda row: f"a second sub-question of step {step[row]}", expected
    )

    terminal = bools(states.column("terminal"))
    answered = np.zeros(len(step), bool)
    answered[keys.state] = True
    found = _shown(ids)
    yield from _report("states", "terminal", terminal & answered, found, "no responses in a terminal state")
    yield from _report("states", "terminal", ~terminal & ~answered, found, "responses in a state that is not terminal")
    outcome = bools(states.column("success").is_valid()) & ~terminal
    yield from _report("states", "success", outcome, found, "an outcome at terminal states only", "warning")
    reached = root.copy()
    reached[ahead[moves]] = True
    reached |= keys.parent >= 0
    if log.has_outcomes:  # what could have happened, though it was not drawn
        ahead = log.source("outcomes").index("next_state_id", ids.combine_chunks())
        reached[ahead[ahead >= 0]] = True
    yield from _report("states", "state_id", ~reached & ~terminal, found, "a response that leads here", "warning")


def scores(log: Log, keys: Keys) -> Iterator[Fault]:
    """A quality wherever an episode can end."""
    responses = log.source("responses")
    unscored = np.isnan(floats(responses.column("quality"))) & (keys.next_state == NULL)
    expected = "a number in [0, 1], as there is no next_state_id"
    yield from _report("responses", "quality", unscored, lambda row: "null", expected)


def money(log: Log, keys: Keys) -> Iterator[Fault]:
    """Prices and tokens wherever a cost has to be computed; recorded costs near tokens × prices."""
    import pyarrow.compute as pc

    choices, responses = log.source("choices"), log.source("responses")
    cost = floats(responses.column("cost_usd"))
    computed = np.isnan(cost)
    tokens = {name: ints(responses.column(name)) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
    usd = {name: floats(choices.column(f"{name}_usd_per_mtok")) / 1e6 for name in ("input", "cached_input", "output")}
    usd["cached_input"] = np.where(np.isnan(usd["cached_input"]), usd["input"], usd["cached_input"])
    if computed.any():
        computed &= ~bools(pc.match_substring_regex(responses.column("error"), UNBILLED))
        failed = bools(responses.column("error").is_valid())
        for side, column in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            needed = np.zeros(choices.num_rows, bool)
            needed[keys.choice[computed & (tokens[column] > 0)]] = True
            name = f"{side}_usd_per_mtok"
            expected = "a price, as responses without cost_usd need it"
            yield from _report("choices", name, needed & np.isnan(usd[side]), lambda row: "null", expected)
        unknown = computed & (tokens["completion_tokens"] < 0) & ~failed
        expected = "a cost in USD, as completion_tokens is null too"
        yield from _report("responses", "cost_usd", unknown, lambda row: "null", expected)
    audited = ~np.isnan(cost) & (tokens["prompt_tokens"] >= 0) & (tokens["completion_tokens"] >= 0)
    audited &= bools(responses.column("error").is_null())
    audited &= ~np.isnan(usd["input"] + usd["output"])[keys.choice]
    if audited.any():
        list_price = call_cost_usd(*tokens.values(), *(price[keys.choice] for price in usd.values()))
        off = audited & (np.abs(cost - list_price) > COST_TOLERANCE * np.maximum(list_price, cost))
        yield from _report(
            "responses",
            "cost_usd",
            off,
            lambda row: f"{cost[row]:.3g} USD",
            "tokens × prices to within 5 %",
            "warning",
        )


def limits(log: Log, keys: Keys) -> Iterator[Fault]:
    """Completions within the limit of their choice, which is what a budget in USD reserves for."""
    limit = ints(log.source("choices").column("max_completion_tokens"))[keys.choice]
    tokens = ints(log.source("responses").column("completion_tokens"))
    expected = "at most the max_completion_tokens of its choice; a budget in USD is refused"
    yield from _report(
        "responses",
        "completion_tokens",
        (limit >= 0) & (tokens > limit),
        lambda row: f"{tokens[row]} tokens, above the limit of {limit[row]}",
        expected,
        "warning",
    )


def coverage(log: Log, keys: Keys) -> Iterator[Fault]:
    """What the card says of coverage."""
    if log.card.coverage != "full":
        return
    num_choices = log.source("choices").num_rows
    terminal = bools(log.source("states").column("terminal"))
    recorded = np.zeros(len(terminal) * num_choices, bool)
    recorded[keys.state.astype(np.int64) * num_choices + keys.choice] = True
    answers = recorded.reshape(-1, num_choices)
    # A state that nobody answered is another rule's fault.
    missing = ~answers & answers.any(axis=1, keepdims=True) & ~terminal[:, None]
    names = log.source("choices").column("name")
    yield from _report(
        "states",
        "state_id",
        missing.any(axis=1),
        lambda row: f"no response of {value_at(names, int(np.argmax(missing[row])))!r}",
        "a response of every choice, or coverage: partial in card.yaml",
    )


def splits(log: Log, keys: Keys) -> Iterator[Fault]:
    """Splits that hold something, and no text on two sides."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from rlroute.splits import SPLITS

    states = log.source("states")
    encoded = states.encoded("group_id")
    group = ints(encoded.indices)
    codes = split_groups(encoded.dictionary.to_pylist())[group]
    given = states.index("split", pa.array(SPLITS))
    codes = np.where(given >= 0, given, codes)
    severity: Severity = "error" if (given >= 0).any() else "warning"
    for name in empty_splits(codes[is_root(ints(states.column("step")), keys.parent)]):
        yield Fault(
            "states",
            None,
            "split",
            f"no question or task in {name!r}",
            "at least one in each split",
            severity,
        )

    first_code = np.full(len(encoded.dictionary), -1)
    first_code[group[::-1]] = codes[::-1]
    astray = codes != first_code[group]
    found = _shown(states.column("split"))
    yield from _report("states", "split", astray, found, "the split of the other states of its group_id")

    folded = pc.replace_substring_regex(pc.utf8_lower(states.column("text")), r"\s+", " ")
    text = ints(pc.utf8_trim_whitespace(folded).combine_chunks().dictionary_encode().indices)
    roots = is_root(ints(states.column("step")), keys.parent) & ~np.isin(folded, ["", " "])
    in_train = np.zeros(text.max(initial=0) + 1, bool)
    in_train[text[roots & (codes == 0)]] = True
    leaked = roots & (codes == 2) & in_train[text]
    yield from _report(
        "states",
        "text",
        leaked,
        _shown(states.column("text")),
        "no text of test that occurs in train",
        "warning",
    )


def oddities(log: Log, keys: Keys) -> Iterator[Fault]:
    """What is suspicious though not wrong: tables that the card does not know, constant tokens, no prices."""
    if log.path is not None and log.card.content_hash not in ("", log.content_hash):
        found = f"{log.card.content_hash}, which is not the hash of the tables"
        yield Fault("card.yaml", None, "content_hash", found, log.content_hash, "warning")
    responses = log.source("responses")
    for name in ("prompt_tokens", "completion_tokens"):
        known = ints(responses.column(name))
        known = known[known >= 0]
        if len(known) >= CONSTANT_ROWS and known.min() == known.max():
            yield Fault("responses", None, name, f"{known[0]} in every row", "counts that vary", "warning")
    choices = log.source("choices")
    unpriced = np.isnan(floats(choices.column("output_usd_per_mtok")))
    expected = "a price; unknown, it is observed as 0, and a budget in USD cannot reserve for it"
    yield from _report("choices", "output_usd_per_mtok", unpriced, lambda row: "null", expected, "warning")


def outcomes(log: Log, keys: Keys) -> Iterator[Fault]:
    """The stored distribution: known keys, and probabilities that add up to 1 in every (state, choice)."""
    if not log.has_outcomes:
        return
    source, ids = log.source("outcomes"), log.source("states").column("state_id").combine_chunks()
    state = source.index("state_id", ids)
    choice = source.index("choice", log.source("choices").column("name").combine_chunks())
    ahead = source.index("next_state_id", ids)
    dangling = [("state_id", state), ("choice", choice), ("next_state_id", ahead)]
    for name, rows in dangling:
        yield from _report("outcomes", name, rows == UNKNOWN, _shown(source.column(name)), "a name that exists")
    if any((rows == UNKNOWN).any() for _, rows in dangling):
        return
    cell = state.astype(np.int64) * log.source("choices").num_rows + choice
    total = np.bincount(cell, weights=floats(source.column("probability")))
    off = np.abs(total - 1)[cell] > PROBABILITY_TOLERANCE
    off &= np.concatenate([[True], np.diff(cell) != 0])
    expected = "probabilities that add up to 1 in each state and choice"
    yield from _report("outcomes", "probability", off, lambda row: f"a sum of {total[cell[row]]:.6g}", expected)


RULES: tuple[Rule, ...] = (graph, scores, money, limits, coverage, splits, oddities, outcomes)
