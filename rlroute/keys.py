"""The string keys of a log as row numbers; validation and the dense arrays both start from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlroute.log import Log

NULL = -1
UNKNOWN = -2


@dataclass(frozen=True, eq=False)
class Keys:
    """Row numbers, int32: NULL for a null, UNKNOWN for a name that its table does not hold."""

    state: np.ndarray  # (R,) row of the state of each response
    choice: np.ndarray  # (R,) row of its choice
    next_state: np.ndarray  # (R,) row of the state that accepting it leads to
    parent: np.ndarray  # (S,) row of the whole question of each state

    @classmethod
    def of(cls, log: Log) -> Keys:
        """The keys of a log."""
        states, responses = log.source("states"), log.source("responses")
        state_ids = states.column("state_id").combine_chunks()
        return cls(
            state=responses.index("state_id", state_ids),
            choice=responses.index("choice", log.source("choices").column("name").combine_chunks()),
            next_state=responses.index("next_state_id", state_ids),
            parent=states.index("parent_id", state_ids),
        )
