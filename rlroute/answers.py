"""Answers in normal form, exact match and F1, by the rules of SQuAD that Router-R1 scores with."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Lower case, no punctuation, no a / an / the, white space folded."""
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def answer_key(text: str) -> str:
    """The normal form, or the lower-case text where nothing is left (option "A", the board of a puzzle)."""
    return normalise_answer(text) or " ".join(text.lower().split())


def exact_match(answer: str, golds: Iterable[str]) -> float:
    """1.0 if the answer is one of the golds in normal form, else 0.0."""
    normal = normalise_answer(answer)
    return float(any(normal == normalise_answer(gold) for gold in golds))


def f1(answer: str, golds: Iterable[str]) -> float:
    """The best F1 over the golds, between the words of both in normal form.

    Yes, no and noanswer match only themselves.
    """
    return max((_f1(normalise_answer(answer), normalise_answer(gold)) for gold in golds), default=0.0)


def _f1(answer: str, gold: str) -> float:
    closed = {"yes", "no", "noanswer"}
    if answer != gold and (answer in closed or gold in closed):
        return 0.0
    words, gold_words = answer.split(), gold.split()
    common = sum((Counter(words) & Counter(gold_words)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)
