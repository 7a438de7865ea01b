"""`python -m t2i_kd` lists the commands."""

COMMANDS = {
    "prepare": "Writes a data set as shards, for sets larger than one machine's memory.",
    "train": "Trains what a recipe describes, or goes on with it, and exports the student.",
    "generate": "Generates the images of captions, or of images.",
    "evaluate": "Measures trained or exported models.",
    "export": "Exports a finished run as SavedModel, LiteRT and ONNX.",
    "serve": "Serves an exported model by TF Serving's REST and gRPC, with a page to try it.",
}


def main():
    """Prints them."""
    print("Commands of t2i_kd, each with --help:\n")
    for name, text in COMMANDS.items():
        print(f"  python -m t2i_kd.{name:9s} {text}")


if __name__ == "__main__":
    main()
