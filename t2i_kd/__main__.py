"""`python -m t2i_kd` lists the commands."""

import sys

COMMANDS = {
    "prepare": "Writes a data set as shards, for sets larger than one machine's memory.",
    "train": "Trains what a recipe describes, or goes on with it, and exports the student.",
    "generate": "Generates the images of captions, or of images.",
    "evaluate": "Measures trained or exported models.",
    "export": "Exports a finished run as SavedModel, LiteRT and ONNX.",
    "serve": "Serves an exported model by TF Serving's REST and gRPC, with a page to try it.",
}
HELP = ("--help", "-help", "-h")


def main(arguments):
    """Prints them, and returns the exit code.

    Args:
        arguments: the command line's; any but a plea for help is refused.
    """
    wrong = [argument for argument in arguments if argument not in HELP]
    if wrong:
        meant = f"run python -m t2i_kd.{wrong[0]}" if wrong[0] in COMMANDS else f"commands are {', '.join(COMMANDS)}"
        print(f"error: python -m t2i_kd takes no argument {wrong[0]!r}; {meant}", file=sys.stderr)
        return 2
    print("Commands of t2i_kd, each with --help:\n")
    for name, text in COMMANDS.items():
        print(f"  python -m t2i_kd.{name:9s} {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
