"""The columnar learner: on the same data what RLlib's learner computes; advantages of groups; what it remembers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from columns import config, group_config

pytest.importorskip("ray")
torch = pytest.importorskip("torch")

from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner  # noqa: E402 - only where Ray is
from ray.rllib.core import DEFAULT_MODULE_ID  # noqa: E402
from ray.rllib.core.columns import Columns  # noqa: E402
from ray.rllib.core.learner.training_data import TrainingData  # noqa: E402
from ray.rllib.env.single_agent_episode import SingleAgentEpisode  # noqa: E402
from ray.rllib.evaluation.postprocessing import Postprocessing  # noqa: E402

from rlroute.agents.advantages import anchored  # noqa: E402
from rlroute.agents.rllib import learner  # noqa: E402
from rlroute.agents.rllib.rollout import Rollout  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_ray")


def episodes_of(rollout: Rollout, runner: Any) -> list[SingleAgentEpisode]:
    """The same data as RLlib's own runner would hand over: one object an episode, or part of one."""
    steps, slots = rollout.reward.shape
    after = runner._latest
    episodes = []
    for slot in range(slots):
        start = 0
        for t in range(steps):
            ended = bool(rollout.terminated[t, slot])
            if not ended and t + 1 < steps:
                continue
            span = slice(start, t + 1)
            rows = [
                {"observation": rollout.observation[k, slot], "action_mask": rollout.action_mask[k, slot]}
                for k in range(start, t + 1)
            ]
            last = rows[-1] if ended else {name: x[slot].copy() for name, x in after.items()}
            logits = torch.from_numpy(rollout.logits[span, slot])
            logp = torch.log_softmax(logits, dim=-1).numpy()
            episodes.append(
                SingleAgentEpisode(
                    observations=[*rows, last],
                    actions=list(rollout.action[span, slot]),
                    rewards=list(rollout.reward[span, slot]),
                    terminated=ended,
                    observation_space=runner.env.single_observation_space,
                    action_space=runner.env.single_action_space,
                    extra_model_outputs={
                        Columns.ACTION_DIST_INPUTS: list(logits.numpy()),
                        Columns.ACTION_LOGP: list(logp[np.arange(len(logp)), rollout.action[span, slot]]),
                    },
                    len_lookback_buffer=0,
                )
            )
            start = t + 1
    return [episode.to_numpy() for episode in episodes]


@pytest.mark.parametrize("use_kl_loss", [False, True])
def test_targets_and_gradients_equal_those_of_the_stock_learner(use_kl_loss: bool) -> None:
    built = config({"gae_lambda": 0.8, "gamma": 0.9}).training(use_kl_loss=use_kl_loss, kl_coeff=0.3, grad_clip=None)
    algorithm = built.build_algo()
    ours, runner = algorithm.learner_group._learner, algorithm.env_runner
    stock = PPOTorchLearner(config=algorithm.config, module_spec=ours._module_spec)
    stock.build()
    torch.manual_seed(1)
    with torch.no_grad():  # away from the start, where all scores are nearly equal
        for parameter in ours.module[DEFAULT_MODULE_ID].parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    stock.module[DEFAULT_MODULE_ID].load_state_dict(ours.module[DEFAULT_MODULE_ID].state_dict())
    runner.set_state({"rl_module": ours.module[DEFAULT_MODULE_ID].get_state()})
    (rollout,) = runner.sample()
    table = ours.table([rollout])
    with torch.no_grad():  # and away from the policy that acted, so that ratios and divergence are not trivial
        for parameter in ours.module[DEFAULT_MODULE_ID].parameters():
            parameter.mul_(1.1)

    batch = stock._make_batch_if_necessary(TrainingData(episodes=episodes_of(rollout, runner)))[DEFAULT_MODULE_ID]
    stock.module[DEFAULT_MODULE_ID].load_state_dict(ours.module[DEFAULT_MODULE_ID].state_dict())
    real = batch[Columns.LOSS_MASK]
    assert int(real.sum()) == len(table["action"]) < len(real)
    # Slot by slot there, step by step here.
    by_slot = torch.arange(16 * 32).reshape(16, 32).t().flatten()
    assert torch.equal(batch[Columns.OBS]["observation"][real], table["observation"][by_slot])
    torch.testing.assert_close(batch[Postprocessing.VALUE_TARGETS][real], table["target"][by_slot], atol=1e-5, rtol=0)
    # Stock standardises over its artificial rows too: an affine map of ours.
    theirs, advantages = batch[Postprocessing.ADVANTAGES][real], table["advantage"][by_slot]
    assert np.corrcoef(theirs.numpy(), advantages.numpy())[0, 1] > 1 - 1e-6
    batch[Postprocessing.ADVANTAGES][real] = advantages

    minibatch = {DEFAULT_MODULE_ID: batch}
    losses = stock.compute_losses(fwd_out=stock.module.forward_train(minibatch), batch=minibatch)
    expected = [gradient.clone() for gradient in stock.compute_gradients(losses).values()]
    loss, parts = ours.loss(table)
    loss.backward()
    found = [parameter.grad for parameter in ours._params.values()]
    assert float(loss) == pytest.approx(float(losses[DEFAULT_MODULE_ID]), abs=1e-6)
    assert ("mean_kl_loss" in parts) == use_kl_loss
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-3
    for ours_, theirs_ in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, atol=1e-6, rtol=0)
    algorithm.stop()


