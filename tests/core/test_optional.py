import sys
from pathlib import Path

import pytest

from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet


def test_an_installed_package_comes_in() -> None:
    assert optional("json.decoder", extra="convert", purpose="reading").JSONDecoder


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingPackageError) as caught:
        optional("no_such_package.part", extra="tensorrt", purpose="building engines")
    message = str(caught.value)
    assert "building engines needs the package no_such_package, which is not installed" in message
    assert "pip install 'ffnet-deploy[tensorrt]'" in message


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
