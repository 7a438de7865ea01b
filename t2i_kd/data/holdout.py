"""Which examples are held out for testing, decided by their names alone."""

import hashlib


def position(name):
    """A place in [0, 1) for a name: the first 64 bits of its SHA-256, read as a fraction.

    It depends on nothing else, so a name stays on its side of any threshold when others are added or removed.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(names, share):
    """The names whose `position` is below `share`.

    Where the threshold leaves a side empty, the name nearest to it changes sides; a single name is never held out.
    """
    ordered = sorted(set(names), key=position)
    count = sum(position(name) < share for name in ordered)
    return frozenset(ordered[: max(0, min(max(count, 1), len(ordered) - 1))])
