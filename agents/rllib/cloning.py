"""Behaviour cloning: a network that imitates a policy, for training to start from.

Where almost every random action does harm, PPO's first lesson is to give up at once, and it never learns another. A
clone of a reference policy starts where that policy stands; PPO then changes what pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from torch.nn.functional import cross_entropy, mse_loss

from rlroute.agents.rllib.cluster import quieten_ray
from rlroute.agents.rllib.module import RouterModule
from rlroute.envs import entry
from rlroute.envs.contest import vector_env
from rlroute.evaluation import Setting, tune
from rlroute.layout import Layout
from rlroute.policies import Policy
from rlroute.policy import save_policy


@dataclass(frozen=True)
class CloneArguments:
    """The knobs of a clone."""

    steps: int = 300  # steps of the environment that the teacher is watched for
    wandering: float = 0.1  # share of random legal actions, so that ways back are seen; the teacher's are learned
    epochs: int = 6  # passes over what was seen
    minibatch: int = 2048  # rows of one gradient step
    learning_rate: float = 2e-3  # Adam's, falling linearly to 0
    value_weight: float = 0.5  # weight of the value loss
    hidden: int = 64  # width of every layer of the network
    text_noise: float = 0.0  # noise on the text features, against learning the texts by heart
    seed: int = 0  # of the episodes, the wandering and the weights


@dataclass
class Demonstrations:
    """What a teacher did, one row a decision."""

    observation: NDArray[np.float32]  # (R, D)
    action_mask: NDArray[np.int8]  # (R, A)
    action: NDArray[np.int64]  # (R,)
    value: NDArray[np.float32]  # (R,) reward from here to the end of the episode; NaN where it was not seen

    @classmethod
    def together(cls, parts: Sequence[Demonstrations]) -> Demonstrations:
        """All rows of `parts`."""
        names = (column.name for column in fields(cls))
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def demonstrate(env: Any, teacher: Policy, arguments: CloneArguments) -> Demonstrations:
    """Watch `teacher` in a native vector environment with ``autoreset="same_step"``."""
    rng = np.random.default_rng(arguments.seed)
    observation, info = env.reset(seed=arguments.seed)
    teacher.begin(env)
    seen, masks, actions, rewards, ends = [], [], [], [], []
    for _ in range(arguments.steps):
        mask = info["action_mask"]
        action = np.asarray(teacher.act(observation, mask), np.int64)
        seen.append(observation.copy())
        masks.append(mask.copy())
        actions.append(action)
        wanders = rng.random(len(action)) < arguments.wandering
        taken = np.where(wanders, np.where(mask == 1, rng.random(mask.shape), -1.0).argmax(axis=1), action)
        observation, reward, terminated, truncated, info = env.step(taken)
        rewards.append(reward)
        ends.append(terminated | truncated)
    value = np.full((len(rewards) + 1, env.num_envs), np.nan)
    for t in range(len(rewards) - 1, -1, -1):
        value[t] = rewards[t] + np.where(ends[t], 0.0, value[t + 1])
    return Demonstrations(
        np.concatenate(seen).astype(np.float32),
        np.concatenate(masks),
        np.concatenate(actions),
        value[:-1].ravel().astype(np.float32),
    )


def fit(layout: dict[str, Any], given: Demonstrations, arguments: CloneArguments) -> dict[str, NDArray[np.float32]]:
    """Parameters of the routing network after imitating `given`: the actor by cross-entropy, the critic by squares."""
    quieten_ray()
    torch.manual_seed(arguments.seed)
    space = gym.spaces.Box(-np.inf, np.inf, given.observation.shape[1:], np.float32)
    actions: gym.Space = gym.spaces.Discrete(given.action_mask.shape[1])
    module = RouterModule(
        observation_space=space, action_space=actions, model_config={"layout": layout, "hidden": arguments.hidden}
    )
    text = Layout.from_dict(layout).slices().get("text")
    rows, batch = len(given.action), arguments.minibatch
    total = arguments.epochs * max(1, rows // batch)
    optimiser = torch.optim.Adam(module.parameters(), lr=arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1.0 - step / total))
    tensors = [torch.from_numpy(x) for x in (given.observation, given.action_mask, given.action, given.value)]
    for _ in range(arguments.epochs):
        order = torch.randperm(rows)
        for start in range(0, max(1, rows // batch) * batch, batch):
            observation, mask, action, value = (x[order[start : start + batch]] for x in tensors)
            if arguments.text_noise and text:
                observation[:, text] += arguments.text_noise * torch.randn_like(observation[:, text])
            out = module._forward({Columns.OBS: {"observation": observation, "action_mask": mask}})
            loss = cross_entropy(out[Columns.ACTION_DIST_INPUTS], action)
            known = torch.isfinite(value)
            if arguments.value_weight and bool(known.any()):
                guess = module.value_head(out[Columns.EMBEDDINGS]).squeeze(-1)
                loss = loss + arguments.value_weight * mse_loss(guess[known], value[known])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return {name: parameter.detach().numpy() for name, parameter in module.state_dict().items()}


def clone(env: Any, teacher: Policy, path: str | Path, arguments: CloneArguments | None = None) -> Path:
    """Watch, imitate, and write the clone as a policy folder."""
    arguments = arguments or CloneArguments()
    return imitate(env, demonstrate(env, teacher, arguments), teacher.name, path, arguments)


def choose_teacher(
    env_id: str, env_arguments: Mapping[str, Any], name: str, setting: Setting, episodes: int = 8
) -> int:
    """Which candidate of the family's reference `name` does best on val at `setting`: its place in their list."""

    def make_env(split: str, **given: Any) -> Any:
        return vector_env(env_id, split, **{**env_arguments, **given})

    candidates = _candidates(env_id, make_env("train", **setting.arguments), name)
    best = tune(make_env, [setting], {name: candidates}, episodes)[name][0].policy
    return next(place for place, policy in enumerate(candidates) if policy is best)


