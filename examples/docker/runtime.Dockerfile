# Scoring, timing and prediction of exported graphs on CPUs, without PyTorch.
#   docker build -f examples/docker/runtime.Dockerfile -t ffnet-runtime .     (in the checkout)
#   docker run --rm -v "$PWD:/work" ffnet-runtime ffnet-eval --artifact export/NET.onnx --data DATA
# On a GPU: --build-arg BASE=IMAGE with an image of NVIDIA's that has CUDA and Python, --build-arg EXTRAS=[tensorrt].
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG EXTRAS=[openvino,video]
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ffnet_deploy ffnet_deploy
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS}"
WORKDIR /work
CMD ["ffnet-eval", "--help"]
