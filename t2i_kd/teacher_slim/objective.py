"""What the slim network learns: heads read the full teacher's pools off its own.

Two kinds of heads, none of them kept, read the teacher's pools t_l off the slim network's pools s_l: a 1x1 convolution
h_l every element of t_l, and linear maps k_lm the averages over the image of t_l and of every deeper pool:

    L = sum_l [ mean (h_l(s_l) - (t_l - mu_l) / sigma_l)^2
                + w_l mean_{m >= l} mean (k_lm(avg s_l) - (avg t_m - nu_m) / tau_m)^2 ],

mu_l, sigma_l the mean and standard deviation, per channel, of t_l, and nu_m, tau_m those of its average over the
image. With a quarter of the channels a shallow pool cannot keep all that the teacher's keeps; looking ahead to the
deeper pools makes it keep what they make use of. Shallow pools are the narrowest and have the largest w_l.
"""

from keras import ops

POOLS = tuple(f"pool{block}" for block in range(1, 6))
OBJECTIVE = "regress_pools"
# w_l, the weight of the averages.
AVERAGE_WEIGHTS = {"pool1": 20.0, "pool2": 20.0, "pool3": 5.0, "pool4": 5.0, "pool5": 2.0}


def pool_errors(slim, full, heads, average_heads, statistics):
    """The loss L of the module's docstring.

    Args:
        slim, full: {pool: s_l}, {pool: t_l}, float32 [batch, height, width, channels].
        heads: {pool: h_l}, layers.
        average_heads: {"pool_deeper": k_lm}, layers.
        statistics: {pool: (mu, sigma, nu, tau)}; see `pool_statistics`.

    Returns:
        (L, {term: float32 scalar}), two terms a pool: its elements' error, and its averages' without w_l.
    """
    averages = {pool: (ops.mean(full[pool], axis=(1, 2)) - nu) / tau for pool, (_, _, nu, tau) in statistics.items()}
    loss, terms = 0.0, {}
    for index, pool in enumerate(POOLS):
        mu, sigma, _, _ = statistics[pool]
        terms[pool] = mean_square(heads[pool](slim[pool]) - (full[pool] - mu) / sigma)
        average = ops.mean(slim[pool], axis=(1, 2))
        ahead = [mean_square(average_heads[f"{pool}_{deeper}"](average) - averages[deeper]) for deeper in POOLS[index:]]
        terms[f"{pool}_average"] = sum(ahead) / len(ahead)
        loss = loss + terms[pool] + AVERAGE_WEIGHTS[pool] * terms[f"{pool}_average"]
    return loss, terms


def mean_square(values):
    """The mean of the squares of a tensor's elements."""
    return ops.mean(ops.square(values))


def pool_statistics(pools):
    """{pool: (mu, sigma, nu, tau)} of a sample of the teacher's maps, float32 per channel, deviations never 0."""
    statistics = {}
    for pool, values in pools.items():
        sample = values[:: max(1, len(values) // 2000)].astype("float32")
        average = sample.mean((1, 2))
        deviations = [each + 1e-3 * each.mean() + 1e-8 for each in (sample.std((0, 1, 2)), average.std(0))]
        statistics[pool] = (sample.mean((0, 1, 2)), deviations[0], average.mean(0), deviations[1])
    return statistics
