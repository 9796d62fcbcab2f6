"""Every name of TensorRT that the code uses exists in 8.5, 10 and 11, or stands behind a feature check."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.engines import tensorrt

SOURCE = Path(next(iter(tensorrt.__path__)))
LISTS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("names.json").read_text())
"""By version: names of the module, and of those of its classes that the code uses; read off the installed packages."""

MODULE = "trt"
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "conv": "IConvolutionLayer",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "self._context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "loader": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
    "parsed.builder": "Builder",
    "parsed.network": "INetworkDefinition",
    "parsed.trt": MODULE,
    "self._trt": MODULE,
}
"""By the name that the code has for it, the class of an object of TensorRT's."""
NOT_TENSORRTS = {
    ("inspector.py", "layer"),  # a JSON object of the inspector's list
    ("precision_check.py", "layer"),
    ("precision_check.py", "error"),
    ("make.py", "layer"),
    ("make.py", "error"),
    ("options.py", "error"),
    ("variant.py", "error"),
    ("build_progress.py", "error"),
    ("execution_context.py", "error"),
    ("execution_context.py", "profile"),
    ("context_pool.py", "context"),
    ("context_pool.py", "config"),  # TensorRT for RTX's, made after a feature check
    ("runner.py", "context"),
    ("runner.py", "engine"),
    ("tensors.py", "profile"),
}
"""Where such a name means something else."""
GUARDED = {
    ("refit.py", "refit_plan"): "OnnxParserRefitter",
    ("refit.py", "_not_given"): "OnnxParserRefitter",
    ("timing_cache.py", "use_runtime_cache"): "create_runtime_cache",
    ("timing_cache.py", "keep_runtime_cache"): "create_runtime_cache",
    ("context_pool.py", "_runtime_config"): "CudaGraphStrategy",
}
"""Functions that are called only after a check of the feature named."""


def chains(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are read, called or written anywhere in `tree`, the longest of each."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts: list[str] = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                parts.append(at.attr)
                at = at.value
            if isinstance(at, ast.Name):
                yield ".".join([at.id, *reversed(parts)])


def checked(tree: ast.AST) -> set[str]:
    """Names that `has` and `feature` ask for in `tree`: all parts of the dotted ones."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    found = [node.args[1] for node in calls if node.func.id in ("has", "feature") and len(node.args) == 2]  # type: ignore[attr-defined]
    return {part for text in found if isinstance(text, ast.Constant) for part in str(text.value).split(".")}


def used(file: str, chain: str) -> tuple[str, str] | None:
    """(class, attribute) of TensorRT that `chain` names; None for everything else."""
    parts = chain.split(".")
    if parts[0] == MODULE:
        return (".".join(parts[1:2]), parts[2]) if len(parts) > 2 else (MODULE, parts[1])
    for length in (2, 1):
        owner = ".".join(parts[:length])
        if owner not in CLASSES or len(parts) <= length or (file, owner) in NOT_TENSORRTS:
            continue
        if CLASSES[owner] == MODULE:
            return used(file, ".".join([MODULE, *parts[length:]]))
        return CLASSES[owner], parts[length]
    return None


def uses() -> dict[tuple[str, str], set[str]]:
    """(class, attribute) that the code uses outside feature checks, with the functions that do."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in sorted(SOURCE.glob("*.py")):
        for function in ast.parse(path.read_text()).body:
            if not isinstance(function, ast.FunctionDef | ast.ClassDef) or (path.name, function.name) in GUARDED:
                continue
            guards = checked(function)
            for name in filter(None, (used(path.name, chain) for chain in chains(function))):
                if name[1] not in guards and name[0] not in guards:
                    found.setdefault(name, set()).add(f"{path.name}:{function.name}")
    return found


def missing(lists: dict[str, Any], name: tuple[str, str]) -> bool:
    owner, attribute = name
    known = lists["module"] if owner == MODULE else lists["classes"].get(owner, [])
    return attribute not in known and not attribute.startswith("__")


@pytest.mark.parametrize("version", LISTS)
def test_every_name_exists_in_every_version(version: str) -> None:
    absent = {".".join(name): sorted(where) for name, where in uses().items() if missing(LISTS[version], name)}
    assert absent == {}


def test_every_name_exists_in_tensorrt_for_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    absent = [
        ".".join(name)
        for name in uses()
        if not hasattr(trt if name[0] == MODULE else getattr(trt, name[0], None), name[1])
    ]
    assert absent == []


def test_what_refits_an_engine_exists_since_engines_without_weights_do() -> None:
    names = {
        name for chain in chains(ast.parse((SOURCE / "refit.py").read_text())) if (name := used("refit.py", chain))
    }
    assert {("OnnxParserRefitter", "refit_from_file"), ("ISerializationConfig", "clear_flag")} <= names
    for version, lists in LISTS.items():
        strips = "STRIP_PLAN" in lists["classes"]["BuilderFlag"]
        assert strips == (version != "8.5.3") == (not any(missing(lists, name) for name in names)), version


def test_the_walk_sees_what_it_should() -> None:
    names = set(uses())
    assert {("Builder", "build_serialized_network"), ("ICudaEngine", "get_tensor_dtype"), (MODULE, "Runtime")} <= names
    assert {
        ("IExecutionContext", "execute_async_v3"),
        ("ITimingCache", "combine"),
        ("LayerType", "CONVOLUTION"),
    } <= names
    assert ("IBuilderConfig", "progress_monitor") not in names, "this stands behind a feature check"
    old = {("IBuilderConfig", "max_workspace_size"), ("ICudaEngine", "get_binding_name"), (MODULE, "IInt8Calibrator")}
    assert all(missing(LISTS["11.4.0"], name) for name in old) and not any(
        missing(LISTS["8.5.3"], name) for name in old
    )


def test_the_lists_are_the_shared_ones(shared_data: Path) -> None:
    for version, names in LISTS.items():
        whole = json.loads((shared_data.parent / "trt_api" / f"{version}.json").read_text())
        assert names["module"] == whole["module"]
        assert all(names["classes"][owner] == whole["classes"].get(owner) for owner in names["classes"])
