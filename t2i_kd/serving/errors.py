"""What a request can be answered with instead of images, in gRPC's words and in HTTP's."""

INVALID_ARGUMENT = "INVALID_ARGUMENT"
NOT_FOUND = "NOT_FOUND"
PERMISSION_DENIED = "PERMISSION_DENIED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
UNAVAILABLE = "UNAVAILABLE"
UNIMPLEMENTED = "UNIMPLEMENTED"
INTERNAL = "INTERNAL"

HTTP_STATUS = {
    INVALID_ARGUMENT: 400,
    NOT_FOUND: 404,
    PERMISSION_DENIED: 403,
    DEADLINE_EXCEEDED: 504,
    UNAVAILABLE: 503,
    UNIMPLEMENTED: 501,
    INTERNAL: 500,
}


class RequestError(Exception):
    """A request that is not answered with images.

    Args:
        code: one of this module's codes, which are gRPC's names.
        message: one line for whoever sent the request; it names no file of this host.
        http_status: where REST has a finer one than the code's.
    """

    def __init__(self, code, message, http_status=None):
        # JSON can spell a lone surrogate, and what the client said may be quoted; no answer can hold one.
        message = message.encode("utf-8", "backslashreplace").decode()
        super().__init__(message)
        self.code, self.message = code, message
        self.http_status = http_status or HTTP_STATUS[code]


def invalid(message, http_status=None):
    """The error of a request that can never succeed."""
    return RequestError(INVALID_ARGUMENT, message, http_status)
