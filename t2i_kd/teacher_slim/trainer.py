"""The run that makes the slim teacher.

The slim network trains with batch normalisation before each ReLU, which is folded into its kernels at the end. The
teacher's pools of every image are computed once and kept on disk for the run.
"""

import functools
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from t2i_kd.data.batches import pairs_at
from t2i_kd.data.captioned_images import split_lines
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.student import WEIGHTS_FILE as NETWORK_FILE
from t2i_kd.student import save_network
from t2i_kd.teacher_slim.fidelity import fidelity
from t2i_kd.teacher_slim.objective import OBJECTIVE, POOLS, pool_errors, pool_statistics
from t2i_kd.teachers.vgg19 import build_vgg19, fold_batch_normalization
from t2i_kd.teachers.vgg19_weights import save_slim_weights
from t2i_kd.training.loop import is_over
from t2i_kd.training.system import System
from t2i_kd.training.trainer import Trainer

WEIGHTS_FILE = "vgg19_slim.npz"
FIDELITY_FILE = "fidelity.json"
POOL_FOLDER = "teacher_taps"


class SlimTrainer(Trainer):
    """The step that teaches the slim network.

    Args:
        network: `build_vgg19(..., batch_normalization=True)`.
        widths: {pool: the full teacher's channels}.
        statistics: {pool: (mu, sigma, nu, tau)}; see `pool_statistics`.
    """

    divides_batch = False  # batch normalisation

    def __init__(self, network, widths, statistics):
        super().__init__(name="teacher_slim")
        self.network, self.statistics = network, statistics
        self.heads, self.average_heads = {}, {}
        for index, pool in enumerate(POOLS):
            channels = network.output[pool].shape[-1]
            self.heads[pool] = keras.layers.Dense(widths[pool], dtype="float32", name=f"{pool}_head")
            self.heads[pool].build((None, None, None, channels))
            for deeper in POOLS[index:]:
                head = keras.layers.Dense(widths[deeper], dtype="float32", name=f"{pool}_{deeper}_average_head")
                head.build((None, channels))
                self.average_heads[f"{pool}_{deeper}"] = head
        self.built = True

    @property
    def kept_variables(self):
        return self.variables

    def loss_terms(self, batch):
        """The loss of `t2i_kd.teacher_slim.objective`; two terms a pool."""
        outputs = self.network(ops.cast(batch["image"], "float32"), training=True)
        slim = {pool: ops.cast(outputs[pool], "float32") for pool in POOLS}
        full = {pool: ops.cast(batch[pool], "float32") for pool in POOLS}
        return pool_errors(slim, full, self.heads, self.average_heads, self.statistics)


class PoolBatches(keras.utils.PyDataset):
    """Images with the teacher's maps of them, those of a step following from (seed, step)."""

    def __init__(self, images, pools, batch_size, seed, first_step, last_step):
        super().__init__()
        self.images, self.pools, self.batch_size, self.seed = images, pools, batch_size, seed
        self.first_step, self.last_step = first_step, last_step

    def __len__(self):
        return self.last_step - self.first_step

    def __getitem__(self, index):
        chosen = np.sort(pairs_at(self.first_step + index, self.batch_size, len(self.images), self.seed))
        return {"image": self.images[chosen], **{pool: values[chosen] for pool, values in self.pools.items()}}


