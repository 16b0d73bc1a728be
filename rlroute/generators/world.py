"""The invented world of the log `questions`: relations, entities, and the chains that questions are made of.

Every question gets entities of its own, so no sub-question is shared by two questions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlroute.generators.names import NameDeck, group_of

DOMAINS = ("geography", "industry", "history", "music", "sport", "science")


@dataclass(frozen=True)
class Relation:
    """A functional relation source -> target, put as noun phrases with {x} for the entity asked about."""

    domain: str
    source: str
    target: str
    phrases: tuple[str, ...]


RELATIONS = (
    Relation("geography", "river", "city", ("the city at the mouth of {x}", "the town where {x} meets the sea")),
    Relation("geography", "city", "river", ("the river that runs through {x}", "the river on whose banks {x} lies")),
    Relation("geography", "bridge", "river", ("the river spanned by {x}", "the river that {x} crosses")),
    Relation("industry", "bridge", "company", ("the company that built {x}", "the contractor that put up {x}")),
    Relation("industry", "company", "city", ("the city where {x} has its head office", "the seat of {x}")),
    Relation("industry", "instrument", "company", ("the firm that makes {x}", "the manufacturer of {x}")),
    Relation("history", "city", "person", ("the founder of {x}", "the first ruler of {x}")),
    Relation("history", "company", "person", ("the person who established {x}", "the first owner of {x}")),
    Relation("history", "person", "city", ("the birthplace of {x}", "the place where {x} was born")),
    Relation("history", "river", "bridge", ("the oldest bridge over {x}", "the medieval bridge over {x}")),
    Relation("music", "person", "instrument", ("the instrument played by {x}", "the favourite instrument of {x}")),
    Relation("music", "song", "person", ("the composer of {x}", "the singer who wrote {x}")),
    Relation("music", "city", "song", ("the anthem of {x}", "the song sung at weddings in {x}")),
    Relation("music", "team", "song", ("the hymn sung by the fans of {x}", "the tune to which {x} enter the field")),
    Relation("sport", "city", "team", ("the football team of {x}", "the champion side from {x}")),
    Relation("sport", "team", "person", ("the captain of {x}", "the record goal scorer of {x}")),
    Relation("sport", "person", "team", ("the team once coached by {x}", "the club that {x} trained")),
    Relation("sport", "company", "team", ("the team sponsored by {x}", "the club whose shirts show {x}")),
    Relation("science", "mineral", "person", ("the chemist who isolated {x}", "the scientist who described {x}")),
    Relation("science", "person", "mineral", ("the mineral discovered by {x}", "the mineral analysed by {x}")),
    Relation(
        "science",
        "mineral",
        "river",
        ("the river in whose bed {x} is found", "the river that washes out {x}"),
    ),
    Relation("science", "instrument", "mineral", ("the mineral used in {x}", "the mineral from which {x} is cut")),
)

_NAME_FORMS = {
    "river": "the River {n}",
    "city": "{n}",
    "bridge": "{n} Bridge",
    "company": "{n} Works",
    "instrument": "the {n} horn",
    "song": "the Ballad of {n}",
    "team": "{n} Rovers",
    "mineral": "{n}ite",
}
_WHO = ("Who is {np}?", "Name {np}.", "I am looking for {np}. Who is it?", "Tell me who {np} is.")
_WHAT = ("What is {np}?", "Name {np}.", "Could you name {np}?", "I am looking for {np}. What is it called?")


@dataclass(frozen=True)
class State:
    """A whole question (`parent` -1) or a sub-question, with the four answers that a model may give."""

    state_id: str
    task_id: str
    group_id: str
    step: int
    text: str
    parent: int  # index of the whole question among all states
    domains: tuple[int, ...]  # domain of every hop that is asked about
    answers: tuple[str, ...]  # correct, popular, other1, other2
    next_state: tuple[int, ...] = (-1, -1, -1, -1)  # where each answer leads, -1: nowhere
    quality: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)  # of each answer


def build_world(num_questions: int, hop_shares: tuple[float, ...], rng: np.random.Generator) -> list[State]:
    """The states of `num_questions` questions, each whole question right before its sub-questions."""
    builder = _Builder(rng)
    hops = 1 + rng.choice(len(hop_shares), size=num_questions, p=hop_shares)
    states: list[State] = []
    for number, num_hops in enumerate(hops.tolist()):
        states += builder.question(f"q{number:04d}", num_hops, first=len(states))
    return states


class _Builder:
    """Deals names and words questions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._deck = NameDeck(rng)

    def question(self, task: str, num_hops: int, first: int) -> list[State]:
        """The whole question, state number `first`, and its sub-questions."""
        chain = self._chain(num_hops)
        # Four answers are possible about the true entity; in mistakes about wrong ones a fifth stands in for
        # the true answer, so that nothing wrong leads back to gold.
        entities = [[self._name(chain[0].source)]]
        entities += [
            [self._name(relation.target) for _ in range(5 if hop else 4)] for hop, relation in enumerate(chain)
        ]
        phrases = [relation.phrases[self._rng.integers(len(relation.phrases))] for relation in chain]
        nested = entities[0][0]
        for phrase in phrases:
            nested = phrase.format(x=nested)
        text = self._ask(chain[-1], nested)
        group = group_of(text)
        domains = tuple(DOMAINS.index(relation.domain) for relation in chain)
        states = [State(task, task, group, 0, text, -1, domains, tuple(entities[-1][:4]))]
        if num_hops == 1:
            return states
        for hop, relation in enumerate(chain):
            next_hop = first + len(states) + len(entities[hop])
            for key, entity in enumerate(entities[hop]):
                order = self._answers_about(key)
                about = State(
                    state_id=f"{task}/{hop + 1}.{key}" if hop else f"{task}/1",
                    task_id=task,
                    group_id=group,
                    step=hop + 1,
                    text=self._ask(relation, phrases[hop].format(x=entity)),
                    parent=first,
                    domains=(domains[hop],),
                    answers=tuple(entities[hop + 1][i] for i in order),
                )
                if hop < num_hops - 1:
                    about = replace(about, next_state=tuple(next_hop + i for i in order))
                else:
                    about = replace(about, quality=tuple(float(i == 0) for i in order))
                states.append(about)
        return states

    def _answers_about(self, key: int) -> list[int]:
        """Numbers of the four possible answers about entity `key` of a hop, the right one first."""
        if key == 0:
            return [0, 1, 2, 3]
        return [key, *self._rng.permutation([i for i in range(1, 5) if i != key]).tolist()]

    def _chain(self, num_hops: int) -> list[Relation]:
        chain = [RELATIONS[self._rng.integers(len(RELATIONS))]]
        while len(chain) < num_hops:
            followers = [r for r in RELATIONS if r.source == chain[-1].target]
            chain.append(followers[self._rng.integers(len(followers))])
        return chain

    def _name(self, kind: str) -> str:
        return self._deck.deal_person() if kind == "person" else _NAME_FORMS[kind].format(n=self._deck.deal())

    def _ask(self, relation: Relation, noun_phrase: str) -> str:
        templates = _WHO if relation.target == "person" else _WHAT
        return templates[self._rng.integers(len(templates))].format(np=noun_phrase)
