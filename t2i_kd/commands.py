"""How every command starts and ends: flags in, exit code out."""

import contextlib
import os
import re
import shlex
import shutil
import sys
import textwrap
import warnings
from pathlib import Path

from absl import app, flags

from t2i_kd import api, plugins, quiet, shipped, stopping, trust
from t2i_kd.command_line import WORDS, expanded, plain_path
from t2i_kd.errors import DISK_REFUSES, UserError
from t2i_kd.files import read_json

EXIT_BAD_INPUT = 2
# Of a refusal, in characters.
LONGEST_MESSAGE = 4000
HELP = ("--help", "-help", "-h", "-?", "--helpshort", "--helpfull", "--helpxml")
COMMON = "Every command"
# Is there where a driver of NVIDIA's GPUs is.
NVIDIA = "/dev/nvidia0"
BACKENDS = ("tensorflow", "jax")


def run(main, define_flags, description, explain_unknown=lambda name: ""):
    """Parses the command line, calls `main()` and exits: 0 done, 2 the user's input is wrong, 1 anything else.

    A wrong flag, like a `UserError` from `main`, ends in one line on standard error and no traceback.

    Args:
        main: function without arguments.
        define_flags: function from the expanded arguments to {title: the names of the flags that it defined}, in the
            order in which `--help` shows them.
        description: the command in a sentence, for `--help`.
        explain_unknown: function from the name of an unknown flag to the error; where that is empty, it is absl's.
    """
    # A path may hold what no encoding has.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Pipe(sys.stdout), _Pipe(sys.stderr)
    # Pillow's word on a picture that is then refused in a line of our own.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    stopping.end_at_once()
    try:
        _run(main, define_flags, description, explain_unknown)
    except stopping.Stopped as signal:
        sys.exit(f"error: stopped by {signal}")


class _Pipe:
    """A stream that goes on into nothing once nobody reads it any more: a run is not lost for the reader of its log."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._doing(self._stream.write, text)

    def flush(self):
        return self._doing(self._stream.flush)

    def _doing(self, action, *arguments):
        try:
            return action(*arguments)
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)
            return None


def _run(main, define_flags, description, explain_unknown):
    try:
        # Everybody after this reads the same line.
        sys.argv[1:] = expanded(sys.argv[1:])
        arguments = sys.argv
        verbose = not given(arguments, "verbosity", "-1").startswith("-")
        # What TensorFlow logs as an error and does not raise is about GPUs, or oneDNN leaving an operation to others.
        os.environ.setdefault(quiet.LEVEL, "0" if verbose else "2" if os.path.exists(NVIDIA) else "3")
        groups = {**define_flags(arguments), COMMON: define_common_flags()}
    except (UserError, flags.Error) as error:
        _exit_bad_input(str(error))
    if any(argument.partition("=")[0] in HELP for argument in arguments[1:]):
        print(help_text(description, groups))
        return
    names = [name for group in groups.values() for name in group]
    app.run(lambda argv: _call(main, argv), flags_parser=lambda argv: _parse(argv, explain_unknown, names))


def given(arguments, name, default=""):
    """The last value of `--name` among expanded arguments, before any flag is defined."""
    value = default
    for index, argument in enumerate(arguments):
        flag, equals, text = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            value = text if equals else "".join(arguments[index + 1 : index + 2])
    return value


def defining(define, *arguments):
    """The names of the flags that `define(*arguments)` defines, in their order."""
    before = set(flags.FLAGS)
    define(*arguments)
    return [name for name in flags.FLAGS if name not in before]


def define_common_flags():
    """Defines what every command has, and names it."""
    flags.DEFINE_multi_string(
        "import_module",
        [],
        "A Python module to import first, for systems, layers or metrics of your own; may be repeated.",
    )
    flags.DEFINE_bool(
        "trust",
        False,
        "Load SavedModels whose graphs do more than compute, such as read and write files: only from people you trust.",
    )
    return ["import_module", "trust", "flagfile", "verbosity"]


def named_models():
    """What the help of `--model` says of names."""
    names = ", ".join(shipped.models())
    return f"Where there is no such path, the name of a model that comes with t2i_kd stands for it: {names}."


def define_hub_handle():
    """Defines the flag by which the user names the sentence encoder that a student's files name."""
    flags.DEFINE_string(
        "hub_handle",
        "",
        "The TF-Hub handle or folder of the sentence encoder of a student of --text_encoder=hub, as its condition.json "
        "names it. No address that only a file names is contacted.",
    )


