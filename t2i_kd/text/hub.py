"""Captions to vectors by a TF-Hub sentence encoder: any module from strings [batch] to floats [batch, dim]."""

import functools
import hashlib
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.text.vector_front_end import VectorFrontEnd
from t2i_kd.trust import check_handle, trust_handle

_CAPTIONS_AT_ONCE = 256


class HubFrontEnd(VectorFrontEnd):
    """`hub`: the module runs eagerly for training, where each caption's vector is kept, and in the exported graph.

    The module is loaded when it is first needed: a student that reads vectors can be loaded without it. A handle that
    a trained student's files name is loaded only where the user names it too, see `t2i_kd.trust`.
    """

    name = "hub"

    @classmethod
    def build(cls, options, dataset):
        """The front end of a training run; all its captions are embedded once. Raises `UserError` (`--hub_handle`)."""
        return cls(options.hub_handle, cls.check_source(options).dim).covering(dataset)

    @classmethod
    def check_source(cls, options):
        """The module of `--hub_handle`. Raises `UserError` where it is not given or cannot be loaded."""
        if not options.hub_handle:
            raise UserError("--hub_handle: --text_encoder=hub needs a TF-Hub handle or the folder of a saved encoder")
        trust_handle(options.hub_handle)
        return load_module(options.hub_handle)

    @functools.cached_property
    def _module(self):
        check_handle(self.source)
        module = load_module(self.source)
        if module.dim != self.embedding_dim:
            raise UserError(f"--hub_handle: {self.source} gives vectors of {module.dim}, not {self.embedding_dim}")
        return module

    def features(self, captions):
        unknown = list(dict.fromkeys(caption for caption in captions if caption not in self.vectors))
        vectors = {**self.vectors, **self._embed(unknown)} if unknown else self.vectors
        rows = [vectors[caption] for caption in captions]
        return np.asarray(rows, np.float32).reshape(len(rows), self.embedding_dim)

    def digest(self, captions):
        """Of the module's files where it is a folder, else of its handle; vectors' last bits differ by machine."""
        folder = Path(self.source)
        files = sorted(each for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else []
        sha256 = hashlib.sha256(b"" if files else self.source.encode())
        for path in files:
            sha256.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: sha256)
        return sha256.hexdigest()

    def in_graph(self, text):
        return self._module(text)

    def in_graph_module(self):
        return self._module

    def covering(self, dataset):
        captions = [caption for caption in dict.fromkeys(dataset.all_captions) if caption not in self.vectors]
        return self.with_vectors(self._embed(captions))

    def _embed(self, captions):
        """{caption: float32 [dim]}, computed a few hundred captions at once."""
        import tensorflow as tf

        vectors = {}
        for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
            some = captions[start : start + _CAPTIONS_AT_ONCE]
            vectors.update(zip(some, self._module(tf.constant(some)).numpy(), strict=True))
        return vectors


@functools.lru_cache(maxsize=1)
def load_module(handle, flag="hub_handle"):
    """A TF-Hub sentence encoder as a `tf.Module` from string [batch] to float32 [batch, dim].

    Args:
        handle: a TF-Hub handle, or a folder with `saved_model.pb`.
        flag: which gave it, for messages.

    Raises:
        UserError: naming the flag, when it cannot be loaded or is no sentence encoder.
    """
    loaded = load_handle(handle, flag)
    from t2i_kd.text.graph_encoder import GraphEncoder

    return GraphEncoder(loaded, handle, flag)


def load_handle(handle, flag):
    """What `tensorflow_hub.load` gives for a handle or a folder. Raises `UserError` that names the flag."""
    try:
        # tensorflow-hub 0.16 imports pkg_resources, which setuptools 82 no longer has.
        import tensorflow_hub
    except ImportError as error:
        raise UserError(f"--{flag}: needs tensorflow-hub and setuptools<82: {error}") from None
    try:
        return tensorflow_hub.load(handle)
    # Whatever stops the download or the loading: the network, the disk, TensorFlow.
    except Exception as error:
        raise UserError(
            f"--{flag}: cannot load {handle} ({' '.join(str(error).split())[:200]}); "
            "offline, download and unpack it elsewhere and give the folder that holds saved_model.pb"
        ) from None
