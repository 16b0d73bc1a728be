"""The replay log: what goes in comes out, on disk and as arrays."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_logs import make, query_rows, task_rows, think_rows

from rlroute.arrays import array_names
from rlroute.card import Card
from rlroute.dense import shorts
from rlroute.errors import LogError
from rlroute.graph import MIN_FOLLOWED, always, best_single, clairvoyant, reach
from rlroute.log import Log, LogWarning, load_log
from rlroute.splits import split_groups

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLROUTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_saved_log_loads_with_the_same_tables_and_hash(tmp_path: Path) -> None:
    log = make(query_rows())
    again = load_log(log.save(tmp_path / "log"))
    assert again.content_hash == log.content_hash == again.card.content_hash
    assert again.choices.equals(log.choices)
    assert again.states.equals(log.states)
    assert again.responses.equals(log.responses)
    assert again.outcomes is None


def test_equal_tables_have_equal_hashes_and_one_changed_cell_another() -> None:
    rows = query_rows()
    assert make(rows).content_hash == make(query_rows()).content_hash
    rows["responses"][7]["quality"] = 0.5
    assert make(rows).content_hash != make(query_rows()).content_hash


def test_rows_columns_and_arrow_tables_make_the_same_log() -> None:
    rows = query_rows()
    log = make(rows)
    columns = {
        table: {key: [row.get(key) for row in data] for key in data[0] | data[1]} for table, data in rows.items()
    }
    assert Log.from_tables(Card("small-log"), **columns).content_hash == log.content_hash
    tables = {"choices": log.choices, "states": log.states, "responses": log.responses}
    assert Log.from_tables(Card("small-log"), **tables).content_hash == log.content_hash


def test_arrays_are_the_same_from_memory_from_disk_and_from_the_cache(tmp_path: Path) -> None:
    log = make(query_rows())
    path = log.save(tmp_path / "log")
    arrays, cached = log.arrays, Log.open(path).arrays
    for name in array_names():
        np.testing.assert_array_equal(getattr(arrays, name), getattr(cached, name))
    assert arrays.choice_names == cached.choice_names == ("small", "large")


def test_order_of_the_response_rows_does_not_matter() -> None:
    rows = task_rows()
    expected = make(rows).arrays
    rows["responses"].reverse()
    arrays = make(rows).arrays
    for name in array_names():
        np.testing.assert_array_equal(getattr(arrays, name), getattr(expected, name), err_msg=name)


def test_cells_hold_the_attempts_of_each_state_and_choice_in_order() -> None:
    arrays = make(task_rows()).arrays
    assert arrays.num_attempts.tolist() == [[1, 2], [1, 1], [0, 0], [0, 0]]
    first, end = arrays.cell[0 * 2 + 1], arrays.cell[0 * 2 + 2]
    assert arrays.cost_usd[first:end].tolist() == [5.0, 7.0]
    assert arrays.row_cell.tolist() == [0, 1, 1, 2, 3]


def test_a_count_too_large_for_its_column_is_named() -> None:
    with pytest.raises(LogError, match="table, column counts: found as many as 40,000, expected at most 32,767"):
        shorts(np.array([3, 40_000]), "table", "counts")


def test_missing_costs_are_computed_from_tokens_and_prices() -> None:
    rows = query_rows(2)
    rows["responses"][1].update(prompt_tokens=1000, cached_tokens=400, completion_tokens=50)
    rows["responses"][2].update(cost_usd=0.125)
    cost = make(rows).arrays.cost_usd
    assert cost[0] == pytest.approx((10 * 1 + 5 * 2) / 1e6)
    assert cost[1] == pytest.approx((600 * 10 + 400 * 1 + 50 * 40) / 1e6)
    assert cost[2] == 0.125


@pytest.mark.parametrize(
    ("error", "billed"),
    [("429 too many", False), ("503", False), ("truncated", True), ("4290", True), (None, True)],
)
def test_only_what_the_provider_bills_is_charged(error: str | None, billed: bool) -> None:
    rows = query_rows(2)
    rows["responses"][0]["error"] = error
    arrays = make(rows).arrays
    assert (arrays.cost_usd[0] > 0) == billed
    assert arrays.error[0] == (error is not None)


def test_latency_falls_back_on_speeds_and_then_on_zero() -> None:
    rows = query_rows(2)
    rows["choices"][0].update(first_token_s=0.5, output_tokens_per_s=10.0)
    for row in rows["responses"]:
        row["latency_s"] = None
    latency = make(rows).arrays.latency_s
    np.testing.assert_allclose(latency, [0.5 + 5 / 10, 0, 0.5 + 6 / 10, 0])


def test_answers_agree_up_to_case_and_white_space_and_keep_their_signs() -> None:
    rows = query_rows(3)
    for row, answer in zip(rows["responses"], ["-5", "5", "Two  Words", " two words", "", None], strict=True):
        row["answer"] = answer
    codes = make(rows).arrays.answer
    assert codes[0] != codes[1]
    assert codes[2] == codes[3] >= 0
    assert codes[4] == codes[5] == -1


def test_truncated_means_that_the_limit_was_reached() -> None:
    rows = query_rows(2)
    rows["responses"][0]["completion_tokens"] = 100
    rows["responses"][1]["completion_tokens"] = 100  # the large model has no known limit
    assert make(rows).arrays.truncated.tolist() == [True, False, False, False]


def test_thinking_leads_to_the_least_step_among_the_sub_questions() -> None:
    arrays = make(think_rows()).arrays
    assert arrays.think_state.tolist() == [1, -1, -1, -1]
    assert arrays.parent.tolist() == [-1, 0, 0, 0]
    assert arrays.root.tolist() == [True, False, False, False]


def test_sub_questions_and_steps_share_the_group_of_their_root() -> None:
    for rows in (think_rows(), task_rows()):
        assert len(set(make(rows).arrays.group)) == 1


def test_copies_of_a_question_share_a_group_whatever_their_case() -> None:
    rows = query_rows()
    rows["states"][3]["text"] = "  QUESTION 0?"
    group = make(rows).arrays.group
    assert group[3] == group[0]
    assert len(set(group)) == len(group) - 1


def test_numeric_columns_of_states_are_extra_features() -> None:
    arrays = make(query_rows()).arrays
    assert arrays.extra_names == ("difficulty",)
    np.testing.assert_allclose(arrays.extra[:, 0], np.arange(40) / 10)


def test_splits_are_70_10_20_and_change_with_the_salt() -> None:
    names = [f"group {i}" for i in range(20_000)]
    shares = np.bincount(split_groups(names), minlength=3) / len(names)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    same = (split_groups(names, 0) == split_groups(names, 1)).mean()
    assert same == pytest.approx(0.49 + 0.01 + 0.04, abs=0.02)


def test_a_split_that_came_with_the_log_wins_at_salt_0_only() -> None:
    rows = query_rows()
    for i, row in enumerate(rows["states"]):
        row["split"] = ("train", "val", "test")[i % 3]
    log = make(rows)
    assert log.splits().tolist() == [i % 3 for i in range(40)]
    assert log.splits(1).tolist() != log.splits().tolist()
    assert log.splits(1).tolist() == make(query_rows()).splits(1).tolist()


def test_always_one_choice_follows_the_graph_to_its_end() -> None:
    arrays = make(task_rows()).arrays
    quality, cost, latency = always(arrays)
    assert quality[0].tolist() == [0.0, 1.0]
    assert cost[0].tolist() == [1.0, 6.0 + 5.0]
    assert latency[0].tolist() == [0.5, 3.0 + 2.5]
    assert quality[2:].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_clairvoyant_thinks_where_that_pays() -> None:
    arrays = make(think_rows()).arrays
    assert always(arrays)[0][0].tolist() == [0.0, 0.0]
    assert clairvoyant(arrays).tolist() == [1.0, 1.0, 1.0, 0.0]


def test_reach_shares_a_state_among_its_choices_and_follows_bad_replies_less() -> None:
    np.testing.assert_allclose(reach(make(task_rows()).arrays), [1, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(reach(make(think_rows()).arrays), [1, 1, 0.5, 0.5 * MIN_FOLLOWED])


def test_best_single_ignores_a_choice_that_hardly_answered() -> None:
    quality = np.full((10, 2), np.nan)
    quality[:, 0], quality[0, 1] = 0.5, 1.0
    assert best_single(quality) == 0


def test_reference_is_the_mean_of_the_best_single_choice_on_train(tmp_path: Path) -> None:
    log = make(query_rows())
    train = log.splits() == 0
    large = np.arange(40) * 2 + 1
    reference = log.reference
    assert reference["choice"] == "large"
    assert reference["cost_usd"] == pytest.approx(log.arrays.cost_usd[large[train]].mean())
    assert reference["latency_s"] == pytest.approx(3.0)
    assert load_log(log.save(tmp_path / "log")).card.reference == reference


@pytest.mark.parametrize(
    "change",
    [{"cost_usd": float("inf")}, {"latency_s": float("nan")}, {"cost_usd": -1.0}, {"cost_usd": True}, {"choice": None}],
)
def test_a_reference_without_finite_amounts_is_refused(change: dict[str, object]) -> None:
    reference = {"choice": "large", "cost_usd": 1.0, "latency_s": 1.0}
    assert Card.from_dict({"name": "x", "reference": reference}).reference == reference
    with pytest.raises(LogError, match=r"card\.yaml, column reference"):
        Card.from_dict({"name": "x", "reference": reference | change})


@pytest.mark.parametrize("cached", [True, False])
def test_a_reference_has_to_be_a_choice_of_the_log(cached: bool, tmp_path: Path, cache: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    card = Card.load(path / "card.yaml")
    assert card.reference is not None
    card.reference["choice"] = "huge"
    card.save(path / "card.yaml")
    if not cached:
        shutil.rmtree(cache)
    with pytest.raises(LogError, match="found the choice 'huge', expected a choice of the log, one of small, large"):
        load_log(path)
    assert [fault.column for fault in Log.open(path).validate() if fault.severity == "error"] == ["reference"]


def test_the_reference_on_a_card_of_other_tables_is_computed_anew(tmp_path: Path) -> None:
    log = make(query_rows())
    expected = log.reference
    path = log.save(tmp_path / "log")
    card = Card.load(path / "card.yaml")
    card.reference = {"choice": "huge", "cost_usd": 1e9, "latency_s": 1e9}
    card.content_hash = "0" * 32
    card.save(path / "card.yaml")
    for _ in range(2):
        assert load_log(path).reference == expected
    again = load_log(path).save(tmp_path / "again")
    assert Card.load(again / "card.yaml").reference == expected


def test_that_a_card_is_of_other_tables_is_said_whether_or_not_arrays_are_cached(tmp_path: Path, cache: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    card = Card.load(path / "card.yaml")
    card.content_hash = "0" * 32
    card.save(path / "card.yaml")
    for _ in range(2):
        with pytest.warns(LogWarning, match="which is not the hash of the tables"):
            load_log(path)
    shutil.rmtree(cache)
    with pytest.warns(LogWarning, match="which is not the hash of the tables") as caught:
        load_log(path)
    assert len([w for w in caught if "hash of the tables" in str(w.message)]) == 1


def test_saving_replaces_a_log_but_nothing_else(tmp_path: Path) -> None:
    path = make(query_rows(10)).save(tmp_path / "log")
    make(query_rows(20)).save(path)
    assert load_log(path).arrays.num_states == 20
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a log"):
        make(query_rows()).save(other)
    assert [file.name for file in other.iterdir()] == ["thesis.txt"]


def test_a_refused_log_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = query_rows()
    rows["responses"][3]["quality"] = 1.2
    target = tmp_path / "out" / "log"
    with pytest.raises(LogError, match="quality"):
        make(rows).save(target)
    assert not target.exists()
    assert not [file for file in tmp_path.rglob("*") if "partial" in file.name]


@pytest.mark.parametrize("saved", [True, False], ids=["on disk", "in memory"])
def test_a_log_can_be_pickled_after_use_and_stays_light(saved: bool, tmp_path: Path) -> None:
    log = make(query_rows())
    if saved:
        log = load_log(log.save(tmp_path / "log"))
    _ = (log.arrays, log.states, log.splits(1))
    data = pickle.dumps(log)
    again = pickle.loads(data)
    assert again.content_hash == log.content_hash
    np.testing.assert_array_equal(again.arrays.cost_usd, log.arrays.cost_usd)
    np.testing.assert_array_equal(again.splits(1), log.splits(1))
    assert not saved or len(data) < 3000


def test_warnings_are_given_once(tmp_path: Path) -> None:
    rows = query_rows()
    rows["choices"][0]["colour"] = "green"
    path = tmp_path / "log"
    with pytest.warns(LogWarning, match="choices, column colour"):
        make(rows).save(path)
    log = load_log(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.check()
        load_log(path)


def test_an_unknown_name_lists_the_built_in_logs() -> None:
    with pytest.raises(LogError, match=r"questions.*tasks"):
        load_log("nosuchlog")


def test_cached_log_loads_without_arrow(tmp_path: Path) -> None:
    path = make(query_rows()).save(tmp_path / "log")
    load_log(path)
    script = (
        "import sys; from rlroute.log import load_log; load_log(sys.argv[1]).splits(3);"
        "print({'pyarrow', 'pydantic', 'scipy', 'matplotlib', 'torch', 'ray'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "set()"


def test_parquet_of_any_width_is_read_in_the_types_of_the_schema(tmp_path: Path) -> None:
    import pyarrow as pa

    path = make(query_rows()).save(tmp_path / "log")
    file = path / "responses.parquet"
    table = pq.read_table(file)
    quality = table["quality"].cast(pa.float32())
    table = table.set_column(table.column_names.index("quality"), "quality", quality)
    choice = table["choice"].dictionary_encode()
    table = table.set_column(table.column_names.index("choice"), "choice", choice)
    table = table.set_column(
        table.column_names.index("prompt_tokens"), "prompt_tokens", table["prompt_tokens"].cast(pa.float64())
    )
    pq.write_table(table, file)
    assert Log.open(path).responses.schema == make(query_rows()).responses.schema
    np.testing.assert_array_equal(Log.open(path).arrays.prompt_tokens, make(query_rows()).arrays.prompt_tokens)
