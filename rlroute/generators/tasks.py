"""The built-in log `tasks`: agent tasks as state graphs, a cheap and an expensive model acting at every step.

A task needs `L` steps of progress, one after another, and forgives `slack` slips. Its states are

    t0007/i.u.ok      i steps done, u slips so far, the last action worked
    t0007/i.u.slip    the same, but the last action changed nothing ("Nothing happens.")
    t0007/done, t0007/lost, t0007/ruined    terminal: success, patience exhausted, a fatal mistake

An action has one of three outcomes, drawn independently for every attempt:

    progress   (i + 1, u);  the task is done at i + 1 = L
    slip       (i, u + 1);  the task is lost at u + 1 > slack
    fatal      ruined; only where the step is irreversible

    P(progress) = logistic(ease[model, step kind] - clutter - difficulty[task] - quirk[task, step])
    P(fatal)    = fatal[model, step kind] x (1 - P(progress))

The kind of a step is in the text, and so is a coarse reading of the difficulty; the rest of the difficulty
and the quirk (which depends on the step, not on the model) are latent, though slips give them away.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlroute.generators.fields import DOMAINS, ENDS, FEEDBACK, MOODS, Domain, StepKind
from rlroute.generators.names import NameDeck, group_of
from rlroute.generators.sampling import (
    draw_kinds,
    lognormal_tokens,
    mean_lognormal_tokens,
    named_streams,
    picked,
)
from rlroute.prices import PRICES, Price

if TYPE_CHECKING:
    import pyarrow as pa

    from rlroute.log import Log

KINDS = ("progress", "slip", "fatal")
EXTRA = (
    "objects_in_view",
    "subgoals_left",
    "tool_errors",
    "retries_left",
    "irreversible",
    "irreversible_ahead",  # steps of the plan after this one
    "demanding_ahead",
)  # observable numbers
DEMANDING_GAP = 2.0  # logits by which the expensive model is better at a demanding step

ACTIONS = ("the step", "a wrong step", "another wrong step", "no step at all")  # normalised, where they are recorded
REPLIES = ("Done.", "That did not work.", "Something broke.")  # text of a reply, by outcome


@dataclass(frozen=True)
class Model:
    """One of the two models. Prices in USD per million tokens."""

    name: str
    description: str
    input_usd_per_mtok: float
    cached_input_usd_per_mtok: float
    output_usd_per_mtok: float
    first_token_s: float
    output_tokens_per_s: float
    median_tokens: float  # completion tokens of a step
    visible_tokens: int | None = None  # of them, the answer; the rest is hidden reasoning. None: no model here reasons
    kind: str = "model"


def _listed(
    name: str, description: str, first_token_s: float, output_tokens_per_s: float, median_tokens: float
) -> Model:
    """A model at its list price."""
    price = PRICES[name]
    usd = (price.input_usd_per_mtok, price.cached_input_usd_per_mtok, price.output_usd_per_mtok)
    return Model(name, description, *usd, first_token_s, output_tokens_per_s, median_tokens)  # type: ignore[arg-type]


MODELS = (
    _listed("gpt-4.1-mini", "cheap: good at routine steps", 0.45, 85, 300),
    _listed("gpt-4.1", "expensive: careful", 0.60, 60, 85),
)


@dataclass(frozen=True)
class TasksParameters:
    """Everything that decides the log `tasks`. Logits and probabilities unless a unit is given."""

    seed: int = 20260302
    num_tasks: int = 2000
    length: tuple[int, int] = (6, 12)  # steps of progress needed, inclusive range
    slack: tuple[int, int] = (2, 4)  # slips forgiven, inclusive range
    difficulty_std: float = 0.5  # of the task's difficulty
    demand_std: float = 0.7  # of the log odds, one draw a task, that a step is a demanding one
    mood_noise_std: float = 0.4  # noise of the reading of it that decides the mood in the text
    quirk_std: float = 0.3  # latent, one draw a (task, step)
    clutter: float = 0.08  # logits lost for every object in view above four
    objects_in_view: tuple[int, int] = (1, 12)  # inclusive range
    num_attempts: int = 3
    prompt_base: int = 700  # tokens of system prompt and task
    prompt_per_step: int = 260  # tokens that every step adds to the history
    tokens_sigma: float = 0.4  # of log completion tokens
    max_completion_tokens: int = 1024
    cache_ttl_s: float = 300.0
    domains: tuple[Domain, ...] = DOMAINS
    models: tuple[Model, ...] = MODELS


DEFAULT = TasksParameters()


def generate(parameters: TasksParameters = DEFAULT) -> Log:
    """The log `tasks`: bit-for-bit the same for the same parameters."""
    from rlroute.generators.cards import tasks_card
    from rlroute.log import Log

    return Log.from_tables(tasks_card(asdict(parameters)), **tables(parameters))


def tables(parameters: TasksParameters = DEFAULT) -> dict[str, pa.Table]:
    """The four tables of the log, by name."""
    streams = named_streams(parameters.seed, ("world", "replies", "tokens"))
    graph = _Graph(parameters, streams["world"])
    return {
        "choices": _choices(parameters),
        "states": _states(graph),
        "responses": _responses(parameters, graph, streams["replies"], streams["tokens"]),
        "outcomes": _outcomes(parameters, graph),
    }


class _Graph:
    """All tasks; one entry a state in every list. States in which one acts come with their outcomes."""

    def __init__(self, parameters: TasksParameters, rng: np.random.Generator) -> None:
        self._parameters = parameters
        self._rng = rng
        self._deck = NameDeck(rng)
        self.state_id: list[str] = []
        self.task: list[int] = []
        self.step: list[int] = []
        self.text: list[str] = []
        self.extra: list[tuple[int, ...]] = []  # one number a name of EXTRA
        self.success: list[bool | None] = []  # None: not terminal
        self.acting: list[int] = []  # indices of the states in which one acts
        self.next_state: list[tuple[int, int, int]] = []  # of the acting states: by outcome
        self.probability: list[np.ndarray] = []  # of the acting states: (C, kinds)
        self.group_id: list[str] = []  # a task
        self.task_name: list[str] = []  # a task
        for task in range(parameters.num_tasks):
            self._add_task(task)
        self.outcome_probability = np.stack(self.probability)  # (acting, C, kinds)
        self.outcome_state = np.array(self.next_state)  # (acting, kinds)

    def _add_task(self, task: int) -> None:
        parameters, rng = self._parameters, self._rng
        domain = parameters.domains[rng.integers(len(parameters.domains))]
        length = int(rng.integers(parameters.length[0], parameters.length[1] + 1))
        slack = int(rng.integers(parameters.slack[0], parameters.slack[1] + 1))
        difficulty = rng.normal(0.0, parameters.difficulty_std)
        reading = difficulty + rng.normal(0.0, parameters.mood_noise_std)
        mood = MOODS[int(np.searchsorted([-0.6, 0.0, 0.6], reading / parameters.difficulty_std))]
        title = domain.title.format(client=self._deck.deal_person())
        title = mood.format(title=title[0].upper() + title[1:])
        demand = np.exp(rng.normal(0.0, parameters.demand_std))
        weights = np.array([k.weight * (demand if _demanding(k) else 1.0) for k in domain.kinds])
        kinds = [domain.kinds[k] for k in rng.choice(len(weights), size=length, p=weights / weights.sum())]
        things = [domain.things[k] for k in rng.integers(len(domain.things), size=length)]
        asks = [k.texts[rng.integers(len(k.texts))].format(thing=t) for k, t in zip(kinds, things, strict=True)]
        objects = rng.integers(parameters.objects_in_view[0], parameters.objects_in_view[1] + 1, size=length)
        quirk = rng.normal(0.0, parameters.quirk_std, size=length)
        risky = [any(kind.fatal) for kind in kinds]
        hard = [_demanding(kind) for kind in kinds]
        self.group_id.append(group_of(title))
        self.task_name.append(domain.name)

        first = len(self.state_id)
        index: dict[tuple[int, int, str], int] = {}
        for i in range(length):
            for u in range(slack + 1):
                for flag in FEEDBACK:
                    if (flag == "slip" and u == 0) or (flag == "ok" and i == 0 and u > 0):
                        continue  # cannot be reached
                    index[i, u, flag] = first + len(index)
        end = {name: first + len(index) + k for k, name in enumerate(ENDS)}
        chances = [
            _chances(kind, difficulty + quirk[i] + parameters.clutter * max(0, int(objects[i]) - 4))
            for i, kind in enumerate(kinds)
        ]
        for (i, u, flag), state in index.items():
            feedback = FEEDBACK[flag] if i + u else "You start."
            text = f"{title} {feedback} {asks[i]}"
            extra = (int(objects[i]), length - i, u, slack - u, int(risky[i]), sum(risky[i + 1 :]), sum(hard[i + 1 :]))
            self._add(f"t{task:04d}/{i}.{u}.{flag}", task, i + u, text, extra, None)
            progress = index[i + 1, u, "ok"] if i + 1 < length else end["done"]
            slip = index[i, u + 1, "slip"] if u < slack else end["lost"]
            self.acting.append(state)
            self.next_state.append((progress, slip, end["ruined"]))
            self.probability.append(chances[i])
        for name in end:
            text = f"{title} {ENDS[name]}"
            self._add(f"t{task:04d}/{name}", task, length + slack + 1, text, (0,) * len(EXTRA), name == "done")

    def _add(
        self, state_id: str, task: int, step: int, text: str, extra: tuple[int, ...], success: bool | None
    ) -> None:
        self.state_id.append(state_id)
        self.task.append(task)
        self.step.append(step)
        self.text.append(text)
        self.extra.append(extra)
        self.success.append(success)


def _demanding(kind: StepKind) -> bool:
    """Whether the choice of the model matters much for a step of this kind."""
    return max(kind.ease) - kind.ease[0] >= DEMANDING_GAP


def _chances(kind: StepKind, burden: float) -> np.ndarray:
    """P(outcome | model) of one step, shape (C, kinds)."""
    progress = 1.0 / (1.0 + np.exp(-(np.array(kind.ease) - burden)))
    fatal = np.array(kind.fatal) * (1.0 - progress)
    return np.stack([progress, 1.0 - progress - fatal, fatal], axis=-1)


def _choices(parameters: TasksParameters) -> pa.Table:
    import pyarrow as pa

    models = parameters.models
    listed = [PRICES.get(m.name, Price(None, None)) for m in models]
    return pa.table(
        {
            "name": [m.name for m in models],
            "kind": [m.kind for m in models],
            "description": [m.description for m in models],
            "input_usd_per_mtok": [m.input_usd_per_mtok for m in models],
            "cached_input_usd_per_mtok": [m.cached_input_usd_per_mtok for m in models],
            "output_usd_per_mtok": [m.output_usd_per_mtok for m in models],
            "first_token_s": [m.first_token_s for m in models],
            "output_tokens_per_s": [float(m.output_tokens_per_s) for m in models],
            "max_completion_tokens": [parameters.max_completion_tokens] * len(models),
            "cache_ttl_s": [parameters.cache_ttl_s] * len(models),
            "price_source": [price.price_source for price in listed],
            "price_date": [price.price_date for price in listed],
        }
    )


def _states(graph: _Graph) -> pa.Table:
    import pyarrow as pa

    extra = np.array(graph.extra, dtype=np.float64)
    return pa.table(
        {
            "state_id": graph.state_id,
            "task_id": [f"t{task:04d}" for task in graph.task],
            "group_id": [graph.group_id[task] for task in graph.task],
            "step": pa.array(graph.step, pa.int32()),
            "text": graph.text,
            "task_name": [graph.task_name[task] for task in graph.task],
            "terminal": [success is not None for success in graph.success],
            "success": pa.array(graph.success, pa.bool_()),
            **{name: extra[:, k] for k, name in enumerate(EXTRA)},
        }
    )


def _prompt_tokens(parameters: TasksParameters, graph: _Graph) -> np.ndarray:
    """Prompt tokens of the acting states: the history grows by a fixed amount a step."""
    return parameters.prompt_base + parameters.prompt_per_step * np.array(graph.step)[graph.acting]


def _column(parameters: TasksParameters, name: str) -> np.ndarray:
    """One property of the models, (C,) float64."""
    return np.array([float(getattr(model, name)) for model in parameters.models])


def _usd(parameters: TasksParameters, choice: np.ndarray, prompt: np.ndarray, completion: np.ndarray) -> np.ndarray:
    """Cost of calls of `choice` without prompt cache."""
    input_usd = _column(parameters, "input_usd_per_mtok")[choice] * 1e-6
    output_usd = _column(parameters, "output_usd_per_mtok")[choice] * 1e-6
    return np.asarray(prompt * input_usd + completion * output_usd)


def _seconds(parameters: TasksParameters, choice: np.ndarray, completion: np.ndarray) -> np.ndarray:
    """Latency of calls of `choice`."""
    first, speed = _column(parameters, "first_token_s"), _column(parameters, "output_tokens_per_s")
    return np.asarray(first[choice] + completion / speed[choice])


def _responses(
    parameters: TasksParameters, graph: _Graph, replies: np.random.Generator, tokens: np.random.Generator
) -> pa.Table:
    import pyarrow as pa

    kinds = draw_kinds(graph.outcome_probability, parameters.num_attempts, replies)  # (acting, C, A)
    median, limit = _column(parameters, "median_tokens")[:, None], parameters.max_completion_tokens
    completion = lognormal_tokens(median, parameters.tokens_sigma, limit, tokens, kinds.shape).ravel()
    acting, choice, attempt = (index.ravel() for index in np.indices(kinds.shape))
    prompt = _prompt_tokens(parameters, graph)[acting]
    kind = kinds.ravel()
    reasoned = {}
    if parameters.models[0].visible_tokens is not None:
        visible = _column(parameters, "visible_tokens").astype(np.int64)[choice]
        # What makes progress is one and the same action; every mistake is one of its own kind.
        action = np.where(kind == KINDS.index("progress"), 0, 1 + attempt % 3)
        reasoned = {
            "reasoning_tokens": pa.array(np.maximum(completion - visible, 0), pa.int32()),
            "action": picked(ACTIONS, action),
        }
    return pa.table(
        {
            "state_id": picked(graph.state_id, np.array(graph.acting)[acting]),
            "choice": picked([m.name for m in parameters.models], choice),
            "attempt": pa.array(attempt, pa.int32()),
            "next_state_id": picked(graph.state_id, graph.outcome_state[acting, kind]),
            "quality": pa.array((kind == KINDS.index("progress")).astype(np.float64)),
            "text": picked(REPLIES, kind),
            "prompt_tokens": pa.array(prompt, pa.int32()),
            "completion_tokens": pa.array(completion, pa.int32()),
            **reasoned,
            "cost_usd": pa.array(_usd(parameters, choice, prompt, completion)),
            "latency_s": pa.array(_seconds(parameters, choice, completion)),
        }
    )


def _outcomes(parameters: TasksParameters, graph: _Graph) -> pa.Table:
    """The distribution that `_responses` draws from; cost (without prompt cache) and latency are means."""
    import pyarrow as pa

    median, limit = _column(parameters, "median_tokens"), parameters.max_completion_tokens
    acting, choice, kind = np.nonzero(graph.outcome_probability)
    completion = mean_lognormal_tokens(median, parameters.tokens_sigma, limit)[choice]
    prompt = _prompt_tokens(parameters, graph)[acting]
    return pa.table(
        {
            "state_id": picked(graph.state_id, np.array(graph.acting)[acting]),
            "choice": picked([m.name for m in parameters.models], choice),
            "kind": picked(KINDS, kind),
            "probability": pa.array(graph.outcome_probability[acting, choice, kind]),
            "next_state_id": picked(graph.state_id, graph.outcome_state[acting, kind]),
            "quality": pa.array((kind == KINDS.index("progress")).astype(np.float64)),
            "cost_usd": pa.array(_usd(parameters, choice, prompt, completion)),
            "latency_s": pa.array(_seconds(parameters, choice, completion)),
            "verdict": pa.nulls(len(acting), pa.float64()),
        }
    )
