"""What both sides of `benchmarks.train_step` share; it imports neither framework."""

import json
import sys
import time

CLIPNORM = 1.0
LEARNING_RATE = 5e-4
# Of the adversarial stage.
BETA_2, EMA, NOISE_DIM, CHANNELS = 0.99, 0.999, 64, 32
# Of KD-DLGAN's step: fields of `KDDLGANOptions`, and how many prompts there are.
KD_WEIGHTS = {"agkd_weight": 0.5, "agkd_length": 10.0, "cgkd_weight": 0.01}
HEAD_UNITS, PROMPTS = 256, 10
# Of SRPKD's: fields of `DistillationOptions` and of `HostOptions`, Adam's decays, residual blocks, the two generators.
DISTILLATION_WEIGHTS = {"output_weight": 10.0, "relation_weight": 30.0}
HOST = {"cycle_weight": 10.0, "identity_weight": 0.5, "pool_size": 50}
BETA_1, HOST_BETA_2, RESIDUAL_BLOCKS, NAMES = 0.5, 0.999, 6, ("forward", "backward")
# The channels of KD-DLGAN's networks and of SRPKD's teachers and discriminators at width 1; its students have half.
WIDEST = 64
# Key of an answer -> the clock it is taken from.
CLOCKS = {"seconds": time.perf_counter, "processor_seconds": time.process_time}
# The convolution that stands for the machine's peak.
PEAK_SHAPE = (8, 56, 56, 256)
PEAK_OPERATIONS = 2 * 8 * 56**2 * 9 * 256**2


def answer(**values):
    """Tells the other end."""
    print(json.dumps(values), flush=True)


def peak(convolve, clock, seconds=2.0):
    """Operations a second of `convolve`, a 3x3 convolution of `PEAK_SHAPE` to 256 channels; the best of several."""
    convolve()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = CLOCKS[clock]()
        convolve()
        best = min(best, CLOCKS[clock]() - began)
    return PEAK_OPERATIONS / best


class Turn:
    """A turn of `steps` steps: made when the other end says go, answered when it is `over`."""

    def __init__(self, steps):
        if not sys.stdin.readline():
            sys.exit()  # the other end is gone
        self.steps, self.began = steps, self._now()

    @staticmethod
    def _now():
        return {name: clock() for name, clock in CLOCKS.items()}

    def over(self):
        """Answers what a step took by each clock."""
        now = self._now()
        answer(**{name: (now[name] - self.began[name]) / self.steps for name in now})
