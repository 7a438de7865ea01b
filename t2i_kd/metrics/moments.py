"""Mean and covariance of activations that come in batches."""

import numpy as np


class Moments:
    """Mean m and covariance C of vectors, streamed: memory for one dim x dim matrix, whatever their number.

    Batches are joined as Chan, Golub & LeVeque (1979) join samples, in float64:
        m <- m + (n_b / n) (m_b - m),   S <- S + S_b + (n_a n_b / n) (m_b - m)(m_b - m)^T,   C = S / (n - 1).
    """

    def __init__(self):
        self.count, self.mean, self._scatter = 0, None, None

    def update(self, batch, weights=None):
        """Adds a batch, float [n, dim]; with integer weights, float [n], each vector as often as its weight says.

        Raises:
            ValueError: where it is not of that form, has another dim than those before, or holds NaN or infinity.
        """
        batch = np.asarray(batch, np.float64)
        if batch.ndim != 2:
            raise ValueError(f"activations of shape {batch.shape} are not [n, dim]")
        if not np.isfinite(batch).all():
            raise ValueError("activations hold NaN or infinity")
        weights = np.ones(len(batch)) if weights is None else np.asarray(weights, np.float64)
        added = weights.sum()
        if not added:
            return
        if self.mean is None:
            self.mean = np.zeros(batch.shape[1])
            self._scatter = np.zeros((batch.shape[1], batch.shape[1]))
        if batch.shape[1] != len(self.mean):
            raise ValueError(f"activations of width {batch.shape[1]} after some of width {len(self.mean)}")
        mean = weights @ batch / added
        deviations, shift = batch - mean, mean - self.mean
        total = self.count + int(added)
        self._scatter += (deviations.T * weights) @ deviations + np.outer(shift, shift) * (self.count * added / total)
        self.mean = self.mean + shift * (added / total)
        self.count = total

    @property
    def covariance(self):
        """C, float64 [dim, dim]. Raises `ValueError` for fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"{self.count} activations have no covariance")
        return self._scatter / (self.count - 1)
