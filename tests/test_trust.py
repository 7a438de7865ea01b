"""SavedModels of strangers: a graph that does more than compute is refused before any of it runs."""

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from t2i_kd import trust
from t2i_kd.checksums import sha256_of
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST
from t2i_kd.loading import load_artifact
from t2i_kd.plugins import check_imported
from t2i_kd.trust import check_graph
from tests.commands import Fork, finish

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "saved_models" / "shapes32" / "1"
TEXT = [tf.TensorSpec([None], tf.string, name="text")]


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch):
    monkeypatch.setattr(trust, "_trusted_graphs", False)


def saved(folder, function, **members):
    """A SavedModel whose one signature is a function of captions."""
    module = tf.Module()
    for name, value in members.items():
        setattr(module, name, value)
    module.function = tf.function(lambda text: {"out": function(text)}, input_signature=TEXT)
    tf.saved_model.save(module, folder, signatures=module.function)
    return folder


def changed(folder, change):
    """Changes a SavedModel's graph in place."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def written(text):
    with tf.control_dependencies([tf.io.write_file(text[0], "x")]):
        return tf.identity(text)


def saving(text):
    save = tf.raw_ops.SaveV2(prefix=text[0], tensor_names=text, shape_and_slices=text, tensors=[text])
    with tf.control_dependencies([save]):
        return tf.identity(text)


# By the operation, and where it stands.
EFFECTS = {
    "WriteFile": written,
    "ReadFile": lambda text: tf.io.read_file(text[0]),
    "MatchingFiles": lambda text: tf.io.matching_files(text),
    "PyFunc": lambda text: tf.numpy_function(lambda x: x, [text], tf.string),
    "SaveV2": saving,
    "RestoreV2": lambda text: tf.raw_ops.RestoreV2(
        prefix=text[0], tensor_names=text, shape_and_slices=text, dtypes=[tf.float32]
    )[0],
    "MakeIterator": lambda text: next(iter(tf.data.TextLineDataset(text))),
    # In a branch of a function within a function.
    "ReadFile in a branch": lambda text: tf.cond(
        tf.size(text) > 3, lambda: tf.function(tf.io.read_file)(text[0]), lambda: text[0]
    ),
    "ReadFile in a map": lambda text: tf.map_fn(tf.io.read_file, text),
}


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_operation_that_reaches_beyond_the_model_is_named(effect, tmp_path):
    folder = saved(tmp_path / "model", EFFECTS[effect])
    with pytest.raises(UserError, match=rf"saved_model\.pb: its graph has .*{effect.split()[0]}.*--trust"):
        check_graph(folder)


def test_own_exports_and_plain_graphs_pass(tmp_path):
    check_graph(SHAPES)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([7.0])), 0.0)
    scale = tf.Variable(2.0)

    def function(text):
        noise = tf.random.stateless_uniform([tf.size(text)], [0, 1])
        _, total = tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * scale), [0, table.lookup(text)])
        return total + noise

    check_graph(saved(tmp_path / "model", function, table=table, scale=scale))


def test_the_vocabulary_of_a_file_is_no_part_of_a_graph(tmp_path):
    (tmp_path / "words").write_text("a\nb\n")
    line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    words = tf.lookup.TextFileInitializer(str(tmp_path / "words"), tf.string, line, tf.int64, number)
    table = tf.lookup.StaticHashTable(words, -1)
    with pytest.raises(UserError, match="InitializeTableFromTextFileV2"):
        check_graph(saved(tmp_path / "model", table.lookup, table=table))


def test_the_savers_operations_are_the_savers_alone(tmp_path):
    """A signature that waits for the saver's node would write where the file says."""
    folder = saved(tmp_path / "model", lambda text: text, weight=tf.Variable(1.0))
    check_graph(folder)

    def answer_with_the_saver(graph):
        for signature in graph.signature_def.values():
            for output in signature.outputs.values():
                output.name = graph.saver_def.save_tensor_name

    changed(folder, answer_with_the_saver)
    with pytest.raises(UserError, match="MergeV2Checkpoints, SaveV2"):
        check_graph(folder)
    folder = saved(tmp_path / "other", lambda text: text, weight=tf.Variable(1.0))

    def wait_for_the_saver(graph):
        node = next(each for each in graph.graph_def.node if each.op == "NoOp")
        node.input.append("^" + graph.saver_def.save_tensor_name.partition(":")[0])

    changed(folder, wait_for_the_saver)
    with pytest.raises(UserError, match="MergeV2Checkpoints, SaveV2"):
        check_graph(folder)


