"""NVIDIA Model Optimizer as a second opinion: same images, same graph, its own bins and thresholds."""

import sys
from types import ModuleType

import numpy as np
import pytest

from ffnet_deploy.calib import CalibrationOptions, Calibrator, Method, quantize_graph
from ffnet_deploy.calib.observers import Histogram
from ffnet_deploy.calib.thresholds import threshold
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from tests.calib.networks import images, network
from tests.calib.structure import check_structure


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    options = CalibrationOptions(Method.ENTROPY, calibrator=Calibrator.MODELOPT, equalize=False)
    with pytest.raises(MissingPackageError, match=r"\[modelopt\]"):
        quantize_graph(network(), images(1), options)


def test_its_mse_is_refused() -> None:
    with pytest.raises(OptionError, match="mse chooses thresholds far below"):
        CalibrationOptions(Method.MSE, calibrator=Calibrator.MODELOPT)


@pytest.mark.parametrize("method", [Method.ENTROPY, Method.PERCENTILE, Method.MINMAX])
@pytest.mark.parametrize("name", ["normal", "laplace", "standard_t"])
def test_our_thresholds_are_its_thresholds(name: str, method: Method) -> None:
    pytest.importorskip("modelopt", reason="Model Optimizer is not installed: pip install 'ffnet-deploy[modelopt]'")
    from ffnet_deploy.calib.observers import ModelOptHistogram

    rng = np.random.default_rng(1)
    values = (rng.standard_t(4, 200_000) if name == "standard_t" else getattr(rng, name)(0, 2, 200_000)).astype("f4")
    ours, theirs = Histogram(), ModelOptHistogram()
    # at once: its bins are those of the first values, and the least divergence lies in a flat valley
    ours.update(values)
    theirs.update(values)
    assert threshold(ours, method, 99.99) == pytest.approx(theirs.threshold(method, 99.99), rel=0.01)


def test_a_network_calibrated_by_it() -> None:
    pytest.importorskip("modelopt", reason="Model Optimizer is not installed: pip install 'ffnet-deploy[modelopt]'")
    options = CalibrationOptions(Method.PERCENTILE, calibrator=Calibrator.MODELOPT, equalize=False, correct_bias=False)
    result = quantize_graph(network(), images(3), options)
    check_structure(result.model)
    assert "calibrator modelopt" in result.report["method"]
    own = quantize_graph(
        network(), images(3), CalibrationOptions(Method.PERCENTILE, equalize=False, correct_bias=False)
    )
    for name, limit in own.ranges.thresholds.items():
        assert result.ranges.thresholds[name] == pytest.approx(limit, rel=0.02), name


def test_the_command_knows_two_calibrators(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from ffnet_deploy.export.calibration import CalibrationRequest

    monkeypatch.setitem(sys.modules, "modelopt", ModuleType("modelopt"))
    request = CalibrationRequest(Path(), method="entropy", calibrator="modelopt")
    assert request.chosen_calibrator is Calibrator.MODELOPT
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(MissingPackageError, match=r"\[modelopt\]"):
        CalibrationRequest(Path(), method="entropy", calibrator="modelopt")
    assert CalibrationRequest(Path()).chosen_calibrator is Calibrator.NATIVE
    with pytest.raises(OptionError, match="--calibrator is native or modelopt, not 'x'"):
        CalibrationRequest(Path(), calibrator="x")
