"""What a version's signatures take and give by its manifest and its condition, and whether that is so."""

import io
import json
import re

from PIL import Image

from t2i_kd.errors import UserError
from t2i_kd.serving.signature import DEFAULT_SIGNATURE, STRING

COARSE = re.compile(r"pixels_([1-9][0-9]{0,4})")


class Contract:
    """The signatures that `exporting.saved_model` writes of a student that a manifest describes.

    Args:
        where: the beginning of an error's words.
        manifest: from `read_manifest`.
        condition: the `Condition` of the version's own files.

    Raises:
        UserError: when the manifest and the condition differ.
    """

    def __init__(self, where, manifest, condition):
        import tensorflow as tf

        if json.loads(json.dumps(condition.describe())) != manifest["condition"]:
            raise UserError(f"{where}: its manifest describes another condition than its condition.json")
        self._where, side = where, manifest["resolution"]
        strings = tf.TensorSpec([None], tf.string)
        takes_seed = condition.kind == "caption" or manifest["noise_dim"]
        self._seed = {"seed": tf.TensorSpec([None], tf.int64)} if takes_seed else {}
        self._core = {condition.core: condition.core_spec()} | self._seed
        request = {condition.request: strings}
        # {signature: (inputs, outputs, side of its images)}
        self._wanted = {DEFAULT_SIGNATURE: (request, {"image_bytes": strings}, side), "pixels": self._pixels(side)}
        if takes_seed:
            self._wanted["seeded"] = (request | self._seed, {"image_bytes": strings}, side)

    def check_signatures(self, found):
        """Compares the signatures; those of which no manifest knows are left alone.

        Args:
            found: {signature: (inputs, outputs)}, each {name: `tf.TensorSpec`}.

        Raises:
            UserError: naming a signature, or its input or output, that is missing, too many, or of another dtype or
                shape.
        """
        for name in found:
            if coarse := COARSE.fullmatch(name):
                self._wanted[name] = self._pixels(int(coarse[1]))
        for name, (inputs, outputs, _) in self._wanted.items():
            if name not in found:
                known = ", ".join(sorted(found)) or "none"
                raise UserError(f"{self._where}: has no signature {name}; it has {known}")
            self._compare(f"signature {name} takes", found[name][0], inputs)
            self._compare(f"signature {name} gives", found[name][1], outputs)

    def check_outputs(self, name, outputs):
        """Looks at answers themselves: a signature may leave their shape open, and a string may hold anything.

        Args:
            name: of the signature.
            outputs: {name: array [batch, ...]}.

        Raises:
            UserError: naming an output that is no image of the signature's side.
        """
        if name not in self._wanted:
            return
        side = self._wanted[name][2]
        for output, values in outputs.items():
            for row in values:
                found = _png(row) if values.dtype == STRING else f"{row.dtype} {list(row.shape)}"
                wanted = f"PNG RGB [{side}, {side}]" if values.dtype == STRING else f"uint8 [{side}, {side}, 3]"
                if found != wanted:
                    raise UserError(f"{self._where}: signature {name}: {output} is {found}, by its manifest {wanted}")

    def _pixels(self, side):
        import tensorflow as tf

        return self._core, {"image": tf.TensorSpec([None, side, side, 3], tf.uint8)}, side

    def _compare(self, what, found, wanted):
        for name in sorted(found.keys() | wanted.keys()):
            if not (name in found and name in wanted and wanted[name].is_compatible_with(found[name])):
                shown, should = (_words(name, specs) for specs in (found, wanted))
                raise UserError(f"{self._where}: {what} {shown}, by its manifest {should}")


def _words(name, specs):
    return f"{name} as {specs[name].dtype.name} {specs[name].shape}" if name in specs else f"no {name}"


def _png(data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f"{image.format} {image.mode} [{image.height}, {image.width}]"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "no image"
