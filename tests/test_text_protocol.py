"""Router-R1's protocol, transcript by transcript: what is observed, what it costs, what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from text_logs import COMPLETION_TOKENS, INPUT_USD, LONG, OUTPUT_USD, PROMPT_TOKENS, two_hop_log

from rlroute.envs.think_route.protocol import blocks, cut, first_action

ALPHA = 0.3
WHOLE = "Who founded the firm that built bridge 0?"
FIRM = "Which firm built bridge 0?"
T = "<think>t</think>"
RIGHT, WRONG = f"{T}<answer>Ann Lee</answer>", f"{T}<answer>Bob Ray</answer>"
ROUTER_USD = 0.1e-6  # a token of the router, four characters long


def info(text: str) -> str:
    return f"\n\n<information>{text}</information>\n\n"


def ask(name: str, query: str) -> str:
    return f"{T}<search> {name}:{query} </search>"


@dataclass(frozen=True)
class Case:
    """Turns, the reply to each, the models that were paid, and whether answer and format are right."""

    turns: tuple[str, ...]
    replies: tuple[str, ...]
    calls: tuple[str, ...] = ()
    right: bool = False
    format: bool = True  # under router_r1
    fixed_format: bool | None = None  # under router_r1_fixed; None: the same
    fixed_replies: tuple[str, ...] | None = None
    fixed_calls: tuple[str, ...] | None = None
    fixed_right: bool | None = None
    over: bool = True


BAD: dict[str, Any] = {"format": False}
NONE = info("None")
CASES = {
    # answers
    "right at once": Case((RIGHT,), ("",), right=True),
    "wrong at once": Case((WRONG,), ("",)),
    "normal form": Case((f"{T}<answer> the  ann LEE. </answer>",), ("",), right=True),
    "non-breaking space": Case((f"{T}<answer>Ann\u00a0Lee</answer>",), ("",), right=True),
    "empty answer": Case((f"{T}<answer></answer>",), ("",)),
    "dots for an answer": Case((f"{T}<answer>...</answer>",), ("",)),
    "colon in the answer": Case((f"{T}<answer>Ann Lee: the founder</answer>",), ("",)),
    "emoji in the reasoning": Case((f"<think>\U0001f914 ñ 漢</think>{RIGHT[len(T) :]}",), ("",), right=True),
    "null character": Case((f"<think>\x00</think>{RIGHT[len(T) :]}",), ("",), right=True),
    "lone surrogate": Case((f"<think>\ud800</think>{RIGHT[len(T) :]}",), ("",), right=True),
    "what follows the answer is cut": Case((f"{RIGHT} And so on <search>",), ("",), right=True),
    "of two answers the first counts": Case((f"{WRONG}<answer>Ann Lee</answer>",), ("",)),
    "two thoughts": Case((f"{T}{RIGHT}",), ("",), right=True),
    "white space around": Case((f"  \n{RIGHT}",), ("",), right=True),
    # routes
    "the whole question": Case((ask("large", WHOLE), RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True),
    "a heard wrong answer": Case((ask("small", WHOLE), WRONG), (info("It is Bob Ray."), ""), ("small",)),
    "heard wrong, answered right": Case(
        (ask("small", WHOLE), RIGHT), (info("It is Bob Ray."), ""), ("small",), right=True
    ),
    "hop by hop": Case(
        (ask("small", FIRM), ask("small", "Who founded Acme?"), RIGHT),
        (info("It is Acme."), info("It is Ann Lee."), ""),
        ("small", "small"),
        right=True,
    ),
    "down the wrong hop": Case(
        (ask("large", FIRM), ask("small", "Who founded Bolt?"), f"{T}<answer>Eve Fox</answer>"),
        (info("It is Bolt."), info("It is Eve Fox."), ""),
        ("large", "small"),
    ),
    "of two firms the one that is named": Case(
        (ask("small", FIRM), ask("large", FIRM), ask("small", "Who founded Bolt?")),
        (info("It is Acme."), info("It is Bolt."), info("It is Eve Fox.")),
        ("small", "large", "small"),
        over=False,
    ),
    "an answer half way": Case(
        (ask("small", FIRM), f"{T}<answer>Acme</answer>"), (info("It is Acme."), ""), ("small",)
    ),
    "a right answer half way": Case((ask("small", FIRM), RIGHT), (info("It is Acme."), ""), ("small",), right=True),
    "whole first, then in parts": Case(
        (ask("small", WHOLE), ask("small", FIRM)),
        (info("It is Bob Ray."), info("It is Acme.")),
        ("small",) * 2,
        over=False,
    ),
    "nothing in common: the current question": Case(
        (ask("large", "zzz"), RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True
    ),
    "in other words": Case(
        (ask("small", "the firm which built that bridge"), RIGHT), (info("It is Acme."), ""), ("small",), right=True
    ),
    "over several lines": Case(
        (f"{T}<search>\nlarge:\n{WHOLE}\n</search>", RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True
    ),
    "what follows the search is cut": Case(
        (ask("large", WHOLE) + WRONG, RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True
    ),
    "four calls and an answer": Case(
        (ask("small", WHOLE), ask("large", WHOLE), ask("small", FIRM), ask("large", FIRM), RIGHT),
        (info("It is Bob Ray."), info("It is Ann Lee."), info("It is Acme."), info("It is Bolt."), ""),
        ("small", "large", "small", "large"),
        right=True,
    ),
    "a call in the last turn": Case((T, T, T, T, ask("large", WHOLE)), ("",) * 5, **BAD),
    "a fifth call": Case(
        (
            ask("small", WHOLE),
            ask("large", WHOLE),
            ask("small", FIRM),
            ask("large", FIRM),
            ask("small", "Who founded Acme?"),
        ),
        (info("It is Bob Ray."), info("It is Ann Lee."), info("It is Acme."), info("It is Bolt."), ""),
        ("small", "large", "small", "large"),
        **BAD,
    ),
    "asked twice: nothing more to say": Case(
        (ask("large", WHOLE), ask("large", WHOLE), RIGHT), (info("It is Ann Lee."), NONE, ""), ("large",), right=True
    ),
    "pool error": Case((ask("small-plus", FIRM), RIGHT), (NONE, ""), right=True),
    # the table of invalid actions
    "no tag": Case(("Well.", RIGHT), ("", ""), right=True, **BAD),
    "only a thought": Case((T, RIGHT), ("", ""), right=True),
    "no tag, five times": Case(("Well.",) * 5, ("",) * 5, **BAD),
    "nothing at all": Case(("",) * 5, ("",) * 5, **BAD),
    "white space": Case((" \n\t", RIGHT), ("", ""), right=True),
    "no colon": Case((f"{T}<search> large </search>", RIGHT), ("", ""), right=True, **BAD),
    "full-width colon": Case((f"{T}<search> large：{WHOLE} </search>", RIGHT), ("", ""), right=True, **BAD),
    "no name": Case((f"{T}<search> :{WHOLE} </search>", RIGHT), ("", ""), right=True, **BAD),
    "empty query": Case((f"{T}<search> large: </search>", RIGHT), ("", ""), right=True, **BAD),
    "empty search": Case((f"{T}<search></search>", RIGHT), ("", ""), right=True, **BAD),
    "placeholder query": Case((ask("large", "query"), RIGHT), ("", ""), right=True, **BAD),
    "dots for a query": Case((ask("large", "..."), RIGHT), ("", ""), right=True, **BAD),
    "placeholder name": Case((ask("Model-Name", WHOLE), RIGHT), ("", ""), right=True, **BAD),
    "unknown model": Case((ask("gpt-9", WHOLE), RIGHT), (NONE, ""), right=True, **BAD),
    "two colons": Case(
        (ask("large", f"{WHOLE}: now"), RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True, **BAD
    ),
    "the query is what stands between two colons": Case(
        (ask("small", f"{FIRM}: {WHOLE}"), RIGHT), (info("It is Acme."), ""), ("small",), right=True, **BAD
    ),
    "model name in the query": Case(
        (ask("large", f"large, {WHOLE}"), RIGHT), (info("It is Ann Lee."), ""), ("large",), right=True, **BAD
    ),
    # names: a substring will do, or has to be exact
    "another case": Case(
        (ask("LARGE", WHOLE), RIGHT),
        (info("It is Ann Lee."), ""),
        ("large",),
        right=True,
        fixed_format=False,
        fixed_replies=(NONE, ""),
        fixed_calls=(),
    ),
    "more than the name": Case(
        (ask("the large model", WHOLE), RIGHT),
        (info("It is Ann Lee."), ""),
        ("large",),
        right=True,
        fixed_format=False,
        fixed_replies=(NONE, ""),
        fixed_calls=(),
    ),
    "part of the name": Case(
        (ask("lar", WHOLE), RIGHT),
        (info("It is Ann Lee."), ""),
        ("large",),
        right=True,
        fixed_format=False,
        fixed_replies=(NONE, ""),
        fixed_calls=(),
    ),
    "the longer of two names": Case(
        (ask("small-plus", "Who founded Acme?"),),
        (info("<answer>Ann Lee</answer>"),),
        ("small-plus",),
        over=False,
        fixed_replies=(info("[answer]Ann Lee[/answer]"),),
    ),
    # pool text with protocol tags
    "a tag in the reply": Case(
        (ask("small-plus", WHOLE), RIGHT),
        (info("<answer>Ann Lee</answer>"), ""),
        ("small-plus",),
        right=True,
        format=False,
        fixed_format=True,
        fixed_replies=(info("[answer]Ann Lee[/answer]"), ""),
    ),
    "a tag in the reply, answered wrong": Case(
        (ask("small-plus", WHOLE), WRONG),
        (info("<answer>Ann Lee</answer>"), ""),
        ("small-plus",),
        format=False,
        fixed_format=True,
        fixed_replies=(info("[answer]Ann Lee[/answer]"), ""),
    ),
    # format
    "no thought": Case(("<answer>Ann Lee</answer>",), ("",), right=True, **BAD),
    "empty thought": Case(("<think></think><answer>Ann Lee</answer>",), ("",), right=True, **BAD),
    "dots for a thought": Case(("<think> ... </think><answer>Ann Lee</answer>",), ("",), right=True, **BAD),
    "thought after the answer": Case((f"<answer>Ann Lee</answer>{T}",), ("",), right=True, **BAD),
    "words before the thought": Case((f"Sure. {RIGHT}",), ("",), right=True, **BAD),
    "open thought": Case(("<think>t<answer>Ann Lee</answer>",), ("",), right=True, **BAD),
    "open answer": Case((f"{T}<answer>Ann Lee", RIGHT), ("", ""), right=True, **BAD),
    "open search": Case((f"{T}<search>large:{WHOLE}", RIGHT), ("", ""), right=True, **BAD),
    "closed without being open": Case((f"{T}</search>", RIGHT), ("", ""), right=True, **BAD),
    "search within a thought": Case(
        (f"<think>t<search>large:{WHOLE}</search></think>", RIGHT),
        (info("It is Ann Lee."), ""),
        ("large",),
        right=True,
        **BAD,
    ),
    "search within an answer": Case(
        (f"{T}<answer><search>large:{WHOLE}</search></answer>", RIGHT),
        (info("It is Ann Lee."), ""),
        ("large",),
        right=True,
        **BAD,
    ),
    "answer, then search": Case((f"{RIGHT}<search>large:{WHOLE}</search>",), ("",), right=True, **BAD),
    "information of its own": Case((f"{T}<information>Ann Lee</information>{RIGHT}",), ("",), right=True, **BAD),
    "other tags are words": Case((f"{T}<Answer>x</Answer><answer a=1>{RIGHT[len(T) :]}",), ("",), right=True),
    "escaped tags are words": Case((f"{T}&lt;answer&gt;x&lt;/answer&gt;{RIGHT[len(T) :]}",), ("",), right=True),
    # lengths
    "a turn that is too long": Case(
        (f"<think>{'x' * 5000}</think>{RIGHT[len(T) :]}", RIGHT), ("", ""), right=True, **BAD
    ),
    "a reply that is too long": Case(
        (ask("large", FIRM), ask("large", "Who founded Bolt?")),
        (info("It is Bolt."), info(LONG[: 4 * 512])),
        ("large", "large"),
        over=False,
    ),
}


@lru_cache(maxsize=2)
def make(reward: str) -> Any:
    arguments: dict[str, Any] = {"preference": ALPHA, "checker": None, "reward": reward}
    return gym.make("rlroute/ThinkRouteText-v0", log=two_hop_log(), **arguments).unwrapped


def saved_share(cost: float, costs: list[float]) -> float:
    low, high = np.percentile(np.sqrt(costs), [5, 95])
    return 1 - float(np.clip((np.sqrt(cost) - low) / (high - low), 0, 1))


def play(case: Case, reward: str) -> tuple[list[str], float, bool, dict[str, Any]]:
    env = make(reward)
    env.reset(seed=0, options={"task": "q0"})
    replies, total, over, last = [], 0.0, False, {}
    for turn in case.turns:
        assert not over
        _, paid, terminated, truncated, last = env.step(turn)
        total += paid
        over = terminated or truncated
        replies.append(last["reply"])
    return replies, total, over, last


@pytest.mark.parametrize("name", CASES)
def test_router_r1(name: str) -> None:
    case = CASES[name]
    replies, reward, over, last = play(case, "router_r1")
    assert replies == list(case.replies)
    assert over == case.over
    cost = sum(COMPLETION_TOKENS[call] * OUTPUT_USD[call] for call in case.calls)
    assert make("router_r1").dynamics.totals.output_cost_usd[0] == pytest.approx(cost, abs=1e-15)
    prompts = sum(PROMPT_TOKENS * INPUT_USD[call] for call in case.calls)
    assert last["totals"][1] == pytest.approx(cost + prompts, abs=1e-15)
    if not case.over:
        assert reward == 0
        return
    assert (not last["faults"]) == case.format, last["faults"]
    # Uniform routing asks one model the whole question; all questions cost the same.
    share = saved_share(cost, [COMPLETION_TOKENS[name] * OUTPUT_USD[name] for name in OUTPUT_USD] * 4)
    expected = -1.0 if not case.format else case.right * (1 - ALPHA + ALPHA * share)
    assert reward == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_router_r1_fixed(name: str) -> None:
    case = CASES[name]
    replies, reward, over, last = play(case, "router_r1_fixed")
    assert replies == list(case.fixed_replies or case.replies)
    assert over == case.over
    calls = case.calls if case.fixed_calls is None else case.fixed_calls
    price = {name: COMPLETION_TOKENS[name] * OUTPUT_USD[name] + PROMPT_TOKENS * INPUT_USD[name] for name in OUTPUT_USD}
    kept = [cut(turn[: 4 * 1024]) for turn in case.turns]
    cost = sum(price[call] for call in calls) + ROUTER_USD * sum(-(-len(turn) // 4) for turn in kept)
    assert last["totals"][1] == pytest.approx(cost, abs=1e-15)
    if not case.over:
        assert reward == 0
        return
    right_format = case.format if case.fixed_format is None else case.fixed_format
    assert (not last["faults"]) == right_format, last["faults"]
    share = saved_share(cost, list(price.values()) * 4)
    expected = -1.0 if not right_format else (1 - ALPHA) * case.right + ALPHA * share
    assert reward == pytest.approx(expected, abs=1e-9)


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60
    assert sum(not case.format for case in CASES.values()) >= 25
    assert sum(case.right and case.format for case in CASES.values()) >= 15


def test_a_turn_ends_at_the_search_even_if_an_answer_comes_first() -> None:
    assert cut("<answer>a</answer> <search>b:c</search> d") == "<answer>a</answer> <search>b:c</search>"
    assert cut("<answer>a</answer> d") == "<answer>a</answer>"
    assert cut("no tag") == "no tag"


def test_the_first_enclosed_action_is_found() -> None:
    assert first_action("<search>a</answer><answer>b</answer></search>") == ("search", "a</answer><answer>b</answer>")
    assert first_action("<answer>a<search>b</search>") == ("search", "b")
    assert first_action("</answer><answer>") is None


def test_nesting_and_balance() -> None:
    assert blocks("<think>a</think><answer>b</answer>") == ([("think", "a"), ("answer", "b")], True)
    assert not blocks("<think><answer>b</answer></think>")[1]
    assert not blocks("<think>a")[1]
    assert not blocks("a</think>")[1]


def test_an_empty_answer_takes_no_quality() -> None:
    """A reply of which no answer was made out is repeated by its text; saying nothing is worth nothing."""
    log = two_hop_log({"q#|large|answer": ""})
    env = gym.make("rlroute/ThinkRouteText-v0", log=log, reward="router_r1", preference=ALPHA).unwrapped
    for answer, quality in (("", 0.0), ("It is Ann Lee.", 1.0)):
        env.reset(seed=0, options={"task": "q0"})
        env.step(ask("large", WHOLE))
        *_, last = env.step(f"{T}<answer>{answer}</answer>")
        assert last["totals"][0] == quality


@pytest.mark.parametrize("reward", ["linear", "router_r1", "router_r1_fixed"])
def test_an_answer_to_a_part_of_the_question_is_worth_nothing(reward: str) -> None:
    """Not even where the log scores the answers to parts as well."""
    log = two_hop_log(parts=1.0)
    env = gym.make("rlroute/ThinkRouteText-v0", log=log, reward=reward, preference=ALPHA).unwrapped
    part, rest = ask("small", FIRM), ask("small", "Who founded Acme?")
    for turns, answer, quality in (((part,), "Acme", 0.0), ((part, rest), "Acme", 0.0), ((part, rest), "Ann Lee", 1.0)):
        env.reset(seed=0, options={"task": "q0"})
        for turn in turns:
            env.step(turn)
        *_, last = env.step(f"{T}<answer>{answer}</answer>")
        assert last["totals"][0] == quality, (turns, answer)


def test_an_end_without_money_is_no_fault_of_format() -> None:
    reserve = 512 * OUTPUT_USD["small"] + PROMPT_TOKENS * INPUT_USD["small"]
    env = gym.make(
        "rlroute/ThinkRouteText-v0", log=two_hop_log(), reward="router_r1", budget_usd=reserve, preference=ALPHA
    ).unwrapped
    env.reset(seed=0, options={"task": "q0"})
    env.step(ask("small", FIRM))
    _, reward, terminated, _, last = env.step(ask("small", "Who founded Acme?"))
    assert (reward, terminated, last["faults"]) == (0.0, True, ())


def test_the_running_window_is_over_episodes() -> None:
    env = gym.make(
        "rlroute/ThinkRouteText-v0", log=two_hop_log(), reward="router_r1", reward_window="running", preference=ALPHA
    ).unwrapped
    costs, rewards = [], []
    for name in ("small", "large", "small-plus", "small", "large"):
        env.reset(seed=0, options={"task": "q1"})
        env.step(ask(name, WHOLE.replace("0", "1")).replace("<answer>", ""))
        _, reward, *_ = env.step(RIGHT)
        costs.append(COMPLETION_TOKENS[name] * OUTPUT_USD[name])
        low, high = np.percentile(np.sqrt(costs), [5, 95])
        share = 0.5 if high - low < 1e-11 else saved_share(costs[-1], costs)
        rewards.append((reward, -1.0 if name == "small-plus" else 1 - ALPHA + ALPHA * share))
    assert all(got == pytest.approx(expected) for got, expected in rewards)
