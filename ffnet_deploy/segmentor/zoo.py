"""Checkpoints by word: `published` downloads the authors' file for a config, `bundled` is one that comes along."""

import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from typing import Any

from ffnet_deploy.core.errors import CheckpointError, StorageError
from ffnet_deploy.core.files import locked, make_folder, sha256, storage_errors, write_bytes
from ffnet_deploy.core.progress import Progress, no_progress


@dataclass(frozen=True)
class PublishedScore:
    """The mIoU that a network is known to have.

    Attributes:
        dataset: Name of the data set.
        images: Number of images that were scored.
        miou: At one scale, percent.
        augmented: With multi-scale and flip, percent; None where it was not published.
        split: Part of the data set that they are of.
    """

    dataset: str
    images: int
    miou: float
    augmented: float | None = None
    split: str = "val"


RELEASE = "https://github.com/ysj9909/FFNet/releases/download/v1.0"
PUBLISHED = {
    "upernet_ffnet_2_512_160k_ade20k": "upernet_ffnet_2_512_160k_ade20k.pth",
    "upernet_ffnet_3_512_160k_ade20k": "upernet_ffnet_3_512_160k_ade20k.pth",
    "upernet_ffnet_4_512_160k_ade20k": "upernet_ffnet_4_512_160k_ade20k.pth",
    "ffnet_seg_512_ade_160k": "ffnet_seg_sys_512_160k_ade20k.pth",
    "ffnet_seg_1024_city_160k": "ffnet_seg_sys_1024_160k_cityscapes.pth",
}
"""File of each published segmentor, by config name."""
SCORES = {
    "upernet_ffnet_2_512_160k_ade20k": PublishedScore("ADE20K", 2000, 47.1, 47.8),
    "upernet_ffnet_3_512_160k_ade20k": PublishedScore("ADE20K", 2000, 49.6, 50.2),
    "upernet_ffnet_4_512_160k_ade20k": PublishedScore("ADE20K", 2000, 50.7, 51.7),
    "ffnet_seg_512_ade_160k": PublishedScore("ADE20K", 2000, 50.1, 51.2),
    "ffnet_seg_1024_city_160k": PublishedScore("Cityscapes", 500, 83.2, 84.1),
    "ffnet_seg_nano_scenes": PublishedScore("generated scenes", 100, 85.56, split="test"),
    "ffnet_seg_nano_camvid": PublishedScore("CamVid", 101, 64.03),
}
"""mIoU by config name: as published (arXiv 2406.02021), and of the bundled networks as their cards say."""
PRETRAINED = {
    "ffnet_2": "ffnet_2_distillation.pth.tar",
    "ffnet_3": "ffnet_3_distillation.pth.tar",
    "ffnet_4": "ffnet_4_384.pth.tar",
    "ffnet_seg": "ffnet_seg.pth.tar",
}
"""File of each ImageNet-pretrained backbone."""
RANDOM = "random"
"""In place of a checkpoint: the network keeps its initial weights."""
BUNDLED_FOLDER = Path(__file__).parent / "checkpoints"
_BLOCK = 1 << 20
_TIMEOUT_S = 30


