"""The policy folder and the numpy network behind it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bandit
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rlroute.layout import Feature, Layout
from rlroute.policy import (
    CARD_FILE,
    WEIGHTS_FILE,
    PolicyError,
    TrainedPolicy,
    load_policy,
    parameter_shapes,
    save_policy,
)

HIDDEN = 16


def card(num_choices: int = 4) -> dict[str, Any]:
    return {
        "family": "toy/Bandit-v0",
        "layout": bandit.layout(num_choices).to_dict(),
        "network": {"hidden": HIDDEN},
    }


def random_parameters(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(bandit.layout(4), HIDDEN)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def random_situations(num_choices: int, rows: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Observations and masks with at least one action open in each row."""
    layout, rng = bandit.layout(num_choices), np.random.default_rng(seed)
    observation = rng.random((rows, layout.size), dtype=np.float32)
    mask = rng.random((rows, layout.num_actions)) < 0.5
    mask[np.arange(rows), rng.integers(0, layout.num_actions, rows)] = True
    return observation, mask.astype(np.int8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "policy", card(), random_parameters(), {"prior": np.full((3, 4), 0.5)})


def test_loaded_policy_is_the_saved_one(folder: Path) -> None:
    policy = load_policy(folder)
    saved = random_parameters()
    assert policy.parameters.keys() == saved.keys()
    assert all(np.array_equal(policy.parameters[name], saved[name]) for name in saved)
    assert np.array_equal(policy.tensors["prior"], np.full((3, 4), 0.5))
    assert policy.card["family"] == "toy/Bandit-v0"
    assert policy.layout == bandit.layout(4)
    assert sorted(file.name for file in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("num_choices", [1, 4, 6])
def test_no_masked_action_is_ever_chosen(folder: Path, num_choices: int) -> None:
    observation, mask = random_situations(num_choices, 2000)
    for policy in (load_policy(folder), load_policy(folder, sample=True, seed=1)):
        actions = policy.act(observation, mask)
        assert actions.shape == (2000,)
        assert mask[np.arange(2000), actions].all()
    assert len(np.unique(actions)) > 1


def test_logits_stay_finite_where_everything_is_masked(folder: Path) -> None:
    observation, mask = random_situations(4, 10)
    assert np.isfinite(load_policy(folder).logits(observation, np.zeros_like(mask))).all()


def test_one_observation_is_a_batch_of_one(folder: Path) -> None:
    policy = load_policy(folder)
    observation, mask = random_situations(4, 50)
    singly = [int(policy.act(o, m)) for o, m in zip(observation, mask, strict=True)]
    assert singly == policy.act(observation, mask).tolist()


def test_reordering_the_pool_reorders_the_scores(folder: Path) -> None:
    policy, layout = load_policy(folder), bandit.layout(5)
    observation, _ = random_situations(5, 100)
    everything = np.ones((100, layout.num_actions), np.int8)
    order = np.array([3, 0, 4, 1, 2])
    blocks = observation[:, layout.context_size :].reshape(100, 5, -1)[:, order]
    reordered = np.concatenate([observation[:, : layout.context_size], blocks.reshape(100, -1)], axis=1)
    columns = np.concatenate([[0], 1 + order, 6 + order])
    before, after = policy.logits(observation, everything), policy.logits(reordered, everything)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, before[:, columns], atol=1e-5)


def test_sampling_follows_the_softmax_of_the_logits(folder: Path) -> None:
    policy = load_policy(folder, sample=True, seed=0)
    observation, mask = random_situations(4, 1)
    draws = 20_000
    actions = policy.act(np.repeat(observation, draws, 0), np.repeat(mask, draws, 0))
    logits = policy.logits(observation, mask)[0].astype(float)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert 0.05 < expected.max() < 0.95
    np.testing.assert_allclose(np.bincount(actions, minlength=9) / draws, expected, atol=0.015)


@pytest.mark.parametrize(("size", "actions"), [(12, 9), (11, 8), (3, 1)])
def test_observations_of_another_shape_are_refused(folder: Path, size: int, actions: int) -> None:
    with pytest.raises(ValueError, match=r"found .* expected"):
        load_policy(folder).act(np.zeros((2, size), np.float32), np.ones((2, actions), np.int8))


def test_an_environment_with_another_layout_is_refused(folder: Path) -> None:
    policy, own = load_policy(folder), bandit.layout(6)
    policy.begin(SimpleNamespace(dynamics=SimpleNamespace(layout=own)))  # another pool is welcome
    other = Layout(own.context, (*own.choice, Feature("new", "none")), 6, own.context_actions, own.choice_actions)
    with pytest.raises(PolicyError, match=r"layout\.choice: found an environment with .*new"):
        policy.begin(SimpleNamespace(dynamics=SimpleNamespace(layout=other)))


