import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import install_command, optional
from ffnet_deploy.core.quiet import quiet


def test_an_installed_package_comes_in() -> None:
    assert optional("json.decoder", extra="convert", purpose="reading").JSONDecoder


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingPackageError) as caught:
        optional("no_such_package.part", extra="tensorrt", purpose="building engines")
    message = str(caught.value)
    assert "building engines needs the package no_such_package, which is not installed" in message
    assert message.endswith(install_command("tensorrt"))


def test_a_checkout_is_installed_again_from_its_folder() -> None:
    root = Path(__file__).resolve().parents[2]
    command = shlex.split(install_command("convert"))
    assert command == ["pip", "install", "--constraint", str(root / "constraints.txt"), f"{root}[convert]"]
    extras = re.findall(
        r"^(\w+) = \[", (root / "pyproject.toml").read_text().split("[project.optional")[1], re.MULTILINE
    )
    used = {
        extra
        for file in (root / "ffnet_deploy").rglob("*.py")
        for extra in re.findall(r"""extra=["'](\w+)["']""", file.read_text())
    }
    assert used and used <= set(extras)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "ffnet-deploy[convert]"),
        ("{", "ffnet-deploy[convert]"),
        ('{"url": "file:///w/f.whl", "archive_info": {}}', "ffnet-deploy[convert] @ file:///w/f.whl"),
        ('{"url": "file:///src/ffnet", "dir_info": {}}', "/src/ffnet[convert]"),
        (
            '{"url": "https://h/f.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "ffnet-deploy[convert] @ git+https://h/f.git@abc",
        ),
    ],
)
def test_other_installations_are_completed_from_where_they_came(
    record: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorded:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return record

    monkeypatch.setattr(
        "ffnet_deploy.core.optional.__file__", str(tmp_path / "site-packages/ffnet_deploy/core/optional.py")
    )
    monkeypatch.setattr(metadata, "distribution", lambda name: Recorded())
    assert shlex.split(install_command("convert")) == ["pip", "install", expected]


def test_a_broken_package_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import another_missing_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"cannot be loaded .*another_missing_package"):
        optional("broken_package", extra="rtx", purpose="testing")


def test_a_missing_part_of_an_installed_package_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        optional("json.no_such_part", extra="convert", purpose="testing")


def test_notices_are_silent_inside_and_heard_after(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    with pytest.raises(KeyboardInterrupt), quiet():
        print("inside")
        logging.getLogger("x").warning("inside")
        raise KeyboardInterrupt
    print("after")
    logging.getLogger("x").warning("after")
    assert capsys.readouterr().out == "after\n"
    assert caplog.messages == ["after"]


def test_the_package_imports_without_the_conversion_layer() -> None:
    import subprocess

    program = (
        "import sys\n"
        "for name in ('torch', 'mmseg', 'mmengine', 'mmcv', 'onnx'): sys.modules[name] = None\n"
        "import ffnet_deploy\n"
        "from ffnet_deploy.artifacts import manifest\n"
        "from ffnet_deploy.core import contract, files, label_sets\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