def cache_folder() -> Path:
    """Where downloads are kept: $FFNET_DEPLOY_CACHE, or `ffnet-deploy` in the user's cache folder."""
    own = os.environ.get("FFNET_DEPLOY_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ffnet-deploy"


def checkpoint_here(config_name: str) -> Path | None:
    """The checkpoint of a packaged config that needs no download: bundled, or published and in the cache."""
    published = PUBLISHED.get(config_name)
    candidates = [BUNDLED_FOLDER / f"{config_name}.safetensors", *([cache_folder() / published] if published else [])]
    return next((path for path in candidates if path.is_file()), None)


def resolve_checkpoint(
    source: str | PathLike[str], config_name: str, progress: Progress = no_progress, refresh: bool = False
) -> Path:
    """The file meant by `source`: a path, ``"published"`` or ``"bundled"``; `refresh` downloads a published one anew.

    Raises:
        CheckpointError: no such checkpoint exists for `config_name`, or it cannot be downloaded.
    """
    if str(source) == "published":
        return published_checkpoint(config_name, progress, refresh)
    if str(source) == "bundled":
        return bundled_checkpoint(config_name)
    return Path(source)


def chosen_checkpoint(source: str | None, config_name: str) -> str | None:
    """What `resolve_checkpoint` is to be asked for: `source` itself, by default the bundled one; None: random weights.

    Raises:
        CheckpointError: nothing was chosen and nothing is bundled.
    """
    if source is not None:
        return None if source == RANDOM else source
    if (BUNDLED_FOLDER / f"{config_name}.safetensors").is_file():
        return "bundled"
    raise CheckpointError(
        f"which weights? No checkpoint is bundled for {config_name}.\n"
        "  to do    add --checkpoint FILE, --checkpoint published, or --checkpoint random (to try things out)"
    )


def bundled_checkpoint(config_name: str) -> Path:
    """The checkpoint that is installed with the package for `config_name`."""
    path = BUNDLED_FOLDER / f"{config_name}.safetensors"
    if path.is_file():
        return path
    names = ", ".join(sorted(file.stem for file in BUNDLED_FOLDER.glob("*.safetensors"))) or "none"
    raise CheckpointError(f"no checkpoint is bundled for config {config_name}.\n  bundled  {names}")


def published_checkpoint(config_name: str, progress: Progress = no_progress, refresh: bool = False) -> Path:
    """The authors' checkpoint for `config_name`, downloaded once, or anew with `refresh`, and checked by hash."""
    if config_name not in PUBLISHED:
        raise CheckpointError(
            f"no checkpoint was published for config {config_name}.\n  published  {', '.join(PUBLISHED)}"
        )
    return fetch(PUBLISHED[config_name], progress=progress, refresh=refresh)


def fetch(name: str, folder: Path | None = None, progress: Progress = no_progress, refresh: bool = False) -> Path:
    """The zoo's file `name`: from the cache when its hash still holds, else downloaded, resuming what is there.

    One process downloads at a time; others wait for it. A download's hash is recorded once the bytes are a checkpoint.

    Args:
        name: of the file.
        folder: cache; None: `cache_folder`.
        progress: called with the bytes downloaded.
        refresh: download it anew, whatever the cache holds.

    Raises:
        CheckpointError: the zoo cannot be reached, breaks off, gives something else than a checkpoint, or the cached
            file has changed since its download.
        StorageError: the cache cannot be written.
    """
    path = make_folder(folder or cache_folder()) / name
    record = path.with_name(f"{name}.sha256")
    with locked(path, lambda: progress("waiting for another process that downloads this checkpoint")):
        if refresh:
            with storage_errors(path):
                for old in (record, path, _partial(path), _validator(path)):
                    old.unlink(missing_ok=True)
        if not path.is_file():
            _download(f"{os.environ.get('FFNET_DEPLOY_ZOO', RELEASE)}/{name}", path, progress)
        if not record.is_file():
            _check_checkpoint(path)
            write_bytes(record, f"{sha256(path)}  {name}\n".encode())
    expected = (record.read_text(errors="replace").split() or ["(empty)"])[0]
    if sha256(path) != expected:
        raise CheckpointError(
            f"{path} has changed since it was downloaded: its SHA-256 is no longer {expected[:16]}….\n"
            f"  to do    fetch it anew with --checkpoint published --refresh, or delete it and {record.name}"
        )
    return path


def _check_checkpoint(path: Path) -> None:
    """Remove a new file that is no checkpoint, a login page for instance, and say so."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith((b"PK\x03\x04", b"\x80")) or (path.suffix == ".safetensors" and head[8:9] == b"{"):
        return
    found = "a web page" if head.lstrip()[:1] == b"<" else f"{path.stat().st_size} bytes that no checkpoint begins with"
    path.unlink()
    raise CheckpointError(
        f"what was downloaded as {path.name} is {found}, and is not kept.\n"
        f"  to do    log in to the network, or download the file elsewhere and put it at {path}"
    )


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _validator(path: Path) -> Path:
    """Where the server's mark of the version lies that `_partial` is the beginning of."""
    return path.with_name(f"{path.name}.part.etag")


def _download(url: str, path: Path, progress: Progress) -> None:
    partial = _partial(path)
    try:
        if not _append(url, path, progress):  # what is there cannot be resumed
            with storage_errors(partial):
                partial.unlink()
            _append(url, path, progress)
    except StorageError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        kept = partial.stat().st_size if partial.is_file() else 0
        resumed = f"; {kept} bytes are kept and will be resumed" if kept else ""
        raise CheckpointError(
            f"cannot download {url} ({_reason(error)}){resumed}.\n"
            f"  to do    run the command again online, or download the file elsewhere and put it at {path}"
        ) from error
    with storage_errors(path):
        partial.replace(path)
        _validator(path).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _append(url: str, path: Path, progress: Progress) -> bool:
    """Download the rest of `url` behind what is there of `path`; False when that is no beginning of the file."""
    partial, validator = _partial(path), _validator(path)
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and validator.is_file():  # another version of the file is sent whole
        headers["If-Range"] = validator.read_text(encoding="ascii", errors="replace").strip()
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            start = 0
            if response.status == 206:  # a partial answer says where its bytes begin
                found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
                start = int(found.group(1)) if found else -1
            if start not in (0, done):
                return False
            total = _total(response.headers, start)
            if not start:
                _keep_validator(validator, response.headers)
            done = _copy(response, partial, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing lies behind what is there: it is the whole file, or another one
            return _total(error.headers, 0) == done
        raise
    if total is not None and done != total:
        raise ConnectionError(f"the connection broke off after {done} of {total} bytes")
    return True


def _keep_validator(path: Path, headers: Message) -> None:
    """Keep the strong ETag, or the date, by which the server tells versions of a file apart."""
    etag = headers.get("ETag") or ""
    mark = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified") or ""
    if mark.isascii() and mark:
        write_bytes(path, mark.encode())
    else:
        path.unlink(missing_ok=True)


def _total(headers: Message, start: int) -> int | None:
    whole = re.search(r"/(\d+)$", headers.get("Content-Range") or "")
    if whole:
        return int(whole.group(1))
    length = headers.get("Content-Length")
    return start + int(length) if length else None


def _copy(response: Any, partial: Path, done: int, total: int | None, progress: Progress) -> int:
    with storage_errors(partial):
        file = partial.open("ab" if done else "wb")
    with file:
        while block := response.read1(_BLOCK):
            with storage_errors(partial):
                file.write(block)
                file.flush()
            done += len(block)
            progress("downloading the checkpoint", done, total)
    return done
