"""An engine is loaded only when it and its manifest are untouched and made for this machine."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ffnet_deploy.artifacts.manifest import manifest_path, seal, write_manifest
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import json_bytes
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines import bundle as bundles
from ffnet_deploy.engines.bundle import (
    KIND,
    check_host,
    graph_of,
    open_bundle,
    read_bundle,
    reusable,
)
from ffnet_deploy.engines.cuda import CudaDevice
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, HardwareCompatibility
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.engines.bundles import write_bundle
from tests.toy import contract, write_onnx

PLAN = bytes(range(256)) * 40
H200 = CudaDevice(0, "NVIDIA H200", (9, 0), 1 << 37, 12040, 12040)
RECORD = PrecisionRecord(Precision.INT8, Precision.FP16, quantized=("/a/Conv",), float32=("/b/Add",))
GRAPH = "0" * 64
REBUILD = "ffnet-export --onnx toy.int8.onnx --backend trt --out toy.int8.engine"


def content(options: BuildOptions | None = None, target: BuildTarget | None = None, version: str = "8.5.3.1") -> dict:
    options = options or BuildOptions()
    target = target or BuildTarget(("9.0",), "NVIDIA H200", 12040)
    return {
        "contract": json.loads(contract().to_json()),
        "precision": json.loads(RECORD.to_json()),
        "graph": {"file": "toy.int8.onnx", "sha256": GRAPH},
        "build": {
            "variant": options.variant.value,
            "version": version,
            "options": options.to_dict(),
            "target": asdict(target),
        },
        "rebuild": REBUILD,
    }


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "toy.int8.engine"
    write_bundle(path, PLAN, content())
    return path


def refusal(path: Path, trust: bool = False) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_bundle(path, trust)
    assert "to do" in str(caught.value), caught.value
    return str(caught.value)


def test_what_is_written_is_read(engine: Path) -> None:
    read = open_bundle(engine)
    assert (read.plan, read.contract, read.record, read.variant) == (PLAN, contract(), RECORD, Variant.TENSORRT)
    assert read.notes == () and read.manifest["graph"]["sha256"] == GRAPH


def test_a_renamed_pair_is_read(engine: Path) -> None:
    moved = engine.with_name("street.engine")
    manifest_path(engine).rename(manifest_path(moved))
    engine.rename(moved)
    assert open_bundle(moved).plan == PLAN


def test_a_changed_byte_anywhere_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    engine = tmp_path / "small.engine"
    small = contract(classes=("road",), palette=((0, 0, 0),))
    write_bundle(engine, PLAN, {**content(), "contract": json.loads(small.to_json())})
    path = manifest_path(engine)
    whole = path.read_bytes()
    for at in {*range(0, len(whole), 7), len(whole) - 1}:
        changed = bytearray(whole)
        changed[at] = 9 if whole[at] == 32 else whole[at] ^ 1  # a tab for a space: the same JSON
        path.write_bytes(changed)
        assert "manifest" in refusal(engine), at
    path.write_bytes(whole)
    assert open_bundle(engine).plan == PLAN


@pytest.mark.parametrize("at", [0, 1, len(PLAN) // 2, len(PLAN) - 1])
def test_a_changed_byte_of_the_engine_is_noticed(engine: Path, at: int) -> None:
    changed = bytearray(PLAN)
    changed[at] ^= 1
    engine.write_bytes(changed)
    message = refusal(engine)
    assert "has changed since its manifest was written" in message and REBUILD in message


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "there is no engine"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda path: path.write_bytes(PLAN[:-1]), f"has {len(PLAN) - 1} bytes, its manifest says {len(PLAN)}"),
        (lambda path: path.write_bytes(PLAN + b"x"), f"has {len(PLAN) + 1} bytes"),
        (lambda path: manifest_path(path).unlink(), "has no manifest"),
        (lambda path: manifest_path(path).write_bytes(b""), "is damaged"),
        (lambda path: manifest_path(path).write_bytes(manifest_path(path).read_bytes()[:-40]), "is damaged"),
        (lambda path: manifest_path(path).write_text("[]"), "is damaged"),
        (lambda path: manifest_path(path).write_bytes(b"\xff\xfe"), "is damaged"),
    ],
)
def test_missing_empty_and_cut_files_are_refused(engine: Path, damage: Callable[[Path], None], told: str) -> None:
    damage(engine)
    message = refusal(engine)
    assert told in message and "--backend trt" in message, message


def test_a_manifest_of_another_engine_is_refused(engine: Path) -> None:
    other = engine.with_name("other.engine")
    write_bundle(other, PLAN[::-1], content())
    shutil.copy(manifest_path(other), manifest_path(engine))
    assert "has changed since its manifest was written" in refusal(engine)


def test_a_manifest_of_a_graph_does_not_stand_for_an_engine(engine: Path) -> None:
    graph = write_onnx(engine.with_name("toy.onnx"), contract())
    engine.write_bytes(graph.read_bytes())
    shutil.copy(manifest_path(graph), manifest_path(engine))
    assert "is damaged" in refusal(engine)


def test_an_engine_without_a_manifest_needs_the_users_word_and_its_graph(engine: Path) -> None:
    manifest_path(engine).unlink()
    assert "--trust-engine" in refusal(engine)
    assert f"put the graph that it was built from beside it, as {graph_of(engine).name}" in refusal(engine, trust=True)
    write_onnx(graph_of(engine), contract())
    trusted = open_bundle(engine, trust=True)
    assert trusted.contract == contract() and "--trust-engine alone" in trusted.notes[0]
    check_host(trusted, "11.4.0", H200)  # TensorRT itself judges it


def test_trust_does_not_excuse_a_manifest_that_does_not_fit(engine: Path) -> None:
    engine.write_bytes(PLAN[:-1] + b"x")
    assert "has changed" in refusal(engine, trust=True)


def other(**changes: object) -> CudaDevice:
    return replace(H200, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "version", "device", "told"),
    [
        (BuildOptions(), "8.5.3.1", H200, None),
        (BuildOptions(), "8.6.1", H200, "was built with TensorRT 8.5.3.1, here is 8.6.1"),
        (BuildOptions(), "8.5.3.1", other(name="NVIDIA H100"), "was built on NVIDIA H200, here is NVIDIA H100"),
        (
            BuildOptions(),
            "8.5.3.1",
            other(name="NVIDIA L4", compute_capability=(8, 9)),
            "was built for compute capability 9.0; NVIDIA L4 has 8.9",
        ),
        (BuildOptions(version_compatible=True), "8.6.1", H200, None),
        (BuildOptions(version_compatible=True), "8.4.0", H200, "was built with TensorRT 8.5.3.1, here is 8.4.0"),
        (BuildOptions(version_compatible=True), "10.16.1", H200, "was built with TensorRT 8.5.3.1"),
        (
            BuildOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            "8.5.3.1",
            other(name="NVIDIA L4", compute_capability=(8, 9)),
            None,
        ),
        (
            BuildOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            "8.5.3.1",
            other(name="Tesla T4", compute_capability=(7, 5)),
            "Tesla T4 has 7.5",
        ),
        (
            BuildOptions(hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY),
            "8.5.3.1",
            other(name="NVIDIA H100"),
            None,
        ),
        (BuildOptions(strip_weights=True), "8.5.3.1", H200, "computes nothing before a refit"),
    ],
)
def test_an_engine_runs_where_it_was_made_for(
    tmp_path: Path, options: BuildOptions, version: str, device: CudaDevice, told: str | None
) -> None:
    path = tmp_path / "toy.engine"
    write_bundle(path, PLAN, content(options))
    if told is None:
        check_host(open_bundle(path), version, device)
        return
    with pytest.raises(ArtifactError, match=told.replace(".", r"\.")) as caught:
        check_host(open_bundle(path), version, device)
    assert "to do" in str(caught.value)


def test_rtx_engines_run_on_every_gpu_that_they_name(tmp_path: Path) -> None:
    path = tmp_path / "toy.rtx.engine"
    options = BuildOptions(variant=Variant.RTX, compute_capabilities=("8.6", "8.9"))
    write_bundle(path, PLAN, content(options, BuildTarget(("8.6", "8.9")), "1.7.1.116"))
    check_host(open_bundle(path), "1.7.1.116", other(name="NVIDIA L4", compute_capability=(8, 9)))
    with pytest.raises(ArtifactError, match=r"was built for compute capability 8\.6, 8\.9; NVIDIA H200 has 9\.0"):
        check_host(open_bundle(path), "1.7.1.116", H200)


def test_reading_asks_the_machine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "load", lambda variant: type("Trt", (), {"__version__": "8.5.3.1"}))
    monkeypatch.setattr(bundles, "find_device", lambda index: H200)
    assert read_bundle(engine).plan == PLAN
    monkeypatch.setattr(bundles, "find_device", lambda index: other(name="NVIDIA A100", compute_capability=(8, 0)))
    with pytest.raises(ArtifactError, match=r"NVIDIA A100 has 8\.0[\s\S]*to do    build it again: ffnet-export"):
        read_bundle(engine)


def test_only_the_same_things_are_reused(engine: Path) -> None:
    reasons: list[str] = []
    build = {"recipe": 1, **content()["build"]}
    assert reusable(engine, GRAPH, build) is not None
    newer = asdict(BuildTarget(("9.0",), "NVIDIA H200", driver=13000))
    assert reusable(engine, GRAPH, {**build, "target": newer}) is not None, "engines outlive drivers"
    others = (
        {"recipe": 2},
        {"version": "8.6.1"},
        {"options": BuildOptions(refit=True).to_dict()},
        {"target": asdict(BuildTarget(("9.0",), "NVIDIA H100"))},
    )
    for other in others:
        assert reusable(engine, GRAPH, {**build, **other}) is None, other
    assert reusable(engine, "1" * 64, build) is None
    assert reusable(engine.with_name("none.engine"), GRAPH, build) is None
    engine.write_bytes(PLAN[:-1])
    assert reusable(engine, GRAPH, build, lambda error: reasons.append(str(error))) is None
    assert "bytes" in reasons[0]


def test_engines_of_format_1_are_read_and_reused_whatever_toolkit_built_them(engine: Path) -> None:
    manifest = json.loads(manifest_path(engine).read_text())
    build = {**manifest["build"], "options": {**manifest["build"]["options"]}}
    build["flavour"], build["options"]["flavour"] = build.pop("variant"), build["options"].pop("variant")
    check = {"rests on": "the types of the parsed network", "network": {}, "engine": None}
    tools = {"ffnet-deploy": "0.0.1"}
    old = {**manifest, "format": 1, "key": "a hash", "build": build, "proof": check, "tools": tools}
    manifest_path(engine).write_bytes(json_bytes(seal(old)))
    found = reusable(engine, GRAPH, {"recipe": 1, **content()["build"]})
    assert found is not None and found.variant is Variant.TENSORRT
    assert found.manifest["precision_check"]["basis"] == "the types of the parsed network"
    assert found.manifest["build"]["variant"] == found.manifest["build"]["options"]["variant"] == "trt"
    del old["digest"]
    manifest_path(engine).write_bytes(json_bytes(old))
    assert "has changed since it was written" in refusal(engine), "the manifests of engines always had a digest"


def test_a_build_killed_between_the_two_files_is_refused(engine: Path) -> None:
    other = engine.with_name("other.engine")
    write_bundle(other, b"new engine", content())
    manifest_path(other).replace(manifest_path(engine))  # it goes first, and then no more
    assert "its manifest says" in refusal(engine)


def test_a_new_section_is_sealed_again(engine: Path) -> None:
    manifest = dict(open_bundle(engine).manifest)
    write_manifest(engine, KIND, {**manifest, "verification": {"state": "passed"}})
    again = open_bundle(engine).manifest
    assert again["verification"] == {"state": "passed"} and again["digest"] != manifest["digest"]
