"""What `precomputed` and `hub` share: captions become vectors of another network, kept a caption."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.text.base import TextFrontEnd

# Of an embedding.
LARGEST_WIDTH = 2**16


@dataclass(frozen=True)
class VectorFrontEnd(TextFrontEnd):
    """Captions to embeddings.

    Attributes:
        source: the recipe's `embeddings_dir` or `hub_handle`.
        embedding_dim: width of an embedding.
        vectors: {caption: float32 [embedding_dim]}, those that are known.
    """

    source: str
    embedding_dim: int
    vectors: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    input_name = "embedding"
    input_dtype = "float32"
    tokenizer = None

    @property
    def input_shape(self):
        return (self.embedding_dim,)

    def build_encoder(self, options):
        """Identity, or a learned Dense where the embedding is not as wide as the text vector."""
        from t2i_kd.text.encoders import build_vector_encoder  # Keras, which reading captions does not need

        return build_vector_encoder(self.embedding_dim, options.text_dim)

    def describe(self):
        return {"encoder": self.name, "source": self.source, "embedding_dim": self.embedding_dim}

    @classmethod
    def load(cls, described):
        """The front end of `describe()`'s values, without vectors. Raises `UserError` where they are wrong."""
        width = described["embedding_dim"]
        if type(width) is not int or not 1 <= width <= LARGEST_WIDTH:
            raise UserError(f"condition.json: embedding_dim is no width from 1 to {LARGEST_WIDTH:,}: {width!r}")
        if not isinstance(described["source"], str):
            raise UserError("condition.json: source is no text")
        return cls(described["source"], width)

    def with_vectors(self, vectors):
        """The same front end, which also knows these."""
        return dataclasses.replace(self, vectors={**self.vectors, **vectors})
