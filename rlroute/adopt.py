"""Takes newcomers into the pool of a trained policy: other descriptions of the choices, the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlroute.policies import dynamics_of
from rlroute.policy import CARD_FILE, WEIGHTS_FILE, PolicyError, TrainedPolicy, save_policy

# What the card and its arguments take over from the environment; all else is as it was trained.
POOL = ("choices", "layout", "log", "constants")
TEXT = ("text/components", "text/centre", "text/scale")
POOL_ARGUMENTS = ("log", "newcomers", "probes", "probe_seed")


def adopt(policy: TrainedPolicy, env: Any, path: str | Path) -> Path:
    """Writes a policy folder with the weights of `policy` and the pool of `env`; no training.

    `env` is made with ``newcomers=…`` on a log in which each of them answered at least `probes` train states, and with
    ``missing="mask"`` where these are all that was recorded of it. A `rlroute.Router` of the new folder chooses among
    all of them.

    Raises PolicyError where `env` reads texts or describes its observations otherwise than in training, or counts cost
    and latency in other units: its features have to be fitted on the same log without the newcomers.
    """
    policy.begin(env)
    dynamics = dynamics_of(env)
    theirs = dynamics.policy_card()
    trained, found = policy.value("reference", kind=dict), theirs["reference"]
    if any(trained.get(unit) != found[unit] for unit in ("cost_usd", "latency_s")):
        raise PolicyError(CARD_FILE, "reference", f"an environment with {found}", f"{trained}, as in training")
    tensors = dynamics.policy_tensors()
    for name in TEXT:
        if name not in policy.tensors or not np.array_equal(policy.tensors[name], tensors[name]):
            expected = "that of training: the same log, without the newcomers"
            raise PolicyError(WEIGHTS_FILE, f"tensors.{name}", "an environment with another one", expected)
    arguments = policy.value("arguments", kind=dict) | {name: theirs["arguments"][name] for name in POOL_ARGUMENTS}
    card = policy.card | {name: theirs[name] for name in POOL} | {"arguments": arguments}
    return save_policy(path, card, policy.parameters, tensors)
