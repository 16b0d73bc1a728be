"""The demo as its user runs it: a script, a log of one's own, and status 2 with one clear line for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invented import partial_log

from rlroute.ope import CONFOUNDED

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
SCRIPT = Path(__file__).parents[1] / "experiments" / "demo.py"


def demo(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the demo with its outputs and its cache in `folder`."""
    command = [sys.executable, str(SCRIPT), "--out", str(folder / "out"), *map(str, arguments)]
    environment = {**os.environ, "RLROUTE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def assert_refused(result: subprocess.CompletedProcess[str], *said: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in result.stderr


def test_a_path_that_is_not_there_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    result = demo(tmp_path, "--log", tmp_path / "nothing")
    assert_refused(result, str(tmp_path / "nothing"), "no such file or folder", "expected a folder with one of")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_log_that_cannot_be_used_ends_with_status_2(tmp_path: Path) -> None:
    path = partial_log().save(tmp_path / "log")
    (path / "responses.parquet").write_bytes(b"PAR1 and no more")
    assert_refused(demo(tmp_path, "--log", path), "responses: found a truncated parquet file")
    (path / "card.yaml").write_text("name: [unclosed")
    assert_refused(demo(tmp_path, "--log", path), "card.yaml: found no YAML")


def test_an_output_under_a_file_ends_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    path = partial_log().save(tmp_path / "log")
    assert_refused(demo(tmp_path, "--log", path), str(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("propensity", [True, False])
def test_a_partial_log_gets_estimates_with_propensity_and_only_confounded_without(
    propensity: bool, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    path = partial_log(300, propensity=propensity).save(tmp_path / "log")
    result = demo(tmp_path, "--log", path, "--steps", 4096)
    assert result.returncode == 0, result.stderr
    report = (tmp_path / "out" / "report.md").read_text()
    if propensity:
        assert "SNIPS" in report
        assert "effective samples" in report
        assert "| trained router |" in report
    else:
        assert CONFOUNDED[1:] in report
        assert "SNIPS" not in report
    assert "beats" not in report
    assert not (tmp_path / "out" / "frontier.png").exists()
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())["results"]
    assert {row["coverage"] for row in results} == {"partial"}
