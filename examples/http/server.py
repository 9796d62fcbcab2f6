"""A network as an HTTP service: an image in, its label map out.

MODEL=net.onnx uvicorn server:app             # in this folder; pip install 'fastapi' 'uvicorn'
curl --data-binary @street.png localhost:8000/labels > labels.png
"""

import os

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # OpenCV reads it when it is imported

# ruff: noqa: E402
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import cv2
import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

import ffnet_deploy


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the network when the service starts, close it when it ends."""
    with ffnet_deploy.open_engine(os.environ["MODEL"]) as app.state.engine:
        yield


app = FastAPI(title="Semantic segmentation", lifespan=lifespan)


@app.get("/health")
def health() -> dict[str, str]:
    """Answers once the network is open."""
    return {"network": app.state.engine.contract.network}


@app.get("/classes")
def classes() -> list[str]:
    """Names of the classes, in the order of their labels."""
    return list(app.state.engine.contract.classes)


@app.post("/labels")
async def labels(request: Request) -> Response:
    """Label map of the image in the request's body, as a PNG of its size: the class of each pixel."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"images have at most {MAX_BYTES} bytes")
    return Response(await run_in_threadpool(predict, bytes(body)), media_type="image/png")


def predict(body: bytes) -> bytes:
    """The PNG of the label map of an encoded image."""
    try:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR) if body else None
    except cv2.error:  # more pixels than allowed
        image = None
    if image is None:
        raise HTTPException(415, f"the body is no image that OpenCV reads, or has more than {MAX_PIXELS} pixels")
    return cv2.imencode(".png", app.state.engine.predict(image))[1].tobytes()
