"""Text routers in rollouts: which tokens are learned from, what a script of turns earns, and where turns end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import task_log
from small_logs import make, query_rows

pytest.importorskip("torch")
pytest.importorskip("trl")

import torch

from rlroute.agents.trl.checks import ModelError
from rlroute.agents.trl.generation import Sequences, Turn, TurnSampler
from rlroute.agents.trl.models import LanguageModel, load_model
from rlroute.agents.trl.rollouts import Player, Rollouts, group_seed, make_envs

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TURNS = ("<think>why</think><search> large:this </search>", "<think>good</think><answer>Answer 1</answer>")
TEXTS = [f"Question {i}? {TURNS[0]}\n\n<information>The answer is {i}.</information>\n\n{TURNS[1]}" for i in range(40)]
THINK = {"prompt": "brief", "featuriser": "letters", "split": "train", "preference": 0.1}


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny", lambda: TEXTS)


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def moved(tiny: LanguageModel, request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    """The model on every kind of device that is here."""
    tiny.model.to(request.param).eval()
    yield tiny
    tiny.model.to("cpu")


def think_envs(language: LanguageModel, count: int, **changes: Any) -> list[Any]:
    return make_envs("rlroute/ThinkRouteText-v0", {"log": make(query_rows()), **THINK, **changes}, language, count)


def scripted(player: Player, script: Callable[[int], Sequence[str]], overshoot: str = "") -> None:
    """Make a player write the turns of a script; row i of a batch follows script(i) as long as all rows go on."""
    asked = [0]

    def turn(sequences: Sequences, logits: Any, limits: Sequence[int], greedy: bool = False) -> list[Turn]:
        written = [player.language.text_ids(script(row)[asked[0]] + overshoot) for row in range(len(limits))]
        asked[0] += 1
        return [Turn(ids, [-1.0] * len(ids)) for ids in written]

    player.sampler.turn = turn  # type: ignore[method-assign]


def answers(env: Any, task: int) -> tuple[str, str]:
    """Two turns: ask the large model, then say what it said."""
    row = int(np.flatnonzero(env.dynamics.arrays.state_ids == env.dynamics.arrays.state_ids[task])[0])
    name = str(env.dynamics.arrays.state_ids[row]).removeprefix("q")
    return TURNS[0], f"<think>good</think><answer>Answer {name}</answer>"


@pytest.mark.parametrize("overshoot", ["", "\n junk"])
def test_what_is_masked_is_what_the_environment_wrote(tiny: LanguageModel, overshoot: str) -> None:
    env = think_envs(tiny, 1)[0]
    task = int(env.dynamics.roots[0])
    player = Player(tiny, env.stops, 64)
    script = answers(env, task)
    scripted(player, lambda row: script, overshoot)
    (rollout,) = player.play([env], [(0, {"task": task})])
    assert [turn for turn, _ in rollout.turns] == list(script)
    sampled = [i for i, own in zip(rollout.completion_ids, rollout.env_mask, strict=True) if own]
    replied = [i for i, own in zip(rollout.completion_ids, rollout.env_mask, strict=True) if not own]
    assert tiny.decode(sampled) == script[0] + overshoot + script[1] + overshoot, "kept as they were sampled"
    assert tiny.decode(replied) == rollout.turns[0][1]
    assert rollout.logprobs == [-1.0 * own for own in rollout.env_mask]
    assert rollout.reward == pytest.approx(env.totals[0] - 0.1 * env.totals[1] / env.dynamics.c_ref)
    assert rollout.episode is not None
    assert rollout.episode.quality[0] == env.totals[0]
    assert rollout.called == [1]


def test_a_turn_ends_with_the_token_that_completes_a_stop(tiny: LanguageModel) -> None:
    sampler = TurnSampler(tiny, ("</search>", "</answer>"))
    ids = tiny.text_ids("<think>no stop here</think><search> large:this </search>")
    for end in range(1, len(ids)):
        assert not sampler._stops(ids[:end])
    assert sampler._stops(ids)
    spread = LanguageModel(tiny.model, _without_tags(tiny), "spelt out")
    pieces = spread.text_ids("</search>")
    assert len(pieces) > 1
    spelt = TurnSampler(spread, ("</search>",))
    assert [spelt._stops(pieces[:end]) for end in range(1, len(pieces) + 1)] == [False] * (len(pieces) - 1) + [True]


def _without_tags(language: LanguageModel) -> Any:
    """The tokenizer of a model in which tags are several tokens."""
    from rlroute.agents.trl import tiny as module

    tags, module.TAGS = module.TAGS, ()  # type: ignore[assignment]
    try:
        return module.tiny_tokenizer(["plain words"] * 4)
    finally:
        module.TAGS = tags


def test_a_cache_with_gaps_gives_the_logits_of_plain_reading(moved: LanguageModel) -> None:
    rows = [moved.text_ids("Question 1? Answer"), moved.text_ids("Weight 0.1. What is it called? I do not know.")]
    more = [moved.text_ids("The answer is 12."), moved.text_ids("no")]
    model, device = moved.model, moved.model.device
    with torch.no_grad():
        sequences = Sequences(model, moved.tokenizer.pad_token_id)
        sequences.feed(rows)
        sequences.feed_one(torch.tensor([7, 9], device=device), torch.tensor([True, False], device=device))
        gapped = sequences.feed(more)
        whole = [rows[0] + [7] + more[0], rows[1] + more[1]]
        plain = [model(torch.tensor([ids], device=device)).logits[0, -1] for ids in whole]
        sequences.keep([1])
        kept = sequences.feed([[5]])
        after = model(torch.tensor([whole[1] + [5]], device=device)).logits[0, -1]
    for row in range(2):
        torch.testing.assert_close(gapped[row], plain[row], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept[0], after, atol=1e-4, rtol=1e-4)


def test_log_probabilities_are_those_of_the_model(moved: LanguageModel) -> None:
    envs = think_envs(moved, 4)
    player = Player(moved, envs[0].stops, 12)
    torch.manual_seed(0)
    rollouts = player.play(envs, [(3, {"group": 4, "slot": i}) for i in range(4)], group=4)
    for rollout in rollouts:
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=moved.model.device)
        with torch.no_grad():
            logprobs = moved.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].cpu()
        own = torch.tensor(rollout.env_mask, dtype=torch.bool)
        told = torch.tensor(rollout.logprobs)
        torch.testing.assert_close(logprobs[len(rollout.prompt_ids) - 1 :][own], told[own], atol=1e-3, rtol=1e-3)


def test_members_of_a_group_share_their_prompt_and_groups_differ(tiny: LanguageModel) -> None:
    envs = think_envs(tiny, 4, preference=[0.01, 1.0])
    prompts = []
    for group in range(3):
        for i, env in enumerate(envs):
            prompts.append(env.reset(seed=group_seed(0, group), options={"group": 4, "slot": i})[0])
    assert [len(set(prompts[4 * g : 4 * g + 4])) for g in range(3)] == [1, 1, 1]
    assert len(set(prompts)) == 3


def test_environments_side_by_side_share_one_log(tiny: LanguageModel, tmp_path: Path) -> None:
    folder = str(task_log(20).save(tmp_path / "tasks"))
    given = {"log": folder, "prompt": "brief", "featuriser": "letters", "split": "train"}
    first, second = make_envs("rlroute/BudgetRouteText-v0", given, tiny, 2)
    assert first.dynamics.log is second.dynamics.log, "its texts are read once"


def test_a_prompt_that_fills_the_context_is_refused(tiny: LanguageModel) -> None:
    env = think_envs(tiny, 1)[0]
    player = Player(tiny, env.stops, 64)
    player.context = len(tiny.prompt_ids(env.reset(seed=0)[0]))
    with pytest.raises(ModelError, match=f"context: found {player.context} tokens, which a prompt of"):
        player.play([env], [(0, {})])


def test_a_full_context_ends_an_episode_in_silence(tiny: LanguageModel) -> None:
    env = think_envs(tiny, 1)[0]
    player = Player(tiny, env.stops, 16)
    player.context = len(tiny.prompt_ids(env.reset(seed=0)[0])) + 20
    (rollout,) = player.play([env], [(0, {})])
    assert len(rollout.turns) == env.max_turns
    assert len(rollout.completion_ids) <= 20 + env.limits.reply_tokens
    assert rollout.turns[-1] == ("", "")


# -- through TRL ---------------------------------------------------------------------------------------------------


def trainer_of(language: LanguageModel, envs: list[Any], out: Path, group_size: int, **shaping: Any) -> Any:
    from datasets import Dataset

    from rlroute.agents.advantages import group_relative
    from rlroute.agents.trl.grpo import GRPOArguments
    from rlroute.agents.trl.trainer import RouterTrainer
    from rlroute.agents.trl.training import grpo_config

    groups = len(envs) // group_size
    knobs = GRPOArguments(
        out=str(out),
        steps=1,
        groups=groups,
        group_size=group_size,
        micro_batch=len(envs),
        tensorboard=False,
        quiet=True,
    )
    given: dict[str, Any] = {"estimator": group_relative, **shaping}
    return RouterTrainer(
        rollouts=Rollouts(Player(language, envs[0].stops, 24), envs, group_size, 0),
        model=language.model,
        processing_class=language.tokenizer,
        args=grpo_config(knobs, out, 4096),
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(groups)]}),
        **given,
    )


def test_a_script_earns_through_trl_exactly_what_its_decisions_earn(tiny: LanguageModel, tmp_path: Path) -> None:
    log = task_log(60)
    given = {"log": log, "prompt": "brief", "featuriser": "letters", "split": "train", "preference": 0.2}
    envs = make_envs("rlroute/BudgetRouteText-v0", given, tiny, 4)
    numeric = [type(env.numeric)(**_arguments(env)) for env in envs]
    names = envs[0].dynamics.pool.names
    trainer = trainer_of(tiny, envs, tmp_path, 2)
    written = [0]

    def turn(sequences: Sequences, logits: Any, limits: Sequence[int], greedy: bool = False) -> list[Turn]:
        row = written[0] % 2
        written[0] += 1
        ids = tiny.text_ids(f"<think>why</think><route>{names[row]}</route>")
        return [Turn(list(ids), [-1.0] * len(ids)) for _ in limits]

    trainer.rollouts.player.sampler.turn = turn
    batch = trainer._generate_and_score_completions([{"prompt": "0"}] * 2 + [{"prompt": "1"}] * 2)
    expected = []
    for slot, env in enumerate(numeric):
        env.reset(seed=group_seed(0, slot // 2), options={"group": 2, "slot": slot % 2})
        total, step, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(step % 2)
            total, step, over = total + reward, step + 1, terminated or truncated
        expected.append(total)
    assert [rollout.reward for rollout in trainer.rollouts.latest] == pytest.approx(expected)
    means = np.repeat(np.reshape(expected, (2, 2)).mean(axis=1), 2)
    assert batch["advantages"].tolist() == pytest.approx((np.array(expected) - means).tolist(), abs=1e-6)
    shown = [
        tiny.decode(ids[mask.bool() & own.bool()].tolist())
        for ids, mask, own in zip(batch["completion_ids"], batch["completion_mask"], batch["tool_mask"], strict=True)
    ]
    assert shown == ["".join(turn for turn, _ in rollout.turns) for rollout in trainer.rollouts.latest]


def _arguments(env: Any) -> dict[str, Any]:
    arguments = env.dynamics.arguments
    return {field.name: getattr(arguments, field.name) for field in fields(arguments)}


def test_only_the_policys_own_tokens_are_learned_from(tiny: LanguageModel, tmp_path: Path) -> None:
    envs = think_envs(tiny, 2)
    trainer = trainer_of(tiny, envs, tmp_path, 2)
    own, reply = tiny.text_ids(TURNS[0]), tiny.text_ids("<information>The answer is 7.</information>")
    other = tiny.text_ids("<information>The answer is 9.</information>")
    assert len(reply) == len(other)
    prompt = tiny.prompt_ids("Question 7?")

    def gradient(completion: list[int], mask: list[int]) -> Any:
        ids = torch.tensor([completion])
        given = {
            "prompt_ids": torch.tensor([prompt]),
            "prompt_mask": torch.ones(1, len(prompt), dtype=torch.long),
            "completion_ids": ids,
            "completion_mask": torch.ones_like(ids),
            "tool_mask": torch.tensor([mask]),
            "advantages": torch.tensor([1.0]),
            "num_items_in_batch": torch.tensor(float(sum(mask))),
        }
        inputs = {name: values.to(trainer.model.device) for name, values in given.items()}
        trainer.model.zero_grad()
        trainer.current_gradient_accumulation_steps = 1
        trainer._compute_loss(trainer.model, inputs).backward()
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).clone()

    mask = [1] * len(own) + [0] * len(reply)
    first, second = gradient(own + reply, mask), gradient(own + other, mask)
    assert torch.equal(first, second), "what the pool says is not learned"
    assert first.abs().sum() > 0
    assert not torch.equal(first, gradient(own + reply, [1] * len(mask)))
    # What it says matters only as what later turns were written after.
    later = mask + [1] * len(own)
    assert not torch.equal(gradient(own + reply + own, later), gradient(own + other + own, later))
