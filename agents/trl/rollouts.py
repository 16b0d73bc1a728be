"""Episodes of a language model in text environments, for training (TRL's ``rollout_func``) and for evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rlroute.agents.trl.checks import ModelError
from rlroute.agents.trl.generation import CachedTexts, Texts, TurnSampler
from rlroute.agents.trl.models import LanguageModel, TokenizerTokens, merged
from rlroute.rewards import COST_USD, LATENCY_S, QUALITY
from rlroute.rollout import Episodes, finished

Start = tuple[int, Mapping[str, Any]]  # seed and options of a reset


@dataclass
class Rollout:
    """One episode: the tokens of it, and what it came to."""

    prompt: str
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)  # of all turns and replies
    env_mask: list[int] = field(default_factory=list)  # 1: sampled from the model, 0: written by the environment
    logprobs: list[float] = field(default_factory=list)  # of sampled tokens; 0 elsewhere
    turns: list[tuple[str, str]] = field(default_factory=list)  # (what the model wrote, what was replied)
    reward: float = 0.0
    faults: tuple[str, ...] = ()
    called: list[int] = field(default_factory=list)  # the choice of every call, where the family has choices
    router_cost_usd: float = 0.0  # part of the episode's cost
    episode: Episodes | None = None  # a batch of one

    @property
    def transcript(self) -> str:
        """Prompt, turns and replies."""
        return self.prompt + "".join(turn + reply for turn, reply in self.turns)

    @property
    def written(self) -> int:
        """Tokens that the model wrote."""
        return sum(self.env_mask)

    def add(self, ids: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        """Append tokens: sampled ones with their log-probabilities, or those of a reply."""
        self.completion_ids += ids
        self.env_mask += [int(logprobs is not None)] * len(ids)
        self.logprobs += logprobs if logprobs is not None else [0.0] * len(ids)


@dataclass
class Clock:
    """Where the time of rollouts went, in seconds, and what came of it."""

    total: float = 0.0
    model: float = 0.0  # forward passes
    sampling: float = 0.0  # drawing tokens, and looking for stops
    sampled_tokens: int = 0
    episodes: int = 0

    @property
    def environment(self) -> float:
        """Everything else: parsing, replaying, replying and tokenising replies."""
        return self.total - self.model - self.sampling


def make_envs(env_id: str, arguments: Mapping[str, Any], language: LanguageModel, count: int) -> list[Any]:
    """Text environments that count tokens as the model does; the log they share is read once."""
    made: dict[str, Any] = {"tokens": TokenizerTokens(language.tokenizer), **arguments}
    envs: list[Any] = []
    for _ in range(count):
        envs.append(gym.make(env_id, disable_env_checker=True, **made).unwrapped)
        if hasattr(envs[0].dynamics.log, "state_text"):
            made["log"] = envs[0].dynamics.log
    return envs


class Player:
    """Plays episodes in text environments of one kind with a language model."""

    def __init__(self, language: LanguageModel, stops: Sequence[str], turn_tokens: int) -> None:
        self.language, self.turn_tokens = language, turn_tokens
        self.stops = tuple(stops)
        self.sampler = TurnSampler(language, stops)
        self.llm: Any = None  # an engine of vLLM to sample with, in place of the model itself
        self.clock = Clock()
        self.context = int(getattr(language.model.config, "max_position_embeddings", 0) or 1 << 30)

    @torch.no_grad()
    def play(
        self, envs: Sequence[Any], starts: Sequence[Start], group: int = 1, greedy: bool = False, model: Any = None
    ) -> list[Rollout]:
        """One episode in each environment; those of a `group` in a row begin with the same prompt.

        `model` is the model to sample with where there is no engine for that; by default the bare one.
        """
        began = time.perf_counter()
        rollouts = [self._begin(env, start) for env, start in zip(envs, starts, strict=True)]
        texts = self._texts(model)
        shared = all(rollouts[i].prompt == rollouts[i - i % group].prompt for i in range(len(rollouts)))
        texts.read([rollout.prompt_ids for rollout in rollouts], group if shared else 1)
        live = list(range(len(envs)))
        while live:
            before, model_before = time.perf_counter(), texts.seconds
            limits = [self._room(envs[i], rollouts[i]) for i in live]
            turns = texts.turn(limits, greedy)
            spent = time.perf_counter() - before
            self.clock.sampling += spent - (texts.seconds - model_before)
            going, replies = [], []
            for row, (i, turn) in enumerate(zip(live, turns, strict=True)):
                rollouts[i].add(turn.ids, turn.logprobs)
                self.clock.sampled_tokens += len(turn.ids)
                reply = self._step(envs[i], rollouts[i], self.language.decode(turn.ids))
                if reply is None:
                    continue
                ids = self.language.text_ids(reply)
                if not turn.ids:  # the context is full: what is left of the episode passes in silence
                    while self._step(envs[i], rollouts[i], "") is not None:
                        pass
                    continue
                rollouts[i].add(ids)
                going.append(row)
                replies.append(ids)
            live = [live[row] for row in going]
            if live:
                texts.go_on(going, replies)
        self.clock.model += texts.seconds
        self.clock.episodes += len(rollouts)
        self.clock.total += time.perf_counter() - began
        return rollouts

    def _texts(self, model: Any) -> Texts:
        if self.llm is None:
            return CachedTexts(self.sampler, model or self.language.model, self.language.tokenizer.pad_token_id)
        from rlroute.agents.trl.vllm import VllmTexts

        return VllmTexts(self.llm, self.stops)

    def _begin(self, env: Any, start: Start) -> Rollout:
        seed, options = start
        prompt, _ = env.reset(seed=seed, options=dict(options))
        rollout = Rollout(prompt, self.language.prompt_ids(prompt))
        if not self._room(env, rollout):
            context = min(self.context, env.limits.context_tokens)
            raise ModelError(
                "context",
                f"{context} tokens, which a prompt of {len(rollout.prompt_ids)} fills",
                'room for a turn: a longer context, or a shorter prompt by env_arguments {"prompt_tokens": …}',
            )
        return rollout

    def _room(self, env: Any, rollout: Rollout) -> int:
        """Tokens that the next turn may have."""
        context = min(self.context, env.limits.context_tokens)
        left = context - len(rollout.prompt_ids) - len(rollout.completion_ids)
        return max(0, min(self.turn_tokens, env.limits.turn_tokens, left))

    def _step(self, env: Any, rollout: Rollout, text: str) -> str | None:
        """Give a turn to the environment; returns its reply, None at the end of the episode."""
        calls = int(env.dynamics.calls[0])
        _, reward, terminated, truncated, info = env.step(text)
        if int(env.dynamics.calls[0]) > calls and hasattr(env.dynamics, "heard_choice"):
            rollout.called.append(int(env.dynamics.heard_choice[0, env.dynamics.num_heard[0] - 1]))
        rollout.turns.append((info["kept"], info["reply"]))
        rollout.reward += reward
        if not (terminated or truncated):
            return str(info["reply"])
        finish(rollout, env, info, truncated)
        return None


def finish(rollout: Rollout, env: Any, info: Mapping[str, Any], truncated: bool) -> None:
    """Fill in what an episode came to, from its environment and its last `info`."""
    dynamics, totals = env.dynamics, info["totals"]
    rollout.faults = tuple(info["faults"])
    if hasattr(dynamics, "visits"):
        rollout.called = np.repeat(np.arange(dynamics.visits.shape[1]), dynamics.visits[0]).tolist()
    rollout.router_cost_usd = env.router_tokens * env.router_usd_per_mtok / 1e6
    episode = finished(dynamics, np.array([rollout.reward]), np.array([truncated]), 1)
    # An answer in the router's own words, and its own tokens, are known to the text face alone.
    rollout.episode = replace(
        episode,
        quality=np.array([totals[QUALITY]]),
        cost_usd=np.array([totals[COST_USD]]),
        latency_s=np.array([totals[LATENCY_S]]),
    )


class Rollouts:
    """TRL's ``rollout_func``: a prompt is the number of a group, which fixes its task, terms and draws.

    The episodes of the latest batch are kept in `latest`, for a trainer that needs more than their rewards.
    """

    def __init__(self, player: Player, envs: Sequence[Any], group_size: int, seed: int) -> None:
        self.player, self.envs, self.group_size, self.seed = player, list(envs), group_size, seed
        self.latest: list[Rollout] = []

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode a prompt; the prompts of a group follow one another."""
        if len(prompts) > len(self.envs) or len(prompts) % self.group_size:
            raise ValueError(
                f"{len(prompts)} prompts: expected a multiple of group_size={self.group_size}, at most "
                f"{len(self.envs)}, for which there are environments"
            )
        # TRL has given the engine the weights of this update.
        self.player.llm = trainer.vllm_generation.llm if trainer.use_vllm else None
        model = trainer.accelerator.unwrap_model(trainer.model)
        training = model.training
        model.eval()
        starts = [
            (group_seed(self.seed, int(number)), {"group": self.group_size, "slot": i % self.group_size})
            for i, number in enumerate(prompts)
        ]
        with nullcontext() if self.player.llm else merged(model) as bare:
            self.latest = self.player.play(self.envs[: len(prompts)], starts, self.group_size, model=bare)
        model.train(training)
        return {
            "prompt_ids": [rollout.prompt_ids for rollout in self.latest],
            "completion_ids": [rollout.completion_ids for rollout in self.latest],
            "logprobs": [rollout.logprobs for rollout in self.latest],
            "env_mask": [rollout.env_mask for rollout in self.latest],
            "episode_reward": [rollout.reward for rollout in self.latest],
        }


def group_seed(seed: int, group: int) -> int:
    """The seed of a group's resets: a function of the run's seed and the group's number, alike in every process."""
    return int(np.random.SeedSequence([seed, group]).generate_state(1, np.uint32)[0])
