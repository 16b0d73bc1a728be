"""RLlib's PPO and its configuration, with columns from runner to learner."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import ray
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.tune import Trainable

from rlroute.agents.rllib.checks import refuse_too_few_resources, refuse_unsupported
from rlroute.agents.rllib.learner import ColumnarLearner
from rlroute.agents.rllib.rollout import Rollout
from rlroute.agents.rllib.runner import ColumnarEnvRunner, difference
from rlroute.layout import Layout

ROLLOUT = "rollout"  # tag of the requests to remote runners
LAYOUT_FILE = "layout.json"  # in a checkpoint
PATIENCE_S = 180.0  # how long no runner may answer before training gives up


class ColumnarConfig(PPOConfig):
    """RLlib's `PPOConfig` for `ColumnarPPO`; what that would silently ignore is refused by `validate`."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or ColumnarPPO)
        self.env_runners(
            env_runner_cls=ColumnarEnvRunner, num_env_runners=0, gym_env_vectorize_mode="vector_entry_point"
        )
        self.group_size = 0
        self.estimator: Callable[..., Any] | None = None
        self.shaping: Callable[..., Any] | None = None
        self.overlap = False

    def training(
        self,
        *,
        group_size: int = NotProvided,
        estimator: Callable[..., Any] = NotProvided,
        shaping: Callable[..., Any] | None = NotProvided,
        overlap: bool = NotProvided,
        **knobs: Any,
    ) -> Self:
        """RLlib's, and four settings more.

        `group_size` K > 0: rollouts are waves of episodes, K slots a task, and no critic learns. `estimator` then
        makes advantages (G, K) from returns (G, K) and anchors, a tuple of arrays (G,): see
        `rlroute.agents.advantages`. `shaping`, where given, makes returns (N,) and that tuple from the
        `rlroute.rollout.Episodes` of a wave, instead of the sums of rewards and none; it travels to the learner, so
        it must be picklable. `overlap`: remote runners make the next rollout while the learner works, with the
        weights of one update ago.
        """
        super().training(**knobs)
        given = {"group_size": group_size, "estimator": estimator, "shaping": shaping, "overlap": overlap}
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def get_default_learner_class(self) -> type:
        return ColumnarLearner

    def validate(self) -> None:
        super().validate()
        refuse_unsupported(self)


class ColumnarPPO(PPO):
    """RLlib's PPO on columns: only the way from runner to learner differs, and two faults of restoring are mended."""

    @classmethod
    def get_default_config(cls) -> ColumnarConfig:
        return ColumnarConfig()

    def setup(self, config: Any) -> None:
        refuse_too_few_resources(self.config)
        super().setup(config)

    def training_step(self) -> None:
        began = time.perf_counter()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, results = self._rollouts()
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        sampled = time.perf_counter()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learner_results = self.learner_group.update(
                training_data=TrainingData(batches=[rollouts]),
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(
                        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
                    )
                },
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
            )
            self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)
        learned = time.perf_counter()
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self._weights = self._learned()
            if self.env_runner is not None:
                self.env_runner.set_state(self._weights)
        self.metrics.log_value("sampling_s", sampled - began, reduce="sum")
        self.metrics.log_value("weight_sync_s", time.perf_counter() - learned, reduce="sum")

    def _rollouts(self) -> tuple[list[Rollout], list[Any]]:
        """One rollout of every runner, and its metrics.

        Weights travel with the request. With `overlap` the next request leaves before the learner starts on these.
        """
        group = self.env_runner_group
        if not group.num_remote_env_runners():
            return self.env_runner.sample(), [self.env_runner.get_metrics()]
        began, answers = time.monotonic(), list[Any]()
        while not answers:
            if not group.num_in_flight_async_reqs(ROLLOUT):
                self._request()
            ready = group.fetch_ready_async_reqs(tags=ROLLOUT, timeout_seconds=self.config.sample_timeout_s)
            answers = [answer for _, answer in ready]
            if not answers:
                if time.monotonic() - began > PATIENCE_S:
                    raise RuntimeError(f"none of {self.config.num_env_runners} runners answered for {PATIENCE_S:.0f} s")
                time.sleep(0.1)
                self.restore_env_runners(group)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        if self.config.overlap:
            self._request()
        return [rollout for rollout, _ in answers], [metrics for _, metrics in answers]

    def _request(self) -> None:
        if self._weights is None:
            self._weights = self._learned()
        self.env_runner_group.foreach_env_runner_async(
            sample_with, tag=ROLLOUT, kwargs={"weights": ray.put(self._weights)}
        )

    def _learned(self) -> dict[str, Any]:
        """The learner's weights, as a state that a runner takes whatever it holds."""
        state = self.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )
        return {COMPONENT_RL_MODULE: state[COMPONENT_LEARNER][COMPONENT_RL_MODULE]}

    _weights: dict[str, Any] | None = None  # of the learner after its last update

    def save_to_path(self, path: Any = None, **kwargs: Any) -> Any:
        """RLlib's, and beside it what an observation looked like."""
        path = super().save_to_path(path, **kwargs)
        if Path(path).is_dir():  # not on a remote file system
            (Path(path) / LAYOUT_FILE).write_text(json.dumps(self._layout()))
        return path

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """RLlib's, and then every runner holds the restored weights before this returns."""
        file, ours = Path(path) / LAYOUT_FILE, Layout.from_dict(self._layout())
        if file.is_file() and (saved := Layout.from_dict(json.loads(file.read_text()))) != ours:
            raise ValueError(f"{path}: {difference(ours, saved)}")
        super().restore_from_path(path, *args, **kwargs)
        self._weights = self._learned()
        self.env_runner_group.fetch_ready_async_reqs(  # what other weights were asked for is not wanted any more
            tags=ROLLOUT, timeout_seconds=self.config.sample_timeout_s
        )
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                if group.local_env_runner is not None:
                    group.local_env_runner.set_state(self._weights)
                group.foreach_env_runner("set_state", kwargs={"state": self._weights}, local_env_runner=False)

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Trainable's, with the configuration that RLlib would copy in depth for every result."""
        if self._config_shown is None:
            self._config_shown = self.config.to_dict()
        return Trainable.get_auto_filled_metrics(self, *args, **kwargs) | {"config": self._config_shown}

    _config_shown: dict[str, Any] | None = None  # settings are frozen once an algorithm is built

    def _layout(self) -> dict[str, Any]:
        return self.get_module().model_config["layout"]


def sample_with(runner: Any, weights: dict[str, Any]) -> Any:
    """On a remote runner: a rollout of these weights and its metrics; or what is wrong, which no restart would mend."""
    runner.set_state(weights)
    try:
        (rollout,) = runner.sample()
    except ValueError as error:
        return error
    return rollout, runner.get_metrics()
