"""The cards of the built-in logs: what they model, and what they do not."""

from __future__ import annotations

import json
from typing import Any

from rlroute.card import Card
from rlroute.generators.figures import FIGURES

_ORIGIN = "Simulated by rlroute; no model was called."
_LICENCE = "MIT"

QUESTIONS_NOTES = """\
Modelled: questions of one to three hops in six domains; models that are good at different domains, so that \
a cheap specialist can beat the largest model at a hop; decomposition, which costs calls and carries an \
early mistake to the end; answers that agree because they are right, or because all models share a popular \
mistake; empty replies; several attempts; a checker that is right about five times in six. Most of what \
decides an answer is in the text (domains and number of hops); the rest is latent: a difficulty of every \
state and a quirk of every model on every question.
Not modelled: completion tokens do not depend on whether the answer is right; attempts of one cell are \
independent given the latents, so a second attempt of one model is as good as fresh evidence except for the \
shared popular mistake; rewording a question changes nothing; every sub-question is worded without error; no \
two questions share an entity. Skills, latencies, token counts and empty rates are invented and say nothing \
about the models whose names and output prices they carry; input tokens are priced like output tokens.
Quality of a reply to an intermediate sub-question says whether it is right about the entity asked about \
(its state's gold); of a reply to the last one, whether it answers the whole question."""

TASKS_NOTES = """\
Modelled: tasks of six to twelve steps in four fields of work; steps that the cheap model does as well as \
the expensive one, demanding steps that it often gets wrong, steps where a mistake cannot be undone; tasks with \
many demanding steps and tasks with few; a plan, of which the numbers of irreversible and of demanding steps \
ahead are observed; mistakes that cost a step and are told by the feedback text; a patience that runs out; a \
difficulty of every task, half revealed by its text; clutter that makes steps harder; prompts that grow with \
the history, for prompt caches; a cheap model that writes more.
Not modelled: a task does not branch (what is to be done does not depend on how it was done before); \
mistakes are independent of who acted before and attempts of one cell of each other; a retry of a step is as \
hard as the first try; prompt tokens depend on the number of steps only. Success rates, token counts and \
latencies are invented and say nothing about the models whose names and list prices they carry.
Quality of a reply says whether the step made progress; success is known at the end of a task. The recorded \
cost_usd is without prompt cache."""


def questions_card(parameters: dict[str, Any]) -> Card:
    """Card of the log `questions`."""
    return Card(
        name="questions",
        origin=_ORIGIN,
        licence=_LICENCE,
        generator="rlroute.generators.questions",
        parameters=_plain(parameters),
        description="Multi-hop questions over an invented world, answered by six unlike models.",
        notes=QUESTIONS_NOTES,
        figures=FIGURES.get("questions", {}),
    )


def tasks_card(parameters: dict[str, Any]) -> Card:
    """Card of the log `tasks`."""
    return Card(
        name="tasks",
        origin=_ORIGIN,
        licence=_LICENCE,
        generator="rlroute.generators.tasks",
        parameters=_plain(parameters),
        description="Agent tasks as state graphs, a cheap and an expensive model acting at every step.",
        notes=TASKS_NOTES,
        figures=FIGURES.get("tasks", {}),
    )


EFFORTS_NOTES = """\
Modelled: the same tasks as in the log `tasks`, done by one model at three levels of reasoning effort; steps that need \
no thought, steps that need it, and steps that too much of it spoils; hidden reasoning tokens, billed as completion; \
the action taken, so that it can be seen which effort would have sufficed. Pass rates, cost, completion tokens and \
seconds of always low, mid and high follow the ladder of gpt-5 on 225 coding cases (Aider's polyglot leaderboard).
Not modelled: what the log `tasks` does not model; that a level is a better guess of the next one than chance; \
reasoning tokens do not depend on how hard a step is. The texts are those of office and household tasks, not of code."""


def efforts_card(parameters: dict[str, Any]) -> Card:
    """Card of the log `efforts`."""
    return Card(
        name="efforts",
        origin=_ORIGIN,
        licence=_LICENCE,
        generator="rlroute.generators.efforts",
        parameters=_plain(parameters),
        description="Agent tasks as state graphs, one model at low, mid or high reasoning effort at every step.",
        notes=EFFORTS_NOTES,
        figures=FIGURES.get("efforts", {}),
    )


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as YAML gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(parameters))
    return plain
