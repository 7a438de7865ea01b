"""Asks an endpoint for images: `python -m t2i_kd.serve`'s or tensorflow_model_server's, by REST or by gRPC.

with Client("http://localhost:8501", "shapes32") as client:
    client.generate(["a small red circle"])[0].save("circle.png")
with Client("http://localhost:8501", "photo2map") as client:
    client.generate([Path("photo.jpg").read_bytes()])[0].save("map.png")
"""

import functools
import io
import os
from collections.abc import Iterable
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from t2i_kd.data.decoding import check_size, upright_rgb
from t2i_kd.imaging import encode_png
from t2i_kd.serving.client_answers import ServingError
from t2i_kd.serving.errors import INTERNAL
from t2i_kd.serving.grpc_client import GrpcProtocol
from t2i_kd.serving.rest_client import RestProtocol


class Client:
    """One model behind an endpoint; may be shared by threads, and used in processes that are forked from its own.

    No connection and no thread outlives a fork: each process opens its own when it first asks.

    What is tried again: connecting, and nothing else. An image depends on its item and seed alone, so that asking
    twice would do no harm to the answer; but a request that was sent may be at work, and to send it again after a
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
        protocol.prepare()
        self._make = functools.partial(protocol, parts, model_name, version, label, timeout, connect_retries)
        # By process. What a fork inherits stays here untouched: to close it could wait for threads that are gone.
        self._protocols = {}

    @property
    def _protocol(self):
        """That of this process."""
        process = os.getpid()
        if process not in self._protocols:
            made = self._make()
            # Two threads may have come at once.
            if self._protocols.setdefault(process, made) is not made:
                made.close()
        return self._protocols[process]

    def generate(self, items, seeds=None):
        """Generates an image of each item.

        Args:
            items: at least one, all captions (str), or all images: a file's bytes (JPEG, PNG, GIF or BMP), a
                `PIL.Image.Image`, or an array uint8 [height, width, 3]. The last two are sent as PNG.
            seeds: as many integers of 64 bits; all 0 without.

        Returns:
            A list of `PIL.Image.Image`, RGB.

        Raises:
            ServingError: when there is no answer, or it is an error, or not an image for every item.
            ValueError: when items or seeds are not what is asked for here.
        """
        return [_decoded(row, png) for row, png in enumerate(self.generate_png(items, seeds))]

    def generate_png(self, items, seeds=None):
        """`generate` without decoding: a list of each PNG's bytes, as the server sent them."""
        name, items = _checked_items(items)
        if seeds is None:
            pngs = self._protocol.predict("serving_default", name, items, None)
        else:
            pngs = self._protocol.predict("seeded", name, items, _checked_seeds(seeds, len(items)))
        if len(pngs) != len(items):
            raise ServingError(INTERNAL, f"the answer has {len(pngs)} images for {len(items)} items")
        return pngs

    def statuses(self):
        """[`VersionStatus`] of the model. Raises `ServingError`."""
        return self._protocol.statuses()

    def signatures(self):
        """{signature: (sorted input names, sorted output names)} of the version. Raises `ServingError`."""
        return self._protocol.signatures()

    def close(self):
        """Closes this process's connections."""
        if os.getpid() in self._protocols:
            self._protocols.pop(os.getpid()).close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _checked_items(items):
    """(the signatures' input, what is sent: strings for captions, bytes for images)."""
    if isinstance(items, str | bytes | Image.Image) or not isinstance(items, Iterable):
        raise ValueError("items: a list of captions or of images is needed")
    items = list(items)
    if items and all(isinstance(item, str) for item in items):
        return "text", items
    if not items or any(isinstance(item, str) for item in items):
        raise ValueError("items: at least one is needed, and either captions or images")
    return "image_bytes", [_encoded(item) for item in items]


def _encoded(item):
    if isinstance(item, bytes):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3:
        item = Image.fromarray(item)
    if not isinstance(item, Image.Image):
        raise ValueError(
            f"items: {str(item)[:80]!r} is no caption, file's bytes, PIL image or uint8 [height, width, 3]"
        )
    return encode_png(upright_rgb(item))


def _checked_seeds(seeds, count):
    seeds = list(seeds)
    if len(seeds) != count:
        raise ValueError(f"{count} items for {len(seeds)} seeds")
    for seed in seeds:
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not -(2**63) <= seed < 2**63:
            raise ValueError(f"seeds: {seed!r} is not an integer of 64 bits")
    return [int(seed) for seed in seeds]


def _decoded(row, png):
    try:
        with Image.open(io.BytesIO(png)) as image:
            check_size(*image.size)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ServingError(INTERNAL, f"image {row} of the answer cannot be read: {error}") from None
