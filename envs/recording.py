"""A log as kernels read it: what is read together lies together, since most of a step is waiting for memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.draws import Stream, fold, permuted
from rlroute.features import LogFeatures, log_features
from rlroute.jit import kernel, records
from rlroute.log import Log

ATTEMPT = np.uint64(Stream.ATTEMPT)
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


@lru_cache(maxsize=8)
def recording_of(log: Log, featuriser: str, salt: int, text_size: int, fields: tuple[str, ...]) -> Recording:
    """The recording of a log, see `pack`; kept for the environments that follow on the same one."""
    return pack(log.arrays, log_features(log, featuriser, salt), text_size, fields)


@kernel
def draw_response(recording: Recording, noise: np.uint64, state: int, choice: int, position: int) -> int:
    """Response row: attempt number `position` of `choice` in `state`, in the episode's own order.

    Beyond the last attempt it is the last again.
    """
    size = recording.calls[state, choice, ATTEMPTS]
    seed = fold(fold(fold(noise, np.uint64(state)), np.uint64(choice)), ATTEMPT)
    return recording.calls[state, choice, FIRST_ROW] + permuted(seed, size, min(position, size - 1))
