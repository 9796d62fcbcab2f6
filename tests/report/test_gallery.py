import numpy as np
import pytest

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.report.data import Gallery
from ffnet_deploy.report.gallery import GalleryOptions, PredictionCollector, evenly_spaced
from ffnet_deploy.report.pictures import CHANGES, PixelChange
from tests.report.examples import NAMES, example, maps, source
from tests.report.test_pictures import decoded
from tests.toy import CAMVID, contract, picture

SIZE = (60, 90)


def collected(count: int, candidates: int = 3, labelled: bool = True, options: GalleryOptions | None = None) -> Gallery:
    collector = PredictionCollector([f"scene_{number}" for number in range(count)], options)
    for index in range(candidates):
        watch = collector.next_candidate()
        for number in range(count):
            truth, predicted = maps(number, SIZE)
            watch(source(number), picture(*SIZE, seed=number), predicted[index], truth if labelled else None)
    return collector.gallery(contract(), NAMES)


def test_samples_are_spread_over_the_whole_set() -> None:
    names = [str(number) for number in range(10)]
    assert evenly_spaced(names, 5) == ["0", "2", "4", "6", "8"]
    assert evenly_spaced(names, 20) == names
    assert evenly_spaced(names, 0) == [] == evenly_spaced([], 3)


def test_panels_hold_what_was_predicted() -> None:
    gallery = collected(2)
    assert [sample.name for sample in gallery.samples] == ["scene_0", "scene_1"]
    for number, sample in enumerate(gallery.samples):
        truth, predicted = maps(number, SIZE)
        shown = {panel.layer: panel for panel in sample.panels}
        assert list(shown) == ["image", "truth", "labels-0", "labels-1", "labels-2", "difference-1", "difference-2"]
        palette = np.array(CAMVID.palette, np.uint8)
        for index, labels in enumerate(predicted):
            assert np.array_equal(decoded(shown[f"labels-{index}"].uri), palette[labels])
        lost = (predicted[0] == truth) & (predicted[2] != truth) & (truth != 255)
        red = (decoded(shown["difference-2"].uri) == CHANGES[PixelChange.LOST].colour).all(-1)
        assert np.array_equal(red, lost)
        assert f"{100 * lost.mean():.1f} % lost" in shown["difference-2"].alt
        assert sample.right[0] == pytest.approx(100 * (predicted[0] == truth)[truth != 255].mean())
        assert sample.agreement == pytest.approx([100 * (predicted[0] == other).mean() for other in predicted])


def test_agreement_counts_every_pixel_of_every_image_shown_or_not() -> None:
    collector = PredictionCollector(["scene_0", "scene_1", "scene_2"], GalleryOptions(count=1))
    same = pixels = 0
    for index in range(2):
        watch = collector.next_candidate()
        for number in range(3):
            size = (30 + 10 * number, 50)
            truth, predicted = maps(number, size)
            watch(source(number), picture(*size), predicted[index], truth)
            if index:
                same += int((predicted[0] == predicted[1]).sum())
                pixels += truth.size
    assert collector.agreement(0) == 100.0
    assert collector.agreement(1) == pytest.approx(100 * same / pixels)
    assert len(collector.gallery(contract(), NAMES).samples) == 1


def test_one_candidate_is_compared_with_the_truth_and_unlabelled_images_with_nothing() -> None:
    layers = [panel.layer for panel in collected(1, candidates=1).samples[0].panels]
    assert layers == ["image", "truth", "labels-0", "errors"]
    alone = collected(1, candidates=1, labelled=False).samples[0]
    assert [panel.layer for panel in alone.panels] == ["image", "labels-0"]
    assert alone.right == (None,)
    both = collected(1, candidates=2, labelled=False).samples[0]
    assert [panel.layer for panel in both.panels] == ["image", "labels-0", "labels-1", "difference-1"]


def test_pictures_shrink_until_they_fit_the_budget() -> None:
    wide = example(2, (300, 400), GalleryOptions(count=2)).gallery
    tight = example(2, (300, 400), GalleryOptions(count=2, budget=20_000)).gallery
    spent = sum(len(panel.uri) for sample in tight.samples for panel in sample.panels)
    assert 0 < spent <= 20_000
    assert tight.samples[0].panels[0].width < wide.samples[0].panels[0].width == 400


@pytest.mark.parametrize("wrong", [{"count": -1}, {"widest": 10}, {"budget": 0}])
def test_a_gallery_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="a gallery takes"):
        GalleryOptions(**wrong)
