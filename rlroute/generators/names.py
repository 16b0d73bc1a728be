"""Invented proper names: seeded, pronounceable, and never dealt twice.

No name is shared between two questions or tasks, so no text of the test split can occur in train.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np

# fmt: off
_ONSETS = (
    "B", "Br", "C", "Ch", "D", "Dr", "F", "Fr", "G", "Gl", "H", "J", "K", "Kr", "L", "M", "N", "P", "Pr",
    "Qu", "R", "S", "Sh", "Sk", "St", "T", "Th", "Tr", "V", "W", "Y", "Z", "Bel", "Cor", "Dar", "El", "Fen",
    "Gal", "Hal", "Il", "Jor",
)
_MIDDLES = (
    "a", "e", "i", "o", "u", "ae", "ai", "ea", "io", "ou", "al", "an", "ar", "el", "en", "er", "il", "in",
    "or", "un", "ul", "ev", "ov", "is", "oa", "ui", "ia", "ol", "um", "ib", "ad", "om",
)
_ENDINGS = (
    "ba", "den", "dor", "fin", "gar", "ka", "lan", "lem", "lo", "mar", "mere", "mi", "nor", "rath", "ren",
    "sa", "sk", "tan", "thal", "to", "van", "vel", "vin", "wick", "wyn", "zar",
)
_GIVEN = (
    "Ada", "Aron", "Bela", "Cato", "Dina", "Edda", "Emil", "Fara", "Gil", "Hana", "Ivo", "Jana", "Kael",
    "Lena", "Milo", "Nera", "Odin", "Pia", "Runa", "Sten", "Tara", "Ulf", "Vera", "Yuri",
)
# fmt: on


class NameDeck:
    """A shuffled deck of names; `deal` never returns the same one twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        # Two combinations may spell one name; the keys of a dict keep the first.
        names = list(dict.fromkeys(map("".join, itertools.product(_ONSETS, _MIDDLES, _ENDINGS))))
        self._names = [names[i] for i in rng.permutation(len(names))]
        self._rng = rng

    def deal(self) -> str:
        """One capitalised name, such as "Velorath"."""
        return self._names.pop()

    def deal_person(self) -> str:
        """A given name (which may recur) and a family name (which may not)."""
        return f"{_GIVEN[self._rng.integers(len(_GIVEN))]} {self.deal()}"


def group_of(text: str) -> str:
    """`group_id` of a root text: a hash of its normalised form (lower case, white space folded)."""
    normalised = " ".join(text.lower().split())
    return hashlib.blake2b(normalised.encode(), digest_size=8).hexdigest()
