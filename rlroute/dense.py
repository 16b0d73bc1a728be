"""Builds the dense arrays of a log, column by column into ``.npy`` files: memory stays near their size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.arrays import save_names
from rlroute.errors import Fault, LogError
from rlroute.keys import Keys
from rlroute.prices import DEFAULT_CACHE_TTL_S, UNBILLED, call_cost_usd
from rlroute.splits import SPLITS
from rlroute.tables import Source, bools, floats, ints

if TYPE_CHECKING:
    from rlroute.log import Log

# Costs are computed in blocks of rows, so that intermediate results stay small.
BLOCK_ROWS = 131_072


def build_arrays(log: Log, folder: Path) -> None:
    """Write the arrays of a checked log into a folder that `rlroute.arrays.load_arrays` reads."""
    keys = log.keys
    choices = _choices(log.source("choices"))
    states, task_names, extra_names = _states(log.source("states"), keys)
    for name, array in {**choices, **states}.items():
        _save(folder, name, array)
    save_names(
        folder,
        choice_names=log.source("choices").column("name").to_pylist(),
        task_names=task_names,
        extra_names=extra_names,
        coverage_full=log.card.coverage == "full",
    )
    _responses(log.source("responses"), keys, choices, len(states["step"]), folder)


def _save(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)


def _choices(choices: Source) -> dict[str, np.ndarray]:
    def numbers(name: str, null: Any = 0.0) -> np.ndarray:
        values = floats(choices.column(name))
        return np.where(np.isnan(values), null, values)

    input_usd = numbers("input_usd_per_mtok") / 1e6
    cached = floats(choices.column("cached_input_usd_per_mtok")) / 1e6
    has_cached = ~np.isnan(cached)
    return {
        "input_usd": input_usd,
        "cached_input_usd": np.where(has_cached, cached, input_usd),
        "output_usd": numbers("output_usd_per_mtok") / 1e6,
        "first_token_s": numbers("first_token_s").astype(np.float32),
        "output_tokens_per_s": numbers("output_tokens_per_s").astype(np.float32),
        "max_completion_tokens": ints(choices.column("max_completion_tokens")),
        "cache_ttl_s": numbers("cache_ttl_s", np.where(has_cached, DEFAULT_CACHE_TTL_S, 0.0)).astype(np.float32),
    }


def shorts(numbers: np.ndarray, table: str, column: str) -> np.ndarray:
    """Counts as int16; a LogError where one is too large for it."""
    largest, most = int(numbers.max(initial=0)), np.iinfo(np.int16).max
    if largest > most:
        raise LogError([Fault(table, None, column, f"as many as {largest:,}", f"at most {most:,}")])
    return np.asarray(numbers.astype(np.int16))


def _states(states: Source, keys: Keys) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    import pyarrow as pa

    step = ints(states.column("step"))
    group, group_ids = _codes(states.encoded("group_id"))
    task_name, task_names = _codes(states.encoded("task_name"))
    extra_names = numeric_extras(states)
    extra = [np.nan_to_num(floats(states.raw(name).cast(pa.float64()))) for name in extra_names]
    arrays = {
        "state_ids": np.asarray(states.column("state_id").to_pylist(), dtype=np.str_),
        "group_ids": np.asarray(group_ids, dtype=np.str_),
        "step": shorts(step, "states", "step"),
        "group": group,
        "given_split": _given_split(states),
        "task_name": shorts(task_name, "states", "task_name"),
        "root": is_root(step, keys.parent),
        "parent": keys.parent,
        "think_state": think_targets(step, keys.parent),
        "terminal": bools(states.column("terminal")),
        "success": bools(states.column("success")),
        "extra": np.stack(extra, axis=1).astype(np.float32) if extra else np.zeros((len(step), 0), np.float32),
    }
    return arrays, task_names, extra_names


def _codes(encoded: Any) -> tuple[np.ndarray, list[str]]:
    """Dense codes, and what they stand for."""
    return ints(encoded.indices), encoded.dictionary.to_pylist()


def _given_split(states: Source) -> np.ndarray:
    import pyarrow as pa

    codes = states.index("split", pa.array(SPLITS))
    return np.maximum(codes, -1).astype(np.int8)


def numeric_extras(states: Source) -> list[str]:
    """Columns of states that the schema does not know and that are numbers: extra features."""
    import pyarrow.types as pt

    def numeric(kind: Any) -> bool:
        return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))

    return [name for name in states.extra_names if numeric(states.raw(name).type)]


def is_root(step: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Where episodes start: part of no other question, at step 0."""
    return np.asarray((parent == -1) & (step == 0))


