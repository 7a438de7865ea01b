"""What the package costs and gives, measured.

The package comes before TensorFlow, which asks once what `t2i_kd.processors` says to it.
"""

import t2i_kd  # noqa: F401
