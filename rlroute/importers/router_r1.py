"""Router-R1's recording (ulab-uiuc/LLMRouter history, MIT): 500 Natural Questions, its six models."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.answers import answer_key, exact_match
from rlroute.card import Card
from rlroute.errors import Fault, LogError
from rlroute.importers.reading import coverage, field, known, locate, read_json, refuse_empty
from rlroute.prices import price_of

if TYPE_CHECKING:
    from rlroute.log import Log

DATA = "router_train_data_nq.json"
METRICS = ("f1", "em")
LISTS = ("llm_name_list", "response_list", "cost_list", "perf_list")
NOTES = (
    "Cost is completion tokens times USD per million; prompt tokens were not recorded. Most responses of "
    "Llama-70B lack the answer tag, so it scores low. The order of the models in a row of the recording "
    "leaks their quality: it is not kept. Everything learned on this log has lost to its best single model: "
    "use it as a smoke test."
)


def add_arguments(parser: Any) -> None:
    """Options of `read` on an argparse parser."""
    parser.add_argument("--metric", choices=METRICS, default="f1", help="quality: recorded F1, or exact match")


def read(path: Path, metric: str = "f1") -> Log:
    """The log of the recording. ``metric``: f1 (as recorded) or em (computed from the answer tag)."""
    from rlroute.log import Log

    known("--metric", [metric], set(METRICS))
    file = locate(path, DATA)
    states: list[dict[str, Any]] = []
    responses: list[dict[str, Any]] = []
    models: set[str] = set()
    for number, row in enumerate(read_json(file, list)):
        gold = [str(answer) for answer in _list(file, number, row, "gt")]
        state_id = f"nq/{number:04d}"
        question = field(file, number, row, "query", str)
        states.append(
            {
                "state_id": state_id,
                "text": question,
                "task_name": row.get("source"),
                "gold": gold,
                "metric": metric,
            }
        )
        columns = [_list(file, number, row, name) for name in LISTS]
        if len({len(column) for column in columns}) != 1:
            sizes = ", ".join(f"{name} {len(column)}" for name, column in zip(LISTS, columns, strict=True))
            raise LogError([Fault(file.name, number, "llm_name_list", sizes, "lists of one length")])
        for model, text, cost, score in zip(*columns, strict=True):
            models.add(model)
            answer = extract_answer(text)
            price = price_of(model)
            responses.append(
                {
                    "state_id": state_id,
                    "choice": model,
                    "quality": float(score) if metric == "f1" else exact_match(answer, gold),
                    "answer": answer_key(answer),
                    "text": text,
                    "completion_tokens": round(cost / price.output_usd_per_mtok)
                    if price and price.output_usd_per_mtok
                    else None,
                    "cost_usd": cost * 1e-6,
                }
            )
    refuse_empty(file, states, "nothing")
    choices = [{"name": model, **(price.to_row() if (price := price_of(model)) else {})} for model in sorted(models)]
    card = Card(
        name=f"router_r1_nq_{metric}",
        origin="ulab-uiuc/LLMRouter history, router_train_data_nq.json",
        licence="MIT",
        generator="rlroute.importers.router_r1",
        parameters={"metric": metric},
        coverage=coverage(choices, states, responses),
        description=f"{len(states)} Natural Questions, {len(choices)} models, scored by {metric}.",
        notes=NOTES,
    )
    return Log.from_tables(card, choices, states, responses)


def _list(file: Path, number: int, row: Any, name: str) -> list[Any]:
    """A list, which some versions of the recording hold as a Python literal in a string."""
    value = field(file, number, row, name, (list, str))
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise LogError([Fault(file.name, number, name, repr(value)[:60], "a list, or one in a string")]) from None
    if not isinstance(value, list):
        raise LogError([Fault(file.name, number, name, repr(value)[:60], "a list")])
    return value


def extract_answer(response: str) -> str:
    """What the last answer tag holds; empty where there is none."""
    found = re.findall(r"<answer>(.*?)</answer>", response, flags=re.DOTALL)
    return found[-1].strip() if found else ""