def test_a_saver_that_is_no_function_is_the_savers_too(tmp_path):
    """As in graphs of TensorFlow 1, or where functions are run eagerly."""
    folder = saved(tmp_path / "model", lambda text: text, weight=tf.Variable(1.0))

    def inlined(graph):
        node = graph.graph_def.node.add(name="own_save", op="SaveV2")
        node.input.append("saver_filename")
        saver = next(
            each for each in graph.graph_def.node if each.name == graph.saver_def.save_tensor_name.split(":")[0]
        )
        saver.input.append("^own_save")

    changed(folder, inlined)
    check_graph(folder)

    def needed(graph):
        next(each for each in graph.graph_def.node if each.op == "NoOp").input.append("^own_save")

    changed(folder, needed)
    with pytest.raises(UserError, match="its graph has SaveV2"):
        check_graph(folder)


def test_an_operation_that_nobody_knows_is_refused(tmp_path):
    folder = saved(tmp_path / "model", lambda text: tf.identity(text))

    def unknown(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "Identity":
                    node.op = "OfAStranger"

    changed(folder, unknown)
    with pytest.raises(UserError, match="OfAStranger"):
        check_graph(folder)


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(range(256))])
def test_what_is_no_saved_model_is_named(content, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(content)
    if not content:
        # An empty message: TensorFlow refuses it, there is nothing to run.
        check_graph(tmp_path)
        return
    with pytest.raises(UserError, match=r"saved_model\.pb: no SavedModel"):
        check_graph(tmp_path)


@pytest.fixture
def forged(tmp_path):
    """A version folder with a right manifest whose graph writes a file, and that file."""
    folder, made = tmp_path / "forged" / "1", tmp_path / "made"
    shutil.copytree(SHAPES, folder)

    class Forged(tf.Module):
        @tf.function(input_signature=[*TEXT, tf.TensorSpec([None], tf.int64, name="seed")])
        def seeded(self, text, seed):
            with tf.control_dependencies([tf.io.write_file(str(made), "x")]):
                png = tf.io.encode_png(tf.zeros([32, 32, 3], tf.uint8))
                return {"image_bytes": tf.repeat(png[None], tf.size(text))}

    module = Forged()
    tf.saved_model.save(module, folder, signatures=module.seeded)
    path = folder / EXTRA / MANIFEST
    manifest = json.loads(path.read_text())
    for entry in manifest["artifacts"]["saved_model"]["files"]:
        file = folder / entry["file"]
        entry.update(size=file.stat().st_size, sha256=sha256_of(file))
    path.write_text(json.dumps(manifest))
    return folder, made


def test_a_version_with_a_right_manifest_still_may_not_write(forged):
    folder, made = forged
    with pytest.raises(UserError, match="WriteFile"):
        load_artifact(folder)
    assert not made.exists()
    trust.trust_graphs()
    assert "serving_default" in load_artifact(folder).loaded.signatures


def test_generate_takes_trust_as_a_flag(forged, tmp_path):
    folder, made = forged
    out = tmp_path / "out.png"
    command = (f"--model={folder}", "--caption=a red circle", f"--out={out}")
    process = Fork(*command, module="t2i_kd.generate")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2 and "WriteFile" in errors and "Traceback" not in errors
    assert not made.exists() and not out.exists()
    finish(Fork(*command, "--trust", module="t2i_kd.generate"))
    assert made.read_text() == "x" and out.exists()


def test_a_module_that_only_a_file_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "of_a_stranger").mkdir()
    (tmp_path / "of_a_stranger" / "data.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^--dataset: recipe\.json names the module of_a_stranger\.data"):
        check_imported("of_a_stranger.data", "dataset", "recipe.json")
    assert not (tmp_path / "made").exists()
    check_imported("image_folder", "dataset", "recipe.json")
    check_imported("tests.commands", "dataset", "recipe.json")
