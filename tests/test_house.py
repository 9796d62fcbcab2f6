"""The house is in order: what holds for the source of the whole package."""

import ast
from collections import defaultdict
from pathlib import Path

import ffnet_deploy

SOURCE = Path(ffnet_deploy.__file__).parent


def modules() -> list[Path]:
    found = [path for path in SOURCE.rglob("*.py") if "configs" not in path.relative_to(SOURCE).parts]
    assert len(found) > 100
    return found


def test_each_public_class_name_exists_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_module_defines_a_name_twice() -> None:
    twice: dict[str, list[str]] = {}
    for path in modules():
        names = [
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            twice[str(path.relative_to(SOURCE))] = repeated
    assert twice == {}
