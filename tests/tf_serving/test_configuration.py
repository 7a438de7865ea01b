"""The files of pipelines/tf_serving: each parsed as what reads it would, and all saying the same.

tensorflow-serving-api ships `ModelServerConfig`. For `BatchingParameters` and `MonitoringConfig` it ships nothing, nor
does TensorFlow: they are declared here after session_bundle_config.proto and monitoring_config.proto of
tensorflow/serving, field by field as far as the files may use them, and parsed by the same parser.
"""

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from t2i_kd.exporting import tf_serving

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "pipelines" / "tf_serving"
FIELD = descriptor_pb2.FieldDescriptorProto
WRAPPED_INT = ".google.protobuf.Int64Value"

# {message: {field: type}}; a message's name is its type.
DECLARED = {
    "BatchingParameters": {
        "max_batch_size": WRAPPED_INT,
        "batch_timeout_micros": WRAPPED_INT,
        "max_enqueued_batches": WRAPPED_INT,
        "num_batch_threads": WRAPPED_INT,
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated",
        "pad_variable_length_inputs": FIELD.TYPE_BOOL,
    },
    "PrometheusConfig": {"enable": FIELD.TYPE_BOOL, "path": FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": ".tensorflow.serving.PrometheusConfig"},
}


@pytest.fixture(scope="module")
def declared():
    file = descriptor_pb2.FileDescriptorProto(
        name="declared.proto", package="tensorflow.serving", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    for name, fields in DECLARED.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            entry = message.field.add(name=field, number=number, label=FIELD.LABEL_OPTIONAL)
            if kind == "repeated":
                entry.type, entry.label = FIELD.TYPE_INT64, FIELD.LABEL_REPEATED
            elif isinstance(kind, str):
                entry.type, entry.type_name = FIELD.TYPE_MESSAGE, kind
            else:
                entry.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
        for name in DECLARED
    }


def load(path):
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def models():
    return text_format.Parse((FOLDER / "models.config").read_text(), ModelServerConfig()).model_config_list.config


@pytest.fixture(scope="module")
def compose():
    (service,) = load(FOLDER / "compose.yaml")["services"].values()
    return service


@pytest.fixture(scope="module")
def kubernetes():
    documents = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8")))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def container(kubernetes):
    (container,) = kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def check_as_the_server_does(batching):
    """`WrapSessionForBatching` refuses a model whose last allowed size is not the maximum; sizes must increase."""
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value
    assert tuple(sizes) == tf_serving.BATCH_SIZES
    assert batching.batch_timeout_micros.value >= 0 and batching.max_enqueued_batches.value > 0


def test_batching_parameters_are_those_of_every_export(declared):
    ours = text_format.Parse((FOLDER / "batching_params.pbtxt").read_text(), declared["BatchingParameters"]())
    exported = text_format.Parse(tf_serving.batching_parameters(), declared["BatchingParameters"]())
    check_as_the_server_does(exported)
    check_as_the_server_does(ours)
    assert ours.num_batch_threads.value > 0
    # What is the whole server's, and no model's, is in one of the files only.
    for name in ("num_batch_threads", "thread_pool_name"):
        assert not exported.HasField(name)
        ours.ClearField(name)
    assert ours == exported


def test_an_unknown_field_would_be_seen(declared):
    with pytest.raises(text_format.ParseError, match="max_batch_sizes"):
        text_format.Parse("max_batch_sizes { value: 8 }", declared["BatchingParameters"]())
    with pytest.raises(text_format.ParseError, match="value"):
        text_format.Parse("max_batch_size: 8 value", declared["BatchingParameters"]())


def test_the_model_is_one_that_comes_with_the_repository(models):
    assert [(model.name, model.base_path, model.model_platform) for model in models] == [
        ("shapes32", "/models/shapes32", "tensorflow")
    ]
    version = ROOT / "saved_models" / models[0].name / "1"
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("shapes32", 1)
    assert (version / tf_serving.BATCHING).read_text() == tf_serving.batching_parameters()
    assert (version / tf_serving.WARMUP).is_file()
    listed = {entry["file"] for entry in manifest["support_files"]}
    assert {tf_serving.BATCHING, tf_serving.WARMUP} <= listed


def flags_of(arguments):
    assert all(re.fullmatch(r"--\w+=\S+", argument) for argument in arguments)
    return dict(argument[2:].split("=", 1) for argument in arguments)


def test_compose_and_kubernetes_start_the_same_server(compose, container):
    assert compose["image"] == container["image"]
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", compose["image"])
    ours, theirs = flags_of(compose["command"]), flags_of(container["args"])
    # A ConfigMap's change makes new pods; a mounted folder is looked at again.
    assert ours.pop("model_config_file_poll_wait_seconds") == "60"
    assert ours == theirs
    assert ours["enable_batching"] == ours["enable_per_model_batching_parameters"] == "true"
    named = {name: path for name, path in ours.items() if name.endswith("_file")}
    assert named == {
        "model_config_file": "/config/models.config",
        "batching_parameters_file": "/config/batching_params.pbtxt",
        "monitoring_config_file": "/config/monitoring.config",
    }


def test_compose_mounts_what_the_server_reads(compose, models):
    mounts = {}
    for mount in compose["volumes"]:
        source, target, mode = mount.split(":")
        assert mode == "ro"
        mounts[target] = (FOLDER / source).resolve()
    assert mounts == {"/config": FOLDER, "/models": ROOT / "saved_models"}
    for model in models:
        assert model.base_path == f"/models/{model.name}"
        assert any(entry.name.isdigit() for entry in (mounts["/models"] / model.name).iterdir())
    for path in flags_of(compose["command"]).values():
        if path.startswith("/config/"):
            assert (mounts["/config"] / Path(path).name).is_file()
    assert compose["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert f"GET /v1/models/{models[0].name} " in compose["healthcheck"]["test"][-1]


def test_kubernetes_mounts_what_the_server_reads(kubernetes, container, models):
    spec = kubernetes["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert set(mounts) == {"/models", "/config"} and all(mount["readOnly"] for mount in container["volumeMounts"])
    kustomization = load(FOLDER / "kustomization.yaml")
    assert kustomization["resources"] == ["kubernetes.yaml"]
    (generator,) = kustomization["configMapGenerator"]
    assert mounts["/config"]["configMap"]["name"] == generator["name"]
    wanted = {Path(path).name for path in flags_of(container["args"]).values() if path.startswith("/config/")}
    assert set(generator["files"]) == wanted and all((FOLDER / name).is_file() for name in wanted)
    claim = kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    (upload,) = kubernetes["Pod"]["spec"]["volumes"]
    for volume in (mounts["/models"], upload):
        assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{models[0].name}/metadata"


def test_kubernetes_names_agree(kubernetes, container):
    deployment, service = kubernetes["Deployment"]["spec"], kubernetes["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    near = kubernetes["Pod"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert deployment["selector"]["matchLabels"] == service["selector"] == labels
    assert near[0]["labelSelector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert {(probe.get("tcpSocket") or probe["httpGet"])["port"] for probe in probes} == {"rest"}


def test_metrics_are_where_prometheus_is_sent(declared, kubernetes):
    monitoring = text_format.Parse((FOLDER / "monitoring.config").read_text(), declared["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    annotations = kubernetes["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8501",
        "prometheus.io/path": monitoring.prometheus_config.path,
    }
    assert f"localhost:8501{monitoring.prometheus_config.path}" in (FOLDER / "README.md").read_text("utf-8")


def test_the_readme_makes_a_picture_of_an_answer(tmp_path):
    """Every line that decodes an answer, run on one, with Python's or with what else it names."""
    png = b"\x89PNG\r\n\x1a\n\x00\xff"
    answer = json.dumps({"predictions": [{"b64": base64.b64encode(png).decode()}]}, indent=4)
    text = (FOLDER / "README.md").read_text("utf-8").replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("curl") and "|" in line]
    bodies = [json.loads(shlex.split(line)[shlex.split(line).index("-d") + 1]) for line in commands]
    assert len(commands) == 2 and all(set(body) <= {"instances", "signature_name"} for body in bodies)
    decoders = [line.split(" | ", 1)[1] for line in commands]
    assert all(decoder.startswith("python3 ") for decoder in decoders)
    for decoder in decoders:
        subprocess.run(["sh", "-c", decoder], input=answer.encode(), cwd=tmp_path, check=True)
        (made,) = tmp_path.iterdir()
        assert made.read_bytes() == png
        made.unlink()
