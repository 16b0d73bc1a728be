"""The built-in logs: repeatable, free of leaks, drawn from the probabilities that they store."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rlroute.generators import GENERATORS, efforts, questions, tasks
from rlroute.generators.figures import FIGURES
from rlroute.generators.names import NameDeck
from rlroute.generators.sampling import draw_kinds, lognormal_tokens, mean_lognormal_tokens
from rlroute.log import Log
from rlroute.outcomes import empirical_outcomes, recorded_rows, stored_outcomes

SMALL = {
    "questions": lambda seed: questions.generate(questions.QuestionsParameters(seed=seed, num_questions=40)),
    "tasks": lambda seed: tasks.generate(tasks.TasksParameters(seed=seed, num_tasks=12)),
    "efforts": lambda seed: efforts.generate(dataclasses.replace(efforts.DEFAULT, seed=seed, num_tasks=12)),
}


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def log(request: pytest.FixtureRequest) -> Log:
    return GENERATORS[request.param]()


@pytest.fixture(scope="module")
def asked() -> Log:
    return GENERATORS["questions"]()


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_same_seed_gives_the_same_bytes_and_another_seed_others(name: str) -> None:
    make = SMALL[name]
    assert make(3).content_hash == make(3).content_hash
    assert make(3).content_hash != make(4).content_hash


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generation_takes_under_five_cpu_seconds(name: str) -> None:
    start = time.process_time()
    GENERATORS[name]()
    assert time.process_time() - start < 5.0


def test_log_has_no_fault_of_any_severity(log: Log) -> None:
    assert log.validate() == []


def test_no_text_belongs_to_two_groups(log: Log) -> None:
    groups = defaultdict(set)
    for text, group in zip(log.states["text"].to_pylist(), log.states["group_id"].to_pylist(), strict=True):
        groups[text].add(group)
    assert max(len(owners) for owners in groups.values()) == 1


def test_outcome_probabilities_sum_to_one_wherever_a_choice_answers(log: Log) -> None:
    total = stored_outcomes(log).probability.sum(axis=-1)
    recorded = np.asarray(log.arrays.num_attempts) > 0
    np.testing.assert_allclose(total[recorded], 1.0, atol=1e-12)
    assert not total[~recorded].any()


def test_recorded_attempts_follow_the_stored_probabilities(log: Log) -> None:
    outcomes, arrays = stored_outcomes(log), log.arrays
    rows = recorded_rows(arrays)
    recorded = rows >= 0
    for column, expected in (
        ("quality", (outcomes.probability * outcomes.quality).sum(axis=-1)),
        ("cost_usd", outcomes.mean_cost_usd),
        ("verdict", np.nansum(outcomes.probability * outcomes.verdict, axis=-1)),
    ):
        values = np.asarray(getattr(arrays, column), np.float64)
        if np.isnan(values).all():
            continue
        for choice in range(rows.shape[1]):
            here = recorded[:, choice]
            drawn = values[rows[:, choice][here]]
            error = drawn.std() / np.sqrt(drawn.size)
            mean = np.repeat(expected[:, choice], here.sum(axis=1)).mean()
            assert abs(drawn.mean() - mean) < 4.5 * error, (column, choice)


def test_attempts_used_as_outcomes_agree_with_the_recorded_means(log: Log) -> None:
    outcomes, arrays = empirical_outcomes(log), log.arrays
    rows = recorded_rows(arrays)
    quality = np.where(rows >= 0, np.asarray(arrays.quality, np.float64)[rows], 0.0).sum(axis=-1)
    count = np.maximum((rows >= 0).sum(axis=-1), 1)
    np.testing.assert_allclose((outcomes.probability * outcomes.quality).sum(axis=-1), quality / count, atol=1e-6)
    assert set(np.unique(outcomes.probability.sum(axis=-1).round(9))) <= {0.0, 1.0}


def test_question_mix_is_as_declared(asked: Log) -> None:
    roots = np.asarray(asked.arrays.root)
    names = np.array(asked.arrays.task_names)[np.asarray(asked.arrays.task_name)[roots]]
    shares = [np.mean([name.startswith(f"{hops}-hop") for name in names]) for hops in (1, 2, 3)]
    np.testing.assert_allclose(shares, questions.DEFAULT.hop_shares, atol=0.04)
    assert roots.sum() == questions.DEFAULT.num_questions


def test_sub_questions_are_keyed_by_the_answer_accepted(asked: Log) -> None:
    texts = dict(zip(asked.states["state_id"].to_pylist(), asked.states["text"].to_pylist(), strict=True))
    moves = 0
    for row in asked.responses.slice(0, 20_000).to_pylist():
        if row["next_state_id"] is not None:
            assert row["answer"] in texts[row["next_state_id"]]
            moves += 1
    assert moves > 1000


def test_a_wrong_answer_on_the_way_never_leads_to_quality(asked: Log) -> None:
    states = {row["state_id"]: row for row in asked.states.to_pylist()}
    roots = {row["task_id"]: row for row in states.values() if row["parent_id"] is None}
    right = wrong = 0
    for row in asked.responses.to_pylist():
        state = states[row["state_id"]]
        if row["next_state_id"] is not None:
            assert row["quality"] == float(row["answer"] == state["gold"][0])
        else:
            assert row["quality"] == float(row["answer"] == roots[state["task_id"]]["gold"][0])
            off_track = state["gold"] != roots[state["task_id"]]["gold"]
            right += row["quality"] == 1.0
            wrong += off_track and row["answer"] == state["gold"][0]
    assert right > 1000
    assert wrong > 1000


def test_empty_replies_end_the_episode_with_nothing(asked: Log) -> None:
    empty = [row for row in asked.responses.to_pylist() if row["answer"] is None]
    assert empty
    assert all(row["quality"] == 0 and row["next_state_id"] is None and row["verdict"] == 0 for row in empty)


def test_models_are_best_in_different_domains() -> None:
    skill = np.array([model.skill for model in questions.MODELS])
    assert len(set(skill.argmax(axis=0))) >= 5
    dearest = np.argmax([model.usd_per_mtok for model in questions.MODELS])
    assert skill.mean(axis=1).argmax() == dearest


def test_task_steps_progress_slip_or_ruin() -> None:
    log = SMALL["tasks"](0)
    outcomes = log.outcomes.to_pylist()
    states = {row["state_id"]: row for row in log.states.to_pylist()}
    for row in outcomes:
        state, following = states[row["state_id"]], states[row["next_state_id"]]
        assert following["step"] > state["step"]
        if row["kind"] == "fatal":
            assert following["terminal"]
            assert not following["success"]
            assert state["irreversible"] == 1
        elif row["kind"] == "slip" and not following["terminal"]:
            assert following["tool_errors"] == state["tool_errors"] + 1
            assert "Nothing happens." in following["text"]
        elif row["kind"] == "progress" and not following["terminal"]:
            assert following["subgoals_left"] == state["subgoals_left"] - 1
            assert "worked" in following["text"]
    assert {row["kind"] for row in outcomes} == set(tasks.KINDS)


def test_mean_of_cut_and_rounded_tokens_is_exact() -> None:
    median, sigma, limit = np.array([40.0, 300.0]), 0.6, 400
    rng = np.random.default_rng(0)
    drawn = lognormal_tokens(median, sigma, limit, rng, (200_000, 2))
    exact = mean_lognormal_tokens(median, sigma, limit)
    assert (abs(drawn.mean(axis=0) - exact) < 4 * drawn.std(axis=0) / np.sqrt(len(drawn))).all()
    assert drawn.max() == limit


def test_kinds_are_drawn_in_proportion() -> None:
    probability = np.array([0.5, 0.0, 0.3, 0.2])
    drawn = draw_kinds(probability, 100_000, np.random.default_rng(1))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 100_000, probability, atol=0.01)


def test_no_name_is_dealt_twice() -> None:
    deck = NameDeck(np.random.default_rng(0))
    dealt = [deck.deal() for _ in range(20_000)]
    assert len(set(dealt)) == len(dealt)


def test_card_states_parameters_and_limits(log: Log) -> None:
    module = {"questions": questions, "tasks": tasks, "efforts": efforts}[log.name]
    assert set(log.card.parameters) == {field.name for field in dataclasses.fields(module.DEFAULT)}
    assert "Modelled:" in log.card.notes
    assert "Not modelled:" in log.card.notes
    assert log.card.figures == FIGURES[log.name]


@pytest.fixture(scope="module")
def figures_script() -> ModuleType:
    path = Path(__file__).parents[1] / "experiments" / "builtin_logs" / "figures.py"
    spec = importlib.util.spec_from_file_location("builtin_log_figures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_figures_on_the_cards_are_those_of_the_logs(log: Log, figures_script: ModuleType) -> None:
    computed = getattr(figures_script, f"{log.name}_figures")(log)

    def compare(stated: Any, found: Any, where: str) -> None:
        if isinstance(stated, dict):
            assert stated.keys() == found.keys(), where
            for key in stated:
                compare(stated[key], found[key], f"{where}.{key}")
        else:  # fitted routers may differ a little between linear algebra libraries
            assert found == pytest.approx(stated, rel=0.02, abs=0.005), where

    compare(log.card.figures, computed, log.name)


def test_question_figures_lie_well_apart() -> None:
    for weight in ("0.03", "0.1", "0.2", "0.5", "1.0"):
        at = FIGURES["questions"][f"weight_{weight}"]
        assert at["single_shot"]["reward"] > at["best_single"]["reward"] + 0.05
        assert at["single_shot"]["quality"] > at["best_mix_at_cost_of_single_shot"]["quality"] + 0.05
        assert at["latent_knowing_without_checker"]["reward"] > at["single_shot"]["reward"] + 0.05
        assert at["latent_knowing"]["reward"] > at["latent_knowing_without_checker"]["reward"] + 0.03
        assert at["latent_knowing"]["reward"] > at["latent_knowing_without_thinking"]["reward"] + 0.03
        assert at["clairvoyant"]["reward"] > at["latent_knowing"]["reward"] + 0.03


def test_task_figures_lie_well_apart() -> None:
    figures = FIGURES["tasks"]
    assert 0.35 < figures["always_small"]["success"] < 0.45
    assert 0.75 < figures["always_large"]["success"] < 0.95
    assert 2.7 < figures["cost_ratio_with_prompt_cache"] < 3.7
    for cap in (2, 3, 4):
        at = {name: values["success"] for name, values in figures[f"cap_{cap}"].items()}
        assert at["step_rule"] > max(at["first_large"], at["random_mix"]) + 0.08
        assert at["latent_knowing"] > at["step_rule"] + 0.05
        assert at["clairvoyant"] > at["latent_knowing"] + 0.08


def test_efforts_follow_the_real_ladder() -> None:
    """gpt-5 at low, mid and high effort on 225 coding cases (Aider's polyglot leaderboard), within a tenth or so."""
    ladder = {  # pass rate, completion tokens, seconds and USD a case
        "low": (0.813, 3465, 62.4, 0.0461),
        "mid": (0.867, 6528, 118.7, 0.0786),
        "high": (0.880, 11660, 194.0, 0.1293),
    }
    for name, (passed, tokens, seconds, usd) in ladder.items():
        figures = FIGURES["efforts"][name]
        assert figures["success"] == pytest.approx(passed, abs=0.015)
        assert figures["completion_tokens"] == pytest.approx(tokens, rel=0.05)
        assert figures["seconds"] == pytest.approx(seconds, rel=0.10)
        assert figures["cost_usd"] == pytest.approx(usd, rel=0.20)  # ours is without prompt cache


def test_more_effort_is_not_always_better() -> None:
    spoilt = [kind for domain in efforts.DEFAULT.domains for kind in domain.kinds if kind.ease[2] < kind.ease[1] - 1]
    helped = [kind for domain in efforts.DEFAULT.domains for kind in domain.kinds if kind.ease[2] > kind.ease[0] + 1]
    assert len(spoilt) == 4
    assert len(helped) >= 4
