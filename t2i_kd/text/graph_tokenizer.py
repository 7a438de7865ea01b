"""The tokenizer's rules as TensorFlow graphs; `Tokenizer.in_graph` is the way in."""

import tensorflow as tf

UNKNOWN = 1


class GraphWords(tf.Module):
    """Words to ids through a hash table, which this module owns so that a SavedModel can keep it.

    Args:
        ids: {token in bytes: id}.
        length: tokens kept of a caption.
        separators: RE2 expression of what lies between words, after lower-casing.
    """

    def __init__(self, ids, length, separators):
        super().__init__(name="graph_words")
        self.length = length
        self.separators = separators
        # The first call may come while a function is traced; the table must outlive it.
        with tf.init_scope():
            keys = tf.constant(list(ids) or [b"[UNK]"], tf.string)
            values = tf.constant(list(ids.values()) or [UNKNOWN], tf.int64)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), UNKNOWN)

    def __call__(self, text):
        """Text, string [batch] -> int32 [batch, length]."""
        spaced = tf.strings.regex_replace(tf.strings.lower(text), self.separators, " ")
        pieces = tf.strings.split(spaced, sep=" ")
        words = tf.ragged.boolean_mask(pieces, tf.strings.length(pieces) > 0)
        ids = self.table.lookup(words)
        padded = ids.to_tensor(default_value=0, shape=(None, self.length))
        return tf.cast(padded, tf.int32)


class GraphCharacters(tf.Module):
    """Bytes to ids through a constant table of 256. Arguments and call as for `GraphWords`."""

    def __init__(self, ids, length):
        super().__init__(name="graph_characters")
        self.length = length
        self.table = [ids.get(bytes([byte]), UNKNOWN) for byte in range(256)]

    def __call__(self, text):
        """Text, string [batch] -> int32 [batch, length]."""
        codes = tf.io.decode_raw(tf.strings.lower(text), tf.uint8, fixed_length=self.length)
        ids = tf.gather(tf.constant(self.table, tf.int32), tf.cast(codes, tf.int32))
        # decode_raw fills up with zeros, and a zero byte of the caption is an unknown token.
        kept = tf.range(self.length) < tf.strings.length(text)[:, None]
        return tf.where(kept, ids, 0)
