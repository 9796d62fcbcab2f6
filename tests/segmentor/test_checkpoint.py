"""Every kind of checkpoint is read, and none can run code."""

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from mmengine.logging import HistoryBuffer  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from ffnet_deploy.core.errors import CheckpointError  # noqa: E402
from ffnet_deploy.core.files import sha256  # noqa: E402
from ffnet_deploy.segmentor.checkpoint import fetched_names, read_checkpoint, read_training_state  # noqa: E402

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"backbone.w": torch.randn(3, 4), "backbone.n": torch.tensor(7), "decode_head.b": torch.randn(200)}


def save(path: Path, content: Any, zipped: bool = True, **options: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, **options)
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state_dict": lambda state: {"state_dict": state, "meta": {"CLASSES": ("a", "b")}},
    "model": lambda state: {"model": state, "epoch": 3},
    "top level": lambda state: state,
    "ordered": lambda state: {"state_dict": OrderedDict(state)},
    "parameters": lambda state: {"state_dict": {**state, "backbone.w": torch.nn.Parameter(state["backbone.w"])}},
    "module. prefix": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@FORMATS
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a.pth", "a.pth.tar"])
def test_every_layout_gives_the_same_tensors(tmp_path: Path, name: str, layout: str, zipped: bool) -> None:
    found = read_checkpoint(save(tmp_path / name, LAYOUTS[layout](tensors()), zipped))
    assert same(found.tensors, tensors())
    assert found.sha256 == sha256(tmp_path / name)


def test_meta_is_kept(tmp_path: Path) -> None:
    found = read_checkpoint(save(tmp_path / "a.pth", LAYOUTS["state_dict"](tensors())))
    assert found.meta == {"CLASSES": ("a", "b")}


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_of_every_precision(tmp_path: Path, kind: torch.dtype) -> None:
    expected = {name: value.to(kind) for name, value in tensors().items()}
    save_file(expected, tmp_path / "a.safetensors", {"CLASSES": "a,b"})
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert same(found.tensors, expected) and found.meta == {"CLASSES": "a,b"}


@FORMATS
def test_histories_numbers_and_options_of_training_tools_are_read(tmp_path: Path, zipped: bool) -> None:
    beside = {
        "message_hub": {"log_scalars": {"loss": HistoryBuffer([1.0, 0.5], [1, 1])}, "runtime_info": {"iter": 2}},
        "scalars": [np.float32(1), np.float64(2), np.int64(3), np.bool_(True)],
        "arrays": [np.arange(6).reshape(2, 3), np.zeros(2, np.float16), np.array([True])],
        "args": argparse.Namespace(lr=1e-3, model="ffnet_3", nested=argparse.Namespace(a=[1, None])),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "epoch": 3,
    }
    found = read_checkpoint(save(tmp_path / "a.pth", {"state_dict": tensors(), **beside}, zipped))
    assert same(found.tensors, tensors())


def test_a_checkpoint_of_mmengines_runner_is_read(tmp_path: Path) -> None:
    model = trained_by_a_runner(tmp_path)
    content = torch.load(tmp_path / "iter_3.pth", weights_only=False)
    assert any(isinstance(value, HistoryBuffer) for value in content["message_hub"]["log_scalars"].values())
    found = read_checkpoint(tmp_path / "iter_3.pth")
    assert same(found.tensors, dict(model.state_dict()))
    assert found.meta["iter"] == 3


def trained_by_a_runner(work_dir: Path) -> Any:
    """A network after three iterations of a real Runner, which saved `iter_3.pth`."""
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    from ffnet_deploy.core.quiet import quiet

    class Line(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.fit = torch.nn.Linear(2, 1)

        def forward(self, inputs: Any = None, mode: str = "loss") -> dict[str, Tensor]:
            return {"loss": self.fit(torch.stack(list(inputs))).square().mean()}

    with quiet():
        runner = Runner(
            Line(),
            str(work_dir),
            train_dataloader={
                "batch_size": 2,
                "dataset": [{"inputs": torch.ones(2) * i} for i in range(8)],
                "sampler": {"type": "InfiniteSampler"},
            },
            train_cfg={"by_epoch": False, "max_iters": 3},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 3}},
            log_level="ERROR",
            experiment_name=work_dir.name,
        )
        runner.train()
    return runner.model


