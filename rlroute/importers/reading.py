"""What the importers share: reading files, with errors that name file, row and field."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlroute.errors import Fault, LogError


def locate(path: Path, name: str) -> Path:
    """The file ``name`` in the folder ``path``, or ``path`` itself if it is a file."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise LogError([Fault(str(path), None, None, f"no file {file.name}", f"a recording with {name}")])
    return file


def read_json(file: Path, kind: type) -> Any:
    """The contents of a JSON file, a list or an object as ``kind`` says."""
    expected = "a JSON list" if kind is list else "a JSON object"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LogError([Fault(file.name, None, None, f"no JSON ({error})", expected)]) from None
    if not isinstance(data, kind):
        raise LogError([Fault(file.name, None, None, type(data).__name__, expected)])
    return data


def read_jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of every line of a JSONL file that is not empty; ``.gz`` is unpacked."""
    for line_number, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LogError([Fault(file.name, line_number, None, f"no JSON ({error})", "a JSON object")]) from None
        if not isinstance(row, dict):
            raise LogError([Fault(file.name, line_number, None, repr(row)[:60], "a JSON object")])
        yield line_number, row


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    line_number = 0
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for line_number, line in enumerate(lines, start=1):
                yield line_number, line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        found = f"bytes that cannot be read ({error})"
        raise LogError([Fault(file.name, line_number + 1, None, found, "complete text, in UTF-8")]) from None


def field(file: Path, row_number: int | None, row: Any, name: str, kinds: type | tuple[type, ...]) -> Any:
    """``row[name]``, which has to be there and to be of one of ``kinds``."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        found = "no such field" if not isinstance(row, dict) or name not in row else repr(value)[:60]
        raise LogError([Fault(file.name, row_number, name, found, f"a value of type {names}")])
    return value


def coverage(choices: list[dict[str, Any]], states: list[dict[str, Any]], responses: list[dict[str, Any]]) -> str:
    """Full if every choice answered every state, else partial."""
    answered = {(row["state_id"], row["choice"]) for row in responses}
    return "full" if len(answered) == len(states) * len(choices) else "partial"


def refuse_empty(file: Path, states: list[dict[str, Any]], filters: str) -> None:
    """A LogError if the filters leave nothing."""
    if not states:
        raise LogError([Fault(file.name, None, None, f"no question left by {filters}", "at least one")])


def known(option: str, given: list[str], allowed: set[str]) -> None:
    """A LogError if an option names something that the recording does not hold."""
    for name in given:
        if name not in allowed:
            expected = "some of " + ", ".join(sorted(allowed))
            raise LogError([Fault(f"option {option}", None, None, repr(name), expected)])


def names(text: str | None) -> list[str]:
    """The names in a list separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
