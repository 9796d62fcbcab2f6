"""Downloads arrive whole or not at all, and go on where they stopped."""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.core.errors import CheckpointError, StorageError
from ffnet_deploy.segmentor import zoo
from tests.core.test_files import largest_file, names

FILE = "ffnet_seg.pth.tar"
CONTENT = b"PK\x03\x04" + np.random.default_rng(0).bytes(300_000 - 4)


class Zoo(ThreadingHTTPServer):
    """A server of one file on this machine; keeps what it was asked for.

    Attributes:
        content: of the file.
        ranges: whether it honours range requests.
        breaks: bytes after which it closes the connection, once for each entry.
        reset: whether it then resets the connection instead of closing it.
        stalls: whether it then keeps the connection open and silent.
        etag: mark of the file's version; None: it sends none.
        asked: `Range` header of each request; None where there was none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.sized = CONTENT, True, True
        self.breaks: list[int] = []
        self.reset = self.stalls = False
        self.etag: str | None = None
        self.asked: list[str | None] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence: clients break off on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: Zoo

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range"))
        if self.path != f"/{FILE}":
            self.send_error(404)
            return
        content, start = self.server.content, self.asked_start()
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_head(start, len(content))
        self.send_body(content[start:])

    def asked_start(self) -> int:
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, self.server.etag)
        return int(asked.group(1)) if asked and self.server.ranges and same else 0

    def send_head(self, start: int, total: int) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        if self.server.sized:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()

    def send_body(self, body: bytes) -> None:
        if not self.server.breaks:
            self.wfile.write(body)
            return
        self.wfile.write(body[: self.server.breaks.pop(0)])
        self.wfile.flush()
        if self.server.stalls:
            self.server.release.wait(20)
        if self.server.reset:
            time.sleep(0.2)  # a reset also throws away what the client has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Zoo]:
    """A zoo on this machine, and a cache folder that does not exist yet."""
    running = Zoo()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("FFNET_DEPLOY_ZOO", running.url)
    monkeypatch.setenv("FFNET_DEPLOY_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.release.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def partial(cache: Path, content: bytes) -> Path:
    """A download that broke off earlier."""
    cache.mkdir()
    (cache / f"{FILE}.part").write_bytes(content)
    return cache / f"{FILE}.part"


def assert_whole(cache: Path) -> None:
    assert (cache / FILE).read_bytes() == CONTENT
    assert names(cache) == [FILE, f"{FILE}.sha256"]
    assert (cache / f"{FILE}.sha256").read_text() == f"{sha256(CONTENT).hexdigest()}  {FILE}\n"


def test_a_file_is_downloaded_once_and_its_hash_recorded(server: Zoo, cache: Path) -> None:
    assert zoo.fetch(FILE) == cache / FILE
    assert_whole(cache)
    assert zoo.fetch(FILE) == cache / FILE
    assert server.asked == [None]


def test_progress_is_told_in_bytes(server: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_BLOCK", 100_000)
    seen: list[tuple[int, int | None]] = []
    zoo.fetch(FILE, progress=lambda stage, done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_broken_download_leaves_no_file_and_is_resumed(server: Zoo, cache: Path, reset: bool) -> None:
    server.breaks, server.reset = [120_000], reset
    with pytest.raises(CheckpointError, match=r"cannot download http.*\.\n  to do    run the command again") as caught:
        zoo.fetch(FILE)
    assert names(cache) == [f"{FILE}.part"]
    kept = (cache / f"{FILE}.part").stat().st_size
    assert f"; {kept} bytes are kept and will be resumed" in str(caught.value) or not kept
    zoo.fetch(FILE)
    assert_whole(cache)
    assert server.asked == [None, f"bytes={kept}-" if kept else None]
    assert kept == 120_000 or reset


def test_progress_of_a_resumed_download_counts_what_is_there(server: Zoo, cache: Path) -> None:
    partial(cache, CONTENT[:200_000])
    seen: list[tuple[int, int | None]] = []
    zoo.fetch(FILE, progress=lambda stage, done, total: seen.append((done, total)))
    assert min(done for done, _ in seen) > 200_000 and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_download_that_breaks_off_often_arrives_in_the_end(server: Zoo, cache: Path) -> None:
    server.breaks = [70_000] * 4
    for _ in range(4):
        with pytest.raises(CheckpointError):
            zoo.fetch(FILE)
    zoo.fetch(FILE)
    assert_whole(cache)


def test_a_server_without_ranges_begins_again(server: Zoo, cache: Path) -> None:
    server.ranges = False
    partial(cache, b"something else entirely")
    zoo.fetch(FILE)
    assert_whole(cache)


def test_a_server_that_tells_no_length_is_enough(server: Zoo, cache: Path) -> None:
    server.sized = False
    zoo.fetch(FILE)
    assert_whole(cache)


def test_a_whole_partial_file_is_taken_as_it_is(server: Zoo, cache: Path) -> None:
    partial(cache, CONTENT)
    zoo.fetch(FILE)
    assert_whole(cache)
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_longer_than_the_file_is_thrown_away(server: Zoo, cache: Path) -> None:
    partial(cache, CONTENT + b"more")
    zoo.fetch(FILE)
    assert_whole(cache)
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_file_that_is_not_there_is_one_clear_error(server: Zoo, cache: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot download http.*/absent\.pth \(the server answers 404 Not Found\)"
    ):
        zoo.fetch("absent.pth")
    assert names(cache) == []


def test_a_silent_server_is_one_clear_error(server: Zoo, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_TIMEOUT_S", 0.3)
    server.breaks, server.stalls = [100], True
    with pytest.raises(CheckpointError, match=r"cannot download .*timed out"):
        zoo.fetch(FILE)
    assert not (cache / FILE).exists()


def test_being_offline_is_one_clear_error(server: Zoo, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FFNET_DEPLOY_ZOO", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(CheckpointError) as caught:
            zoo.fetch(FILE)
    message = str(caught.value)
    assert "refused" in message and f"download the file elsewhere and put it at {cache / FILE}" in message
    assert names(cache) == []


@pytest.mark.parametrize("address", ["not an address", "http://", "nowhere://host"])
def test_an_address_that_is_none_is_one_clear_error(server: Zoo, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FFNET_DEPLOY_ZOO", address)
    with pytest.raises(CheckpointError, match="cannot download"):
        zoo.fetch(FILE)


def test_a_file_changed_since_its_download_is_refused(server: Zoo, cache: Path) -> None:
    path = zoo.fetch(FILE)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(
        CheckpointError, match=rf"has changed since it was downloaded[\s\S]*--refresh, or delete it and {FILE}\.sha256"
    ):
        zoo.fetch(FILE)


def test_a_damaged_record_is_refused_too(server: Zoo, cache: Path) -> None:
    zoo.fetch(FILE)
    (cache / f"{FILE}.sha256").write_bytes(b"")
    with pytest.raises(CheckpointError, match="has changed since it was downloaded"):
        zoo.fetch(FILE)


def test_a_file_put_there_by_hand_is_recorded(server: Zoo, cache: Path) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(CONTENT)
    zoo.fetch(FILE)
    assert_whole(cache)
    assert server.asked == []


def test_ctrl_c_keeps_the_part_and_no_file(server: Zoo, cache: Path) -> None:
    def interrupt(stage: str, done: float = 0, total: float | None = None, /) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.fetch(FILE, progress=interrupt)
    assert names(cache) == [f"{FILE}.part"]
    zoo.fetch(FILE)
    assert_whole(cache)


def test_a_full_disk_is_one_clear_error(server: Zoo, cache: Path) -> None:
    with largest_file(1 << 16), pytest.raises(StorageError, match="no room left"):
        zoo.fetch(FILE)
    assert not (cache / FILE).exists()


def test_a_cache_that_cannot_be_made_is_one_clear_error(server: Zoo, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        zoo.fetch(FILE)
    assert server.asked == []


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FFNET_DEPLOY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert zoo.cache_folder() == tmp_path / "ffnet-deploy"
    monkeypatch.setenv("FFNET_DEPLOY_CACHE", str(tmp_path / "mine"))
    assert zoo.cache_folder() == tmp_path / "mine"


def test_published_means_the_authors_file_of_the_config(
    server: Zoo, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.PUBLISHED, "ffnet_seg_512_ade_160k", FILE)
    assert zoo.resolve_checkpoint("published", "ffnet_seg_512_ade_160k") == cache / FILE
    assert zoo.resolve_checkpoint("my/own.pth", "ffnet_seg_512_ade_160k") == Path("my/own.pth")


def test_configs_without_a_checkpoint_list_those_with_one() -> None:
    with pytest.raises(
        CheckpointError, match=r"no checkpoint was published for config x\.\n  published  upernet_ffnet_2"
    ):
        zoo.resolve_checkpoint("published", "x")
    with pytest.raises(CheckpointError, match=r"no checkpoint is bundled for config x\.\n  bundled"):
        zoo.resolve_checkpoint("bundled", "x")


def test_the_zoo_names_the_release_files() -> None:
    assert zoo.RELEASE == "https://github.com/ysj9909/FFNet/releases/download/v1.0"
    assert set(zoo.PUBLISHED.values()) == {
        "upernet_ffnet_2_512_160k_ade20k.pth",
        "upernet_ffnet_3_512_160k_ade20k.pth",
        "upernet_ffnet_4_512_160k_ade20k.pth",
        "ffnet_seg_sys_512_160k_ade20k.pth",
        "ffnet_seg_sys_1024_160k_cityscapes.pth",
    }


def test_a_login_page_is_neither_kept_nor_recorded(server: Zoo, cache: Path) -> None:
    server.content = b"<!DOCTYPE html><title>Welcome to the hotel</title>" * 40
    with pytest.raises(CheckpointError, match=r"is a web page, and is not kept[\s\S]*log in"):
        zoo.fetch(FILE)
    assert names(cache) == []
    server.content = CONTENT
    zoo.fetch(FILE)
    assert_whole(cache)


def test_a_new_version_is_not_glued_to_the_old_ones_beginning(server: Zoo, cache: Path) -> None:
    server.etag, server.breaks = '"one"', [100_000]
    server.content = b"PK\x03\x04" + bytes(300_000)
    with pytest.raises(CheckpointError, match="will be resumed"):
        zoo.fetch(FILE)
    server.etag, server.content = '"two"', CONTENT
    zoo.fetch(FILE)
    assert_whole(cache)


def test_the_same_version_is_resumed(server: Zoo, cache: Path) -> None:
    server.etag, server.breaks = '"one"', [100_000]
    with pytest.raises(CheckpointError, match="will be resumed"):
        zoo.fetch(FILE)
    zoo.fetch(FILE)
    assert_whole(cache)
    assert server.asked == [None, "bytes=100000-"]


def test_a_broken_file_is_fetched_anew_on_demand(server: Zoo, cache: Path) -> None:
    zoo.fetch(FILE).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="--refresh"):
        zoo.fetch(FILE)
    zoo.fetch(FILE, refresh=True)
    assert_whole(cache)
    assert server.asked == [None, None]


def test_one_downloads_while_others_wait(server: Zoo, cache: Path) -> None:
    stages: list[str] = []
    threads = [
        threading.Thread(target=zoo.fetch, args=(FILE,), kwargs={"progress": lambda stage, *_: stages.append(stage)})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(cache)
    assert server.asked == [None]
    assert any("waiting for another" in stage for stage in stages) or len(set(stages)) == 1
