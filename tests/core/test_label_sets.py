from pathlib import Path

import pytest

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_sets import label_set, label_set_names, parse_label_set, read_label_set


@pytest.mark.parametrize(("name", "count"), [("ade20k", 150), ("cityscapes", 19), ("camvid", 11), ("scenes", 8)])
def test_packaged_sets_are_whole(name: str, count: int) -> None:
    labels = label_set(name)
    assert len(labels.classes) == len(set(labels.classes)) == len(labels.palette) == count
    assert name in label_set_names()


@pytest.mark.parametrize(("name", "dataset"), [("ade20k", "ADE20KDataset"), ("cityscapes", "CityscapesDataset")])
def test_names_and_colours_are_mmsegs(name: str, dataset: str) -> None:
    datasets = pytest.importorskip("mmseg.datasets")
    metainfo = getattr(datasets, dataset).METAINFO
    assert label_set(name).classes == tuple(name.strip() for name in metainfo["classes"])
    assert label_set(name).palette == tuple(map(tuple, metainfo["palette"]))


def test_comments_blank_lines_and_spaces_in_names() -> None:
    labels = parse_label_set("# mine\n\ntraffic light 1 2 3\n  road   255 0 0  \n", "x.txt")
    assert labels.classes == ("traffic light", "road")
    assert labels.palette == ((1, 2, 3), (255, 0, 0))


@pytest.mark.parametrize(
    "line", ["road", "road 1 2", "1 2 3", "road 1 2 256", "road -1 2 3", "road 1.5 2 3", "road a b c"]
)
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"x\.txt, line 3: expected `name r g b`"):
        parse_label_set(f"sky 1 2 3\n\n{line}\n", "x.txt")


@pytest.mark.parametrize(("text", "told"), [("", "names no class"), ("# a\n", "names no class")])
def test_an_empty_list_is_an_error(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse_label_set(text, "x.txt")


def test_a_class_named_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="names a class twice: a"):
        parse_label_set("a 1 2 3\nb 1 2 3\na 4 5 6\n", "x.txt")


def test_unreadable_files_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.txt", "binary.txt", "."):
        with pytest.raises(DataError, match="cannot read the class list"):
            read_label_set(tmp_path / name)
