"""The README's picture: the healing router on a refund whose card payment and e-mail are down.

python experiments/healing/picture.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.image
import numpy as np

from rlroute.envs.tool_graph.env import ToolGraphVectorEnv
from rlroute.envs.tool_graph.faults import SCENARIO
from rlroute.envs.tool_graph.graph import parse_graph
from rlroute.envs.tool_graph.healing import HealingRouter, Knobs
from rlroute.envs.tool_graph.suites import Suite, Task

HERE = Path(__file__).parent
REFUND = {
    "name": "refund",
    "tools": {
        "look up order": {"cost_usd": 0.1},
        "check policy": {"cost_usd": 0.1},
        "card": {"after": {"look up order": 0.3}, "effect": "refund"},
        "bank transfer": {"after": {"look up order": 0.4}, "effect": "refund"},
        "voucher": {"after": {"look up order": 0.6}, "effect": "refund"},
        "e-mail": {"after": ["card", "bank transfer", "voucher"], "cost_usd": 0.2},
        "text message": {"after": ["card", "bank transfer", "voucher"], "cost_usd": 0.3},
        "told": {"after": ["e-mail", "text message"]},
        "close case": {"after": ["told", "check policy"], "join": "all", "cost_usd": 0.1},
    },
    "goals": {"close case": 1.0, "told": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tool_graph.png")
    options = parser.parse_args()
    task = Task("refund", parse_graph(REFUND, "refund"), "refund", "Refund an order.", down=("card", "e-mail"))
    env = ToolGraphVectorEnv(
        1, autoreset="disabled", render_mode="rgb_array", split="test",
        log=Suite("picture", (task,), SCENARIO, only_split="test"),
    )  # fmt: skip
    observation, info = env.reset(seed=0)
    router = HealingRouter(Knobs())
    router.begin(env)
    while env.dynamics.active.any():
        observation, _, _, _, info = env.step(np.asarray(router.act(observation, info["action_mask"])))
    frames = env.render()
    assert frames is not None
    matplotlib.image.imsave(options.out, frames[0])
    print(options.out)


if __name__ == "__main__":
    main()
