"""Ray, started as quietly as it can be, or joined where it runs."""

from __future__ import annotations

import logging
import os


def start_ray(address: str = "", num_env_runners: int = 0) -> bool:
    """Starts a Ray of its own, or joins the cluster at `address`, unless Ray runs already; says whether it did.

    On a cluster, `rlroute` with its extra ``rllib`` must be installed on every node, and logs that are named by path
    must lie there under the same path.
    """
    for name, value in {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }.items():
        os.environ.setdefault(name, value)
    import ray

    quieten_ray()
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        ray.init(address=address, **quiet)
        return True
    ray.init(
        address="local",  # another's cluster on this machine is not joined unasked
        num_cpus=(os.cpu_count() or 1) if num_env_runners else 1,
        include_dashboard=False,
        object_store_memory=(500 if num_env_runners else 100) * 2**20,
        **quiet,
    )
    return True


def quieten_ray() -> None:
    """Of what Ray and RLlib log, only errors."""
    for name in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
