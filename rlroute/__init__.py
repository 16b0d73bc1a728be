"""rlroute: record what your models did, train a router on the recording, read the frontier, deploy the policy.

Importing it registers the environments with Gymnasium and loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlroute.envs import REGISTRY, entry, register_all

if TYPE_CHECKING:
    from rlroute.log import Log, load_log
    from rlroute.policy import load_policy
    from rlroute.router import Router

__version__ = "0.1.0"
__all__ = ["REGISTRY", "Log", "Router", "__version__", "entry", "load_log", "load_policy"]

_HOMES = {
    "Log": "rlroute.log",
    "load_log": "rlroute.log",
    "load_policy": "rlroute.policy",
    "Router": "rlroute.router",
}

register_all()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlroute' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
