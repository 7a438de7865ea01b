"""Text-to-image generators that are taught by pretrained networks."""

__version__ = "0.1.0"
