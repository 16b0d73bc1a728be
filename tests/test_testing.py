"""check_routing_env passes an environment that keeps its promises and catches every one that is broken."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlroute.testing import check_routing_env

LENGTH = 3


class Honest(gym.Env):
    """Three steps of three actions, one masked; they cost 1 and 2, and the dear one succeeds as the last."""

    observation_space: gym.Space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space: gym.Space = gym.spaces.Discrete(3)
    mask_in_obs = False

    def __init__(self, **_: Any) -> None:
        if self.mask_in_obs:
            box = type(self).observation_space
            self.observation_space = gym.spaces.Dict(observation=box, action_mask=gym.spaces.MultiBinary(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps, self.totals = 0, 0, np.zeros(4)
        self.noise = self.np_random.random()
        return self.observe(), self.info(np.zeros(4))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        vector, reward, ended = np.zeros(4), -1.0, False
        self.steps += 1
        if self.mask()[int(action)]:
            self.at += 1
            ended = self.at == LENGTH
            vector[:3] = self.quality(int(action), ended), 1.0 + action, 0.5
            reward = vector[0] - 0.1 * vector[1]
        self.totals = self.totals + vector
        truncated = not ended and self.steps >= 4 * LENGTH
        return self.observe(), float(reward), ended, truncated, self.info(vector)

    # What the broken ones below break.

    def quality(self, action: int, ended: bool) -> float:
        return float(ended and action == 1)

    def mask(self) -> np.ndarray:
        return np.array([1, 1, 0], np.int8)

    def observe(self) -> Any:
        flat = np.array([self.at / LENGTH, self.noise], np.float32)
        return {"observation": flat, "action_mask": self.mask()} if self.mask_in_obs else flat

    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return {"action_mask": self.mask(), "reward_vector": vector, "totals": self.totals}


class HonestDict(Honest):
    mask_in_obs = True


class MaskOfBools(Honest):
    def mask(self) -> np.ndarray:
        return super().mask().astype(bool)


class MaskTooShort(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector) | {"action_mask": np.ones(2, np.int8)}


class MaskOfTwos(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector) | {"action_mask": 2 * self.mask()}


class NoMask(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return {"reward_vector": vector, "totals": self.totals}


class TwoMasks(HonestDict):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector) | {"action_mask": np.array([0, 1, 1], np.int8)}


class OutOfBounds(Honest):
    def observe(self) -> Any:
        return np.array([self.at, self.noise], np.float32)


class DoublePrecision(Honest):
    def observe(self) -> Any:
        return super().observe().astype(np.float64)


class QualityPaidEarly(Honest):
    def quality(self, action: int, ended: bool) -> float:
        return float(action == 1) / LENGTH


class QualityOfTwo(Honest):
    def quality(self, action: int, ended: bool) -> float:
        return 2.0 * ended


class NegativeCost(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector * [1, -1, 1, 1])


class NanLatency(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector + np.array([0, 0, np.nan, 0]))


class VectorOfThree(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector[:3])


class WrongTotals(Honest):
    def info(self, vector: np.ndarray) -> dict[str, Any]:
        return super().info(vector) | {"totals": self.totals * (1 + (self.at > 1))}


class MaskedActionRaises(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask()[int(action)], "no such action"
        return super().step(action)


class MaskedActionEnds(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, ended, truncated, info = super().step(action)
        return observation, reward, ended or not self.mask()[int(action)], truncated, info


class MaskedActionIsFree(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest, info = super().step(action)
        return observation, reward if self.mask()[int(action)] else 0.0, rest[0], rest[1], info


class MaskedActionMoves(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.mask()[int(action)]:
            self.noise = self.np_random.random()
        return super().step(action)


class MaskedActionCosts(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, ended, truncated, info = super().step(action)
        if not self.mask()[int(action)]:
            self.totals = self.totals + np.array([0, 1, 0, 0])
            info |= {"reward_vector": np.array([0.0, 1, 0, 0]), "totals": self.totals}
        return observation, reward, ended, truncated, info


class EndsTwice(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, ended, info


class NeverEnds(Honest):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = 0
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


class IgnoresItsSeed(Honest):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=None)


class RandomReward(Honest):
    chance = np.random.default_rng()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest, info = super().step(action)
        noise = float(self.chance.random()) if self.mask()[int(action)] else 0.0
        return observation, reward + noise, rest[0], rest[1], info


class ManyActions(Honest):
    action_space: gym.Space = gym.spaces.MultiDiscrete([3, 3])


def make(kind: type[Honest]) -> gym.Env:
    name = f"broken/{kind.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, entry_point=kind)
    return gym.make(name, disable_env_checker=True)


@pytest.mark.parametrize("kind", [Honest, HonestDict])
def test_an_environment_that_keeps_its_promises_passes(kind: type[Honest]) -> None:
    check_routing_env(make(kind))
    check_routing_env(kind())  # without a spec there is no second environment to compare with


BROKEN = {
    MaskOfBools: "type bool, expected int8",
    MaskTooShort: r"shape \(2,\), expected \(3,\)",
    MaskOfTwos: "expected 0 and 1",
    NoMask: "no action_mask",
    TwoMasks: "masks of observation and info differ",
    OutOfBounds: "outside",
    DoublePrecision: "outside",
    QualityPaidEarly: "before the end",
    QualityOfTwo: r"expected a number in \[0, 1\]",
    NegativeCost: "below 0",
    NanLatency: "not finite",
    VectorOfThree: r"expected \(4,\)",
    WrongTotals: "totals",
    MaskedActionRaises: "no such action",
    MaskedActionEnds: "terminated the episode",
    MaskedActionIsFree: "rewarded with 0.0",
    MaskedActionMoves: r"\(masked\): observations differ",
    MaskedActionCosts: "a masked action has the reward vector",
    EndsTwice: "both terminated and truncated",
    NeverEnds: "did not end",
    IgnoresItsSeed: "observations differ",
    RandomReward: "another outcome in a second environment",
    ManyActions: "expected Discrete",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_promise_is_caught(kind: type[Honest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlroute.testing.MOST_STEPS", 1000)
    with pytest.raises(AssertionError, match=BROKEN[kind]):
        check_routing_env(make(kind))


def test_every_broken_environment_is_tried() -> None:
    def below(kind: type[Honest]) -> set[type[Honest]]:
        found = {kind}
        for child in kind.__subclasses__():
            found |= below(child)
        return found

    assert below(Honest) == set(BROKEN) | {Honest, HonestDict}
