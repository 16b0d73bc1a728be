"""reasoning-gym-eval (open-thought, Apache-2.0): puzzles of 37 tasks, two levels, 10 models, 1-3 attempts.

Tokens were not recorded. They are estimated from characters, and the hidden tokens of thinking models are an
assumption that comes with the prices; ``hidden="none"`` leaves them out, and results belong shown both ways.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.card import Card
from rlroute.errors import Fault, LogError
from rlroute.importers.reading import (
    coverage,
    field,
    known,
    locate,
    names,
    read_json,
    read_jsonl,
    refuse_empty,
)

if TYPE_CHECKING:
    from rlroute.log import Log

RESPONSES = "responses.jsonl.gz"
QUESTIONS = "questions.jsonl.gz"
PRICES = "prices.json"
HIDDEN_TOKENS = "assumed_hidden_tokens"
PRICE_SOURCE = "reasoning-gym-eval prices.json, list price"

# Tasks whose scorer needs no gold answer, so that a checker could run in a live loop.
CHECKABLE = (
    "countdown",
    "graph_color",
    "jugs",
    "puzzle24",
    "sokoban",
    "propositional_logic",
    "simple_integration",
)
LEVELS = ("easy", "hard")
HIDDEN = ("assumed", "none")
VERDICT = ("show", "hide")

# Estimates: characters of the system prompt, characters a prompt token, characters a completion token.
PROMPT_CHARS = 560
CHARS_PER_PROMPT_TOKEN = 4.0
CHARS_PER_COMPLETION_TOKEN = 3.5

NOTES = (
    "Token counts are estimated: prompt (characters + 560) / 4, visible completion characters / 3.5; hidden "
    "thinking tokens were never recorded. Attempts of one model vary, so a clairvoyant best of single "
    "samples is partly luck. count_primes and spiral_matrix on hard are near 0 for all. 159 texts stand in "
    "both levels: the groups follow the text. The recorded verdict is an error-free checker. No latencies."
)


def add_arguments(parser: Any) -> None:
    """Options of `read` on an argparse parser."""
    parser.add_argument("--levels", metavar="LEVELS", help="easy, hard or both (default)")
    parser.add_argument("--tasks", metavar="TASKS", help="tasks to keep; checkable stands for the seven with a verdict")
    parser.add_argument("--models", metavar="MODELS", help="models to keep")
    parser.add_argument(
        "--common",
        metavar="MODELS",
        help="keep the questions that all of these answered; all = every one kept",
    )
    parser.add_argument("--attempts", type=int, metavar="N", help="keep the first N attempts")
    parser.add_argument("--hidden", choices=HIDDEN, default="assumed", help="hidden thinking tokens")
    parser.add_argument("--verdict", choices=VERDICT, default="show", help="the checker's verdict")
    parser.add_argument("--flip", type=float, default=0.0, metavar="P", help="flip each verdict with this probability")
    parser.add_argument("--seed", type=int, default=0, help="key of the flips")


def read(
    path: Path,
    levels: str | None = None,
    tasks: str | None = None,
    models: str | None = None,
    common: str | None = None,
    attempts: int | None = None,
    hidden: str = "assumed",
    verdict: str = "show",
    flip: float = 0.0,
    seed: int = 0,
) -> Log:
    """The log of the recording, or of a part of it.

    Args:
        path: the folder, or its responses file.
        levels, tasks, models: what to keep, names separated by commas; null keeps all. The task ``checkable``
            stands for the seven whose verdict was recorded.
        common: models that must all have answered a question for it to stay; ``all`` = every model kept.
        attempts: how many attempts of each model to keep.
        hidden: ``assumed`` adds the assumed thinking tokens, ``none`` does not.
        verdict: ``hide`` leaves out the checker's verdicts.
        flip: probability with which a verdict is turned round, keyed by ``seed`` and the row.
    """
    from rlroute.log import Log

    known("--levels", names(levels), set(LEVELS))
    known("--hidden", [hidden], set(HIDDEN))
    known("--verdict", [verdict], set(VERDICT))
    if not 0 <= flip <= 1:
        raise LogError([Fault("option --flip", None, None, str(flip), "a probability in [0, 1]")])
    if attempts is not None and attempts < 1:
        raise LogError([Fault("option --attempts", None, None, str(attempts), "a number of at least 1")])
    file = locate(path, RESPONSES)
    prices_file = locate(file.parent, PRICES)
    prices = read_json(prices_file, dict)
    for model, price in prices.items():
        field(prices_file, None, prices, model, dict)
        for name in ("input_usd_per_mtok", "output_usd_per_mtok"):
            field(prices_file, None, price, name, (int, float))
        for level in LEVELS:
            field(prices_file, None, field(prices_file, None, price, HIDDEN_TOKENS, dict), level, int)
    questions = _questions(locate(file.parent, QUESTIONS))

    all_tasks = {task for _, task, _ in questions}
    kept_tasks = {t for name in names(tasks) for t in (CHECKABLE if name == "checkable" else (name,))}
    known("--tasks", sorted(kept_tasks), all_tasks)
    known("--models", names(models), set(prices))
    kept_models = names(models) or sorted(prices)
    needed = set(kept_models if common == "all" else names(common))
    known("--common", sorted(needed), set(prices))
    kept_levels = set(names(levels) or LEVELS)
    # Without a choice of tasks nothing is dropped.
    kept = {key for key in questions if key[0] in kept_levels and (not kept_tasks or key[1] in kept_tasks)}

    rows = []
    answered: dict[tuple[str, str, str], set[str]] = {}
    for number, row in read_jsonl(file):
        key = _key(file, number, row)
        model = field(file, number, row, "model", str)
        if key not in questions:
            raise LogError([Fault(file.name, number, "idx", repr(key), f"a question of {QUESTIONS}")])
        if model not in prices:
            raise LogError([Fault(file.name, number, "model", repr(model), f"a model of {PRICES}")])
        if key not in kept:
            continue
        answered.setdefault(key, set()).add(model)
        if model in kept_models and (attempts is None or field(file, number, row, "attempt", int) < attempts):
            rows.append((number, key, row))
    kept = {key for key in kept if answered.get(key, set()) >= needed}

    responses = [
        _response(file, number, key, row, questions[key], prices, hidden, verdict, flip, seed)
        for number, key, row in rows
        if key in kept
    ]
    with_responses = {response["state_id"] for response in responses}
    states = [
        {
            "state_id": "/".join(key),
            "text": text,
            "task_name": key[1],
            "metric": "score",
        }
        for key, text in questions.items()
        if "/".join(key) in with_responses
    ]
    refuse_empty(file, states, "these levels, tasks, models and --common")
    used = {response["choice"] for response in responses}
    choices = [_choice(model, prices[model]) for model in kept_models if model in used]
    card = Card(
        name="reasoning_gym",
        origin="open-thought/reasoning-gym-eval, regrouped",
        licence="Apache-2.0",
        generator="rlroute.importers.reasoning_gym",
        parameters={
            "levels": sorted(kept_levels),
            "tasks": sorted(kept_tasks) or "all",
            "models": [choice["name"] for choice in choices],
            "common": sorted(needed),
            "attempts": attempts,
            "hidden": hidden,
            "verdict": verdict,
            "flip": flip,
            "seed": seed,
        },
        coverage=coverage(choices, states, responses),
        description=f"{len(states)} questions of {len({state['task_name'] for state in states})} tasks, "
        f"{len(choices)} models, {len(responses)} responses.",
        notes=NOTES,
    )
    return Log.from_tables(card, choices, states, responses)


def _key(file: Path, number: int, row: dict[str, Any]) -> tuple[str, str, str]:
    """(level, task, idx): the name of a question."""
    index = field(file, number, row, "idx", int)
    return field(file, number, row, "level", str), field(file, number, row, "task", str), str(index)


def _questions(file: Path) -> dict[tuple[str, str, str], str]:
    return {_key(file, number, row): field(file, number, row, "question", str) for number, row in read_jsonl(file)}


def _choice(model: str, price: dict[str, Any]) -> dict[str, Any]:
    usd = {name: price[name] for name in ("input_usd_per_mtok", "output_usd_per_mtok")}
    return {"name": model, "kind": "model", **usd, "price_source": PRICE_SOURCE}


def _response(
    file: Path,
    number: int,
    key: tuple[str, str, str],
    row: dict[str, Any],
    question: str,
    prices: dict[str, Any],
    hidden: str,
    verdict: str,
    flip: float,
    seed: int,
) -> dict[str, Any]:
    model, attempt = row["model"], field(file, number, row, "attempt", int)
    thinking = prices[model][HIDDEN_TOKENS][key[0]] if hidden == "assumed" else 0
    seen = row.get("verdict") if verdict == "show" else None
    if seen is not None and _uniform(seed, *key, model, attempt) < flip:
        seen = 1 - seen
    return {
        "state_id": "/".join(key),
        "choice": model,
        "attempt": attempt,
        "quality": float(field(file, number, row, "score", (int, float))),
        "answer": row.get("answer"),
        "prompt_tokens": round((len(question) + PROMPT_CHARS) / CHARS_PER_PROMPT_TOKEN),
        "completion_tokens": round(field(file, number, row, "chars", int) / CHARS_PER_COMPLETION_TOKEN) + thinking,
        "reasoning_tokens": thinking,
        "verdict": None if seen is None else float(seen),
    }


def _uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64
