"""Encoded images to pixels inside a TensorFlow graph, as `t2i_kd.data.decoding` does it outside."""

import tensorflow as tf

# A photo's Exif data stand at its beginning.
SEARCHED_BYTES = 65536
# The entry of an image file directory that holds the orientation (tag 0x0112, one SHORT), up to its value.
BIG_ENDIAN = (0x01, 0x12, 0x00, 0x03, 0x00, 0x00, 0x00, 0x01, 0x00)
LITTLE_ENDIAN = (0x12, 0x01, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00)


def decode(encoded):
    """A JPEG or PNG to an upright RGB image.

    What is transparent is laid on white, and the image is turned as its Exif orientation says, if that stands in the
    first 64 KiB.

    Args:
        encoded: string scalar.

    Returns:
        uint8 [height, width, 3].
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")
    # The accurate transform is the one that Pillow uses.
    image = tf.cond(
        is_png,
        lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
    )
    return _upright(image, _orientation(encoded))


def _on_white(image):
    """uint8 RGBA to RGB: c a / 255 + 255 - a, rounded to the nearest whole number."""
    colour, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
    product = colour * alpha + 255 * (255 - alpha)
    return tf.cast((product + 127) // 255, tf.uint8)


def _orientation(encoded):
    """The Exif orientation, int32 1 to 8; 1 where there is none."""
    data = tf.io.decode_raw(tf.strings.substr(encoded, 0, SEARCHED_BYTES), tf.uint8)
    found = tf.maximum(_value_after(data, BIG_ENDIAN), _value_after(data, LITTLE_ENDIAN))
    return tf.where((found >= 1) & (found <= 8), found, 1)


def _value_after(data, pattern):
    """The byte after the first place where the pattern stands, int32; 0 where it stands nowhere."""
    count = tf.maximum(tf.size(data) - len(pattern), 0)
    matches = tf.ones(tf.reshape(count, [1]), tf.bool)
    for offset, byte in enumerate(pattern):
        matches &= tf.equal(data[offset : offset + count], tf.constant(byte, tf.uint8))
    places = tf.where(matches)[:, 0]
    value = tf.cond(tf.size(places) > 0, lambda: data[places[0] + len(pattern)], lambda: tf.constant(0, tf.uint8))
    return tf.cast(value, tf.int32)


def _upright(image, orientation):
    """An image turned as orientation 1 to 8 of the Exif standard says."""
    transposed = tf.transpose(image, (1, 0, 2))
    turned = [
        lambda: image,
        lambda: image[:, ::-1],
        lambda: image[::-1, ::-1],
        lambda: image[::-1],
        lambda: transposed,
        lambda: transposed[:, ::-1],
        lambda: transposed[::-1, ::-1],
        lambda: transposed[::-1],
    ]
    return tf.ensure_shape(tf.switch_case(orientation - 1, turned), (None, None, 3))
