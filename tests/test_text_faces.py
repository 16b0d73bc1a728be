"""What every text face promises: the numeric environment's outcome for the same decisions, whatever is written."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from text_logs import two_hop_log

from rlroute.envs import REGISTRY, EnvEntry, entry
from rlroute.envs.demonstrate import demonstrate
from rlroute.envs.faces import RoutingEnv
from rlroute.envs.prompts import PromptError
from rlroute.envs.text import FourCharacters
from rlroute.envs.think_route import protocol
from rlroute.envs.tool_graph.suites import STATES

EPISODES = 2000
ROWS = pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.text_id)
# Arguments under which the faces are compared, beside their defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "rlroute/ThinkRoute-v0": [
        {},
        {"reward": "router_r1", "preference": (0.1, 0.9)},
        {"budget_usd": (0.0003, 0.002), "checker": None},
    ],
    "rlroute/BudgetRoute-v0": [{"preference": 0.2}, {"budget_calls": (1, 4)}],
    "rlroute/EffortRoute-v0": [{}, {"reward": "ares"}],
    "rlroute/ToolGraph-v0": [{}, {"log": "healing-19", "split": "test"}],
}
CASES = [(row, variant) for row in REGISTRY for variant in VARIANTS[row.id]]


def make(row: EnvEntry, **arguments: Any) -> Any:
    return gym.make(row.text_id, **arguments).unwrapped


@ROWS
@pytest.mark.filterwarnings("ignore")
def test_gymnasium_check_env_passes(row: EnvEntry) -> None:
    check_env(gym.make(row.text_id, render_mode="ansi").unwrapped)


@pytest.mark.parametrize(("row", "arguments"), CASES, ids=lambda value: getattr(value, "text_id", None))
def test_written_decisions_have_the_numeric_outcome(row: EnvEntry, arguments: dict[str, Any]) -> None:
    text, numeric = make(row, **arguments), gym.make(row.id, **arguments).unwrapped
    assert isinstance(numeric, RoutingEnv)
    rng = np.random.default_rng(0)

    def act(env: RoutingEnv) -> int:
        legal = np.flatnonzero(env.action_masks())
        return int(rng.choice(legal)) if len(legal) else 0

    for seed in range(EPISODES // len(VARIANTS[row.id])):
        options = {"slot": seed % 7, "group": 1 + seed % 3}
        told = demonstrate(text, numeric, act, seed=seed, options=options)
        assert told.faults == ()
        assert told.reward == pytest.approx(told.numeric_reward, abs=1e-9)
        assert np.allclose(told.totals, told.numeric_totals, rtol=1e-12, atol=1e-15)


@ROWS
def test_episodes_repeat_and_are_pickled_by_their_arguments(row: EnvEntry) -> None:
    first = make(row, prompt="brief")
    second = pickle.loads(pickle.dumps(first))
    for env in (first, second):
        env.reset(seed=3)
    turn = first.narrate(int(np.flatnonzero(first.numeric.action_masks())[-1]), "So it is.") or "?"
    assert first.prompt == second.prompt
    (seen_a, *outcome_a, _), (seen_b, *outcome_b, _) = first.step(turn), second.step(turn)
    assert (seen_a, outcome_a) == (seen_b, outcome_b)


@ROWS
def test_members_of_a_group_share_their_prompt(row: EnvEntry) -> None:
    env = make(row, preference=(0.01, 1.0))
    prompts = [env.reset(seed=5, options={"slot": slot, "group": 4})[0] for slot in range(8)]
    prompts = [prompt.split("\n\nState:\n")[0] for prompt in prompts]  # alarms of tools are drawn, as outages are
    assert len(set(prompts[:4])) == len(set(prompts[4:])) == 1
    assert prompts[0] != prompts[4]


@ROWS
def test_a_step_after_the_end_is_refused(row: EnvEntry) -> None:
    env = make(row)
    env.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step("?")
        over = terminated or truncated
    assert info["faults"]
    with pytest.raises(gym.error.ResetNeeded):
        env.step("?")


TAGS = [f"<{slash}{tag}>" for tag in (*protocol.TAGS, "route", "state") for slash in ("", "/")]
NAMES = ["large", "gpt-4.1", "high", "finish", "call ", "consult", "query", "Who founded it?"]
SIGNS = [":", "...", "<", ">", "\n", " ", "\x00", "\ud800", "é漢", "\u202e", "$", "%s", "{0}", "\\1"]
SNIPPETS = [*TAGS, *NAMES, *SIGNS]


def strings(rng: np.random.Generator, valid: list[str]) -> Iterator[str]:
    """Random strings of snippets, and valid turns with parts removed, doubled and moved."""
    while True:
        yield "".join(rng.choice(SNIPPETS, int(rng.integers(0, 12))).tolist())
        turn = valid[int(rng.integers(len(valid)))]
        a, b = np.sort(rng.integers(0, len(turn) + 1, 2)).tolist()
        piece = str(rng.choice(SNIPPETS))
        yield (turn[:a] + turn[b:], turn[:b] + turn[a:], turn[:a] + piece + turn[a:], turn[b:] + turn[:b])[
            int(rng.integers(4))
        ]


@ROWS
def test_a_hundred_thousand_strings(row: EnvEntry) -> None:
    env, rng = make(row), np.random.default_rng(1)
    env.reset(seed=0)
    actions = range(env.numeric.layout.num_actions)
    valid = [text for text in map(env.narrate, actions) if text and row.id != "rlroute/ThinkRoute-v0"]
    valid += ["<think>t</think><search> mixtral-8x22b:Who is it? </search>", "<think>t</think><answer>It</answer>"]
    source, over = strings(rng, valid), False
    for _ in range(100_000 // len(REGISTRY)):
        if over:
            env.reset()
        transcript, reward, terminated, truncated, info = env.step(next(source))
        over = terminated or truncated
        assert np.isfinite(reward)
        assert len(transcript) <= 4 * env.limits.context_tokens
        assert len(info["reply"]) <= 4 * env.limits.reply_tokens + 40


@pytest.mark.parametrize(
    "piece", ["<search>", "<answer>", "<think>", "</think>", "<", "<search>a:b", "<answer><search>", ":"]
)
def test_parsing_is_linear(piece: str) -> None:
    text = piece * 200_000  # anything quadratic in this takes hours
    assert text.startswith(protocol.cut(text))
    assert protocol.first_action(text) is None
    assert protocol.parse_route(text) is None or "a:b" in piece
    assert not any(f"<{slash}{tag}>" in protocol.without_tags(text) for tag in protocol.TAGS for slash in ("", "/"))
    assert "no enclosed tag" in protocol.format_faults(text, protocol.substring_name(["a", "b"]))


def test_the_context_rolls() -> None:
    env = gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), context_tokens=120, prompt_tokens=60, turn_tokens=60)
    start, _ = env.reset(seed=0)
    assert len(start) == 4 * 60
    seen, *_ = env.step("x" * 300)
    assert seen == start + "x" * 240
    seen, *_ = env.step("y" * 300)
    assert seen == (start + "x" * 240 + "y" * 240)[-480:]


def test_the_routers_own_tokens_cost() -> None:
    given = {"log": two_hop_log(), "preference": 0.5}
    free, paid = (make(entry("rlroute/ThinkRoute-v0"), router_usd_per_mtok=price, **given) for price in (0.0, 10.0))
    turn = "<think>t</think><search>small:Who founded it?</search>"
    outcomes = []
    for env in (free, paid):
        env.reset(seed=0)
        outcomes.append(env.step(turn))
    written = FourCharacters().count(turn)
    (_, reward, *_, info), (_, less, *_, charged) = outcomes
    assert charged["totals"][1] - info["totals"][1] == pytest.approx(written * 1e-5)
    assert reward - less == pytest.approx(0.5 * written * 1e-5 / paid.dynamics.c_ref)


def test_prompts_show_prices_and_the_terms() -> None:
    env = gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), preference=0.25, max_rounds=3)
    prompt, _ = env.reset(seed=0, options={"task": "q0"})
    for shown in ("2 USD out", "10 USD in", "1.0 s a call", "weight is 0.25", "at most 3 times", "built bridge 0?"):
        assert shown in prompt
    prompt, _ = gym.make("rlroute/BudgetRouteText-v0", budget_calls=3).reset(seed=0)
    assert "expensive calls left 3" in prompt


def test_a_template_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Question: $question, $gold")
    with pytest.raises(PromptError, match=r"prompt.txt: found the field \$gold, expected among .*\$question"):
        gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), prompt=path)
    path.write_text("Costs $ 5: $question")
    with pytest.raises(PromptError, match="begins no field"):
        gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), prompt=path)
    with pytest.raises(PromptError, match="no such file"):
        gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), prompt=tmp_path / "none.txt")
    path.write_text("$$5 for: $question")
    prompt, _ = gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), prompt=path).reset(options={"task": "q0"})
    assert prompt == "$5 for: Who founded the firm that built bridge 0?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context_tokens": 100}, "too short for one round, expected at least"),
        ({"turn_tokens": 0}, "expected a number of tokens"),
        ({"router_usd_per_mtok": -1.0}, "expected a price"),
        ({"commit": "plurality"}, "the router writes the answer"),
        ({"checker": "action"}, "no words in this protocol"),
        ({"obs": "index"}, "a text face shows texts"),
        ({"reward": "router_r1_fixed", "preference": 2.0}, "expects a cost weight in"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), **arguments)


def test_effort_text_ends_on_bad_format_under_ares() -> None:
    env = gym.make("rlroute/EffortRouteText-v0", reward="ares")
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step("medium, I think")
    assert (reward, terminated, info["faults"]) == (-1.0, True, ("no decision",))


def test_budget_constrained_decoding() -> None:
    """Equation 9 of arXiv 2602.21227: what the budget does not cover is replaced by the cheap choice, unpunished."""
    budget_route = entry("rlroute/BudgetRoute-v0")
    free, bound = (make(budget_route, budget_calls=1, constrained=on) for on in (False, True))
    for env in (free, bound, pickle.loads(pickle.dumps(bound))):
        env.reset(seed=0)
        rewards = [env.step("<route>gpt-4.1</route>")[1] for _ in range(2)]
        assert rewards[0] == 0
        assert rewards[1] == (-1 if env is free else 0)
        assert env.dynamics.visits[0].tolist() == ([0, 1] if env is free else [1, 1])


def test_malformed_turns_stop_the_numeric_episode_too() -> None:
    env = make(entry("rlroute/ToolGraph-v0"))
    env.reset(seed=0)
    rewards = []
    while env.turns_left:
        _, reward, terminated, truncated, info = env.step("well")
        rewards.append(reward)
    assert (terminated, truncated) == (False, True)
    assert set(rewards) == {-1.0}
    assert STATES[info["outcome"]] == "stopped"


def test_the_repaired_reward_survives_a_pickle() -> None:
    env = make(entry("rlroute/ThinkRoute-v0"), log=two_hop_log(), reward="router_r1_fixed", preference=0.3)
    again = pickle.loads(pickle.dumps(env))
    assert (again.fixed, again.router_usd_per_mtok) == (True, env.router_usd_per_mtok) == (True, 0.1)


def test_names_are_found_by_either_id() -> None:
    assert entry("rlroute:rlroute/ThinkRouteText-v0") is entry("rlroute/ThinkRoute-v0")
