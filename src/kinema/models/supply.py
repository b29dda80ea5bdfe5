"""What gives a module its matrices for a while: read from a shelf, brought to a device, taken back.

A module is built bare. Small tensors (biases, norms, tables) are loaded once and stay; matrices are put in
for as long as they are needed. The module's own code does not know: it finds its weights where they always
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.errors import ModelError
from kinema.models.coded import Code, CodedLinear, coded, encode
from kinema.models.shelf import Shelf

Tensors = dict[str, Tensor]
"""What stands for one matrix, by the layer's own names: `weight`, or `codes` and `scale`."""


@dataclass(eq=False)
class Supply:
    """Matrices by their names in the module, ready for use.

    Attributes:
        shelf: where they are read.
        precision: of each, by name, in use.
        device: where they are used.
        code: in how many bits they are kept; None for those of the file.
        keep: hold on to what was read, in the memory of the host.
        lift: give float32 in place of half precision.
    """

    shelf: Shelf
    precision: Callable[[str], torch.dtype]
    device: torch.device
    code: Code | None = None
    keep: bool = False
    lift: bool = False
    _kept: dict[str, Tensors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._pinned = self.device.type == "cuda"

    def plain(self, name: str) -> Tensor:
        """A tensor that is not coded."""
        return self.shelf.read(name).to(self.device).to(self.precision(name))

    def given(self, name: str) -> torch.dtype:
        """The precision that a matrix comes in now."""
        found = self.precision(name)
        return torch.float32 if self.lift and found in (torch.float16, torch.bfloat16) else found

    def fetch(self, name: str, *, code: Code | None = None) -> Tensors:
        """The tensors of one matrix, on the device; copies from the host do not wait where they need not."""
        host = self._kept.get(name) or self._made(name, code)
        if self.keep:
            self._kept[name] = host
        there = {leaf: tensor.to(self.device, non_blocking=self._pinned) for leaf, tensor in host.items()}
        return there if code else {leaf: tensor.to(self.given(name)) for leaf, tensor in there.items()}

    def _made(self, name: str, code: Code | None) -> Tensors:
        if code is not None:
            codes, scale = encode(self.shelf.read(name).to(self.precision(name)), code)
            return {"codes": self._pin(codes), "scale": self._pin(scale)}
        # what comes with a scale is read as float32, of which nothing is to stay or to be moved
        if name in self.shelf.scales or (self.keep and self._waits(name) != self.shelf.places[name].dtype):
            return {"weight": self._pin(self.shelf.read(name).to(self._waits(name)))}
        return {"weight": self.shelf.read(name, pinned=self._pinned)}

    def _waits(self, name: str) -> torch.dtype:
        """The precision of a matrix on the host: the smaller one of the file's and that of use."""
        stored, wanted = self.shelf.places[name].dtype, self.precision(name)
        return wanted if name in self.shelf.scales or wanted.itemsize < stored.itemsize else stored

    def held(self) -> int:
        """Bytes of the host's memory that everything takes where it is kept."""
        places = self.shelf.places
        return sum(
            math.prod(places[name].shape) * (1 if self.code else self._waits(name).itemsize)
            for name in places
        )

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pinned else tensor


class Slots:
    """The places in a module where matrices go.

    Args:
        module: built bare, with names as the supply has them after `prefix`.
        supply: of the matrices.
        prefix: of the module's names.
        coded_inside: layers whose names begin so are kept in the supply's code.
    """

    def __init__(
        self, module: nn.Module, supply: Supply, *, prefix: str = "", coded_inside: str | None = None
    ) -> None:
        self.supply, self.prefix, self._filled = supply, prefix, set[str]()
        self._layers: dict[str, nn.Module] = {}
        for name, parameter in list(module.named_parameters(remove_duplicate=False)):
            stem, _, leaf = name.rpartition(".")
            if leaf != "weight" or parameter.ndim < 2:
                continue
            layer = module.get_submodule(stem)
            inside = coded_inside is not None and f"{prefix}{stem}".startswith(coded_inside)
            if supply.code and inside and isinstance(layer, nn.Linear):
                layer = coded(layer, supply.code, supply.precision(f"{prefix}{name}"))
                module.set_submodule(stem, layer)
            self._layers[name] = layer
        self._empty = {
            name: {leaf: p for leaf, p in layer.named_parameters(recurse=False) if leaf != "bias"}
            for name, layer in self._layers.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Of the matrices, in the module's own order."""
        return tuple(self._layers)

    def fetch(self, names: Iterable[str]) -> dict[str, Tensors]:
        """The tensors of these matrices, wherever they still have to be brought from."""
        return {name: self.supply.fetch(f"{self.prefix}{name}", code=self._code(name)) for name in names}

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Matrices come in float32 in place of half precision; none of before stays."""
        before = self.supply.lift
        self._lift(True)
        try:
            yield
        finally:
            self._lift(before)

    def _lift(self, lift: bool) -> None:
        self.clear()
        self.supply.lift = lift
        for name, layer in self._layers.items():
            if isinstance(layer, CodedLinear):
                layer.compute = self.supply.given(f"{self.prefix}{name}")

    def fill(self, found: Mapping[str, Tensors]) -> None:
        """Put matrices in."""
        for name, tensors in found.items():
            for leaf, tensor in tensors.items():
                setattr(self._layers[name], leaf, nn.Parameter(tensor, requires_grad=False))
            self._filled.add(name)

    def hold(self, names: Iterable[str]) -> None:
        """Have these in, besides what is in already; one after the other, so that none is in memory twice."""
        for name in names:
            if name not in self._filled:
                self.fill(self.fetch([name]))

    def clear(self) -> None:
        """Take all of them out."""
        for name in self._filled:
            for leaf, empty in self._empty[name].items():
                setattr(self._layers[name], leaf, empty)
        self._filled.clear()

    def _code(self, name: str) -> Code | None:
        return self.supply.code if isinstance(self._layers[name], CodedLinear) else None


def load_small(module: nn.Module, supply: Supply, *, origin: object, besides: Iterable[str] = ()) -> None:
    """Give a bare module everything but its matrices, after checking the names and shapes of all its tensors.

    Args:
        module: bare, without slots made in it yet.
        supply: of its tensors.
        origin: what to name in an error.
        besides: prefixes of names that may be on the shelf without being wanted.

    Raises:
        ModelError: tensors are missing, too many, or of other shapes.
    """
    wanted = dict(module.named_parameters())
    there = supply.shelf.places
    missing = sorted(wanted.keys() - there.keys())
    stray = sorted(n for n in there.keys() - wanted.keys() if not n.startswith(tuple(besides)))
    wrong = [n for n in wanted if n in there and tuple(wanted[n].shape) != there[n].shape]
    for kind, names in (("missing", missing), ("unexpected", stray), ("of another shape", wrong)):
        if names:
            raise ModelError(
                f"{origin} does not hold a {type(module).__name__} of its config: {len(names)} {kind} "
                f"({', '.join(names[:3])}); check that config.json and weights belong together."
            )
    for name, parameter in wanted.items():
        stem, _, leaf = name.rpartition(".")
        if parameter.ndim < 2 or leaf != "weight":
            tensor = nn.Parameter(supply.plain(name), requires_grad=False)
            setattr(module.get_submodule(stem), leaf, tensor)


class StreamedBlocks(nn.ModuleList):
    """Blocks whose matrices are in memory only while the block works: the next one's are fetched meanwhile.

        for block in blocks: x = block(x)

    Iteration is what loads: at any time one block is filled and one on its way. On CUDA the copies run on a
    stream of their own, from pinned memory.

    Args:
        blocks: bare.
        supply: of their matrices, under `prefix` and the block's number.
        prefix: such as `blocks.`.
    """

    def __init__(self, blocks: nn.ModuleList, supply: Supply, *, prefix: str) -> None:
        super().__init__(list(blocks))
        self.wanted: Callable[[str], bool] = lambda name: True
        self._device = supply.device
        self._slots = [
            Slots(block, supply, prefix=f"{prefix}{i}.", coded_inside=prefix)
            for i, block in enumerate(blocks)
        ]
        self._side = torch.cuda.Stream(supply.device) if supply.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[nn.Module]:
        """The blocks, each with those of its matrices that are `wanted`."""
        return self.part(range(len(self)))

    def part(self, which: range) -> Iterator[nn.Module]:
        """Some of them, in order; no other is read."""
        wanted, before = self.wanted, None
        chosen = [(self[i], self._slots[i]) for i in which]
        with ThreadPoolExecutor(1, "kinema-blocks") as reader:
            coming = [reader.submit(self._fetch, slots, wanted) for _, slots in chosen[:1]]
            following = [*(slots for _, slots in chosen[1:]), None]
            for (block, slots), ahead in zip(chosen, following, strict=True):
                found, ready = coming.pop().result()
                if before is not None:
                    before.synchronize()  # else the host runs ahead, and memory with it
                if ahead is not None:
                    coming.append(reader.submit(self._fetch, ahead, wanted))
                self._arrive(found, ready)
                slots.fill(found)
                del found
                try:
                    yield block
                finally:
                    slots.clear()
                before = self._mark()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Matrices come in float32 in place of half precision."""
        with ExitStack() as stack:
            for slots in self._slots:
                stack.enter_context(slots.lifted())
            yield

    def _fetch(self, slots: Slots, wanted: Callable[[str], bool]) -> tuple[dict[str, Tensors], Any]:
        names = [name for name in slots.names if wanted(name)]
        with torch.inference_mode(), nullcontext() if self._side is None else torch.cuda.stream(self._side):
            found = slots.fetch(names)
            return found, None if self._side is None else self._side.record_event()

    def _arrive(self, found: Mapping[str, Tensors], ready: Any) -> None:
        """Let the computing stream wait for the copies, and the allocator know who uses them."""
        if ready is None:
            return
        now = torch.cuda.current_stream(self._device)
        now.wait_event(ready)
        for tensors in found.values():
            for tensor in tensors.values():
                tensor.record_stream(now)

    def _mark(self) -> Any:
        """Where the computing stream is; None where there is no such thing."""
        return None if self._side is None else torch.cuda.current_stream(self._device).record_event()
