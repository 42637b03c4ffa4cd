# The one image of a cluster: Ray's head and workers, submitters, MLflow's server and its migrations.
#
#     docker build --build-arg PYTHON_IMAGE=... --build-arg DEVICE=cuda --tag REGISTRY/NAME:0.1.0 .
#
# PYTHON_IMAGE has no default, because a digest is a decision of who builds: one of
# python:3.11-slim-bookworm that your scanner has passed, found out by
#     docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
# and given as python@sha256:...; a registry of your own goes in front.
#
# DEVICE=cpu takes PyTorch's build without CUDA from PyTorch's index. DEVICE=cuda takes PyPI's, which
# brings CUDA 13 and NCCL as packages of constraints.txt: nodes need the driver, not the toolkit.
ARG PYTHON_IMAGE
ARG DEVICE=cpu

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY constraints.txt pyproject.toml ./
RUN case "$DEVICE" in \
      cpu) /opt/venv/bin/pip install --no-deps --index-url "$TORCH_CPU_INDEX" -c constraints.txt torch ;; \
      cuda) ;; \
      *) echo "DEVICE=$DEVICE: cpu or cuda" >&2; exit 2 ;; \
    esac
# What it stands on, without the packages themselves, whose words may change.
RUN touch README.md LICENSE && /opt/venv/bin/pip install -c constraints.txt '.[server]'

FROM build AS wheel
COPY README.md LICENSE ./
COPY cluster cluster
COPY models models
COPY orchestrator orchestrator
COPY shards shards
RUN /opt/venv/bin/pip wheel --no-deps -c constraints.txt --wheel-dir /wheel .

FROM ${PYTHON_IMAGE}
ARG DEVICE
ARG RAY_VERSION=2.60.0
LABEL org.opencontainers.image.title="video-orchestrator" \
      org.opencontainers.image.licenses="MIT" \
      io.ray.version="${RAY_VERSION}"
RUN groupadd --gid 10001 orchestrator && \
    useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin orchestrator
# Gigabytes, and with this builder's cache the same until a version changes; what follows is all that
# nodes fetch for new code.
COPY --from=build /opt/venv /opt/venv
# Nothing is written at run time but below HOME and /tmp: the chart's pods have a read-only root.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/orchestrator \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GIT_PYTHON_REFRESH=quiet \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --no-deps --no-index --force-reinstall /wheel/*.whl
RUN python -c "import ray, sys, torch; \
    found = ray.__version__, 'cuda' if torch.version.cuda else 'cpu'; \
    sys.exit(found != ('$RAY_VERSION', '$DEVICE') and f'the image has {found}')"
USER 10001:10001
WORKDIR /home/orchestrator
CMD ["python", "-m", "orchestrator.run"]