class Running:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Foreign:
    """A class of somebody's own."""


def attacks(marker: Path) -> dict[str, tuple[Any, str]]:
    """Objects that make the file `marker` when they are unpickled without care, and the type to be named."""
    line = f"open({str(marker)!r}, 'w').close()"
    inside = Running(getattr, HistoryBuffer, "__init__")
    return {
        "os.system": (Running(os.system, f"touch {marker}"), "posix.system"),
        "eval": (Running(eval, line), "eval"),
        "exec": (Running(exec, line), "exec"),
        "open": (Running(open, str(marker), "w"), "open"),
        "class": (Foreign(), "test_checkpoint.Foreign"),
        "function": (os.path.join, "posixpath.join"),
        "path": (marker, "pathlib"),
        "array of objects": (np.array([marker], object), "numpy.dtypes.ObjectDType"),
        "attribute of a history": (inside, "'__init__'"),
        "attribute of an attribute": (Running(getattr, inside, "__globals__"), "'__init__'"),
    }


@FORMATS
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_code_in_a_checkpoint_never_runs_and_is_named(tmp_path: Path, attack: str, zipped: bool) -> None:
    if os.name != "posix":
        pytest.skip("the names of these functions are those of POSIX")
    content, named = attacks(tmp_path / "marker")[attack]
    path = save(tmp_path / "a.pth", {"state_dict": tensors(), "extra": content}, zipped)
    with pytest.raises(
        CheckpointError, match="is refused: besides tensors it holds something that could run code"
    ) as caught:
        read_checkpoint(path)
    assert named in str(caught.value) and "to do" in str(caught.value)
    assert not (tmp_path / "marker").exists(), "the checkpoint ran code"


def test_the_attacks_are_real(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "exec", "open"):
        marker = tmp_path / name
        path = save(tmp_path / "a.pth", {"extra": attacks(marker)[name][0]})
        torch.load(path, weights_only=False)
        assert marker.exists(), name


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_bare_pickle_of_any_protocol_never_runs(tmp_path: Path, protocol: int) -> None:
    attack = Running(os.system, f"touch {tmp_path / 'marker'}")
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": {}, "extra": attack}, protocol))
    with pytest.raises(CheckpointError, match=rf"{os.system.__module__}\.system"):
        read_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "marker").exists()


@FORMATS
def test_code_in_a_newer_pickle_protocol_never_runs(tmp_path: Path, zipped: bool) -> None:
    attack = Running(os.system, f"touch {tmp_path / 'marker'}")
    path = save(tmp_path / "a.pth", {"state_dict": tensors(), "extra": attack}, zipped, pickle_protocol=4)
    with pytest.raises(CheckpointError, match=rf"{os.system.__module__}\.system"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_names_are_found_without_running_the_pickle(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"x": Running(os.system, f"touch {tmp_path / 'marker'}"), "w": torch.ones(1)})
    assert f"{os.system.__module__}.system" in fetched_names(path)
    assert not (tmp_path / "marker").exists()


