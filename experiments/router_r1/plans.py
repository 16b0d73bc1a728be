"""What is trained and compared: three environments of texts, their settings, warm starts and algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlroute.evaluation import Setting

HERE = Path(__file__).parent
# Both templates are shorter than the environments' own: one pool never changes, so a small model need not read it.
QUESTION, DECISION = str(HERE / "question.txt"), str(HERE / "decision.txt")

SWEPT = (0.01, 0.05, 0.2, 0.5)  # cost weights
THINK_KNOBS = {"steps": 60, "groups": 12, "group_size": 8, "learning_rate": 3e-4, "micro_batch": 32}
BUDGET_KNOBS = {"steps": 30, "groups": 12, "group_size": 8, "learning_rate": 3e-4, "micro_batch": 8}


@dataclass(frozen=True)
class Plan:
    """One experiment."""

    env: str  # id of the numeric environment; its text face is trained
    trained_on: Mapping[str, Any]  # arguments of the environment in training, beside log, split and prompt
    settings: tuple[Setting, ...]  # what policies are compared at, on val and test
    prompt: str  # template of the prompt
    methods: Mapping[str, Mapping[str, Any]]  # algorithm to its arguments; "trained_on" adds to the above
    warm: Mapping[str, Any]  # arguments of the supervised start
    shared: Mapping[str, Any] = field(default_factory=dict)  # arguments of all of them
    references: Mapping[str, Any] = field(default_factory=dict)  # arguments of the family's references
    numeric: Mapping[str, Any] = field(default_factory=dict)  # arguments of the numeric PPO beside them
    greedy: bool = True  # whether routers are played by their likeliest tokens, or by drawn ones as in training

    @property
    def text_env(self) -> str:
        """The id of the text face."""
        from rlroute.envs import entry

        return entry(self.env).text_id

    @property
    def numeric_arguments(self) -> dict[str, Any]:
        """Of `trained_on`, what numeric environments know too."""
        return {name: value for name, value in self.trained_on.items() if name != "constrained"}


def pretrained(plan: Plan) -> Plan:
    """The plan for a pretrained model: adapters, lower rates, and batches of a size for a GPU."""
    batch = {"micro_batch": 64, "lora": 16, "checkpoint_every": 10}
    methods = {m: {**given, **batch, "groups": 32, "learning_rate": 2e-4} for m, given in plan.methods.items()}
    warm = {**plan.warm, **batch, "steps": 200, "demonstrations": 8000, "learning_rate": 5e-4}
    return replace(plan, methods=methods, warm=warm, shared={**plan.shared, "turn_tokens": 64})


PLANS: dict[str, Plan] = {
    # (a) Router-R1's protocol: rounds of searches, cost weights swept into a frontier.
    "think": Plan(
        env="rlroute/ThinkRoute-v0",
        trained_on={"preference": [0.01, 0.5]},
        settings=tuple(Setting.weight(w) for w in SWEPT),
        prompt=QUESTION,
        # Once over all weights, shown to the router, and once at each alone, as Router-R1 sweeps its α.
        methods={
            "RLOO": THINK_KNOBS,
            "GRPO": THINK_KNOBS,
            **{f"GRPO at {w:g}": {**THINK_KNOBS, "trained_on": {"preference": w}} for w in SWEPT},
        },
        warm={"steps": 2000, "demonstrations": 6000, "learning_rate": 2e-3},
        shared={"short_queries": True, "turn_tokens": 48},
        references={"thorough": False},  # a short list of knobs
        numeric={"total_steps": 600_000},
    ),
    # (b) BoPO against GRPO from the same start, under hard caps of expensive calls.
    "budget": Plan(
        env="rlroute/BudgetRoute-v0",
        trained_on={"budget_calls": [2, 4], "constrained": True},
        settings=tuple(Setting.calls(cap) for cap in (2, 3, 4)),
        prompt=DECISION,
        methods={
            "BoPO": {**BUDGET_KNOBS, "constant_weight": 0.05},  # under a hard cap calls are as good as free
            "GRPO": BUDGET_KNOBS,
        },
        warm={"steps": 800, "demonstrations": 4000, "learning_rate": 2e-3, "micro_batch": 8, "copy_steps": 0},
        shared={"turn_tokens": 24},
        numeric={"total_steps": 1_000_000, "num_envs": 1024, "minibatch": 8192, "learning_rate": 2e-3},
        greedy=False,  # early in training an expensive call is seldom the likeliest one
    ),
    # (c) Ares: labels of minimum sufficient effort, then GRPO.
    "effort": Plan(
        env="rlroute/EffortRoute-v0",
        trained_on={"preference": [0.02, 0.6]},
        settings=tuple(Setting.weight(w) for w in (0.02, 0.08, 0.3, 0.6)),
        prompt=DECISION,
        methods={"GRPO": {"steps": 30, "groups": 12, "group_size": 8, "learning_rate": 3e-4, "micro_batch": 8}},
        warm={"steps": 800, "demonstrations": 4000, "learning_rate": 2e-3, "micro_batch": 8, "copy_steps": 0},
        shared={"turn_tokens": 24},
        numeric={"total_steps": 600_000},
        greedy=False,
    ),
}


def shown_when(plan: Plan, *methods: str) -> Plan:
    """The plan with a start that shows when, not only how often, more is worth it: a reference is the teacher."""
    knobs = {method: {**plan.methods.get(method, plan.methods["GRPO"]), "steps": 60} for method in methods}
    return replace(plan, methods=knobs, warm={**plan.warm, "teacher": "reference"})


# `[ours]`: the papers' starts are those above.
PLANS["budget_rule"] = shown_when(PLANS["budget"], "BoPO", "GRPO")
PLANS["effort_bandit"] = shown_when(PLANS["effort"], "RLOO", "GRPO")
