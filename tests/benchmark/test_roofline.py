import pytest

from ffnet_deploy.benchmark.profiling import TimedLayer, TimedLayers, profile
from ffnet_deploy.benchmark.record import Peaks
from ffnet_deploy.benchmark.roofline import KNOWN_GPUS, Cost, TensorSize, cost, known_gpu, measured_cpu_peaks, peaks_of


def test_a_convolution_costs_two_operations_for_each_weight_and_output() -> None:
    x, w, b, y = (TensorSize(shape, 4) for shape in ((1, 3, 64, 64), (16, 3, 3, 3), (16,), (1, 16, 32, 32)))
    found = cost("Conv", [x, w, b], [y])
    assert found.flops == 2 * 16 * 32 * 32 * 3 * 3 * 3
    assert found.bytes == 4 * (3 * 64 * 64 + 16 * 27 + 16 + 16 * 32 * 32)


def test_groups_and_integers_count() -> None:
    x, w, y = TensorSize((1, 32, 8, 8), 1), TensorSize((32, 1, 9, 9), 1), TensorSize((1, 32, 8, 8), 1)
    scale, zero = TensorSize((), 4), TensorSize((), 1)
    found = cost("QLinearConv", [x, scale, zero, w, scale, zero, scale, zero], [y])
    assert found.flops == 2 * 32 * 64 * 81
    assert found.bytes == 2 * 32 * 64 + 32 * 81 + 3 * 4 + 3 * 1


def test_products_and_the_rest() -> None:
    a, b, y = TensorSize((4, 7), 4), TensorSize((7, 5), 4), TensorSize((4, 5), 4)
    assert cost("MatMul", [a, b], [y]).flops == 2 * 4 * 5 * 7
    assert cost("Gelu", [y], [y]) == Cost(20.0, 160.0)
    assert cost("Reshape", [y], [y]) == Cost(0.0, 0.0)


def test_the_limit_is_the_tighter_of_compute_and_memory() -> None:
    peaks = Peaks(flops=1e9, bytes=1e9, source="test")
    layers = [
        TimedLayer("/backbone/patch_embed/0/Conv", "Conv", 4.0, Cost(2e6, 1e6)),
        TimedLayer("/backbone/patch_embed/1/Gelu", "Gelu", 4.0, Cost(1e5, 1e6)),
        TimedLayer("copy", "Copy", 2.0),
    ]
    found = profile(TimedLayers("tool", 3, layers), peaks)
    conv, gelu, copy = found.layers
    assert (conv.limit_ms, conv.bound, conv.of_limit, conv.share) == (2.0, "compute", 50.0, 40.0)
    assert (gelu.limit_ms, gelu.bound, gelu.of_limit) == (1.0, "memory", 25.0)
    assert (copy.limit_ms, copy.bound, copy.of_limit, copy.block) == (None, None, None, "other")
    stem, other = found.blocks
    assert (stem.name, stem.milliseconds, stem.flops, stem.limit_ms, stem.bound) == ("stem", 8.0, 2.1e6, 3.0, "compute")
    assert stem.of_limit == 37.5
    assert (other.flops, other.limit_ms) == (None, None)
    assert sum(block.share for block in found.blocks) == pytest.approx(100)


def test_without_peaks_there_are_no_limits() -> None:
    found = profile(TimedLayers("tool", 1, [TimedLayer("x", "Conv", 1.0, Cost(1e6, 1e6))]), None)
    assert found.layers[0].flops == 1e6
    assert found.layers[0].limit_ms is None


@pytest.mark.parametrize(
    ("driver_name", "entry"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA L40", None),
        ("some other GPU", None),
    ],
)
def test_gpus_are_known_by_their_whole_name(driver_name: str, entry: str | None) -> None:
    found = known_gpu(driver_name)
    assert (found.name if found else None) == entry


def test_peaks_follow_the_precision() -> None:
    fp32, fp16, int8 = (peaks_of("NVIDIA H200", precision) for precision in ("fp32", "fp16", "int8"))
    assert fp32 is not None
    assert fp16 is not None
    assert int8 is not None
    assert fp32.flops < fp16.flops < int8.flops
    assert "H200" in fp16.source
    assert peaks_of("some other GPU", "fp16") is None
    assert all(gpu.source and gpu.fp32 < gpu.fp16 < gpu.int8 for gpu in KNOWN_GPUS)


def test_a_cpus_peaks_are_measured() -> None:
    found = measured_cpu_peaks()
    assert found.flops > 0
    assert found.bytes > 0
    assert "measured here" in found.source
    assert peaks_of(None, "int8") is found


def test_no_layer_and_no_block_lies_above_the_limit() -> None:
    """A convolution by Winograd's method, or a copy within the caches, may be faster than the peaks."""
    layers = [
        TimedLayer("/backbone/patch_embed/Conv", "Conv", 1.0, Cost(5e9, 1e6)),
        TimedLayer("/decode_head/Add", "Add", 1.0, Cost(1e6, 4e8)),
        TimedLayer("/decode_head/tiny/Add", "Add", 0.001, Cost(1e3, 1e6)),
    ]
    found = profile(TimedLayers("tool", 1, layers), Peaks(1e12, 1e11, "measured here"))
    assert found.peaks == Peaks(5e12, 4e11, "measured here; raised to what layers reached")
    assert [row.of_limit for row in found.layers] == [100.0, 100.0, 100.0]
    for row in (*found.layers, *found.blocks):
        assert row.limit_ms is not None
        assert row.limit_ms <= row.milliseconds
    calm = profile(TimedLayers("tool", 1, layers), Peaks(1e13, 1e12, "measured here"))
    assert calm.peaks == Peaks(1e13, 1e12, "measured here")
