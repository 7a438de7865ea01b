"""Which of the teacher's taps a stage compares, and how much each of them weighs."""

import fnmatch

from t2i_kd.errors import UserError

# A message names at most so many taps.
MOST_NAMES = 30


def resolve_tap_weights(tap_weights, taps):
    """Weights of all the taps from a stage's `tap_weights`.

    Args:
        tap_weights: pairs (name or pattern, weight), later ones overriding earlier ones; empty: every tap 1. A tap
            that none of them names has weight 0.
        taps: the teacher's, from the pixels to the most abstract.

    Returns:
        {tap: weight} of the taps whose weight is not 0, in the order of `taps`.

    Raises:
        UserError: for a pattern that fits no tap, a negative weight, or when nothing is left to compare.
    """
    taps = tuple(taps)
    weights = dict.fromkeys(taps, 0.0 if tap_weights else 1.0)
    for pattern, weight in tap_weights:
        fitting = fnmatch.filter(taps, pattern)
        if not fitting:
            more = f" and {len(taps) - MOST_NAMES} more" if len(taps) > MOST_NAMES else ""
            raise UserError(f"tap_weights: {pattern!r} fits none of the taps {', '.join(taps[:MOST_NAMES])}{more}")
        if weight < 0:
            raise UserError(f"tap_weights: the weight of {pattern!r} is negative: {weight}")
        weights.update(dict.fromkeys(fitting, weight))
    kept = {name: weight for name, weight in weights.items() if weight}
    if not kept:
        raise UserError("tap_weights: every weight is 0, nothing is left to compare")
    return kept
