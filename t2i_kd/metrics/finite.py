"""Networks that give NaN: one line that says whose, instead of a metric of nothing."""

import numpy as np

from t2i_kd.errors import UserError


def require_finite(who, what, values):
    """The values, float of any shape.

    Pictures are bytes, so that whatever is not finite comes from the weights of the network that reads them.

    Raises:
        UserError: for NaN or infinity, saying who gave them and what they are.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{who}: {what} hold NaN or infinity; the network's weights are broken")
    return values