def edit_card(folder: Path, **changes: Any) -> None:
    content = yaml.safe_load((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(yaml.safe_dump({**content, **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    arrays = dict(load_file(folder / WEIGHTS_FILE))
    change(arrays)
    save_file(arrays, folder / WEIGHTS_FILE)


def put(name: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder, lambda arrays: arrays.update({name: value}))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no card": (lambda f: (f / CARD_FILE).unlink(), "policy.yaml: found no such file"),
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "weights.safetensors: found no such file"),
    "unknown format": (lambda f: edit_card(f, format=7), "policy.yaml, key format: found 7, expected 1"),
    "card is a list": (lambda f: (f / CARD_FILE).write_text("- 1"), "found a list, expected a mapping"),
    "card is code": (
        lambda f: (f / CARD_FILE).write_text("!!python/object/apply:os.getcwd []"),
        "policy.yaml: found text that is no plain YAML",
    ),
    "no family": (lambda f: edit_card(f, family=None), "key family: found None, expected a str"),
    "broken layout": (lambda f: edit_card(f, layout={"context": []}), "key layout: found KeyError"),
    "absurd width": (lambda f: edit_card(f, network={"hidden": -1}), "key network.hidden: found -1"),
    "pickle": (
        lambda f: (f / WEIGHTS_FILE).write_bytes(pickle.dumps({"a": np.ones(3)})),
        "weights.safetensors: found a pickle, expected a safetensors file",
    ),
    "empty file": (lambda f: (f / WEIGHTS_FILE).write_bytes(b""), "found no safetensors file"),
    "wrong shape": (
        put("network.trunk.bias", np.zeros(3, np.float32)),
        r"key network.trunk.bias: found float32 of shape \(3,\), expected float32 of shape \(16,\)",
    ),
    "wrong type": (
        put("network.trunk.bias", np.zeros(16, np.float64)),
        "key network.trunk.bias: found float64 of shape",
    ),
    "nan": (
        put("network.trunk.bias", np.full(16, np.nan, np.float32)),
        "key network.trunk.bias: found nan or inf, expected finite numbers",
    ),
    "tensor too many": (
        put("network.extra.bias", np.zeros(3, np.float32)),
        "key network.extra.bias: found a tensor, expected no tensor",
    ),
    "tensor missing": (
        lambda f: edit_weights(f, lambda arrays: arrays.pop("network.trunk.weight")),
        r"key network.trunk.weight: found no such tensor, expected float32 of shape \(16, 48\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_file_key_found_and_expected(folder: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(folder)
    assert str(folder) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_folder_that_is_not_there_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml: found no such file"):
        load_policy(tmp_path / "nowhere")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=40))
def test_cut_or_overwritten_weights_never_load(folder: Path, keep: float, junk: bytes) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    try:
        (folder / WEIGHTS_FILE).write_bytes(whole[: int(keep * len(whole))] + junk)
        if (folder / WEIGHTS_FILE).stat().st_size != len(whole):
            with pytest.raises(PolicyError):
                load_policy(folder)
    finally:
        (folder / WEIGHTS_FILE).write_bytes(whole)


def test_a_failed_save_leaves_the_old_policy_and_no_litter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = random_parameters(1) | {"trunk.bias": np.full(HIDDEN, np.inf, np.float32)}
    with pytest.raises(PolicyError, match="nan or inf"):
        save_policy(folder, card(), bad)

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_policy(folder, card(), random_parameters(1))
    assert np.array_equal(load_policy(folder).parameters["trunk.bias"], random_parameters()["trunk.bias"])
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


def test_saving_replaces_a_policy_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    save_policy(folder, card(), random_parameters(1))
    assert np.array_equal(load_policy(folder).parameters["trunk.bias"], random_parameters(1)["trunk.bias"])
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(PolicyError, match="found something that is no policy"):
        save_policy(tmp_path / "thesis", card(), random_parameters())
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_what_a_card_lacks_is_named_with_its_file(folder: Path) -> None:
    policy = load_policy(folder)
    assert policy.value("network", "hidden", kind=int) == HIDDEN
    with pytest.raises(PolicyError, match=r"key network\.depth: found nothing, expected a value") as caught:
        policy.value("network", "depth")
    assert caught.value.file == folder / CARD_FILE
    with pytest.raises(PolicyError, match=r"key family: found 'toy/Bandit-v0', expected a mapping"):
        policy.value("family", kind=dict)


def test_cards_hold_plain_data_only(tmp_path: Path) -> None:
    extra = {
        "reward": {"c_ref": np.float64(0.5)},
        "prices": np.array([1, 2]),
        "log": Path("a/b"),
        "pair": (1, 2),
    }
    loaded = load_policy(save_policy(tmp_path / "p", card() | extra, random_parameters())).card
    assert (loaded["reward"]["c_ref"], loaded["prices"], loaded["log"]) == (0.5, [1, 2], "a/b")
    assert loaded["pair"] == [1, 2]
    with pytest.raises(PolicyError, match=r"key reward\.scale: found a function, expected plain data"):
        save_policy(tmp_path / "q", card() | {"reward": {"scale": bandit.layout}}, random_parameters())
    assert not (tmp_path / "q").exists()


def test_acting_needs_numpy_yaml_and_safetensors_only(folder: Path) -> None:
    code = f"""
import json, sys
import numpy as np
from rlroute.policy import load_policy
load_policy({str(folder)!r}).act(np.zeros((2, 11), np.float32), np.ones((2, 9), np.int8))
print(json.dumps([name for name in ("torch", "ray", "pyarrow", "scipy", "matplotlib", "pydantic")
                  if name in sys.modules]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_a_policy_without_context_actions_numbers_actions_from_its_first_choice() -> None:
    layout = Layout((Feature("budget", "usd"),), (Feature("price", "usd"),), 3, (), ("choose",))
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(layout, 8)
    assert not any(name.startswith("context_head") for name in shapes)
    parameters = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    policy = TrainedPolicy({"layout": layout.to_dict()}, parameters)
    logits = policy.logits(rng.random((5, 4), dtype=np.float32), np.ones((5, 3), np.int8))
    assert logits.shape == (5, 3)
    assert (np.ptp(logits, axis=1) > 1e-3).all()
