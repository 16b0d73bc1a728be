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
    Faults,
    holding,
    regime_table,
    risk_belief,
    still_down,
)
from rlroute.envs.tool_graph.graph import parse_graph
from rlroute.envs.tool_graph.table import GraphTable

N = 40_000


def drawn(name: str, num_envs: int = N, slot_of_first: int = 0) -> tuple[Faults, np.ndarray]:
    data = {**REFUND, "providers": {"acme": 0.3}}
    data["tools"] = {
        tool: {**given, "reliability": 0.8, **({"provider": "acme"} if tool in ("card", "voucher") else {})}
        for tool, given in REFUND["tools"].items()
    }
    table = GraphTable.of([parse_graph(data, "refund")], [0.2], 4).rows(np.zeros(num_envs, np.int64))
    regime = regime_table((name,)).repeat(num_envs, axis=0)
    faults = Faults.none(num_envs, 4)
    slots = slot_of_first + np.arange(num_envs)
    faults.draw(np.arange(num_envs), table, regime, key_from_seed(0), slots, np.zeros(num_envs, np.int64))
    return faults, regime


@pytest.mark.parametrize("name", REGIMES)
def test_faults_come_about_as_often_as_the_regime_says(name: str) -> None:
    faults, regime = drawn(name)
    number = REGIMES[name]
    own, outage = 0.2 * number.own, 0.3 * number.provider
    ever = (faults.start != NEVER).mean(axis=0)
    either = 1 - (1 - own) * (1 - outage)
    np.testing.assert_allclose(ever, [own, either, either, own], atol=0.012)
    at_start = faults.faulty(np.zeros(N, np.int64)).mean(axis=0)
    np.testing.assert_allclose(at_start, ever * (1 - number.late), atol=0.012)
    alarm = faults.alarm(np.zeros(N), regime)
    is_down = faults.faulty(np.zeros(N, np.int64))
    assert alarm[is_down].mean() == pytest.approx(number.detection, abs=0.02)
    assert alarm[~is_down].mean() == pytest.approx(number.false_alarm, abs=0.02)
    assert faults.wrong[:, 0][faults.start[:, 0] != NEVER].mean() == pytest.approx(number.wrong, abs=0.03)
    for step in (1, 3, 7):
        share = faults.faulty(np.full(N, step))[:, 0].mean() / ever[0]
        assert share == pytest.approx(holding(regime[:1], np.array([step]))[0], abs=0.03)


def test_tools_of_one_provider_go_down_together() -> None:
    faults, _ = drawn("correlated")
    down = faults.start != NEVER
    together = np.corrcoef(down[:, 1], down[:, 2])[0, 1]
    assert together > 0.5
    assert abs(np.corrcoef(down[:, 0], down[:, 3])[0, 1]) < 0.03


def test_a_draw_depends_on_its_counters_alone() -> None:
    many, _ = drawn("late", 50)
    few, _ = drawn("late", 10, slot_of_first=20)
    for name in ("start", "stop", "wrong", "alarm_noise", "risk", "risk_alarm"):
        np.testing.assert_array_equal(getattr(many, name)[20:30], getattr(few, name))


def test_late_and_transient_faults_keep_to_their_bounds() -> None:
    late, _ = drawn("late")
    arrived = late.start[(late.start > 0) & (late.start != NEVER)]
    assert (arrived.min(), arrived.max()) == (1, LATEST_ARRIVAL)
    transient, _ = drawn("transient")
    over = transient.stop[transient.stop != NEVER]
    assert (over.min(), over.max()) == (1, LONGEST_TRANSIENT)


def test_a_transient_fault_seen_is_believed_to_pass() -> None:
    faults, regime = drawn("transient")
    seen = faults.faulty(np.ones(N, np.int64))[:, 0]
    held = faults.faulty(np.full(N, 4))[:, 0][seen].mean()
    believed = still_down(regime[:1], np.array([[1.0]]), np.array([4]))[0, 0]
    assert believed == pytest.approx(held, abs=0.03)
    lasting = still_down(regime_table(("independent",)), np.array([[1.0]]), np.array([4]))
    assert lasting[0, 0] == 1.0


def test_the_risk_signal_is_weighed_by_bayes_rule() -> None:
    faults, _ = drawn("independent")
    for alarm in (True, False):
        among = faults.risk[faults.risk_alarm == alarm].mean()
        assert risk_belief(np.array([0.2]), np.array([alarm]))[0] == pytest.approx(among, abs=0.02)
    assert faults.risk_alarm[faults.risk].mean() == pytest.approx(RISK_DETECTION, abs=0.02)
