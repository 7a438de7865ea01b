"""SRPKD's objective: what a small generator learns from a big one, and the losses of its hosts.

Source: Li, Jiang & Aarabi, "Semantic Relation Preserving Knowledge Distillation for Image-to-Image Translation" (arXiv
2104.15082), of which we know the relation matrix and the sum of losses at second hand alone; the norm, the weights and
the layer are our reconstruction. CycleGAN's and pix2pix' terms: their papers and code. For comparison: the
terms of "GAN Compression" (Li et al., CVPR 2020) and "Online Multi-Granularity Distillation" (Ren et al., ICCV 2021).

Images are float [batch, height, width, 3] in 0-255, and differences of images are in half ranges (127.5), so that
weights are those of the literature, whose images lie in -1 to 1.
"""

import numpy as np
from keras import ops

from t2i_kd.imaging import HALF_RANGE

# A shorter row counts as 0 and is not divided by its length.
SMALLEST = 1e-12
# Rows of a relation matrix at a time.
BLOCK = 512
NORMS = ("l1", "l2")
# SSIM's window and constants; Wang et al. (2004).
WINDOW, SIGMA = 11, 1.5
SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def relation_matrix(features, rows=None):
    """How each place of a map resembles the others: A = rows of Q Q^T, each divided by its Euclidean length.

    Args:
        features: Q, float [batch, height, width, channels], its places the rows of an [H W, C] matrix.
        rows: int [n], the places whose rows are made; None: all.

    Returns:
        Float32 [batch, n, height * width].
    """
    places = _places(features)
    return _rows(places, places if rows is None else ops.take(places, rows, axis=1))[0]


