from pathlib import Path

import pytest

pytest.importorskip("mmseg")

from tiny import write_data  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))
