"""HTTP/1.1 headers without the liberties that h11 allows, in each of which a proxy may see another request."""

import re

from h11 import LocalProtocolError
from h11._receivebuffer import ReceiveBuffer

END = b"\r\n\r\n"
BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
LENGTH = re.compile(rb"[ \t]*[0-9]{1,18}[ \t]*")


class StrictBuffer(ReceiveBuffer):
    """What a connection has received; headers and trailers are read from it.

    h11 takes lines without a carriage return, headers that go on on the next line, a length that is given twice, and a
    length beside `Transfer-Encoding`. It turns an error that is raised here into the end of the connection.
    """

    def maybe_extract_lines(self):
        """The lines up to the first empty one, without their ends; None while there is none."""
        if self._data[:2] == b"\r\n":
            self._extract(2)
            return []
        end = self._data.find(END)
        if BARE.search(self._data, 0, len(self._data) if end < 0 else end + len(END)):
            raise LocalProtocolError("a line of the header does not end with CR LF")
        if end < 0:
            return None
        lines = self._extract(end + len(END)).split(b"\r\n")[:-2]
        _check_framing(lines[0], lines[1:])
        return lines


def _check_framing(first, headers):
    lengths, encodings = [], []
    for line in headers:
        name, _, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            raise LocalProtocolError("a header goes on on the next line")
        {b"content-length": lengths, b"transfer-encoding": encodings}.get(bytes(name).lower(), []).append(value)
    if len(lengths) > 1:
        raise LocalProtocolError("Content-Length is given twice")
    if lengths and not LENGTH.fullmatch(lengths[0]):
        raise LocalProtocolError("Content-Length is not a number")
    if encodings and (lengths or first.endswith(b"HTTP/1.0")):
        raise LocalProtocolError("Transfer-Encoding beside a Content-Length, or in HTTP/1.0")
