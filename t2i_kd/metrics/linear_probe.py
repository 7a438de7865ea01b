"""How much a linear classifier reads out of frozen features."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def probe_accuracy(train_features, train_labels, test_features, test_labels):
    """Accuracy on the test set of multinomial logistic regression (L2, C = 1) on standardised features.

    Args:
        train_features, test_features: float [n, width].
        train_labels, test_labels: int [n].

    Returns:
        Share of the test set that is classified right, 0-1.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    probe.fit(train_features, train_labels)
    return float(probe.score(test_features, test_labels))
