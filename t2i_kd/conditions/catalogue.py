"""The conditions by name, and the way from a folder to the one that it describes."""

from pathlib import Path

from t2i_kd.conditions.base import CONDITION_FILE, FORMAT_VERSION
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.files import read_json

CONDITIONS = {kind.kind: kind for kind in (CaptionCondition, ImageCondition)}


def load_condition(folder):
    """The condition that `Condition.save` described in a folder.

    Raises:
        UserError: naming the file that is missing or wrong.
    """
    path = Path(folder) / CONDITION_FILE
    if not path.exists():
        raise UserError(
            f"{path}: missing; it belongs to every student of this version of t2i_kd. Use an older student with the "
            "version that made it, or train and export it again"
        )
    described = read_json(path)
    if not isinstance(described, dict) or described.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path}: not a condition of format {FORMAT_VERSION}")
    if described.get("kind") not in tuple(CONDITIONS):
        raise UserError(f"{path}: kind {described.get('kind')!r} is none of {', '.join(CONDITIONS)}")
    try:
        return CONDITIONS[described["kind"]].load(folder, described)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: wrong or incomplete: {error!r}") from None
