"""When to try again: the retry policy, one pure function."""

import random

from penstock.core.contracts import Backoff


def delay(backoff: Backoff, attempt: int, *, draw: random.Random | None = None) -> float:
    """Seconds between the failure of attempt `attempt` (1 is the first) and the next one.

    The jittered share of the wait is drawn anew each time, so that jobs which failed together
    do not come back together.
    """
    wait = backoff.base
    if backoff.kind == "exponential":
        # factor ** (attempt - 1) overflows a float long after the cap is reached.
        wait = min(backoff.cap, backoff.base * backoff.factor ** min(attempt - 1, 300))
    share = backoff.jitter * (draw or _draw).random()
    return wait * (1 - share)


_draw = random.Random()  # noqa: S311 - spreads load, guards nothing
