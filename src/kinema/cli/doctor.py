"""`kinema doctor`: what is installed, what the machine has, and whether attention computes right."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from kinema.cli.help import VerbCommand

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "safetensors",
    "numpy",
    "pillow",
    "imageio-ffmpeg",
    "decord",
    "decord2",
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Look")(doctor)


def doctor() -> None:
    """Check the installation: versions, device, ffmpeg, the embedded model, compiled code, attention."""
    healthy = True
    for name, text, good in findings():
        typer.echo(f"{'ok ' if good else 'BAD'}  {name:<12} {text}")
        healthy = healthy and good
    if not healthy:
        raise typer.Exit(2)


def findings() -> Iterator[tuple[str, str, bool]]:
    """What was looked at, what was found, and whether it is well."""
    from kinema.core.version import VERSION

    yield "kinema", f"{VERSION}, python {platform.python_version()}, {platform.platform()}", True
    yield "packages", ", ".join(_versions()), True
    yield from _machine()
    yield _ffmpeg()
    yield _embedded()
    yield from _kernels()
    yield _native()


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _machine() -> Iterator[tuple[str, str, bool]]:
    import torch

    from kinema.core.runtime import resolve_device, resolve_dtype

    device = resolve_device("auto")
    dtype = str(resolve_dtype("auto", device)).removeprefix("torch.")
    yield "memory", ", ".join(_memory(device)), True
    yield "device", f"{device} in {dtype}, {torch.get_num_threads()} threads of {os.cpu_count()} cores", True


def _memory(device: Any) -> Iterator[str]:
    """What is free on the host, limits of containers included, and on the device."""
    from kinema.cli.show import size
    from kinema.pipelines.residency.machine import free_host, free_on

    yield f"{size(free_host())} free on the host"
    if device.type != "cpu":
        yield f"{size(free_on(device))} on {device}"


def _ffmpeg() -> tuple[str, str, bool]:
    from kinema.core.errors import KinemaError
    from kinema.io.ffmpeg import executable, run

    try:
        line = run(["-version"]).output.decode(errors="replace").splitlines()[0]
    except (KinemaError, IndexError) as error:
        return "ffmpeg", f"{error}", False
    return "ffmpeg", f"{line} ({executable()})", True


def _embedded() -> tuple[str, str, bool]:
    from kinema.core.errors import KinemaError
    from kinema.pipelines.model import load

    try:
        model = load("embedded", device="cpu")
    except KinemaError as error:
        return "model", str(error), False
    parameters = sum(p.numel() for p in model.dit.parameters()) / 1e6
    return "model", f"embedded, transformer of {parameters:.1f} M parameters", True


def _kernels() -> Iterator[tuple[str, str, bool]]:
    from kinema.core.runtime import resolve_device
    from kinema.models.linears import BOUNDS, onednn_works
    from kinema.models.selftest import findings as attention

    device = resolve_device("auto")
    for text, good in attention(device):
        yield "attention", text, good
    if device.type == "cpu":
        used = [str(dtype).removeprefix("torch.") for dtype in BOUNDS if onednn_works(dtype)]
        yield (
            "products",
            f"oneDNN for {', '.join(used)}" if used else "torch's own; oneDNN's are not here",
            True,
        )


def _native() -> tuple[str, str, bool]:
    """Never a failure: without compiled code the same is computed, more slowly."""
    from kinema.models.winograd import native

    found = native()
    text = found.note if found.loaded is not None else f"plain torch, slower on a CPU: {found.note}"
    return "convolutions", text, True
