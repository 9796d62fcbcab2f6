"""Collecting sees every value, in order, whatever the pieces, and names the layer that fails."""

import numpy as np
import onnx
import onnxruntime
import pytest

from ffnet_deploy.calib import collect as collecting
from ffnet_deploy.calib.collect import SegmentedRunner, collect
from ffnet_deploy.calib.observers import Histogram
from ffnet_deploy.core.errors import ArtifactError, DataError
from ffnet_deploy.precision.graph_index import GraphIndex
from tests.calib.networks import images, network, set_weight, weight


def everything(model: onnx.ModelProto) -> list[str]:
    """Names of all float tensors, the input first."""
    return ["image", *(name for node in model.graph.node for name in node.output)]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_pieces_give_what_the_whole_gives(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "OBSERVED_AT_ONCE", at_once)
    model, batch = network(), images(1)[0]
    names = everything(model)
    found: dict[str, np.ndarray] = {}
    SegmentedRunner(model, names).run(batch, lambda name, values: found.update({name: values.copy()}))
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names[1:])
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = dict(zip(names, [batch, *session.run(None, {"image": batch})], strict=True))
    assert list(found) == names
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_only_what_is_observed_is_handed_out_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "OBSERVED_AT_ONCE", 2)
    model = network()
    runner = SegmentedRunner(model, everything(model))
    assert all(len(piece.observed) <= 2 for piece in runner._segments)
    nodes = sum(len(piece.outputs) for piece in runner._segments)
    assert nodes == len(model.graph.node), "every node runs once"


def test_progress_and_shapes() -> None:
    model, steps = network(), []
    observers = {"image": Histogram(), "/Concat_output": Histogram()}
    shapes = collect(model, observers, images(3), "looking", lambda *step: steps.append(step))
    assert steps == [("looking", done, 3) for done in (1, 2, 3)]
    assert shapes == {"image": (1, 3, 32, 64), "/Concat_output": (1, 20, 16, 32)}
    assert observers["image"].total == 3 * 3 * 32 * 64


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "layer", ["stem", "stage1/token_mixer/fc", "stage1/channel_mixer/fc1", "stage1/channel_mixer/fc2", "classifier"]
)
def test_the_layer_that_gives_nan_or_infinity_is_named(layer: str, bad: float) -> None:
    model = network()
    values = weight(model, f"{layer}.weight").copy()
    values[3] = bad
    set_weight(model, f"{layer}.weight", values)
    tensors = {conv.input: Histogram() for conv in GraphIndex(model).convs}
    with pytest.raises(ArtifactError, match=rf"layer /{layer}/Conv gives \d+ of \d+ values that are NaN"):
        collect(model, tensors, images(1), "looking")


def test_a_constant_image_is_refused_with_its_number() -> None:
    model = network()
    shown = [*images(2), np.full((1, 3, 32, 64), -1.5, np.float32)]
    with pytest.raises(DataError, match="image 3 is one constant colour"):
        collect(model, {"image": Histogram()}, shown, "looking")


def test_uint8_images_of_one_colour_are_constant_too() -> None:
    from ffnet_deploy.calib.collect import check_varied

    black = np.zeros((1, 32, 48, 3), np.uint8)
    with pytest.raises(DataError, match="constant"):
        check_varied(black, 1)
    black[0, 5, 5, 2] = 1
    check_varied(black, 1)
