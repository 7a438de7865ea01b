"""How `python -m t2i_kd.train` reads its flags, what its help says, and what it keeps quiet about."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from t2i_kd import api, commands, recipe_flags, systems
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.exporting.fidelity import FidelityError
from t2i_kd.exporting.manifest import FILES
from t2i_kd.recipe import Recipe
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.hub import HubFrontEnd
from t2i_kd.text.precomputed import PrecomputedFrontEnd
from t2i_kd.text.tokenizer import Tokenizer
from tests.commands import Fork, environment, finish, metrics, refused, start
from tests.systems import ROOMS, STRANGER, recipe_of, write_images, write_stranger

NAMES = [room.name for room in ROOMS]
# What TensorFlow writes while it starts, on a machine without a GPU or with one.
NOISE = re.compile(r"cuInit|cpu_feature_guard|cudart_stub|All log messages|oneDNN|computation_placer")
# A program that fails where Keras or TensorFlow is imported.
WITHOUT_KERAS = """
import runpy, sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tensorflow", "jax"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Forbidden())
sys.argv[0] = "train"
runpy.run_module("t2i_kd.train", run_name="__main__", alter_sys=True)
"""


PACKAGE = WITHOUT_KERAS.replace("t2i_kd.train", "t2i_kd")


def help_of(*arguments, **options):
    """What `--help` prints: {title: {flag: its help}}, and the description before them."""
    output = finish(start(*arguments, "--help", code=WITHOUT_KERAS, **options))
    description, *blocks = output.split("\n\n")
    groups = {}
    for block in blocks:
        title, *lines = block.splitlines()
        flags = groups.setdefault(title.removesuffix(":"), {})
        for line in lines:
            if line.startswith("  --"):
                name = re.match(r"  --(?:\[no\])?(\w+)", line)[1]
                flags[name] = ""
            else:
                flags[name] = f"{flags[name]} {line.strip()}".strip()
    return description, groups


@pytest.mark.parametrize("system", NAMES)
def test_help_shows_a_systems_own_options_in_groups_of_whole_sentences(system):
    description, groups = help_of(f"--system={system}")
    assert " ".join(description.split()).startswith("Trains what a recipe describes")
    recipe = systems.find(system).recipe
    titles = [kind.__doc__ for kind in recipe.groups().values()]
    assert list(groups) == ["The run", "The stages", *titles, "Every command"]
    for kind in recipe.groups().values():
        assert list(groups[kind.__doc__]) == list(kind.__dataclass_fields__)
    for flag, text in (pair for flags in groups.values() for pair in flags.items()):
        assert re.match(r"[A-Z0-9].*[.](\s\(default: .*\))?$", text), (flag, text)
    stage_fields = list(recipe.stage_class().__dataclass_fields__)[1:]
    assert ", ".join(stage_fields) in groups["The stages"]["stage"]


def test_help_comes_at_once():
    """The best of three, on a machine that may be busy."""

    def seconds():
        begin = time.perf_counter()
        help_of()
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(3)) < 2


def test_systems_differ_in_their_options():
    options = {
        name: {flag for flags in help_of(f"--system={name}")[1].values() for flag in flags}
        for name in ("sdn", "icsd_gan")
    }
    assert "head_rank" in options["sdn"] - options["icsd_gan"]
    assert "image_stages" in options["icsd_gan"] - options["sdn"]


def test_the_system_of_a_flagfile_has_its_options(tmp_path):
    (tmp_path / "inner.flags").write_text("--system=icsd_gan\n--image_stages=2\n")
    (tmp_path / "outer.flags").write_text(f"# A comment\n--flagfile={tmp_path / 'inner.flags'}\n--gan_loss=bce\n")
    assert "The discriminators" in help_of(f"--flagfile={tmp_path / 'outer.flags'}")[1]
    line = refused(f"--flagfile={tmp_path / 'outer.flags'}", "--head_rank=3")
    assert line == "error: --head_rank: no option of --system=icsd_gan, but of --system=sdn and --system=kd_dlgan"
    recipe = recipe_of(f"--flagfile={tmp_path / 'outer.flags'}", "--image_stages=3")
    assert (recipe.system, recipe.icsd.image_stages, recipe.gan.gan_loss) == ("icsd_gan", 3, "bce")


@pytest.mark.parametrize(
    "given", [("--system=sdn", "--system=teacher_slim"), ("--system", "sdn", "-system=teacher_slim")]
)
def test_the_later_of_two_systems_wins(given):
    assert "The slim network" in help_of(*given)[1]


def test_a_flagfile_may_name_another_system_than_the_line_before_it(tmp_path):
    (tmp_path / "one.flags").write_text("--system=icsd_gan\n")
    assert "ICSD-GAN's generator and distillation" in help_of("--system=sdn", f"--flagfile={tmp_path / 'one.flags'}")[1]
    assert (
        "ICSD-GAN's generator and distillation"
        not in help_of(f"--flagfile={tmp_path / 'one.flags'}", "--system=sdn")[1]
    )


def test_a_system_of_the_working_folder_is_found(tmp_path):
    """By `python -m`, which has the folder that it is started in on its path."""
    write_stranger(tmp_path)
    output = finish(start(f"--system={STRANGER.name}", "--help", cwd=tmp_path))
    assert "The colours:\n  --brightness=VALUE\n      The factor on every image. (default: 1.0)" in output
    assert "softness" in output and "head_rank" not in output
    line = refused(f"--system={STRANGER.name}", "--head_rank=3", cwd=tmp_path)
    assert line.endswith(", but of --system=sdn and --system=kd_dlgan")


@pytest.mark.parametrize(
    ("system", "named"),
    [
        ("gan", f"--system: 'gan' is none of {', '.join(NAMES)}, and no module such as my_package.my_system"),
        ("absent.room", "--system: cannot import absent.room: No module named 'absent'; is its folder on PYTHONPATH?"),
        ("os.path", "--system: the module posixpath has no RECIPE"),
        ("broken.room", "--system: cannot import broken.room: boom"),
    ],
)
def test_what_is_no_system_is_named(system, named, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "room.py").write_text("raise ValueError('boom')")
    for more in ((), ("--help",)):
        assert named in refused(f"--system={system}", *more, cwd=tmp_path)


def test_unknown_flags_are_named_and_belong_to_nobody():
    assert refused("--colour=red") == "error: Unknown command line flag 'colour'"
    # absl finds what was meant.
    assert "Did you mean: batch_size" in refused("--batch_siz=3")


def test_no_two_groups_have_an_option_of_one_name():
    """`--NAME` would stand for both."""
    for room in systems.all_rooms():
        names = [name for kind in room.recipe.groups().values() for name in kind.__dataclass_fields__]
        assert len(names) == len(set(names))
        assert not set(names) & {"system", "stage", "run_dir", "export_dir", "overwrite", "distribute", "dry_run"}


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--system=a"], "a"),
        (["-system", "a"], "a"),
        (["--system=a", "--system", "b"], "b"),
        (["--seed=1"], "default"),
        (["system=a"], "default"),
        (["--system"], ""),
    ],
)
def test_a_flags_value_is_read_before_flags_are_defined(arguments, value):
    assert commands.given(["train", *arguments], "system", "default") == value


def test_owners_of_an_option_are_all_systems_that_have_it():
    assert recipe_flags.systems_with_option("width") == ["sdn", "kd_dlgan", "teacher_slim"]
    assert recipe_flags.systems_with_option("seed") == NAMES
    assert recipe_flags.systems_with_option("colour") == [] == recipe_flags.systems_with_option("groups")
    assert issubclass(systems.find("sdn").recipe, Recipe)


RUN = (
    "--resolution=32",
    "--batch_size=2",
    "--text_dim=8",
    "--teacher=none",
    "--width=0.03125",
    "--dataset=image_folder",
    "--stage=one: objective=mirrored steps=1 tap_weights=image:1",
)


def errors_of(*command, **changes):
    """Standard error of a command that succeeds, in the environment of somebody who set nothing."""
    process = start(*command, **({"TF_CPP_MIN_LOG_LEVEL": None} | changes))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.mark.slow
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="with a GPU, TensorFlow's lines are shown")
def test_tensorflows_start_up_lines_are_not_shown(tmp_path):
    write_images(tmp_path)
    assert not NOISE.search(errors_of(*RUN, f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'run'}"))
    generate = "import sys, runpy; sys.argv[0] = 'generate'; runpy.run_module('t2i_kd.generate', run_name='__main__')"
    out = tmp_path / "one.png"
    errors = errors_of(f"--model={tmp_path / 'run'}", "--caption=a red picture", f"--out={out}", code=generate)
    assert not NOISE.search(errors) and out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "changes"),
    [((), {"TF_CPP_MIN_LOG_LEVEL": "0"}), (("--verbosity=0",), {})],
    ids=["environment", "flag"],
)
def test_whoever_asks_for_them_sees_them(more, changes, tmp_path):
    write_images(tmp_path)
    process = start(
        *RUN,
        f"--data_dir={tmp_path}",
        f"--run_dir={tmp_path / 'run'}",
        "--text_weights=absent.weights.h5",
        *more,
        **({"TF_CPP_MIN_LOG_LEVEL": None} | changes),
    )
    _, errors = process.communicate(timeout=300)
    # What it refuses, it reads with TensorFlow.
    assert process.returncode == 2 and NOISE.search(errors), errors


def test_a_start_that_fails_shows_what_was_held_back(tmp_path):
    """Standard error comes back, and what was written to it meanwhile."""
    program = """
