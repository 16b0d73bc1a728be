"""A log without some of its choices: another log, as if they had never been recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from logs import LARGE, SMALL, Row, hop_log, make_log, response
from numpy.testing import assert_array_equal

from rlroute.errors import LogError
from rlroute.features import log_features
from rlroute.log import Log, load_log

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]

MIDDLE = SMALL | {"name": "middle", "input_usd_per_mtok": 4.0, "output_usd_per_mtok": 8.0}


def branching_log(secret: str = "only middle comes here") -> Log:
    """Tasks of two steps for three choices; middle alone leads to `detour`, whose text is `secret`."""
    states: list[Row] = []
    responses: list[Row] = []
    for split in ("train", "val", "test"):
        common = {"split": split, "task_id": split, "group_id": split}
        states += [
            common | {"state_id": f"{split}/start", "step": 0, "text": f"{split}: begin"},
            common | {"state_id": f"{split}/road", "step": 1, "text": f"{split}: go on"},
            common | {"state_id": f"{split}/detour", "step": 1, "text": f"{split}: {secret}"},
            common | {"state_id": f"{split}/won", "step": 2, "text": "won", "terminal": True, "success": True},
            common | {"state_id": f"{split}/lost", "step": 2, "text": "lost", "terminal": True, "success": False},
        ]
        ways = {
            "start": {"small": "road", "middle": "detour", "large": "road"},
            "road": {"small": "lost", "middle": "won", "large": "won"},
            "detour": {"small": "lost", "middle": "won", "large": "lost"},
        }
        responses += [
            response(f"{split}/{state}", choice, None, 0.0, next_state_id=f"{split}/{ahead}", completion_tokens=tokens)
            for state, moves in ways.items()
            for tokens, (choice, ahead) in enumerate(moves.items(), start=10)
        ]
    return make_log(states, responses, [SMALL, MIDDLE, LARGE])


def test_what_only_the_choices_left_out_lead_to_is_left_out_with_them() -> None:
    log = branching_log().without(["middle"])
    assert log.arrays.choice_names == ("small", "large")
    assert not any("detour" in name for name in log.arrays.state_ids)
    assert len(log.arrays.state_ids) == 3 * 4
    assert set(log.responses["choice"].to_pylist()) == {"small", "large"}
    assert log.arrays.next_state.min() >= 0


def test_all_states_stay_where_others_lead_there_too() -> None:
    log = branching_log().without(["small"])
    assert len(log.arrays.state_ids) == 3 * 5


def test_a_state_that_nothing_leads_to_stays() -> None:
    """Whoever recorded it had a reason."""
    states: list[Row] = [
        {"state_id": name, "text": name, "split": name.split("/")[0]} for name in ("train", "val", "test")
    ]
    states.append({"state_id": "train/lone", "text": "lone", "split": "train", "step": 3, "task_id": "train"})
    responses = [response(row["state_id"], c, "x", 1.0) for row in states for c in ("small", "large")]
    assert "train/lone" in make_log(states, responses).without(["large"]).arrays.state_ids


def test_sub_questions_asked_about_answers_of_the_choices_left_out_go() -> None:
    log = hop_log()
    small, large = log.without(["large"]), log.without(["small"])
    assert "hop/2.bob" not in small.arrays.state_ids  # only large says Bob
    assert "hop/2.ann" in small.arrays.state_ids
    assert "hop/2.ann" not in large.arrays.state_ids
    assert "hop/1" in small.arrays.state_ids  # thinking leads there, whoever is in the pool


def test_the_rest_of_the_log_is_as_it_was() -> None:
    log = branching_log()
    less = log.without(["middle"])
    rows = [list(log.arrays.state_ids).index(name) for name in less.arrays.state_ids]
    assert_array_equal(less.splits(), log.splits()[rows])
    assert_array_equal(less.splits(3), log.splits(3)[rows])
    for row, state in enumerate(rows):
        assert less.state_text(row) == log.state_text(state)
        for ours, theirs in ((0, 0), (1, 2)):
            here = less.arrays.cell[2 * row + ours], log.arrays.cell[3 * state + theirs]
            if less.arrays.num_attempts[row, ours]:
                assert less.arrays.cost_usd[here[0]] == log.arrays.cost_usd[here[1]]


def test_it_is_a_log_of_its_own(tmp_path: Any) -> None:
    log = branching_log()
    less = log.without(["middle"])
    assert not [fault for fault in less.validate() if fault.severity == "error"]
    assert less.content_hash == log.without(["middle"]).content_hash != log.content_hash
    assert less.name == "handmade without middle"
    assert less.reference["choice"] == "large"
    assert log.reference["choice"] == "middle"
    saved = load_log(less.save(tmp_path / "less"))
    assert saved.content_hash == less.content_hash


def test_nothing_of_the_choices_left_out_reaches_the_features() -> None:
    """Neither what they answered, nor the texts of states that only they led to."""
    before, after = branching_log().without(["middle"]), branching_log("a bone in a boat, no bait").without(["middle"])
    assert branching_log().content_hash != branching_log("a bone in a boat, no bait").content_hash
    assert before.content_hash == after.content_hash
    assert len(log_features(before, "letters").prior) == 12


def test_outcomes_of_a_built_in_log_lose_the_same_choices() -> None:
    less = load_log("questions").without(["mistral-7b"])
    assert len(less.outcomes) == 5 / 6 * len(load_log("questions").outcomes)
    assert set(less.outcomes["choice"].to_pylist()) == set(less.arrays.choice_names)
    assert less.arrays.num_states == load_log("questions").arrays.num_states  # outcomes lead to all of them


@pytest.mark.parametrize(
    ("choices", "found"), [(["gpt"], "'gpt'.*small, middle, large"), (["small", "middle", "large"], "every choice")]
)
def test_unknown_choices_and_all_of_them_are_refused(choices: list[str], found: str) -> None:
    with pytest.raises(LogError, match=found):
        branching_log().without(choices)


def test_arrays_of_some_choices_are_those_of_the_log_without_the_others() -> None:
    log = branching_log()
    some, less = log.arrays.only(np.array([0, 2])), log.without(["middle"]).arrays
    assert some.choice_names == less.choice_names
    rows = [list(log.arrays.state_ids).index(name) for name in less.state_ids]
    assert_array_equal(some.num_attempts[rows], less.num_attempts)
    assert_array_equal(some.prompt_tokens_of[rows], less.prompt_tokens_of)
    assert_array_equal(some.input_usd, less.input_usd)
    for row, state in enumerate(rows):
        if less.terminal[row]:
            continue
        cells = slice(2 * row, 2 * row + 2), slice(2 * state, 2 * state + 2)
        assert_array_equal(less.cost_usd[less.cell[cells[0]]], some.cost_usd[some.cell[cells[1]]])
