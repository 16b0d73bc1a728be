"""Scoring every choice of every row, forward and backward, as one step of automatic differentiation.

The same numbers as the layers one by one would give, from a third of the operations: choices come first in memory, so
that what is shared by a row is added in place, ReLUs work in place, and nothing is kept for the backward pass twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# What `ScoreChoices` takes after context and blocks, in this order: weight and bias of each layer.
LAYERS = (
    "context_encoder.0",
    "context_encoder.2",
    "choice_encoder.0",
    "choice_encoder.2",
    "trunk",
    "choice_head.0",
    "choice_head.2",
)


class ScoreChoices(torch.autograd.Function):
    """Scores (C, B, K) of K actions of C choices, and the summary (B, hidden) of each of the B rows.

    Takes the context (B, context size), the blocks (C, B, block size) and the parameters of `LAYERS`. For what the
    layers mean see `rlroute.policy.forward`.
    """

    @staticmethod
    def forward(ctx: Any, context: Tensor, blocks: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        w0, b0, w1, b1, wc0, bc0, wc1, bc1, wt, bt, wh0, bh0, wh1, bh1 = parameters
        choices, rows, own = blocks.shape
        hidden = w1.shape[0]
        first = torch.addmm(b0, context, w0.t()).relu_()
        code = torch.addmm(b1, first, w1.t()).relu_()
        inner = torch.mm(blocks.view(-1, own), wc0[:, :own].t()).view(choices, rows, hidden)
        inner = inner.add_(torch.addmm(bc0, code, wc0[:, own:].t())).relu_().view(-1, hidden)
        codes = torch.addmm(bc1, inner, wc1.t()).relu_()
        each = codes.view(choices, rows, hidden)
        pooled = torch.cat([code, each.mean(dim=0), each.amax(dim=0)], dim=1)
        summary = torch.addmm(bt, pooled, wt.t()).relu_()
        joint = torch.mm(codes, wh0[:, :hidden].t()).view(choices, rows, hidden)
        joint = joint.add_(torch.addmm(bh0, summary, wh0[:, hidden:].t())).relu_().view(-1, hidden)
        scores = torch.addmm(bh1, joint, wh1.t()).view(choices, rows, -1)
        ctx.save_for_backward(context, blocks, first, code, inner, codes, pooled, summary, joint, *parameters)
        return scores, summary

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_scores: Tensor, d_summary: Tensor) -> tuple[Tensor | None, ...]:
        context, blocks, first, code, inner, codes, pooled, summary, joint, *parameters = ctx.saved_tensors
        _, _, w1, _, wc0, _, wc1, _, wt, _, wh0, _, wh1, _ = parameters
        choices, rows, own = blocks.shape
        hidden = w1.shape[0]

        d_scores = d_scores.reshape(choices * rows, -1)
        d_joint = _through_relu(torch.mm(d_scores, wh1), joint)
        d_joint_shared = d_joint.view(choices, rows, hidden).sum(dim=0)
        d_wh0 = torch.cat([torch.mm(d_joint.t(), codes), torch.mm(d_joint_shared.t(), summary)], dim=1)

        d_summary = _through_relu(torch.addmm(d_summary, d_joint_shared, wh0[:, hidden:]), summary)
        d_pooled = torch.mm(d_summary, wt)
        d_code, d_mean, d_max = d_pooled.split(hidden, dim=1)
        each, greatest = codes.view(choices, rows, hidden), pooled[:, 2 * hidden :]
        # Equal maxima share the gradient, as in `amax`. Ones and zeros are compared for faster than truth values.
        reaches = torch.eq(each, greatest, out=torch.empty_like(each))
        d_codes = torch.mm(d_joint, wh0[:, :hidden])
        d_each = d_codes.view(choices, rows, hidden)
        d_each.add_(d_mean / choices).addcmul_(reaches, d_max / reaches.sum(dim=0))
        _through_relu(d_codes, codes)

        d_inner = _through_relu(torch.mm(d_codes, wc1), inner)
        d_inner_shared = d_inner.view(choices, rows, hidden).sum(dim=0)
        d_own = torch.mm(blocks.view(-1, own).t(), d_inner).t()  # the narrow factor on the left: twice as fast
        d_wc0 = torch.cat([d_own, torch.mm(d_inner_shared.t(), code)], dim=1)

        d_code = _through_relu(torch.addmm(d_code, d_inner_shared, wc0[:, own:]), code)
        d_first = _through_relu(torch.mm(d_code, w1), first)
        return (
            None,
            None,
            *(torch.mm(d_first.t(), context), d_first.sum(dim=0)),
            *(torch.mm(d_code.t(), first), d_code.sum(dim=0)),
            *(d_wc0, d_inner_shared.sum(dim=0)),
            *(torch.mm(d_codes.t(), inner), d_codes.sum(dim=0)),
            *(torch.mm(d_summary.t(), pooled), d_summary.sum(dim=0)),
            *(d_wh0, d_joint_shared.sum(dim=0)),
            *(torch.mm(d_scores.t(), joint), d_scores.sum(dim=0)),
        )


def _through_relu(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient before a ReLU from that after it, in place."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
