"""The Fréchet distance between what a network sees in made and in real pictures.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (NeurIPS 2017), on another network's activations.
"""

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.metrics.activations import activation_batches, activation_protocol
from t2i_kd.metrics.moments import Moments


def frechet_distance(one, other):
    """d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), of two Gaussians with these means and covariances.

    tr (C_1 C_2)^(1/2) is the sum of the square roots of the eigenvalues of R C_2 R, R the symmetric root of C_1, which
    are real and not negative also where the covariances are singular.

    Args:
        one, other: `Moments` of the same dim, each of more vectors than dim.

    Returns:
        A float, 0 or more.

    Raises:
        ValueError: for different dims, or no more vectors than dim, where the covariance says nothing about some
            directions and the distance depends on the number of vectors.
    """
    for moments in (one, other):
        if moments.mean is None or moments.count <= len(moments.mean):
            dim = 0 if moments.mean is None else len(moments.mean)
            raise ValueError(
                f"{moments.count} activations of {dim} dimensions: more of them than dimensions are needed"
            )
    if len(one.mean) != len(other.mean):
        raise ValueError(f"activations of {len(one.mean)} and of {len(other.mean)} dimensions")
    values, directions = np.linalg.eigh(one.covariance)
    root = (directions * np.sqrt(np.maximum(values, 0))) @ directions.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0)).sum()
    distance = np.square(one.mean - other.mean).sum() + np.trace(one.covariance) + np.trace(other.covariance)
    return float(max(distance - 2 * shared, 0.0))


def measure(context):
    """The Fréchet distance between a student's pictures of held-out captions and the held-out pictures.

    Args:
        context: an `EvaluationContext`; see `activation_batches`.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    moments = {}
    for name, batches in activation_batches(context).items():
        moments[name] = Moments()
        for batch in batches:
            moments[name].update(batch)
    made, real = moments["made"], moments["real"]
    dim = len(real.mean)
    for flag, count in (("--num_captions", made.count), ("--dataset", real.count)):
        if count <= dim:
            raise UserError(f"{flag}: frechet needs more than {dim} pictures, as many as activations, not {count}")
    name, protocol = activation_protocol(context, "frechet", made.count, real.count)
    return {"protocol": protocol, "values": {name: frechet_distance(made, real)}}
