"""A progress bar for the evaluators that an evaluation trains."""

import keras
from tqdm import tqdm


class TrainingBar(keras.callbacks.Callback):
    """Shows the steps of a `fit`, once it takes longer than some seconds. Args: what: is trained; steps: of the fit."""

    def __init__(self, what, steps):
        super().__init__()
        self.bar = tqdm(total=steps, desc=f"training the {what}", unit="step", delay=5, leave=False, disable=None)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_train_end(self, logs=None):
        self.bar.close()
