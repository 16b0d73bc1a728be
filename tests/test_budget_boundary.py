"""Boundary runs, taxonomy, rewards and anchors of BoPO, and the demonstrations of its supervised start."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from invented import task_log
from logs import make_log, response, walk_log
from numpy.testing import assert_allclose, assert_array_equal

from rlroute.cache import cache_root
from rlroute.envs.budget_route import boundary
from rlroute.envs.budget_route.anchors import Anchors, Kind, RewardArguments, normalised
from rlroute.envs.budget_route.boundary import BoundaryRuns, RunArguments, boundary_runs, runs_env
from rlroute.envs.budget_route.demonstrations import demonstrated_run, labels
from rlroute.log import Log

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]
SMALL, LARGE = 0, 1
KINDS = ("easy", "hard", "hopeless")


def three_kinds() -> Log:
    """Tasks of two steps: small wins the easy one, the hard one needs large at its last step, nobody wins the hopeless.

    One task of each kind in train, in this order, and one easy one each in val and test.
    """
    states, responses = [], []
    for name, split in (*((kind, "train") for kind in KINDS), ("easy/val", "val"), ("easy/test", "test")):
        common = {"task_id": name, "group_id": name, "split": split}
        for step in range(2):
            states.append(common | {"state_id": f"{name}/{step}", "step": step, "text": f"{name}, step {step}"})
        for end in ("won", "lost"):
            states.append(
                common
                | {"state_id": f"{name}/{end}", "step": 2, "text": end, "terminal": True, "success": end == "won"}
            )
        for choice in ("small", "large"):
            wins = name.startswith("easy") or (name == "hard" and choice == "large")
            responses.append(response(f"{name}/0", choice, None, None, next_state_id=f"{name}/1"))
            end = f"{name}/{'won' if wins else 'lost'}"
            responses.append(response(f"{name}/1", choice, None, None, next_state_id=end))
    return make_log(states, responses)


def with_luck(tasks: int = 60) -> Log:
    """Tasks of five steps with three attempts in every cell, which often lead to different ends."""
    logs = [task_log(tasks, seed=seed) for seed in range(3)]
    rows = [row | {"attempt": k} for k, log in enumerate(logs) for row in log.responses.to_pylist()]
    return make_log(logs[0].states.to_pylist(), rows, logs[0].choices.to_pylist())


def given(log: Log, **more: Any) -> dict[str, Any]:
    return {"log": log, "featuriser": "letters", "budget_calls": (0, 2), **more}


@pytest.fixture
def runs() -> BoundaryRuns:
    return boundary_runs(given(three_kinds()))


# -- runs ------------------------------------------------------------------------------------------


def test_every_cap_of_a_range_is_run_and_none_beside(runs: BoundaryRuns) -> None:
    assert_array_equal(runs.caps, [0, 1, 2, np.inf])
    assert runs.success.shape == (4, 3, 22)
    assert_array_equal(boundary_runs({"log": three_kinds(), "featuriser": "letters"}).caps, [np.inf])


def test_always_small_calls_no_expensive_choice_and_always_large_is_first_large_under_a_cap(runs: BoundaryRuns) -> None:
    assert not runs.calls[..., runs.small].any()
    assert (runs.actions[..., runs.small, :] == SMALL).all()
    assert_array_equal(runs.calls[..., runs.large], np.broadcast_to([[[0]], [[1]], [[2]], [[2]]], (4, 3, 5)))
    assert (runs.actions[1, :, runs.large] == [LARGE, SMALL]).all()


def test_no_run_exceeds_its_cap(runs: BoundaryRuns) -> None:
    assert (runs.calls <= runs.caps[:, None, None]).all()
    assert_array_equal(runs.calls, (runs.actions == LARGE).sum(axis=-1))


def test_runs_between_call_large_as_often_as_they_say() -> None:
    arguments = RunArguments(boundary_runs=1, rollouts=4)
    runs = boundary_runs({"log": task_log(150), "featuriser": "letters"}, arguments)
    acted = runs.actions[0, :, 2:] >= 0
    share = (runs.actions[0, :, 2:] == LARGE).sum(axis=(0, 2)) / acted.sum(axis=(0, 2))
    assert_allclose(share, [0.25, 0.5, 0.75, 1.0], atol=0.06)
    assert_allclose(arguments.p_large, [0, 1, 0.25, 0.5, 0.75, 1])


def test_runs_are_read_from_the_cache_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(cache_root() / "boundary", ignore_errors=True)
    first = boundary_runs(given(three_kinds()))
    monkeypatch.setattr(boundary, "_play", lambda *_: pytest.fail("recorded again"))
    again = boundary_runs(given(three_kinds(), preference=(0.1, 1.0)))  # which no run depends on
    assert_array_equal(first.actions, again.actions)
    assert_array_equal(first.cost_usd, again.cost_usd)
    with pytest.raises(pytest.fail.Exception):
        boundary_runs(given(three_kinds()), RunArguments(seed=1))
    with pytest.raises(pytest.fail.Exception):
        boundary_runs(given(walk_log()))


def test_a_cap_in_usd_and_no_runs_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"budget_usd=1\.0.*expected None"):
        boundary_runs(given(three_kinds(), budget_usd=1.0))
    with pytest.raises(ValueError, match=r"rollouts=0: expected at least 1"):
        RunArguments(rollouts=0)


# -- taxonomy, rewards and anchors -----------------------------------------------------------------


def test_tasks_are_easy_hard_or_intractable_under_each_cap(runs: BoundaryRuns) -> None:
    kind = Anchors(runs).kind
    assert (kind[:, 0] == Kind.EASY).all()
    assert_array_equal(kind[:, 1], [Kind.INTRACTABLE, Kind.HARD, Kind.HARD, Kind.HARD])
    assert (kind[:, 2] == Kind.INTRACTABLE).all()


@pytest.mark.parametrize(("successes", "kind"), [(3, Kind.EASY), (2, Kind.HARD), (0, Kind.INTRACTABLE)])
def test_easy_is_a_majority_of_the_small_runs(runs: BoundaryRuns, successes: int, kind: Kind) -> None:
    success = np.zeros_like(runs.success)
    success[..., :successes] = True
    changed = BoundaryRuns(
        runs.caps, runs.tasks, success, runs.calls, runs.cost_usd, runs.actions, runs.arguments
    )  # fmt: skip
    assert (Anchors(changed).kind == kind).all()


def test_the_expert_of_a_hard_task_is_its_cheapest_success(runs: BoundaryRuns) -> None:
    anchors = Anchors(runs)
    assert not runs.success[1, 1, runs.large].any()  # First-Large spends the only call too early
    for level in (1, 2, 3):
        expert = anchors.expert[level, 1]
        assert runs.success[level, 1, expert]
        assert runs.calls[level, 1, expert] == runs.calls[level, 1][runs.success[level, 1]].min() == 1
    assert (anchors.expert[:, 2] == -1).all()


def test_cost_is_normalised_between_the_boundary_policies_and_clipped() -> None:
    values = normalised(np.array([0.0, 1.0, 2.0, 3.0, 9.0]), np.full(5, 1.0), np.full(5, 3.0))
    assert_allclose(values, [0, 0, 0.5, 1, 1], atol=1e-6)
    assert_array_equal(normalised(np.zeros(1), np.zeros(1), np.zeros(1)), [0.0])


def test_rewards_count_success_the_bonus_of_hard_tasks_and_cost(runs: BoundaryRuns) -> None:
    anchors = Anchors(runs, RewardArguments(bonus=0.5))
    easy, hard, hopeless = (runs.tasks[k] for k in range(3))
    scores = anchors.score(
        [easy, easy, hard, hard, hopeless], [2, 1, 2, np.inf, 2], 0.4, [1, 1, 1, 0, 0], [1, 1, 1, 2, 1]
    )
    assert_allclose(scores.returns, [1 - 0.4 / 2, 1 - 0.4, 1.5 - 0.4 / 2, -0.4, -0.4 / 2], atol=1e-6)
    assert_array_equal(scores.kind, [Kind.EASY, Kind.EASY, Kind.HARD, Kind.HARD, Kind.INTRACTABLE])
    # R_S: small wins Easy at no cost and fails elsewhere. R_E: First-Large; on Hard the one call that was needed.
    assert_allclose(scores.r_small, [1, 1, 0, 0, 0], atol=1e-6)
    assert_allclose(scores.r_expert, [1 - 0.4, 1 - 0.4, 1.5 - 0.4 / 2, 1.5 - 0.4 / 2, -0.4], atol=1e-6)


def test_without_the_difficulty_bonus_a_success_is_a_success(runs: BoundaryRuns) -> None:
    scores = Anchors(runs, RewardArguments(bonus=0.0)).score(runs.tasks[:2], 2, 0.0, [1, 1], [0, 1])
    assert_array_equal(scores.returns, [1, 1])


def test_the_weight_of_cost_is_the_episodes_own_or_a_constant(runs: BoundaryRuns) -> None:
    task = np.repeat(runs.tasks[1], 2)
    own = Anchors(runs).score(task, 2, [0.1, 0.7], [0, 0], [2, 2])
    assert_allclose(own.returns, [-0.1, -0.7], atol=1e-6)
    constant = Anchors(runs, RewardArguments(cost_weight=0.3)).score(task, 2, [0.1, 0.7], [0, 0], [2, 2])
    assert_allclose(constant.returns, [-0.3, -0.3], atol=1e-6)
    assert_allclose(constant.r_expert, [1.5 - 0.15] * 2, atol=1e-6)


def test_cost_may_be_counted_in_usd(runs: BoundaryRuns) -> None:
    anchors = Anchors(runs, RewardArguments(cost="usd"))
    small, large = (runs.cost_usd[3, 0, part].mean() for part in (runs.small, runs.large))
    assert_allclose([anchors.c_min[3, 0], anchors.c_max[3, 0]], [small, large])
    middle = anchors.score(runs.tasks[:1], np.inf, 1.0, [0], [(small + large) / 2])
    assert_allclose(middle.returns, [-0.5], atol=1e-3)


def test_tasks_and_caps_without_runs_and_impossible_knobs_are_refused(runs: BoundaryRuns) -> None:
    anchors = Anchors(runs)
    with pytest.raises(ValueError, match=r"task row 17 has no boundary runs: expected one of 0, 4, 8"):
        anchors.score([17], 1, 0.1, [0], [0])
    with pytest.raises(ValueError, match=r"budget_calls 3 has no boundary runs: expected one of 0, 1, 2, inf"):
        anchors.score(runs.tasks[:1], [3], 0.1, [0], [0])
    with pytest.raises(ValueError, match=r"cost='tokens': expected one of 'calls', 'usd'"):
        RewardArguments(cost="tokens")
    with pytest.raises(ValueError, match=r"cost_weight=1\.5: expected None or a number in \[0, 1 \+ bonus = 1\.5\)"):
        RewardArguments(cost_weight=1.5)


# -- demonstrations --------------------------------------------------------------------------------


def test_labels_fail_cheaply_and_copy_the_expert_on_hard_tasks(runs: BoundaryRuns) -> None:
    anchors = Anchors(runs)
    shown = labels(anchors, given(three_kinds()))
    # Under caps of 0, 1 and 2 calls, two decisions of each of three tasks; large once where the hard one can be won.
    assert len(shown.action) == 3 * 3 * 2
    assert shown.action.sum() == 2
    assert (shown.action_mask[np.arange(len(shown.action)), shown.action] == 1).all()
    layout = runs_env(given(three_kinds()), 1, 1).layout.slices()
    assert (shown.observation[shown.action == LARGE][:, layout["step"]] > 0.4).all()
    assert_allclose(np.unique(shown.observation[:, layout["calls_left"]]), np.log2([1, 2, 3]) / 4)


def test_demonstrations_replay_the_recorded_runs_draw_by_draw() -> None:
    log = with_luck()
    env_arguments = given(log, budget_calls=2, preference=(0.1, 1.0))
    runs = boundary_runs(env_arguments)
    run = demonstrated_run(Anchors(runs), 0)
    env = runs_env(env_arguments, len(run), 2)
    at = np.arange(len(run))

    def ends(slots: np.ndarray) -> np.ndarray:
        env.reset(seed=runs.arguments.seed, options={"task": runs.tasks, "slot": slots})
        for step in range(runs.actions.shape[-1]):
            env.step(np.maximum(runs.actions[0, at, run, step], 0))
        return np.array(env.dynamics.totals.quality > 0.5)

    assert_array_equal(ends(runs.slots(at, run)), runs.success[0, at, run])
    assert (ends(at) != runs.success[0, at, run]).any()  # the same actions, other responses


def test_demonstrations_show_a_range_of_preferences() -> None:
    env_arguments = given(task_log(60), preference=(0.05, 1.0))
    shown = labels(Anchors(boundary_runs(env_arguments)), env_arguments)
    layout = runs_env(env_arguments, 1, 1).layout.slices()
    assert len(np.unique(shown.observation[:, layout["cost_weight"]])) > 30
