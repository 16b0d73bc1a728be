"""A trained text router as a policy folder: ``policy.yaml`` beside the model and its tokenizer.

The folder is one that transformers reads by itself (``config.json``, ``model.safetensors``, ``tokenizer.json``), so it
can be served by anything that serves language models; beside them lies the template of its prompts, ``prompt.txt``. It
holds no code and no pickle. `rlroute.load_policy` finds
its way here by the card's ``loader: text``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlroute.agents.trl.checks import ModelError
from rlroute.agents.trl.generation import Sequences, TurnSampler
from rlroute.agents.trl.models import LanguageModel, load_folder
from rlroute.policy import CARD_FILE, PolicyError, write_card

LOADER = "text"
PROMPT_FILE = "prompt.txt"
KEYS: dict[str, Any] = {
    "family": str,
    "environment": str,
    "stops": list,
    "turn_tokens": int,
    "router_usd_per_mtok": (int, float),
}


@dataclass(frozen=True)
class TextDecision:
    """A turn that a text router wrote, and what writing it took."""

    text: str
    prompt_tokens: int  # of all that the router read
    completion_tokens: int
    cost_usd: float  # of the tokens written, at the price of the router's card


@dataclass
class TextPolicy:
    """A language model that goes on with a transcript by one turn; greedy, or with `sample` by drawing tokens."""

    card: dict[str, Any]
    language: LanguageModel
    folder: Path = Path()
    name: str = "text router"
    sample: bool = False
    _seen: str = field(default="", repr=False)  # the transcript so far, as text and as tokens
    _ids: list[int] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.sampler = TurnSampler(self.language, self.card["stops"])
        self.context = int(getattr(self.language.model.config, "max_position_embeddings", 0) or 1 << 30)

    @torch.no_grad()
    def act(self, transcript: str) -> TextDecision:
        """The next turn after a transcript.

        A transcript that goes on where the last turn ended continues that episode, and what was written before is
        not tokenised again; every other one is the prompt of a new episode.
        """
        if self._seen and transcript.startswith(self._seen):
            ids = self._ids + self.language.text_ids(transcript[len(self._seen) :])
        else:
            ids = self.language.prompt_ids(transcript)
        room = self.context - len(ids)
        if room < 1:
            raise ModelError("transcript", f"{len(ids)} tokens", f"fewer than the context of {self.context}")
        sequences = Sequences(self.language.model, self.language.tokenizer.pad_token_id)
        limit = min(int(self.card["turn_tokens"]), room)
        turn = self.sampler.turn(sequences, sequences.feed([ids]), [limit], greedy=not self.sample)[0]
        text = self._cut(self.language.decode(turn.ids))
        self._seen, self._ids = transcript + text, ids + turn.ids
        cost_usd = len(turn.ids) * float(self.card["router_usd_per_mtok"]) / 1e6
        return TextDecision(text, len(ids), len(turn.ids), cost_usd)

    def _cut(self, text: str) -> str:
        """`text` up to the end of the first stop; a last token may reach beyond it."""
        ends = [text.find(stop) + len(stop) for stop in self.card["stops"] if stop in text]
        return text[: min(ends)] if ends else text


def save_text_policy(path: str | Path, language: LanguageModel, card: Mapping[str, Any]) -> Path:
    """Write a policy folder, whole or not at all; it replaces an older policy. Adapters are merged into the model.

    The template, `card["prompt"]`, becomes a file beside the card.
    """
    from rlroute.cache import atomic_folder

    path = Path(path)
    if path.exists() and not (path / CARD_FILE).exists() and (not path.is_dir() or any(path.iterdir())):
        raise PolicyError(path, None, "something that is no policy", "a free name or an older policy")
    model = language.model
    if hasattr(model, "merge_and_unload"):
        model = model.float().merge_and_unload()  # a sum in bfloat16 would lose small adapters
    card = {**card}
    template = card.pop("prompt")
    with atomic_folder(path, replace=True) as fresh:
        (fresh / PROMPT_FILE).write_text(template, encoding="utf-8")
        model.save_pretrained(fresh, safe_serialization=True)
        language.tokenizer.save_pretrained(fresh)
        write_card(fresh / CARD_FILE, {"loader": LOADER, **card})
    return path


def load_text_policy(path: Path, card: dict[str, Any], *, sample: bool = False, seed: int | None = None) -> TextPolicy:
    """The policy of a folder whose card was read; called by `rlroute.load_policy`."""
    for key, kind in KEYS.items():
        if not isinstance(card.get(key), kind):
            name = kind.__name__ if isinstance(kind, type) else "number"
            raise PolicyError(path / CARD_FILE, key, repr(card.get(key)), f"a {name}")
    if not (path / "model.safetensors").is_file() and not (path / "model.safetensors.index.json").is_file():
        raise PolicyError(path / "model.safetensors", None, "no such file", "the weights of the model")
    try:
        language = load_folder(path)
    except ModelError as error:
        raise PolicyError(path, error.what, error.found, error.expected) from error
    language.model.eval()
    policy = TextPolicy(card, language, path, str(card.get("name", "text router")), sample)
    if seed is not None:
        policy.sampler.generator = torch.Generator(language.model.device).manual_seed(seed)
    return policy


def text_card(env: Any, env_id: str, turn_tokens: int) -> dict[str, Any]:
    """What a text router trained in `env` must remember."""
    numeric = env.dynamics.policy_card()
    kept = ("family", "choices", "arguments", "log", "suite")
    return {
        **{key: numeric[key] for key in kept if key in numeric},
        "environment": env_id,
        "prompt": env.template.path.read_text(encoding="utf-8"),
        "stops": list(env.stops),
        "turn_tokens": turn_tokens,
        "router_usd_per_mtok": float(env.router_usd_per_mtok),
    }
