"""Checkpoints: every variable of a trainer and its optimizer in one `.npz`, written whole or not at all.

`checkpoints/STAGE/step-00001500.npz` while a stage runs (the last two are kept), `final.npz` at its end.
"""

import math
import os
import re
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import reason
from t2i_kd.weight_files import Arrays

KEPT = 2
FINAL = "final.npz"
# Bytes of the widest kind of number that a variable may be kept as.
LARGEST_NUMBER = 8
_STEP = re.compile(r"step-(\d{8})\.npz")


def step_path(folder, step):
    """Where the checkpoint after `step` steps of a stage lies."""
    return Path(folder) / f"step-{step:08d}.npz"


def newest(folder):
    """(step, path) of the newest checkpoint of a running stage; (0, None) where there is none."""
    found = [(int(match[1]), path) for path in Path(folder).glob("step-*.npz") if (match := _STEP.fullmatch(path.name))]
    return max(found, default=(0, None))


def drop_old(folder, kept=KEPT):
    """Deletes all but the newest `kept` checkpoints of a running stage."""
    for path in sorted(Path(folder).glob("step-*.npz"))[: -kept or None]:
        path.unlink()


def named_variables(groups):
    """{unique name: variable} of {group: variables}, in a fixed order."""
    return {
        f"{group}/{index:04d}/{variable.path}": variable
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }


def write(path, groups):
    """Writes the values of {group: variables} to `path` by way of a temporary file and a rename.

    Raises:
        UserError: when a value is not finite or the disk refuses; what lay at `path` before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    values = {name: np.asarray(variable) for name, variable in named_variables(groups).items()}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise UserError(f"{path}: not written, {name} is not finite; training stopped")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **values)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"--run_dir: cannot write {path}: {error.strerror or error}") from None


def read(path, groups):
    """Gives {group: variables} the values of a checkpoint.

    Raises:
        UserError: when the file is unreadable or holds other variables or shapes; then nothing is assigned.
    """
    variables = named_variables(groups)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    try:
        with Arrays(path, sum(map(math.prod, shapes.values())) * LARGEST_NUMBER) as stored:
            if set(stored.names) != set(variables):
                odd = sorted(set(stored.names) ^ set(variables))[0]
                raise UserError(f"its variables are not this recipe's (first difference: {odd[:200]})")
            values = {name: stored.read(name, shape) for name, shape in shapes.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {reason(error)}") from None
    for name, variable in variables.items():
        variable.assign(values[name])
