"""The one exception that a command turns into a single line and exit code 2."""

import errno

# What a disk says that is full, read-only or broken.
DISK_REFUSES = tuple(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO") if hasattr(errno, name)
)


class UserError(ValueError):
    """What the user gave is wrong. The message is one line that names the flag, file or field."""


def all_of(*calls):
    """What each of some functions without arguments gives, a list.

    Raises:
        UserError: when some of them raise it: one line with all their messages, each once.
    """
    results, messages = [], []
    for call in calls:
        try:
            results.append(call())
        except UserError as error:
            messages.append(str(error))
    raise_all(messages)
    return results


def raise_all(messages):
    """Raises one `UserError` with all messages, each once; does nothing where there are none."""
    if messages:
        raise UserError("; also ".join(dict.fromkeys(messages)))
