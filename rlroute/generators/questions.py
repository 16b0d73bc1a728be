"""The built-in log `questions`: multi-hop questions over a small invented world, answered by six models.

A question such as "Who is the founder of the company that built Velorath Bridge?" is a chain of one to three
relations. Every relation belongs to a domain, and what a model knows differs by domain, so different hops are
best put to different models. The states of one question are

    q0007         the whole question (step 0)
    q0007/1       its first sub-question, reached by thinking (step 1)
    q0007/2.k     its second sub-question about the k-th entity that could have been accepted (step 2)
    q0007/3.k     ... and the third (step 3)

Entity 0 of every hop is the true one. A wrong entity has a true answer of its own, but its chain never leads
back to the gold answer, so a wrong answer accepted anywhere ends in quality 0.

A reply in a state is one of five outcomes, drawn independently for every attempt: `correct` (for the entity
asked about), `popular` (a mistake that all models share), `other1`, `other2`, `empty`.

    P(knows)  = logistic(skill[model, domain] - hop penalty - difficulty[state] + quirk[model, question])
    P(empty)  = empty[model] P(correct) = (1 - P(empty)) P(knows);  the rest is wrong: share[state] of it
    popular, the others in halves.

For a whole question the skill is the mean over its hops, and the penalty grows with their number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlroute.generators.sampling import (
    draw_kinds,
    lognormal_tokens,
    mean_lognormal_tokens,
    named_streams,
    picked,
)
from rlroute.generators.world import DOMAINS, State, build_world

if TYPE_CHECKING:
    import pyarrow as pa

    from rlroute.log import Log

KINDS = ("correct", "popular", "other1", "other2", "empty")


@dataclass(frozen=True)
class Model:
    """One model of the pool. The price is that of Router-R1's pool; the rest is invented."""

    name: str
    description: str
    usd_per_mtok: float  # USD per million output tokens; the input price is taken to be the same
    first_token_s: float
    output_tokens_per_s: float
    median_tokens: float  # completion tokens of a one-hop reply
    empty: float  # probability of a reply without an answer
    skill: tuple[float, ...]  # logits, one a domain of DOMAINS


MODELS = (
    #                                                                     geo   ind   his   mus   spo   sci
    Model("qwen-2.5-7b", "small, trained on technical text", 0.30, 0.25, 110, 95, 0.02,
          (-0.7, 1.6, -0.9, -1.2, -1.0, 2.5)),
    Model("llama-3.1-70b", "large generalist, strong in history", 0.88, 0.55, 55, 110, 0.02,
          (1.3, 0.9, 2.7, 0.3, 0.8, 0.7)),
    Model("llama-3.1-8b", "small and terse, knows maps", 0.18, 0.20, 130, 70, 0.05,
          (1.7, -0.8, -0.5, -0.7, -0.6, -1.1)),
    Model("mistral-7b", "small, knows sport", 0.20, 0.20, 120, 80, 0.04,
          (-0.6, -0.9, -0.7, -0.8, 2.2, -1.0)),
    Model("mixtral-8x22b", "largest generalist", 1.20, 0.50, 60, 120, 0.02,
          (2.1, 2.1, 1.4, 0.9, 1.3, 1.4)),
    Model("gemma-2-27b", "middle-sized, strong in music", 0.80, 0.35, 70, 90, 0.02,
          (0.6, 0.4, 0.5, 2.8, 0.7, 0.3)),
)  # fmt: skip


@dataclass(frozen=True)
class QuestionsParameters:
    """Everything that decides the log `questions`. Probabilities and logits unless a unit is given."""

    seed: int = 20260301
    num_questions: int = 2000
    hop_shares: tuple[float, ...] = (0.30, 0.45, 0.25)  # shares of one-, two- and three-hop questions
    hop_penalty: tuple[float, ...] = (0.0, 1.7, 2.9)  # taken off the skill when the whole question is asked
    difficulty_std: float = 0.7  # latent, one draw a state, the same for all models
    quirk_std: float = 0.5  # latent, one draw a (question, model)
    popular_share: tuple[float, float] = (0.35, 0.75)  # range of the popular mistake's share of wrong answers
    verdict_if_correct: float = 0.85  # P(checker says 1 | correct answer)
    verdict_if_wrong: float = 0.18  # P(checker says 1 | wrong answer); an empty reply is always judged 0
    num_attempts: int = 2
    prompt_overhead: int = 90  # tokens of the instruction that precedes every question
    characters_per_token: float = 4.0
    tokens_sigma: float = 0.45  # of log completion tokens
    tokens_per_hop: float = 0.35  # a k-hop reply has (1 + 0.35 (k - 1)) times the median tokens
    max_completion_tokens: int = 512
    models: tuple[Model, ...] = MODELS


