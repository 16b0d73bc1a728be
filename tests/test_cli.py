"""The command line: what it prints, what it writes, and status 2 with one clear line for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_logs import make, query_rows, task_rows

from rlroute.cli import main
from rlroute.log import load_log

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLROUTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


def recording(folder: Path, score: str = "1") -> Path:
    """A recording of 30 queries and two models, the score of one of them as given."""
    rows = [f"query {i},{model},{(i + len(model)) % 2},0.{len(model)}" for i in range(30) for model in ("x", "yy")]
    rows[7] = f"query 3,yy,{score},0.2"
    (folder / "data.csv").write_text("\n".join(["prompt,llm,score,usd", *rows]) + "\n")
    columns = {"query": "prompt", "model": "llm", "quality": "score", "cost_usd": "usd"}
    (folder / "mapping.yaml").write_text(yaml.safe_dump({"name": "mine", "columns": columns, "file": "data.csv"}))
    return folder


def test_a_recording_becomes_a_log_without_writing_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = recording(tmp_path)
    assert main(["import", "generic", str(source), "--out", str(tmp_path / "log")]) == 0
    assert "full coverage" in capsys.readouterr().out
    assert load_log(tmp_path / "log").arrays.num_responses == 60
    assert main(["validate", str(tmp_path / "log")]) == 0
    assert "log mine: 0 errors" in capsys.readouterr().out


def test_options_reach_the_importer(tmp_path: Path) -> None:
    source = recording(tmp_path)
    (source / "mapping.yaml").rename(source / "other.yaml")
    arguments = ["import", "generic", str(source / "data.csv"), "--out", str(tmp_path / "log")]
    assert main(arguments) == 2
    assert main([*arguments, "--mapping", str(source / "other.yaml")]) == 0


def test_a_bad_recording_ends_with_status_2_one_line_and_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = recording(tmp_path, score="1.2"), tmp_path / "out" / "log"
    assert main(["import", "generic", str(source), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "data.csv row 9, column score: found '1.2', expected a finite number in [0, 1]"
    ]
    assert not out.exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_that_is_no_log_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = recording(tmp_path)
    assert main(["import", "generic", str(source), "--out", str(source)]) == 2
    assert "not a log" in capsys.readouterr().err
    assert (source / "data.csv").exists()


@pytest.mark.parametrize("place", ["file", "file/log", "file/deeper/log"])
def test_an_output_at_or_under_a_file_is_named(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("years of work")
    assert main(["import", "generic", str(recording(tmp_path)), "--out", str(tmp_path / place)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(tmp_path / "file") in lines[0]
    assert (tmp_path / "file").read_text() == "years of work"


@pytest.mark.parametrize("command", ["validate", "show"])
@pytest.mark.parametrize("file", ["card.yaml", "responses.parquet"])
def test_a_folder_in_the_place_of_a_file_is_named(
    file: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    (path / file).unlink()
    (path / file).mkdir()
    assert main([command, str(path)]) == 2
    error = capsys.readouterr().err
    assert f"found {path / file}, which" in error
    assert "expected a" in error


@pytest.mark.parametrize("file", ["card.yaml", "responses.parquet"])
def test_a_file_that_may_not_be_read_is_named(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    path = make(query_rows()).save(tmp_path / "log")
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == file:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    def no_parquet(source: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pq, "ParquetFile", no_parquet)
    assert main(["show", str(path)]) == 2
    assert f"found {path / file}, which cannot be read (Permission denied), expected" in capsys.readouterr().err


def test_any_other_system_error_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("RLROUTE_CACHE", str(tmp_path / "no folder"))
    assert main(["show", "tasks"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(str(tmp_path / "no folder"))
    assert "found " in lines[0]
    assert "expected " in lines[0]


def test_validate_prints_every_fault_and_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    (path / "states.parquet").write_bytes(b"PAR1 and no more")
    (path / "choices.parquet").unlink()
    assert main(["validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert "error: choices: found no such file" in captured.err
    assert "error: states: found a truncated parquet file" in captured.err
    assert "2 errors" in captured.out


@pytest.mark.parametrize("command", ["validate", "show"])
def test_a_log_that_is_not_there_ends_with_status_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "./no/such/log"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_show_names_the_best_ways_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = query_rows()
    assert main(["show", str(make(rows).save(tmp_path / "log"))]) == 0
    printed = capsys.readouterr().out
    figures = {
        line.rsplit(" quality ", 1)[0].strip(): line.rsplit(" ", 1)[1]
        for line in printed.splitlines()
        if " quality 0" in line
    }
    assert figures == {
        "uniform over choices": "0.650",
        "best single (large)": "0.800",
        "best per task name": "0.900",  # small on even questions, large on odd ones
        "best single for each query": "0.900",
        "clairvoyant (knows every draw)": "0.900",
    }
    assert "small" in printed
    assert "hash" in printed


def test_show_reports_success_of_a_task_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(make(task_rows()).save(tmp_path / "log"))]) == 0
    printed = capsys.readouterr().out
    assert "best single (large)" in printed
    assert "success 1.000" in printed
    assert "quality" not in printed


def test_envs_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    from rlroute.envs import REGISTRY

    assert main(["envs"]) == 0
    printed = capsys.readouterr().out
    assert len(REGISTRY) >= 2
    assert all(entry.id in printed for entry in REGISTRY)


@pytest.mark.parametrize(
    "arguments", [[], ["import"], ["import", "excel", "x", "--out", "y"], ["import", "generic", "x"]]
)
def test_usage_errors_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_the_exit_status_leaves_the_process(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(json.dumps({"name": "empty"}))
    command = [sys.executable, "-m", "rlroute.cli", "validate", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 3  # one line for each table
