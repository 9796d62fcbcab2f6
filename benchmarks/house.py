"""Size and shape of the source: modules, private functions, functions with one caller, repeated class names.

``python -m benchmarks.house TREE [TREE ...]`` prints one column for each tree, a folder that holds ``ffnet_deploy``.
A caller is a mention of the name outside the function itself, in the module that defines it.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

SMALL_MODULE = 60
SMALL_FUNCTION = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _mentions(node: ast.AST) -> Counter[str]:
    """How often each name is read below `node`."""
    names: Counter[str] = Counter()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names[part.id] += 1
        elif isinstance(part, ast.Attribute):
            names[part.attr] += 1
    return names


def line_count(function: Function) -> int:
    """Lines of `function`, with signature and docstring."""
    return (function.end_lineno or 0) - function.lineno + 1


def single_callers(trees: dict[Path, ast.Module]) -> Iterator[tuple[Path, Function]]:
    """Private module-level functions that are mentioned once in their module and nowhere else."""
    for path, tree in trees.items():
        names = _mentions(tree)
        for node in tree.body:
            if not isinstance(node, Function) or not node.name.startswith("_"):
                continue
            if names[node.name] - _mentions(node)[node.name] == 1:
                yield path, node


def measure(root: Path) -> dict[str, str]:
    """The table of one tree, by row."""
    paths = [path for path in (root / "ffnet_deploy").rglob("*.py") if "configs" not in path.parts]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    lengths = sorted(len(text.splitlines()) for text in texts.values())
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, Function)]
    top = [node for tree in trees.values() for node in tree.body if isinstance(node, Function)]
    private = [node for node in functions if node.name.startswith("_") and not node.name.endswith("__")]
    single = [node for _, node in single_callers(trees)]
    places: dict[str, int] = defaultdict(int)
    for tree in trees.values():
        for statement in tree.body:
            if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                places[statement.name] += 1
    return {
        "lines": str(sum(lengths)),
        "modules": str(len(lengths)),
        f"modules under {SMALL_MODULE} lines": str(sum(length < SMALL_MODULE for length in lengths)),
        "lines of a module, median / p90 / most": " / ".join(
            str(lengths[min(len(lengths) - 1, int(len(lengths) * part))]) for part in (0.5, 0.9, 1)
        ),
        "functions and methods": str(len(functions)),
        "private ones": f"{len(private)} ({len(private) / len(functions):.0%})",
        "private functions of modules": str(sum(node.name.startswith("_") for node in top)),
        "with one caller": str(len(single)),
        f"with one caller and at most {SMALL_FUNCTION} lines": str(
            sum(line_count(node) <= SMALL_FUNCTION for node in single)
        ),
        "functions over 80 lines": str(sum(line_count(node) > 80 for node in functions)),
        "public class names in several modules": str(sum(count > 1 for count in places.values())),
    }


def main(arguments: list[str]) -> None:
    """Print the table; with ``--list``, the small functions with one caller of the last tree too."""
    roots = [Path(argument) for argument in arguments if argument != "--list"] or [Path()]
    tables = [measure(root) for root in roots]
    print("| | " + " | ".join(str(root) for root in roots) + " |")
    print("|---" * (len(roots) + 1) + "|")
    for row in tables[0]:
        print(f"| {row} | " + " | ".join(table[row] for table in tables) + " |")
    if "--list" in arguments:
        paths = [path for path in (roots[-1] / "ffnet_deploy").rglob("*.py") if "configs" not in path.parts]
        for path, node in single_callers({path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}):
            if line_count(node) <= SMALL_FUNCTION:
                print(f"{path}:{node.lineno} {node.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
