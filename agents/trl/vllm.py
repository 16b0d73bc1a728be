"""Sampling turns with vLLM, which serves many texts faster than transformers does. It needs a GPU.

Its arithmetic differs a little from the trainer's (bfloat16 as a rule), so TRL weighs every token by the ratio of both
probabilities, at most 3. It draws by a seed of its own, 0, that checkpoints do not keep: resumed runs go another way.
What is here was tested against an engine of vLLM's interface, and not yet run with vLLM itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from rlroute.agents.trl.checks import ModelError
from rlroute.agents.trl.generation import Turn


def refuse_no_vllm(model: str, folder: bool) -> None:
    """ModelError where vLLM is missing, or `model` is no folder that it could read."""
    if find_spec("vllm") is None:
        expected = 'pip install "trl[vllm]", in an environment of its own since it pins another torch, or no --vllm'
        raise ModelError("vllm", "no such package", expected)
    if not folder:
        raise ModelError("vllm", f"model {model!r}", "the folder of a model, which vLLM reads by itself")


class VllmTexts:
    """`rlroute.agents.trl.generation.Texts` in an engine of vLLM, whose prefix cache spares it reading twice."""

    def __init__(self, llm: Any, stops: Sequence[str]) -> None:
        self.llm, self.stops = llm, list(stops)
        self.seconds = 0.0
        self.rows: list[list[int]] = []  # all tokens of each text, as they were sampled or replied

    def read(self, prompts: Sequence[list[int]], group: int) -> None:
        self.rows = [list(ids) for ids in prompts]

    def turn(self, limits: Sequence[int], greedy: bool) -> list[Turn]:
        from vllm import SamplingParams

        turns = [Turn() for _ in limits]
        asked = [row for row, limit in enumerate(limits) if limit > 0]
        how = [
            SamplingParams(
                temperature=0.0 if greedy else 1.0,
                max_tokens=limits[row],
                stop=self.stops,
                include_stop_str_in_output=True,
                logprobs=0,  # of the sampled token alone
            )
            for row in asked
        ]
        began = time.perf_counter()
        prompts = [{"prompt_token_ids": self.rows[row]} for row in asked]
        outputs = self.llm.generate(prompts, sampling_params=how, use_tqdm=False)
        self.seconds += time.perf_counter() - began
        for row, output in zip(asked, outputs, strict=True):
            said = output.outputs[0]
            ids = list(said.token_ids)
            logprobs = [step[token].logprob for step, token in zip(said.logprobs, ids, strict=True)]
            turns[row] = Turn(ids, logprobs)
            self.rows[row] += ids
        return turns

    def go_on(self, rows: Sequence[int], replies: Sequence[list[int]]) -> None:
        self.rows = [self.rows[row] + reply for row, reply in zip(rows, replies, strict=True)]
