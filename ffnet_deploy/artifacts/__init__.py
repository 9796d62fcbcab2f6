"""How a file comes to be: locked, staged, verified, published with its manifest, or kept as evidence."""

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, write_manifest
from ffnet_deploy.artifacts.outputs import Kind, Outputs, is_own
from ffnet_deploy.artifacts.staging import Draft, Gate, publish, rejected_folder, staged

__all__ = [
    "Draft",
    "Gate",
    "Kind",
    "Outputs",
    "is_own",
    "manifest_path",
    "publish",
    "read_manifest",
    "rejected_folder",
    "staged",
    "write_manifest",
]
