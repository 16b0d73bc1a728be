"""Scoring as one step of differentiation gives the values and gradients of its layers one by one."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from rlroute.agents.rllib.scoring import LAYERS, ScoreChoices  # noqa: E402 - only where torch is installed

CONTEXT, BLOCK, HIDDEN, ACTIONS = 5, 3, 8, 2


def parameters(seed: int) -> list[Any]:
    torch.manual_seed(seed)
    sizes = {
        "context_encoder.0": (HIDDEN, CONTEXT),
        "context_encoder.2": (HIDDEN, HIDDEN),
        "choice_encoder.0": (HIDDEN, BLOCK + HIDDEN),
        "choice_encoder.2": (HIDDEN, HIDDEN),
        "trunk": (HIDDEN, 3 * HIDDEN),
        "choice_head.0": (HIDDEN, 2 * HIDDEN),
        "choice_head.2": (ACTIONS, HIDDEN),
    }
    tensors = []
    for layer in LAYERS:
        tensors += [torch.randn(sizes[layer]) * 0.5, torch.randn(sizes[layer][0]) * 0.5]
    return [tensor.double().requires_grad_() for tensor in tensors]


def by_layers(context: Any, blocks: Any, *given: Any) -> tuple[Any, Any]:
    """The same with torch's own layers on concatenated inputs, as `rlroute.policy.forward` describes it."""
    layers = list(zip(given[::2], given[1::2], strict=True))

    def apply(index: int, inputs: Any) -> Any:
        return torch.nn.functional.linear(inputs, *layers[index])

    code = apply(1, apply(0, context).relu()).relu()
    shared = code.expand(len(blocks), *code.shape)
    codes = apply(3, apply(2, torch.cat([blocks, shared], dim=2)).relu()).relu()
    summary = apply(4, torch.cat([code, codes.mean(dim=0), codes.amax(dim=0)], dim=1)).relu()
    joint = torch.cat([codes, summary.expand(len(blocks), *summary.shape)], dim=2)
    return apply(6, apply(5, joint).relu()), summary


@pytest.mark.parametrize("choices", [1, 2, 6])
@pytest.mark.parametrize("alike", [False, True])
def test_values_and_gradients_are_those_of_the_layers(choices: int, alike: bool) -> None:
    given, rows = parameters(choices), 17
    context = torch.randn(rows, CONTEXT).double()
    blocks = torch.randn(choices, rows, BLOCK).double()
    if alike:  # equal choices, as padding makes them, share the gradient of their maximum
        blocks = blocks[:1].expand(choices, rows, BLOCK).contiguous()
    weights = torch.randn(choices, rows, ACTIONS).double(), torch.randn(rows, HIDDEN).double()
    gradients, outputs = [], []
    for score in (by_layers, ScoreChoices.apply):
        scores, summary = score(context, blocks, *given)
        outputs.append((scores.detach(), summary.detach()))
        loss = (weights[0] * scores).sum() + (weights[1] * summary).sum()
        gradients.append(torch.autograd.grad(loss, given))
    for expected, found in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected)
    for expected, found in zip(*gradients, strict=True):
        assert expected.abs().max() > 1e-6
        torch.testing.assert_close(found, expected)
