# The image of GPU nodes: vLLM's own, which has CUDA, torch, vLLM and DeepEP in it, with Ray and r1-serve on top.
#   docker build -f deploy/images/gpu.Dockerfile -t registry.example/r1-serve:0.1.0 .
# Its vLLM is the one that requirements/gpu.lock pins; torch and CUDA's libraries stay the image's.
ARG VLLM=v0.32.0
FROM vllm/vllm-openai:${VLLM}

COPY requirements/gpu.lock pyproject.toml README.md LICENSE /src/
COPY orchestrator /src/orchestrator
COPY loadtest /src/loadtest
# What the image has is kept: only what is missing comes, in the versions of the lock.
RUN cd /src && pip freeze --exclude-editable | grep -viE '^(ray|r1-serve)\b' > /tmp/there.txt \
 && pip install --no-cache-dir --constraint /tmp/there.txt '.[loadtest]' \
 && pip install --no-cache-dir --no-deps $(grep -oE "^(nixl|mooncake-transfer-engine)==[^ ]+" gpu.lock) \
 && python3 -c 'import ray, vllm, orchestrator' \
 && rm -rf /src /tmp/there.txt

# Pods run as 1000 with a read-only root: whoever asks for a home gets one that can be written.
RUN id r1 2>/dev/null || useradd --uid 1000 --home-dir /tmp --no-create-home r1 || true
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000
ENTRYPOINT []
