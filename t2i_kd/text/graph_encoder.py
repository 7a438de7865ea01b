"""A loaded TF-Hub sentence encoder behind one call; `hub` is the way in."""

import tensorflow as tf

from t2i_kd.errors import UserError

_OUTPUTS = ("default", "outputs", "output_0")


def signature_of(loaded):
    """The signature of a loaded module that has one: `default`, else `serving_default`, else None."""
    signatures = getattr(loaded, "signatures", {})
    return signatures["default"] if "default" in signatures else signatures.get("serving_default")


def call_loaded(loaded, batch):
    """The vectors, float32 [batch, dim], that a module of `hub.load` gives for a batch: called, or by signature."""
    if callable(loaded):
        output = loaded(batch)
    else:
        signature = signature_of(loaded)
        (name,) = signature.structured_input_signature[1]
        output = signature(**{name: batch})
    if isinstance(output, dict):
        names = [name for name in _OUTPUTS if name in output] or list(output)
        output = output[names[0]]
    return tf.cast(output, tf.float32)


class GraphEncoder(tf.Module):
    """Strings to vectors, eagerly or in a graph. It owns the loaded module, so that an export can keep its variables.

    Args:
        loaded: of `hub.load`: callable on strings, or with a signature `default` or `serving_default`.
        handle: where it came from, for messages.
        flag: which gave the handle, for messages.

    Attributes:
        dim: width of a vector.

    Raises:
        UserError: naming the flag, when it does not take strings or give float vectors.
    """

    def __init__(self, loaded, handle, flag="hub_handle"):
        super().__init__(name="graph_encoder")
        self.loaded = loaded
        self.handle, self.flag = handle, flag
        try:
            output = self(tf.constant(["a", "b"]))
        except Exception as error:
            raise self._not_an_encoder(str(error)) from None
        if output.shape.rank != 2 or output.shape[0] != 2:
            raise self._not_an_encoder(f"it gives shape {output.shape}")
        self.dim = output.shape[1]

    def __call__(self, text):
        """Text, string [batch] -> float32 [batch, dim]."""
        return call_loaded(self.loaded, text)

    def _not_an_encoder(self, reason):
        reason = " ".join(reason.split())[:200]
        return UserError(f"--{self.flag}: {self.handle} is no encoder from strings to vectors: {reason}")
