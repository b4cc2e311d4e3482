# docker build -t tumorreg .
# docs/containers.md says what the arguments are for, how large the image is, and why.
ARG BASE=debian:bookworm-20250520-slim@sha256:90522eeb7e5923ee2b871c639059537b30521272f10ca86fdbbbb2b75a8c40cd
# An image with native ANTs in /opt/ants, as antsx/ants is; without one, antspyx is used.
ARG ANTS=scratch

FROM ${ANTS} AS ants
# so that there is something to copy even where this is scratch
COPY LICENSE /opt/ants/.keep

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
# Any user may run the image, with no home to write to: caches go to /tmp.
ENV PATH=/opt/tumorreg/bin:/opt/ants/bin:$PATH \
    LD_LIBRARY_PATH=/opt/ants/lib \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    MPLCONFIGDIR=/tmp/tumorreg/matplotlib \
    NIPYPE_CONFIG_DIR=/tmp/tumorreg/nipype \
    TEMPLATEFLOW_HOME=/tmp/tumorreg/templateflow
WORKDIR /opt/tumorreg
# What is large and seldom changes comes first, in layers of its own: PyTorch, then the other packages.
# Their tests stay out: an eighth of the image.
COPY constraints.txt .
# A package index with the PyTorch build to use (CPU alone, or another CUDA version); empty takes
# the build of the default index.
ARG TORCH_INDEX=
RUN python3 -m venv . \
    && pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch \
    && find . -type d -name tests -prune -exec rm -r {} +
COPY pyproject.toml setup.cfg src/
COPY tumorreg_wf/__init__.py src/tumorreg_wf/
# A link to src, which is empty so far: the other packages are installed anew only if their list changes.
RUN pip install -c constraints.txt --editable ./src \
    && find . -type d -name tests -prune -exec rm -r {} +
COPY --from=ants /opt/ants /opt/ants
# Not by a mount: Podman would take a layer of an earlier version for this one.
COPY --chmod=755 tumorreg_wf src/tumorreg_wf
RUN python3 -m compileall -q src
LABEL org.opencontainers.image.title="tumorreg" \
      org.opencontainers.image.description="Atlas registration of brain MR images with tumours" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
# The default of --work-dir is below the current folder, which must be one to write to.
WORKDIR /tmp
ENTRYPOINT ["tumorreg"]