def test_pieces_of_a_minibatch_add_up_to_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = config().training(grad_clip=None).build_algo()
    ours = algorithm.learner_group._learner
    table = ours.table(algorithm.env_runner.sample())
    weights = {name: x.clone() for name, x in ours.module[DEFAULT_MODULE_ID].state_dict().items()}
    sizes, found, loss = [], [], ours.loss

    def watched(rows: Any) -> Any:
        sizes.append(len(rows["action"]))
        return loss(rows)

    monkeypatch.setattr(ours, "loss", watched)
    for piece in (10**9, 64 * 150):  # 4 choices × layers of 16
        monkeypatch.setattr(learner, "PIECE", piece)
        ours.module[DEFAULT_MODULE_ID].load_state_dict(weights)
        parts = ours.descend(table)
        found.append((parts, [parameter.grad.clone() for parameter in ours._params.values()]))
    assert sizes == [512, 128, 128, 128, 128]
    torch.testing.assert_close(*(parts for parts, _ in found), atol=1e-6, rtol=0)
    torch.testing.assert_close(*(gradients for _, gradients in found), atol=1e-6, rtol=0)
    algorithm.stop()


def test_every_row_is_used_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = config({"minibatch": 200, "epochs": 2}).build_algo()
    ours, seen = algorithm.learner_group._learner, []
    descend = ours.descend

    def watched(rows: Any) -> Any:
        seen.append(rows["observation"].clone())
        return descend(rows)

    monkeypatch.setattr(ours, "descend", watched)
    (rollout,) = algorithm.env_runner.sample()
    ours.update(training_data=TrainingData(batches=[[rollout]]), num_epochs=2, minibatch_size=200)
    assert sorted(len(rows) for rows in seen) == [170, 170, 171, 171, 171, 171]
    for epoch in (seen[:3], seen[3:]):
        rows = torch.cat(epoch)[:, 1].sort().values
        torch.testing.assert_close(rows, torch.from_numpy(rollout.rows(rollout.observation)[:, 1]).sort().values)
    assert not torch.equal(seen[0], seen[3])
    algorithm.stop()


def test_every_decision_of_an_episode_has_the_advantage_of_the_episode() -> None:
    algorithm = group_config().build_algo()
    (rollout,) = algorithm.env_runner.sample()
    learner = algorithm.learner_group._learner
    returns = rollout.reward.sum(axis=0).reshape(4, 8)
    expected = (returns - returns.mean(axis=1, keepdims=True)).reshape(-1)
    table = learner.table([rollout])
    np.testing.assert_allclose(table["advantage"].numpy(), np.tile(expected, 3), atol=1e-5)
    assert "target" not in table
    _, parts = learner.loss(table)
    assert "vf_loss" not in parts
    algorithm.stop()


