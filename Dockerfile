# docker build -t tumorreg .
# docker run --rm --user "$(id -u):$(id -g)" -v /path/my_data:/data:ro -v /path/out:/out \
#     -v /path/work:/work tumorreg /data /out participant -w /work
#
# TORCH_INDEX: a package index with the PyTorch build to use (CPU only, or another CUDA version);
# empty takes the default index's build.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/tumorreg
# PyTorch is by far the largest part: a layer of its own, kept when the source changes.
COPY constraints.txt .
ARG TORCH_INDEX=
RUN /opt/tumorreg/bin/pip install -c constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY . .
RUN /opt/tumorreg/bin/pip install -c constraints.txt .

FROM ${BASE}
LABEL org.opencontainers.image.title="tumorreg" \
      org.opencontainers.image.description="Atlas registration of brain MR images with tumours" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/tumorreg /opt/tumorreg
# Any user may run the image, with no home to write to: caches go to /tmp.
ENV PATH=/opt/tumorreg/bin:$PATH \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    MPLCONFIGDIR=/tmp/tumorreg/matplotlib \
    NIPYPE_CONFIG_DIR=/tmp/tumorreg/nipype \
    TEMPLATEFLOW_HOME=/tmp/tumorreg/templateflow
# The default of --work-dir is below the current folder, which must be one to write to.
WORKDIR /tmp
ENTRYPOINT ["tumorreg"]
