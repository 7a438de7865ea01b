"""Makes `vgg19_slim`: VGG19's topology at a quarter of its width, taught by the full VGG19. Source: ours.

The slim network trains with batch normalisation before each ReLU, which is folded into its kernels at the end. Two
kinds of heads, none of them kept, read the teacher's pools t_l off the slim network's pools s_l: a 1x1 convolution
h_l every element of t_l, and linear maps k_lm the averages over the picture of t_l and of every deeper pool:

    L = sum_l [ mean (h_l(s_l) - (t_l - mu_l) / sigma_l)^2
                + w_l mean_{m >= l} mean (k_lm(avg s_l) - (avg t_m - nu_m) / tau_m)^2 ],

mu_l, sigma_l the mean and standard deviation, per channel, of t_l, and nu_m, tau_m those of its average over the
picture. With a quarter of the channels a shallow pool cannot keep all that the teacher's keeps; looking ahead to the
deeper pools makes it keep what they make use of. Shallow pools are the narrowest and have the largest w_l.
The teacher's pools of every image are computed once and kept on disk for the run.
"""

import functools
import io
import json
import shutil
from pathlib import Path

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from t2i_kd.data.batches import pairs_at
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.metrics.linear_probe import probe_accuracy
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, build_vgg19, fold_batch_normalization
from t2i_kd.training.loop import learning_rate, plan_stages, train_stage
from t2i_kd.training.trainer import Trainer

POOLS = tuple(f"pool{block}" for block in range(1, 6))
OBJECTIVE = "regress_pools"
WEIGHTS_FILE = "vgg19_slim.npz"
FIDELITY_FILE = "fidelity.json"
TAP_FOLDER = "teacher_taps"
PROBE_CLASSES = 30
# w_l, the weight of the averages.
AVERAGE_WEIGHTS = {"pool1": 20.0, "pool2": 20.0, "pool3": 5.0, "pool4": 5.0, "pool5": 2.0}


class SlimTrainer(Trainer):
    """The step that teaches the slim network.

    Args:
        network: `build_vgg19(..., batch_normalization=True)`.
        widths: {pool: the full teacher's channels}.
        statistics: {pool: (mu, sigma, nu, tau)}, per channel; see the module's docstring.
    """

    divides_batch = False  # batch normalisation

    def __init__(self, network, widths, statistics):
        super().__init__(name="teacher_slim")
        self.network, self.statistics = network, statistics
        self.heads, self.average_heads = {}, {}
        for index, pool in enumerate(POOLS):
            channels = network.output[pool].shape[-1]
            self.heads[pool] = keras.layers.Dense(widths[pool], name=f"{pool}_head")
            self.heads[pool].build((None, None, None, channels))
            for deeper in POOLS[index:]:
                head = keras.layers.Dense(widths[deeper], name=f"{pool}_{deeper}_average_head")
                head.build((None, channels))
                self.average_heads[f"{pool}_{deeper}"] = head
        self.built = True

    @property
    def kept_variables(self):
        return self.variables

    def loss_terms(self, batch):
        """The loss of the module's docstring; two terms a pool."""
        made = self.network(ops.cast(batch["image"], "float32"), training=True)
        real = {pool: ops.cast(batch[pool], "float32") for pool in POOLS}
        averages = {}
        for pool, (_, _, nu, tau) in self.statistics.items():
            averages[pool] = (ops.mean(real[pool], axis=(1, 2)) - nu) / tau
        loss, terms = 0.0, {}
        for index, pool in enumerate(POOLS):
            mu, sigma, _, _ = self.statistics[pool]
            terms[pool] = mean_square(self.heads[pool](made[pool]) - (real[pool] - mu) / sigma)
            average = ops.mean(made[pool], axis=(1, 2))
            ahead = [
                mean_square(self.average_heads[f"{pool}_{deeper}"](average) - averages[deeper])
                for deeper in POOLS[index:]
            ]
            terms[f"{pool}_average"] = sum(ahead) / len(ahead)
            loss = loss + terms[pool] + AVERAGE_WEIGHTS[pool] * terms[f"{pool}_average"]
        return loss, terms


