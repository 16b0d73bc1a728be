"""The card of a log, ``card.yaml`` beside the tables: what it is, where it comes from, how it was made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rlroute.errors import Fault, LogError

COVERAGE = ("full", "partial")


@dataclass
class Card:
    """What a log says of itself."""

    name: str
    version: str = "1"
    origin: str = ""  # who recorded it, and where it can be had
    licence: str = ""
    generator: str = ""  # what wrote the log: a generator, an importer, a recorder
    parameters: dict[str, Any] = field(default_factory=dict)  # of the generator
    coverage: str = "full"  # full: every choice answered every state; partial: some are missing
    description: str = ""
    content_hash: str = ""  # of the table files; set by Log.save
    notes: str = ""
    figures: dict[str, Any] = field(default_factory=dict)  # reference figures, computed when the log was made
    # {choice, cost_usd, latency_s}: means of the best single choice on train, the units of cost and latency
    # in the rewards (c_ref, l_ref)
    reference: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Write the card as YAML."""
        import yaml

        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=110))

    @classmethod
    def load(cls, path: Path) -> Card:
        """Read a card; what is wrong with it becomes a LogError."""
        import yaml

        try:
            # libyaml's loader, where PyYAML was built with it, is ten times quicker and as safe.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            data = yaml.load(path.read_text(), Loader=loader)
        except FileNotFoundError:
            raise LogError([Fault("card.yaml", None, None, f"no file {path}", "a card beside the tables")]) from None
        except OSError as error:
            found = f"{path}, which cannot be read ({error.strerror})"
            raise LogError([Fault("card.yaml", None, None, found, "a card beside the tables")]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise LogError([Fault("card.yaml", None, None, f"no YAML ({reason})", "a YAML mapping")]) from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Card:
        """A card from plain data, checked field by field."""
        if not isinstance(data, dict):
            raise LogError([Fault("card.yaml", None, None, type(data).__name__, "a mapping of fields")])
        known = {f.name for f in fields(cls)}
        faults = [
            Fault("card.yaml", None, str(key), "an unknown field", "one of " + ", ".join(sorted(known)))
            for key in data
            if key not in known
        ]
        if not isinstance(data.get("name"), str) or not data["name"]:
            faults.append(Fault("card.yaml", None, "name", repr(data.get("name")), "a name"))
        for key in ("parameters", "figures"):
            if not isinstance(data.get(key, {}), dict):
                faults.append(Fault("card.yaml", None, key, repr(data[key]), "a mapping"))
        if data.get("coverage", "full") not in COVERAGE:
            faults.append(Fault("card.yaml", None, "coverage", repr(data["coverage"]), "full or partial"))
        if data.get("reference") is not None and not _is_reference(data["reference"]):
            expected = "choice, cost_usd and latency_s (finite numbers of at least 0)"
            faults.append(Fault("card.yaml", None, "reference", repr(data["reference"]), expected))
        if faults:
            raise LogError(faults)
        texts = ("version", "origin", "licence", "generator", "description", "content_hash", "notes")
        plain: dict[str, Any] = {k: str(v or "") if k in texts else v for k, v in data.items()}
        return cls(**plain)


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"choice", "cost_usd", "latency_s"}
        and isinstance(value["choice"], str)
        and all(_is_amount(value[key]) for key in ("cost_usd", "latency_s"))
    )


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
