"""Sampling with vLLM: by an engine of its interface, since vLLM itself wants a GPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_logs import make, query_rows

pytest.importorskip("torch")
pytest.importorskip("trl")

import torch

from rlroute.agents.trl.checks import ModelError
from rlroute.agents.trl.generation import TurnSampler
from rlroute.agents.trl.grpo import GRPOArguments, train
from rlroute.agents.trl.models import LanguageModel, load_model
from rlroute.agents.trl.rollouts import Player, make_envs

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TEXTS = [f"Question {i}? <think>why</think><search> large:this </search>" for i in range(40)]


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    language = load_model("tiny", lambda: TEXTS)
    language.model.eval()
    return language


class Engine:
    """What is used of `vllm.LLM`: likeliest tokens of a model of transformers, one text after another."""

    def __init__(self, language: LanguageModel) -> None:
        self.language = language
        self.asked: list[tuple[list[int], Any]] = []

    @torch.no_grad()
    def generate(self, prompts: Sequence[dict[str, list[int]]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        return [self._one(p["prompt_token_ids"], how) for p, how in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: list[int], how: Any) -> Any:
        self.asked.append((list(prompt), how))
        assert how.temperature == 0.0
        assert how.include_stop_str_in_output
        ids: list[int] = []
        steps: list[dict[int, Any]] = []
        sampler = TurnSampler(self.language, how.stop)
        while len(ids) < how.max_tokens and not (ids and (ids[-1] in sampler.ends or sampler._stops(ids))):
            logprobs = self.language.model(torch.tensor([prompt + ids])).logits[0, -1].float().log_softmax(-1)
            ids.append(int(logprobs.argmax()))
            steps.append({ids[-1]: SimpleNamespace(logprob=float(logprobs[ids[-1]]))})
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids), logprobs=steps)])


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=lambda **given: SimpleNamespace(**given)))


@pytest.mark.usefixtures("interface")
@pytest.mark.parametrize("group", [1, 2])
def test_an_engine_plays_as_the_model_itself(tiny: LanguageModel, group: int) -> None:
    log = make(query_rows())
    given = {"log": log, "prompt": "brief", "featuriser": "letters", "split": "train", "preference": 0.1}
    envs = make_envs("rlroute/ThinkRouteText-v0", given, tiny, 4)
    starts: list[tuple[int, dict[str, Any]]] = [(i // group, {"group": group, "slot": i % group}) for i in range(4)]
    player = Player(tiny, envs[0].stops, 12)
    own = player.play(envs, starts, group, greedy=True)
    player.llm = Engine(tiny)
    by_engine = player.play(envs, starts, group, greedy=True)
    assert max(len(rollout.turns) for rollout in own) > 1, "else nothing is heard and read"
    for ours, theirs in zip(own, by_engine, strict=True):
        assert ours.turns == theirs.turns
        assert ours.completion_ids == theirs.completion_ids
        assert ours.env_mask == theirs.env_mask
        assert ours.reward == theirs.reward
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)


@pytest.mark.usefixtures("interface")
def test_a_row_without_room_is_not_asked(tiny: LanguageModel) -> None:
    from rlroute.agents.trl.vllm import VllmTexts

    engine = Engine(tiny)
    texts = VllmTexts(engine, ("</search>",))
    texts.read([[1, 2, 3], [4, 5], [6]], group=1)
    turns = texts.turn([2, 0, 1], greedy=True)
    assert [len(turn.ids) for turn in turns] == [2, 0, 1]
    assert [prompt for prompt, _ in engine.asked] == [[1, 2, 3], [6]]
    texts.go_on([0, 2], [[7], [8, 9]])
    texts.turn([1, 1], greedy=True)
    assert [prompt for prompt, _ in engine.asked[2:]] == [[1, 2, 3, *turns[0].ids, 7], [6, *turns[2].ids, 8, 9]]


def test_vllm_that_is_not_there_is_missed_before_anything_is_trained(tmp_path: Any) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is here")
    with pytest.raises(ModelError, match=r"trl\[vllm\]"):
        train(GRPOArguments(vllm=True, out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
