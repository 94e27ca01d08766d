"""How long to wait before the next try: pure arithmetic; knows neither clock nor queue."""

import math
from collections.abc import Callable


def next_delay(attempt: int, first: float, ceiling: float, random: Callable[[], float]) -> float:
    """Give the pause before the next try: exponential with full jitter, bounded, and without an end to the tries.

    Full jitter (Brooker, "Exponential Backoff and Jitter", 2015) keeps many deliveries from returning to a peer at the
    same moment. A tenth of the step is kept as a floor, so that no try follows at once.

    Parameters
    ----------
    attempt : int
        How many tries have failed, 1 or more.
    first, ceiling : float, seconds
        The longest pause after the first failure, and the longest ever.
    random : callable
        Gives a number in [0, 1).

    Returns
    -------
    float, seconds

    Raises
    ------
    ValueError
        `attempt` below 1, or times that aren't positive and finite.
    """
    if attempt < 1:
        raise ValueError("attempt counts failures and starts at 1")
    if not (0 < first < math.inf and 0 < ceiling < math.inf):
        raise ValueError("first and ceiling are positive, finite seconds")
    doublings = min(attempt - 1, 60)  # 2**60 s is past any ceiling; keeps the power in range for ever
    step = min(ceiling, first * 2.0**doublings)
    return step * (0.1 + 0.9 * random())
