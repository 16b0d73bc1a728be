"""A log as kernels read it: what is read together lies together, since most of a step is waiting for memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.draws import Stream, fold, permuted, to_unit
from rlroute.envs.slots import Rules
from rlroute.features import LogFeatures
from rlroute.jit import kernel, records
from rlroute.log import Log

ATTEMPT, POOL, POOL_SIZE = (np.uint64(stream) for stream in (Stream.ATTEMPT, Stream.POOL, Stream.POOL_SIZE))
KEPT = 8  # recordings
FIRST_ROW, ATTEMPTS, PROMPT_TOKENS = range(3)  # of a call
STATE: dict[str, Any] = {name: np.dtype(kind) for name, kind in (
    ("think_state", "i4"), ("step", "i2"), ("terminal", "?"), ("success", "?"),
)}  # fmt: skip
# What may be known of a response; families name the fields they need. `ends` and `success` are of where it leads.
RESPONSE: dict[str, Any] = {name: np.dtype(kind) for name, kind in (
    ("cost_usd", "f8"), ("latency_s", "f4"), ("next_state", "i4"), ("quality", "f4"), ("verdict", "f4"),
    ("prompt_tokens", "i4"), ("completion_tokens", "i4"), ("reasoning_tokens", "i4"),
    ("answer", "i4"), ("answer_chars", "i4"), ("error", "?"), ("truncated", "?"), ("ends", "?"), ("success", "?"),
)}  # fmt: skip


class Recording(NamedTuple):
    """S states, C choices, R responses."""

    states: np.ndarray  # (S,) records of `STATE`
    known: np.ndarray  # (S, D) float32: text, extra features, prior, prospect; what observations hold of a state
    calls: np.ndarray  # (S, C, 3) int32: first response row, attempts, prompt tokens (−1 unknown)
    responses: np.ndarray  # (R,) records of some fields of `RESPONSE`


def pack(arrays: LogArrays, features: LogFeatures, text_size: int, fields: tuple[str, ...]) -> Recording:
    """The recording of a log, with the first `text_size` components of its texts and `fields` of its responses."""
    states = records(arrays.num_states, STATE)
    for name in STATE:
        states[name] = getattr(arrays, name)
    parts = (features.text[:, :text_size], features.extra, features.prior, features.prospect)
    calls = np.empty((*arrays.num_attempts.shape, 3), np.int32)
    calls[:, :, FIRST_ROW] = arrays.cell[:-1].reshape(arrays.num_attempts.shape)
    calls[:, :, ATTEMPTS] = arrays.num_attempts
    calls[:, :, PROMPT_TOKENS] = arrays.prompt_tokens_of
    responses = records(arrays.num_responses, {name: RESPONSE[name] for name in fields})
    leads = arrays.next_state >= 0
    for name in fields:
        if name == "ends":
            responses[name] = ~leads | arrays.terminal[arrays.next_state]
        elif name == "success":
            responses[name] = leads & arrays.success[arrays.next_state]
        elif name == "latency_s":
            responses[name] = np.nan_to_num(arrays.latency_s)
        else:
            responses[name] = getattr(arrays, name)
    recording = Recording(states, np.concatenate(parts, axis=1, dtype=np.float32), calls, responses)
    for table in recording:
        table.flags.writeable = False
    return recording


_packed: OrderedDict[Any, Recording] = OrderedDict()


def recording_of(
    log: Log, features: LogFeatures, fitted: tuple[Any, ...], text_size: int, fields: tuple[str, ...]
) -> Recording:
    """The recording of a log, see `pack`; kept for environments on the same log whose features are `fitted` alike."""
    key = (log.content_hash, fitted, text_size, fields)
    if key not in _packed:
        _packed[key] = pack(log.arrays, features, text_size, fields)
    _packed.move_to_end(key)
    if len(_packed) > KEPT:
        _packed.popitem(last=False)
    return _packed[key]


@kernel
def draw_pool(rules: Rules, slots: np.ndarray, in_pool: np.ndarray, pool_size: tuple[int, int], i: int) -> None:
    """Which choices may be called in the episode of slot `i`: all, or so many drawn anew; a group shares them."""
    num_choices, (low, high) = in_pool.shape[1], pool_size
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
def draw_response(recording: Recording, noise: np.uint64, state: int, choice: int, position: int) -> int:
    """Response row: attempt number `position` of `choice` in `state`, in the episode's own order.

    Beyond the last attempt it is the last again.
    """
    size = recording.calls[state, choice, ATTEMPTS]
    seed = fold(fold(fold(noise, np.uint64(state)), np.uint64(choice)), ATTEMPT)
    return recording.calls[state, choice, FIRST_ROW] + permuted(seed, size, min(position, size - 1))
