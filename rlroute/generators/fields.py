"""Fields of work of the log `tasks`: the steps that occur in each, how they are worded, who can do them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepKind:
    """What a step asks for. `ease` and `fatal` have one number a model: (cheap, expensive), or (low, mid, high)."""

    texts: tuple[str, ...]  # with {thing} for what is acted on
    ease: tuple[float, ...]  # logits of progress
    fatal: tuple[float, ...] = (0.0, 0.0)  # share of failures that ruin the task
    weight: float = 1.0  # how often the kind occurs


@dataclass(frozen=True)
class Domain:
    """A field of work: the texts of its tasks, the things in them and the kinds of its steps."""

    name: str
    title: str  # with {client}
    things: tuple[str, ...]
    kinds: tuple[StepKind, ...]


DOMAINS = (
    Domain(
        "kitchen",
        "cook dinner for {client}",
        ("carrot", "leek", "fish", "sauce", "pepper", "dough", "apple", "rice"),
        (
            StepKind(
                ("Take the {thing} from the shelf.", "Put the {thing} on the counter."),
                (3.2, 3.7),
                weight=3.0,
            ),
            StepKind(("Open the drawer that holds the {thing}.", "Rinse the {thing}."), (2.8, 3.4), weight=2.5),
            StepKind(("Work out how much {thing} the recipe needs.",), (-0.1, 2.3), weight=1.3),
            StepKind(("Cut the {thing} as the recipe says.",), (2.3, 3.7), (0.90, 0.80), weight=1.6),
            StepKind(("Fry the {thing} without burning it.",), (-0.3, 2.7), (0.90, 0.80), weight=0.9),
        ),
    ),
    Domain(
        "office",
        "settle the accounts of {client}",
        ("invoice", "contract", "ledger", "receipt", "payroll", "report", "tax form", "quote"),
        (
            StepKind(("List the folder with the {thing}.", "Open the {thing}."), (3.4, 3.7), weight=3.0),
            StepKind(("Copy the totals of the {thing}.", "Rename the {thing}."), (2.7, 3.3), weight=2.5),
            StepKind(("Reconcile the {thing} with the bank statement.",), (-0.4, 2.0), weight=1.5),
            StepKind(("Delete every duplicate of the {thing}.",), (2.3, 3.7), (0.90, 0.80), weight=1.6),
            StepKind(("Send the {thing} to the authority.",), (-0.2, 2.8), (0.90, 0.80), weight=0.9),
        ),
    ),
    Domain(
        "shop",
        "handle the return of {client}",
        ("lamp", "jacket", "camera", "suitcase", "kettle", "tent", "watch", "printer"),
        (
            StepKind(
                ("Look up the order with the {thing}.", "Read the note about the {thing}."),
                (3.3, 3.7),
                weight=3.0,
            ),
            StepKind(("Search the catalogue for a similar {thing}.",), (2.3, 2.7), weight=2.0),
            StepKind(("Check whether the policy covers the {thing}.",), (0.0, 2.2), weight=1.6),
            StepKind(("Refund the {thing} to the right account.",), (-0.3, 2.7), (0.90, 0.80), weight=0.9),
            StepKind(("Print the return label of the {thing}.",), (2.2, 3.6), (0.90, 0.80), weight=1.6),
        ),
    ),
    Domain(
        "laboratory",
        "run the assay ordered by {client}",
        ("sample", "buffer", "enzyme", "culture", "reagent", "probe", "gel", "standard"),
        (
            StepKind(("Fetch the {thing} from the rack.", "Label the {thing}."), (3.3, 3.7), weight=3.0),
            StepKind(("Weigh the {thing}.", "Read the meter of the {thing}."), (2.6, 2.8), weight=2.4),
            StepKind(("Calculate the dilution of the {thing}.",), (-0.6, 1.9), weight=1.4),
            StepKind(("Heat the {thing} to the stated temperature.",), (-0.4, 2.6), (0.90, 0.80), weight=0.9),
            StepKind(("Pour off the {thing}.",), (2.3, 3.7), (0.90, 0.80), weight=1.6),
        ),
    ),
)

# Coarse readings of a task's difficulty, from the easiest; {title} is the domain's.
MOODS = (
    "{title}. Everything is tidy and labelled.",
    "{title}. The instructions are clear.",
    "{title}. Some instructions are vague.",
    "{title}. The place is a mess and the instructions contradict each other.",
)
FEEDBACK = {"ok": "The last action worked.", "slip": "Nothing happens."}
ENDS = {"done": "It is done.", "lost": "There is no time left.", "ruined": "It is ruined."}
