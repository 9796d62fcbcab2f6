"""PyTorch as an engine: the segmentor as published, behind the same protocol as every artefact."""

from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import STRIDE, Contract, DimensionRange, InputKind, Normalization, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import check_batch

_ANY_SIDE = DimensionRange(STRIDE, 512, 1 << 14)
_ANY_BATCH = DimensionRange(1, 1, 1 << 10)


class TorchEngine:
    """A segmentor run by PyTorch in float32, in training form, without any rewriting.

    Args:
        model: mmseg `EncoderDecoder`; it is moved to `device` and put in evaluation mode.
        contract: what the engine takes and gives.
        device: PyTorch device, for instance ``"cpu"`` or ``"cuda:0"``.
        notes: what to know of its results.

    Raises:
        OptionError: PyTorch has no such device.
    """

    def __init__(self, model: Any, contract: Contract, device: str = "cpu", notes: tuple[str, ...] = ()) -> None:
        self._torch: ModuleType = optional("torch", extra="convert", purpose="running a segmentor in PyTorch")
        self.contract = contract
        self.notes = notes
        self.name = f"PyTorch {self._torch.__version__} ({device})"
        try:
            self._device = self._torch.device(device)
            self._model: Any = model.to(self._device).eval()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise OptionError(f"PyTorch cannot use the device {device!r}: {str(error).splitlines()[0]}") from error

    @classmethod
    def from_config(
        cls,
        config: str | Path,
        checkpoint: str | Path | None,
        device: str = "cpu",
        progress: Progress = no_progress,
    ) -> "TorchEngine":
        """The engine of a config and checkpoint, with float input of any size and logits as output.

        Raises:
            ConfigError: the config cannot be found, read or built.
            CheckpointError: the checkpoint cannot be found, read or fitted.
            MissingPackageError: the conversion layer is not installed.
        """
        optional("mmseg", extra="convert", purpose="the torch backend")
        from ffnet_deploy.segmentor.load import open_segmentor

        segmentor = open_segmentor(config, checkpoint, progress)
        contract = segmentor.contract(height=_ANY_SIDE, width=_ANY_SIDE, batch=_ANY_BATCH)
        return cls(segmentor.model, contract, device, segmentor.notes)

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the contract excludes.
        """
        check_batch(batch, self.contract)
        with self._torch.inference_mode():
            image = self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
            if self.contract.input is not InputKind.FLOAT:
                image = self._normalized(image, self.contract.normalization)
            logits = self._model.decode_head(self._model.backbone(image))
            return np.asarray(self._finished(logits, image.shape[2:]).cpu().numpy())

    def _normalized(self, image: Any, normalization: Normalization) -> Any:
        """uint8 (batch, H, W, 3) in the contract's channel order to normalised RGB (batch, 3, H, W)."""
        rgb = image.flip(3) if self.contract.input is InputKind.BGR else image
        mean = self._torch.tensor(normalization.mean, device=image.device)
        std = self._torch.tensor(normalization.std, device=image.device)
        return ((rgb.float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _finished(self, logits: Any, size: Any) -> Any:
        if self.contract.output is OutputKind.LOGITS:
            return logits
        interpolate = self._torch.nn.functional.interpolate
        enlarged = interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
        if self.contract.output is OutputKind.LABELS:
            return enlarged.argmax(1).to(self._torch.uint8)
        return enlarged.softmax(1)

    def close(self) -> None:
        """Release the model; calling it twice is harmless."""
        self._model = None

    def __enter__(self) -> "TorchEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
