"""Trains a student's text encoder by DS-SJE: the stage `objective=ds_sje` of every text-to-image system."""

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.teachers.catalogue import teacher_taps
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.text.front_end import TOKEN_KINDS
from t2i_kd.text.joint_embedding import build_joint_embedding, ds_sje_loss, retrieval_accuracy
from t2i_kd.training.trainer import Trainer

JOINT_EMBEDDING = "ds_sje"


class JointEmbeddingTrainer(Trainer):
    """The step of a DS-SJE stage: the text encoder learns from the teacher's features of real images.

    Args:
        encoder: the student's text encoder.
        teacher: a frozen teacher.
        tap: the teacher's tap that is averaged over its places and projected.
    """

    divides_batch = False  # each caption is compared with every image of the batch

    def __init__(self, encoder, teacher, tap):
        super().__init__(name="ds_sje")
        self.embedding = build_joint_embedding(encoder, teacher.output[tap].shape[1:])
        self.teacher = keras.Model(teacher.input, teacher.output[tap])
        self.teacher.trainable = False
        self.built = True

    def loss_terms(self, batch):
        """The symmetric structured hinge, and how often a caption finds its image in the batch."""
        tap = self.teacher(ops.cast(batch["image"], "float32"), training=False)
        inputs = {name: tap if name == "tap" else batch[name] for name in self.embedding.input}
        vectors = self.embedding(inputs, training=True)
        retrieval = retrieval_accuracy(vectors["image"], vectors["text"])
        return ds_sje_loss(vectors["image"], vectors["text"]), {"retrieval_accuracy": retrieval}


def check_joint_embedding(stage, recipe):
    """Raises `UserError` where a recipe cannot train its text encoder by DS-SJE."""
    if recipe.text.text_encoder not in TOKEN_KINDS:
        raise UserError(f"--stage {stage.name}: ds_sje needs a learned text encoder, not {recipe.text.text_encoder}")
    taps = teacher_taps(recipe.teacher, recipe.data.resolution)
    if set(taps) == {"image"} or len(resolve_tap_weights(stage.tap_weights, taps)) != 1:
        raise UserError(f"--stage {stage.name}: ds_sje needs a teacher and one tap, as in tap_weights=pool5:1")
