"""The one exception that a command turns into a single line and exit code 2."""


class UserError(ValueError):
    """What the user gave is wrong. The message is one line that names the flag, file or field."""
