"""Configs by name, by file, and what is wrong with those that cannot be used."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.core.contract import Normalization, TestProtocol  # noqa: E402
from ffnet_deploy.core.errors import ConfigError, FFNetDeployError  # noqa: E402
from ffnet_deploy.core.label_sets import LabelSet, label_set  # noqa: E402
from ffnet_deploy.segmentor.config import (  # noqa: E402
    CONFIG_FOLDER,
    build_segmentor,
    config_names,
    find_config,
    load_config,
)
from tests.golden import PUBLISHED  # noqa: E402
from tests.tiny import write_config  # noqa: E402

NANO = f"_base_ = {str(CONFIG_FOLDER / 'ffnet_seg_nano_scenes.py')!r}\n"
CITYSCAPES = TestProtocol((2048, 1024), divisor=1, mode="slide", crop=(1024, 1024), stride=(768, 768))


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", config_names())
def test_every_packaged_config_loads_and_builds(name: str) -> None:
    config = load_config(name)
    with torch.device("meta"):
        model = build_segmentor(config)
    assert config.assumptions == ()
    assert model.decode_head.num_classes == config.num_classes == len(config.labels.classes)
    assert config.normalization == Normalization()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_have_the_published_protocol(name: str) -> None:
    config = load_config(name)
    city = "city" in name
    assert config.protocol == (CITYSCAPES if city else TestProtocol((2048, 512), divisor=32))
    assert config.dataset == ("cityscapes" if city else "ade20k")
    assert config.labels == label_set(config.dataset)


def test_a_name_and_its_file_are_the_same_config() -> None:
    by_name, by_path = load_config("ffnet_seg_nano_scenes"), load_config(CONFIG_FOLDER / "ffnet_seg_nano_scenes.py")
    assert by_name.sha256 == by_path.sha256 and len(by_name.sha256) == 64
    assert by_name.sha256 != load_config("ffnet_seg_nano_camvid").sha256


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("ffnet_seg_512_ade", "ffnet_seg_512_ade_160k"),
        ("upernet_ffnet_3_512_160k", "upernet_ffnet_3_512_160k_ade20k"),
        ("ffnet_seg_1024_cityscapes", "ffnet_seg_1024_city_160k"),
    ],
)
def test_the_nearest_name_is_offered_first(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"no config is called '{wrong}'\.\n  nearest  {near}"):
        find_config(wrong)


def test_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(ConfigError) as caught:
        find_config("zzzz")
    assert all(name in str(caught.value) for name in config_names())


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .*absent\.py\.\n  to do"):
        load_config(tmp_path / "absent.py")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = dict(\n", r"cannot be read: SyntaxError.*line 1"),
        ("raise RuntimeError('boom')\n", "cannot be read: RuntimeError: boom"),
        ("open('absent.txt')\n", "cannot be read: FileNotFoundError"),
        ("a = 1\n", "describes no segmentor"),
        ("model = 'ffnet'\n", "describes no segmentor"),
        ("model = dict(type='EncoderDecoder', backbone=dict(type='ffnet_seg'))\n", "describes no segmentor"),
        ("model = dict(backbone=dict(type='ffnet_seg'), decode_head=dict(type='FFNetHead'))\n", "how many classes"),
        ("model = dict(backbone=dict(), decode_head=[dict(num_classes=3)])\n", "how many classes"),
        (NANO + "model = dict(data_preprocessor=dict(bgr_to_rgb=False))\n", "trains on BGR images; .*take RGB"),
        (NANO + "model = dict(data_preprocessor=dict(std=None))\n", "no std"),
        (NANO + "model = dict(data_preprocessor=dict(std=[1, 0, 1]))\n", "three positive deviations"),
        (NANO + "model = dict(test_cfg=dict(mode='slide'))\n", "needs a crop size and a stride"),
        (NANO + "model = dict(test_cfg=dict(mode='slide', crop_size=64, stride=32))\n", "protocol that cannot be used"),
        (NANO + "metainfo = dict(classes=('a', 'b'))\n", "names 2 classes in metainfo, but predicts 8"),
        (NANO + "metainfo = dict(classes=('a', 'b'), palette=[[1, 2, 3]])\n", "names 2 classes, but 1 colours"),
        (
            "_base_ = './absent_base.py'\n",
            r"needs the base file \./absent_base\.py, which is missing.\n  to do    put it",
        ),
    ],
)
def test_a_config_that_cannot_be_used_is_one_clear_error(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FFNetDeployError, match=told):
        load_config(write(tmp_path, text))


def test_circular_bases_are_one_clear_error(tmp_path: Path) -> None:
    write(tmp_path, "_base_ = 'second.py'\n", "first.py")
    second = write(tmp_path, "_base_ = 'first.py'\n", "second.py")
    load_config(write(tmp_path, NANO))  # imports what reading needs
    deep = sys.getrecursionlimit()
    sys.setrecursionlimit(300)  # mmengine follows a circle until then, with a temporary folder for each turn
    try:
        with pytest.raises(ConfigError, match="is its own base"):
            load_config(second)
    finally:
        sys.setrecursionlimit(deep)


def test_a_file_that_is_no_config_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(write(tmp_path, "hello", "notes.txt"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("backbone=dict(_delete_=True, type='ffnet_9')", "ffnet_9 is not in the mmseg::model registry"),
        ("backbone=dict(depth=3)", "unexpected keyword argument 'depth'"),
        ("backbone=dict(depths=(1, 1))", "index out of range"),
        ("backbone=dict(dims=(16, -1, 2, 3))", "negative dimension"),
        ("decode_head=dict(in_channels=[1, 2])", "cannot be built"),
        ("decode_head=dict(spatial_ks='9')", "cannot be built"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_clear_error(tmp_path: Path, change: str, told: str) -> None:
    config = load_config(write(tmp_path, NANO + f"model = dict({change})\n"))
    with pytest.raises(ConfigError, match=rf"model of config .*mine\.py cannot be built: .*{told}|{told}"):
        build_segmentor(config)


def test_a_config_of_your_own_brings_its_classes(tmp_path: Path) -> None:
    text = NANO + (
        "model = dict(decode_head=dict(num_classes=2))\n"
        "metainfo = dict(classes=('weed', 'crop'), palette=[[200, 30, 30], [30, 200, 30]])\n"
    )
    config = load_config(write(tmp_path, text))
    assert config.labels == LabelSet(("weed", "crop"), ((200, 30, 30), (30, 200, 30)))
    assert (config.dataset, config.num_classes, config.name) == ("custom", 2, "mine")


def test_classes_spelled_out_as_a_known_set_keep_its_name(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, NANO + f"metainfo = dict(classes={label_set('scenes').classes!r})\n"))
    assert config.dataset == "scenes" and len(config.labels.palette) == 8


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, NANO + "model = dict(decode_head=dict(num_classes=5))\n"))
    assert config.dataset == "custom"
    assert config.labels.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert len(set(config.labels.palette)) == 5


def test_a_whole_1x_config_needs_no_packaged_base(tmp_path: Path) -> None:
    text = """
