"""Faults: what is wrong with a log or a recording, said with table, row, column, found and expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]

# A message longer than this is not read; the faults themselves are all kept on the exception.
MAX_LINES = 20


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, what was found and what was expected.

    ``row`` counts from 0 in the order of the table (lines of a text file from 1, as editors do); ``more``
    says how many further rows have the same fault.
    """

    table: str
    row: int | None
    column: str | None
    found: str
    expected: str
    severity: Severity = "error"
    more: int = 0

    def __str__(self) -> str:
        where = self.table
        if self.row is not None:
            where += f" row {self.row}"
        if self.column is not None:
            where += f", column {self.column}"
        tail = f" (and {self.more:,} more such rows)" if self.more else ""
        return f"{where}: found {self.found}, expected {self.expected}{tail}"


class LogError(ValueError):
    """A log or a recording that cannot be used; ``faults`` holds the reasons, the message a line for each."""

    def __init__(self, faults: Sequence[Fault], source: str = "") -> None:
        super().__init__(tuple(faults), source)
        self.faults = tuple(faults)
        self.source = source

    def __str__(self) -> str:
        lines = [str(fault) for fault in self.faults[:MAX_LINES]]
        if len(self.faults) > MAX_LINES:
            lines.append(f"… and {len(self.faults) - MAX_LINES} further faults")
        if self.source:
            lines.insert(0, f"{self.source}:")
        return "\n".join(lines)
