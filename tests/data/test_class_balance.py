"""One picture a class, chosen by (seed, step)."""

import numpy as np
import pytest

from t2i_kd.data.class_balance import class_balanced_indices, classes_of
from t2i_kd.errors import UserError


def test_batches_hold_one_image_a_class_and_derive_from_seed_and_step():
    labels = np.array([5, 5, 5, 7, 7, 9, 2, 2, 2, 2])
    seen = set()
    for step in range(200):
        indices = class_balanced_indices(labels, 3, seed=1, step=step)
        assert len(set(labels[indices])) == len(indices) == 3
        seen.update(indices.tolist())
        np.testing.assert_array_equal(indices, class_balanced_indices(labels, 3, seed=1, step=step))
    assert seen == set(range(len(labels)))
    draws = {tuple(class_balanced_indices(labels, 4, seed, step)) for seed in range(3) for step in range(3)}
    assert len(draws) > 5


@pytest.mark.parametrize("batch_size", [0, 3])
def test_too_large_a_batch_names_the_flag(batch_size):
    with pytest.raises(UserError, match="--batch_size"):
        class_balanced_indices(np.array([0, 0, 1]), batch_size, 0, 0)


def test_without_labels_every_image_is_a_class_of_its_own():
    assert classes_of([3, 3, 3]).tolist() == [0, 1, 2]
    assert classes_of([3, 3, 4]).tolist() == [3, 3, 4]
    assert classes_of([]).tolist() == []