def think_targets(step: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """First sub-question of every state, int32 (S,): the one of the least step with it as parent; −1 none."""
    target = np.full(len(step), -1, np.int32)
    children = np.flatnonzero(parent >= 0)
    order = children[np.argsort(-step[children], kind="stable")]
    target[parent[order]] = order  # the last write, of the least step, stays
    return target


def _responses(responses: Source, keys: Keys, choices: dict[str, np.ndarray], num_states: int, folder: Path) -> None:
    import pyarrow.compute as pc

    num_choices = len(choices["input_usd"])
    num_cells = num_states * num_choices
    cell = keys.state.astype(np.int64) * num_choices + keys.choice
    attempts = np.bincount(cell, minlength=num_cells)
    starts = np.zeros(num_cells + 1, np.int64)
    np.cumsum(attempts, out=starts[1:])
    _save(folder, "cell", starts)
    _save(folder, "num_attempts", shorts(attempts.reshape(num_states, num_choices), "responses", "attempt"))
    order = _order(cell, ints(responses.column("attempt")))
    choice = keys.choice[order]
    del cell, attempts

    def save(name: str, array: np.ndarray) -> None:
        _save(folder, name, array[order])

    save("next_state", keys.next_state)
    for name in ("quality", "verdict", "propensity"):
        save(name, floats(responses.column(name)).astype(np.float32))
    save("answer", answer_codes(responses.encoded("answer")))
    save("error", bools(pc.is_valid(responses.column("error"))))
    text_chars = responses.lengths("text")
    if (text_chars < 0).any():
        text_chars = np.where(text_chars < 0, np.maximum(responses.lengths("answer"), 0), text_chars)
    save("answer_chars", text_chars)
    del text_chars

    completion = ints(responses.column("completion_tokens"))[order]
    limit = choices["max_completion_tokens"][choice]
    _save(folder, "truncated", (limit > 0) & (completion >= limit))
    _save(folder, "completion_tokens", completion)
    _save(
        folder,
        "latency_s",
        _latency_s(floats(responses.column("latency_s"))[order], choice, completion, choices),
    )
    prompt = ints(responses.column("prompt_tokens"))[order]
    _save(folder, "prompt_tokens", prompt)
    _save(folder, "prompt_tokens_of", _largest(prompt, starts, num_states, num_choices))
    cached = ints(responses.column("cached_tokens"))[order]
    _save(folder, "cached_tokens", cached)
    save("reasoning_tokens", ints(responses.column("reasoning_tokens")))

    billed = ~bools(pc.match_substring_regex(responses.column("error"), UNBILLED))[order]
    cost = floats(responses.column("cost_usd"))[order]
    for start in range(0, len(cost), BLOCK_ROWS):
        rows = start + np.flatnonzero(np.isnan(cost[start : start + BLOCK_ROWS]))
        prices = (choices[name][choice[rows]] for name in ("input_usd", "cached_input_usd", "output_usd"))
        cost[rows] = call_cost_usd(prompt[rows], cached[rows], completion[rows], *prices) * billed[rows]
    _save(folder, "cost_usd", cost)


def response_order(log: Log) -> Any:
    """Index that takes the rows of the responses table to the order of the arrays."""
    keys = Keys.of(log)
    cell = keys.state.astype(np.int64) * len(log.source("choices").column("name")) + keys.choice
    return _order(cell, ints(log.source("responses").column("attempt")))


def _order(cell: np.ndarray, attempt: np.ndarray) -> Any:
    """Index that sorts responses by cell and attempt; a slice, which copies nothing, if they are sorted."""
    key = cell * (int(attempt.max(initial=0)) + 1) + attempt
    if bool((key[1:] > key[:-1]).all()):
        return slice(None)
    return np.argsort(key, kind="stable").astype(np.int32)


def _latency_s(
    latency: np.ndarray, choice: np.ndarray, completion: np.ndarray, choices: dict[str, np.ndarray]
) -> np.ndarray:
    """Recorded seconds; where there are none, time to the first token plus tokens at the choice's speed."""
    missing = np.flatnonzero(np.isnan(latency))
    if len(missing):
        rows = choice[missing]
        speed = choices["output_tokens_per_s"][rows].astype(np.float64)
        tokens = np.maximum(completion[missing], 0)
        streaming = np.divide(tokens, speed, out=np.zeros(len(rows)), where=speed > 0)
        latency[missing] = choices["first_token_s"][rows] + streaming
    return latency.astype(np.float32)


def _largest(values: np.ndarray, starts: np.ndarray, num_states: int, num_choices: int) -> np.ndarray:
    """The largest value of every cell, int32 (S, C); −1 where it is empty."""
    out = np.full(num_states * num_choices, -1, np.int32)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        out[filled] = np.maximum.reduceat(values, starts[filled])
    return out.reshape(num_states, num_choices)


def answer_codes(encoded: Any) -> np.ndarray:
    """Codes of answers (a pa.DictionaryArray), int32 (R,); −1 empty or null.

    Equal codes mean equal answers but for case and white space. No punctuation is taken out here: that is for
    whoever writes the answers, who knows whether −5 and 5 differ.
    """
    import pyarrow.compute as pc

    if not len(encoded.dictionary):
        return np.full(len(encoded), -1, np.int32)
    folded = pc.replace_substring_regex(pc.utf8_lower(encoded.dictionary), r"\s+", " ")
    folded = pc.utf8_trim_whitespace(folded)
    of_distinct = ints(folded.dictionary_encode().indices)
    of_distinct[bools(pc.equal(folded, ""))] = -1
    code = ints(encoded.indices)
    return np.where(code >= 0, of_distinct[np.maximum(code, 0)], -1).astype(np.int32)
