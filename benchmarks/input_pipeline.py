"""Pictures a second that the input pipeline alone delivers, beside what a training run eats.

    python -m benchmarks.input_pipeline --dataset=image_folder --data_dir=FLOWERS.zip --resolution=64 --batch_size=8

The batches of `t2i_kd.data.batches` go through the same `tf.data` prefetching as in `keras.Model.fit`, into nothing.
"""

import time

import numpy as np
from absl import flags

from benchmarks import command
from t2i_kd import recipe_flags
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data.batches import Batches
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.sdn import SDNRecipe
from t2i_kd.text.front_end import build_front_end


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_integer("turns", 5, "of measuring", 1)
    flags.DEFINE_float("seconds", 4, "of a turn", 0.1)


def rates(batches, turns, seconds):
    """Pictures a second in each turn."""
    import tensorflow as tf

    signature = {name: tf.TensorSpec(array.shape, array.dtype) for name, array in batches[0].items()}
    made = tf.data.Dataset.from_generator(
        lambda: (batches[index] for index in range(len(batches))), output_signature=signature
    )
    made = iter(made.prefetch(tf.data.AUTOTUNE))
    next(made)
    found = []
    for _ in range(turns):
        count, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            next(made)
            count += batches.batch_size
        found.append(count / (time.perf_counter() - began))
    return found


def main():
    """Runs the command and prints what it measured."""
    recipe = recipe_flags.from_flags(SDNRecipe, flags.FLAGS, "sdn")
    data = recipe.data
    dataset = load_dataset(data.dataset, "train", data.resolution, data.data_dir, data.max_bad_examples)
    inputs = CaptionCondition(build_front_end(recipe.text, dataset)).arrays(dataset.all_captions)
    batches = Batches(dataset, inputs, recipe.training.batch_size, 0, 0, 10**7, data.flip, recipe.student.noise_dim)
    found = rates(batches, flags.FLAGS.turns, flags.FLAGS.seconds)
    print(f"{np.median(found):.0f} pictures/s ({min(found):.0f} to {max(found):.0f} in {len(found)} turns)")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0], SDNRecipe)
