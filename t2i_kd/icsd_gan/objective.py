"""ICSD-GAN's objective: coarse stages learn from the refined one how the samples of a batch resemble each other.

Source: Mao et al., "Interstage cross-sample similarity distillation" (Sci China Inf Sci 2021), whose abstract says that
knowledge goes from the refined stage to the coarse ones, and that what is matched is the relation between the samples
of a batch. The formulas below, the weights and the choice of features are our reconstruction.
"""

from keras import ops

# A shorter row counts as 0 and is not divided by its length.
SMALLEST = 1e-12


def similarity_matrix(features):
    """How each sample of a batch resembles the others.

    S = rows of F F^T, each divided by its Euclidean length. Multiplying all features by a positive number changes
    nothing; permuting the batch permutes rows and columns.

    Args:
        features: F, float [batch, dim].

    Returns:
        Float32 [batch, batch].

    Raises:
        ValueError: for a batch of one, which has no other sample to be compared with.
    """
    if len(features.shape) != 2:
        raise ValueError(f"features of shape {tuple(features.shape)} are not [batch, dim]")
    if features.shape[0] == 1:
        raise ValueError("a batch of one has no cross-sample similarities; give at least 2 samples")
    features = ops.cast(features, "float32")
    products = ops.matmul(features, ops.transpose(features))
    lengths = ops.sqrt(ops.maximum(ops.sum(ops.square(products), axis=1, keepdims=True), SMALLEST**2))
    return products / lengths


def icsd_loss(features, teacher="refined"):
    """L_ICSD = sum_{i<n} |S_i - T_i|_F^2 / B^2, without a gradient into T_i.

    Args:
        features: F_1 to F_n, float [batch, dim_i] each, from the coarsest stage to the most refined one; n >= 1, and
            the widths may differ.
        teacher: `refined`: T_i = S_n for all; `adjacent`: T_i = S_(i+1).

    Returns:
        A float32 scalar, 0 for a single stage.

    Raises:
        ValueError: for a batch of one.
    """
    matrices = [similarity_matrix(each) for each in features]
    loss = ops.zeros(())
    for index, matrix in enumerate(matrices[:-1]):
        taught = ops.stop_gradient(matrices[-1 if teacher == "refined" else index + 1])
        # The mean over the B x B elements.
        loss = loss + ops.mean(ops.square(matrix - taught))
    return loss


def kl_divergence(mean, log_sigma):
    """KL(N(mu, sigma^2) || N(0, 1)), averaged over batch and dimensions.

    = mean(-log sigma + (sigma^2 + mu^2 - 1) / 2), averaged over dimensions too, as in StackGAN's code.

    Args:
        mean, log_sigma: float [batch, dim].

    Returns:
        A float32 scalar, 0 or more.
    """
    mean, log_sigma = ops.cast(mean, "float32"), ops.cast(log_sigma, "float32")
    return ops.mean(-log_sigma + (ops.exp(2 * log_sigma) + ops.square(mean) - 1) / 2)


def discriminator_loss(real, generated, differs):
    """One stage's discriminator loss from the losses of its heads.

    L_D = (real + real with its caption) / 2 + (1 - w) (generated + generated with its caption) / 2 + w (real with the
    next caption), w = 1/3 where the next caption is another one, 0 elsewhere; a mean over the batch.

    Source: StackGAN-v2's weights, with GAN-CLS's wrong captions (Reed et al., ICML 2016); ours in this combination.

    Args:
        real: {"unconditional", "conditional"}: l_real of each image, float32 [batch], see `training.gan_losses`.
        generated: {"unconditional", "conditional", "wrong"}: l_fake of each, likewise.
        differs: float32 [batch], 1 where the next caption is another one, 0 elsewhere.

    Returns:
        A float32 scalar.
    """
    wrong_share = differs / 3
    against = (1 - wrong_share) * (generated["unconditional"] + generated["conditional"]) / 2
    return ops.mean(sum(real.values()) / 2 + against + wrong_share * generated["wrong"])
