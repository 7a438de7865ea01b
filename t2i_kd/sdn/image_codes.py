"""Noise that says which of a caption's images is meant.

Many images fit one caption, and where the noise is drawn independently of them, every distance asks for their mean.
Here the noise beside a training image x is

    z = rho c(x) + sqrt(1 - rho^2) eps,    eps ~ N(0, I)

with its code c(x) made of what a frozen network sees of the image and the caption does not say:

    r(x) = phi(x) - m - B (u(x) - v),    c_k(x) = p_k . r(x) / s_k

phi: a tap, flattened; u: how often each frequent word stands in the image's captions, their mean; v, m: the means of u
and phi; B: ridge regression; p_k, s_k: the k-th principal direction of r over the training images, and r's standard
deviation along it. So the codes are uncorrelated, each of variance 1, and linearly the words do not tell them; the
trained student reads z ~ N(0, I), as ever.

Source: ours. Images that are generated from codes of their own are of Bojanowski et al., "Optimizing the Latent Space
of Generative Networks" (ICML 2018), which learns the codes; the frozen network takes the place of a variational
autoencoder's encoder.
"""

from collections import Counter

import keras
import numpy as np

from t2i_kd.data.captioned_images import many
from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions, refuse_unread
from t2i_kd.sdn.objective import OBJECTIVES
from t2i_kd.teachers.catalogue import teacher_shapes
from t2i_kd.training.distribution import predict
from t2i_kd.training.projected import default_taps, enlarged_teacher, readable_side

BATCH = 64
# Of larger sets, so many images say what the codes are.
FITTED_IMAGES = 8192
MOST_WORDS = 1024
# The penalties that ridge regression chooses from, over the largest squared singular value.
PENALTIES = 10.0 ** np.arange(-6, 3)
SUBSPACE_STEPS = 12
SPARE_DIRECTIONS = 16
# A direction along which images differ less, of the largest feature, is none.
SMALLEST_SPREAD = 1e-6


class ImageCodes:
    """The codes of a set's images.

    Args:
        values: c, float32 [images, 1 or 2, dim]: of each image, and of it mirrored.
        correlation: rho.
    """

    def __init__(self, values, correlation):
        self.values, self.correlation = values, correlation

    def noise(self, images, mirrored, drawn):
        """The noise z of images by index.

        Args:
            images: int [batch].
            mirrored: bool [batch].
            drawn: eps, float32 [batch, dim].

        Returns:
            float32 [batch, dim].
        """
        own = self.values[np.asarray(images), np.asarray(mirrored, int)]
        return np.float32(self.correlation) * own + np.float32((1 - self.correlation**2) ** 0.5) * drawn


def codes_teacher(recipe):
    """The `TeacherOptions` of the network that the codes are of. Args: recipe: `SDNRecipe`."""
    named = recipe.noise.noise_teacher
    return TeacherOptions(teacher=named) if named else recipe.teacher


def check_codes(recipe):
    """Raises `UserError` where the noise of an `SDNRecipe` cannot follow its images, or nothing would come of it."""
    if not recipe.noise.noise_correlation:
        refuse_unread(recipe.noise, "a --noise_correlation above 0")
        return
    if not recipe.student.noise_dim:
        raise UserError("--noise_correlation: there is no noise; give --noise_dim, such as 32")
    if not any(stage.objective in OBJECTIVES or stage.distance_weight for stage in recipe.stages):
        raise UserError(
            "--noise_correlation: no stage compares an image with what is generated for it, as objective=perceptual "
            "and distance_weight do"
        )
    teacher = codes_teacher(recipe)
    if teacher.teacher == "none":
        raise UserError("--noise_correlation: needs a network that sees the images, as --teacher or --noise_teacher")
    coarsest_tap(teacher_shapes(teacher, readable_side(teacher, recipe.data.resolution)))


def coarsest_tap(shapes):
    """The tap that the codes are of: the coarsest of `default_taps`. Raises `UserError` where there is none."""
    taps = default_taps(shapes)
    if not taps:
        raise UserError("--noise_teacher: that network has no tap of 4 or more places a side")
    return taps[-1]


