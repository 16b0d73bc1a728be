"""The routing network as an RLlib module: choices are scored one by one, with shared weights.

The same network as `rlroute.policy.forward`, parameter for parameter, with a value head on top for PPO's
critic.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from rlroute.agents.rllib.scoring import LAYERS, ScoreChoices
from rlroute.layout import Layout
from rlroute.policy import MASKED


class RouterModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic over observations ``{"observation": (N, D) f32, "action_mask": (N, A) int8}``.

    `model_config` holds the `layout` (`Layout.to_dict`), the width `hidden` of every layer, and where training does not
    start from random weights, those to `start` from, by parameter.
    """

    def setup(self) -> None:
        layout = Layout.from_dict(self.model_config["layout"])
        hidden = int(self.model_config["hidden"])
        self.width = layout.num_choices * hidden  # numbers that a layer makes of a row
        self.context_size, self.block_size = layout.context_size, layout.block_size
        self.context_encoder = _perceptron(layout.context_size, hidden, hidden)
        self.choice_encoder = _perceptron(layout.block_size + hidden, hidden, hidden)
        self.trunk = nn.Linear(3 * hidden, hidden)
        self.choice_head = _perceptron(2 * hidden, hidden, len(layout.choice_actions))
        self.context_head = nn.Linear(hidden, len(layout.context_actions)) if layout.context_actions else None
        self.value_head = _perceptron(hidden, hidden, 1)
        names = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
        self.scoring = tuple(self.get_parameter(name) for name in names)
        with torch.no_grad():  # start near the uniform policy: the first updates then see every action
            last_layers: list[Any] = [self.choice_head[2], self.context_head]
            for layer in filter(None, last_layers):
                layer.weight.mul_(0.01)
                layer.bias.zero_()
        if self.model_config.get("start"):
            self.load_state_dict({name: torch.from_numpy(x) for name, x in self.model_config["start"].items()})

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        scores, summary = self._score(batch[Columns.OBS]["observation"])
        logits = scores.permute(2, 0, 1).flatten(0, 1)  # (A, N): every choice's first action, then every second
        if self.context_head is not None:
            logits = torch.cat([self.context_head(summary).t(), logits], dim=0)
        logits = logits.masked_fill((batch[Columns.OBS]["action_mask"] == 0).t(), MASKED)
        # Actions stay first in memory: a softmax over so few is then many times as fast.
        return {Columns.ACTION_DIST_INPUTS: logits.t(), Columns.EMBEDDINGS: summary}

    def _forward_exploration(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        with torch.no_grad():
            out = self._forward(batch)
            out[Columns.VF_PREDS] = self.compute_values(batch, out.pop(Columns.EMBEDDINGS))
        return out

    _forward_inference = _forward_exploration

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Value estimates (N,)."""
        if embeddings is None:
            _, embeddings = self._score(batch[Columns.OBS]["observation"])
        return self.value_head(embeddings).squeeze(-1)

    def _score(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (C, N, K) of K actions of C choices, and the summary of the situation (N, hidden)."""
        context = observation[:, : self.context_size]
        blocks = observation[:, self.context_size :].unflatten(1, (-1, self.block_size))
        blocks = blocks.transpose(0, 1).contiguous()
        return ScoreChoices.apply(context, blocks, *self.scoring)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
