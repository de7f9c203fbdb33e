"""Learning rate and EMA decay as pure functions of the step, so that a checkpoint needs only the step."""


def learning_rate(step: int, *, steps: int, warmup: int, peak: float, constant: bool = False) -> float:
    r"""Learning rate of update ``step`` (from 0): a linear rise, then a linear fall to 0 at ``steps``, or none.

    With :math:`w = \min(\text{warmup}, \text{steps} // 2)`: ``peak (step + 1) / w`` while ``step < w``, then
    ``peak (steps - step) / (steps - w)``.

    Args:
        step: Updates already made.
        steps: Updates in all.
        warmup: Updates of the rise; at most half of all are used.
        peak: Largest learning rate.
        constant: Whether the rate stays at its peak after the rise.

    Example:
        >>> [learning_rate(k, steps=8, warmup=2, peak=6.0) for k in range(8)]
        [3.0, 6.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if constant else peak * (steps - step) / (steps - warmup)


def ema_decay(step: int, decay: float) -> float:
    """Decay used after update ``step`` (from 0): ``min(decay, (1 + step) / (10 + step))``.

    Early averages would otherwise be made of the initial weights.

    Example:
        >>> ema_decay(0, 0.999), ema_decay(100_000, 0.999)
        (0.1, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))