@pytest.mark.parametrize("piece", [2**20, 5000])
def test_a_situation_of_many_decisions_counts_once_for_each(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlroute.agents.rllib import grpo

    arguments = grpo.GRPOArguments(num_envs=64, group_size=8, minibatch=64, hidden=16, text_noise=0.0)
    built = grpo.build_config("rlroute:rlroute/BudgetRoute-v0", {}, arguments).training(grad_clip=None)
    algorithm = built.build_algo()
    ours = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    table = ours.table([rollout])
    seen = {name: torch.from_numpy(rollout.rows(getattr(rollout, name))) for name in ("observation", "action_mask")}
    assert len(table["observation"]) < 0.8 * len(seen["observation"])
    for name, column in seen.items():
        assert torch.equal(table[name].index_select(0, table["situation"]), column)

    every_row = {name: column for name, column in table.items() if name != "situation"} | seen
    loss, parts = ours.loss(every_row)
    loss.backward()
    learned = [parameter for parameter in ours._params.values() if parameter.grad is not None]  # all but the critic's
    expected = [parameter.grad.clone() for parameter in learned]
    monkeypatch.setattr(learner, "PIECE", piece)
    found = ours.descend(table)
    torch.testing.assert_close(found, {name: part.detach() for name, part in parts.items()}, atol=1e-6, rtol=0)
    torch.testing.assert_close([parameter.grad for parameter in learned], expected, atol=1e-6, rtol=0)
    assert len(learned) == len(ours._params) - 4
    algorithm.stop()


def shape(episodes: Any, bonus: float = 0.0) -> tuple[Any, tuple[Any, ...]]:
    """Success less a little cost, beside two anchors a group of four."""
    returns = episodes.success - 0.1 * episodes.expensive_calls + bonus
    groups = len(returns) // 4
    return returns, (np.zeros(groups), np.ones(groups))


def test_shaping_replaces_rewards_by_what_it_makes_of_the_episodes() -> None:
    from rlroute.agents.rllib import grpo

    arguments = grpo.GRPOArguments(num_envs=32, group_size=4, minibatch=64, hidden=16, text_noise=0.0)
    built = grpo.group_config("rlroute:rlroute/BudgetRoute-v0", {}, arguments, 0, anchored, partial(shape, bonus=0.5))
    algorithm = built.build_algo()
    (rollout,) = algorithm.env_runner.sample()
    learner = algorithm.learner_group._learner
    table = learner.table([rollout])
    returns, anchors = shape(rollout.episodes, bonus=0.5)
    advantage = anchored(returns.reshape(8, 4), anchors).reshape(-1)
    slots = np.broadcast_to(np.arange(32), rollout.playing.shape)[rollout.playing]
    np.testing.assert_allclose(table["advantage"].numpy(), advantage[slots], atol=1e-5)
    results = algorithm.train()["learners"]["default_policy"]
    assert 0 <= results["groups_without_variance"] <= 1
    assert -1 < results["shaped_return_mean"] < 1.5
    algorithm.stop()


def test_schedules_and_the_adaptive_kl_coefficient_survive_a_checkpoint(tmp_path: Any) -> None:
    def build(**knobs: Any) -> Any:
        return config().training(use_kl_loss=True, kl_coeff=0.2, kl_target=1e-9).build_algo()

    first = build()
    for _ in range(3):
        first.train()
    learner = first.learner_group._learner
    kl = float(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])
    entropy = float(learner.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value())
    rate = learner.get_optimizer().param_groups[0]["lr"]
    assert kl == pytest.approx(0.2 * 1.5**3)
    assert entropy == pytest.approx(0.01 * (1 - 3 * 512 / 3000))
    path = first.save_to_path(tmp_path / "checkpoint")
    first.stop()

    for other in (build(), type(first).from_checkpoint(path)):
        other.restore_from_path(path)
        learner = other.learner_group._learner
        assert float(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) == pytest.approx(kl)
        coefficient = learner.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value()
        assert float(coefficient) == pytest.approx(entropy)
        assert learner.get_optimizer().param_groups[0]["lr"] == pytest.approx(rate)
        other.stop()


def test_a_checkpoint_of_another_layout_is_refused_by_name(tmp_path: Any) -> None:
    first = config(num_choices=5).build_algo()
    path = first.save_to_path(tmp_path / "checkpoint")
    first.stop()
    other = config(num_choices=4).build_algo()
    with pytest.raises(ValueError, match="observation's num_choices is 4, but the network was made for 5"):
        other.restore_from_path(path)
    other.stop()


def test_training_stops_where_the_loss_is_no_number() -> None:
    algorithm = config().build_algo()
    learner = algorithm.learner_group._learner
    with torch.no_grad():
        learner.module[DEFAULT_MODULE_ID].value_head[2].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss is nan, expected a finite number"):
        algorithm.train()
    algorithm.stop()
