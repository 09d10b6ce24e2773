# Trains on CPUs:           docker build -t apparel_embed .
# Trains on NVIDIA GPUs:    docker build -t apparel_embed:gpu --build-arg EXTRAS=serving,search,gpu .
#
#   docker run --rm --gpus all -v "$PWD/photos:/photos:ro" -v "$PWD/runs:/apparel_embed/runs" apparel_embed:gpu \
#     python tools/run_pipeline.py --manifest=/photos/manifest.csv --run_dir=runs/mine
#
# GPUs need the NVIDIA Container Toolkit and a driver for CUDA 12.5 or later on the host.
FROM python:3.12-slim

ARG EXTRAS=serving,search
RUN useradd --create-home --uid 1000 trainer
WORKDIR /apparel_embed

# Dependencies first, because they rarely change. Installing them needs only the package's version and folders.
COPY requirements.lock setup.py README.md ./
COPY apparel_embed/__init__.py apparel_embed/__init__.py
RUN mkdir tools flags && pip install --no-cache-dir -c requirements.lock ".[${EXTRAS}]" && pip uninstall --yes apparel_embed

COPY apparel_embed apparel_embed
COPY tools tools
COPY flags flags
RUN mkdir runs && chown trainer runs
ENV PYTHONPATH=/apparel_embed
USER 1000
CMD ["python", "tools/run_pipeline.py", "--help"]
