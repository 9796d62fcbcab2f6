"""The pages that speak of options speak of options that exist."""

import re
from pathlib import Path

import pytest

from ffnet_deploy.cli import publish
from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.cli.reference import COMMANDS, reference

ROOT = Path(__file__).resolve().parents[2]
OF_OTHER_TOOLS = {
    "--memory",
    "--self-test",
    "--whole-run",
    "--aug-test", "--constraint", "--eval", "--force-reinstall", "--gpus", "--logdir", "--model-repository",
    "--again", "--results", "--stage", "--system-site-packages", "--tensorrt-python",
    "--no-python", "--nnodes", "--node-rank", "--nproc-per-node", "--quick", "--rm", "--table", "--graph", "--methods",
    "--editable", "--train", "--val", "--size", "--about-data", "--standalone", "--upgrade", "--master-addr",
    "--master-port", "--rdzv-endpoint", "--show",
    "--trt", "--onnxrt", "--trt-outputs", "--onnx-outputs", "--fail-fast", "--also", "--check", "--no-compile",
    "--no-deps", "--no-index", "--quiet", "--work", "--engine",
}  # fmt: skip
"""Options of pip, Docker, Triton, torchrun, jetson_clocks, Polygraphy, TensorBoard, MMSegmentation, benchmarks/,
examples/ and scenes/."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")


def known() -> set[str]:
    apps = (*COMMANDS, publish.app)
    names = {name for app in apps for one in app.assemble_argument_collection() if one.parse for name in one.names}
    return names | {"--help", "--version", "--install-completion"} | OF_OTHER_TOOLS


@pytest.mark.parametrize("pattern", ["ffnet_deploy/**/*.py", "docs/**/*.md", "README.md", "*/README.md"])
def test_every_option_that_is_named_exists(pattern: str) -> None:
    pages = [path for path in ROOT.glob(pattern) if not path.relative_to(ROOT).parts[0].startswith(".")]
    assert pages
    options = known()
    wrong = {
        f"{path.relative_to(ROOT)}: {name}" for path in pages for name in OPTION.findall(path.read_text("utf-8"))
        if name not in options
    }  # fmt: skip
    assert wrong == set()


def test_the_reference_is_current() -> None:
    page = ROOT / "docs/reference/commands.md"
    assert page.read_text("utf-8") == reference(), "python -m ffnet_deploy.cli.reference > docs/reference/commands.md"


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text("utf-8")
    for code in ExitCode:
        assert f"| {code.value} | {code.meaning} |" in page
