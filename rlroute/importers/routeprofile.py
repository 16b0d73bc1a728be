"""RouteProfile (ulab-uiuc, MIT): 600 queries of 12 tasks, each answered by the same 8 models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.answers import answer_key
from rlroute.card import Card
from rlroute.importers.reading import coverage, field, known, locate, names, read_json, refuse_empty

if TYPE_CHECKING:
    from rlroute.log import Log

DATA = "routing_test_data.json"
MODELS = "candidate_models.json"
PRICE_SOURCE = "RouteProfile candidate_models.json, list price"

# Short names for tasks that one may want to leave out.
ALIASES = {"code": ("mbpp", "human_eval"), "trivia": ("trivia_qa",)}
NOTES = (
    "The two code tasks (metric code_eval) score near 0 for every model: their scoring is broken, "
    "and their metric reads code_eval:broken here. trivia_qa looks like a contains match and its gold "
    "holds stray aliases. Prices are list prices of a later day than the recording. One attempt a model; no "
    "latencies."
)


def add_arguments(parser: Any) -> None:
    """Options of `read` on an argparse parser."""
    parser.add_argument(
        "--without", metavar="TASKS", help="tasks to leave out, by name; code and trivia stand for theirs"
    )


def read(path: Path, without: str | None = None) -> Log:
    """The log of a RouteProfile folder. ``without``: task names separated by commas; code, trivia."""
    from rlroute.log import Log

    file = locate(path, DATA)
    models_file = locate(file.parent, MODELS)
    models = read_json(models_file, dict)
    rows = list(enumerate(read_json(file, list)))
    tasks = {field(file, number, row, "task_name", str) for number, row in rows}
    omitted = names(without)
    known("--without", omitted, tasks | set(ALIASES))
    left_out = {task for name in omitted for task in ALIASES.get(name, (name,))}
    choices = [_choice(name, field(models_file, None, models, name, dict)) for name in models]
    states: list[dict[str, Any]] = []
    responses: list[dict[str, Any]] = []
    for number, row in rows:
        task = row["task_name"]
        if task in left_out:
            continue
        metric = field(file, number, row, "metric", str)
        # The recording's own task_id is null in most rows.
        state_id = f"routeprofile/{number:04d}"
        states.append(
            {
                "state_id": state_id,
                "text": field(file, number, row, "query", str),
                "task_name": task,
                "gold": [field(file, number, row, "ground_truth", str)],
                "metric": f"{metric}:broken" if task in ALIASES["code"] else metric,
            }
        )
        for model, answer in field(file, number, row, "model_performance", dict).items():
            text = field(file, number, answer, "response", str)
            responses.append(
                {
                    "state_id": state_id,
                    "choice": model,
                    "quality": float(field(file, number, answer, "task_performance", (int, float))),
                    "answer": extract_answer(metric, text),
                    "text": text,
                    "prompt_tokens": field(file, number, answer, "prompt_tokens", int),
                    "completion_tokens": field(file, number, answer, "completion_tokens", int),
                    "error": None if field(file, number, answer, "success", bool) else "recorded as failed",
                }
            )
    refuse_empty(file, states, f"--without {without}")
    card = Card(
        name="routeprofile",
        origin="ulab-uiuc/RouteProfile, routing_test_data.json",
        licence="MIT",
        generator="rlroute.importers.routeprofile",
        parameters={"without": sorted(left_out)},
        coverage=coverage(choices, states, responses),
        description=f"{len(states)} queries of {len(tasks - left_out)} tasks, {len(choices)} models.",
        notes=NOTES,
    )
    return Log.from_tables(card, choices, states, responses)


def _choice(name: str, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "model",
        "description": model.get("feature", ""),
        "input_usd_per_mtok": model.get("input_price"),
        "output_usd_per_mtok": model.get("output_price"),
        "price_source": PRICE_SOURCE,
    }


def extract_answer(metric: str, response: str) -> str:
    """The answer in a response, in normal form: the option's letter, the last number, else the whole text."""
    if metric == "em_mc":
        options = re.findall(r"\(([A-Z])\)", response) or re.findall(r"\b([A-Z])\b", response)
        return options[0] if options else answer_key(response)
    if metric in ("gsm8k", "math"):
        numbers = re.findall(r"-?\d+(?:\.\d+)?", response.replace(",", ""))
        return str(float(numbers[-1])) if numbers else answer_key(response)
    return answer_key(response)
