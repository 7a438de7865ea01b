"""What `precomputed` and `hub` share: captions become vectors of another network, kept a caption."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.text.base import TextFrontEnd
from t2i_kd.text.encoders import build_vector_encoder

WIDTH_FILE = "text_embedding.json"


@dataclass(frozen=True)
class VectorFrontEnd(TextFrontEnd):
    """Captions to embeddings.

    Attributes:
        source: the recipe's `embeddings_dir` or `hub_handle`.
        text_dim: width of the student's text vector.
        embedding_dim: width of an embedding.
        vectors: {caption: float32 [embedding_dim]}, those that are known.
    """

    source: str
    text_dim: int
    embedding_dim: int
    vectors: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    input_name = "embedding"
    input_dtype = "float32"
    tokenizer = None

    @property
    def input_shape(self):
        return (self.embedding_dim,)

    def build_encoder(self):
        """Identity, or a learned Dense where the embedding is not as wide as the text vector."""
        return build_vector_encoder(self.embedding_dim, self.text_dim)

    def save(self, folder):
        text = json.dumps({"embedding_dim": self.embedding_dim}) + "\n"
        write_file_atomically(Path(folder) / WIDTH_FILE, text.encode("utf-8"))

    @classmethod
    def load(cls, folder, source, text_dim):
        """The front end that `save` described, without vectors. Raises `UserError` that names the file."""
        path = Path(folder) / WIDTH_FILE
        try:
            width = json.loads(path.read_text("utf-8"))["embedding_dim"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: {error}") from None
        if type(width) is not int or width < 1:
            raise UserError(f"{path}: embedding_dim is not a positive width: {width!r}")
        return cls(source, text_dim, width)

    def with_vectors(self, vectors):
        """The same front end, which also knows these."""
        return dataclasses.replace(self, vectors={**self.vectors, **vectors})
