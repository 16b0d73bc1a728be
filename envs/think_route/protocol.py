"""Router-R1's protocol (arXiv 2506.09033, code): where a turn ends, which action it is, and when its format is wrong.

Everything here is a scan from left to right, linear in the length of the text, and accepts any string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SEARCH, ANSWER = "search", "answer"
STOPS = ("</search>", "</answer>")
TAGS = ("think", "search", "information", "answer")
_TAG = re.compile(r"<(/?)(think|search|information|answer)>")
# What a router that copies the instructions writes in place of a name or a query [ours].
PLACEHOLDERS = frozenset({"...", "…", "model-name", "model name", "llm-name", "query", "your query", "your-query"})

Resolve = Callable[[str], int | None]  # a written name to a choice, None where it names none


class Action(NamedTuple):
    """What a turn does: `kind` is SEARCH or ANSWER, `body` what stands between its tags."""

    kind: str
    body: str


class Route(NamedTuple):
    """A well-formed search: whom to ask, and what."""

    name: str
    query: str


def cut(text: str) -> str:
    """`text` up to the end of the first ``</search>``, else of the first ``</answer>``, else all of it."""
    for stop in STOPS:
        end = text.find(stop)
        if end >= 0:
            return text[: end + len(stop)]
    return text


def first_action(text: str) -> Action | None:
    """The first ``<search>…</search>`` or ``<answer>…</answer>``; None where there is neither.

    The same as matching ``<(search|answer)>(.*?)</\\1>``, which would take quadratic time on many open tags.
    """
    found: list[tuple[int, int, str]] = []
    for kind in (SEARCH, ANSWER):
        start = text.find(f"<{kind}>")
        end = text.find(f"</{kind}>", start)
        if 0 <= start < end:
            found.append((start, end, kind))
    if not found:
        return None
    start, end, kind = min(found)
    return Action(kind, text[start + len(kind) + 2 : end])


def parse_route(body: str) -> Route | None:
    """Name and query of a search; None without a colon, or with a placeholder or nothing for either.

    The query is what stands between the first and the second colon, as in the code.
    """
    name, *rest = body.split(":")
    if not rest:
        return None
    route = Route(name.strip(), rest[0].strip())
    if not route.query or not route.name or {route.name.lower(), route.query.lower()} & PLACEHOLDERS:
        return None
    return route


def substring_name(names: Sequence[str]) -> Resolve:
    """Names as the code matches them: the longest that the written one contains, else the first that contains it."""

    def resolve(written: str) -> int | None:
        low = written.strip().lower()
        inside = [c for c, name in enumerate(names) if name.lower() in low]
        if inside:
            return max(inside, key=lambda c: len(names[c]))
        around = (c for c, name in enumerate(names) if low and low in name.lower())
        return next(around, None)

    return resolve


def exact_name(names: Sequence[str]) -> Resolve:
    """Names as they stand in the prompt."""
    place = {name: c for c, name in enumerate(names)}
    return lambda written: place.get(written.strip())


class Block(NamedTuple):
    """An enclosed tag."""

    tag: str
    body: str


def blocks(text: str) -> tuple[list[Block], bool]:
    """The enclosed tags of `text` in order, and whether all tags are balanced and none stands within another."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    tidy = True
    for match in _TAG.finditer(text):
        closing, tag = bool(match[1]), match[2]
        if not closing:
            tidy &= opened is None
            opened = (tag, match.end())
        elif opened is not None and opened[0] == tag:
            found.append(Block(tag, text[opened[1] : match.start()]))
            opened = None
        else:
            tidy = False
    return found, tidy and opened is None


def format_faults(text: str, resolve: Resolve, finished: bool = True) -> tuple[str, ...]:
    """What is wrong with the format of a whole response, router and pool together; nothing: reward 0, else −1.

    With `finished=False` the episode was ended from outside, and a missing answer is no fault.
    """
    found, tidy = blocks(text)
    by_tag = {tag: [block.body for block in found if block.tag == tag] for tag in TAGS}
    stripped = text.strip()
    checks = [
        ("no enclosed tag", not found),
        ("unbalanced or nested tags", not tidy),
        ("no think", not by_tag["think"]),
        ("empty think", any(body.strip() in ("", "...") for body in by_tag["think"])),
        ("more than one answer", len(by_tag[ANSWER]) > 1),
        ("searches and information differ in number", len(by_tag[SEARCH]) != len(by_tag["information"])),
        ("does not start with <think>", not stripped.startswith("<think>")),
        ("no answer", finished and not by_tag[ANSWER]),
        ("does not end with </answer>", finished and not stripped.endswith("</answer>")),
    ]
    faults = [name for name, wrong in checks if wrong]
    return (*faults, *(fault for body in by_tag[SEARCH] for fault in _search_faults(body, resolve)))


def _search_faults(body: str, resolve: Resolve) -> list[str]:
    route = parse_route(body)
    if route is None:
        return ["malformed search"]
    checks = [
        ("more than one colon in a search", body.count(":") != 1),
        ("model name within the query", route.name.lower() in route.query.lower()),
        ("unknown model", resolve(route.name) is None),
    ]
    return [name for name, wrong in checks if wrong]


def without_tags(text: str) -> str:
    """`text` in which no protocol tag can be read: pool text cannot break the format of the repaired variant."""
    return _TAG.sub(lambda match: f"[{match[1]}{match[2]}]", text)
