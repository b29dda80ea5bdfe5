"""LoRAs on a transformer: fitted strictly, laid over it or merged, and taken off without a trace.

    y = W x + sum_i s_i (alpha_i / r_i) up_i (down_i x)          laid over: the weights are not touched
    W' = W + sum_i s_i (alpha_i / r_i) up_i down_i               merged: no cost per step, the old W is kept

The scale s may differ from latent frame to latent frame when laid over. Layers that read what all frames
share (keys and values of texts and pictures, the text embedder) take the mean over the clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import dropwhile
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.coded import CodedLinear
from kinema.models.lora_file import Change, LoraFile
from kinema.models.lora_keys import TEXTS, Owner
from kinema.models.lora_names import Naming, Part, parts_by_name, wan

SHARED = (
    "attn2.to_k",
    "attn2.to_v",
    "attn2.add_k_proj",
    "attn2.add_v_proj",
    "text_embedder",
    "image_embedder",
)
PER_FRAME_INPUT = ("time_embedder", "time_proj")
Layer = nn.Linear | nn.Conv2d | nn.Conv3d
"""Layers beside which a change can be computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A file's changes under the model's own names.

    Attributes:
        changes: by layer (`blocks.0.attn1.to_q`) or table (`blocks.0.scale_shift_table`).
        keys: of the file, all of them used; those of changes to other layers, all zeros, among them.
    """

    changes: Mapping[str, Change] = field(repr=False)
    keys: int


@dataclass(frozen=True, slots=True, eq=False)
class Worn:
    """A fitted LoRA with its scale.

    Attributes:
        lora: what to apply.
        scale_T: one number, or one per latent frame.
    """

    lora: Fitted
    scale_T: tuple[float, ...]


def fit(
    file: LoraFile,
    shapes: Mapping[str, Sequence[int]],
    *,
    expert: Owner | None = None,
    naming: Naming = wan,
) -> Fitted:
    """A file's changes under a model's own names.

    Args:
        file: from `read_lora`.
        shapes: of the model's parameters, by name; a model on the meta device has them too.
        expert: of two transformers, the one to fit: keys that name the other are left to it. Or a text
            encoder.
        naming: what the model's makers call its layers.

    Raises:
        ModelError: a key names no layer of the model, or one that another key has changed in another way, or
            has another shape; nothing is left out but changes that are all zeros.
    """
    places = parts_by_name(dict.fromkeys(map(_stem, shapes)), naming)
    changes: dict[str, Change] = {}
    strays: list[str] = []
    used = 0
    for (owner, stem), change in file.changes.items():
        if _anothers(owner, expert):
            continue
        if stem in places or change.idle:
            used += len(change.keys)
        else:
            strays += change.keys
        for name, rows in _rows_of(change, places[stem], shapes, file) if stem in places else ():
            part = _of_one_pixel(rows, shapes.get(f"{name}.weight", ()))
            if name in changes and not changes[name].same(part):
                raise ModelError(
                    f"{file.path} changes {name} twice, under two names ({change.keys[0]} is the second); "
                    "leave one of the two out."
                )
            if wrong := _misfit(name, part, shapes):
                raise ModelError(
                    f"{file.path} does not fit this model: {wrong}; it was made for another one."
                )
            changes[name] = part
    if strays:
        raise ModelError(
            f"{file.path} does not fit this model: {len(strays)} of its {file.count} keys name layers that "
            f"it does not have ({', '.join(strays[:3])}); it was made for another one."
        )
    return Fitted(changes, used)


def _anothers(owner: Owner | None, expert: Owner | None) -> bool:
    """Whether a change is for another part than the one that is fitted."""
    if owner in TEXTS or expert in TEXTS:
        return owner != expert
    return owner is not None and expert is not None and owner != expert


def _of_one_pixel(change: Change, weight: Sequence[int]) -> Change:
    """A change of a convolution over one pixel as a matrix's, or the other way round, as the layer is."""
    there = [t for t in (change.down, change.up, change.diff) if t is not None]
    if min(len(weight), *(t.ndim for t in there), 2) < 2:
        return change
    if {*weight[2:], *(n for t in there for n in t.shape[2:])} - {1}:
        return change
    ones = (1,) * (len(weight) - 2)
    down, up, diff = (
        None if t is None else t.reshape(*t.shape[:2], *ones) for t in (change.down, change.up, change.diff)
    )
    return replace(change, down=down, up=up, diff=diff)


def _rows_of(
    change: Change, parts: Sequence[Part], shapes: Mapping[str, Sequence[int]], file: LoraFile
) -> Iterator[tuple[str, Change]]:
    """A change to one matrix of the makers' as changes to the layers of ours that are its rows."""
    if len(parts) == 1 and not parts[0].turned:
        yield parts[0].stem, change
        return
    sizes = [shapes[f"{part.stem}.weight"][0] for part in parts]
    for part, (up, diff, diff_b) in zip(parts, _cut(change, sizes, file), strict=True):
        rows = [None if t is None else _turned(t) if part.turned else t for t in (up, diff, diff_b)]
        yield part.stem, replace(change, up=rows[0], diff=rows[1], diff_b=rows[2])