crop_size = (96, 128)
data_preprocessor = dict(type="SegDataPreProcessor", mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=data_preprocessor,
    backbone=dict(type="ffnet_1"),
    decode_head=dict(
        type="UPerHead", in_channels=[80, 160, 320, 640], in_index=[0, 1, 2, 3], channels=32, num_classes=3,
        norm_cfg=dict(type="SyncBN", requires_grad=True), align_corners=False,
    ),
    test_cfg=dict(mode="slide", crop_size=crop_size, stride=(64, 64)),
)
test_dataloader = dict(
    dataset=dict(pipeline=[dict(type="LoadImageFromFile"), dict(type="Resize", scale=(640, 480), keep_ratio=False)])
)
"""
    config = load_config(write(tmp_path, text))
    assert config.normalization == Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert config.protocol == TestProtocol((640, 480), False, 1, "slide", (96, 128), (64, 64))
    with torch.device("meta"):
        model = build_segmentor(config)
    assert any(type(module) is torch.nn.BatchNorm2d for module in model.decode_head.modules())
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())


@pytest.mark.parametrize(
    "change",
    [
        "model['test_cfg'] = 'x'",
        "test_pipeline = ['x']",
        "metainfo = dict(classes=list('abcdefgh'), palette=[(1, 2)] * 8)",
    ],
)
def test_parts_of_the_wrong_kind_are_one_clear_error(tmp_path: Path, change: str) -> None:
    path = write_config(tmp_path, "tiny_seg")
    path.write_text(f"{path.read_text()}\n{change}\n")
    with pytest.raises(ConfigError):
        load_config(path)


def test_a_config_that_exits_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "exits.py"
    path.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match="SystemExit"):
        load_config(path)


def test_what_a_config_leaves_open_is_said(tmp_path: Path) -> None:
    assert any("normalisation" in line for line in load_config(write_config(tmp_path, "tiny_upernet")).assumptions)


def test_whole_images_of_any_size_become_multiples_of_32(tmp_path: Path) -> None:
    """MMSegmentation's own configs resize by the ratio alone; artefacts and their calibration take multiples of 32."""
    config = load_config(write_config(tmp_path, "tiny_pspnet"))
    assert config.protocol.divisor == 32
    assert any("enlarged to multiples of 32" in line for line in config.assumptions)
