# The main job in a container: docker build -t palaestra . && docker run --rm -v "$PWD/runs:/palaestra/runs" palaestra
# Any Debian base will do: --build-arg BASE=debian:bookworm
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# What the base lacks of make, certificates and a Python that can make virtual environments.
RUN needed=""; \
    command -v make >/dev/null || needed="make"; \
    test -e /etc/ssl/certs/ca-certificates.crt || needed="$needed ca-certificates"; \
    python3 -c 'import sys, ensurepip; assert (3, 11) <= sys.version_info[:2] <= (3, 13)' 2>/dev/null \
        || needed="$needed python3 python3-venv"; \
    if [ -n "$needed" ]; then \
        apt-get update -qq && apt-get install -qq -y --no-install-recommends $needed && rm -rf /var/lib/apt/lists/*; \
    fi

# pip's own settings, for a mirror or for torch's CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG PIP_NO_CACHE_DIR=1

# torch in a layer of its own, which a change of the sources leaves as it is.
WORKDIR /palaestra
COPY Makefile constraints.txt ./
RUN make PYTHON=python3 .venv/.torch
COPY . .
RUN make PYTHON=python3 .venv/.demo

# Also for `docker run --user`, so that what a run writes belongs to you.
ENV PATH=/palaestra/.venv/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1
VOLUME /palaestra/runs
ENTRYPOINT ["palaestra"]
CMD ["demo", "--out", "runs/demo"]