def _cut(
    change: Change, sizes: list[int], file: LoraFile
) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor | None]]:
    tensors = (change.up, change.diff, change.diff_b)
    for tensor in tensors:
        if tensor is not None and len(tensor) != sum(sizes):
            raise ModelError(
                f"{file.path} does not fit this model: {change.keys[0]} has {len(tensor)} rows, and this "
                f"model's layers have {' + '.join(map(str, sizes))}; it was made for another one."
            )
    cut = [[None] * len(sizes) if t is None else list(torch.split(t, sizes)) for t in tensors]
    yield from zip(*cut, strict=True)


def _turned(rows: Tensor) -> Tensor:
    """With its two halves in the other order."""
    return torch.cat(rows.chunk(2)[::-1])


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's parameters, by name; a matrix kept in 8 bits counts as what it stands for."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    coded = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, CodedLinear)]
    return shapes | {f"{name}.weight": (layer.out_features, layer.in_features) for name, layer in coded}


class Chosen(Protocol):
    """Which latent frames the transformer is looking at."""

    @property
    def chosen(self) -> list[int] | None:
        """Their indices; None for all."""
        ...


@contextmanager
def wearing(
    module: nn.Module, loras: Sequence[Worn], *, merge: bool = False, frames: Chosen | None = None
) -> Iterator[None]:
    """Apply LoRAs to `module` for a while; afterwards its weights are the very tensors that it had.

    Args:
        module: a transformer whose names the LoRAs were fitted to.
        loras: applied together; their changes add up.
        frames: which of the frames that have scales are looked at, asked at every call; None for all.
        merge: fold them into the weights, when every scale is one number; else they are computed beside them.
    """
    hooks: list[Any] = []
    kept: dict[str, Tensor] = {}
    there = dict(module.named_parameters())
    try:
        for worn in loras:
            for name, change in worn.lora.changes.items():
                layer = _layer(module, name)
                if merge or not isinstance(layer, Layer):
                    _merge(there, name, change, _mean(worn.scale_T), kept)
                else:
                    hooks.append(
                        layer.register_forward_hook(_Beside(name, change, worn.scale_T, layer, frames))
                    )
        yield
    finally:
        for hook in hooks:
            hook.remove()
        parameters = dict(module.named_parameters())
        for name, tensor in kept.items():
            parameters[name].data = tensor