def mean_square(values):
    """The mean of the squares of a tensor's elements."""
    return ops.mean(ops.square(values))


class TapBatches(keras.utils.PyDataset):
    """Images with the teacher's maps of them, those of a step following from (seed, step)."""

    def __init__(self, images, taps, batch_size, seed, first_step, last_step):
        super().__init__()
        self.images, self.taps, self.batch_size, self.seed = images, taps, batch_size, seed
        self.first_step, self.last_step = first_step, last_step

    def __len__(self):
        return self.last_step - self.first_step

    def __getitem__(self, index):
        chosen = np.sort(pairs_at(self.first_step + index, self.batch_size, len(self.images), self.seed))
        return {"image": self.images[chosen], **{pool: values[chosen] for pool, values in self.taps.items()}}


def tap_statistics(taps):
    """{pool: (mu, sigma, nu, tau)} of a sample of the teacher's maps, float32 per channel, deviations never 0."""
    statistics = {}
    for pool, values in taps.items():
        sample = values[:: max(1, len(values) // 2000)].astype("float32")
        average = sample.mean((1, 2))
        deviations = [each + 1e-3 * each.mean() + 1e-8 for each in (sample.std((0, 1, 2)), average.std(0))]
        statistics[pool] = (sample.mean((0, 1, 2)), deviations[0], average.mean(0), deviations[1])
    return statistics


class TeacherSlim:
    """A run that makes a slim teacher: images, the full teacher's maps of them, and the slim network.

    `--data_dir` may name several folders or archives, separated by commas.
    """

    def __init__(self, recipe):
        self.recipe = recipe
        for stage in recipe.stages:
            if stage.objective != OBJECTIVE:
                raise UserError(f"--stage {stage.name}: objective is {stage.objective!r}, not {OBJECTIVE!r}")
        if len(recipe.stages) != 1:
            raise UserError("--stage: teacher_slim has exactly one stage")
        keras.utils.set_random_seed(recipe.training.seed)
        self.train_sets, self.test_sets = self._load("train"), self._load("test")
        self.images = stacked(self.train_sets)
        teacher = recipe.teacher
        self.network = build_vgg19(
            recipe.data.resolution,
            recipe.student.width,
            teacher.teacher_pooling,
            teacher.teacher_preprocessing,
            batch_normalization=True,
        )
        self.plans = plan_stages(recipe.stages, len(self.images) / recipe.training.batch_size)
        learning_rate(recipe.stages[0], self.plans[0].steps)

    def _load(self, split):
        data = self.recipe.data
        return [
            load_dataset(data.dataset, split, data.resolution, folder, data.max_bad_examples)
            for folder in data.data_dir.split(",")
        ]

    def describe(self):
        """The lines of `--dry_run`."""
        folded = sum(9 * w.shape[2] * w.shape[3] + w.shape[3] for w in self.network.weights if len(w.shape) == 4)
        yield f"slim teacher: {folded:,} parameters without normalisation"
        yield f"{len(self.images):,} images, {self.plans[0].steps:,} steps"

    @functools.cached_property
    def teacher(self):
        """The full network, loaded when it is first needed."""
        return load_teacher(self.recipe.teacher, self.recipe.data.resolution)

    def load_teacher(self):
        """Loads the teacher now, so that wrong weights are told before a run directory is made."""
        return self.teacher

    def train(self, run_dir):
        """Trains and folds the slim network; writes its weights (float16), then its measured fidelity."""
        run_dir = Path(run_dir)
        if not (run_dir / FIDELITY_FILE).exists():
            self._train(run_dir)
        shutil.rmtree(run_dir / TAP_FOLDER, ignore_errors=True)

    def _train(self, run_dir):
        full = self.teacher
        taps = cached_taps(full, self.images, run_dir / TAP_FOLDER)
        widths = {pool: full.output[pool].shape[-1] for pool in POOLS}
        training = self.recipe.training
        train_stage(
            self.plans[0],
            SlimTrainer(self.network, widths, tap_statistics(taps)),
            lambda first, last: TapBatches(self.images, taps, training.batch_size, training.seed, first, last),
            training,
            run_dir,
            lambda *_: None,
        )
        slim = fold_batch_normalization(
            self.network,
            self.recipe.data.resolution,
            self.recipe.teacher.teacher_pooling,
            self.recipe.teacher.teacher_preprocessing,
        )
        save_slim_weights(slim, run_dir / WEIGHTS_FILE)
        self._measure(full, slim, run_dir / FIDELITY_FILE)

    def _measure(self, full, slim, path):
        """Linear probes of the full, the slim and a random slim network; see `fidelity`."""
        fresh = build_vgg19(self.recipe.data.resolution, self.recipe.student.width)
        report = fidelity({"full": full, "slim": slim, "random": fresh}, self.train_sets[0], self.test_sets[0])
        text = json.dumps(report, indent=2)
        write_file_atomically(path, (text + "\n").encode("utf-8"))
        print(text)


def fidelity(networks, train_set, test_set):
    """Held-out accuracy of linear probes on each network's pools, averaged over the picture.

    Args:
        networks: {name: `keras.Model` with the pools among its outputs}.
        train_set, test_set: labelled `CaptionedImages`; the 30 classes with most training images are probed.

    Returns:
        {"classes": 30, "train_images": n, "test_images": n, name: {pool: accuracy}}.
    """
    classes, counts = np.unique(train_set.labels, return_counts=True)
    classes = classes[np.argsort(-counts, kind="stable")[:PROBE_CLASSES]]
    chosen = [np.flatnonzero(np.isin(each.labels, classes)) for each in (train_set, test_set)]
    labels = [each.labels[rows] for each, rows in zip((train_set, test_set), chosen, strict=True)]
    pictures = [
        np.stack([each.images[i] for i in rows]) for each, rows in zip((train_set, test_set), chosen, strict=True)
    ]
    report = {"classes": len(classes), "train_images": len(labels[0]), "test_images": len(labels[1])}
    for name, network in networks.items():
        averages = keras.Model(network.input, {pool: ops.mean(network.output[pool], axis=(1, 2)) for pool in POOLS})
        train, test = (averages.predict(each.astype("float32"), batch_size=32, verbose=0) for each in pictures)
        report[name] = {pool: round(probe_accuracy(train[pool], labels[0], test[pool], labels[1]), 4) for pool in POOLS}
    return report


def stacked(datasets):
    """All pictures of several sets: uint8 [n, resolution, resolution, 3]."""
    return np.stack([dataset.images[i] for dataset in datasets for i in range(len(dataset))])


def cached_taps(teacher, images, folder, batch_size=32):
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
        for start in tqdm(range(0, len(images), batch_size), desc="teacher", unit="batch"):
            made = network.predict_on_batch(images[start : start + batch_size].astype("float32"))
            for pool, values in made.items():
                maps[pool][start : start + batch_size] = values
        for pool, path in unfinished.items():
            maps[pool].flush()
            path.rename(paths[pool])
    return {pool: np.load(path, mmap_mode="r") for pool, path in paths.items()}


def save_slim_weights(model, path):
    """Writes a folded slim network as float16 `.npz`, {conv/kernel, conv/bias}, which `load_teacher` reads."""
    values, archive = {}, io.BytesIO()
    for name in CONVOLUTIONS:
        for part, weights in zip(("kernel", "bias"), model.get_layer(name).get_weights(), strict=True):
            values[f"{name}/{part}"] = weights.astype(np.float16)
    np.savez_compressed(archive, **values)
    write_file_atomically(Path(path), archive.getvalue())