def help_text(description, groups):
    """What `--help` prints: each group's flags with their defaults and their help."""
    lines = textwrap.wrap(description, 100)
    for title, names in groups.items():
        lines += ["", f"{title}:"]
        for name in names:
            lines += _flag_help(name)
    return "\n".join(lines)


def _flag_help(name):
    if name == "flagfile":
        text = (
            "Reads flags from a file, one a line; what follows # is a comment, and a value may stand between quotes. "
            "Where there is no such file, a name such as quickstart or pipelines/quickstart.flags stands for a recipe "
            "that comes with t2i_kd."
        )
        return ["  --flagfile=FILE", *_indented(text)]
    flag = flags.FLAGS[name]
    if name == "verbosity":
        text = "How much is logged: -1 warnings, 0 also events, 1 more. From 0 on TensorFlow's own lines show too."
        return [f"  --{name}=VALUE", *_indented(f"{text} (default: 0)")]
    choices = getattr(flag.parser, "enum_values", None)
    shown = f"  --[no]{name}" if flag.boolean else f"  --{name}=" + ("|".join(choices) if choices else "VALUE")
    default = f" (default: {flag.default})" if flag.default not in (None, "", [], False) else ""
    # absl puts the choices before a help, and after that of a flag that may be repeated, that it may.
    text = re.sub(r"^<.*?>: |;\s*repeat this option.*", "", flag.help, flags=re.DOTALL)
    return [shown, *_indented(text + default)]


def _indented(text):
    return textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)


def load_backend():
    """Imports Keras on its backend; with TensorFlow also looks for GPUs, which writes the last of its start-up lines.

    TensorFlow's own lines name what a machine has no GPU for. They are written before it can be asked not to, so
    standard error is held back meanwhile, unless something fails, there is an NVIDIA device, which they may be about,
    or they are asked for: with `--verbosity=0`, or with TF_CPP_MIN_LOG_LEVEL=0 in the environment.
    """
    backend = check_backend()
    with quiet.standard_error_held(shown=os.path.exists(NVIDIA)):
        try:
            import keras
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"KERAS_BACKEND={backend}: Keras cannot be loaded with it: {error}") from None
        # Whatever a keras.json says: weights and arithmetic here are these.
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
        keras.config.set_dtype_policy("float32")
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()


def check_backend():
    """The backend that Keras will take. Raises `UserError` where this package does not run on it."""
    backend, source = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not backend:
        path = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
        backend, source = "tensorflow", f"{path}: backend"
        with contextlib.suppress(UserError, AttributeError):
            backend = read_json(path).get("backend", backend)
    if backend not in BACKENDS:
        raise UserError(f"{source}={backend}: t2i_kd runs on {' and '.join(BACKENDS)}")
    return backend


def say(line):
    """Prints a line at once."""
    print(line, flush=True)


def export(*arguments, **options):
    """`api.export`, which reports each step; a failed proof ends in one line and exit code 1."""
    from t2i_kd.exporting.fidelity import FidelityError

    try:
        return api.export(*arguments, **options, report=say)
    except FidelityError as error:
        sys.exit(f"error: {error}")


def export_trained(run_dir, export_dir, overwrite):
    """`export` after a training: where a file of reduced precision fails its proof, the others are published.

    What is left out, and why, is said; hours of training should not end without a model because 8 bits are too coarse.
    Returns the version's folder.
    """
    from t2i_kd.exporting.fidelity import MEAN_ALLOWED, FidelityError
    from t2i_kd.exporting.manifest import FILES

    refused, kinds = [], None
    while True:
        try:
            return api.export(run_dir, export_dir, overwrite=overwrite, artifacts=kinds, report=say)
        except FidelityError as error:
            if error.kind not in MEAN_ALLOWED:
                sys.exit(f"error: {error}")
            refused.append(error.kind)
            say(f"warning: {error}")
        say(f"Exporting again without {' and '.join(refused)}")
        kinds = [kind for kind in FILES if kind not in refused]


