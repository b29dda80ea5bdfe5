"""Who is shown: a small convolutional net over single frames, trained on real composites only.

    log p(identity | clip) = mean over frames of log p(identity | frame)

A judge is frozen before the generator that it judges: its description carries the hash of its weights, and
a file that does not match is refused. It is never a loss, and never chooses samples or checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from kinema.core.errors import GeometryError, ModelError, unknown_name


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityNetConfig:
    """The sizes of the net.

    Attributes:
        classes: number of identities.
        size: height and width of a frame in pixels.
        widths: channels after the four halvings of the frame.
    """

    classes: int
    size: int = 64
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)


class IdentityNet(nn.Module):
    """About 1 M parameters: four strided convolutions, two residual blocks, a mean over places, a matrix."""

    def __init__(self, config: IdentityNetConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        self.body = nn.Sequential(
            _convolution(3, a, stride=2),
            _convolution(a, b, stride=2),
            _Residual(b),
            _convolution(b, c, stride=2),
            _Residual(c),
            _convolution(c, d, stride=2),
        )
        self.head = nn.Linear(d, config.classes)

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Frames in -1..1 to logits `[N, classes]`."""
        maps_NDYX = self.body(frames_NCHW.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.head(maps_NDYX.mean(dim=(2, 3)))
        return logits


class _Residual(nn.Module):
    """y = relu(x + n(W_2 relu(n(W_1 x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _convolution(width, width, stride=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x_NDYX: Tensor) -> Tensor:
        return functional.relu(x_NDYX + self.norm(self.outer(self.inner(x_NDYX))))


def _convolution(inside: int, outside: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


@torch.no_grad()
def settle(net: IdentityNet, batches: Iterable[Tensor]) -> None:
    """Measure the normalisation statistics anew, as averaged weights need; ends in evaluation mode."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    net.train()
    for frames_NCHW in batches:
        net(frames_NCHW)
    net.eval()


class IdentityJudge:
    """A frozen net with the names of its classes.

    Args:
        net: the trained net.
        names: the identities' names, in the order of the classes.
        facts: what its file's description says: data hash, minutes, licence, accuracy.
    """

    def __init__(self, net: IdentityNet, names: Sequence[str], facts: dict[str, Any] | None = None) -> None:
        assert net.config.classes == len(names)
        self.net = net.eval().requires_grad_(False)
        self.names, self.facts = tuple(names), facts or {}
        self._classes = {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The class of a name; `ConfigError` when the judge does not know it."""
        if name not in self._classes:
            raise unknown_name("identity", name, self.names)
        return self._classes[name]

    @torch.no_grad()
    def log_probabilities(self, frames_BCFHW: Tensor, *, batch: int = 256) -> Tensor:
        """Clips in -1..1 to log-probabilities `[B, classes]`, the mean over the clip's frames."""
        size = self.net.config.size
        if frames_BCFHW.shape[-2:] != (size, size):
            height, width = frames_BCFHW.shape[-2:]
            raise GeometryError(f"frames of {width}x{height} do not fit this judge; resize to {size}x{size}.")
        frames_NCHW = rearrange(frames_BCFHW, "B C F H W -> (B F) C H W").float()
        logits = torch.cat([self.net(part) for part in torch.split(frames_NCHW, batch)])
        log_NK = functional.log_softmax(logits, dim=-1)
        return rearrange(log_NK, "(B F) K -> B F K", F=frames_BCFHW.shape[2]).mean(dim=1)

    def ranks(self, frames_BCFHW: Tensor, names: Sequence[str]) -> Tensor:
        """For each clip how many identities are likelier than the named one, `[B]`; 0 is recognised."""
        return ranks(self.log_probabilities(frames_BCFHW), [self.index(name) for name in names])

    def save(self, path: Path, **facts: object) -> None:
        """Write float16 weights to `path`, and beside them a JSON with names, hash and `facts`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.half().contiguous() for name, tensor in self.net.state_dict().items()}
        part = path.with_suffix(".part")
        save_file(tensors, part, {"format": "pt"})
        part.chmod(0o644)  # safetensors leaves the file private to its writer
        part.replace(path)
        known = {"size": self.net.config.size, "widths": self.net.config.widths, "sha256": file_hash(path)}
        description = known | facts | {"classes": self.names}
        path.with_suffix(".json").write_text(json.dumps(description, ensure_ascii=False, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> IdentityJudge:
        """Read what `save` wrote; `ModelError` when it is missing or not the judge that was frozen."""
        description = path.with_suffix(".json")
        if not path.is_file() or not description.is_file():
            raise ModelError(
                f"{path} and its .json are not both there; make them with scripts/train_judge.py."
            )
        try:
            facts = json.loads(description.read_text(encoding="utf-8"))
            frozen = str(facts["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{description} is damaged ({error!r}); fetch it again.") from None
        found = file_hash(path)
        if found != frozen:
            raise ModelError(f"{path}: sha256 {found[:12]} is not the frozen {frozen[:12]}; fetch it again.")
        names, widths = facts.pop("classes"), tuple(facts["widths"])
        net = IdentityNet(IdentityNetConfig(classes=len(names), size=facts["size"], widths=widths))
        net.load_state_dict(load_file(path))
        return IdentityJudge(net, names, facts)


def ranks(scores_BK: Tensor, wanted: Sequence[int]) -> Tensor:
    """How many classes score higher than the wanted one, `[B]`."""
    wanted_B1 = torch.tensor(wanted, device=scores_BK.device)[:, None]
    return (scores_BK > scores_BK.gather(1, wanted_B1)).sum(dim=1)


def file_hash(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