def clone_reference(
    env_id: str,
    env_arguments: Mapping[str, Any],
    name: str,
    setting: Setting,
    path: str | Path,
    arguments: CloneArguments,
    num_envs: int = 512,
    episodes: int = 8,
    lessons: Sequence[tuple[Mapping[str, Any], int]] = (),
) -> Path:
    """A policy folder that imitates the family's reference `name`, its knob tuned on val at `setting`.

    A setting at which much pays is a good one: to leave off what does not pay is easier to learn than to begin it.
    `lessons` says which candidate is watched under which arguments beside `env_arguments`, as `choose_teacher` gives
    it; each lesson has its share of the environments.
    """
    lessons = lessons or [({}, choose_teacher(env_id, env_arguments, name, setting, episodes))]
    seen, teachers = [], []
    for i, (given, place) in enumerate(lessons):
        part = {**env_arguments, **given, "autoreset": "same_step"}
        env = vector_env(env_id, "train", max(1, num_envs // len(lessons)), **part)
        teacher = _candidates(env_id, env, name)[place]
        seen.append(demonstrate(env, teacher, replace(arguments, seed=arguments.seed + 1000 * i)))
        teachers.append(teacher.name)
    whole = vector_env(env_id, "train", 1, **{**env_arguments, "autoreset": "same_step"})
    return imitate(whole, Demonstrations.together(seen), "; ".join(dict.fromkeys(teachers)), path, arguments)


def _candidates(env_id: str, env: Any, name: str) -> list[Policy]:
    package = entry(env_id).vector_entry_point.split(":")[0].rsplit(".", 1)[0]
    candidates: list[Policy] = import_module(f"{package}.references").references(env)[name]
    return candidates


def imitate(env: Any, given: Demonstrations, teacher: str, path: str | Path, arguments: CloneArguments) -> Path:
    """Imitate what was seen in `env`, and write the clone as a policy folder that names its `teacher`."""
    parameters = fit(env.layout.to_dict(), given, arguments)
    training = {"algorithm": "behaviour cloning", "teacher": teacher, "arguments": vars(arguments)}
    card = {**env.policy_card(), "network": {"hidden": arguments.hidden}, "training": training, "metrics": {}}
    return save_policy(path, card, parameters, env.policy_tensors())
