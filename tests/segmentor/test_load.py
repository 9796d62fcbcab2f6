"""One call from config and checkpoint to a network."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from safetensors.torch import save_file  # noqa: E402

import ffnet_deploy  # noqa: E402
from ffnet_deploy.core.contract import OutputKind  # noqa: E402
from ffnet_deploy.core.errors import CheckpointError, ConfigError  # noqa: E402
from ffnet_deploy.core.files import sha256  # noqa: E402
from ffnet_deploy.segmentor.config import load_config  # noqa: E402
from ffnet_deploy.segmentor.load import load_segmentor, open_segmentor  # noqa: E402
from tests.golden import build, network_input  # noqa: E402
from tests.tiny import write_checkpoint  # noqa: E402

NANO = "ffnet_seg_nano_scenes"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden weights of the small network."""
    path = tmp_path_factory.mktemp("checkpoint") / "nano.safetensors"
    save_file(build(NANO).state_dict(), path)
    return path


def test_the_package_offers_its_calls() -> None:
    from ffnet_deploy.export.reparameterize import reparameterize

    assert ffnet_deploy.load_segmentor is load_segmentor and ffnet_deploy.reparameterize is reparameterize
    assert all(callable(getattr(ffnet_deploy, name)) for name in ffnet_deploy.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ffnet_deploy.nothing


def test_a_segmentor_is_an_encoder_decoder_in_evaluation_mode(checkpoint: Path) -> None:
    from mmseg.models import EncoderDecoder

    model = load_segmentor(NANO, checkpoint)
    assert isinstance(model, EncoderDecoder) and not any(module.training for module in model.modules())
    x = torch.from_numpy(network_input(64, 96))
    with torch.no_grad():
        found, expected = (net.decode_head(net.backbone(x)) for net in (model, build(NANO)))
    assert found.shape == (1, 8, 8, 12) and torch.equal(found, expected)


def test_without_a_checkpoint_the_weights_are_random() -> None:
    opened = open_segmentor(NANO)
    assert opened.checkpoint is None and opened.report is None
    assert opened.sources == {"config": opened.config.sha256}


def test_the_contract_says_where_the_network_comes_from(checkpoint: Path) -> None:
    opened = open_segmentor(load_config(NANO), checkpoint)
    contract = opened.contract(output=OutputKind.LABELS)
    assert contract.sources == {"config": opened.config.sha256, "checkpoint": sha256(checkpoint)}
    assert (contract.network, contract.dataset, contract.output) == (NANO, "scenes", OutputKind.LABELS)
    assert contract.classes == opened.config.labels.classes and contract.protocol == opened.config.protocol


def test_names_and_paths_that_lead_nowhere_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest  ffnet_seg_nano"):
        load_segmentor("ffnet_seg_nano")
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_segmentor(NANO, tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="no checkpoint was published for config ffnet_seg_nano_scenes"):
        load_segmentor(NANO, "published")


def test_the_global_scope_of_the_registries_is_left_alone() -> None:
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance("a scope of the user's", scope_name="mmdet")
    load_segmentor(NANO)
    assert DefaultScope.get_current_instance().scope_name == "mmdet"
    DefaultScope._instance_dict.popitem()


@pytest.mark.parametrize("missing", ["torch", "mmengine", "mmseg"])
@pytest.mark.parametrize("call", ["load_segmentor(config)", "load_segmentor(str(config), 'published')"])
def test_without_a_package_the_public_call_names_the_extra(missing: str, call: str) -> None:
    program = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import ffnet_deploy\n"
        "from ffnet_deploy.core.errors import MissingPackageError\n"
        "config = 'ffnet_seg_nano_scenes'\n"
        "try:\n"
        f"    ffnet_deploy.{call}\n"
        "except MissingPackageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0 and "[convert]" in done.stdout, done.stderr


def test_paths_may_be_text(tmp_path: Path) -> None:
    config, checkpoint = write_checkpoint(tmp_path, "tiny_seg")
    found = load_segmentor(str(config), str(checkpoint)).state_dict()
    expected = load_segmentor(config, checkpoint).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
