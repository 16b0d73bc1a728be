"""A log as dense arrays: what environments, references and trainers read. Needs numpy only."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("choice_names", "task_names", "extra_names")
FLAGS = ("coverage_full",)
PER_CHOICE = (
    "input_usd",
    "cached_input_usd",
    "output_usd",
    "first_token_s",
    "output_tokens_per_s",
    "max_completion_tokens",
    "cache_ttl_s",
)
PER_RESPONSE = (
    "quality",
    "cost_usd",
    "latency_s",
    "next_state",
    "answer",
    "verdict",
    "propensity",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "answer_chars",
    "error",
    "truncated",
)
# Strings that stay on disk until they are asked for; they do not count as arrays in memory.
ID_ARRAYS = ("state_ids", "group_ids")


@dataclass(frozen=True, eq=False)
class LogArrays:
    """S states, C choices, K extra features, G groups, R responses sorted by (state, choice, attempt)."""

    choice_names: tuple[str, ...]
    task_names: tuple[str, ...]  # indexed by task_name; "" for states without one
    extra_names: tuple[str, ...]  # numeric columns of states that the schema does not know, indexed by extra
    coverage_full: bool  # every choice answered every state

    input_usd: np.ndarray  # (C,) f64, USD a token; 0 where the price is unknown
    cached_input_usd: np.ndarray  # (C,) f64, USD a token; the input price where there is no cached one
    output_usd: np.ndarray  # (C,) f64, USD a token; 0 where the price is unknown
    first_token_s: np.ndarray  # (C,) f32, seconds; 0 unknown
    output_tokens_per_s: np.ndarray  # (C,) f32; 0 unknown
    max_completion_tokens: np.ndarray  # (C,) i32; −1 unknown
    cache_ttl_s: np.ndarray  # (C,) f32, seconds; 0 = no prompt cache

    state_ids: np.ndarray  # (S,) str
    group_ids: np.ndarray  # (G,) str
    step: np.ndarray  # (S,) i16
    group: np.ndarray  # (S,) i32, index into group_ids
    given_split: np.ndarray  # (S,) i8, split the log came with: 0 train, 1 val, 2 test; −1 none
    task_name: np.ndarray  # (S,) i16, index into task_names
    root: np.ndarray  # (S,) bool: episodes start here
    parent: np.ndarray  # (S,) i32, the whole question of a sub-question; −1 none
    think_state: np.ndarray  # (S,) i32, where thinking leads: the first sub-question; −1 none
    terminal: np.ndarray  # (S,) bool
    success: np.ndarray  # (S,) bool
    extra: np.ndarray  # (S, K) f32; null is 0
    prompt_tokens_of: np.ndarray  # (S, C) i32, largest over the attempts: known before the call; −1 unknown

    cell: np.ndarray  # (S·C+1,) i64: responses of (s, c) are rows cell[s·C+c] : cell[s·C+c+1]
    num_attempts: np.ndarray  # (S, C) i16
    quality: np.ndarray  # (R,) f32; NaN null
    cost_usd: np.ndarray  # (R,) f64, recorded, or computed from tokens and prices
    latency_s: np.ndarray  # (R,) f32, recorded, or computed from tokens and speeds, else 0
    next_state: np.ndarray  # (R,) i32; −1 the episode ends
    answer: np.ndarray  # (R,) i32: equal codes mean equal answers in normal form; −1 empty or null
    verdict: np.ndarray  # (R,) f32; NaN none
    propensity: np.ndarray  # (R,) f32; NaN unknown
    prompt_tokens: np.ndarray  # (R,) i32; −1 unknown
    cached_tokens: np.ndarray  # (R,) i32; −1 unknown
    completion_tokens: np.ndarray  # (R,) i32; −1 unknown
    reasoning_tokens: np.ndarray  # (R,) i32, hidden, among the completion tokens; −1 unknown
    answer_chars: np.ndarray  # (R,) i32, characters of the text, else of the answer
    error: np.ndarray  # (R,) bool
    truncated: np.ndarray  # (R,) bool: completion_tokens reached max_completion_tokens

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.step)

    @property
    def num_choices(self) -> int:
        """C."""
        return len(self.choice_names)

    @property
    def num_responses(self) -> int:
        """R."""
        return len(self.quality)

    @property
    def row_cell(self) -> np.ndarray:
        """Cell of every response, s·C + c, int64 (R,)."""
        return np.repeat(np.arange(self.num_states * self.num_choices), np.diff(self.cell))

    def only(self, choices: np.ndarray) -> LogArrays:
        """The same states with some of the choices (indices in rising order) and their responses alone."""
        rows = np.isin(self.row_cell % self.num_choices, choices)
        attempts = np.asarray(self.num_attempts[:, choices])
        return replace(
            self,
            choice_names=tuple(self.choice_names[c] for c in choices.tolist()),
            prompt_tokens_of=self.prompt_tokens_of[:, choices],
            num_attempts=attempts,
            cell=np.concatenate([[0], np.cumsum(attempts, dtype=np.int64)]),
            **{name: getattr(self, name)[choices] for name in PER_CHOICE},
            **{name: getattr(self, name)[rows] for name in PER_RESPONSE},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays but the ids."""
        return sum(getattr(self, name).nbytes for name in array_names() if name not in ID_ARRAYS)


def array_names() -> tuple[str, ...]:
    """The fields that are arrays, each one file in the cache."""
    return tuple(f.name for f in fields(LogArrays) if f.name not in NAMES + FLAGS)


def save_names(folder: Path, **names: object) -> None:
    """Write what is not an array."""
    (folder / "names.json").write_text(json.dumps(names))


def load_arrays(folder: Path) -> LogArrays:
    """The arrays in a cache folder, memory-mapped and read-only."""
    names = json.loads((folder / "names.json").read_text())
    plain: dict[str, Any] = {key: tuple(value) if key in NAMES else value for key, value in names.items()}
    # Plain views: numpy's memmap class makes every indexing operation several times slower.
    mapped: dict[str, Any] = {name: np.asarray(_map(folder / f"{name}.npy")) for name in array_names()}
    return LogArrays(**plain, **mapped)


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
