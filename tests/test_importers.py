"""Recordings become logs: small ones written here, one for every rule, and the real ones where they lie."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_logs import refusal

from rlroute.answers import answer_key, exact_match, f1, normalise_answer
from rlroute.errors import LogError
from rlroute.graph import always, best_single, clairvoyant
from rlroute.importers import IMPORTERS, detect, import_log
from rlroute.importers.reasoning_gym import CHECKABLE
from rlroute.importers.routeprofile import extract_answer
from rlroute.log import Log, load_log
from rlroute.prices import PRICES, Price, price_of
from rlroute.summary import summarise

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")

COMMON = (
    "anthropic_claude-3.5-sonnet,deepseek_deepseek-r1,meta-llama_llama-4-maverick,"
    "mistralai_mistral-small-3.1-24b-instruct,openai_o3-mini,qwen_qwq-32b"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLROUTE_CACHE", str(tmp_path / "cache"))


def recording(name: str) -> Path:
    """A real recording, or a skip that says what is missing."""
    folder = Path(os.environ.get("RLROUTE_DATA", "")) / name
    if "RLROUTE_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"no recorded data: set RLROUTE_DATA to the folder that holds {name}/")
    return folder


# --- answers and prices


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles!", "beatles"),
        ("  an   Apple, a day ", "apple day"),
        ("Theatre", "theatre"),
        ("U.S.A.", "usa"),
    ],
)
def test_normal_form_drops_case_punctuation_articles_and_space(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


@given(st.text(max_size=40))
def test_normal_form_is_stable(text: str) -> None:
    assert " ".join(normalise_answer(text).split()) == normalise_answer(text)
    assert exact_match(text, [text.upper().lower()]) in (0.0, 1.0)
    assert exact_match(text, [text]) == 1.0


def test_options_that_look_like_articles_stay_answers() -> None:
    assert normalise_answer("A") == ""
    assert answer_key("A") == "a" != answer_key("B")


def test_f1_counts_shared_words_of_the_best_gold() -> None:
    assert f1("born in March 1900", ["March 1900"]) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert f1("born in March 1900", ["nothing", "born in march 1900"]) == 1.0
    assert f1("yes it is", ["yes"]) == 0.0
    assert f1("", ["x"]) == 0.0


def test_prices_match_by_exact_name_only() -> None:
    assert price_of("mistralai/mixtral-8x22b-instruct-v0.1") is PRICES["mixtral-8x22b-instruct"]
    assert price_of("my-mixtral-8x22b-instruct-finetune") is None
    assert all(price.cached_input_usd_per_mtok is not None for name, price in PRICES.items() if name.startswith("gpt"))
    own = Price(1.0, 2.0, price_source="me", price_date="2026-01-01")
    assert price_of("gpt-4.1", {"gpt-4.1": own}) is own
    assert all(price.price_source and price.price_date for price in PRICES.values())


# --- routeprofile


def route_row(task: str = "mmlu", metric: str = "em_mc", **answers: tuple[str, float]) -> dict[str, Any]:
    performance = {
        model: {
            "response": text,
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "success": True,
            "task_performance": score,
        }
        for model, (text, score) in answers.items()
    }
    return {
        "task_name": task,
        "query": f"A question of {task}",
        "ground_truth": "B",
        "metric": metric,
        "task_id": None,
        "model_performance": performance,
    }


def routeprofile(folder: Path, rows: list[Any]) -> Path:
    (folder / "routing_test_data.json").write_text(json.dumps(rows))
    models = {name: {"input_price": 1.0, "output_price": 3.0, "feature": f"about {name}"} for name in ("x", "y")}
    (folder / "candidate_models.json").write_text(json.dumps(models))
    return folder


def test_routeprofile_costs_come_from_its_prices_and_code_is_marked(tmp_path: Path) -> None:
    rows = [
        route_row(x=("(B)", 1.0), y=("(A)", 0.0)),
        route_row("mbpp", "code_eval", x=("pass", 0.0), y=("pass", 0.0)),
    ]
    log = import_log("routeprofile", routeprofile(tmp_path, rows))
    np.testing.assert_allclose(log.arrays.cost_usd, (100 * 1 + 10 * 3) / 1e6)
    assert log.states["metric"].to_pylist() == ["em_mc", "code_eval:broken"]
    assert log.states["state_id"].to_pylist() == ["routeprofile/0000", "routeprofile/0001"]
    assert log.responses["answer"].to_pylist()[:2] == ["B", "A"]
    assert log.card.coverage == "full"


def test_routeprofile_leaves_out_what_it_is_told_to(tmp_path: Path) -> None:
    rows = [route_row(task, x=("(B)", 1.0), y=("(B)", 1.0)) for task in ("mmlu", "mbpp", "human_eval", "trivia_qa")]
    path = routeprofile(tmp_path, rows)
    assert import_log("routeprofile", path, without="code").states["task_name"].to_pylist() == [
        "mmlu",
        "trivia_qa",
    ]
    left = import_log("routeprofile", path, without="code, trivia").states
    assert left["state_id"].to_pylist() == ["routeprofile/0000"]
    with pytest.raises(LogError, match="--without: found 'cod'"):
        import_log("routeprofile", path, without="cod")


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"query": None}, "routing_test_data.json row 1, column query: found None"),
        (
            {"model_performance": {"x": {"response": "a"}}},
            "row 1, column task_performance: found no such field",
        ),
        ({"metric": 3}, "row 1, column metric: found 3"),
    ],
)
def test_routeprofile_names_row_and_field_of_what_is_wrong(
    tmp_path: Path, spoiled: dict[str, Any], message: str
) -> None:
    good = route_row(x=("(B)", 1.0), y=("(B)", 1.0))
    with pytest.raises(LogError, match=message):
        import_log("routeprofile", routeprofile(tmp_path, [good, {**good, **spoiled}]))


@pytest.mark.parametrize(
    ("metric", "response", "answer"),
    [
        ("em_mc", "It is (C) because of (A).", "C"),
        ("em_mc", "B", "B"),
        ("gsm8k", "So 3 + 4 = 7, that is **1,007** apples.", "1007.0"),
        ("f1_score", "The Beatles.", "beatles"),
    ],
)
def test_routeprofile_answers_are_what_the_metric_looks_at(metric: str, response: str, answer: str) -> None:
    assert extract_answer(metric, response) == answer


# --- router_r1

MIXTRAL, QWEN = "mistralai/mixtral-8x22b-instruct-v0.1", "qwen/qwen2.5-7b-instruct"


def nq_row(**changes: Any) -> dict[str, Any]:
    row = {
        "query": "who?",
        "gt": ["The Queen"],
        "source": "nq",
        "llm_name_list": [MIXTRAL, QWEN],
        "response_list": ["<answer>no</answer> or <answer>queen</answer>", "the queen"],
        "cost_list": [12.0, 3.0],
        "perf_list": [1.0, 0.2],
    }
    return {**row, **changes}


def router_r1(folder: Path, rows: list[Any]) -> Path:
    (folder / "router_train_data_nq.json").write_text(json.dumps(rows))
    return folder


def test_router_r1_follows_the_names_and_not_the_order_of_a_row(tmp_path: Path) -> None:
    turned = nq_row(query="who else?", **{name: nq_row()[name][::-1] for name in nq_row() if name.endswith("_list")})
    log = import_log("router_r1", router_r1(tmp_path, [nq_row(), turned]))
    assert log.arrays.choice_names == (MIXTRAL, QWEN)
    np.testing.assert_allclose(log.arrays.quality, [1.0, 0.2, 1.0, 0.2])
    np.testing.assert_allclose(log.arrays.cost_usd, [12e-6, 3e-6, 12e-6, 3e-6])
    assert log.arrays.completion_tokens.tolist() == [10, 10, 10, 10]


def test_router_r1_reads_lists_that_are_literals_in_a_string(tmp_path: Path) -> None:
    plain = import_log("router_r1", router_r1(tmp_path, [nq_row()]))
    text = {name: repr(value) if isinstance(value, list) else value for name, value in nq_row().items()}
    assert import_log("router_r1", router_r1(tmp_path, [text])).content_hash == plain.content_hash


def test_router_r1_exact_match_is_of_the_last_answer_tag(tmp_path: Path) -> None:
    log = import_log("router_r1", router_r1(tmp_path, [nq_row()]), metric="em")
    assert log.arrays.quality.tolist() == [1.0, 0.0]  # the second has no tag
    assert log.responses["answer"].to_pylist() == ["queen", ""]


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"perf_list": [1.0]}, "row 0, column llm_name_list: found .*perf_list 1"),
        ({"perf_list": "__import__('os')"}, "row 0, column perf_list"),
        ({"gt": None}, "row 0, column gt: found None"),
        ({"perf_list": [1.5, 0.0]}, "responses row 0, column quality: found 1.5"),
    ],
)
def test_router_r1_names_what_is_wrong(tmp_path: Path, spoiled: dict[str, Any], message: str) -> None:
    with pytest.raises(LogError, match=message):
        import_log("router_r1", router_r1(tmp_path, [nq_row(**spoiled)])).check()


# --- reasoning_gym


def gym(folder: Path, responses: list[dict[str, Any]]) -> Path:
    prices = {
        model: {
            "input_usd_per_mtok": 1,
            "output_usd_per_mtok": 2,
            "assumed_hidden_tokens": {"easy": h, "hard": 2 * h},
        }
        for model, h in (("plain", 0), ("thinker", 1000))
    }
    questions = {(r["level"], r["task"], r["idx"]) for r in responses}
    rows = [{"level": a, "task": t, "idx": i, "question": f"{t} {i}" + "?" * 40} for a, t, i in sorted(questions)]
    (folder / "prices.json").write_text(json.dumps(prices))
    for name, lines in (("questions", rows), ("responses", responses)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def gym_rows(questions: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "level": level,
            "task": task,
            "idx": i,
            "model": model,
            "attempt": attempt,
            "score": float(i % 2),
            "answer": str(i),
            "chars": 350,
            **({"verdict": i % 2} if task == "jugs" else {}),
        }
        for level in ("easy", "hard")
        for task in ("jugs", "aiw")
        for i in range(questions)
        for model in ("plain", "thinker")
        for attempt in range(2 if level == "easy" else 1)
    ]


def test_gym_tokens_are_estimated_and_hidden_ones_assumed(tmp_path: Path) -> None:
    path = gym(tmp_path, gym_rows(1))
    rows = import_log("reasoning_gym", path).responses.to_pylist()
    by_key = {(row["state_id"], row["choice"]): row for row in rows}
    assert by_key["easy/jugs/0", "plain"]["prompt_tokens"] == round((46 + 560) / 4)
    assert by_key["easy/jugs/0", "plain"]["completion_tokens"] == 100
    assert by_key["easy/jugs/0", "thinker"]["completion_tokens"] == 1100
    assert by_key["hard/jugs/0", "thinker"]["completion_tokens"] == 2100
    bare = import_log("reasoning_gym", path, hidden="none").responses
    assert set(bare["completion_tokens"].to_pylist()) == {100}


def test_gym_copies_of_a_text_share_a_group(tmp_path: Path) -> None:
    arrays = import_log("reasoning_gym", gym(tmp_path, gym_rows())).arrays
    assert arrays.num_states == 40
    assert len(arrays.group_ids) == 20  # the same text stands in both levels


def test_gym_keeps_levels_tasks_models_and_attempts(tmp_path: Path) -> None:
    path = gym(tmp_path, gym_rows())
    log = import_log("reasoning_gym", path, levels="easy", tasks="jugs", models="plain", attempts=1)
    assert set(log.states["task_name"].to_pylist()) == {"jugs"}
    assert log.arrays.num_attempts.tolist() == [[1]] * 10
    with pytest.raises(LogError, match="option --tasks: found 'chess'"):
        import_log("reasoning_gym", path, tasks="chess")
    with pytest.raises(LogError, match="option --attempts: found 0"):
        import_log("reasoning_gym", path, attempts=0)


def test_gym_common_keeps_only_questions_that_all_of_them_answered(tmp_path: Path) -> None:
    rows = [row for row in gym_rows() if row["model"] == "plain" or row["idx"] < 4]
    path = gym(tmp_path, rows)
    assert import_log("reasoning_gym", path).card.coverage == "partial"
    log = import_log("reasoning_gym", path, common="all")
    assert log.card.coverage == "full"
    assert log.arrays.num_states == 16
    assert import_log("reasoning_gym", path, common="plain").arrays.num_states == 40


def test_gym_verdicts_are_shown_hidden_or_flipped_repeatably(tmp_path: Path) -> None:
    path = gym(tmp_path, gym_rows(200))

    def verdicts(**options: Any) -> np.ndarray:
        return import_log("reasoning_gym", path, tasks="jugs", **options).arrays.verdict

    exact = verdicts()
    assert not np.isnan(exact).any()
    assert np.isnan(verdicts(verdict="hide")).all()
    flipped = verdicts(flip=0.1)
    assert (flipped != exact).mean() == pytest.approx(0.1, abs=0.03)
    np.testing.assert_array_equal(flipped, verdicts(flip=0.1))
    assert (flipped != verdicts(flip=0.1, seed=1)).mean() == pytest.approx(0.18, abs=0.04)
    # A larger share flips the same rows and more.
    assert (verdicts(flip=0.2) != exact)[flipped != exact].all()


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"model": "other"}, "responses.jsonl.gz row 3, column model: found 'other'"),
        ({"idx": "three"}, "row 3, column idx: found 'three'"),
        ({"score": None}, "row 3, column score: found None"),
    ],
)
def test_gym_names_line_and_field_of_what_is_wrong(tmp_path: Path, spoiled: dict[str, Any], message: str) -> None:
    path = gym(tmp_path, gym_rows(1))
    rows = gym_rows(1)
    rows[2].update(spoiled)
    with gzip.open(path / "responses.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in rows)
    with pytest.raises(LogError, match=message):
        import_log("reasoning_gym", path)


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "no JSON"])
def test_gym_files_that_cannot_be_read_are_named(tmp_path: Path, damage: str) -> None:
    path = gym(tmp_path, gym_rows(50))
    file = path / "responses.jsonl.gz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "no gzip":
        file.write_bytes(b"hello")
    else:
        file.write_bytes(gzip.compress(b'{"level": "easy"\n'))
    with pytest.raises(LogError, match=r"responses.jsonl.gz row \d+: found"):
        import_log("reasoning_gym", path)


@pytest.mark.parametrize("file", ["routing_test_data.json", "candidate_models.json"])
@pytest.mark.parametrize("text", ["", "3", "null", "[1]", '{"x": 1}', "[[]]", "[" * 100_000])
def test_json_of_another_shape_is_named(tmp_path: Path, file: str, text: str) -> None:
    path = routeprofile(tmp_path, [route_row(x=("(B)", 1.0), y=("(A)", 0.0))])
    (path / file).write_text(text)
    with pytest.raises(LogError, match=file):
        import_log("routeprofile", path)


# --- generic

LONG = {"name": "mine", "columns": {"query": "prompt", "model": "llm", "quality": "score", "cost_usd": "usd"}}


def generic(folder: Path, mapping: Any, text: str, name: str = "data.csv") -> Path:
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    (folder / name).write_text(text)
    return folder / name


def test_a_long_csv_needs_four_columns_and_repeats_are_attempts(tmp_path: Path) -> None:
    text = 'prompt,llm,score,usd\n"a, b",x,1,0.1\n"a, b",x,0,0.2\n"a, b",y,0.5,0.3\n'
    arrays = import_log("generic", generic(tmp_path, LONG, text)).arrays
    assert arrays.choice_names == ("x", "y")
    assert arrays.num_attempts.tolist() == [[2, 1]]
    assert arrays.quality.tolist() == [1.0, 0.0, 0.5]
    assert arrays.cost_usd.tolist() == [0.1, 0.2, 0.3]


def test_jsonl_and_parquet_give_what_csv_gives(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"prompt": f"q{i}", "llm": m, "score": i / 4, "usd": 0.5} for i in range(4) for m in ("x", "y")]
    csv_text = "prompt,llm,score,usd\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows)
    expected = import_log("generic", generic(tmp_path, LONG, csv_text)).content_hash
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert import_log("generic", generic(tmp_path, LONG, lines, "data.jsonl")).content_hash == expected
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert import_log("generic", tmp_path / "data.jsonl.gz").content_hash == expected
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    assert import_log("generic", tmp_path / "data.parquet").content_hash == expected


def test_a_wide_table_has_columns_for_each_model(tmp_path: Path) -> None:
    mapping = {
        "name": "wide",
        "columns": {"query": "q", "task": "topic", "gold": "gold"},
        "models": {
            "x": {"quality": "x_score", "prompt_tokens": "n_in", "completion_tokens": "n_out"},
            "y": {"quality": "y_score", "cost_usd": "y_usd"},
        },
        "prices": {"x": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}},
        "quality_range": [0, 10],
    }
    text = "q,topic,gold,x_score,n_in,n_out,y_score,y_usd\n"
    text += 'one,t,"[""a"", ""b""]",10,100,50,5,0.5\ntwo,t,c,0,100,50,,\n'
    log = import_log("generic", generic(tmp_path, mapping, text))
    assert log.card.coverage == "partial"  # y did not answer the second question
    assert log.states["gold"].to_pylist() == [["a", "b"], ["c"]]
    np.testing.assert_allclose(log.arrays.quality, [1.0, 0.5, 0.0])
    np.testing.assert_allclose(log.arrays.cost_usd, [2e-4, 0.5, 2e-4])


def test_every_field_of_the_mapping_arrives(tmp_path: Path) -> None:
    fields = {
        "id": "key-1",
        "task": "maths",
        "gold": "4",
        "split": "train",
        "quality": 1.0,
        "cost_usd": 0.25,
        "prompt_tokens": 11,
        "cached_tokens": 5,
        "completion_tokens": 7,
        "reasoning_tokens": 3,
        "latency_s": 1.5,
        "answer": "Four!",
        "text": "It is four.",
        "attempt": 2,
        "verdict": 1.0,
        "propensity": 0.5,
        "error": "truncated",
    }
    row = {"query": "2+2", "model": "m", **fields}
    mapping = {"name": "all", "columns": {name: name for name in row}}
    log = import_log("generic", generic(tmp_path, mapping, json.dumps(row) + "\n", "data.jsonl"))
    state, response = log.states.to_pylist()[0], log.responses.to_pylist()[0]
    assert (state["state_id"], state["task_name"], state["gold"], state["split"]) == (
        "key-1",
        "maths",
        ["4"],
        "train",
    )
    for name in set(fields) - {"id", "task", "gold", "split", "answer"}:
        assert response[name] == fields[name], name
    assert response["answer"] == "four"


BAD_ROWS = [
    ("score", "1.2", "data.csv row 3, column score: found '1.2', expected a finite number in \\[0, 1\\]"),
    ("score", "good", "data.csv row 3, column score: found 'good'"),
    ("score", "nan", "data.csv row 3, column score: found 'nan'"),
    ("score", "", "data.csv row 3, column score: found nothing"),
    ("usd", "-1", "data.csv row 3, column usd: found '-1', expected a finite number in"),
    ("prompt", "", "data.csv row 3, column prompt: found nothing, expected a query"),
    ("llm", "", "data.csv row 3, column llm: found nothing, expected a model"),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_ROWS)
def test_a_bad_value_is_named_with_file_line_and_column(tmp_path: Path, column: str, value: str, message: str) -> None:
    bad = {"prompt": "q", "llm": "x", "score": "1", "usd": "0.1", column: value}
    text = "prompt,llm,score,usd\nq,y,1,0.1\n" + ",".join(bad.values()) + "\n"
    with pytest.raises(LogError, match=message):
        import_log("generic", generic(tmp_path, LONG, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,llm,usd\nq,x,1\n", "row 2, column score: found no such column .there are prompt, llm, usd."),
        ("prompt,llm,score,usd\nq,x,1\n", "row 2: found 3 fields, expected 4 fields"),
        ('prompt,llm,score,usd\n"q,x,1,2\n', "found no CSV"),
        ("prompt,llm,score,usd\n", "data.csv: found no rows"),
        ("", "data.csv: found no rows"),
    ],
)
def test_a_malformed_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        import_log("generic", generic(tmp_path, LONG, text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"query": "prompt", "model": "llm"}}, "column columns.quality: found nothing"),
        ({"columns": {**LONG["columns"], "qualty": "s"}}, "column columns.qualty: found an unknown field"),  # type: ignore[dict-item]
        ({"name": ""}, "column name"),
        ({"quality_range": [1, 0]}, "column quality_range"),
        ({"prices": {"x": {"output_usd_per_mtok": -1}}}, "column prices.x.output_usd_per_mtok: found -1"),
        (
            {"prices": {"z": {"output_usd_per_mtok": 1}}},
            "column prices.z: found a model that is not in the recording",
        ),
        ({"models": {}, "columns": {"query": "prompt"}}, "column models"),
    ],
)
def test_a_bad_mapping_is_named_with_its_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = generic(tmp_path, {**LONG, **change}, "prompt,llm,score,usd\nq,x,1,0.1\n")
    with pytest.raises(LogError, match=f"mapping.yaml, {message}"):
        import_log("generic", path)


def test_known_models_are_priced_by_name_unless_the_mapping_says_otherwise(tmp_path: Path) -> None:
    mapping = {
        "name": "priced",
        "columns": {
            "query": "q",
            "model": "m",
            "quality": "s",
            "prompt_tokens": "i",
            "completion_tokens": "o",
        },
        "prices": {"gpt-4.1-mini": {"input_usd_per_mtok": 7.0, "output_usd_per_mtok": 9.0}},
    }
    text = "q,m,s,i,o\na,gpt-4.1,1,1000,100\na,gpt-4.1-mini,1,1000,100\n"
    cost = import_log("generic", generic(tmp_path, mapping, text)).arrays.cost_usd
    np.testing.assert_allclose(cost, [(1000 * 2 + 100 * 8) / 1e6, (1000 * 7 + 100 * 9) / 1e6])
    unpriced = generic(tmp_path, {**mapping, "prices": {}}, text.replace("gpt-4.1", "gpt-9"))
    with pytest.raises(LogError, match=r"choices row 0, column input_usd_per_mtok: found null"):
        import_log("generic", unpriced).check()


def test_propensities_make_a_partial_log_of_a_production_trace(tmp_path: Path) -> None:
    mapping = {"name": "trace", "columns": {**LONG["columns"], "propensity": "p"}}  # type: ignore[dict-item]
    text = "prompt,llm,score,usd,p\na,x,1,1,0.5\nb,y,0,2,0.25\n"
    log = import_log("generic", generic(tmp_path, mapping, text))
    assert log.card.coverage == "partial"
    assert not log.arrays.coverage_full
    assert log.arrays.propensity.tolist() == [0.5, 0.25]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=80), st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=5)))
def test_whatever_a_csv_holds_the_import_refuses_it_by_name_or_makes_a_log(
    tmp_path_factory: pytest.TempPathFactory, text: str | list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    body = text if isinstance(text, str) else "\n".join(",".join(row) for row in text)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(LONG))
    (folder / "data.csv").write_text("prompt,llm,score,usd\n" + body, encoding="utf-8", errors="surrogatepass")
    error = refusal(lambda: import_log("generic", folder / "data.csv").check())
    assert error is None or {fault.table for fault in error.faults} == {"data.csv"}


# --- finding out what something is


def test_kinds_are_detected_by_their_files(tmp_path: Path) -> None:
    path = routeprofile(tmp_path, [route_row(x=("(B)", 1.0), y=("(A)", 0.0))])
    assert detect(path) == "routeprofile"
    assert detect(path / "routing_test_data.json") == "routeprofile"
    log = import_log("routeprofile", path).save(tmp_path / "log")
    assert detect(log) == "log"
    with pytest.raises(LogError, match="found no such file or folder"):
        detect(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="none of the known files"):
        detect(tmp_path / "empty")
    with pytest.raises(LogError, match="kind 'excel'"):
        import_log("excel", path)


# --- the real recordings, against figures measured by others


def single(log: Log) -> dict[str, tuple[float, float]]:
    """Mean quality, and cost in millionths of a USD, of always calling each choice."""
    quality, cost, _ = always(log.arrays)
    return {
        name: (float(np.nanmean(quality[:, c])), float(np.nanmean(cost[:, c]) * 1e6))
        for c, name in enumerate(log.arrays.choice_names)
    }


def test_real_routeprofile_has_the_known_figures() -> None:
    summary = summarise(import_log("routeprofile", recording("routeprofile")))
    assert (summary.roots, len(summary.choices), summary.coverage) == (600, 8, "full")
    assert summary.best_single_quality == pytest.approx(0.6125, abs=5e-5)
    assert summary.best_per_task == pytest.approx(0.672, abs=5e-4)
    assert summary.best_per_root == summary.clairvoyant == pytest.approx(0.757, abs=5e-4)
    assert summary.uniform == pytest.approx(0.538, abs=5e-4)


def test_real_routeprofile_without_code_and_trivia_has_450_queries() -> None:
    log = import_log("routeprofile", recording("routeprofile"), without="code,trivia")
    assert log.arrays.num_states == 450
    assert max(quality for quality, _ in single(log).values()) == pytest.approx(0.785, abs=5e-4)


@pytest.mark.parametrize(
    ("model", "known_f1", "known_em", "known_cost"),
    [
        ("google/gemma-2-27b-it", 0.457, 0.342, 29.9),
        ("mistralai/mixtral-8x22b-instruct-v0.1", 0.306, 0.150, 79.6),
        ("meta/llama-3.1-8b-instruct", 0.280, 0.196, 36.2),
        ("meta/llama-3.1-70b-instruct", 0.199, 0.136, 125.9),
        ("mistralai/mistral-7b-instruct-v0.3", 0.165, 0.060, 12.3),
        ("qwen/qwen2.5-7b-instruct", 0.134, 0.068, 13.9),
    ],
)
def test_real_router_r1_has_the_known_figures(model: str, known_f1: float, known_em: float, known_cost: float) -> None:
    path = recording("router_r1_nq")
    quality, cost = single(import_log("router_r1", path))[model]
    assert quality == pytest.approx(known_f1, abs=6e-4)
    assert cost == pytest.approx(known_cost, abs=0.06)
    # The published EM counts F1 = 1, which one question in 500 reaches with its words in another order.
    assert single(import_log("router_r1", path, metric="em"))[model][0] == pytest.approx(known_em, abs=2.1e-3)


def test_real_gym_has_650_common_checkable_questions_led_by_o3_mini() -> None:
    path = recording("reasoning_gym")
    log = import_log("reasoning_gym", path, tasks="checkable", common=COMMON, attempts=1)
    assert log.arrays.num_states == 650
    assert set(log.states["task_name"].to_pylist()) == set(CHECKABLE)
    quality = single(log)
    assert max(quality, key=lambda name: quality[name][0]) == "openai_o3-mini"
    assert quality["openai_o3-mini"][0] == pytest.approx(0.874, abs=5e-4)
    arrays = log.arrays
    np.testing.assert_array_equal(arrays.verdict == 1, arrays.quality >= 0.999)  # an error-free checker
    models = import_log("reasoning_gym", path, tasks="checkable", models=COMMON, common="all", attempts=1)
    assert models.card.coverage == "full"
    assert models.arrays.num_responses == 650 * 6


def test_real_gym_is_whole_and_its_copies_share_groups() -> None:
    log = import_log("reasoning_gym", recording("reasoning_gym"))
    arrays = log.arrays
    assert (arrays.num_states, arrays.num_choices, arrays.num_responses) == (3650, 10, 62_400)
    size = np.bincount(arrays.group)
    assert size[size > 1].sum() == 361  # questions whose text another one has too
    hard = np.char.startswith(np.asarray(arrays.state_ids), "hard/")
    both = [group for group in np.flatnonzero(size > 1) if len(set(hard[arrays.group == group])) == 2]
    assert len(both) == 159
    assert best_single(always(arrays)[0]) == arrays.choice_names.index("openai_o3-mini")
    assert np.nanmean(clairvoyant(arrays)) > 0.87


@pytest.mark.parametrize("kind", [kind for kind in IMPORTERS if kind != "generic"])
def test_real_recordings_are_saved_and_loaded_without_faults(kind: str, tmp_path: Path) -> None:
    folder = recording({"router_r1": "router_r1_nq"}.get(kind, kind))
    assert detect(folder) == kind
    log = import_log(kind, folder)
    assert log.validate() == []
    assert load_log(log.save(tmp_path / kind)).content_hash == log.content_hash