def image_codes(dataset, dim, teacher, flip, seed):
    """The codes of a set's images; one forward pass for each, and for each mirrored.

    Args:
        dataset: `CaptionedImages`.
        dim: how many codes an image has.
        teacher: `TeacherOptions` of the network that sees them.
        flip: whether mirrored images have codes, too.
        seed: chooses the images of large sets that say what the codes are.

    Returns:
        c, float32 [images, 1 or 2, dim]: of each image, and of it mirrored.

    Raises:
        UserError: when the images differ in fewer directions than there are to be codes.
    """
    images = dataset.images
    side = images[0].shape[0]
    network = enlarged_teacher(teacher, side, readable_side(teacher, side))
    tap = coarsest_tap({name: tuple(output.shape[1:]) for name, output in network.output.items()})
    network = keras.Model(network.input, network.output[tap])

    def features(rows):
        """phi, float32 [rows, 1 or 2, features]."""
        found = []
        for start in range(0, len(rows), BATCH):
            some = np.stack(many(images, rows[start : start + BATCH])).astype("float32")
            seen = [predict(network, each, BATCH) for each in ((some, some[:, :, ::-1]) if flip else (some,))]
            found.append(np.stack(seen, axis=1).reshape(len(some), len(seen), -1).astype("float32"))
        return np.concatenate(found)

    order = np.random.default_rng([seed, len(images)]).permutation(len(images))
    fitted, others = order[:FITTED_IMAGES], order[FITTED_IMAGES:]
    words, seen = word_counts(dataset.captions), features(fitted)
    code = Code(seen, words[fitted], dim)
    values = np.empty((len(images), seen.shape[1], dim), "float32")
    values[fitted] = code(seen, words[fitted])
    for start in range(0, len(others), FITTED_IMAGES):
        rows = others[start : start + FITTED_IMAGES]
        values[rows] = code(features(rows), words[rows])
    return values


def word_counts(captions):
    """u: how often each of the set's frequent words stands in each image's captions, the mean over these.

    Args:
        captions: for each image, a list of str.

    Returns:
        float64 [images, words].
    """
    spoken = [" ".join(own).lower().split() for own in captions]
    counted = Counter(word for words in spoken for word in words)
    column = {word: index for index, (word, _) in enumerate(counted.most_common(MOST_WORDS))}
    counts = np.zeros((len(captions), len(column)))
    for row, words in enumerate(spoken):
        for word, times in Counter(words).items():
            if word in column:
                counts[row, column[word]] = times / len(captions[row])
    return counts


class Code:
    """c, fitted to images.

    Args:
        features: phi, float32 [images, views, features]; the views of an image are it and perhaps it mirrored.
        words: u, float64 [images, words].
        dim: how many codes.

    Raises:
        UserError: when the features differ in fewer directions.
    """

    def __init__(self, features, words, dim):
        self.mean, self.word_mean = features.mean((0, 1), dtype="float64"), words.mean(0)
        self.slopes = ridge(words - self.word_mean, features.mean(1, dtype="float64") - self.mean)
        left = self._unsaid(features, words).reshape(-1, features.shape[-1])
        self.directions, self.spreads = principal_directions(left, min(dim, *left.shape))
        known = int((self.spreads > SMALLEST_SPREAD * np.abs(features).max()).sum())
        if known < dim:
            raise UserError(
                f"--noise_dim: {dim} is too wide for --noise_correlation, whose {len(features):,} images differ in "
                f"{known} directions beside what their captions say"
            )

    def _unsaid(self, features, words):
        """r, float64 [images, views, features]."""
        return features - self.mean - ((words - self.word_mean) @ self.slopes)[:, None]

    def __call__(self, features, words):
        """c, float64 [images, views, dim]. Args: features, words: as `Code` has them."""
        return self._unsaid(features, words) @ self.directions / self.spreads


def ridge(inputs, outputs):
    """Ridge regression, the penalty chosen by generalised cross-validation (Golub, Heath & Wahba, 1979).

    Args:
        inputs: float64 [n, p], each column of mean 0.
        outputs: float64 [n, q], likewise.

    Returns:
        float64 [p, q], of inputs to outputs.
    """
    left, sizes, right = np.linalg.svd(inputs, full_matrices=False)
    along, least, shrunk = left.T @ outputs, np.inf, np.zeros_like(sizes)
    beside = (outputs**2).sum() - (along**2).sum()
    for penalty in PENALTIES * sizes[0] ** 2 if sizes.any() else ():
        kept = sizes**2 / (sizes**2 + penalty)
        # One degree of freedom went into the means.
        free = len(inputs) - 1 - kept.sum()
        error = (beside + (((1 - kept)[:, None] * along) ** 2).sum()) / free**2 if free > 0 else np.inf
        if error < least:
            least, shrunk = error, sizes / (sizes**2 + penalty)
    return right.T @ (shrunk[:, None] * along)


def principal_directions(rows, count):
    """The directions in which rows of mean 0 differ most, by subspace iteration (Halko et al., SIAM Review 2011).

    Args:
        rows: float64 [n, q].
        count: how many, at most n and q.

    Returns:
        (float64 [q, count], orthonormal columns, the largest entry of each positive; float64 [count], the standard
        deviation along each, the largest first).
    """
    n, q = rows.shape
    width = min(n, q, count + SPARE_DIRECTIONS)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((q, width)))[0]
    for _ in range(SUBSPACE_STEPS):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    _, sizes, turn = np.linalg.svd(rows @ basis, full_matrices=False)
    directions = (basis @ turn.T)[:, :count]
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])
    return directions * signs, sizes[:count] / n**0.5
