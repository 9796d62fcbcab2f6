"""The network that is exported: everything between the artefact's input and its output, and nothing else.

It is re-parameterised, and its decoder is written so that every size-dependent step stays exact when height and width
are dynamic, where such a form is known.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ffnet_deploy.core.contract import IGNORE_LABEL, STRIDE, InputKind, Normalization, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.export.enlarging import enlarged
from ffnet_deploy.export.heads import deployed_head
from ffnet_deploy.export.reparameterize import reparameterize


class DeployedNetwork(nn.Module):
    """A segmentor between the boundaries of its artefact.

    Args:
        model: segmentor as loaded; it is copied and re-parameterised.
        normalization: applied in the graph when the input is uint8.
        input_kind: what `forward` is given.
        output_kind: what `forward` returns.
        size: (height, width) of an image that the network accepts, pixels.

    Raises:
        OptionError: the decoder gives something else than one map of logits, or one that does not fit the options.
    """

    def __init__(
        self,
        model: Any,
        normalization: Normalization,
        input_kind: InputKind,
        output_kind: OutputKind,
        size: tuple[int, int] = (2 * STRIDE, 2 * STRIDE),
    ):
        super().__init__()
        folded = reparameterize(model)
        self.normalize = None if input_kind is InputKind.FLOAT else Normalize(normalization, input_kind)
        self.backbone = nn.Sequential(folded.backbone, folded.neck) if folded.with_neck else folded.backbone
        image = torch.zeros(1, 3, *size)
        if input_kind is InputKind.BGR:
            _swap_input_channels(self.backbone, image)
        with torch.no_grad():
            features = self.backbone(image)
            self.decode_head = deployed_head(folded.decode_head, features)
            logits = self.decode_head(features)
        if not isinstance(logits, Tensor) or logits.shape[1] != model.num_classes:
            kind = type(self.decode_head).__name__
            raise OptionError(f"the decoder {kind} gives no map of logits with a channel for each class: not supported")
        self.finish = Finish(output_kind, output_stride(size, logits, output_kind))

    def forward(self, image: Tensor) -> Tensor:
        """The output for a batch of images, kinds as in the constructor."""
        x = image if self.normalize is None else self.normalize(image)
        out: Tensor = self.finish(self.decode_head(self.backbone(x)))
        return out


class Normalize(nn.Module):
    """uint8 (batch, H, W, 3) to float32 (batch, 3, H, W), zero mean and unit deviation, channels in the order given."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization, input_kind: InputKind):
        super().__init__()
        order = slice(None, None, -1) if input_kind is InputKind.BGR else slice(None)
        self.register_buffer("mean", torch.tensor(normalization.mean[order]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std[order]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images."""
        # cast first: TensorRT transposes no uint8
        return (image.float().permute(0, 3, 1, 2) - self.mean) / self.std


class Finish(nn.Module):
    """From logits at the decoder's stride to the artefact's output."""

    def __init__(self, output_kind: OutputKind, stride: int):
        super().__init__()
        self.output_kind = output_kind
        self.stride = float(stride)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits as they are, or enlarged to the input size (bilinear) and turned into labels or probabilities."""
        if self.output_kind is OutputKind.LOGITS:
            return logits
        full = enlarged(logits, self.stride)
        if self.output_kind is OutputKind.LABELS:
            return full.argmax(1).float().to(label_type(logits.shape[1]))  # TensorRT 8.5 makes uint8 of floats alone
        return full.softmax(1)


def label_type(classes: int) -> torch.dtype:
    """Type of the label maps of a network: torch traces no uint16, which the graph gets in the place of int32."""
    return torch.uint8 if classes <= IGNORE_LABEL else torch.int32


def output_stride(size: tuple[int, int], logits: Tensor, output_kind: OutputKind) -> int:
    """Input pixels per logit, in both directions, for an input of `size` (height, width).

    Raises:
        OptionError: it is no whole number, and the output is of the input's size.
    """
    factors = {side / count for side, count in zip(size, logits.shape[2:], strict=True)}
    stride = int(factors.pop())
    if output_kind is not OutputKind.LOGITS and (factors or size[0] % logits.shape[2] or size[1] % logits.shape[3]):
        found = f"{logits.shape[2]}x{logits.shape[3]} logits for {size[0]}x{size[1]} pixels"
        raise OptionError(f"--output {output_kind.value} needs logits whose size divides that of the input: {found}")
    return stride


def _swap_input_channels(backbone: nn.Module, image: Tensor) -> None:
    """Make a backbone for RGB take BGR: exact, and free at run time.

    Args:
        backbone: its convolutions that read the image are changed.
        image: (1, 3, H, W) of a size that it accepts.
    """
    readers: list[nn.Conv2d] = []

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0] is image:
            readers.append(conv)  # type: ignore[arg-type]

    handles = [module.register_forward_pre_hook(note) for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        backbone(image)
        for handle in handles:
            handle.remove()
        for conv in readers:
            conv.weight.copy_(conv.weight.flip(1))
    if not readers:
        raise OptionError("BGR input needs a backbone whose convolutions read the image itself; use --input rgb")
