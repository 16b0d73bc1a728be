"""What may import what, what is installed, and what loads when."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import pytest

import rlroute
from rlroute.envs import REGISTRY, EnvEntry

ROOT = Path(__file__).parent.parent
LAYERS = {"core": "rlroute", "envs": "envs", "agents": "agents", "experiments": "experiments"}  # in order
TRAINERS = {"torch", "ray", "trl", "transformers", "stable_baselines3"}
# Loaded only when they are needed, never by an import or by making an environment whose log is cached.
LAZY = (
    "torch",
    "ray",
    "trl",
    "numba",
    "matplotlib",
    "pyarrow",
    "pydantic",
    "scipy",
    "sklearn",
    "sentence_transformers",
)


def sources(layer: str) -> list[Path]:
    """The Python files of a layer, links to other layers not followed."""
    folder = ROOT / LAYERS[layer]
    linked = [path for path in folder.iterdir() if path.is_symlink()]
    return [path for path in sorted(folder.rglob("*.py")) if not any(link in path.parents for link in linked)]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether inside a function) of every import in a file, those for type checking left out."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield module, inside
            yield from ((f"{module}.{alias.name}", inside) for alias in node.names)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(path.read_text()), False)


def layer_of(module: str) -> int | None:
    """The layer that a module of this project belongs to; None for everybody else's."""
    for i, prefix in reversed(list(enumerate(("rlroute", "rlroute.envs", "rlroute.agents", "experiments")))):
        if module == prefix or module.startswith(prefix + "."):
            return i
    return None


def test_every_layer_has_sources_and_they_import_one_another() -> None:
    assert all(len(sources(layer)) >= 3 for layer in LAYERS)
    found = {layer_of(module) for layer in LAYERS for path in sources(layer) for module, _ in imports(path)}
    assert {0, 1, 2, None} <= found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    own = list(LAYERS).index(layer)
    for path in sources(layer):
        for module, inside in imports(path):
            if (layer_of(module) or 0) <= own:
                continue
            # The package registers its environments; router and command line look them up when called.
            name = path.relative_to(ROOT).as_posix()
            registry = module in (
                "rlroute.envs",
                *(f"rlroute.envs.{n}" for n in ("register_all", "entry", "REGISTRY")),
            )
            lazily = name in ("rlroute/router.py", "rlroute/cli.py") and inside
            assert registry, f"{name} imports {module}"
            assert name == "rlroute/__init__.py" or lazily, f"{name} imports {module}"


@pytest.mark.parametrize("layer", ["core", "envs"])
def test_core_and_environments_know_no_trainer(layer: str) -> None:
    for path in sources(layer):
        used = {module.split(".")[0] for module, _ in imports(path)}
        assert not used & TRAINERS, f"{path} imports {used & TRAINERS}"


def test_pyproject_lists_the_packages_that_are_on_the_disk() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = set()
    for package, folder in setuptools["package-dir"].items():
        for init in sources(next(layer for layer, path in LAYERS.items() if path == folder)):
            if init.name == "__init__.py":
                inner = init.parent.relative_to(ROOT / folder).parts
                on_disk.add(".".join((package, *inner)))
    assert set(setuptools["packages"]) == on_disk
    assert len(setuptools["packages"]) == len(on_disk)


def test_the_installed_version_is_that_of_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == rlroute.__version__


def test_folders_are_linked_where_type_checkers_look_for_them() -> None:
    for name in ("envs", "agents"):
        assert (ROOT / "rlroute" / name).resolve() == ROOT / name


def run(code: str, folder: Path, **environment: str) -> str:
    """What a fresh Python process prints, away from the repository root."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = f"import sys; print([name for name in {LAZY} if name in sys.modules])"


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    assert run(f"import rlroute; {LOADED}", tmp_path) == "[]\n"
    assert run(f"import pyarrow; {LOADED}", tmp_path) == "['pyarrow']\n"


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.id)
def test_a_warm_environment_loads_nothing_heavy_but_what_compiles_its_steps(row: EnvEntry, tmp_path: Path) -> None:
    gym.make(row.id)
    make = f"import gymnasium as gym; import rlroute; env = gym.make('{row.id}')"
    play = "env.reset(seed=0); env.step(env.action_space.sample())"
    assert run(f"{make}; {LOADED}", tmp_path) == "[]\n"
    loaded = run(f"{make}; {play}; {LOADED}", tmp_path)
    assert set(ast.literal_eval(loaded)) <= {"numba", "scipy"}, "numba itself loads scipy"
    interpreted = f"import os; os.environ['RLROUTE_JIT'] = '0'; {make}; {play}; {LOADED}"
    assert run(interpreted, tmp_path) == "[]\n"


def test_a_policy_acts_without_a_trainer(tmp_path: Path) -> None:
    loaded = run(f"from rlroute import Router, load_policy, load_log; {LOADED}", tmp_path)
    assert not set(ast.literal_eval(loaded)) & TRAINERS


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.id)
def test_prefixed_ids_import_the_package_first(row: EnvEntry, tmp_path: Path) -> None:
    gym.make(row.id)
    scalar = f"print(gym.make('rlroute:{row.id}').reset(seed=0)[0].sum())"
    vector = f"gym.make_vec('rlroute:{row.id}', 2, vectorization_mode='vector_entry_point')"
    code = f"import gymnasium as gym; {scalar}; print({vector}.reset(seed=0)[0][0].sum())"
    first, second = run(code, tmp_path).split()
    assert first == second


def test_the_registry_is_what_gymnasium_knows() -> None:
    known = {name for name in gym.registry if name.startswith("rlroute/")}
    assert known == {name for row in REGISTRY for name in (row.id, row.text_id)}
    for row in REGISTRY:
        assert gym.spec(row.text_id).entry_point == row.text_entry_point
        spec = gym.spec(row.id)
        assert (spec.entry_point, spec.vector_entry_point) == (row.entry_point, row.vector_entry_point)
        for path in (row.entry_point, row.vector_entry_point, row.text_entry_point, row.live):
            module, name = path.split(":")
            assert hasattr(importlib.import_module(module), name)


CARD = ("Actions", "Observation", "Reward", "Episode end", "Arguments", "Version history")


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.id)
def test_every_environment_has_a_spec_card(row: EnvEntry) -> None:
    package = importlib.import_module(row.entry_point.split(":")[0].rpartition(".")[0])
    card = package.__doc__ or ""
    headings = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in CARD] == list(CARD)
    assert row.id.rsplit("/")[-1].rsplit("-v")[0] in card.splitlines()[0]
    assert f"v{row.id.rsplit('-v')[-1]}:" in card.split("## Version history")[1]
    # The faces show it too.
    module, name = row.entry_point.split(":")
    assert getattr(importlib.import_module(module), name).__doc__ == card


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.id)
def test_every_argument_is_explained(row: EnvEntry) -> None:
    module, name = row.vector_entry_point.split(":")
    arguments = getattr(importlib.import_module(module), name).dynamics_type.arguments_type
    for kind in arguments.__mro__[:-1]:
        inherited = {field.name for base in kind.__mro__[1:-1] for field in fields(base)}
        source = Path(importlib.import_module(kind.__module__).__file__ or "").read_text()
        body = next(
            node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__
        )
        for field in body.body:
            if isinstance(field, ast.AnnAssign):
                line = source.splitlines()[field.lineno - 1]
                assert "  # " in line or ast.unparse(field.target) in inherited, line


def test_the_readme_names_the_environments_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"rlroute/\w+-v\d+", readme)) == {name for row in REGISTRY for name in (row.id, row.text_id)}
