"""KD-DLGAN's objective: a vision-language model tells a discriminator what its few pictures have in common.

With x a real image, G a generated one, r = T(x) and f = T(G) the teacher's vectors of them, d_r = e(x) and d_f = e(G)
those of the discriminator's head, and t_1 ... t_K the teacher's vectors of K prompts, as rows of a matrix P:

    AGKD: mean |l r - d_r| + mean |l f - d_f| + mean |l r - d_f| + mean |l f - d_r|,    l: a length
    CGKD: sum (N(r P^T) - N(d_r P^T))^2 + sum (N(f P^T) - N(d_f P^T))^2,    N: each row divided by its length
    diversity: sum_(i != j) cos(C_i, C_j),    C_i the rows of f P^T

The first two move the discriminator, the third the generator.

Source: Cui et al., "KD-DLGAN: Data Limited Image Generation via Knowledge Distillation" (CVPR 2023), and the authors'
code, which the defaults follow. What the paper has instead is an option, after others' account of it. The teacher's
vectors have length 1 here; l stands for what those of images have in the authors' code, where it is CLIP's.
"""

from keras import ops

CGKD_TERMS = ("code", "paper")
# A shorter row counts as 0 and is not divided by its length; a distance below it has no gradient.
SMALLEST = 1e-12


def lengths(vectors):
    """The Euclidean length of each row, float32 [batch]; where it is 0, so is its gradient."""
    squared = ops.sum(ops.square(ops.cast(vectors, "float32")), axis=-1)
    positive = squared > SMALLEST**2
    return ops.where(positive, ops.sqrt(ops.where(positive, squared, 1.0)), 0.0)


def unit_rows(vectors):
    """N: each row divided by its length, float32 [batch, dim]."""
    vectors = ops.cast(vectors, "float32")
    return vectors / ops.maximum(lengths(vectors), SMALLEST)[:, None]


def aggregated_loss(real, generated, real_head, generated_head, kept=None, length=1.0):
    """L_AGKD: the head's vectors are drawn to the teacher's, those of real and of generated images to both.

    mean_i |l r_i - d_r,i| + mean_i |l f_i - d_f,i| + mean_i k_i1 |l r_i - d_f,i| + mean_i k_i2 |l f_i - d_r,i|, with
    lengths, not their squares. The crossed terms make the two kinds harder to tell apart. Source: the authors' code,
    where every crossed term counts (k = 1). In the paper, as others account of it, a crossed term of a sample counts
    where a uniform number is at most p, 0.7 in a re-implementation.

    A head whose kernels are spectrally normalised does not lengthen what it reads, but by its biases, nor does the
    score's layer. Vectors of length 1 drew features together until all scores were near 0 (docs/results.md).

    Args:
        real, generated: r and f, float [batch, dim], taken without a gradient.
        real_head, generated_head: d_r and d_f, float [batch, dim].
        kept: k, float [batch, 2], 1 where a crossed term counts and 0 elsewhere; None: all 1.
        length: l, above 0.

    Returns:
        A float32 scalar, 0 or more.
    """
    real, generated = (length * ops.stop_gradient(each) for each in (real, generated))
    crossed = [lengths(real - generated_head), lengths(generated - real_head)]
    if kept is not None:
        crossed = [ops.cast(kept[:, index], "float32") * each for index, each in enumerate(crossed)]
    terms = [lengths(real - real_head), lengths(generated - generated_head), *crossed]
    return sum(ops.mean(each) for each in terms)


def correlations(vectors, prompts):
    """N(v P^T): how each image goes with each prompt, float32 [batch, prompts], rows of length 1.

    Of a single prompt every row is 1 or -1: it says nothing.

    Args:
        vectors: v, float [batch, dim].
        prompts: P, float [prompts, dim].
    """
    return unit_rows(ops.matmul(ops.cast(vectors, "float32"), ops.transpose(ops.cast(prompts, "float32"))))


def correlated_loss(real, generated, real_head, generated_head, prompts, variant="code"):
    """L_CGKD: by the head's vectors, images go with the prompts as they do by the teacher's.

    With C(v) = N(v P^T):

        code:  sum (C(r) - C(d_r))^2 + sum (C(f) - C(d_f))^2, sums over samples and prompts, as in the authors' code
        paper: mean_i sum_k |C(f) - C(d_f)|, of generated images alone, as others account of the paper; that it is the
            mean over the samples is ours

    Args:
        real, generated: r and f, float [batch, dim], taken without a gradient.
        real_head, generated_head: d_r and d_f, float [batch, dim].
        prompts: P, float [prompts, dim].
        variant: one of `CGKD_TERMS`.

    Returns:
        A float32 scalar, 0 or more.
    """
    generated_error = correlations(ops.stop_gradient(generated), prompts) - correlations(generated_head, prompts)
    if variant == "paper":
        return ops.mean(ops.sum(ops.abs(generated_error), axis=-1))
    real_error = correlations(ops.stop_gradient(real), prompts) - correlations(real_head, prompts)
    return ops.sum(ops.square(real_error)) + ops.sum(ops.square(generated_error))


def pairwise_similarity(generated, prompts):
    """The pairwise-diversity term: sum_(i != j) cos(C_i, C_j), C_i = f_i P^T, the smaller the more different.

    In the released code its counterpart has no gradient at all: it is made of the teacher's features alone, which are
    computed without one, so that it moves nothing. As the paper writes it, it can act on the generator alone, through
    the teacher; so it does here.

    Args:
        generated: f, float [batch, dim], with its gradient to the generated images.
        prompts: P, float [prompts, dim].

    Returns:
        A float32 scalar, at most batch (batch - 1).
    """
    rows = correlations(generated, prompts)
    # sum_(i, j) c_i . c_j = |sum_i c_i|^2, of which the pairs i = j are the squared lengths.
    return ops.sum(ops.square(ops.sum(rows, axis=0))) - ops.sum(ops.square(rows))


def lecam_averages(averages, real_scores, generated_scores, decay):
    """[a_r, a_f] after a step: a + (1 - decay) (m - a), m the mean scores of a batch.

    Source: Tseng et al., "Regularizing Generative Adversarial Networks under Limited Data" (CVPR 2021), as their code.

    Args:
        averages: [a_r, a_f] before it, float32 [2].
        real_scores, generated_scores: s, float32 [batch, ...], of all replicas.
        decay: 0 to 1, a number or a float32 scalar.

    Returns:
        float32 [2], without a gradient.
    """
    means = ops.stack([ops.mean(real_scores), ops.mean(generated_scores)])
    return averages + (1 - decay) * (ops.stop_gradient(means) - averages)


def lecam_penalty(real_scores, generated_scores, real_average, generated_average):
    """R_LC = mean max(0, s(x) - a_f)^2 + mean max(0, a_r - s(G))^2.

    a_r and a_f are moving averages of the mean scores of real and of generated images. Source: Tseng et al.,
    "Regularizing Generative Adversarial Networks under Limited Data" (CVPR 2021); the bound at 0 is from their code,
    which KD-DLGAN's authors use.

    Args:
        real_scores, generated_scores: s, float [...].
        real_average, generated_average: a_r and a_f, float scalars, taken without a gradient.

    Returns:
        A float32 scalar, 0 or more.
    """
    above = ops.relu(real_scores - ops.stop_gradient(generated_average))
    below = ops.relu(ops.stop_gradient(real_average) - generated_scores)
    return ops.mean(ops.square(above)) + ops.mean(ops.square(below))
