# The main job in a container: docker build -t palaestra . && docker run --rm -v "$PWD/runs:/palaestra/runs" palaestra
# Any Debian base will do: --build-arg BASE=debian:bookworm
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

RUN if ! command -v make || ! python3 -c 'import sys, ensurepip; assert (3, 11) <= sys.version_info[:2] <= (3, 13)'; then \
        apt-get update && \
        apt-get install -y --no-install-recommends make ca-certificates $(command -v python3 >/dev/null && python3 -c 'import ensurepip' || echo python3 python3-venv) && \
        rm -rf /var/lib/apt/lists/*; \
    fi

# pip's own settings, for a mirror or for torch's CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

WORKDIR /palaestra
COPY . .
RUN make PYTHON=python3 .venv/.demo
ENV PATH=/palaestra/.venv/bin:${PATH}
VOLUME /palaestra/runs
ENTRYPOINT ["palaestra"]
CMD ["demo", "--out", "runs/demo"]
