"""What users of diffusers call on a pipeline beside the call itself: LoRAs, offloading, saving.

    pipe.load_lora_weights("style.safetensors", adapter_name="style")
    pipe.set_adapters(["style"], adapter_weights=[0.8])
    pipe.enable_model_cpu_offload()
    pipe.save_pretrained("copy")

LoRAs are those of a shot: checked key by key when they are loaded, laid over the transformer for each call,
and gone after it. `fuse_lora` folds them into the weights instead, likewise for the length of a call.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ConfigError, ModelError, unknown_name
from kinema.core.runtime import resolve_device
from kinema.pipelines.card import ModelCard
from kinema.pipelines.cards import local_folder, weight_parts
from kinema.pipelines.hub import weights_of
from kinema.pipelines.loading import load
from kinema.pipelines.model import Model
from kinema.pipelines.residency.loading import ResidentModel


@dataclass
class Adapters:
    """The LoRAs of a pipeline by name.

    Attributes:
        paths: of their files, and for which transformer each is.
        scales: of the active ones.
        fused: whether they are folded into the weights, with what factor; None for laid over.
        on: whether they act.
    """

    paths: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    fused: float | None = None
    on: bool = True

    def of_shot(self) -> list[dict[str, Any]]:
        """As a shot's `loras`."""
        factor, merge = (1.0, False) if self.fused is None else (self.fused, True)
        return [
            {
                "path": self.paths[name][0],
                "scale": scale * factor,
                "merge": merge,
                "expert": self.paths[name][1],
            }
            for name, scale in self.scales.items()
            if self.on
        ]

    def free_name(self) -> str:
        """For one that was given none."""
        return next(name for i in count() if (name := f"default_{i}") not in self.paths)

    def require(self, name: str) -> None:
        """`ConfigError` for a name that was not loaded."""
        if name not in self.paths:
            raise unknown_name("adapter", name, self.paths)


