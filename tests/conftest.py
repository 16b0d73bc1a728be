"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from logs import Letters

from rlroute.text import FEATURISERS


@pytest.fixture(scope="session")
def handmade_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def handmade(handmade_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For logs made in a test: a cache of this session alone, and a featuriser that takes no time to fit."""
    monkeypatch.setenv("RLROUTE_CACHE", str(handmade_cache))
    monkeypatch.setitem(FEATURISERS, "letters", Letters)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all tests of a file; `train` leaves a running one alone."""
    import ray

    from rlroute.agents.rllib.cluster import start_ray

    started = start_ray()
    yield
    if started:
        ray.shutdown()
