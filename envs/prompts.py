"""Prompts of the text faces: templates in files, and the lines that fill them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from rlroute.pool import Pool


class PromptError(ValueError):
    """A template that cannot be used: which file, what was found and what was expected."""

    def __init__(self, source: str, found: str, expected: str) -> None:
        super().__init__(source, found, expected)
        self.source, self.found, self.expected = source, found, expected

    def __str__(self) -> str:
        return f"{self.source}: found {self.found}, expected {self.expected}"


class Prompt:
    """A template with fields such as ``$question``, checked against the fields that a family fills."""

    def __init__(self, path: Path, fields: Iterable[str]) -> None:
        known = sorted(fields)
        if not path.is_file():
            raise PromptError(str(path), "no such file", "a prompt template")
        text = path.read_text(encoding="utf-8")
        template = Template(text)
        if not template.is_valid():
            raise PromptError(str(path), "a $ that begins no field", "$$ for the sign itself")
        for name in template.get_identifiers():
            if name not in known:
                raise PromptError(str(path), f"the field ${name}", f"among {', '.join('$' + field for field in known)}")
        self.path = path
        self._template = template

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt with all fields filled."""
        return self._template.substitute(values)


def prompt_path(prompt: str | Path, folder: Path) -> Path:
    """Where a template lies: ``"full"`` and ``"brief"`` are the family's own in `folder`, all else is a path."""
    own = folder / f"prompt_{prompt}.txt"
    return own if isinstance(prompt, str) and own.is_file() else Path(prompt)


def choice_lines(pool: Pool, descriptions: Iterable[str]) -> str:
    """One line a choice: its name, what it is good at, its prices, and seconds of a usual call."""
    return "\n".join(
        f"- {name}: {description or 'no description'}; {price_words(pool, c)}, {pool.mean_latency_s[c]:.1f} s a call"
        for c, (name, description) in enumerate(zip(pool.names, descriptions, strict=True))
    )


def brief_lines(pool: Pool) -> str:
    """One line a choice: its name and the mean price of a call in USD per thousand calls."""
    return "\n".join(f"{name} {1e3 * pool.mean_cost_usd[c]:.3g}" for c, name in enumerate(pool.names))


def price_words(pool: Pool, choice: int) -> str:
    """What a choice costs, in words."""
    into, out = 1e6 * pool.input_usd[choice], 1e6 * pool.output_usd[choice]
    return f"{into:.3g} USD in and {out:.3g} USD out per million tokens"


def number(value: Any) -> str:
    """A number as a person writes it; "no limit" for an infinite one."""
    return f"{float(value):.3g}" if np.isfinite(value) else "no limit"
