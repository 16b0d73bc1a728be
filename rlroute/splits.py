"""Splits by a salted hash of the group, so that whatever shares a group never lies on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

SPLITS = ("train", "val", "test")
# Upper ends of train and val in [0, 1): 70 / 10 / 20.
BOUNDS = (0.7, 0.8)


def group_of(text: str) -> str:
    """Group of a root question or task: a hash of its text, case and white space folded."""
    folded = " ".join(text.lower().split())
    return hashlib.blake2b(folded.encode(), digest_size=8).hexdigest()


def split_groups(group_ids: Iterable[str], salt: int = 0) -> np.ndarray:
    """Split index of every group, int8 (G,); the same group and salt give the same split in every log."""
    salted = hashlib.blake2b(digest_size=8, salt=str(int(salt)).encode()[:16])
    codes = []
    for group_id in group_ids:
        hashed = salted.copy()
        hashed.update(str(group_id).encode())
        uniform = int.from_bytes(hashed.digest(), "big") / 2.0**64
        codes.append(0 if uniform < BOUNDS[0] else 1 if uniform < BOUNDS[1] else 2)
    return np.asarray(codes, dtype=np.int8)


def empty_splits(codes: np.ndarray) -> Sequence[str]:
    """Names of the splits that hold nothing."""
    return [name for index, name in enumerate(SPLITS) if not (codes == index).any()]
