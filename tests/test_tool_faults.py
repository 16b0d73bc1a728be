"""Faults are functions of their counters, and come about as often as their regime says."""

from __future__ import annotations

import numpy as np
import pytest
from tool_graphs import REFUND

from rlroute.draws import key_from_seed
from rlroute.envs.tool_graph.faults import (
    LATEST_ARRIVAL,
    LONGEST_TRANSIENT,
    NEVER,
    REGIMES,
    RISK_DETECTION,
    faults_of,
    holding,
    is_faulty,
    regime_records,
    regime_table,
    risk_belief,
    shows_alarm,
    still_down,
)
from rlroute.envs.tool_graph.graph import parse_graph
from rlroute.envs.tool_graph.table import GraphTable

N = 40_000


def drawn(name: str, num_envs: int = N, slot_of_first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faults and risks of as many first episodes."""
    data = {**REFUND, "providers": {"acme": 0.3}}
    data["tools"] = {
        tool: {**given, "reliability": 0.8, **({"provider": "acme"} if tool in ("card", "voucher") else {})}
        for tool, given in REFUND["tools"].items()
    }
    table = GraphTable.of([parse_graph(data, "refund")], [0.2], 4)
    slots, nothing = slot_of_first + np.arange(num_envs), np.zeros(num_envs, np.int64)
    return faults_of(key_from_seed(0), slots, nothing, table, regime_records(regime_table((name,))), nothing, nothing)


def faulty(faults: np.ndarray, step: int) -> np.ndarray:
    return (faults["start"] <= step) & (step < faults["stop"])


@pytest.mark.parametrize("name", REGIMES)
def test_faults_come_about_as_often_as_the_regime_says(name: str) -> None:
    faults, _ = drawn(name)
    number = REGIMES[name]
    own, outage = 0.2 * number.own, 0.3 * number.provider
    ever = (faults["start"] != NEVER).mean(axis=0)
    either = 1 - (1 - own) * (1 - outage)
    np.testing.assert_allclose(ever, [own, either, either, own], atol=0.012)
    at_start = faulty(faults, 0).mean(axis=0)
    np.testing.assert_allclose(at_start, ever * (1 - number.late), atol=0.012)
    share_wrong = faults["wrong"][:, 0][faults["start"][:, 0] != NEVER].mean()
    assert share_wrong == pytest.approx(number.wrong, abs=0.03)
    for step in (1, 3, 7):
        share = faulty(faults, step)[:, 0].mean() / ever[0]
        assert share == pytest.approx(holding(number, step), abs=0.03)


@pytest.mark.parametrize("name", ["late", "transient", "noisy"])
def test_monitors_are_as_good_as_the_regime_says(name: str) -> None:
    faults, _ = drawn(name, 10_000)
    number = REGIMES[name]
    for step in (0, 3):
        is_down = np.array([is_faulty(fault, step) for fault in faults[:, 0]])
        alarm = np.array([shows_alarm(fault, step, number) for fault in faults[:, 0]])
        np.testing.assert_array_equal(is_down, faulty(faults, step)[:, 0])
        assert alarm[is_down].mean() == pytest.approx(number.detection, abs=0.05)
        assert alarm[~is_down].mean() == pytest.approx(number.false_alarm, abs=0.02)


def test_tools_of_one_provider_go_down_together() -> None:
    faults, _ = drawn("correlated")
    down = faults["start"] != NEVER
    together = np.corrcoef(down[:, 1], down[:, 2])[0, 1]
    assert together > 0.5
    assert abs(np.corrcoef(down[:, 0], down[:, 3])[0, 1]) < 0.03


def test_a_draw_depends_on_its_counters_alone() -> None:
    many = drawn("late", 50)
    few = drawn("late", 10, slot_of_first=20)
    for hidden, same in zip(many, few, strict=True):
        np.testing.assert_array_equal(hidden[20:30], same)


def test_late_and_transient_faults_keep_to_their_bounds() -> None:
    late, _ = drawn("late")
    arrived = late["start"][(late["start"] > 0) & (late["start"] != NEVER)]
    assert (arrived.min(), arrived.max()) == (1, LATEST_ARRIVAL)
    transient, _ = drawn("transient")
    over = transient["stop"][transient["stop"] != NEVER]
    assert (over.min(), over.max()) == (1, LONGEST_TRANSIENT)


def test_a_transient_fault_seen_is_believed_to_pass() -> None:
    faults, _ = drawn("transient")
    seen = faulty(faults, 1)[:, 0]
    held = faulty(faults, 4)[:, 0][seen].mean()
    assert still_down(REGIMES["transient"], 1.0, 4.0) == pytest.approx(held, abs=0.03)
    assert still_down(REGIMES["independent"], 1.0, 4.0) == 1.0


def test_the_risk_signal_is_weighed_by_bayes_rule() -> None:
    _, hazards = drawn("independent")
    risk, risk_alarm = hazards["risk"], hazards["risk_alarm"]
    for alarm in (True, False):
        assert risk_belief(0.2, alarm) == pytest.approx(risk[risk_alarm == alarm].mean(), abs=0.02)
    assert risk_alarm[risk].mean() == pytest.approx(RISK_DETECTION, abs=0.02)
