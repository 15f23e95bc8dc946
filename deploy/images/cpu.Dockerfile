# The image of machines without GPUs: r1-nano on vLLM's CPU build, for trying the chart. `local.sh` makes the same without Docker.
#   docker build -f deploy/images/cpu.Dockerfile -t r1-serve:0.1.0 .
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
      python3 python3-venv ca-certificates libgomp1 libibverbs1 libnuma1 \
 && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python3 -m venv /opt/r1-serve && cd /src \
 && /opt/r1-serve/bin/pip install --no-cache-dir uv \
 && /opt/r1-serve/bin/uv pip install --no-cache --compile-bytecode --python /opt/r1-serve/bin/python --no-deps \
      --torch-backend cpu -r requirements/cpu.lock . ./deploy/cpu \
 && /opt/r1-serve/bin/python -m deploy.images.checkpoint /opt/r1-serve/r1-nano \
 && rm -rf /src && useradd --uid 1000 --home-dir /tmp --no-create-home r1
ENV HOME=/tmp PATH=/opt/r1-serve/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
USER 1000
