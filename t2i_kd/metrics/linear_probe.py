"""How much a linear classifier reads out of frozen features."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def fitted_probe(features, labels, strength=1.0, iterations=1000):
    """Multinomial logistic regression (L2) on standardised features, fitted.

    Args:
        features: float [n, width].
        labels: int [n].
        strength: C, the inverse of the regularisation's weight.
        iterations: of the solver, at most.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations))
    return probe.fit(features, labels)


def probe_accuracy(train_features, train_labels, test_features, test_labels):
    """Accuracy on the test set of multinomial logistic regression (L2, C = 1) on standardised features.

    Args:
        train_features, test_features: float [n, width].
        train_labels, test_labels: int [n].

    Returns:
        Share of the test set that is classified right, 0-1.
    """
    return float(fitted_probe(train_features, train_labels).score(test_features, test_labels))
