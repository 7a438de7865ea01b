"""Image generators that are taught by pretrained networks.

>>> import t2i_kd
>>> model = t2i_kd.load("shapes32")
>>> model.generate(["a small red circle in the top left on a white background"]).shape
(1, 32, 32, 3)

The commands are modules of the same names, which are run (`python -m t2i_kd.train`) and not imported.
"""

from t2i_kd.api import evaluate, export, load, train
from t2i_kd.errors import UserError
from t2i_kd.processors import take_onednn

take_onednn()

__all__ = ["UserError", "evaluate", "export", "load", "train"]
__version__ = "0.2.0"
