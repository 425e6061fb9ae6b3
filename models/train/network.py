"""A small trainer: layers with gradients in numpy, and Adam.

In binary64 and without a framework, so that a seed gives the same weights again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Weights = dict[str, np.ndarray]
Gradient = Callable[[Weights, np.ndarray], tuple[float, Weights]]


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def adam(
    weights: Weights,
    gradient: Gradient,
    n_rows: int,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
) -> Weights:
    """Minimises by Adam (Kingma and Ba 2015), the rate falling linearly to zero."""
    rng = np.random.default_rng(seed)
    mean = {key: np.zeros_like(value) for key, value in weights.items()}
    square = {key: np.zeros_like(value) for key, value in weights.items()}
    steps = epochs * -(-n_rows // batch)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(n_rows)
        for start in range(0, n_rows, batch):
            step += 1
            _, slopes = gradient(weights, order[start : start + batch])
            for key, slope in slopes.items():
                mean[key] = 0.9 * mean[key] + 0.1 * slope
                square[key] = 0.999 * square[key] + 0.001 * slope**2
                scaled = (mean[key] / (1 - 0.9**step)) / (
                    np.sqrt(square[key] / (1 - 0.999**step)) + 1e-8
                )
                weights[key] = weights[key] - rate * (1 - step / (steps + 1)) * scaled
    return weights
