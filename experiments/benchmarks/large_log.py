"""Logs of a million states: the states of a smaller one again and again, as arrays in the cache alone.

Tables of twenty million responses take minutes to write and to check, and environments never look at them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rlroute.arrays import PER_CHOICE, LogArrays, array_names, save_names
from rlroute.cache import atomic_folder
from rlroute.features import LogFeatures, cached_features, log_features
from rlroute.log import Log, load_log
from rlroute.text import featuriser

STATE_OF = ("parent", "think_state", "next_state")  # arrays of rows of states, −1 none


def enlarged(log: Log, times: int, featuriser_name: str = "hashed") -> Log:
    """A log of `times` as many states as `log`, which is saved; its arrays and features are memory-mapped."""
    content_hash = f"{log.content_hash}x{times}"
    large = Log(replace(log.card, content_hash=content_hash, reference=log.reference), log.sources)
    large.content_hash = content_hash
    kind = featuriser(featuriser_name)
    if not large._arrays_folder.is_dir():
        with atomic_folder(large._arrays_folder) as partial:
            for name in array_names():
                np.save(partial / f"{name}.npy", repeated(log.arrays, name, times))
            names = {name: getattr(log.arrays, name) for name in ("choice_names", "task_names", "extra_names")}
            save_names(partial, **names, coverage_full=log.arrays.coverage_full)
    key = f"{content_hash}-{kind.name}-salt0"
    cached_features(key, kind, lambda: repeated_features(log_features(log, featuriser_name), times))
    return load_log(large)


def repeated(arrays: LogArrays, name: str, times: int) -> np.ndarray:
    """An array of `arrays` for `times` as many states."""
    array: np.ndarray = getattr(arrays, name)
    if name in PER_CHOICE:
        return array
    if name == "cell":
        ahead = np.arange(times)[:, None] * arrays.num_responses
        return np.concatenate([(array[None, :-1] + ahead).ravel(), [times * arrays.num_responses]])
    many = np.tile(array, (times, *[1] * (array.ndim - 1)))
    if name in STATE_OF:
        many += np.where(many >= 0, np.repeat(np.arange(times) * arrays.num_states, len(array)), 0).astype(many.dtype)
    elif name == "group":
        many += np.repeat(np.arange(times) * len(arrays.group_ids), len(array)).astype(many.dtype)
    return many


def repeated_features(features: LogFeatures, times: int) -> LogFeatures:
    """The features of `times` as many states."""
    tables: dict[str, Any] = {
        name: np.tile(getattr(features, name), (times, 1)) for name in ("text", "prior", "prospect", "extra")
    }
    return replace(features, **tables)
