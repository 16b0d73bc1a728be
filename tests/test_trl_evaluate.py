"""Text routers against numeric policies: the same decisions, on the same draws, come to the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from invented import task_log
from small_logs import make, query_rows

pytest.importorskip("torch")
pytest.importorskip("trl")

from rlroute.agents.trl import demonstrations as module
from rlroute.agents.trl.demonstrations import SHOWS_OF_REFERENCES, ShortQueries, demonstrations, numeric_twin
from rlroute.agents.trl.evaluate import episodes_of, figures, play_tasks, write_samples
from rlroute.agents.trl.generation import Sequences, Turn
from rlroute.agents.trl.models import load_model
from rlroute.agents.trl.rollouts import Player, make_envs
from rlroute.agents.trl.sft import tokens_and_labels
from rlroute.envs.budget_route.references import Learned
from rlroute.envs.contest import vector_env
from rlroute.envs.demonstrate import demonstrate
from rlroute.evaluation import tune
from rlroute.policies import AlwaysChoice
from rlroute.rollout import rollout

pytestmark = [pytest.mark.usefixtures("handmade"), pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")]
GIVEN = {"featuriser": "letters", "preference": [0.05, 0.5]}


@pytest.mark.parametrize("choice", [0, 1])
def test_a_constant_router_meets_what_the_numeric_one_meets(choice: int, tmp_path: Path) -> None:
    given = {"log": task_log(60), **GIVEN}
    language = load_model("tiny", lambda: ["some words"] * 8)
    envs = make_envs("rlroute/BudgetRouteText-v0", {**given, "split": "train", "prompt": "brief"}, language, 3)
    dynamics = envs[0].dynamics
    tasks = np.asarray(dynamics.roots)[:8]
    player = Player(language, envs[0].stops, 32)

    def turn(sequences: Sequences, logits: Any, limits: Sequence[int], greedy: bool = False) -> list[Turn]:
        ids = language.text_ids(f"<think>why</think><route>{dynamics.pool.names[choice]}</route>")
        return [Turn(list(ids), [-1.0] * len(ids)) for _ in limits]

    player.sampler.turn = turn  # type: ignore[method-assign]
    rollouts = play_tasks(player, envs, tasks, seed=3)
    told = episodes_of(rollouts)
    numeric = vector_env("rlroute/BudgetRoute-v0", "train", len(tasks), **given)
    played = rollout(numeric, AlwaysChoice(choice), tasks, seed=3)
    for name in ("task", "group", "quality", "cost_usd", "calls", "expensive_calls", "cost_weight", "reward"):
        np.testing.assert_allclose(getattr(told, name), getattr(played, name), err_msg=name)
    assert figures(rollouts)["top_share"] == 1.0
    assert figures(rollouts)["faulty"] == 0.0
    samples = write_samples(tmp_path / "samples.md", rollouts, "Samples", count=2).read_text()
    assert rollouts[0].transcript.splitlines()[0] in samples


@pytest.mark.parametrize("family", ["BudgetRoute", "EffortRoute"])
def test_demonstrations_are_paid_as_the_numeric_episodes_are(family: str) -> None:
    given = {"log": task_log(60), "prompt": "brief", "split": "train", "featuriser": "letters"}
    if family == "BudgetRoute":
        given |= {"budget_calls": (1, 2)}
        shown = demonstrations(f"rlroute/{family}Text-v0", given, 6)
    else:
        shown = demonstrations(f"rlroute/{family}Text-v0", {"prompt": "brief", "split": "train"}, 6)
    for transcript in shown:
        assert transcript.reward == pytest.approx(transcript.numeric_reward)
        assert not transcript.faults
        assert all(turn.startswith("<think>") and turn.endswith("</route>") for turn, _ in transcript.turns)


@pytest.mark.parametrize("same", [False, True])
def test_the_rule_that_teaches_asks_for_more_where_it_gains_most(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if same:  # one candidate is the best under every cap
        monkeypatch.setattr(
            module, "tune", lambda *given: {name: [tuned[0]] * 2 for name, tuned in tune(*given).items()}
        )
    given: dict[str, Any] = {"log": task_log(120), "featuriser": "letters", "split": "train", "budget_calls": (1, 2)}
    env: Any = gym.make("rlroute/BudgetRouteText-v0", prompt="brief", disable_env_checker=True, **given).unwrapped
    learned = Learned.of(env.dynamics)
    asked: dict[int, list[float]] = {}  # gains of the steps that got more, by cap
    spared: dict[int, list[float]] = {}  # and of those that might have
    numerics: dict[Any, Any] = {}  # played in turn
    shows = SHOWS_OF_REFERENCES["rlroute/BudgetRoute-v0"](env, np.random.default_rng(0))
    for shown in islice(shows, 60):
        numeric = numerics.setdefault(shown.changes, env.numeric_type(**{**given, **dict(shown.changes)}))
        numeric.reset(seed=shown.seed, options=shown.options)
        dynamics, ended = numeric.dynamics, False
        cap = int(dynamics.calls_left[0])
        while not ended:
            action, free = shown.act(numeric), dynamics.action_mask[0, learned.large] == 1
            gain = float(learned.gain[dynamics.state[0]])
            if free:
                (asked if action == learned.large else spared).setdefault(cap, []).append(gain)
            _, _, terminated, truncated, _ = numeric.step(action)
            ended = terminated or truncated
        assert dynamics.expensive_calls[0] <= cap
    assert set(asked) == {1, 2}
    for cap, gains in asked.items():
        assert min(gains) >= max(spared[cap])


def test_a_teacher_that_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher='reference': expected 'paper' for rlroute/ThinkRoute-v0"):
        demonstrations("rlroute/ThinkRouteText-v0", {"log": make(query_rows())}, 1, teacher="reference")


def test_short_queries_call_what_long_ones_call() -> None:
    given: dict[str, Any] = {"log": make(query_rows()), "prompt": "brief", "split": "train", "featuriser": "letters"}
    env = ShortQueries(**given)
    twin = numeric_twin(env)
    call = twin.layout.action("call", 1)

    def act(numeric: Any) -> int:
        heard = numeric.dynamics.num_heard[0] > 0
        return int(numeric.layout.action("accept", 1)) if heard else int(call)

    shown = demonstrate(env, twin, act, seed=0)
    assert shown.turns[0][0].endswith("<search> large:this </search>")
    assert shown.reward == pytest.approx(shown.numeric_reward)


def test_labels_are_what_the_policy_wrote() -> None:
    language = load_model("tiny", lambda: ["some words"] * 8)
    turns = [("<think>a</think><route>small</route>", "\n\n<state>b</state>\n\n"), ("<route>large</route>", "")]
    row = tokens_and_labels(language, "Prompt.", turns)
    learned = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == i]
    assert language.decode(learned) == turns[0][0] + turns[1][0]
    assert set(row["labels"]) - set(row["input_ids"]) == {-100}
    assert language.decode(row["input_ids"]) == "Prompt." + turns[0][0] + turns[0][1] + turns[1][0]