def relation_loss(student, teacher, norm="l1", rows=None, block=BLOCK):
    """How far a student's relations are from a teacher's: mean |A_S - A_T| (l1), or mean (A_S - A_T)^2 (l2).

    The mean is over the batch, the rows and the places. The channels of the two may differ. The matrices are made
    `block` rows at a time, with the gradient in the same pass, so that memory is that of a block: of 64 x 64 places a
    whole matrix has 67 MB an image. There is no gradient into the teacher.

    Args:
        student, teacher: float [batch, height, width, channels].
        norm: `l1` or `l2`.
        rows: int [n], the places whose rows are compared; None: all.
        block: rows at a time.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: for maps of different sides.
    """
    if tuple(student.shape[1:3]) != tuple(teacher.shape[1:3]):
        raise ValueError(f"maps of {tuple(student.shape[1:3])} and {tuple(teacher.shape[1:3])} places")
    count = student.shape[1] * student.shape[2]
    rows = np.arange(count) if rows is None else rows
    total = rows.shape[0]
    block = min(block, total)
    blocks = -(-total // block)
    # The last block is filled up with rows that count nothing.
    padded = ops.concatenate([ops.cast(rows, "int32"), ops.zeros((blocks * block - total,), "int32")])
    counts = ops.cast(ops.arange(blocks * block) < total, "float32")

    @ops.custom_gradient
    def compared(ours, theirs):
        def one(index, carried):
            loss, slope = carried
            chosen = ops.slice(padded, (index * block,), (block,))
            counted = ops.slice(counts, (index * block,), (block,))[None, :, None]
            value, change = _block(ours, theirs, chosen, counted, norm)
            return loss + value, slope + change

        loss, slope = ops.fori_loop(0, blocks, one, (ops.zeros(()), ops.zeros_like(ours)))
        share = 1 / (ops.cast(ops.shape(ours)[0], "float32") * (total * count))

        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            return upstream * share * slope, ops.zeros_like(theirs)

        return loss * share, gradient

    return compared(_places(student), ops.stop_gradient(_places(teacher)))


def _places(features):
    features = ops.cast(features, "float32")
    return ops.reshape(features, (-1, features.shape[1] * features.shape[2], features.shape[3]))


def _rows(places, chosen):
    """(A's rows of the chosen places, the lengths that they were divided by)."""
    products = ops.matmul(chosen, ops.transpose(places, (0, 2, 1)))
    lengths = ops.sqrt(ops.maximum(ops.sum(ops.square(products), axis=2, keepdims=True), SMALLEST**2))
    return products / lengths, lengths


def _block(ours, theirs, chosen, counted, norm):
    """(the block's sum of errors, its gradient to `ours`).

    With P = Q_R Q^T, n = |P| and A = P / n for each row: dP = (dA - A (A . dA)) / n, dQ = dP^T Q_R, and at the block's
    own places dQ_R = dP Q.
    """
    own = ops.take(ours, chosen, axis=1)
    found, lengths = _rows(ours, own)
    difference = counted * (found - _rows(theirs, ops.take(theirs, chosen, axis=1))[0])
    if norm == "l1":
        loss, change = ops.sum(ops.abs(difference)), ops.sign(difference)
    else:
        loss, change = ops.sum(ops.square(difference)), 2 * difference
    # A row that is not divided by its length does not change with it.
    turned = ops.where(lengths > SMALLEST, ops.sum(found * change, axis=2, keepdims=True), 0.0)
    change = (change - found * turned) / lengths
    slope = ops.matmul(ops.transpose(change, (0, 2, 1)), own)
    scattered = ops.one_hot(chosen, ours.shape[1], dtype="float32")
    return loss, slope + ops.matmul(ops.transpose(scattered), ops.matmul(change, ours))


def absolute_error(one, other):
    """The mean |x - y| / 127.5: output distillation, cycles, identity, and pix2pix' L1. A float32 scalar."""
    return ops.mean(ops.abs(ops.cast(one, "float32") - ops.cast(other, "float32"))) / HALF_RANGE


def squared_error(one, other):
    """The mean (x - y)^2 of two maps of one shape: GAN Compression's term, `one` the student's map through a 1x1
    convolution. A float32 scalar.
    """
    return ops.mean(ops.square(ops.cast(one, "float32") - ops.cast(other, "float32")))


def gram_matrix(features):
    """G = Q^T Q / (H W C), float32 [batch, channels, channels], Q [H W, C] each image's map."""
    places = _places(features)
    count = places.shape[1] * places.shape[2]
    return ops.matmul(ops.transpose(places, (0, 2, 1)), places) / count


def gram_loss(one, other):
    """The mean (G - G')^2 of the two maps' `gram_matrix`; OMGD's style term, Gatys et al. (2016). A float32 scalar."""
    return squared_error(gram_matrix(one), gram_matrix(other))


def total_variation(image):
    """The mean square of the differences of neighbours, down and to the right, in half ranges; OMGD's term.

    Args:
        image: float [batch, height, width, 3] in 0-255.

    Returns:
        A float32 scalar.
    """
    image = ops.cast(image, "float32") / HALF_RANGE
    down = ops.mean(ops.square(image[:, 1:] - image[:, :-1]))
    return down + ops.mean(ops.square(image[:, :, 1:] - image[:, :, :-1]))


def structural_dissimilarity(one, other):
    """1 - SSIM, the mean over the batch; OMGD's term. See `t2i_kd.metrics.structural_similarity.ssim`.

    Args:
        one, other: float [batch, height, width, 3] in 0-255, sides of 11 or more.

    Returns:
        A float32 scalar, 0 for equal images.
    """
    one, other = ops.cast(one, "float32"), ops.cast(other, "float32")
    mean_one, mean_other = _windowed(one), _windowed(other)
    variances = _windowed(one * one) - mean_one**2 + _windowed(other * other) - mean_other**2
    covariance = _windowed(one * other) - mean_one * mean_other
    first, second = SSIM_CONSTANTS
    luminance = (2 * mean_one * mean_other + first) / (mean_one**2 + mean_other**2 + first)
    return 1 - ops.mean(luminance * (2 * covariance + second) / (variances + second))


def _windowed(images):
    """Gaussian means over the whole windows of [n, h, w, 3]."""
    window = np.exp(-np.square(np.arange(-(WINDOW // 2), WINDOW // 2 + 1)) / (2 * SIGMA**2))
    window = np.tile((window / window.sum())[:, None, None, None], (1, 1, 3, 1)).astype("float32")
    images = ops.depthwise_conv(images, ops.convert_to_tensor(window), padding="valid")
    return ops.depthwise_conv(images, ops.convert_to_tensor(window.transpose(1, 0, 2, 3)), padding="valid")
