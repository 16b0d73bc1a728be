"""Slots of a group that see the same: they play one task, so until their ways part one of them asks the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlroute.jit import kernel


@kernel
def find_alike(
    observation: NDArray[np.float32],  # (N, D)
    action_mask: NDArray[np.int8],  # (N, A)
    playing: NDArray[np.bool_],  # (N,)
    group_size: int,
    alike: NDArray[np.int64],  # (N,) written: the first slot of the group that plays and sees the same, or itself
) -> None:
    for slot in range(len(alike)):
        alike[slot] = slot
        if playing[slot]:
            for other in range(slot - slot % group_size, slot):
                if (
                    playing[other]
                    and alike[other] == other
                    and _equal(action_mask, slot, other)
                    and _equal(observation, slot, other)
                ):
                    alike[slot] = other
                    break


@kernel
def _equal(rows: NDArray[np.generic], i: int, j: int) -> bool:
    for k in range(rows.shape[1]):  # noqa: SIM110 - a generator would allocate
        if rows[i, k] != rows[j, k]:
            return False
    return True
