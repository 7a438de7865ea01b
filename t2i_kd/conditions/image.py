"""An image as the condition: a picture in, the same picture at the student's side out."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from t2i_kd.conditions.base import Condition, Input, Limits
from t2i_kd.conditions.resizing import resize_square, resize_square_in_graph
from t2i_kd.data.decoding import MAX_PIXELS, decode, readable_formats, upright_rgb, without_text
from t2i_kd.errors import UserError
from t2i_kd.files import LARGEST_PICTURE, read_bytes
from t2i_kd.imaging import encode_png

SOURCE = "source"
ITEMS_FOLDER = "source_images"
ORIENTATION = 0x0112
READ = ("JPEG", "PNG")
# Of a student's input, in pixels.
LARGEST_SIDE = 4096
# What is only recognised in a request, so that it can be refused by its name.
RECOGNISED = ("GIF", "BMP", "WEBP", "TIFF", "JPEG2000")
# What a graph decodes: the format, and the modes in which it and Pillow agree on every pixel. A camera's JPEG that
# holds a preview too is an MPO to Pillow.
IN_GRAPH = {"JPEG": ("RGB", "L"), "MPO": ("RGB", "L"), "PNG": ("RGB", "RGBA", "L", "LA", "P")}
# Where a PNG's file says how many bits a channel has; TensorFlow reads fewer than 8 of grey or palettes wrongly.
PNG_DEPTH = 24


@dataclass(frozen=True)
class ImageCondition(Condition):
    """Images, cut to their centred square and resized to a side. Items are encoded images (bytes), uint8 RGB arrays
    [height, width, 3], or `PIL.Image`s.

    Attributes:
        side: of the student's `source` input, float32 [batch, side, side, 3] in 0-255.
    """

    side: int

    kind = "image"
    request = "image_bytes"
    core = "image"
    limits = Limits(16 << 20, 32 << 20, 16, 64, 64)
    quick = False

    @property
    def inputs(self):
        return {SOURCE: Input((self.side, self.side, 3), "float32")}

    @staticmethod
    def check_request(data):
        """See `Condition`; a JPEG or PNG of which the graph would read other pixels is encoded anew."""
        try:
            with Image.open(io.BytesIO(without_text(data)), formats=(*READ, *RECOGNISED)) as image:
                if image.format not in IN_GRAPH:
                    raise UserError(f"image: {image.format} is not read; give a JPEG or PNG")
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"image: {image.width} x {image.height} pixels, more than the {MAX_PIXELS} allowed")
                image.load()
                return data if _graph_reads(image, data) else encode_png(np.asarray(decode(data)))
        except UserError:
            raise
        except UnidentifiedImageError:
            raise UserError("image: not a JPEG or PNG") from None
        except Exception as error:  # Pillow's decoders share no base class of their errors.
            raise UserError(f"image: cannot be decoded: {str(error)[:200]}") from None

    def check(self, item):
        self.pixels(item)
        return item

    def arrays(self, items):
        return {SOURCE: np.stack([resize_square(self.pixels(item), self.side) for item in items])}

    def encode(self, items):
        return [self._encoded(item) for item in items]

    def in_graph(self, requests):
        import tensorflow as tf

        from t2i_kd.conditions.decoding_in_graph import decode as decode_in_graph

        signature = tf.TensorSpec((self.side, self.side, 3), tf.float32)
        images = tf.map_fn(
            lambda each: resize_square_in_graph(decode_in_graph(each), self.side),
            requests,
            fn_output_signature=signature,
        )
        return {SOURCE: images}

    def core_spec(self):
        import tensorflow as tf

        return tf.TensorSpec([None, self.side, self.side, 3], tf.uint8, name=self.core)

    def core_values(self, items):
        return self.arrays(items)[SOURCE].astype(np.uint8)

    def core_in_graph(self, values):
        import tensorflow as tf

        return {SOURCE: tf.cast(values, tf.float32)}

    def label(self, item):
        return ""

    def awkward_items(self):
        """A tall and a wide image of other sides than the student's, one of one colour, one of noise."""
        rng = np.random.default_rng(0)
        side = self.side
        ramp = np.linspace(0, 255, side + 7).astype(np.uint8)
        return [
            np.broadcast_to(ramp[:, None, None], (side + 7, side // 2 + 3, 3)).copy(),
            np.broadcast_to(ramp[None, :, None], (side // 2 + 3, side + 7, 3)).copy(),
            np.full((side, side, 3), 255, np.uint8),
            rng.integers(0, 256, (2 * side, 2 * side, 3), np.uint8),
        ]

    def save_items(self, items, folder):
        target = Path(folder) / ITEMS_FOLDER
        target.mkdir(parents=True, exist_ok=True)
        for index, item in enumerate(items):
            (target / f"{index:04d}.png").write_bytes(encode_png(self.core_values([item])[0]))

    def load_items(self, folder):
        paths = sorted((Path(folder) / ITEMS_FOLDER).glob("*.png"))
        if not paths:
            raise UserError(f"{Path(folder) / ITEMS_FOLDER}: holds no image")
        return [read_bytes(path, LARGEST_PICTURE) for path in paths]

    def describe(self):
        return self._described(formats=list(READ))

    @classmethod
    def load(cls, folder, described):
        """The condition of `describe()`'s values."""
        height, width, channels = described["inputs"][SOURCE]["shape"]
        if height != width or channels != 3 or type(height) is not int or not 1 <= height <= LARGEST_SIDE:
            raise UserError(
                f"{folder}: condition.json: {SOURCE} is not a square of three channels and 1 to {LARGEST_SIDE:,} pixels"
            )
        return cls(height)

    @staticmethod
    def pixels(item):
        """An item as it is, uint8 RGB [height, width, 3]. Raises `UserError` with the reason."""
        if isinstance(item, bytes):
            try:
                item = decode(item)
            except UserError as error:
                raise UserError(f"image: {error}") from None
        if isinstance(item, Image.Image):
            item = np.asarray(upright_rgb(item))
        if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise UserError("image: neither an encoded image nor a uint8 array [height, width, 3]")
        if not item.size or item.shape[0] * item.shape[1] > MAX_PIXELS:
            raise UserError(f"image: {item.shape[0]} x {item.shape[1]} pixels; 1 to {MAX_PIXELS:,} are allowed")
        return item

    def _encoded(self, item):
        """An item as bytes that the graph decodes to the same pixels."""
        if isinstance(item, bytes):
            try:
                with Image.open(io.BytesIO(without_text(item)), formats=readable_formats()) as image:
                    if _graph_reads(image, item):
                        return item
            except (OSError, Image.DecompressionBombError):
                pass  # `pixels` says what is wrong
        return encode_png(self.pixels(item))


def _graph_reads(image, data):
    """Whether a graph reads the same pixels as Pillow, which opened `image` from `data`."""
    # In a PNG the orientation may stand behind the pixels, where the graph does not look.
    turned = image.getexif().get(ORIENTATION, 1) != 1
    plain = image.format != "PNG" or (data[PNG_DEPTH] == 8 and not turned)
    # A graph knows no colour profiles.
    plain = plain and not image.info.get("icc_profile")
    return image.mode in IN_GRAPH.get(image.format, ()) and plain
