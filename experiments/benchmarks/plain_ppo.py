"""PPO by hand: one vector environment, one network, one loop, no RLlib. What the columnar path is measured against.

python experiments/benchmarks/plain_ppo.py rlroute:rlroute/BudgetRoute-v0
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch.nn.functional import mse_loss

from rlroute.agents.advantages import gae
from rlroute.agents.rllib.module import RouterModule
from rlroute.agents.rllib.ppo import PPOArguments


def train_plain(env_id: str, env_arguments: Mapping[str, Any], arguments: PPOArguments) -> dict[str, float]:
    """Train for `total_steps`; decisions a second after the first update, and the mean return at the end.

    Seconds are of processor time, so that a busy machine does not decide.
    Of the arguments it knows those of the algorithm and of the network; text noise and starting weights it does not.
    """
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    steps, slots = arguments.rollout_length, arguments.num_envs
    env: Any = gym.make_vec(
        env_id,
        num_envs=slots,
        vectorization_mode="vector_entry_point",
        **{**env_arguments, "mask_in_obs": True, "autoreset": "same_step"},
    )
    layout = env.unwrapped.layout
    network = RouterModule(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        model_config={"layout": layout.to_dict(), "hidden": arguments.hidden},
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=arguments.learning_rate, fused=True)
    observation = torch.empty(steps, slots, layout.size)
    mask = torch.empty(steps, slots, layout.num_actions, dtype=torch.int8)
    action = torch.empty(steps, slots, dtype=torch.int64)
    logp, value = torch.empty(steps, slots), torch.empty(steps, slots)
    reward, final_value = np.zeros((steps, slots), np.float32), np.zeros((steps, slots), np.float32)
    terminated, truncated = np.zeros((steps, slots), bool), np.zeros((steps, slots), bool)

    def estimate(flat: np.ndarray) -> torch.Tensor:
        return network.compute_values({"obs": {"observation": torch.from_numpy(flat)}})

    latest, _ = env.reset(seed=arguments.seed)
    running, returns, history = np.zeros(slots), list[float](), list[float]()
    done, began, began_at = 0, time.process_time(), 0
    while done < arguments.total_steps:
        with torch.no_grad():
            for t in range(steps):
                observation[t] = torch.from_numpy(latest["observation"])
                mask[t] = torch.from_numpy(latest["action_mask"])
                out = network._forward({"obs": {"observation": observation[t], "action_mask": mask[t]}})
                log_probabilities = torch.log_softmax(out["action_dist_inputs"], dim=-1)
                times = torch.empty_like(log_probabilities).exponential_()
                action[t] = (log_probabilities.exp() / times).argmax(dim=-1)
                logp[t] = log_probabilities.gather(1, action[t][:, None]).squeeze(1)
                value[t] = network.compute_values({}, embeddings=out["embeddings"])
                latest, reward[t], terminated[t], truncated[t], info = env.step(action[t].numpy())
                if truncated[t].any():
                    final_value[t, truncated[t]] = estimate(info["final_obs"]["observation"][truncated[t]])
                running += reward[t]
                ended = terminated[t] | truncated[t]
                returns.extend(running[ended])
                running[ended] = 0
            last = estimate(latest["observation"]).numpy()
            advantage = torch.from_numpy(
                gae(
                    reward, value.numpy(), last, terminated, truncated, final_value,
                    arguments.gamma, arguments.gae_lambda,
                )
            )  # fmt: skip
        target = (advantage + value).flatten()
        advantage = ((advantage - advantage.mean()) / advantage.std().clamp(min=1e-4)).flatten()
        columns = (observation.flatten(0, 1), mask.flatten(0, 1), action.flatten(), logp.flatten(), advantage, target)

        share = done / arguments.total_steps
        entropy_weight = arguments.entropy + share * (arguments.entropy_end - arguments.entropy)
        optimiser.param_groups[0]["lr"] = arguments.learning_rate * (1 - share if arguments.anneal else 1)
        rows = steps * slots
        for _ in range(arguments.epochs):
            for chosen in torch.randperm(rows).tensor_split(max(1, round(rows / arguments.minibatch))):
                seen, legal, taken, old, gain, aim = (column[chosen] for column in columns)
                out = network._forward({"obs": {"observation": seen, "action_mask": legal}})
                log_probabilities = torch.log_softmax(out["action_dist_inputs"], dim=-1)
                ratio = (log_probabilities.gather(1, taken[:, None]).squeeze(1) - old).exp()
                surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - arguments.clip, 1 + arguments.clip)).mean()
                entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()
                critic = mse_loss(network.compute_values({}, embeddings=out["embeddings"]), aim)
                loss = -surrogate - entropy_weight * entropy + arguments.value_weight * critic
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), arguments.max_grad_norm)
                optimiser.step()
        if returns:
            history.append(float(np.mean(returns)))
            returns.clear()
        if not done:  # the first update warms everything up
            began, began_at = time.process_time(), rows
        done += rows
    seconds = max(time.process_time() - began, 1e-9)
    return {"decisions_per_second": (done - began_at) / seconds, "mean_return": float(np.mean(history[-3:]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()
    print(train_plain(options.env, {}, PPOArguments(total_steps=options.steps, num_envs=1024)))


if __name__ == "__main__":
    main()
