"""The README says what is so: its generated blocks are fresh, its commands exist, its example mapping imports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from rlroute.importers import import_log

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_generated_blocks_are_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "readme.py"), "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert check.returncode == 0, check.stderr


def test_every_make_target_it_names_exists() -> None:
    named = set(re.findall(r"`?\bmake ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_path_it_names_exists() -> None:
    named = re.findall(r"\]\((experiments/[^)]+)\)", README) + re.findall(r"python (experiments/\S+\.py)", README)
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_its_mapping_imports_a_table(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(# mapping\.yaml.*?)```", README, re.DOTALL)
    assert block is not None
    mapping = yaml.safe_load(block[1])
    (tmp_path / "mapping.yaml").write_text(block[1])
    rows = [f"question {i},{model},{(i + k) % 2},0.00{k + 1}" for i in range(20) for k, model in enumerate("ab")]
    (tmp_path / mapping["file"]).write_text("\n".join(["prompt,model,score,cost", *rows]) + "\n")
    for path in (tmp_path, tmp_path / mapping["file"]):
        log = import_log("generic", path)
        assert log.name == mapping["name"]
        assert (log.arrays.num_states, log.arrays.num_responses) == (20, 40)
