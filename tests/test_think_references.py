"""Reference policies of ThinkRoute: they learn what there is to learn, and peek at nothing."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from invented import question_log
from logs import hop_log

from rlroute.envs.think_route import posterior
from rlroute.envs.think_route.belief import GRID_WEIGHT, Belief
from rlroute.envs.think_route.env import ThinkRouteVectorEnv
from rlroute.envs.think_route.experience import Experience, response_worth
from rlroute.envs.think_route.posterior import Node, Outlook, Posterior, children, last_call, search
from rlroute.envs.think_route.references import Cascade, Single, SingleShot, references
from rlroute.envs.think_route.scorer import AnswerScorer
from rlroute.log import Log
from rlroute.policies import Policy, dynamics_of
from rlroute.rollout import Episodes, rollout

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]
CHEAP, MIDDLE, DEAR = 0, 1, 2


def make_env(log: Log, split: str = "test", preference: float = 0.05, **arguments: Any) -> ThinkRouteVectorEnv:
    return ThinkRouteVectorEnv(
        40,
        autoreset="disabled",
        log=log,
        split=split,
        featuriser="letters",
        preference=preference,
        **arguments,
    )


def play(env: ThinkRouteVectorEnv, policy: Policy) -> Episodes:
    return rollout(env, policy, env.dynamics.roots)


def test_a_response_that_leads_on_is_worth_the_best_choice_where_it_leads() -> None:
    arrays = hop_log().arrays
    worth = response_worth(arrays)
    rows = {s: i for i, s in enumerate(arrays.state_ids)}
    first = rows["hop/1"] * 2
    ann, bob = worth[arrays.cell[first]], worth[arrays.cell[first + 1]]
    assert (ann, bob) == (0.0, 1.0)


def test_experience_counts_the_sub_questions_to_come() -> None:
    env = make_env(question_log())
    assert (Experience.of(env.dynamics).later == 0).all()


def test_single_shot_learns_which_choice_suits_which_kind() -> None:
    env = make_env(question_log(400), preference=0.3)
    experience = Experience.of(env.dynamics)
    routed = play(env, SingleShot(experience, "knn"))
    best = max((play(env, Single(experience, c)) for c in range(3)), key=lambda e: e.reward.mean())
    assert routed.reward.mean() > best.reward.mean() + 0.03
    assert (routed.calls == 1).all()


def test_at_a_huge_weight_every_learned_reference_makes_one_cheapest_call() -> None:
    env = make_env(question_log(), preference=1000.0)
    experience = Experience.of(env.dynamics)
    for policy in (SingleShot(experience, "ridge"), Posterior(experience, Belief.fit(experience, True))):
        played = play(env, policy)
        assert (played.calls == 1).all()
        assert np.allclose(played.cost_usd, 100e-6)


def test_agreement_cascade_stops_as_soon_as_two_agree() -> None:
    env = make_env(question_log())
    experience = Experience.of(env.dynamics)
    arrays = env.dynamics.arrays
    played = play(env, Cascade(experience, (CHEAP, MIDDLE, DEAR), "agreement", 1.0))
    answers = np.asarray(arrays.answer).reshape(-1, 3)[played.task]
    agreed = answers[:, CHEAP] == answers[:, MIDDLE]
    assert np.array_equal(played.calls, np.where(agreed, 2, 3))
    quality = np.asarray(arrays.quality).reshape(-1, 3)[played.task]
    assert np.array_equal(played.quality[agreed], quality[agreed, CHEAP])


def test_cascade_with_an_exact_checker_accepts_the_first_right_answer() -> None:
    env = make_env(question_log())
    experience = Experience.of(env.dynamics)
    played = play(env, Cascade(experience, (CHEAP, MIDDLE, DEAR), "checker"))
    right = np.asarray(env.dynamics.arrays.quality).reshape(-1, 3)[played.task] > 0.5
    assert np.array_equal(played.quality > 0.5, right.any(axis=1))
    assert np.array_equal(played.calls[right[:, CHEAP]], np.ones(right[:, CHEAP].sum()))


def test_a_hidden_checker_leaves_no_cascade_with_checker_and_no_verdict_in_the_belief() -> None:
    env = make_env(question_log(), checker=None)
    table = references(env, thorough=False)
    assert "cascade with checker" not in table
    assert "cascade with learned scorer" in table
    belief = Belief.fit(Experience.of(env.dynamics), with_verdict=False)
    assert not belief.has_verdict.any()


def test_scorer_gives_a_verified_answer_more_than_a_refuted_one() -> None:
    env = make_env(question_log(300))
    scorer = AnswerScorer(Experience.of(env.dynamics), with_verdict=True)
    policy = Cascade(scorer.experience, (CHEAP,), "scorer", 2.0, scorer=scorer)
    observation, info = env.reset(seed=0)
    policy.begin(env)
    env.step(policy.act(observation, info["action_mask"]))
    rows = np.arange(40)
    verdict = dynamics_of(env).verdict_seen[:, 0]
    probability = scorer.probability(env.dynamics, rows)[:, 0]
    assert probability[verdict == 1].min() > probability[verdict == 0].max()


def test_belief_recovers_the_checker_and_how_answers_coincide() -> None:
    env = make_env(question_log(600))
    belief = Belief.fit(Experience.of(env.dynamics), with_verdict=True)
    assert belief.yes_if_right > 0.99
    assert belief.yes_if_wrong < 0.01
    assert belief.right_coincide.mean() > 0.9
    assert belief.wrong_coincide.mean() == pytest.approx(1 / 3, abs=0.15)


def test_sequential_beats_single_shot_where_a_checker_is_exact() -> None:
    env = make_env(question_log(400), preference=0.02)
    experience = Experience.of(env.dynamics)
    sequential = play(env, Posterior(experience, Belief.fit(experience, True)))
    single = play(env, SingleShot(experience, "ensemble"))
    assert sequential.reward.mean() > single.reward.mean() + 0.03
    assert 1 < sequential.calls.mean() < 3


def test_nothing_of_the_test_split_but_what_was_heard_changes_an_action() -> None:
    honest, spoiled = (make_env(question_log(spoil_test=spoil)) for spoil in (False, True))
    tables = [references(env, thorough=False) for env in (honest, spoiled)]
    for name in tables[0]:
        for mine, other in zip(tables[0][name][::5], tables[1][name][::5], strict=True):
            a, b = play(honest, mine), play(spoiled, other)
            assert np.array_equal(a.cost_usd, b.cost_usd), name
            assert np.allclose(a.quality, 1 - b.quality), name


# ----------------------------------------------------------------------------------------- backward induction


def outlook(n: int = 5, choices: int = 3, verdict: bool = True, seed: int = 0) -> Outlook:
    rng = np.random.default_rng(seed)
    return Outlook(
        right=rng.uniform(0.05, 0.95, (n, choices, len(GRID_WEIGHT))),
        price=rng.uniform(0.0, 0.2, (n, choices)),
        coincide=(rng.uniform(0.1, 0.5, n), rng.uniform(0.5, 0.95, n)),
        has_verdict=verdict,
        yes=(0.1, 0.9),
    )


def root(n: int) -> Node:
    return Node(np.broadcast_to(GRID_WEIGHT[None, :, None], (n, len(GRID_WEIGHT), 1)).copy(), ())


def grown(view: Outlook, path: tuple[int, ...], calls: int) -> Node:
    """The belief after `calls` calls, following the `path` of children, counted from either end."""
    node = root(len(view.price))
    for call in range(calls):
        node = list(children(node, view, view.right[:, call]))[-path[call]][0]
    return node


@pytest.mark.parametrize("verdict", [True, False])
def test_outcomes_of_a_call_exhaust_the_weight_of_a_node(verdict: bool) -> None:
    view = outlook(verdict=verdict)
    for path in product(range(2), repeat=2):
        node = grown(view, path, 2)
        total = sum(child.weight.sum(axis=(1, 2)) for child, _ in children(node, view, view.right[:, 2]))
        assert np.allclose(total, node.weight.sum(axis=(1, 2)))


def test_the_last_call_summed_out_equals_the_sum_over_its_outcomes() -> None:
    view = outlook()
    for path in product(range(2), repeat=2):
        node = grown(view, path, 2)
        quick = last_call(node, view, np.array([[0, 2]] * 5))
        for k, choice in enumerate((0, 2)):
            slow = sum(child.accept_value() for child, _ in children(node, view, view.right[:, choice]))
            assert np.allclose(quick[:, k], slow)


def exhaustive(node: Node, view: Outlook, left: frozenset[int], depth: int) -> np.ndarray:
    """Value of the best call by plain recursion over every choice and outcome."""
    mass, values = node.weight.sum(axis=(1, 2)), []
    for choice in left:
        value = -view.price[:, choice] * mass
        for child, _ in children(node, view, view.right[:, choice]):
            worth = child.accept_value()
            if depth > 1 and left - {choice}:
                worth = np.maximum(worth, exhaustive(child, view, left - {choice}, depth - 1))
            value = value + worth
        values.append(value)
    return np.asarray(np.max(values, axis=0))


@pytest.mark.parametrize("verdict", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_search_equals_exhaustive_recursion_where_no_candidate_is_cut(verdict: bool, depth: int) -> None:
    view = outlook(verdict=verdict)
    assert min(posterior.CANDIDATES) >= 3
    value, call = search(root(5), view, np.ones((5, 3), bool), depth)
    assert np.allclose(value, exhaustive(root(5), view, frozenset(range(3)), depth))
    assert (call >= 0).all()


def test_search_never_calls_what_is_closed() -> None:
    view = outlook()
    closed = np.zeros((5, 3), bool)
    value, call = search(root(5), view, closed, 2)
    assert (call == -1).all()
    assert np.isneginf(value).all()
    closed[:, 1] = True
    assert (search(root(5), view, closed, 2)[1] == 1).all()


def test_looking_further_ahead_is_never_worth_less() -> None:
    view, open_calls = outlook(), np.ones((5, 3), bool)
    values = [search(root(5), view, open_calls, depth)[0] for depth in (1, 2, 3)]
    assert (values[1] >= values[0] - 1e-12).all()
    assert (values[2] >= values[1] - 1e-12).all()
