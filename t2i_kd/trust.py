"""What the files of a model may make this process do: compute, and nothing else that its user has not named.

A SavedModel is a program. TensorFlow runs whatever operations its graph holds, some of them while it is loaded: one may
write a file, read another into a picture, or call another machine. So a graph is read as data first, and refused where
it holds an operation that computing a picture does not need. This is no sandbox: TensorFlow's own readers and kernels
may have faults, and a model from a stranger belongs into a process that may do no harm.

As with `keras.config.enable_unsafe_deserialization`, what is trusted is trusted for the whole process.
"""

import re
from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.files import read_bytes

SAVED_MODEL = "saved_model.pb"
# In bytes: protocol buffers have no more.
LARGEST_GRAPH = 2**31
# Operations that TensorFlow counts as having an effect, and whose effect stays within the model.
HARMLESS = re.compile(
    "Assert|Empty|Placeholder|"
    "(Anonymous|)(Mutable|MutableDense|)HashTable(OfTensors|)(V2|)|InitializeTable(V2|)|"
    "LookupTable(Export|Find|Import|Insert|Remove|Size)(V2|)|"
    "(Stateful|)PartitionedCall|Case|If|While|"
    "Variable(V2|)|VarHandleOp|VarIsInitializedOp|IsVariableInitialized|VariableShape|ReadVariableOp|"
    "Assign(Add|Sub|)(VariableOp|)|DisableCopyOnRead|DestroyResourceOp|ResourceGather(Nd|)|"
    "TensorArray.*V3|Stack.*V2|"
    "Random(Gamma|Shuffle|StandardNormal|Uniform|UniformInt)|TruncatedNormal|Multinomial|StatelessRandomGetAlg"
)
# Operations without an effect in TensorFlow's sense that read files, or run or call what is not in the graph.
READS = re.compile(
    ".*Dataset.*|.*Iterator.*|PyFunc.*|Debug.*|Xla(CustomCall|Launch).*|ReadFile|MatchingFiles|ImmutableConst|"
    "GenerateVocabRemapping|InitializeTableFromTextFile"
)
# Operations by which a checkpoint is written and read: of the saver alone, whose paths TensorFlow gives.
SAVER = {"SaveV2", "MergeV2Checkpoints", "RestoreV2"}

_trusted_graphs = False
_trusted_handles = set()


def trust_graphs():
    """From now on this process loads SavedModels whatever their graphs do: `--trust`."""
    global _trusted_graphs
    _trusted_graphs = True


def trust_handle(handle):
    """From now on this process may load this TF-Hub handle or folder where a model's files name it."""
    _trusted_handles.add(handle)


def check_handle(handle):
    """Raises `UserError` for a handle that only a model's files name: nothing is contacted then."""
    if handle not in _trusted_handles:
        raise UserError(
            f"--hub_handle: the model's condition.json names the sentence encoder {handle}, which is loaded only where "
            "this flag names it too"
        )


def read_graph(folder):
    """TensorFlow's `SavedModel` message of a folder. Raises `UserError` that names the file where it is none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(folder) / SAVED_MODEL
    try:
        return saved_model_pb2.SavedModel.FromString(read_bytes(path, LARGEST_GRAPH))
    except DecodeError:
        raise UserError(f"{path}: no SavedModel") from None


def check_graph(folder, saved=None):
    """Looks at the graph of a SavedModel, without running any of it.

    What counts are all nodes of the graph and of the functions that these, or the objects that are loaded, call; a
    checkpoint may be written and read by the nodes alone that the saver's definition names, by paths that TensorFlow
    gives. An operation that this TensorFlow does not know is refused.

    Args:
        folder: with `saved_model.pb`.
        saved: what `read_graph` gave of it; None: it is read.

    Raises:
        UserError: naming the file, and an operation that does more than compute; or that it is no SavedModel. Nothing
            is raised where graphs are trusted.
    """
    if _trusted_graphs:
        return
    saved = read_graph(folder) if saved is None else saved
    found = sorted({name for graph in saved.meta_graphs for name in _effects(graph)})
    if found:
        raise UserError(
            f"{Path(folder) / SAVED_MODEL}: its graph has {', '.join(found[:5])}, which may reach beyond the model; it "
            "is not loaded unless you trust whoever made it (--trust)"
        )


def _effects(graph):
    """The operations of one graph that do more than compute."""
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    run = [output.name for signature in graph.signature_def.values() for output in signature.outputs.values()]
    run += [name for collection in graph.collection_def.values() for name in collection.node_list.value]
    saver = (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    # What anything else needs, too, is not the saver's alone.
    own = _needed(saver, nodes) - _needed(run, nodes)
    saving = [nodes[name] for name in own]
    rest = [node for name, node in nodes.items() if name not in own]
    called = _reached([*rest, *_loaded(graph, functions)], functions)
    yield from (node.op for node in called if not _computes(node.op, functions))
    of_saver = _reached(saving, functions)
    yield from (node.op for node in of_saver if node.op not in SAVER and not _computes(node.op, functions))


def _needed(names, nodes):
    """The names of the nodes that a graph computes for these tensors or operations, themselves among them."""
    found, rest = set(), list(names)
    while rest:
        # An input is `^node` or `node:0`.
        name = rest.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in found:
            found.add(name)
            rest.extend(nodes[name].input)
    return found


def _loaded(graph, functions):
    """The nodes of every function that the loaded objects hold."""
    names = graph.object_graph_def.concrete_functions
    return [node for name in names if name in functions for node in functions[name].node_def]


def _reached(nodes, functions):
    """The nodes, and those of the functions that they call, in any depth, each function's once."""
    found, seen, rest = [], set(), list(nodes)
    while rest:
        node = rest.pop()
        found.append(node)
        for name in _names_in(node):
            if name in functions and name not in seen:
                seen.add(name)
                rest.extend(functions[name].node_def)
    return found


def _names_in(node):
    """Every function that a node may call: by its operation, or by an attribute."""
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (each.name for each in value.list.func)


def _computes(operation, functions):
    from tensorflow.python.framework import op_def_registry

    known = op_def_registry.get(operation)
    if known is None:
        return operation in functions
    if READS.fullmatch(operation):
        return False
    return not known.is_stateful or HARMLESS.fullmatch(operation) is not None