DEFAULT = QuestionsParameters()


def generate(parameters: QuestionsParameters = DEFAULT) -> Log:
    """The log `questions`: bit-for-bit the same for the same parameters."""
    from rlroute.generators.cards import questions_card
    from rlroute.log import Log

    return Log.from_tables(questions_card(asdict(parameters)), **tables(parameters))


def tables(parameters: QuestionsParameters = DEFAULT) -> dict[str, pa.Table]:
    """The four tables of the log, by name."""
    streams = named_streams(parameters.seed, ("world", "latent", "replies", "tokens"))
    world = build_world(parameters.num_questions, parameters.hop_shares, streams["world"])
    probability = _probabilities(parameters, world, streams["latent"])
    return {
        "choices": _choices(parameters),
        "states": _states(world),
        "responses": _responses(parameters, world, probability, streams["replies"], streams["tokens"]),
        "outcomes": _outcomes(parameters, world, probability),
    }


def _probabilities(parameters: QuestionsParameters, world: list[State], rng: np.random.Generator) -> np.ndarray:
    """P(kind | state, model), shape (S, C, 5)."""
    skill = np.array([model.skill for model in parameters.models])  # (C, domains)
    empty = np.array([model.empty for model in parameters.models])
    num_states = len(world)
    mean_skill = np.stack([skill[:, list(state.domains)].mean(axis=1) for state in world])  # (S, C)
    penalty = np.array(parameters.hop_penalty)[[len(state.domains) - 1 for state in world]]
    difficulty = rng.normal(0.0, parameters.difficulty_std, size=num_states)
    quirk = rng.normal(0.0, parameters.quirk_std, size=(num_states, len(skill)))
    parent = np.array([state.parent for state in world])
    quirk = quirk[np.where(parent >= 0, parent, np.arange(num_states))]  # a sub-question shares its question's
    knows = 1.0 / (1.0 + np.exp(-(mean_skill - penalty[:, None] - difficulty[:, None] + quirk)))
    share = rng.uniform(*parameters.popular_share, size=num_states)[:, None]
    answered = 1.0 - empty
    wrong = answered * (1.0 - knows)
    rest = wrong * (1.0 - share) / 2.0
    return np.stack([answered * knows, wrong * share, rest, rest, np.broadcast_to(empty, knows.shape)], axis=-1)


def _choices(parameters: QuestionsParameters) -> pa.Table:
    import pyarrow as pa

    models = parameters.models
    return pa.table(
        {
            "name": [m.name for m in models],
            "kind": ["model"] * len(models),
            "description": [m.description for m in models],
            "input_usd_per_mtok": [m.usd_per_mtok for m in models],
            "output_usd_per_mtok": [m.usd_per_mtok for m in models],
            "first_token_s": [m.first_token_s for m in models],
            "output_tokens_per_s": [float(m.output_tokens_per_s) for m in models],
            "max_completion_tokens": [parameters.max_completion_tokens] * len(models),
            "price_source": ["arXiv 2506.09033 (output price); input price assumed equal"] * len(models),
            "price_date": ["2025-06-11"] * len(models),
        }
    )


def _states(world: list[State]) -> pa.Table:
    import pyarrow as pa

    ids = [s.state_id for s in world]
    return pa.table(
        {
            "state_id": ids,
            "task_id": [s.task_id for s in world],
            "group_id": [s.group_id for s in world],
            "step": pa.array([s.step for s in world], pa.int32()),
            "text": [s.text for s in world],
            "parent_id": pa.array([ids[s.parent] if s.parent >= 0 else None for s in world], pa.string()),
            "task_name": [_task_name(s) for s in world],
            "gold": pa.array([[s.answers[0]] for s in world], pa.list_(pa.string())),
            "metric": ["em"] * len(world),
            "terminal": [False] * len(world),
        }
    )


def _task_name(state: State) -> str:
    kind = "sub-question" if state.parent >= 0 else f"{len(state.domains)}-hop"
    return f"{kind} {DOMAINS[state.domains[-1]]}"


def _prompt_tokens(parameters: QuestionsParameters, world: list[State]) -> np.ndarray:
    characters = np.array([len(state.text) for state in world])
    return parameters.prompt_overhead + np.ceil(characters / parameters.characters_per_token).astype(np.int64)


