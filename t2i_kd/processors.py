"""The processor of this machine."""

import os
import platform

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def take_onednn():
    """Lets TensorFlow convolve by oneDNN, unless the environment says otherwise; before TensorFlow is imported.

    By itself TensorFlow does so on x86 processors with AVX512-VNNI or AMX alone, where those with AVX2 gain more: a
    GAN's step takes half the time.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault(ONEDNN, "1")


def usable_cores():
    """The processor cores that this process may use; where a platform does not say, all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