class PipelineExtras:
    """Mixed into `KinemaPipeline`."""

    model: Model
    _adapters: Adapters

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path,
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        load_into_transformer_2: bool = False,
    ) -> None:
        """Load a LoRA and let it act, with scale 1, beside those that are active already.

        Args:
            pretrained_model_name_or_path_or_dict: a `.safetensors` file, or its folder.
            adapter_name: what to call it; without, the first of `default_0`, `default_1`, ... that is free.
            weight_name: the file in the folder.
            load_into_transformer_2: in models of two transformers, for that of low noise; else of high noise.
                A file whose keys say which is for those that they name.

        Raises:
            ModelError: a key names no layer of the model, or has another shape.
            ConfigError: a name that is taken, or keys of two transformers for a model of one.
        """
        from kinema.models.lora_file import read_lora
        from kinema.pipelines.loras import fitted, says_which

        if isinstance(pretrained_model_name_or_path_or_dict, Mapping):
            raise ConfigError("a LoRA in memory is not read; save it with safetensors and give the file.")
        path = Path(pretrained_model_name_or_path_or_dict)
        path = path / (weight_name or "pytorch_lora_weights.safetensors") if path.is_dir() else path
        name = adapter_name or self._adapters.free_name()
        if name in self._adapters.paths:
            raise ConfigError(f"adapter {name!r} is loaded already; give it another adapter_name.")
        file, card, expert = read_lora(str(path)), self.model.card, None
        if card.boundary is not None:
            expert = "both" if says_which(file) else "low" if load_into_transformer_2 else "high"
        if (used := fitted(file, card, expert or "both")) != file.count:
            raise ConfigError(
                f"{path} has keys of two transformers, and {file.count - used} of {file.count} would not be "
                f"used by {card.id!r}; give it one transformer's."
            )
        self._adapters.paths[name], self._adapters.scales[name] = (str(path), expert), 1.0

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Let these LoRAs act, with these scales (1 by default), and no others."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        for name in names:
            self._adapters.require(name)
        if adapter_weights is None or isinstance(adapter_weights, int | float):
            weights = [1.0 if adapter_weights is None else float(adapter_weights)] * len(names)
        else:
            weights = [float(weight) for weight in adapter_weights]
        if len(weights) != len(names):
            raise ConfigError(f"{len(names)} adapters and {len(weights)} weights; give one for each.")
        self._adapters.scales = dict(zip(names, weights, strict=True))

    def get_active_adapters(self) -> list[str]:
        """Names of those that act."""
        return list(self._adapters.scales) if self._adapters.on else []

    def get_list_adapters(self) -> dict[str, list[str]]:
        """All that are loaded, by the part that they change."""
        return {"transformer": list(self._adapters.paths)}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Forget these LoRAs."""
        for name in [adapter_names] if isinstance(adapter_names, str) else list(adapter_names):
            self._adapters.require(name)
            del self._adapters.paths[name]
            self._adapters.scales.pop(name, None)

    def unload_lora_weights(self) -> None:
        """Forget all LoRAs; the model is, and was between calls, as it was loaded."""
        self._adapters = Adapters()

    def disable_lora(self) -> None:
        """Keep the LoRAs, without letting them act."""
        self._adapters.on = False

    def enable_lora(self) -> None:
        """Let them act again."""
        self._adapters.on = True

    def fuse_lora(self, lora_scale: float = 1.0) -> None:
        """Fold the active LoRAs into the weights for each call, which then costs nothing per step.

        Raises:
            ConfigError: the weights are not all in memory as they are.
        """
        tier = self.model.tier if isinstance(self.model, ResidentModel) else "whole"
        if tier != "whole" or self.model.weights != "full":
            raise ConfigError(
                "fuse_lora needs the whole model in memory with full weights; leave offloading out."
            )
        self._adapters.fused = lora_scale

    def unfuse_lora(self) -> None:
        """Lay them over the weights again."""
        self._adapters.fused = None

    def enable_model_cpu_offload(self, *, device: torch.device | str | None = None) -> None:
        """One part in memory at a time: memory `component`; on CUDA, where there is one, unless told."""
        self._arrange("component", device)

    def enable_sequential_cpu_offload(self, *, device: torch.device | str | None = None) -> None:
        """One block in memory at a time: memory `block`."""
        self._arrange("block", device)

    def enable_group_offload(self, *, onload_device: torch.device | str | None = None) -> None:
        """The same; groups are blocks."""
        self._arrange("block", onload_device)

    def remove_all_hooks(self) -> None:
        """Everything in memory again."""
        self._arrange("whole", self.model.device)

    def enable_vae_slicing(self) -> None:
        """Nothing to do: videos are decoded one after the other, each frame by frame."""

    def disable_vae_slicing(self) -> None:
        """Nothing to do."""

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the checkpoint, as it was loaded from, into a folder in diffusers layout.

        Raises:
            ModelError: the transformer stands in a file of its own, so that there is no such checkpoint.
        """
        card, target = self.model.card, Path(save_directory)
        if card.files or card.parts:
            raise ModelError(f"{card.id!r} is put together from several places; convert it with diffusers.")
        source = local_folder(card)
        for name in _files(card, source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)

    def _arrange(self, memory: str, device: torch.device | str | None) -> None:
        where = resolve_device("auto" if device is None else str(device))
        if self._adapters.fused is not None and memory != "whole":
            raise ConfigError("LoRAs are fused into the weights; call unfuse_lora() before offloading.")
        dtype = str(self.model.dtype).removeprefix("torch.")
        model = load(
            self.model.card.id,
            device=str(where),
            dtype=dtype,
            card=self.model.card,
            weights=self.model.weights,
            memory=memory,
        )
        assert isinstance(model, Model)
        self.model = model


def _files(card: ModelCard, source: Path) -> list[str]:
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
    return list(weights_of(weight_parts(card))(names))
