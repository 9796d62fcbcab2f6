"""Street-like scenes with exact labels, generated from a seed: for demos, tests and training without a download."""

from scenes.dataset import split_seed, write_scenes
from scenes.options import SceneOptions
from scenes.scene import Scene, make_scene

__all__ = ["Scene", "SceneOptions", "make_scene", "split_seed", "write_scenes"]
