"""Asks an endpoint for pictures: `python -m t2i_kd.serve`'s or tensorflow_model_server's, by REST or by gRPC.

with Client("http://localhost:8501", "shapes32") as client:
    client.generate(["a small red circle"])[0].save("circle.png")
"""

import io
from urllib.parse import urlsplit

from PIL import Image

from t2i_kd.serving.answers import ServingError
from t2i_kd.serving.errors import INTERNAL
from t2i_kd.serving.grpc_client import GrpcProtocol
from t2i_kd.serving.rest_client import RestProtocol


class Client:
    """One model behind an endpoint; may be shared by threads.

    What is tried again: connecting, and nothing else. A picture depends on caption and seed alone, so that asking
    twice would do no harm to the answer; but a request that was sent may be being drawn, and to send it again after a
    timeout, a broken connection or "too busy" is what keeps an overloaded server overloaded. That is left to the
    caller, who sees `ServingError.code`.

    Args:
        address: "http://HOST:PORT" or "https://HOST[:PORT]" for REST, "grpc://HOST:PORT" for gRPC.
        model_name: the endpoint's --model_name.
        version, label: at most one of them: a version's number or its label; the newest version without.
        timeout: seconds that a call may take, connecting and reading the whole answer included.
        connect_retries: how often connecting is tried again, with growing pauses.

    Raises:
        ValueError: for another kind of address, or a version and a label.
    """

    def __init__(self, address, model_name, *, version=None, label=None, timeout=30.0, connect_retries=2):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or parts.path.strip("/"):
            raise ValueError(f"{address!r} is none of http://HOST:PORT, https://HOST and grpc://HOST:PORT")
        if version is not None and label is not None:
            raise ValueError("give a version or a label, not both")
        protocol = GrpcProtocol if parts.scheme == "grpc" else RestProtocol
        self._protocol = protocol(parts, model_name, version, label, timeout, connect_retries)

    def generate(self, captions, seeds=None):
        """Draws captions.

        Args:
            captions: strings, at least one.
            seeds: as many integers of 64 bits; all 0 without.

        Returns:
            A list of `PIL.Image.Image`, RGB.

        Raises:
            ServingError: when there is no answer, or it is an error, or not a picture for every caption.
            ValueError: when captions or seeds are not what is asked for here.
        """
        return [_picture(row, png) for row, png in enumerate(self.generate_png(captions, seeds))]

    def generate_png(self, captions, seeds=None):
        """`generate` without decoding: a list of each PNG's bytes, as the server sent them."""
        captions = [] if isinstance(captions, str) else list(captions)
        if not captions or not all(isinstance(caption, str) for caption in captions):
            raise ValueError("captions: a list of at least one string is needed")
        if seeds is None:
            pngs = self._protocol.predict("serving_default", captions, None)
        else:
            pngs = self._protocol.predict("seeded", captions, _checked_seeds(seeds, len(captions)))
        if len(pngs) != len(captions):
            raise ServingError(INTERNAL, f"the answer has {len(pngs)} pictures for {len(captions)} captions")
        return pngs

    def statuses(self):
        """[`VersionStatus`] of the model. Raises `ServingError`."""
        return self._protocol.statuses()

    def signatures(self):
        """{signature: (sorted input names, sorted output names)} of the version. Raises `ServingError`."""
        return self._protocol.signatures()

    def close(self):
        """Closes the connections."""
        self._protocol.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _checked_seeds(seeds, count):
    seeds = list(seeds)
    if len(seeds) != count:
        raise ValueError(f"{count} captions for {len(seeds)} seeds")
    for seed in seeds:
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not -(2**63) <= seed < 2**63:
            raise ValueError(f"seeds: {seed!r} is not an integer of 64 bits")
    return [int(seed) for seed in seeds]


def _picture(row, png):
    try:
        return Image.open(io.BytesIO(png)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ServingError(INTERNAL, f"picture {row} of the answer cannot be read: {error}") from None
