"""Which examples are held out for testing, decided by their names alone."""

import hashlib
import posixpath
import re

# What copying adds to a name: `x (1)`, `x copy`, `x copy 2`, `x - Copy`, `x - Copy (2)`.
COPY_MARK = re.compile(r"( \(\d+\)| copy( \d+)?| - copy( \(\d+\))?)+$", re.IGNORECASE)
# A family of names larger than this, and than the held-out share, is a numbering: `photo (1)` to `photo (300)`.
LARGEST_FAMILY = 4


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
    places = {name: position(name) for name in names}
    ordered = sorted(places, key=places.get)
    count = sum(place < share for place in places.values())
    return frozenset(ordered[: max(0, min(max(count, 1), len(ordered) - 1))])


def copies_by_name(names, share):
    """Groups of names that differ in nothing but their ending and what copying adds (`x.png`, `x (1).png`, `x.jpg`).

    A family of more than `LARGEST_FAMILY` names that is also more than `share` of all is taken for a numbering.
    """
    families = {}
    for name in names:
        stem = posixpath.splitext(name)[0]
        folder, slash, last = stem.rpartition("/")
        families.setdefault(f"{folder}{slash}{COPY_MARK.sub('', last) or last}", []).append(name)
    largest = max(LARGEST_FAMILY, share * len(names))
    return [family for family in families.values() if 1 < len(family) <= largest]


def joined(names, groups):
    """The names in disjoint groups, those of each given group together: a list of lists, each sorted by length."""
    home = {name: name for name in names}

    def root(name):
        while home[name] != name:
            home[name] = home[home[name]]
            name = home[name]
        return name

    for first, *others in groups:
        for other in others:
            home[root(other)] = root(first)
    found = {}
    for name in names:
        found.setdefault(root(name), []).append(name)
    return [sorted(group, key=lambda name: (len(name), name)) for group in found.values()]


def held_out_groups(groups, share):
    """`held_out` for groups that must stay together: a group goes where its first name goes.

    Where there is but one group, it is divided as its names would be.
    """
    if len(groups) == 1:
        return held_out(groups[0], share)
    chosen = held_out([group[0] for group in groups], share)
    return frozenset(name for group in groups if group[0] in chosen for name in group)
