"""What the endpoint is given at its start, and the bounds that keep it small."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from t2i_kd.conditions.base import Limits
from t2i_kd.errors import UserError
from t2i_kd.processors import usable_cores

MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]+")
MOST_THREADS = 1024
LARGEST_NUMBER = 2**31 - 1
LONGEST_SECONDS = 24 * 60 * 60
OF_THE_MODEL = {limit.name for limit in fields(Limits)}
HOST = re.compile(r"\*|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|[A-Za-z0-9_-][A-Za-z0-9_.-]*")
LABEL = re.compile(r"([A-Za-z0-9_.-]+):([0-9]{1,18})")


@dataclass(frozen=True)
class Settings:
    """The endpoint's settings; each has the name of the flag that sets it, see `t2i_kd.serve`.

    Those of `requests.Limits` are 0 until `with_limits` puts the model's own in their place.
    """

    model_name: str
    model_base_path: str
    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    allowed_hosts: tuple[str, ...] = ()
    version_labels: Mapping[str, int] = field(default_factory=dict)
    max_batch_size: int = 32
    # Not 1: matrix products of a single row are summed in another order, and a pixel could round to its neighbour.
    allowed_batch_sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    batch_timeout_micros: int = 0
    # While one of them reads or writes in Python, the other keeps the cores busy.
    num_batch_threads: int = 2
    tensorflow_intra_op_parallelism: int = 0
    file_system_poll_wait_seconds: float = 1.0
    load_timeout_seconds: float = 600.0
    max_items_per_request: int = 0
    max_item_bytes: int = 0
    max_body_bytes: int = 0
    max_pending_items: int = 0
    max_connections: int = 0
    read_timeout_seconds: float = 10.0
    request_timeout_seconds: float = 30.0
    shutdown_timeout_seconds: float = 20.0

    def __post_init__(self):
        if not MODEL_NAME.fullmatch(self.model_name):
            raise UserError(f"--model_name: {self.model_name!r} is not made of letters, digits, '_', '.' and '-'")
        if not self.model_base_path:
            raise UserError("--model_base_path: missing; give the folder that holds the version folders")
        for name in ("port", "rest_api_port"):
            if not 0 <= getattr(self, name) < 1 << 16:
                raise UserError(f"--{name}: {getattr(self, name)} is not a port")
        if not self.port and not self.rest_api_port:
            raise UserError("--port and --rest_api_port: both are 0, so nothing would be served; give one of them")
        if self.port == self.rest_api_port:
            raise UserError(f"--rest_api_port: {self.rest_api_port} is also --port; each protocol needs its own")
        if not 0 <= self.batch_timeout_micros <= LONGEST_SECONDS * 10**6:
            raise UserError(f"--batch_timeout_micros: {self.batch_timeout_micros} is negative or more than a day")
        for name, least in (("num_batch_threads", 1), ("tensorflow_intra_op_parallelism", 0)):
            if not least <= getattr(self, name) <= MOST_THREADS:
                raise UserError(f"--{name}: {getattr(self, name)} is not between {least} and {MOST_THREADS}")
        _require_positive("max_batch_size", self.max_batch_size, LARGEST_NUMBER)
        for name, value in vars(self).items():
            if name in OF_THE_MODEL:
                if not 0 <= value <= LARGEST_NUMBER:
                    raise UserError(f"--{name}: {value} is not between 0, the model's own limit, and {LARGEST_NUMBER}")
            elif name.endswith("_seconds"):
                _require_positive(name, value, LONGEST_SECONDS)
        sizes = self.allowed_batch_sizes
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size:
            raise UserError(
                f"--allowed_batch_sizes: {','.join(map(str, sizes))} must be growing positive numbers of which the "
                f"last is --max_batch_size, {self.max_batch_size}"
            )

    def with_limits(self, limits):
        """These settings with the values of a `requests.Limits` wherever they are 0."""
        return replace(self, **{name: getattr(self, name) or getattr(limits, name) for name in OF_THE_MODEL})

    @property
    def threads(self):
        """Of one TensorFlow operation: by default the cores divided among the batches that run at once."""
        return self.tensorflow_intra_op_parallelism or max(1, usable_cores() // self.num_batch_threads)

    def address(self, port):
        """--host and a port as one word."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def parse_sizes(text):
    """`"2,4,8"` as (2, 4, 8). Raises `UserError` that names the flag."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise UserError(f"--allowed_batch_sizes: {text!r} is not numbers with commas between") from None


def parse_hosts(text):
    """`"a.example,[::1]"` as ("a.example", "::1"). Raises `UserError` that names the flag."""
    hosts = tuple(host.strip() for host in text.split(",")) if text else ()
    for host in hosts:
        if not HOST.fullmatch(host):
            raise UserError(f"--allowed_hosts: {host!r} is no host's name or address without a port, and not '*'")
    return tuple(host.strip("[]").lower() for host in hosts)


def parse_labels(values):
    """`["stable:1"]` as {"stable": 1}. Raises `UserError` that names the flag."""
    labels = {}
    for value in values:
        match = LABEL.fullmatch(value)
        if not match:
            raise UserError(f"--version_label: {value!r} does not have the form LABEL:VERSION")
        if match[1] in labels:
            raise UserError(f"--version_label: {match[1]!r} is given twice")
        labels[match[1]] = int(match[2])
    return labels


def _require_positive(name, value, most):
    # Not-a-number is neither more nor less than anything.
    if not 0 < value <= most:
        raise UserError(f"--{name}: {value} is not a positive number of at most {most}")
