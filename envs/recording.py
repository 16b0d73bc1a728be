"""A log as kernels read it: what is read together lies together, since most of a step is waiting for memory.

Recordings are kept in the cache as ``.npy``, so that a log is packed once a machine.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.cache import atomic_folder, cache_root
from rlroute.draws import Stream, fold, permuted, to_unit
from rlroute.envs.scales import money_features
from rlroute.envs.slots import Rules
from rlroute.features import FEATURES_VERSION, LogFeatures
from rlroute.hints import index, prefetch
from rlroute.jit import kernel, record_type
from rlroute.log import ARRAYS_VERSION, Log
from rlroute.pool import Pool

VERSION = 2  # bumped when the same log would come out differently
KEPT = 8  # recordings
MAPPED_BYTES = 2**28  # smaller tables are read: memory-mapped files have no huge pages
ATTEMPT, POOL, POOL_SIZE = (np.uint64(stream) for stream in (Stream.ATTEMPT, Stream.POOL, Stream.POOL_SIZE))
LINE = 16  # numbers of 4 bytes in a line of the processor's cache
# The row of a state begins with whole words: one of its own, two of each choice.
THINK_STATE, CALLS = range(2)
FIRST_ROW, PROMPT_TOKENS, CALL_SIZE = range(3)
# Then come halves of words: its step, how many attempts there are of each choice, and features.
MOST = 2**15 - 1  # that half a word holds
UNIT = np.float32(1.0 / MOST)  # of a feature: all are from −1 to 1
# What may be known of a response; families name the fields they need. `ends` and `success` are of where it leads.
RESPONSE: dict[str, Any] = {name: np.dtype(kind) for name, kind in (
    ("cost_usd", "f8"), ("latency_s", "f4"), ("next_state", "i4"), ("quality", "f4"), ("verdict", "f4"),
    ("prompt_tokens", "i4"), ("completion_tokens", "i4"), ("reasoning_tokens", "i4"),
    ("answer", "i4"), ("answer_chars", "i4"), ("error", "?"), ("truncated", "?"), ("ends", "?"), ("success", "?"),
)}  # fmt: skip


class Recording(NamedTuple):
    """S states, C choices, R responses. `numbers` and `halves` are the same memory: a state is read in one go."""

    width: int  # W, as a constant to be compiled in, see `hints.sized`
    numbers: np.ndarray  # (S, W) int32: think state (−1 none), and of each choice what `call_of` tells
    halves: np.ndarray  # (S, 2 W) int16, from `step_at` on: step, attempts of each choice, and in `UNIT`s the features:
    # text, extra features, estimates of each choice
    responses: np.ndarray  # (R,) records of some fields of `RESPONSE`


class Wanted(NamedTuple):
    """What kernels read of a log."""

    text_size: int  # components of texts; 0: no features at all
    estimates: tuple[str, ...]  # of each choice: fields of `LogFeatures`, and "price", see `price_features`
    fields: tuple[str, ...]  # of responses, see `RESPONSE`


@kernel
def call_of(recording: Recording, state: int, choice: int, what: int) -> int:
    """Of a call: its first response row, or its prompt tokens (−1 unknown)."""
    return recording.numbers[index(state), index(CALLS + CALL_SIZE * choice + what)]


@kernel
def step_at(num_choices: int) -> int:
    """Where the step stands among the halves of the row of a state."""
    return 2 * (CALLS + CALL_SIZE * num_choices)


@kernel
def attempts_of(recording: Recording, state: int, choice: int, num_choices: int) -> int:
    """How many attempts of a call there are."""
    return recording.halves[index(state), index(step_at(num_choices) + 1 + choice)]


@kernel
def features_at(num_choices: int) -> int:
    """Where features begin among the halves of the row of a state."""
    return step_at(num_choices) + 1 + num_choices


@kernel
def feature(recording: Recording, state: int, at: int) -> np.float32:
    """A feature of a state."""
    return np.float32(recording.halves[index(state), index(at)]) * UNIT


def price_features(pool: Pool, prompt_tokens: np.ndarray, c_ref: float) -> np.ndarray:
    """What a call without a prompt cache is likely to cost, as a feature: (S, C) of its `prompt_tokens` (S, C)."""
    return money_features(pool.expected_cost_usd(prompt_tokens) / c_ref)


def state_rows(
    think_state: np.ndarray, calls: np.ndarray, step: np.ndarray, attempts: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Rows (S, W) int32, filled up to whole lines.

    They are made of `think_state` (S,), `calls` (S, C, 2), `step` (S,) and `attempts` (S, C) int16, `features` (S, D).
    """
    words = np.concatenate([think_state[:, None], calls.reshape(len(calls), -1)], axis=1, dtype=np.int32)
    units = np.rint(np.clip(features, -1.0, 1.0) * MOST).astype(np.int16)
    halves = np.concatenate([step[:, None], attempts, units], axis=1, dtype=np.int16)
    used = words.shape[1] + -(-halves.shape[1] // 2)
    rows = np.zeros((len(words), -(-used // LINE) * LINE), np.int32)
    rows[:, : words.shape[1]] = words
    rows.view(np.int16)[:, 2 * words.shape[1] : 2 * words.shape[1] + halves.shape[1]] = halves
    return rows


def pack(arrays: LogArrays, features: LogFeatures, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """The rows of states and the records of responses of a log."""
    calls = np.empty((*arrays.num_attempts.shape, CALL_SIZE), np.int32)
    calls[:, :, FIRST_ROW] = arrays.cell[:-1].reshape(arrays.num_attempts.shape)
    calls[:, :, PROMPT_TOKENS] = arrays.prompt_tokens_of
    shown = [np.empty((arrays.num_states, 0), np.float32)]
    if wanted.text_size:
        shown += [features.text[:, : wanted.text_size], features.extra]
    for name in wanted.estimates:
        if name == "price":
            pool, c_ref = Pool.from_log(arrays, features), features.reference.cost_usd
            shown.append(price_features(pool, arrays.prompt_tokens_of, c_ref))
        else:
            shown.append(getattr(features, name))
    rows = state_rows(arrays.think_state, calls, arrays.step, arrays.num_attempts, np.concatenate(shown, axis=1))
    responses = np.zeros(arrays.num_responses, response_type(wanted.fields))
    leads = arrays.next_state >= 0
    for name in wanted.fields:
        if name == "ends":
            responses[name] = ~leads | arrays.terminal[arrays.next_state]
        elif name == "success":
            responses[name] = leads & arrays.success[arrays.next_state]
        elif name == "latency_s":
            responses[name] = np.nan_to_num(arrays.latency_s)
        else:
            responses[name] = getattr(arrays, name)
    return rows, responses


def response_type(fields: tuple[str, ...]) -> np.dtype:
    """Records of some fields of `RESPONSE`, none of which lies in two lines."""
    plain = record_type({name: RESPONSE[name] for name in fields})
    size = min(2**k for k in range(16) if 2**k >= plain.itemsize)
    filler = {"filler": (np.uint8, (size - plain.itemsize,))} if size > plain.itemsize else {}
    return record_type({**{name: RESPONSE[name] for name in fields}, **filler})


_kept: OrderedDict[Any, Recording] = OrderedDict()


def recording_of(log: Log, features: LogFeatures, fitted: tuple[Any, ...], wanted: Wanted) -> Recording:
    """The recording of a log, see `pack`; shared by environments on the same log whose features are `fitted` alike."""
    key = (log.content_hash, fitted, wanted)
    if key not in _kept:
        folder = cache_root() / "recordings" / _name(*key)
        if not folder.is_dir():
            with atomic_folder(folder) as partial:
                for name, table in zip(("states", "responses"), pack(log.arrays, features, wanted), strict=True):
                    np.save(partial / f"{name}.npy", table)
        rows, responses = _load(folder / "states.npy"), _load(folder / "responses.npy")
        _kept[key] = Recording(rows.shape[1], rows, rows.view(np.int16), responses.view(response_type(wanted.fields)))
    _kept.move_to_end(key)
    if len(_kept) > KEPT:
        _kept.popitem(last=False)
    return _kept[key]


def _name(content_hash: str, fitted: tuple[Any, ...], wanted: Wanted) -> str:
    made_of = f"{VERSION} {ARRAYS_VERSION} {FEATURES_VERSION} {fitted!r} {wanted!r} {sorted(RESPONSE.items())!r}"
    return f"{content_hash}-{hashlib.blake2b(made_of.encode(), digest_size=8).hexdigest()}"


def _load(path: Path) -> np.ndarray:
    """A table, read-only, that begins at the start of a line of memory."""
    mapped = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if mapped.nbytes > MAPPED_BYTES:
        return mapped
    size = 4 * LINE
    memory = np.empty(mapped.nbytes + size, np.uint8)
    first = -memory.ctypes.data % size
    table = memory[first : first + mapped.nbytes].view(mapped.dtype).reshape(mapped.shape)
    table[:] = mapped
    table.flags.writeable = False
    return table


@kernel
def await_state(recording: Recording, state: int) -> None:
    """Asks for every line of the row of a state."""
    for k in range(0, recording.numbers.shape[1], LINE):
        prefetch(recording.numbers, state, k)


@kernel
def await_response(recording: Recording, row: int) -> None:
    """Asks for a response."""
    prefetch(recording.responses, row, 0)


@kernel
def draw_pool(rules: Rules, slots: np.ndarray, in_pool: np.ndarray, pool_size: tuple[int, int], i: int) -> None:
    """Which choices may be called in the episode of slot `i`: all, or so many drawn anew; a group shares them."""
    num_choices, (low, high) = in_pool.shape[1], pool_size
    if low == num_choices:
        return  # as it is from the beginning
    seed = fold(fold(rules.key, np.uint64(slots[i].slot // rules.group_size)), np.uint64(slots[i].episode))
    size = low + math.floor(to_unit(fold(seed, POOL_SIZE)) * (high - low + 1))
    for c in range(num_choices):
        rank = 0
        if size < num_choices:
            mine = fold(fold(seed, np.uint64(c)), POOL)
            for other in range(num_choices):
                rank += fold(fold(seed, np.uint64(other)), POOL) < mine
        in_pool[i, c] = rank < size


@kernel
def draw_response(
    recording: Recording, noise: np.uint64, state: int, choice: int, num_choices: int, position: int
) -> int:
    """Response row: attempt number `position` of `choice` in `state`, in the episode's own order.

    Beyond the last attempt it is the last again.
    """
    size = attempts_of(recording, state, choice, num_choices)
    seed = fold(fold(fold(noise, np.uint64(state)), np.uint64(choice)), ATTEMPT)
    return call_of(recording, state, choice, FIRST_ROW) + permuted(seed, size, min(position, size - 1))
