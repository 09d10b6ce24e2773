"""Package definition of apparel_embed; exact versions are in requirements.lock."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "apparel_embed/__init__.py").read_text(), re.MULTILINE
).group(1)

# TensorFlow Addons ended with TensorFlow 2.15, and both with Python 3.11. Later releases of
# TensorFlow include Keras 3; tf_keras is the Keras 2 that this package is written for.
OLD, NEW = '; python_version < "3.12"', '; python_version >= "3.12"'

SERVING = [f"tensorflow-serving-api==2.15.1{OLD}", f"tensorflow-serving-api==2.21.0{NEW}"]
# The same TensorFlow with the CUDA libraries that it was built with.
GPU = [f"tensorflow[and-cuda]==2.15.1{OLD}", f"tensorflow[and-cuda]==2.21.0{NEW}"]
SEARCH = [
    # The search service, its server, its uploads and its metrics.
    "fastapi",
    "uvicorn",
    "python-multipart",
    "prometheus-client",
]
# For an index on a Milvus server. It also installs milvus-lite, which is not used.
MILVUS = ["pymilvus<2.6"]
# Bulk embedding on several machines; it includes Dask.
CLUSTER = ["distributed"]
DEV = [
    "hypothesis",
    # Client of the search service in tests.
    "httpx",
    # Checks that no layer of the package imports from a layer above it.
    "import-linter",
    "mypy",
    # Drives the system's Chromium in the test of the search page; it downloads no browser.
    "playwright",
    "pytest",
    "pytest-cov",
    "pytest-xdist",
    # Reads the written Kubernetes and Docker manifests in tests.
    "pyyaml",
    "ruff",
    # Finds dead code.
    "vulture",
    "wheel",
]
DOCS = [
    # The site of docs/, with search.
    "mkdocs-material",
    # The site's reference, from docstrings; it reads the sources without importing them.
    "mkdocstrings[python]",
]

setup(
    name="apparel_embed",
    version=VERSION,
    description="One embedding model for every apparel vertical, learnt from one specialist each.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["apparel_embed", "apparel_embed.*"]),
        # Next to the package in a clone, inside it in a wheel: apparel_embed/cli/binaries.py.
        "apparel_embed.flags",
        "apparel_embed.tools",
    ],
    package_dir={"apparel_embed.flags": "flags", "apparel_embed.tools": "tools"},
    entry_points={"console_scripts": ["apparel_embed = apparel_embed.__main__:main"]},
    package_data={
        "apparel_embed.flags": ["*.flags"],
        "apparel_embed": [
            "py.typed",
            "report/templates/*.html",
            "search/page/*",
            "serving/templates/*",
            "serving/templates/kit/*",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)),
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.9,<3.14",
    install_requires=[
        "absl-py",
        "array-record",
        # Perceptual hashes, which find copies of images that were re-saved or shrunk.
        "imagehash",
        # Pages of the reports; it escapes names of verticals and items by default.
        "jinja2",
        "keras-cv==0.9.0",
        "matplotlib",
        f"numpy<2{OLD}",
        f"numpy>=2{NEW}",
        # Tables of images in .xlsx.
        "openpyxl",
        # HEIC, which phones write, for Pillow; pi-heif only decodes, without GPL code.
        'pi-heif; python_version >= "3.10"',
        # The last release with wheels for Python 3.9.
        'pi-heif==1.1.1; python_version < "3.10"',
        # Pillow 11.3 is the first with AVIF built in.
        "Pillow>=11.3",
        "pyarrow",
        # Average precision of detectors, with the code of the COCO benchmark.
        "pycocotools",
        # The client's REST side; urllib3 does the retries.
        "requests",
        "rich",
        # t-SNE, for the report's map of embeddings.
        "scikit-learn",
        "scipy",
        # TensorBoard 2.15 imports pkg_resources, which setuptools 81 drops.
        "setuptools<81",
        f"tensorboard<2.16{OLD}",
        f"tensorboard>=2.20{NEW}",
        f"tensorflow==2.15.1{OLD}",
        f"tensorflow-addons==0.23.0{OLD}",
        f"tensorflow==2.21.0{NEW}",
        f"tf-keras==2.21.0{NEW}",
        # keras-cv imports tensorflow-datasets, whose later releases need another protobuf.
        f"tensorflow-datasets<4.9.5{OLD}",
        f"tensorflow-metadata<1.16{OLD}",
        'tensorflow-metadata<1.14; python_version < "3.11"',
        # Earlier releases have no wheels for Python 3.13.
        f"dm-tree>=0.1.9{NEW}",
        # Limits t-SNE to one thread; otherwise its result changes from call to call.
        "threadpoolctl",
        "tqdm",
        "urllib3>=2",
    ],
    extras_require={
        "serving": SERVING,
        "search": SEARCH,
        "milvus": MILVUS,
        "gpu": GPU,
        "cluster": CLUSTER,
        "dev": DEV,
        "docs": DOCS,
    },
)
