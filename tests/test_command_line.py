"""What is typed is what is meant: quotes, comments, home folders, addresses."""

import os

import pytest

from t2i_kd.command_line import expanded, plain_path
from t2i_kd.errors import UserError
from tests.commands import refused


@pytest.fixture
def write(tmp_path):
    """A function from the text of a file of flags to the arguments that it gives."""

    def write(text, name="mine.flags"):
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return expanded(["--first", f"--flagfile={tmp_path / name}", "--last=1"])[1:-1]

    return write


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        ("--run_dir=runs/mine", "--run_dir=runs/mine"),
        ("  --run_dir = runs/mine  ", "--run_dir=runs/mine"),
        ('--run_dir="my run"', "--run_dir=my run"),
        ("--run_dir='my run'  # the first try", "--run_dir=my run"),
        ("--run_dir=mine  # the first try", "--run_dir=mine"),
        ("--run_dir=mine#2", "--run_dir=mine#2"),
        ('--caption="a # sign"', "--caption=a # sign"),
        ('"--stage=one: objective=mirrored steps=3"', "--stage=one: objective=mirrored steps=3"),
        ("--stage=one: objective=mirrored steps=3  # short", "--stage=one: objective=mirrored steps=3"),
        ("--run_dir runs/mine", "--run_dir=runs/mine"),
        ("--flip", "--flip"),
        ("--flip  # both sides", "--flip"),
        ("--data_dir=", "--data_dir="),
        ("--caption=it's", "--caption=it's"),
        ("\ufeff--flip\r", "--flip"),
    ],
)
def test_a_line_is_one_flag(write, line, argument):
    assert write(f"{line}\n") == [argument]


def test_comments_and_blank_lines_are_left_out(write):
    assert write("# one\n\n// two\n   # three\n--flip\n") == ["--flip"]


def test_files_include_others(write, tmp_path):
    write("--inner=1", "inner.flags")
    assert write(f"--before\n--flagfile={tmp_path / 'inner.flags'}  # more\n--after") == [
        "--before",
        "--inner=1",
        "--after",
    ]
    assert expanded(["--", "--flagfile=absent"]) == ["--", "--flagfile=absent"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('--run_dir="my run', "line 1: .* is not a value between quotes"),
        ('--flip\n--run_dir="my" run', "line 2: .* is not a value between quotes"),
        ("--stage=one: \\\n", "ends in a backslash"),
        (b"\xff\xfe", "mine.flags: not text in UTF-8"),
        ("--flagfile=absent.flags", "cannot read absent.flags: No such file.*; recipes .*: .*, quickstart, .*"),
        ("--flagfile=/", "cannot read /: Is a directory"),
    ],
)
def test_what_cannot_be_understood_is_named(write, text, named):
    with pytest.raises(UserError, match=f"--flagfile: .*{named}|--flagfile: {named}"):
        write(text)


@pytest.mark.parametrize("name", ["quickstart", "quickstart.flags", "pipelines/quickstart.flags"])
def test_a_recipe_is_found_by_its_name_anywhere(tmp_path, monkeypatch, write, name):
    monkeypatch.chdir(tmp_path)
    found = expanded(["--flagfile", name])
    assert "--teacher=vgg19_slim" in found and "--run_dir=runs/quickstart" in found
    assert write(f"--flagfile={name}\n--seed=4") == [*found, "--seed=4"]


def test_a_file_that_exists_wins_over_a_recipe_of_its_name(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.flags").mkdir()
    assert "--teacher=vgg19_slim" in expanded(["--flagfile=quickstart.flags"])
    write("--flip", "quickstart")
    assert expanded(["--flagfile=quickstart"]) == ["--flip"]


def test_a_file_that_includes_itself_is_named(write, tmp_path):
    with pytest.raises(UserError, match=r"--flagfile: .*mine.flags includes itself"):
        write(f"--flagfile={tmp_path / 'mine.flags'}")
    with pytest.raises(UserError, match="--flagfile: missing"):
        expanded(["--flagfile"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/data", "HOME/data"),
        ("~", "HOME"),
        ("$HOME/data", "HOME/data"),
        ("${HOME}/data", "HOME/data"),
        ("~/a,b,~/c", "HOME/a,b,HOME/c"),
        ("run:~/runs/mine", "run:HOME/runs/mine"),
        ("a~b", "a~b"),
        ("~backup.zip", "~backup.zip"),
        ("plain/path with spaces", "plain/path with spaces"),
        ("C:\\data", "C:\\data"),
        ("", ""),
    ],
)
def test_paths_are_written_out(monkeypatch, tmp_path, given, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plain_path(given, "data_dir") == meant.replace("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("gs://bucket/runs", "is an address"),
        ("s3://bucket", "is an address"),
        ("file:///data", "is an address"),
        ("hdfs://name/data", "is an address"),
        ("run:gs://bucket/run", "is an address"),
        ("'data'", "has quotes around it"),
        ("$NO_SUCH_VARIABLE/data", "NO_SUCH_VARIABLE is not set"),
        ("~nobody_of_this_name/data", "no such home folder"),
    ],
)
def test_what_is_no_path_is_refused(given, named):
    with pytest.raises(UserError, match=rf"--run_dir: .*{named}"):
        plain_path(given, "run_dir")


def test_handles_may_be_addresses():
    assert plain_path("https://tfhub.dev/x/1", "hub_handle") == "https://tfhub.dev/x/1"
    assert plain_path("~/encoder", "hub_handle") == os.path.expanduser("~/encoder")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refused(f"--flagfile={tmp_path / 'pipe'}") == f"error: --flagfile: cannot read {tmp_path}/pipe: not a file"


def test_files_that_double_the_next_one_end(tmp_path):
    """Each of 40 includes the next one twice: a million million files."""
    for number in range(40):
        (tmp_path / f"{number}.flags").write_text(2 * f"--flagfile={tmp_path}/{number + 1}.flags\n")
    (tmp_path / "40.flags").write_text("--flip\n")
    with pytest.raises(UserError, match=r"--flagfile: .*: more than 100 files are included"):
        expanded([f"--flagfile={tmp_path}/0.flags"])
