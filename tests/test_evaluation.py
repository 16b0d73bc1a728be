"""Tuning, common random numbers, comparisons, frontiers, and the files that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import partial_log, question_log, task_log

from rlroute import metrics, report
from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.budget_route.references import FirstLarge, RandomMix
from rlroute.envs.think_route.env import ThinkRouteVectorEnv
from rlroute.evaluation import (
    Evaluation,
    Score,
    Setting,
    compare,
    evaluate,
    gap_closed,
    tune,
)
from rlroute.frontier import frontier
from rlroute.log import Log
from rlroute.ope import Estimate, first_call_value
from rlroute.plots import plot_frontier
from rlroute.policies import AlwaysChoice, Policy, RandomPolicy
from rlroute.study import Study, study

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]
WEIGHTS = [Setting.weight(w) for w in (0.01, 0.2, 2.0)]


def make_env(split: str, **arguments: Any) -> ThinkRouteVectorEnv:
    return ThinkRouteVectorEnv(
        32,
        autoreset="disabled",
        log=question_log(),
        split=split,
        featuriser="letters",
        obs="index",
        **arguments,
    )


def make_budget_env(split: str, **arguments: Any) -> BudgetRouteVectorEnv:
    return BudgetRouteVectorEnv(
        32, autoreset="disabled", log=task_log(), split=split, featuriser="letters", obs="index", **arguments
    )


def weighted_study() -> Study:
    references: dict[str, list[Policy]] = {
        "best single": [AlwaysChoice(c) for c in range(3)],
        "random": [RandomPolicy()],
    }
    return study(make_env, WEIGHTS, references, {"trained": AlwaysChoice(1, "middle")}, episodes=1, val_episodes=1)


def test_tuning_takes_the_best_candidate_on_val_at_each_weight_on_its_own() -> None:
    tuned = tune(make_env, WEIGHTS, {"single": [AlwaysChoice(c) for c in range(3)]})["single"]
    val = evaluate(make_env, WEIGHTS, {str(c): AlwaysChoice(c) for c in range(3)}, "val", seed=1)
    for i, chosen in enumerate(tuned):
        rewards = [val.rewards(str(c))[i] for c in range(3)]
        assert chosen.policy.choice == int(np.argmax(rewards))  # type: ignore[attr-defined]
        assert chosen.reward == pytest.approx(max(rewards))
    assert len({t.policy.choice for t in tuned}) > 1  # type: ignore[attr-defined]


def test_a_policy_that_does_not_read_weights_is_played_once_and_scored_as_if_at_each() -> None:
    class Counted(AlwaysChoice):
        begun = 0

        def begin(self, env: Any) -> None:
            Counted.begun += 1
            super().begin(env)

    class Reader(AlwaysChoice):
        reads_terms = True

    once = evaluate(make_env, WEIGHTS, {"p": Counted(2)})
    each = evaluate(make_env, WEIGHTS, {"p": Reader(2)})
    assert Counted.begun == 1
    assert np.allclose(once.rewards("p"), each.rewards("p"))


def test_caps_are_never_shared_between_settings() -> None:
    caps = [Setting.calls(0), Setting.calls(3)]
    large = evaluate(make_budget_env, caps, {"large": FirstLarge(0, 1)})
    used = [s.expensive_calls.mean() for s in large.scores["large"] if s.expensive_calls is not None]
    assert used[0] == 0
    assert used[1] > 1


def test_policies_meet_common_random_numbers() -> None:
    twice = evaluate(make_env, WEIGHTS[:1], {"a": AlwaysChoice(1), "b": AlwaysChoice(1)}, episodes=3)
    assert twice.compare("a", "b")[0].verdict == "tie"
    assert twice.compare("a", "b")[0].low == twice.compare("a", "b")[0].high == 0


def test_several_seeds_count_as_more_pairs_of_the_same_groups() -> None:
    runs = [
        evaluate(make_env, WEIGHTS[:1], {"dear": AlwaysChoice(2), "cheap": AlwaysChoice(0)}, seed=s) for s in (0, 1)
    ]
    verdict = compare(runs, "dear", "cheap")[0]
    assert verdict.groups == runs[0].compare("dear", "cheap")[0].groups
    assert verdict.verdict == "beats"


def test_policies_of_different_groups_are_not_compared() -> None:
    evaluation = evaluate(make_env, WEIGHTS[:1], {"a": AlwaysChoice(0)})
    score = evaluation.scores["a"][0]
    evaluation.add("b", "reference", [Score(score.group + 1, score.quality, score.cost_usd, score.reward)])
    with pytest.raises(ValueError, match="same groups"):
        evaluation.compare("a", "b")


def test_results_carry_the_promised_fields_and_budgets_their_own() -> None:
    weighted = evaluate(make_env, WEIGHTS, {"a": AlwaysChoice(0)}).results()
    assert len(weighted) == 3
    for key in ("family", "log", "split", "policy", "quality", "cost_usd", "reward", "ci95"):
        assert key in weighted[0].to_dict()
    capped = evaluate(make_budget_env, [Setting.calls(2)], {"a": RandomMix(0, 1, 0.5)}).results()[0].to_dict()
    assert capped["violation_rate"] == 0
    assert capped["budget_calls"] == 2
    assert 0 < capped["success"] < 1
    assert capped["ci95"][0] <= capped["reward"] <= capped["ci95"][1]


def test_the_best_mix_costs_what_it_was_given_and_is_chosen_on_val() -> None:
    outcome = weighted_study()
    test = outcome.test
    trained_cost = test.points("trained")[0]
    mix_cost, mix_quality = test.points("best mix")
    assert mix_cost == pytest.approx(trained_cost, rel=0.01)  # costs here are the same on val and on test
    singles = ["cheap", "middle", "dear"]
    val = np.array([[x[0] for x in outcome.val.points(s)] for s in singles])
    vertices = set(metrics.upper_hull(val[:, 0], val[:, 1]).tolist())
    assert all(any(singles[v] in detail for v in vertices) for detail in test.details["best mix"])
    assert (mix_quality > 0.3).all()


def test_frontier_vertices_come_from_val_even_where_test_would_choose_others() -> None:
    val = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.4, 0.9])
    test = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.95, 0.8])
    singles = np.array([1.0, 3.0]), np.array([0.5, 0.7])
    found = frontier("x", val, test, singles, best=1)
    assert found.cost_usd.tolist() == [1.0, 3.0]
    assert found.quality.tolist() == [0.5, 0.8]
    assert found.quality_gain == pytest.approx(0.1)
    assert found.cost_to_match == pytest.approx((1 + 2 * 0.2 / 0.3) / 3)


def test_share_of_the_gap_is_zero_at_the_floor_and_one_at_the_ceiling() -> None:
    evaluation = evaluate(make_env, WEIGHTS, {"floor": AlwaysChoice(0), "mid": AlwaysChoice(0)})
    score = evaluation.scores["floor"]
    stacked = [np.array([getattr(s, f) for s in score]) for f in ("quality", "cost_usd", "reward")]
    evaluation.add_ceiling("latent-knowing", score[0].group, stacked[0], stacked[1], stacked[2] + 0.1)
    assert gap_closed(evaluation, "mid", "floor", "latent-knowing") == pytest.approx([0, 0, 0])
    assert gap_closed(evaluation, "latent-knowing", "floor", "latent-knowing") == pytest.approx([1, 1, 1])
    assert evaluation.results()[-1].kind == "ceiling"


def test_report_says_who_beats_whom_first_and_holds_every_figure() -> None:
    outcome = weighted_study()
    text = report.section(outcome.test, "trained", frontiers=outcome.frontiers)
    for i, setting in enumerate(WEIGHTS):
        line = next(line for line in text.splitlines() if line.startswith(f"- **{setting.name}**"))
        verdict = outcome.test.compare("trained", "best single")[i].verdict
        word = {"beats": "beats", "tie": "ties with", "loses": "**loses to**"}[verdict]
        assert word in line
    assert text.index("- **w = 0.01**") < text.index("AIQ (paper)") < text.index("All figures")
    assert len([line for line in text.splitlines() if line.startswith("| random | w")]) == 3


def test_a_partial_log_gets_estimates_with_propensity_and_only_confounded_without() -> None:
    texts = {}
    for known in (True, False):
        log = partial_log(propensity=known)

        def make_partial(split: str, *, log: Log = log, **arguments: Any) -> ThinkRouteVectorEnv:
            return ThinkRouteVectorEnv(
                32,
                autoreset="disabled",
                log=log,
                split=split,
                missing="mask",
                featuriser="letters",
                **arguments,
            )

        outcome = study(make_partial, WEIGHTS[:1], {"single": [AlwaysChoice(2)]}, {"trained": AlwaysChoice(0)})
        texts[known] = report.section(outcome.test, "trained")
    assert "beats" not in texts[True] + texts[False]
    assert "SNIPS" in texts[True]
    assert "Confounded" in texts[False]
    assert "SNIPS" not in texts[False]


def test_off_policy_value_of_a_choice_is_near_what_a_full_log_says() -> None:
    full = ThinkRouteVectorEnv(64, autoreset="disabled", log=question_log(2000), split="test", featuriser="letters")
    env = ThinkRouteVectorEnv(
        64, autoreset="disabled", log=partial_log(2000), split="test", featuriser="letters", missing="mask"
    )
    # Rewards are in units of each log's own reference cost; at no weight they are qualities.
    truth = evaluate(lambda split, **a: full, [Setting.weight(0.0)], {"x": AlwaysChoice(1)}).points("x")[1][0]
    found = first_call_value(env, AlwaysChoice(1), 0.0)
    assert isinstance(found, Estimate)
    assert found.snips == pytest.approx(truth, abs=0.08)
    assert found.dr == pytest.approx(truth, abs=0.08)
    assert found.effective_samples < 0.5 * found.rows


def test_off_policy_every_choice_is_shown_as_open_and_the_environment_stays_as_it_is() -> None:
    env = ThinkRouteVectorEnv(
        7, autoreset="disabled", log=partial_log(), split="test", featuriser="letters", missing="mask"
    )
    slices = env.layout.slices()
    seen: list[np.ndarray] = []

    class Dear(AlwaysChoice):
        def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
            seen.append(action_mask[:, [env.layout.action("call", c) for c in range(3)]])
            seen.append(np.column_stack([observation[:, slices[f"callable/{c}"]] for c in range(3)]))
            return super().act(observation, action_mask)

    found = first_call_value(env, Dear(2), 0.0)
    assert isinstance(found, Estimate)
    assert all(np.all(shown == 1) for shown in seen)
    logged = env.dynamics.arrays.num_attempts[env.dynamics.roots, 2]
    assert found.effective_samples <= logged.sum()
    assert env.reset(seed=0)[1]["action_mask"].sum() == 7  # one recorded choice a question


def test_off_policy_a_choice_that_the_budget_does_not_cover_stays_closed() -> None:
    # A reserve is 100 prompt and 100 completion tokens: 0.0002, 0.0008 and 0.004 USD.
    def value(cap: float, choice: int) -> Any:
        env = ThinkRouteVectorEnv(
            64, autoreset="disabled", log=partial_log(), split="test", featuriser="letters", missing="mask",
            budget_usd=cap,
        )  # fmt: skip
        return first_call_value(env, AlwaysChoice(choice), 0.0)

    assert value(0.002, 2) == value(0.002, 0) != value(1.0, 2)


def test_files_are_written_whole_and_metrics_are_plain_json(tmp_path: Path) -> None:
    outcome = weighted_study()
    path = report.write_metrics(tmp_path / "run" / "metrics.json", [outcome.test], {"nothing": float("nan")})
    data = json.loads(path.read_text())
    assert data["nothing"] is None
    assert {r["policy"] for r in data["results"]} >= {"trained", "best single", "best mix", "cheap"}
    report.write_report(tmp_path / "run" / "report.md", ["body"], "Title")
    assert (tmp_path / "run" / "report.md").read_text() == "# Title\n\nbody\n"
    assert not list((tmp_path / "run").glob(".*"))


def test_plot_draws_weights_and_caps_from_the_results_alone(tmp_path: Path) -> None:
    outcome = weighted_study()
    results = [r.to_dict() for r in outcome.test.results()]
    capped = evaluate(make_budget_env, [Setting.calls(1), Setting.calls(3)], {"x": FirstLarge(0, 1)}, kind="trained")
    one = plot_frontier(results, tmp_path / "one.png")
    two = plot_frontier(results + [r.to_dict() for r in capped.results()], tmp_path / "two.png")
    assert one.read_bytes()[:4] == b"\x89PNG"
    import matplotlib.image as image

    assert image.imread(two).shape[1] == 2 * image.imread(one).shape[1]
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_frontier([], tmp_path / "none.png")


def test_a_score_for_every_setting_is_demanded() -> None:
    evaluation = Evaluation("f", "l", "test", WEIGHTS, 1.0)
    with pytest.raises(ValueError, match="1 scores for 3 settings"):
        evaluation.add("a", "reference", [Score(np.arange(2), np.zeros(2), np.zeros(2), np.zeros(2))])


def test_random_play_is_worse_than_the_best_single_choice() -> None:
    evaluation = evaluate(make_env, WEIGHTS[:1], {"random": RandomPolicy(), "dear": AlwaysChoice(2)}, episodes=5)
    assert evaluation.compare("dear", "random")[0].verdict == "beats"
