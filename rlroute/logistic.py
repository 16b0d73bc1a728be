"""Logistic regression by Newton's method: the small learner behind cascades' scorers and per-step rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def logit(probability: NDArray[Any], edge: float = 0.01) -> Floats:
    """Log-odds, the probability kept `edge` away from 0 and 1."""
    p = np.clip(np.asarray(probability, np.float64), edge, 1 - edge)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: NDArray[Any]) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, np.float64))))


def fit_logistic(x: Floats, y: Floats, weight: Floats | None = None, penalty: float = 1.0, steps: int = 20) -> Floats:
    """Weights (D,) by Newton's method; y may be soft; the last column is not penalised."""
    mass = np.ones(len(x)) if weight is None else weight
    w = np.zeros(x.shape[1])
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-6
    for _ in range(steps):
        p = sigmoid(x @ w)
        gradient = x.T @ (mass * (p - y)) + ridge * w
        hessian = (x * (mass * np.maximum(p * (1 - p), 1e-4))[:, None]).T @ x + np.diag(ridge)
        move = np.linalg.solve(hessian, gradient)
        w -= move
        if np.abs(move).max() < 1e-6:
            break
    return w
