"""Where derived files are kept, and how a folder is written so that nobody ever sees half of it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """``$RLROUTE_CACHE``, by default ``~/.cache/rlroute``. Everything in it can be deleted at any time."""
    return Path(os.environ.get("RLROUTE_CACHE") or Path.home() / ".cache" / "rlroute")


@contextmanager
def atomic_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling to write into, renamed to ``target`` at the end and removed if anything fails.

    A ``target`` that exists is left as it is, unless ``replace`` is set.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex[:8]
    partial = target.with_name(f".{target.name}.{unique}.partial")
    partial.mkdir()
    try:
        yield partial
        if replace and target.exists():
            old = target.with_name(f".{target.name}.{unique}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        elif not target.exists():
            try:
                partial.rename(target)
            except OSError:  # somebody else was quicker: what they wrote is as good
                if not target.exists():
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