def next_steps(recipe, run_dir, model, modules=()):
    """The commands that try and measure what was trained, as they can be typed; none where it makes no images.

    Args:
        recipe: `Recipe`.
        run_dir: the folder of the run. Its captions are the training's; one is taken whose words the student knows.
        model: that folder, or the version that was exported.
        modules: those of `--import_module`.
    """
    from t2i_kd.conditions.base import CONDITION_FILE
    from t2i_kd.conditions.catalogue import load_condition
    from t2i_kd.training.measuring import bystander

    if not (Path(run_dir) / CONDITION_FILE).exists():
        return []
    condition = load_condition(run_dir)
    # Modules of the user's own, which no file alone makes a command import.
    named = (recipe.system, recipe.data.dataset, *recipe.teachers)
    modules = dict.fromkeys(
        (*modules, *(each for each in named if plugins.is_dotted(each) and plugins.is_imported(each)))
    )
    common = [f"--model={model}", *(f"--import_module={name}" for name in modules)]
    steps = {}
    if condition.kind == "image":
        taught = recipe.teacher.teacher != "none"
        steps["generate"] = ["--image=PICTURE.jpg", "--out=picture.png"]
        # Of the two, the teacher's images are there without targets.
        steps["evaluate"] = [f"--metrics={'teacher_distance' if taught else 'kernel'}", "--out=report.json"]
    else:
        if condition.front_end.name == "hub":
            common.append(f"--hub_handle={condition.front_end.source}")
        if condition.reads_any:
            captions = condition.load_items(run_dir)
            known = next((caption for caption in captions if not condition.unread(caption)), captions[0])
            steps["generate"] = [f"--caption={known}", "--out=picture.png"]
        # A network of this package that did not teach compares; without one `evaluate` trains its own, for minutes.
        other = bystander(recipe.teachers)
        compared = [] if other in recipe.teachers else ["--extractor=teacher", f"--teacher={other}"]
        steps["evaluate"] = ["--metrics=kernel,diversity", *compared, "--out=report.json"]
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    return [
        " ".join([shlex.quote(python), "-m", f"t2i_kd.{name}", *map(_quoted, (*common, *more))])
        for name, more in steps.items()
    ]


def _quoted(argument):
    """`--name=value` for a shell, quotes around the value alone."""
    name, _, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}"


def _parse(argv, explain_unknown, names):
    try:
        rest = flags.FLAGS(argv)
        _write_paths_out(name for name in names if name in flags.FLAGS and name not in WORDS)
        return rest
    except flags.UnrecognizedFlagError as error:
        _exit_bad_input(explain_unknown(error.flagname) or str(error))
    except (flags.Error, UserError) as error:
        _exit_bad_input(str(error))


def _write_paths_out(names):
    """Puts every flag's text in full, see `plain_path`; a flag that is no path is as it was."""
    for name in names:
        flag = flags.FLAGS[name]
        if isinstance(flag.value, str):
            flag.value = plain_path(flag.value, name)
        elif isinstance(flag.value, list):
            flag.value = [plain_path(each, name) for each in flag.value]


def _call(main, argv):
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not a flag; every argument has the form --name=value")
        if flags.FLAGS.trust:
            trust.trust_graphs()
        if "hub_handle" in flags.FLAGS and flags.FLAGS.hub_handle:
            trust.trust_handle(flags.FLAGS.hub_handle)
        if flags.FLAGS.import_module:
            load_backend()
        for name in flags.FLAGS.import_module:
            plugins.import_module(name, "import_module")
        main()
    except UserError as error:
        _exit_bad_input(str(error))
    except OSError as error:
        if error.errno not in DISK_REFUSES:
            raise
        _exit_bad_input(f"{error.filename or 'cannot write'}: {error.strerror}")


def _exit_bad_input(message):
    # A file's words may be anything, and of any length.
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(message.split()))
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE // 2]} ... {line[-LONGEST_MESSAGE // 2 :]}"
    print(f"error: {line}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
