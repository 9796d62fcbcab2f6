# Training and export, with PyTorch; on a machine with an NVIDIA GPU the pinned PyTorch is the CUDA build.
#   docker build -f examples/docker/convert.Dockerfile -t ffnet-convert .     (in the checkout)
#   docker run --rm -v "$PWD:/work" ffnet-convert ffnet-export --config ffnet_seg_nano_scenes --shape 288x576
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ffnet_deploy ffnet_deploy
RUN pip install --no-cache-dir --constraint constraints.txt '.[train,openvino]'
WORKDIR /work
CMD ["ffnet-export", "--help"]