import os
from t2i_kd import quiet
try:
    with quiet.standard_error_held():
        os.write(2, b"held back\\n")
        raise ImportError("no backend")
except ImportError:
    os.write(2, b"then\\n")
with quiet.standard_error_held():
    os.write(2, b"never shown\\n")
"""
    if Path("/dev/nvidia0").exists():
        pytest.skip("with a GPU, all is shown")
    assert errors_of(code=program) == "held back\nthen\n"


@pytest.mark.parametrize("kind", ["litert_float16", "litert_int8", "onnx_int8", "onnx", ""])
def test_a_training_ends_with_the_files_that_agree(monkeypatch, capsys, kind):
    asked = []

    def export(run_dir, export_dir, overwrite, report, artifacts=None):
        asked.append((run_dir, export_dir, overwrite, artifacts))
        if artifacts is None:
            raise FidelityError(f"{kind} differs", kind)

    monkeypatch.setattr(api, "export", export)
    if "_" not in kind:
        with pytest.raises(SystemExit, match=f"error: {kind} differs"):
            commands.export_trained("run", "model", True)
        assert len(asked) == 1
        return
    commands.export_trained("run", "model", True)
    others = [each for each in FILES if each != kind]
    assert asked == [("run", "model", True, None), ("run", "model", True, others)]
    assert f"warning: {kind} differs" in capsys.readouterr().out


def next_of(condition, items, folder, *flags, **options):
    """The commands that are said to come next, by their names."""
    condition.save(folder)
    condition.save_items(items, folder)
    steps = [
        shlex.split(line) for line in commands.next_steps(recipe_of(*flags, RUN[-1]), folder, "model/1", **options)
    ]
    assert all(Path(python).name.startswith("python") and dash == "-m" for python, dash, *_ in steps)
    return {module: arguments for _, _, module, *arguments in steps}


def test_the_next_caption_is_of_words_that_the_student_knows(tmp_path):
    reads_words = CaptionCondition(TokenFrontEnd("gru", Tokenizer("words", ("it's", "red"), 8)))
    steps = next_of(reads_words, ["a red one", "it's red", "red"], tmp_path)
    assert steps["t2i_kd.generate"] == ["--model=model/1", "--caption=it's red", "--out=picture.png"]
    for teacher, other in (("vgg19_slim", "efficientnet_lite0"), ("efficientnet_lite0", "vgg19_slim")):
        found = next_of(reads_words, ["red"], tmp_path, f"--teacher={teacher}")["t2i_kd.evaluate"]
        compared = ["--extractor=teacher", f"--teacher={other}"]
        assert found == ["--model=model/1", "--metrics=kernel,diversity", *compared, "--out=report.json"]
    steps = next_of(reads_words, ["a blue one", "another"], tmp_path)
    assert "--caption=a blue one" in steps["t2i_kd.generate"]


def test_the_next_commands_are_quoted_as_people_do(tmp_path):
    condition = CaptionCondition(TokenFrontEnd("gru", Tokenizer("words", ("red",), 8)))
    condition.save(tmp_path)
    condition.save_items(["red $HOME"], tmp_path)
    line = commands.next_steps(recipe_of(RUN[-1]), tmp_path, "my models/1")[0]
    assert line.endswith(" -m t2i_kd.generate --model='my models/1' --caption='red $HOME' --out=picture.png")


def test_the_next_commands_name_what_no_file_alone_may(tmp_path):
    steps = next_of(CaptionCondition(HubFrontEnd("encoder v1", 8)), ["red"], tmp_path, modules=["mine", "my.layers"])
    named = ["--import_module=mine", "--import_module=my.layers", "--hub_handle=encoder v1"]
    assert all(arguments[1:4] == named for arguments in steps.values()) and len(steps) == 2


def test_a_student_of_kept_vectors_is_evaluated_and_one_of_images_is_shown_a_picture(tmp_path):
    assert list(next_of(CaptionCondition(PrecomputedFrontEnd("vectors", 8)), ["red"], tmp_path)) == ["t2i_kd.evaluate"]
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    for teacher, metric in (("none", "kernel"), ("painter.npz", "teacher_distance")):
        steps = next_of(ImageCondition(8), pictures, tmp_path, f"--teacher={teacher}")
        assert "--image=PICTURE.jpg" in steps["t2i_kd.generate"]
        assert f"--metrics={metric}" in steps["t2i_kd.evaluate"]
    assert commands.next_steps(recipe_of(RUN[-1]), tmp_path / "empty", "model/1") == []


QUICK = (*RUN[:-1], "--checkpoint_every=100000", "--log_every=1")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_ends_after_the_step_with_its_checkpoint(tmp_path, number):
    write_images(tmp_path)
    run_dir = tmp_path / "run"
    command = [*QUICK, f"--data_dir={tmp_path}", f"--run_dir={run_dir}"]
    command.append("--stage=one: objective=mirrored steps=100000 tap_weights=image:1")
    process = start(*command)
    try:
        while not (run_dir / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        # Meanwhile nobody else may train there.
        second = Fork(*command)
        output, errors = second.communicate(timeout=300)
        assert second.returncode == 2 and output == "" and "Traceback" not in errors
        used = f"error: --run_dir: {run_dir} is in use by process {process.pid} on "
        assert errors.splitlines()[-1].startswith(used)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"error: stopped by {number.name}; the same command goes on")
    (checkpoint,) = (run_dir / "checkpoints" / "one").glob("*.npz")
    assert metrics(run_dir)[-1]["step"] == int(checkpoint.stem.removeprefix("step-"))
    assert not list(run_dir.glob(".*")) and (run_dir / "student.keras").exists()


def test_a_signal_before_the_training_ends_in_one_line():
    program = """
