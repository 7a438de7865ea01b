"""The processor of this machine."""

import os


def usable_cores():
    """The processor cores that this process may use; where a platform does not say, all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
