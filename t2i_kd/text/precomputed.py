"""Captions to the vectors that Reed et al. published for them: char-CNN-RNN embeddings, one a caption.

The folder is the field's (StackGAN's `birds` and `flowers`): `train/` and `test/`, each with
`char-CNN-RNN-embeddings.pickle` (a list over images of float arrays [captions, 1024]) and `filenames.pickle`
(the images, in that order).
"""

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.text.safe_pickle import load_arrays
from t2i_kd.text.vector_front_end import VectorFrontEnd

EMBEDDINGS_FILE = "char-CNN-RNN-embeddings.pickle"
NAMES_FILE = "filenames.pickle"
SPLITS = ("train", "test")
# Two runs of one encoder on one caption differ by less than this share of the vector's length.
_SAME_CAPTION = 0.05


class PrecomputedFrontEnd(VectorFrontEnd):
    """`precomputed`: reads only captions of data sets that it was shown, by `build_front_end` or `covering`.

    A vector is found by the caption's text. That is sound although a caption may belong to many images: an embedding
    is a function of the text alone. The join goes through the images' file names and the order of their captions.
    """

    name = "precomputed"
    reads_any_text = False

    @classmethod
    def build(cls, options, dataset):
        """The front end of a training run. Raises `UserError` that names `--embeddings_dir` or the file."""
        cls.check_source(options)
        source = options.embeddings_dir
        vectors = join_captions(read_embeddings(source), dataset, source)
        return cls(source, len(next(iter(vectors.values()))), vectors)

    @classmethod
    def check_source(cls, options):
        """Raises `UserError` where `--embeddings_dir` is not given or holds no embeddings."""
        if not options.embeddings_dir:
            raise UserError(
                "--embeddings_dir: missing; --text_encoder=precomputed needs a folder with Reed's "
                f"train/{EMBEDDINGS_FILE} and test/{EMBEDDINGS_FILE}, StackGAN's `birds` or `flowers` (linked from "
                "github.com/hanzhanggit/StackGAN)"
            )
        split_folders(options.embeddings_dir)

    def features(self, captions):
        missing = next((caption for caption in captions if caption not in self.vectors), None)
        if missing is not None:
            raise UserError(f"caption: {missing[:80]!r} has no vector in --embeddings_dir={self.source}")
        rows = [self.vectors[caption] for caption in captions]
        return np.asarray(rows, np.float32).reshape(len(rows), self.embedding_dim)

    def digest(self, captions):
        return hashlib.sha256(np.ascontiguousarray(self.features(captions))).hexdigest()

    def in_graph(self, text):
        raise UserError("--text_encoder=precomputed: text cannot become a vector inside a graph")

    def in_graph_module(self):
        raise UserError("--text_encoder=precomputed: text cannot become a vector inside a graph")

    def covering(self, dataset):
        vectors = join_captions(read_embeddings(self.source), dataset, self.source)
        width = len(next(iter(vectors.values())))
        if width != self.embedding_dim:
            raise UserError(f"--embeddings_dir: {self.source} holds vectors of {width}, not {self.embedding_dim}")
        return self.with_vectors(vectors)


def split_folders(folder):
    """The folders of both splits, as far as they are there. Raises `UserError` where neither is."""
    found = [Path(folder) / split for split in SPLITS if (Path(folder) / split / EMBEDDINGS_FILE).is_file()]
    if not found:
        raise UserError(f"--embeddings_dir: {folder} has neither train/{EMBEDDINGS_FILE} nor test/{EMBEDDINGS_FILE}")
    return found


def read_embeddings(folder):
    """Reed's pickles of both splits, as far as they are there.

    Returns:
        {image's file name without ending: float32 array [captions, dim]}; the name is as the pickle has it.

    Raises:
        UserError: naming the file that is missing or does not hold that.
    """
    embeddings = {}
    for split in split_folders(folder):
        names = [_text(name) for name in _load_list(split / NAMES_FILE)]
        arrays = _load_list(split / EMBEDDINGS_FILE)
        if len(names) != len(arrays):
            raise UserError(f"{split / EMBEDDINGS_FILE}: {len(arrays)} images, but {NAMES_FILE} has {len(names)}")
        for name, array in zip(names, arrays, strict=True):
            embeddings[_key(name)] = _vectors(array, split / EMBEDDINGS_FILE)
    return embeddings


def join_captions(embeddings, dataset, source):
    """Each caption's vector, through the images' file names.

    Args:
        embeddings: of `read_embeddings`.
        dataset: `CaptionedImages` with `file_names`.
        source: the folder, for messages.

    Returns:
        {caption: float32 [dim]}.

    Raises:
        UserError: when the data set has no file names, an image is not listed or has another number of captions, or
            most captions that recur have differing vectors, so that the two orders cannot belong together.
    """
    if not dataset.file_names:
        raise UserError(f"--text_encoder=precomputed: data set {dataset.name} does not tell its images' file names")
    by_name = _by_last_part(embeddings)
    vectors, repeated, differing = {}, 0, 0
    for file_name, captions in zip(dataset.file_names, dataset.captions, strict=True):
        key = _key(_without_ending(file_name))
        rows = embeddings.get(key, by_name.get(key[-1]))
        if rows is None:
            raise UserError(f"--embeddings_dir: {source} has no vectors for image {file_name}")
        if len(rows) != len(captions):
            raise UserError(f"--embeddings_dir: {file_name} has {len(captions)} captions, but {len(rows)} vectors")
        for caption, row in zip(captions, rows, strict=True):
            known = vectors.setdefault(caption, row)
            if known is not row:
                repeated += 1
                differing += np.linalg.norm(known - row) > _SAME_CAPTION * np.linalg.norm(known)
    if differing > repeated / 2:
        raise UserError(
            f"--embeddings_dir: {source} does not follow the order of {dataset.name}'s captions: "
            f"{differing} of {repeated} recurring captions have differing vectors"
        )
    return vectors


def _load_list(path):
    values = load_arrays(path)
    if not isinstance(values, list | tuple | np.ndarray):
        raise UserError(f"{path}: not a list over images")
    return values


def _by_last_part(embeddings):
    last = {}
    for key, rows in embeddings.items():
        last[key[-1]] = None if key[-1] in last else rows
    return last


def _key(name):
    return PurePosixPath(name).parts[-2:]


def _without_ending(file_name):
    return str(PurePosixPath(file_name.replace("\\", "/")).with_suffix(""))


def _text(name):
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _vectors(array, path):
    try:
        rows = np.asarray(array, np.float32)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise UserError(f"{path}: an image's vectors are not a finite float array [captions, dim]")
    return rows
