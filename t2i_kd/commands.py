"""How every command starts and ends: flags in, exit code out."""

import sys

from absl import app, flags

from t2i_kd.errors import UserError

EXIT_BAD_INPUT = 2


def run(main):
    """Parses the command line, calls `main()` and exits: 0 done, 2 the user's input is wrong, 1 anything else.

    A wrong flag, like a `UserError` from `main`, ends in one line on standard error and no traceback.
    """
    app.run(lambda argv: _call(main, argv), flags_parser=_parse)


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _exit_bad_input(str(error))


def _call(main, argv):
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not a flag; every argument has the form --name=value")
        main()
    except UserError as error:
        _exit_bad_input(str(error))


def _exit_bad_input(message):
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
