"""The same images each time, spread over classes; unusable ones are replaced, counted, and not too many."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.calib import choose_images
from ffnet_deploy.calib.images import (
    labelled_samples,
    order_samples,
    read_image_list,
    shown_to_network,
    spread_over_classes,
)
from ffnet_deploy.core.contract import DimensionRange, InputKind, TestProtocol
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset, open_images
from tests.conftest import REPOSITORY
from tests.toy import contract, fixed, picture, write_pairs

NETWORK = contract(**fixed(64, 96))


def folder(root: Path, count: int) -> Path:
    for index in range(count):
        cv2.imwrite(str(root / f"image_{index:03}.png"), picture(60, 90, seed=index))
    return root


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.stem for path in paths]


def test_images_without_labels_are_spread_over_the_names(tmp_path: Path) -> None:
    chosen = choose_images(open_images(folder(tmp_path, 20)), NETWORK, 5)
    assert names(chosen.paths) == ["image_000", "image_004", "image_008", "image_012", "image_016"]
    assert chosen.notes == ()


def test_classes_are_met_evenly() -> None:
    present = np.zeros((6, 4), bool)
    present[:, 0] = True
    present[3, 1] = present[4, [1, 2]] = present[5, 3] = True
    assert spread_over_classes(present)[:3] == [4, 5, 3]


def test_labelled_images_show_rare_classes_first(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 6)
    for index in range(6):
        labels = np.zeros((60, 90), np.uint8)
        labels[:5, :5] = 7 if index == 4 else 0
        labels[10:, 10:] = 3 if index in (2, 5) else 0
        cv2.imwrite(str(root / "annotations" / "val" / f"scene_{index}.png"), labels)
    dataset = open_dataset(root, "camvid")
    chosen = choose_images(dataset, NETWORK, 2)
    assert set(names(chosen.paths)) == {"scene_2", "scene_4"}
    assert choose_images(dataset, NETWORK, 2) == chosen, "the same each time"


def test_a_damaged_label_map_does_not_lose_its_image(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 3)
    (root / "annotations" / "val" / "scene_1.png").write_bytes(b"")
    assert len(choose_images(open_dataset(root, "camvid"), NETWORK, 3)) == 3


def test_inputs_are_read_when_asked_for_and_look_as_the_network_expects(tmp_path: Path) -> None:
    chosen = choose_images(open_images(folder(tmp_path, 3)), NETWORK, 3)
    assert [batch.shape for batch in chosen] == [(1, 3, 64, 96)] * 3
    assert chosen[0].dtype == np.float32
    assert len(chosen[:2]) == 2
    with pytest.raises(IndexError):
        chosen[3]
    chosen.paths[0].unlink()
    with pytest.raises(DataError, match="image_000"):
        chosen[0]


def test_the_protocol_decides_how_an_image_is_shown() -> None:
    image = picture(120, 200)
    dynamic = contract(
        height=DimensionRange(32, 64, 256), width=DimensionRange(32, 96, 256), protocol=TestProtocol(scale=(96, 64))
    )
    assert shown_to_network(image, dynamic).shape == (1, 3, 64, 96)
    batched = contract(batch=DimensionRange.fixed(3), **{k: v for k, v in fixed(64, 96).items() if k != "batch"})
    assert shown_to_network(image, batched).shape == (3, 3, 64, 96)
    rgb = shown_to_network(image, contract(input=InputKind.RGB, **fixed(64, 96)))
    assert rgb.shape == (1, 64, 96, 3)
    assert rgb.dtype == np.uint8


def test_sliding_networks_see_another_window_of_each_image() -> None:
    protocol = TestProtocol(scale=(192, 128), mode="slide", crop=(64, 96), stride=(64, 96))
    network = contract(protocol=protocol, **fixed(64, 96))
    image = picture(128, 192)
    seen = [shown_to_network(image, network, number) for number in range(5)]
    assert all(one.shape == (1, 3, 64, 96) for one in seen)
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[4])


def test_an_image_whose_window_is_constant_is_replaced(tmp_path: Path) -> None:
    protocol = TestProtocol(scale=(192, 128), mode="slide", crop=(64, 96), stride=(64, 96))
    network = contract(protocol=protocol, **fixed(64, 96))
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), picture(128, 192, seed=index))
    image = picture(128, 192)
    image[:64] = 0  # of the four windows the first shows nothing
    cv2.imwrite(str(tmp_path / "00.png"), image)
    chosen = choose_images(open_images(tmp_path), network, 11)
    assert "00" not in names(chosen.paths) and len(chosen) == 11
    assert "00.png shows the network one constant colour" in chosen.notes[0]


def test_what_is_searched_with_can_be_read(tmp_path: Path) -> None:
    write_pairs(tmp_path, 24)
    dataset = open_dataset(tmp_path, "camvid", split="val")
    dataset.samples[0].image.write_bytes(b"")
    assert dataset.samples[12].labels is not None
    dataset.samples[12].labels.write_bytes(b"")
    chosen = labelled_samples(dataset, 22, 11)
    assert len(chosen) == 22 and {dataset.samples[0], dataset.samples[12]}.isdisjoint(chosen.samples)
    with pytest.raises(DataError, match="2 of 4 calibration images"):
        labelled_samples(dataset, 2, 11)


def test_unreadable_and_constant_images_are_replaced_and_counted(tmp_path: Path) -> None:
    folder(tmp_path, 40)
    (tmp_path / "image_000.png").write_bytes(b"not an image")
    cv2.imwrite(str(tmp_path / "image_002.png"), np.zeros((60, 90, 3), np.uint8))
    chosen = choose_images(open_images(tmp_path), NETWORK, 20)
    assert len(chosen) == 20
    assert {"image_000", "image_002"}.isdisjoint(names(chosen.paths))
    assert len(chosen.notes) == 1
    assert chosen.notes[0].startswith("2 calibration images were skipped; the first:")


def test_too_many_unusable_images_end_it(tmp_path: Path) -> None:
    folder(tmp_path, 10)
    for index in range(3):
        (tmp_path / f"image_{index:03}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 10 calibration images .* cannot be used; at most 10%"):
        choose_images(open_images(tmp_path), NETWORK, 10)


def test_all_black_images_end_it(tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(DataError, match=r"0\.png shows the network one constant colour"):
        choose_images(open_images(tmp_path), NETWORK, 3)


def test_fewer_images_than_asked_are_said(tmp_path: Path) -> None:
    chosen = choose_images(open_images(folder(tmp_path, 3)), NETWORK, 64)
    assert len(chosen) == 3
    assert chosen.notes == ("only 3 images to calibrate on; 64 were asked for",)


def test_no_images_and_no_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to calibrate on"):
        choose_images(Dataset("custom", tmp_path, "", ()), NETWORK, 1)
    with pytest.raises(OptionError, match="at least one"):
        choose_images(open_images(folder(tmp_path, 1)), NETWORK, 0)


def test_a_list_picks_evenly_by_name_and_takes_turns(tmp_path: Path) -> None:
    for city, count in (("aachen", 6), ("bochum", 3)):
        for index in range(count):
            cv2.imwrite(str(tmp_path / f"{city}_{index}.png"), picture(60, 90, seed=index))
    rules = tmp_path / "list.txt"
    rules.write_text("# two cities\naachen_* 3\nbochum_* 2\n")
    listed = read_image_list(rules)
    assert listed.count == 5
    chosen = choose_images(open_images(tmp_path), NETWORK, 5, listed)
    assert names(chosen.paths) == ["aachen_0", "bochum_0", "aachen_2", "bochum_1", "aachen_4"]


def test_of_a_long_list_images_at_even_distances_are_taken(tmp_path: Path) -> None:
    rules = tmp_path / "list.txt"
    rules.write_text("image_* 16\n")
    chosen = choose_images(open_images(folder(tmp_path, 32)), NETWORK, 4, read_image_list(rules))
    assert names(chosen.paths) == ["image_000", "image_008", "image_016", "image_024"]


@pytest.mark.parametrize("text", ["a b c\n", "a -1\n", "a 0\n", "# nothing\n", ""])
def test_lists_that_make_no_sense(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=r"list\.txt"):
        read_image_list(path)


def test_a_list_of_another_data_set(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("zurich_* 3\n")
    with pytest.raises(DataError, match="none of 2 images fits the list"):
        choose_images(open_images(folder(tmp_path, 2)), NETWORK, 2, read_image_list(path))
    with pytest.raises(DataError, match="cannot read the image list"):
        read_image_list(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("name", "data", "count"), [("ade20k", "ade20k_sample", 512), ("cityscapes", "cityscapes_sample", 522)]
)
def test_lists_of_the_repository_fit_their_data_sets(name: str, data: str, count: int, shared_data: Path) -> None:
    listed = read_image_list(REPOSITORY / "calib" / f"{name}.txt")
    assert listed.count == count
    dataset = open_dataset(shared_data / data, name, split="train")
    assert listed.select(dataset.samples), "the sample's images are named as those of the full set"


def test_camvid_training_images_cover_every_class(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "camvid", "camvid", split="train")
    present = np.zeros(11, bool)
    for sample in order_samples(dataset, 8, 11)[:8]:
        labels = dataset.read(sample, 11)[1]
        assert labels is not None
        present[labels[labels < 11]] = True
    assert present.all()
