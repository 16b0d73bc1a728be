"""Lessons in copying for a model that was never trained: how to say again what stands before.

A router repeats names and answers that it has read. The circuit for this, a head that looks one token back and one
that finds where the present token stood before, takes a small model long to find in transcripts, where few tokens are
copies. Here the first of the two is built in, and the second is found in a few hundred updates on random tokens that
come twice (`[ours]`; after Olsson et al. 2022, "In-context learning and induction heads").
"""

from __future__ import annotations

import math
from typing import Any

import torch

SHARPNESS = 6.0  # of the head that looks back: this puts 0.97 of its attention on the token before
FREQUENCIES = 5  # of the rotary positions, the highest ones, by which it tells that token from others
RUN, GAP, BATCH = 12, 20, 32  # tokens that come twice, at most between, and sequences of an update
LEARNING_RATE, WARM_UP = 2e-3, 20
LEARNED = 0.2  # a loss at which there is nothing left to learn (nats a copied token)


def look_back(model: Any) -> None:
    """Make the first head of a Qwen2 attend to the token before, by the constant parts of its queries and keys.

    Rotary positions turn pair i of a query and a key by f_i for every token between them, so constant queries that
    are turned back by f_i against constant keys match best at a distance of 1.
    """
    attention = model.model.layers[0].self_attn
    half = attention.head_dim // 2
    base = model.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        for i in range(FREQUENCIES):
            frequency = base ** (-i / half)
            attention.k_proj.bias[i] = SHARPNESS
            attention.q_proj.bias[i] = SHARPNESS * math.cos(frequency)
            attention.q_proj.bias[i + half] = -SHARPNESS * math.sin(frequency)


def teach_copying(model: Any, tokens: list[int], steps: int, seed: int = 0) -> float:
    """At most `steps` updates on runs of random `tokens` that come twice; returns the last loss.

    The loss is on the second run alone, from its second token on.
    """
    generator = torch.Generator().manual_seed(seed)
    alphabet = torch.tensor(tokens)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    look_back(model)
    model.train()
    loss = math.inf
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP)
        gap = int(torch.randint(1, GAP, (1,), generator=generator))
        drawn = torch.randint(len(alphabet), (BATCH, RUN + gap), generator=generator)
        ids = alphabet[torch.cat([drawn, drawn[:, :RUN]], dim=1)].to(model.device)
        labels = ids.clone()
        labels[:, : RUN + gap + 1] = -100
        out = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        out.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = float(out.detach())
        loss = 0.8 * loss + 0.2 * now if math.isfinite(loss) else now
        if loss < LEARNED:
            break
    return loss