class TeacherSlim(System):
    """A run that makes a slim teacher: images, the full teacher's maps of them, and the slim network.

    `--data_dir` may name several folders or archives, separated by commas. The run's `student.keras` is the folded
    network, so that `--teacher=run:DIR` reads it too.
    """

    objectives = (OBJECTIVE,)
    makes_student = False
    # Images alone: nobody asks this network for a picture.
    condition = None

    def check_recipe(self):
        super().check_recipe()
        if len(self.recipe.stages) != 1:
            raise UserError("--stage: teacher_slim has exactly one stage")
        if self.recipe.data.flip:
            raise UserError("--flip: teacher_slim learns from the images as they are")

    def load_split(self, split, decode=True):
        """The split of every folder, a list."""
        data = self.recipe.data
        return [
            load_dataset(
                self._source, split, data.resolution, folder, data.max_bad_examples, decode, cache_dir=data.cache_dir
            )
            for folder in data.data_dir.split(",")
        ]

    def part_of(self, splits):
        """A part of every folder."""
        part_of = super().part_of
        return [part_of(split) for split in splits]

    @functools.cached_property
    def images(self):
        """All training images: uint8 [n, resolution, resolution, 3]."""
        return np.stack([each.images[i] for each in self.dataset for i in range(len(each))])

    @property
    def examples(self):
        return len(self.images)

    def build_network(self):
        return self._vgg19(batch_normalization=True)

    def _vgg19(self, **options):
        recipe, teacher = self.recipe, self.recipe.teacher
        pooling, preprocessing = teacher.teacher_pooling, teacher.teacher_preprocessing
        return build_vgg19(recipe.data.resolution, recipe.slim.width, pooling, preprocessing, **options)

    def describe_network(self):
        folded = sum(9 * w.shape[2] * w.shape[3] + w.shape[3] for w in self.network.weights if len(w.shape) == 4)
        return [f"slim teacher: {folded:,} parameters without normalisation"]

    def describe_cost(self):
        """Nothing: the teacher's maps of every image, which come first, are kept in a run directory."""
        return []

    def describe_data(self):
        return [line for each in (*self.dataset, *self.held_out) for line in split_lines(each)]

    def own_trainer(self, plan):
        widths = {pool: self.teacher.output[pool].shape[-1] for pool in POOLS}
        return SlimTrainer(self.network, widths, pool_statistics(self.pools))

    def batches(self, plan, first_step, last_step):
        training = self.recipe.training
        return PoolBatches(self.images, self.pools, training.batch_size, training.seed, first_step, last_step)

    def draw_samples(self, run_dir, stage, step, events):
        """Nothing: the network generates no images."""

    def save_condition(self, run_dir):
        """Nothing: the network is asked with images alone."""

    def save_stage(self, plan, run_dir):
        """Nothing: what counts is the folded network at the end."""

    def train(self, run_dir, deadline=math.inf):
        """Trains and folds the slim network; writes it, its weights (float16), and its measured fidelity."""
        run_dir = Path(run_dir)
        if not ((run_dir / FIDELITY_FILE).exists() and all(is_over(plan, run_dir) for plan in self.plans)):
            self.pools = cached_pools(self.teacher, self.images, run_dir / POOL_FOLDER)
            if not super().train(run_dir, deadline):
                return False
        shutil.rmtree(run_dir / POOL_FOLDER, ignore_errors=True)
        return True

    def finish_early(self, run_dir):
        """Nothing: a folded network says that the run is over."""

    def finish(self, run_dir):
        teacher = self.recipe.teacher
        slim = fold_batch_normalization(
            self.network, self.recipe.data.resolution, teacher.teacher_pooling, teacher.teacher_preprocessing
        )
        save_slim_weights(slim, run_dir / WEIGHTS_FILE)
        save_network(slim, run_dir / NETWORK_FILE)
        networks = {"full": self.teacher, "slim": slim, "random": self._vgg19()}
        text = json.dumps(fidelity(networks, self.dataset[0], self.held_out[0]), indent=2)
        write_file_atomically(run_dir / FIDELITY_FILE, (text + "\n").encode("utf-8"))
        print(text)


def cached_pools(teacher, images, folder, batch_size=32):
    """The teacher's pools of every image, float16 memory maps in `folder`; made once, in order of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {pool: folder / f"{pool}.npy" for pool in POOLS}
    if not all(path.exists() for path in paths.values()):
        network = keras.Model(teacher.input, {pool: teacher.output[pool] for pool in POOLS})
        unfinished = {pool: folder / f".{pool}.npy" for pool in POOLS}
        maps = {
            pool: np.lib.format.open_memmap(
                unfinished[pool], "w+", np.float16, (len(images), *network.output[pool].shape[1:])
            )
            for pool in POOLS
        }
        for start in tqdm(range(0, len(images), batch_size), desc="teacher", unit="batch", disable=None):
            batch = network.predict_on_batch(images[start : start + batch_size].astype("float32"))
            for pool, values in batch.items():
                maps[pool][start : start + batch_size] = values
        for pool, path in unfinished.items():
            maps[pool].flush()
            path.rename(paths[pool])
    return {pool: np.load(path, mmap_mode="r") for pool, path in paths.items()}
