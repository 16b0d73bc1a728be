"""Live episodes see what training saw: logged ones replayed through Router look the same, bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from logs import Play, Row, budget_env, hop_log, make_log, response, think_env, walk_log
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import witness_draws
from safetensors.numpy import load_file, save_file

import rlroute
from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.think_route.env import ThinkRouteVectorEnv
from rlroute.policy import (
    CARD_FILE,
    WEIGHTS_FILE,
    PolicyError,
    TrainedPolicy,
    load_policy,
    parameter_shapes,
    save_policy,
)
from rlroute.router import BudgetExhausted, Episode, Router

pytestmark = pytest.mark.filterwarnings(
    "ignore::rlroute.log.LogWarning", "ignore:.*outside what the policy was trained on:UserWarning"
)
by_hand = pytest.mark.usefixtures("handmade")
HIDDEN = 8
EPISODES = 1000


def random_policy(env: Any, path: Path) -> Path:
    """A policy folder with random weights for `env`."""
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(env.layout, HIDDEN)
    parameters = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    dynamics = env.dynamics
    card = dynamics.policy_card() | {"network": {"hidden": HIDDEN}}
    return save_policy(path, card, parameters, dynamics.policy_tensors())


class Scripted(TrainedPolicy):
    """Chooses what it is told to, and keeps what it was shown."""

    following: int = 0
    shown: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    def logits(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        self.shown = observation[0], action_mask[0]
        return np.where(np.arange(action_mask.shape[1]) == self.following, 1.0, 0.0)[None].astype(np.float32)


def scripted(path: Path) -> tuple[Scripted, Router]:
    policy = load_policy(path)
    actor = Scripted(policy.card, policy.parameters, policy.tensors)
    return actor, Router(actor)


def record_row(episode: Episode, log: rlroute.Log, texts: dict[str, list[Any]], row: int) -> float:
    """Report a recorded response to a live episode: what a provider would have sent, and nothing else."""
    arrays = log.arrays
    return episode.record(
        text=texts["text"][row] or "",
        answer=texts["answer"][row],
        verdict=texts["verdict"][row],
        error=texts["error"][row],
        latency_s=texts["latency_s"][row],
        prompt_tokens=int(arrays.prompt_tokens[row]),
        completion_tokens=int(arrays.completion_tokens[row]),
    )


FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "think": (ThinkRouteVectorEnv, {"log": "questions"}),
    "think, capped": (
        ThinkRouteVectorEnv,
        {"log": "questions", "budget_usd": (0.0005, 0.004), "checker": None},
    ),
    "think, priced": (
        ThinkRouteVectorEnv,
        {"log": "questions", "think_cost_usd": 1e-5, "latency_preference": 0.1},
    ),
    "think, newcomers": (ThinkRouteVectorEnv, {"log": "questions", "newcomers": ("mistral-7b", "mixtral-8x22b")}),
    "budget": (BudgetRouteVectorEnv, {"log": "tasks", "budget_calls": (0, 6)}),
    "budget, capped": (
        BudgetRouteVectorEnv,
        {"log": "tasks", "budget_usd": (0.01, 0.06), "preference": (0.1, 1.0)},
    ),
    "budget, newcomers": (BudgetRouteVectorEnv, {"log": "tasks", "newcomers": ("gpt-4.1",)}),
    "budget, no cache": (BudgetRouteVectorEnv, {"log": "tasks", "prompt_cache": False}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thousand_logged_episodes_look_the_same_live(name: str, tmp_path: Path) -> None:
    kind, arguments = FAMILIES[name]
    # The plain cases play a thousand episodes, the variants fewer.
    count = EPISODES if "," not in name else 50
    env = kind(count, split="test", autoreset="disabled", **arguments)
    dynamics, log = env.dynamics, env.dynamics.log
    actor, router = scripted(random_policy(env, tmp_path / "policy"))
    # Tables in the order of the arrays: states by row, responses by (state, choice, attempt).
    states = {n: log.states[n].to_pylist() for n in ("text", *dynamics.arrays.extra_names)}
    columns = ("text", "answer", "verdict", "error", "latency_s")
    assert_array_equal(log.responses["prompt_tokens"].to_numpy(), dynamics.arrays.prompt_tokens)
    texts = {n: log.responses[n].to_pylist() for n in columns}

    observation, info = env.reset(seed=4)
    live = [
        router.episode(
            budget_usd=finite(dynamics.terms.budget_usd[i]),
            budget_calls=finite(dynamics.terms.budget_calls[i]),
            cost_weight=float(dynamics.w_cost[i]),
            latency_weight=float(dynamics.w_latency[i]),
        )
        for i in range(count)
    ]
    rng = np.random.default_rng(0)
    drawn = witness_draws(dynamics)
    steps = 0
    while dynamics.active.any():
        mask = info["action_mask"]
        score = np.where(mask == 1, rng.random(mask.shape), -1)
        action = score.argmax(axis=1)
        active, state = dynamics.active.copy(), dynamics.state.copy()
        for i in np.flatnonzero(active):
            actor.following = int(action[i])
            row = int(state[i])
            decision = live[i].decide(
                states["text"][row],
                {n: states[n][row] for n in dynamics.arrays.extra_names},
                prompt_tokens=int(dynamics.arrays.prompt_tokens_of[row, 0]),
                can_think=bool(dynamics.arrays.think_state[row] >= 0),
            )
            assert decision.action == env.layout.describe_action(int(action[i]))[0]
            assert_array_equal(actor.shown[0], observation[i])
            assert_array_equal(actor.shown[1], mask[i])
            steps += 1
        drawn.clear()
        observation, _, _, _, info = env.step(action)
        heard = {draw[0]: draw[-1] for draw in drawn}
        for i in np.flatnonzero(active):
            if env.layout.describe_action(int(action[i]))[0] in ("call", "choose"):
                cost = record_row(live[i], log, texts, heard[int(i)])
                assert_allclose(cost, info["reward_vector"][i, 1], rtol=1e-12)
    assert steps > 3 * count
    assert_allclose([episode.spent_usd for episode in live], dynamics.totals.cost_usd, rtol=1e-12)


def finite(value: float) -> Any:
    return None if np.isinf(value) else float(value)


# -- the router ------------------------------------------------------------------------------------


@pytest.fixture
def think_router(handmade: None, tmp_path: Path) -> tuple[Scripted, Router]:
    return scripted(random_policy(think_env(hop_log()), tmp_path / "think"))


@pytest.fixture
def budget_router(handmade: None, tmp_path: Path) -> tuple[Scripted, Router]:
    return scripted(random_policy(budget_env(walk_log(4), budget_calls=(0, 3)), tmp_path / "budget"))


@by_hand
def test_a_router_acts_from_its_folder_as_the_policy_does_in_the_environment(tmp_path: Path) -> None:
    env = budget_env(walk_log(4))
    path = random_policy(env, tmp_path / "policy")
    policy, router = load_policy(path), rlroute.Router.load(path)
    observation, info = env.reset(seed=0, options={"task": "test/0"})
    for step in range(4):
        action = int(policy.act(observation, info["action_mask"]))
        with router.episode("a walk") as episode:
            for earlier in range(step + 1):
                state = {"text": f"test, step {earlier}", "features": {"left": 4.0 - earlier}}
                decision = episode.decide(**state, prompt_tokens=100 * (earlier + 1))  # type: ignore[arg-type]
                episode.record(prompt_tokens=100 * (earlier + 1), completion_tokens=10, latency_s=60.0)
        assert decision.choice == router.choices[action]
        observation, _, terminated, _, info = env.step(action)
    assert terminated


def test_a_decision_says_what_why_and_how_sure(budget_router: tuple[Scripted, Router]) -> None:
    actor, router = budget_router
    actor.following = 1
    episode = router.episode("walk", budget_calls=1)
    decision = episode.decide("test, step 0", {"left": 4.0})
    assert (decision.action, decision.choice) == ("choose", "large")
    assert decision.max_completion_tokens == 100
    assert list(decision.scores) == ["choose small", "choose large"]
    assert_allclose(list(decision.scores.values()), np.array([1, np.e]) / (1 + np.e), rtol=1e-6)
    assert "2 legal actions" in decision.reason
    assert decision.seconds >= 0
    episode.record(prompt_tokens=100, completion_tokens=5)
    forced = episode.decide("test, step 1", {"left": 3.0})
    assert forced.choice == "small"
    assert forced.scores == {"choose small": 1.0}
    assert "only legal action" in forced.reason
    assert episode.decisions == [decision, forced]


def test_prompt_tokens_default_to_a_quarter_of_the_characters(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode()
    episode.decide("x" * 401, {"left": 1.0})
    assert_allclose(episode.record(completion_tokens=10), 101 * 1e-6 + 10 * 2e-6)


def test_recording_without_a_call_is_refused(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode()
    with pytest.raises(RuntimeError, match="decide"):
        episode.record(completion_tokens=1)
    episode.decide("test, step 0", {"left": 4.0})
    episode.record(completion_tokens=1)
    with pytest.raises(RuntimeError, match="decide"):
        episode.record(completion_tokens=1)


def test_accepting_leaves_nothing_to_record(think_router: tuple[Scripted, Router]) -> None:
    actor, router = think_router
    episode = router.episode()
    actor.following = actor.layout.action("call", 1)
    episode.decide("Who wrote Emma?")
    episode.record(answer="Bob", completion_tokens=3)
    actor.following = actor.layout.action("accept", 1)
    decision = episode.decide("Who wrote Emma?")
    assert (decision.action, decision.choice, decision.max_completion_tokens) == ("accept", "large", None)
    with pytest.raises(RuntimeError, match="decide"):
        episode.record(answer="Bob", completion_tokens=3)


def test_a_call_that_is_decided_anew_replaces_the_one_that_was_never_made(
    think_router: tuple[Scripted, Router],
) -> None:
    actor, router = think_router
    episode = router.episode()
    for choice in (0, 1):
        actor.following = actor.layout.action("call", choice)
        episode.decide("Who wrote Emma?")
    assert_allclose(episode.record(prompt_tokens=100, completion_tokens=10), 1200e-6)


def test_a_cost_must_be_told_in_some_way(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode()
    episode.decide("test, step 0", {"left": 4.0})
    with pytest.raises(ValueError, match="cost_usd or completion_tokens"):
        episode.record(text="hello")


@pytest.mark.parametrize(
    ("error", "tokens", "usd"),
    [
        ("503 overloaded", 0, 0.0),
        ("429 too many requests", 7, 0.0),
        ("timeout", None, 0.0),
        ("empty answer", 10, 120e-6),
        (None, 10, 120e-6),
    ],
)
def test_errors_cost_what_providers_bill(
    budget_router: tuple[Scripted, Router], error: str | None, tokens: int | None, usd: float
) -> None:
    episode = budget_router[1].episode()
    episode.decide("test, step 0", {"left": 4.0})
    assert_allclose(episode.record(error=error, prompt_tokens=100, completion_tokens=tokens), usd)
    assert_allclose(episode.spent_usd, usd)


def test_what_the_provider_says_it_cost_counts(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode(budget_usd=0.01)
    episode.decide("test, step 0", {"left": 4.0}, prompt_tokens=100)
    assert episode.record(error="500 down", completion_tokens=10, cost_usd=0.009) == 0.009
    # 0.001 is left: less than what large may cost.
    episode.decide("test, step 1", {"left": 3.0}, prompt_tokens=200)
    assert episode.decisions[-1].scores == {"choose small": 1.0}


def test_an_exhausted_budget_is_an_exception(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode("walk", budget_usd=350e-6)
    episode.decide("test, step 0", {"left": 4.0}, prompt_tokens=100)
    episode.record(prompt_tokens=100, completion_tokens=10, latency_s=60)
    with pytest.raises(BudgetExhausted, match=r"0\.000120 USD spent on 'walk'"):
        episode.decide("test, step 1", {"left": 3.0}, prompt_tokens=200)


def test_the_hard_limit_is_kept_whatever_the_provider_sends(budget_router: tuple[Scripted, Router]) -> None:
    actor, router = budget_router
    actor.following = 1
    rng = np.random.default_rng(0)
    for _ in range(50):
        cap = float(rng.uniform(0.0005, 0.02))
        episode = router.episode(budget_usd=cap)
        try:
            for step in range(20):
                prompt = 100 * (step + 1)
                limit = episode.decide("x", {"left": 1.0}, prompt_tokens=prompt).max_completion_tokens
                assert limit == 100
                episode.record(prompt_tokens=prompt, completion_tokens=int(rng.integers(1, limit + 1)))
        except BudgetExhausted:
            pass
        assert episode.spent_usd <= cap * (1 + 1e-9)


def test_a_caller_may_overrule_the_decision(budget_router: tuple[Scripted, Router]) -> None:
    actor, router = budget_router
    episode = router.episode(budget_calls=1)
    assert episode.decide("test, step 0", {"left": 4.0}).choice == "small"
    assert_allclose(episode.record(choice="large", prompt_tokens=100, completion_tokens=10), 1200e-6)
    episode.decide("test, step 1", {"left": 3.0})
    assert actor.shown[1].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"'huge'.*small, large"):
        episode.record(choice="huge", completion_tokens=10)


def test_missing_and_unknown_features_are_named(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode()
    with pytest.raises(ValueError, match="lacks 'left'"):
        episode.decide("test, step 0")
    with pytest.raises(ValueError, match=r"'lfet'.*left"):
        episode.decide("test, step 0", {"left": 4.0, "lfet": 4.0})


def test_weights_default_to_those_of_training(handmade: None, tmp_path: Path) -> None:
    for preference, expected in ((0.3, 0.3), ((0.01, 1.0), 0.1)):
        actor, router = scripted(random_policy(think_env(hop_log(), preference=preference), tmp_path / "policy"))
        router.episode().decide("Who wrote Emma?")
        place = actor.layout.slices()["cost_weight"]
        assert_allclose(actor.shown[0][place], (np.log10(expected) + 3) / 5, atol=1e-5)  # a table of logarithms
        router.episode(cost_weight=1.0).decide("Who wrote Emma?")
        assert_allclose(actor.shown[0][place], 0.6, atol=1e-5)  # a table of logarithms


def test_a_policy_that_sees_rows_of_its_log_cannot_act_on_texts(handmade: None, tmp_path: Path) -> None:
    _, router = scripted(random_policy(think_env(hop_log(), obs="index"), tmp_path / "policy"))
    with pytest.raises(ValueError, match="obs='index'"):
        router.episode()


def test_a_moved_episode_forgets_what_was_heard_even_where_the_text_is_the_same(
    think_router: tuple[Scripted, Router],
) -> None:
    actor, router = think_router
    episode = router.episode()
    slices = actor.layout.slices()
    for action in ("think", "call", "accept"):
        actor.following = actor.layout.action(action, None if action == "think" else 1)
        episode.decide("And then?", can_think=action == "think")
        if action == "call":
            episode.record(answer="Bob", completion_tokens=3)
    episode.decide("And then?")
    assert actor.shown[0][slices["heard"]] == 0
    assert actor.shown[0][slices["depth"]] == 0.5
    assert actor.shown[1].tolist() == [0, 1, 1, 0, 0]


def test_a_check_decided_live_can_be_answered(handmade: None, tmp_path: Path) -> None:
    env = think_env(hop_log(), checker="action", check_cost_usd=5e-6, repeat="same")
    actor, router = scripted(random_policy(env, tmp_path / "policy"))
    replay, live = Play(env, "hop"), router.episode()
    text = "Where was the author of Emma born?"

    def decide(action: str, choice: int | None = None) -> None:
        actor.following = actor.layout.action(action, choice)
        assert live.decide(text, prompt_tokens=100, can_think=True).action == action
        assert_array_equal(actor.shown[0], replay.observation)
        assert_array_equal(actor.shown[1], replay.info["action_mask"])

    decide("call", 1)
    live.record(answer="Oslo", verdict=1.0, prompt_tokens=100, completion_tokens=10, latency_s=5.0)
    replay.do("call large")
    decide("check")
    with pytest.raises(ValueError, match="needs its verdict"):
        live.record(answer="Oslo")
    assert live.record(verdict=1.0) == 0
    replay.do("check")
    decide("accept", 1)
    assert_allclose(live.spent_usd, 1205e-6)
    with pytest.raises(RuntimeError, match="decide"):
        live.record(verdict=1.0)


def test_extra_features_are_read_in_the_precision_of_the_log(handmade: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states: list[Row] = []
    responses: list[Row] = []
    for i, split in enumerate(["train"] * 20 + ["val"] + ["test"] * 200):
        common = {"split": split, "task_id": f"t{i}", "group_id": f"t{i}", "text": "oat"}
        states.append(common | {"state_id": f"t{i}", "left": float(rng.normal())})
        states.append(common | {"state_id": f"t{i}/won", "step": 1, "left": 0.0, "terminal": True, "success": True})
        responses += [response(f"t{i}", c, next_state_id=f"t{i}/won") for c in ("small", "large")]
    env = budget_env(make_log(states, responses))
    actor, router = scripted(random_policy(env, tmp_path / "policy"))
    for state in states[42::2]:
        observation, _ = env.reset(seed=0, options={"task": state["state_id"]})
        router.episode().decide("oat", {"left": state["left"]}, prompt_tokens=100)
        assert_array_equal(actor.shown[0], observation)


# -- budget honesty --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, "much"])
@pytest.mark.parametrize("term", ["budget_usd", "budget_calls", "cost_weight", "latency_weight"])
def test_terms_that_are_no_numbers_from_0_up_are_refused(
    budget_router: tuple[Scripted, Router], term: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"{term}: found {value!r}, expected a (whole )?number ≥ 0"):
        budget_router[1].episode(**{term: value})


def test_calls_are_capped_by_whole_numbers(budget_router: tuple[Scripted, Router]) -> None:
    with pytest.raises(ValueError, match=r"budget_calls: found 1\.5, expected a whole number"):
        budget_router[1].episode(budget_calls=1.5)  # type: ignore[arg-type]


REPORT: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 10, "latency_s": 1.0}
BAD_REPORTS: list[dict[str, Any]] = [
    {name: value}
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "latency_s", "verdict")
    for value in (-1, float("nan"), float("inf"))
]
BAD_REPORTS += [{"verdict": 1.5}, {"latency_s": None}, {"choice": "huge"}, {"completion_tokens": None}]


@pytest.mark.parametrize("bad", BAD_REPORTS, ids=str)
@pytest.mark.parametrize("family", ["think", "budget"])
def test_a_refused_report_changes_nothing_and_can_be_made_again(
    request: pytest.FixtureRequest, family: str, bad: dict[str, Any]
) -> None:
    actor, router = request.getfixturevalue(f"{family}_router")
    text, features = ("Who wrote Emma?", {}) if family == "think" else ("test, step 0", {"left": 4.0})
    seen = []
    for tries in (0, 1):
        actor.following = actor.layout.action("call" if family == "think" else "choose", 1)
        episode = router.episode(budget_usd=0.01)
        episode.decide(text, features, prompt_tokens=100)
        for _ in range(tries):
            with pytest.raises(ValueError, match=r"expected|needs cost_usd"):
                episode.record(**{"answer": "Bob", **REPORT, **bad})
            assert episode.spent_usd == 0
        assert_allclose(episode.record(answer="Bob", **REPORT), 1200e-6)
        episode.decide(text, features, prompt_tokens=100)
        seen.append(actor.shown)
    assert_array_equal(seen[0][0], seen[1][0])
    assert_array_equal(seen[0][1], seen[1][1])


def test_what_was_served_from_a_cache_never_refunds(budget_router: tuple[Scripted, Router]) -> None:
    episode = budget_router[1].episode()
    episode.decide("test, step 0", {"left": 4.0})
    assert episode.record(prompt_tokens=0, cached_tokens=5000, completion_tokens=0) == 0
    with pytest.raises(ValueError, match="prompt_tokens: found -1, expected a number ≥ 0"):
        episode.decide("test, step 1", {"left": 3.0}, prompt_tokens=-1)


def test_a_check_keeps_waiting_for_a_usable_verdict(handmade: None, tmp_path: Path) -> None:
    actor, router = scripted(random_policy(think_env(hop_log(), checker="action"), tmp_path / "policy"))
    episode = router.episode()
    actor.following = actor.layout.action("call", 1)
    episode.decide("Who wrote Emma?")
    episode.record(answer="Bob", **REPORT)
    actor.following = actor.layout.action("check", None)
    assert episode.decide("Who wrote Emma?").action == "check"
    for verdict in (None, float("nan"), -0.1, 2):
        with pytest.raises(ValueError, match=r"verdict.*found .*, expected a number in \[0, 1\]"):
            episode.record(verdict=verdict)
    assert episode.record(verdict=0.5) == 0


def test_a_refused_text_moves_nothing(handmade: None, tmp_path: Path) -> None:
    actor, router = scripted(random_policy(think_env(hop_log()), tmp_path / "policy"))
    episode = router.episode()
    episode.decide("Where was the author of Emma born?")
    for _ in range(3):
        with pytest.raises(ValueError, match="features has 'left'"):
            episode.decide("Who wrote Emma?", {"left": 1.0})
    episode.decide("Who wrote Emma?")
    assert actor.shown[0][actor.layout.slices()["depth"]] == 0.25


# -- terms that a policy does not know -------------------------------------------------------------


def test_a_term_of_another_family_is_refused(think_router: tuple[Scripted, Router]) -> None:
    with pytest.raises(ValueError, match=r"budget_calls: found 3, expected .*max_rounds.*budget_usd"):
        think_router[1].episode(budget_calls=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget_usd": 0.05}, None),
        ({"budget_usd": 0.5}, "budget_usd .*: 0.01 to 0.06$"),
        ({"budget_calls": 2}, "budget_calls .*: it never saw such a cap"),
        ({"cost_weight": 0.1}, None),
        ({"cost_weight": 0.09}, "cost_weight .*: 0.1 to 1$"),
        ({"latency_weight": 0.0}, None),
        ({"latency_weight": 1.0, "cost_weight": 2.0}, "cost_weight .*: 0.1 to 1; latency_weight .*: 0$"),
        ({}, None),
    ],
)
def test_terms_outside_training_are_warned_of_once(
    handmade: None, tmp_path: Path, given: dict[str, Any], message: str | None
) -> None:
    env = budget_env(walk_log(4), budget_usd=(0.01, 0.06), preference=(0.1, 1.0))
    _, router = scripted(random_policy(env, tmp_path / "policy"))
    if message is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            router.episode(**given)
        return
    with pytest.warns(UserWarning, match=message) as caught:
        router.episode(**given)
    assert [warning.filename for warning in caught] == [__file__]


# -- rules that accept -----------------------------------------------------------------------------

ANSWERS = {"small": ["Rome", "Rome", "Oslo"], "large": ["Oslo"]}


def most_given(replay: Play) -> int:
    """Position of the first reply whose answer is given most often."""
    dynamics = replay.dynamics
    answers = dynamics.arrays.answer[dynamics.heard_row[0, : dynamics.num_heard[0]]].tolist()
    return int(np.argmax([answers.count(answer) if answer >= 0 else 0 for answer in answers]))


def best_judged(replay: Play) -> int:
    """Position of the first reply of the highest verdict seen."""
    dynamics = replay.dynamics
    return int(np.argmax(np.nan_to_num(dynamics.verdict_seen[0, : dynamics.num_heard[0]], nan=-1.0)))


@pytest.mark.parametrize("checker", ["observe", None])
@pytest.mark.parametrize("commit", ["policy", "plurality", "verdict"])
def test_the_accepted_response_is_the_one_of_replay(
    handmade: None, tmp_path: Path, commit: str, checker: str | None
) -> None:
    env = think_env(hop_log(), commit=commit, checker=checker)
    actor, router = scripted(random_policy(env, tmp_path / "policy"))
    differing = 0
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(["small", "small", "small", "large"])[: 2 + seed % 3]
        asked = str(order[-1])
        replay, live = Play(env, "hop", seed=seed), router.episode()
        for choice in order:
            actor.following = replay.action(f"call {choice}")
            live.decide("Where was the author of Emma born?", prompt_tokens=100)
            replay.do(f"call {choice}")
            row = int(replay.dynamics.latest_row[0, router.choices.index(choice)])
            arrays, log = replay.dynamics.arrays, replay.dynamics.log
            live.record(answer=log.answer_text(row), verdict=float(arrays.verdict[row]), **REPORT)
        heard = replay.dynamics.heard_row[0].copy()
        last = int(replay.dynamics.latest_row[0, router.choices.index(asked)])
        expected = {"policy": last, "plurality": heard[most_given(replay)], "verdict": heard[best_judged(replay)]}[
            commit
        ]
        actor.following = replay.action(f"accept {asked}")
        decision = live.decide("Where was the author of Emma born?", prompt_tokens=100)
        assert decision.action == "accept"
        assert decision.response is not None
        assert heard[decision.response] == expected
        assert decision.choice == str(order[decision.response])
        assert ("instead of" in decision.reason) == (decision.choice != asked)
        differing += decision.choice != asked
    assert (differing > 0) == (commit != "policy")


# -- policies that lack something ------------------------------------------------------------------


KEYS = {
    "both": [
        "arguments",
        "choices",
        "reference",
        "constants",
        "extra_names",
        "featuriser",
        "arguments.obs",
        "arguments.preference",
        "arguments.budget_usd",
        "reference.cost_usd",
        "choices.small",
        "choices.large.output_usd",
    ],
    "think": ["arguments.commit", "arguments.max_rounds", "constants.max_attempts"],
    "budget": ["constants.horizon", "constants.expensive/large"],
}


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family in ("think", "budget") for key in KEYS["both"] + KEYS[family]]
)
def test_a_card_without_what_acting_needs_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, key: str
) -> None:
    actor, _ = request.getfixturevalue(f"{family}_router")
    file = tmp_path / family / CARD_FILE
    card = yaml.safe_load(file.read_text())
    *sections, last = key.split(".")
    place = card
    for section in sections:
        place = place[section]
    del place[last]
    file.write_text(yaml.safe_dump(card))
    named = "choices" if key == "choices.small" else key  # one choice fewer than the layout has
    with pytest.raises(PolicyError, match=rf"policy\.yaml, key {named}: found .*, expected") as caught:
        Router.load(file.parent)
    assert caught.value.file == file
    with pytest.raises(PolicyError, match=rf"policy\.yaml, key {named}: found"):
        Router(TrainedPolicy(card, actor.parameters, actor.tensors))


@by_hand
def test_a_policy_without_its_text_model_is_refused(budget_router: tuple[Scripted, Router], tmp_path: Path) -> None:
    file = tmp_path / "budget" / WEIGHTS_FILE
    arrays = load_file(file)
    for name in [name for name in arrays if name.startswith("tensors.text/")]:
        save_file({n: array for n, array in arrays.items() if n != name}, file)
        with pytest.raises(PolicyError, match=f"weights.safetensors, key {name}: found no such tensor"):
            Router.load(file.parent)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("family",), "rlroute/NoRoute-v0"),
        (("arguments", "preference"), [1.0, 0.1]),
        (("arguments", "think_cost_usd"), -1.0),
        (("arguments", "max_rounds"), 40_000),
        (("constants", "max_attempts"), 0),
        (("choices", "large", "input_usd"), -1e-6),
        (("choices", "large", "cached_input_usd"), float("nan")),
        (("reference", "cost_usd"), "dear"),
    ],
)
def test_a_card_with_something_unusable_is_refused(
    think_router: tuple[Scripted, Router], path: tuple[str, ...], value: Any
) -> None:
    actor, _ = think_router
    place = actor.card
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(PolicyError, match=rf"key {path[0]}.*: found .*, expected"):
        Router(actor)