def whole_file(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors()}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@FORMATS
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, zipped: bool, share: float) -> None:
    content = whole_file(zipped)
    (tmp_path / "a.pth").write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(CheckpointError, match=r"is damaged or not a checkpoint \(.+\)\.\n  to do"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_truncated_safetensors_file_is_one_clear_error(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for length in (1, 7, 8, 50, len(content) // 2, len(content) - 1):
        (tmp_path / "a.safetensors").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
            read_checkpoint(tmp_path / "a.safetensors")


WEB_PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"


@pytest.mark.parametrize("name", ["a.pth", "a.pth.tar", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (WEB_PAGE, "is a web page, perhaps from a download that failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "is a text file"),
        (bytes(range(256)) * 9, "is damaged or not a checkpoint"),
        (bytes(1000), "is damaged or not a checkpoint"),
    ],
    ids=["empty", "web page", "text", "noise", "zeros"],
)
def test_files_that_are_no_checkpoint_are_one_clear_error(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{told}[\s\S]*to do    copy or download it again"):
        read_checkpoint(tmp_path / name)


def test_a_zip_file_of_something_else_is_one_clear_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_missing_file_and_a_folder_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    for name in ("absent.pth", "folder.pth"):
        with pytest.raises(CheckpointError, match=rf"no checkpoint file .*{name}\.\n  to do"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    state = tensors()
    state["decode_head.b"][17] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in 1 tensors, first in decode_head\.b"):
        read_checkpoint(save(tmp_path / "a.pth", {"state_dict": state}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "holds a list, not a dict with tensors"),
        (torch.zeros(2), "holds a Tensor, not a dict"),
        ({"epoch": 1, "lr": 0.1}, "holds no tensors, only: epoch, lr"),
        ({}, "holds no tensors, only: nothing"),
        ({"state_dict": {}}, "holds no tensors, only: state_dict"),
    ],
)
def test_files_without_tensors_say_what_they_hold(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        read_checkpoint(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, dtype=torch.float8_e4m3fn),
        torch.zeros(4, dtype=torch.complex64),
        torch.eye(4).to_sparse(),
        torch.zeros(4, device="meta"),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        torch.zeros(1).expand(1 << 40),
        torch.zeros(9).as_strided((3, 5), (2, 1)),
    ],
    ids=["float8", "complex", "sparse", "meta", "nested", "expanded", "overlapping"],
)
def test_tensors_that_are_no_plain_floats_are_refused_by_name(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"state_dict": {"backbone.odd": tensor}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="odd"):
        read_checkpoint(tmp_path / "odd.pth")


def test_a_hostile_log_history_changes_nothing_outside(tmp_path: Path) -> None:
    history = HistoryBuffer([1.0], [1])
    history.__dict__["statistics_methods"] = {"mean": "hostile"}
    before = dict(HistoryBuffer._statistics_methods)
    content = {"state_dict": {"backbone.a": torch.zeros(1)}, "message_hub": {"log_scalars": {"loss": history}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HistoryBuffer, "__getstate__", lambda self: self.__dict__)
        torch.save(content, tmp_path / "hostile.pth")
    read_checkpoint(tmp_path / "hostile.pth")
    assert HistoryBuffer._statistics_methods == before


def test_an_expanded_tensor_anywhere_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    state = {"state": {0: {"exp_avg": torch.zeros(1).expand(1 << 31)}}}
    path = save(tmp_path / "a.pth", {"state_dict": tensors(), "optimizer": state})
    assert path.stat().st_size < 10_000
    for read in (read_checkpoint, read_training_state):
        with pytest.raises(CheckpointError, match=r"optimizer\.state\.0\.exp_avg is a view that repeats its 4 bytes"):
            read(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({"state_dict": {}}, 2))
        archive.writestr("bomb/version", "3")
        archive.writestr("bomb/data/0", bytes(64 << 20))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"would unpack to 671\d+[\s\S]*does not compress"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_a_huge_pickle_beside_the_tensors_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"}" * (65 << 20) + b".")
    with pytest.raises(CheckpointError, match=r"beside its tensors it has 681\d+ bytes"):
        read_checkpoint(tmp_path / "a.pth")


def test_averaged_weights_are_used_where_there_are_no_others_and_said(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in tensors().items()}
    only = read_checkpoint(save(tmp_path / "only.pth", {"state_dict_ema": other, "epoch": 3}))
    assert same(only.tensors, other) and "state_dict_ema are used" in only.notes[0]
    both = read_checkpoint(save(tmp_path / "both.pth", {"state_dict": tensors(), "state_dict_ema": other}))
    assert same(both.tensors, tensors()) and both.notes == ()


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", tensors())
    assert same(read_checkpoint(str(path)).tensors, tensors()) and read_checkpoint(str(path)).path == path


def test_a_zip_file_that_says_it_spans_several_disks_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"w": torch.ones(3)}}, path)
    content = bytearray(path.read_bytes())
    locator = content.rindex(b"PK\x06\x07")
    content[locator + 16] = 2
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="to do"):
        read_checkpoint(path)


def test_names_with_line_breaks_stay_on_one_line_of_a_message(tmp_path: Path) -> None:
    found = read_checkpoint(save(tmp_path / "a.pth", {"state_dict": {"w\n  to do    run me": torch.zeros(2)}}))
    assert list(found.tensors) == [r"w\n  to do    run me"]
    for content in ({"state_dict": {"w\nx": torch.zeros(2, dtype=torch.float8_e5m2)}}, {"w\nx": 1}):
        with pytest.raises(CheckpointError, match=r"w\\nx"):
            read_checkpoint(save(tmp_path / "b.pth", content))
