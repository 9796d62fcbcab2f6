"""Video, camera or stream in, the same video with the prediction over it out."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import Contract, TestProtocol
from ffnet_deploy.core.errors import DataError, StorageError
from ffnet_deploy.core.files import atomic_path
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.images import check_pixels
from ffnet_deploy.evaluation.overlays import blended, legend_picture
from ffnet_deploy.evaluation.pipeline import predict_stream
from ffnet_deploy.evaluation.protocol import Prediction, PredictOptions

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts"})
"""File name endings, in lower case, of what is read as a video."""


@dataclass(frozen=True)
class VideoResult:
    """What was written.

    Attributes:
        frames: Number of frames.
        seconds: Wall time of decoding, predicting, drawing and encoding.
    """

    frames: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames per second of the whole run."""
        return self.frames / self.seconds


def is_live(source: str) -> bool:
    """Whether `source` has no end of its own: the number of a camera, or an address such as ``rtsp://...``."""
    return source.isdecimal() or "://" in source


def is_video(source: str) -> bool:
    """Whether `source` is read as a video: a camera, an address, or a file by its ending."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def predict_video(
    engine: Engine,
    source: str,
    out: Path,
    protocol: TestProtocol | None = None,
    options: PredictOptions | None = None,
    limit: int | None = None,
    progress: Progress = no_progress,
) -> VideoResult:
    """Write the video `source` with each frame tinted by class, and a legend of all classes below.

    Times and rate of the frames are kept. A camera or stream is read until `limit` frames are done or a signal comes:
    what was seen until then is then published. A file that is interrupted leaves nothing.

    Args:
        engine: Runs the network.
        source: Video file, number of a camera, or address.
        out: Video to write (.mp4), atomically.
        protocol: How to resize and cut; None takes the artefact's own.
        options: Scales, mirroring, batch and thresholds.
        limit: Number of frames at most; None for all.
        progress: Told of the frames done.

    Raises:
        DataError: the source cannot be opened or read, or has no frame.
        MissingPackageError: PyAV is not installed.
        StorageError: the video cannot be encoded or written.
    """
    av = optional("av", extra="video", purpose="reading and writing video")
    begin, frames = time.perf_counter(), 0
    with atomic_path(out) as temporary, _opened(av, source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        writer = _Writer(av, temporary, stream, engine.contract)
        total = limit or stream.frames or None
        predictions = predict_stream(
            engine,
            islice(_frames(av, container, source), limit),
            lambda frame: (frame.to_ndarray(format="bgr24"), None),
            writer.write,
            protocol,
            options,
            name=lambda frame: f"a frame of {source}",
        )
        try:
            with closing(predictions):  # its thread, which encodes, ends before the writer is closed
                for frames, _ in enumerate(predictions, 1):
                    progress(f"predicting {source}", frames, total)
            writer.close()
        except KeyboardInterrupt:
            writer.close()
            if not is_live(source) or frames == 0:
                raise
            stopping.heed()
        except av.error.FFmpegError as error:  # those of reading are told by `_frames`
            if isinstance(error, OSError):
                raise
            raise StorageError(
                f"the video {out} cannot be encoded: {error.strerror or error}.\n"
                f"  to do    convert {source} to a smaller size"
            ) from error
        if frames == 0:
            raise DataError(f"{source} holds no frame that can be read.\n  to do    play it, and convert it to .mp4")
    return VideoResult(frames, time.perf_counter() - begin)


def _opened(av: Any, source: str) -> Any:
    try:
        container = av.open(f"/dev/video{source}", format="v4l2") if source.isdecimal() else av.open(source)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"cannot open the video {source}: {error.strerror or error}") from error
    try:
        if not container.streams.video:
            raise DataError(f"{source} holds no video")
        stream = container.streams.video[0]
        check_pixels(stream.width * stream.height, f"a frame of {source}")
        if stream.width < 2:
            raise DataError(f"the frames of {source} are {stream.width} pixel wide: videos are written from 2 on")
    except DataError:
        container.close()
        raise
    return container


def _frames(av: Any, container: Any, source: str) -> Iterator[Any]:
    try:
        yield from container.decode(video=0)
    except av.error.FFmpegError as error:
        raise DataError(f"the video {source} cannot be decoded: {error.strerror or error}") from error


class _Writer:
    """Encodes frames with the times of the frames they come from."""

    def __init__(self, av: Any, path: Path, source: Any, contract: Contract) -> None:
        self._av, self._contract = av, contract
        self._legend = legend_picture(list(range(len(contract.classes))), contract, source.width, unscored=False)
        self._container = av.open(str(path), "w", format="mp4")
        self._container.metadata["comment"] = WRITTEN_BY
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=source.average_rate or 25)
        self._stream.width = source.width // 2 * 2
        self._stream.height = (source.height + len(self._legend)) // 2 * 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = source.time_base

    def write(self, frame: Any, image: NDArray[np.uint8], extra: None, prediction: Prediction) -> None:
        """Draw and encode one frame.

        Raises:
            DataError: it is of another size than the first.
        """
        if image.shape[1] != self._legend.shape[1]:
            raise DataError("the frames of the video change their size.\n  to do    convert it to one size first")
        drawn = np.concatenate([blended(image, prediction.labels, self._contract.palette), self._legend])
        even = np.ascontiguousarray(drawn[: self._stream.height, : self._stream.width])
        encoded = self._av.VideoFrame.from_ndarray(even, format="bgr24")
        encoded.pts, encoded.time_base = frame.pts, frame.time_base
        self._container.mux(self._stream.encode(encoded))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._container.mux(self._stream.encode())
        self._container.close()