import os, signal, sys
from t2i_kd import commands
sys.argv = ["nothing"]
def main():
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("went on")
commands.run(main, lambda arguments: {}, "Does nothing.")
"""
    process = start(code=program)
    assert process.communicate(timeout=60) == ("", "error: stopped by SIGTERM\n") and process.returncode == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = f"{sys.executable} -m t2i_kd.train --help 2>errors | head -n 1; echo ${{PIPESTATUS[0]}}; cat errors"
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[1:] == ["0"]


@pytest.mark.parametrize("how", ["environment", "keras.json"])
def test_a_backend_that_is_none_of_ours_is_named(tmp_path, how):
    write_images(tmp_path)
    changes = {"KERAS_BACKEND": "torch"} if how == "environment" else {"KERAS_BACKEND": None}
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    line = refused(*RUN, f"--data_dir={tmp_path}", "--run_dir=x", KERAS_HOME=str(tmp_path), **changes)
    assert line.endswith("torch: t2i_kd runs on tensorflow and jax")
    assert line.startswith("error: KERAS_BACKEND=" if how == "environment" else f"error: {tmp_path / 'keras.json'}")


def test_a_keras_json_of_another_taste_changes_nothing(tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float16", "image_data_format": "channels_first"}')
    program = (
        "from t2i_kd import commands; commands.load_backend(); import keras; "
        "print(keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy().name)"
    )
    assert finish(start(code=program, KERAS_HOME=str(tmp_path))) == "float32 channels_last float32\n"


def test_paths_of_flags_are_written_out_and_addresses_refused(tmp_path):
    write_images(tmp_path)
    line = refused(*RUN, f"--data_dir={tmp_path}", "--run_dir=gs://bucket/run", start=Fork)
    assert line == "error: --run_dir: gs://bucket/run is an address; give a file or folder of this machine"
    line = refused(*RUN, "--data_dir", "~/absent", "--run_dir=x", start=Fork, HOME=str(tmp_path))
    assert line.startswith(f"error: --data_dir: {tmp_path}/absent does not exist")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_package_lists_its_commands(arguments):
    output = finish(start(*arguments, code=PACKAGE))
    listed = re.findall(r"^  python -m t2i_kd\.(\w+) +[A-Z].*\.$", output, re.MULTILINE)
    folder = Path(commands.__file__).parent
    made = {path.stem for path in folder.glob("*.py") if "commands.run(main" in path.read_text()}
    assert set(listed) == made and len(listed) == 6


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("train", "run python -m t2i_kd.train"),
        ("trian", "commands are prepare, train, generate, evaluate, export, serve"),
        ("--model=x", "commands are prepare, train, generate, evaluate, export, serve"),
    ],
)
def test_an_unknown_command_is_one_line(argument, meant):
    line = refused(argument, "--help", code=PACKAGE)
    assert line == f"error: python -m t2i_kd takes no argument {argument!r}; {meant}"


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull", "--helpshort", "--help=true"])
def test_help_is_no_error(flag):
    assert "The stages:" in finish(start(flag, code=WITHOUT_KERAS))