def _median_tokens(parameters: QuestionsParameters, world: list[State]) -> np.ndarray:
    """Median completion tokens, shape (S, C): longer chains are answered at greater length."""
    hops = np.array([len(state.domains) for state in world])
    median = np.array([float(m.median_tokens) for m in parameters.models])
    return median * (1.0 + parameters.tokens_per_hop * (hops[:, None] - 1))


def _rates(parameters: QuestionsParameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """USD per token (input and output alike), seconds to the first token, tokens per second, (C,) each."""
    models = parameters.models
    return (
        np.array([m.usd_per_mtok * 1e-6 for m in models]),
        np.array([m.first_token_s for m in models]),
        np.array([m.output_tokens_per_s for m in models]),
    )


def _verdict_rates(parameters: QuestionsParameters) -> np.ndarray:
    """P(checker says 1 | kind), (5,)."""
    wrong = parameters.verdict_if_wrong
    return np.array([parameters.verdict_if_correct, wrong, wrong, wrong, 0.0])


def _where_kinds_lead(world: list[State]) -> tuple[np.ndarray, np.ndarray]:
    """Next state id (None: none) and quality of every kind of reply, (S, 5) each."""
    ids = np.array([*(s.state_id for s in world), None], dtype=object)
    next_state = np.array([(*s.next_state, -1) for s in world])
    return ids[next_state], np.array([(*s.quality, 0.0) for s in world])


def _responses(
    parameters: QuestionsParameters,
    world: list[State],
    probability: np.ndarray,
    replies: np.random.Generator,
    tokens: np.random.Generator,
) -> pa.Table:
    import pyarrow as pa

    shape = (*probability.shape[:2], parameters.num_attempts)  # (S, C, A)
    kind = draw_kinds(probability, parameters.num_attempts, replies)
    verdict = replies.random(shape) < _verdict_rates(parameters)[kind]
    median, limit = _median_tokens(parameters, world), parameters.max_completion_tokens
    completion = lognormal_tokens(median[..., None], parameters.tokens_sigma, limit, tokens, shape)
    prompt = np.broadcast_to(_prompt_tokens(parameters, world)[:, None, None], shape)
    price, first, speed = (rate[:, None] for rate in _rates(parameters))
    state, choice, attempt = (index.ravel() for index in np.indices(shape))
    at = (state, kind.ravel())
    next_state_id, quality = _where_kinds_lead(world)
    answer = np.array([(*s.answers, None) for s in world], dtype=object)[at]
    return pa.table(
        {
            "state_id": picked([s.state_id for s in world], state),
            "choice": picked([m.name for m in parameters.models], choice),
            "attempt": pa.array(attempt, pa.int32()),
            "next_state_id": pa.array(next_state_id[at], pa.string()),
            "quality": pa.array(quality[at], pa.float64()),
            "answer": pa.array(answer, pa.string()),
            "text": ["I do not know." if a is None else f"The answer is {a}." for a in answer],
            "prompt_tokens": pa.array(prompt.ravel(), pa.int32()),
            "completion_tokens": pa.array(completion.ravel(), pa.int32()),
            "cost_usd": pa.array(((prompt + completion) * price).ravel(), pa.float64()),
            "latency_s": pa.array((first + completion / speed).ravel(), pa.float64()),
            "verdict": pa.array(verdict.ravel().astype(np.float64)),
        }
    )


def _outcomes(parameters: QuestionsParameters, world: list[State], probability: np.ndarray) -> pa.Table:
    """The distribution that `_responses` draws from; cost and latency are exact expectations."""
    import pyarrow as pa

    median, limit = _median_tokens(parameters, world), parameters.max_completion_tokens
    mean_tokens = mean_lognormal_tokens(median, parameters.tokens_sigma, limit)  # (S, C)
    price, first, speed = _rates(parameters)
    cost = (_prompt_tokens(parameters, world)[:, None] + mean_tokens) * price
    latency = first + mean_tokens / speed
    state, choice, kind = (index.ravel() for index in np.indices(probability.shape))
    next_state_id, quality = _where_kinds_lead(world)
    return pa.table(
        {
            "state_id": picked([s.state_id for s in world], state),
            "choice": picked([m.name for m in parameters.models], choice),
            "kind": picked(KINDS, kind),
            "probability": pa.array(probability.ravel(), pa.float64()),
            "next_state_id": pa.array(next_state_id[state, kind], pa.string()),
            "quality": pa.array(quality[state, kind], pa.float64()),
            "cost_usd": pa.array(cost[state, choice], pa.float64()),
            "latency_s": pa.array(latency[state, choice], pa.float64()),
            "verdict": pa.array(_verdict_rates(parameters)[kind], pa.float64()),
        }
    )
