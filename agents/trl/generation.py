"""Sampling one turn after another for many texts side by side, without reading anything twice.

Every row keeps the tokens that were sampled: what is fed back to the model is their ids, never a text that was
tokenised again. Keys and values of all rows lie in one cache; where rows differ in length it has gaps, which the
attention mask hides and the positions skip.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from rlroute.agents.trl.models import LanguageModel


@dataclass
class Sequences:
    """Tokens of B texts in a model's cache."""

    model: Any
    pad: int
    cache: Any = None
    mask: Any = None  # (B, L) int64: which places of the cache hold a token
    lengths: Any = None  # (B,) int64 tokens of each text
    seconds: float = 0.0  # that the model took

    def feed(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append a chunk to every text, none of them empty; returns the logits after it, (B, V) float32.

        Chunks are padded on the left, so that the last place is a token of every row.
        """
        device = self.model.device
        widest = max(len(chunk) for chunk in chunks)
        ids = torch.tensor([[self.pad] * (widest - len(chunk)) + list(chunk) for chunk in chunks], device=device)
        sizes = torch.tensor([len(chunk) for chunk in chunks], device=device)
        return self._forward(ids, (torch.arange(widest, device=device) >= widest - sizes[:, None]).long())

    def feed_one(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Append one token (B,) to the rows that are `present` (B,); returns logits (B, V), read only in those."""
        return self._forward(torch.where(present, tokens, self.pad)[:, None], present.long()[:, None])

    def repeat(self, times: int) -> None:
        """Every text `times` times, side by side."""
        self.cache.batch_repeat_interleave(times)
        self.mask, self.lengths = self.mask.repeat_interleave(times, 0), self.lengths.repeat_interleave(times, 0)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all texts but `rows`."""
        if len(rows) == len(self.lengths):
            return
        at = torch.tensor(rows, device=self.lengths.device)
        self.cache.batch_select_indices(at)
        self.mask, self.lengths = self.mask[at], self.lengths[at]

    def _forward(self, ids: Tensor, present: Tensor) -> Tensor:
        began = time.perf_counter()
        if self.cache is None:
            from transformers import DynamicCache

            self.cache = DynamicCache(config=self.model.config)
            self.mask, self.lengths = present[:, :0], torch.zeros_like(present[:, 0])
        positions = (self.lengths[:, None] + present.cumsum(dim=1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, present], dim=1)
        self.lengths = self.lengths + present.sum(dim=1)
        logits = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.seconds += time.perf_counter() - began
        return torch.as_tensor(logits.float())


@dataclass
class Turn:
    """What was sampled for one row."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TurnSampler:
    """Samples turns that end right after one of `stops`, after an end-of-text token, or at their limit of tokens."""

    def __init__(self, language: LanguageModel, stops: Sequence[str]) -> None:
        self.language, self.stops = language, tuple(stops)
        size = int(language.model.config.vocab_size)
        pieces = language.tokenizer.batch_decode([[i] for i in range(min(size, len(language.tokenizer)))])
        last = {stop[-1] for stop in self.stops}
        # The token that completes a stop holds its last character, so all other tokens need no look at the text.
        self.may_end = {i for i, piece in enumerate(pieces) if any(mark in piece for mark in last)}
        self.ends = {language.tokenizer.eos_token_id} - {None}
        self.generator: torch.Generator | None = None  # of its draws; torch's own where there is none

    def turn(self, sequences: Sequences, logits: Tensor, limits: Sequence[int], greedy: bool = False) -> list[Turn]:
        """One turn for every row from `logits` (B, V); the last token of each is sampled but not fed yet.

        A row of limit 0 gets an empty turn.
        """
        turns = [Turn() for _ in limits]
        open_rows = [row for row, limit in enumerate(limits) if limit > 0]
        while open_rows:
            logprobs = logits.log_softmax(dim=-1)
            tokens = logprobs.argmax(dim=-1) if greedy else self._drawn(logprobs)
            chosen = logprobs.gather(1, tokens[:, None])[:, 0]
            still = []
            for row, token, logprob in zip(open_rows, *_picked(tokens, chosen, open_rows), strict=True):
                turn = turns[row]
                turn.ids.append(token)
                turn.logprobs.append(logprob)
                if not (len(turn.ids) >= limits[row] or token in self.ends or self._stops(turn.ids)):
                    still.append(row)
            open_rows = still
            if open_rows:
                present = torch.zeros(len(limits), dtype=torch.bool, device=logits.device)
                present[open_rows] = True
                logits = sequences.feed_one(tokens, present)
        return turns

    def _drawn(self, logprobs: Tensor) -> Tensor:
        return torch.multinomial(logprobs.exp(), 1, generator=self.generator)[:, 0]

    def _stops(self, ids: list[int]) -> bool:
        if ids[-1] not in self.may_end:
            return False
        text = self.language.decode(ids)
        return any(stop in text for stop in self.stops)


def _picked(tokens: Tensor, logprobs: Tensor, rows: list[int]) -> tuple[list[int], list[float]]:
    all_tokens, all_logprobs = tokens.tolist(), logprobs.tolist()
    return [all_tokens[row] for row in rows], [all_logprobs[row] for row in rows]


class Texts(Protocol):
    """Texts that a model and an environment write by turns, row by row."""

    @property
    def seconds(self) -> float:
        """That the model took."""
        ...

    def read(self, prompts: Sequence[list[int]], group: int) -> None:
        """Begin with the tokens of prompts; those of a `group` in a row are alike."""
        ...

    def turn(self, limits: Sequence[int], greedy: bool) -> list[Turn]:
        """One turn for every row, of at most so many tokens."""
        ...

    def go_on(self, rows: Sequence[int], replies: Sequence[list[int]]) -> None:
        """Keep only `rows`, whose turn was not empty, and append to each the tokens of the reply to it."""
        ...


class CachedTexts:
    """`Texts` in the cache of a model of transformers."""

    def __init__(self, sampler: TurnSampler, model: Any, pad: int) -> None:
        self.sampler, self.sequences = sampler, Sequences(model, pad)
        self.logits = torch.empty(0)
        self.latest: list[Turn] = []

    @property
    def seconds(self) -> float:
        return self.sequences.seconds

    def read(self, prompts: Sequence[list[int]], group: int) -> None:
        if group == 1:
            self.logits = self.sequences.feed(prompts)
            return
        first = self.sequences.feed(prompts[::group])  # what a group has in common is read once
        self.sequences.repeat(group)
        self.logits = first.repeat_interleave(group, dim=0)

    def turn(self, limits: Sequence[int], greedy: bool) -> list[Turn]:
        self.latest = self.sampler.turn(self.sequences, self.logits, limits, greedy)
        return self.latest

    def go_on(self, rows: Sequence[int], replies: Sequence[list[int]]) -> None:
        self.sequences.keep(rows)
        # The last token of a turn was sampled and not read yet.
        chunks = [self.latest[row].ids[-1:] + reply for row, reply in zip(rows, replies, strict=True)]
        self.logits = self.sequences.feed(chunks)
