from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts import write_manifest
from ffnet_deploy.engines.bundle import KIND


def write_bundle(path: Path, plan: bytes, content: Mapping[str, Any]) -> None:
    """An engine's file with its manifest."""
    path.write_bytes(plan)
    write_manifest(path, KIND, content)