class Merged:
    """LoRAs folded into the weights of a module once, to be worn as often as wanted.

    Args:
        module: a network whose names the LoRAs were fitted to.
        loras: applied together, each with one scale.
    """

    def __init__(self, module: nn.Module, loras: Sequence[Worn]) -> None:
        self.module, self.loras = module, loras
        self._folded: dict[str, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def worn(self) -> Iterator[None]:
        """The module with these weights; afterwards its own are the very tensors that it had."""
        parameters = dict(self.module.named_parameters())
        if not self._folded or any(
            parameters[n].data_ptr() != t.data_ptr() for n, (t, _) in self._folded.items()
        ):
            self._folded = self._fold(parameters)  # anew where the module was moved
        own = {name: parameters[name].data for name in self._folded}
        try:
            for name, (_, tensor) in self._folded.items():
                parameters[name].data = tensor
            yield
        finally:
            for name, tensor in own.items():
                parameters[name].data = tensor

    def _fold(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, tuple[Tensor, Tensor]]:
        """Weights before and after, by name."""
        kept: dict[str, Tensor] = {}
        try:
            for worn in self.loras:
                for name, change in worn.lora.changes.items():
                    _merge(parameters, name, change, _mean(worn.scale_T), kept)
            return {name: (tensor, parameters[name].data) for name, tensor in kept.items()}
        finally:
            for name, tensor in kept.items():
                parameters[name].data = tensor


class _Beside:
    """The change of one layer, computed from the layer's input and added to its output."""

    def __init__(
        self,
        name: str,
        change: Change,
        scale_T: tuple[float, ...],
        layer: Layer,
        frames: Chosen | None,
    ) -> None:
        self.frames = frames
        self.name, self.change, self.layer = name, change, layer
        shared = any(part in name for part in SHARED)
        self.scale = torch.tensor([_mean(scale_T)] if shared else scale_T)
        self._at: tuple[torch.device, torch.dtype] | None = None

    def _follow(self, output: Tensor) -> None:
        """Be where the layer computes, in its type; its weight may be elsewhere between two calls."""
        if self._at == (output.device, output.dtype):
            return
        self._at = (output.device, output.dtype)
        self.scale = self.scale.to(output.device)
        self.change = self.change.to(output.device, output.dtype)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self._follow(output)
        x, change = inputs[0], self.change
        total: Tensor | None = None
        if change.down is not None and change.up is not None:
            total = change.strength * self._apply(self._apply(x, change.down), change.up, up=True)
        if change.diff is not None:
            part = self._apply(x, change.diff)
            total = part if total is None else total + part
        if change.diff_b is not None:
            bias = change.diff_b[(..., *[None] * len(getattr(self.layer, "kernel_size", ())))]
            total = bias.expand_as(output) if total is None else total + bias
        assert total is not None
        return output + (self._scale(output) * total).type_as(output)

    def _apply(self, x: Tensor, weight: Tensor, *, up: bool = False) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return F.linear(x.type_as(weight), weight)
        conv = F.conv3d if isinstance(self.layer, nn.Conv3d) else F.conv2d
        if up:
            return conv(x.type_as(weight), weight)
        return conv(x.type_as(weight), weight, stride=self.layer.stride, padding=self.layer.padding)

    def _scale(self, like: Tensor) -> Tensor:
        """One number, or one per frame, shaped to multiply the output."""
        if len(self.scale) == 1:
            return self.scale.type_as(like)
        chosen = None if self.frames is None else self.frames.chosen
        scale = (self.scale if chosen is None else self.scale[chosen]).type_as(like)
        T = len(scale)
        if isinstance(self.layer, nn.Conv3d):
            return scale[:, None, None]
        if any(part in self.name for part in PER_FRAME_INPUT):
            return scale[:, None]
        tokens = like.shape[1]
        assert tokens % T == 0, f"{tokens} tokens do not share {T} frames"
        return scale.repeat_interleave(tokens // T)[:, None]


def _merge(
    parameters: Mapping[str, nn.Parameter], name: str, change: Change, scale: float, kept: dict[str, Tensor]
) -> None:
    """Add a change to the parameters themselves, in fp32, and keep what was there."""
    weight = name if name in parameters else f"{name}.weight"
    added: dict[str, Tensor] = {}
    if change.down is not None and change.up is not None:
        low = change.up.float().flatten(1) @ change.down.float().flatten(1)
        added[weight] = change.strength * low.view(_there(parameters, weight).shape)
    if change.diff is not None:
        diff = change.diff.float().view(_there(parameters, weight).shape)
        added[weight] = added[weight] + diff if weight in added else diff
    if change.diff_b is not None:
        added[f"{name}.bias"] = change.diff_b.float()
    for key, delta in added.items():
        parameter = _there(parameters, key)
        kept.setdefault(key, parameter.data)
        moved = parameter.data.float() + scale * delta.to(parameter.device)
        parameter.data = moved.to(parameter.dtype)


def _there(parameters: Mapping[str, nn.Parameter], key: str) -> nn.Parameter:
    """A parameter that can be changed where it is."""
    if key not in parameters or parameters[key].is_meta:
        raise ModelError(
            f"a LoRA changes {key} itself, which is not in memory as a plain matrix; leave out merge, or "
            "render with --memory whole and --weights full."
        )
    return parameters[key]


def _misfit(name: str, change: Change, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """What of a change has another shape than the model's layer; None when all is well."""
    weight = tuple(shapes.get(f"{name}.weight") or shapes.get(name) or ())
    found: tuple[int, ...] = weight
    if change.down is not None and change.up is not None:
        if change.up.ndim != len(weight) or change.down.ndim != len(weight):
            found = (change.up.shape[0], *change.down.shape[1:])
        else:
            ups = change.up.shape
            found = (ups[0], *change.down.shape[1:]) if set(ups[2:]) <= {1} else tuple(ups)
    if found != weight:
        return f"{name} is {_shown(weight)} here and {_shown(found)} there"
    table = f"{name}.weight" not in shapes
    if change.diff is not None and _lean(change.diff.shape, table) != _lean(weight, table):
        return f"{name} is {_shown(weight)} here and {_shown(change.diff.shape)} there"
    bias = tuple(shapes.get(f"{name}.bias") or ())
    if change.diff_b is not None and tuple(change.diff_b.shape) != bias:
        return f"{name}.bias is {_shown(bias)} here and {_shown(change.diff_b.shape)} there"
    return None


def _lean(shape: Sequence[int], table: bool) -> tuple[int, ...]:
    """A shape to compare; a table's leading axes of one are written or not."""
    return tuple(dropwhile(lambda n: table and n == 1, shape))


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "none"


def _stem(parameter: str) -> str:
    return parameter.removesuffix(".weight").removesuffix(".bias")


def _layer(module: nn.Module, name: str) -> nn.Module | None:
    """The layer of this name; None for a table that is a parameter by itself."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _mean(scale_T: tuple[float, ...]) -> float:
    return sum(scale_T) / len(scale_T)
