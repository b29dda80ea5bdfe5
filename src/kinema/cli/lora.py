"""The verbs about LoRA files: `kinema lora inspect`, `kinema lora convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinema.cli.help import VerbCommand, VerbGroup
from kinema.core.errors import ConfigError, ModelError

_TEXT_ENCODERS = {"text": "text encoder", "text_2": "second text encoder"}
File = Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(cls=VerbGroup, help="Look at LoRA files and convert them.")
    group.callback(invoke_without_command=True)(_alone)
    for verb in (inspect, convert):
        group.command(cls=VerbCommand)(verb)
    app.add_typer(group, name="lora", rich_help_panel="Look")


def _alone(context: typer.Context) -> None:
    """Look at LoRA files and convert them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def inspect(
    file: File,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Also say whether it fits this model."),
    ] = None,
) -> None:
    """Say what a LoRA file holds, and whether it fits a model.

    \b
    kinema lora inspect style.safetensors --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    """
    from kinema.models.lora_facts import facts_of, shown
    from kinema.models.lora_file import groups, read_lora
    from kinema.models.lora_keys import TEXTS

    try:
        lora = read_lora(file, texts=tuple(TEXTS))
    except ModelError:
        for what, keys in groups(file).items():
            plural = len(keys) > 1
            typer.echo(f"  {len(keys)} key{'s' * plural}, {what}: {keys[0]}{', ...' * plural}")
        raise
    ranks = ", ".join(map(str, lora.ranks)) or "none"
    typer.echo(f"{file}: {lora.layout} layout, {len(lora.changes)} layers, {lora.count} keys, rank {ranks}")
    for expert in sorted({e for e, _ in lora.changes if e is not None}):
        layers = sum(e == expert for e, _ in lora.changes)
        owner = _TEXT_ENCODERS.get(expert) or f"transformer of {expert} noise"
        typer.echo(f"  {layers} layers of the {owner}")
    for name, value in facts_of(file).items():
        typer.echo(f"  {shown(name)}: {shown(value)}")
    for note in lora.notes:
        typer.echo(f"  {note}")
    if model is not None:
        from kinema.pipelines.cards import read_card
        from kinema.pipelines.loras import fitted, read_for

        card = read_card(model)
        used = fitted(read_for(card, str(file)), card)
        typer.echo(f"  fits {model}: {used} of {lora.count} keys used")


def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.", show_default=False)],
    to: Annotated[
        str,
        typer.Option("--to", metavar="LAYOUT", help="diffusers (default), original (ComfyUI) or kohya."),
    ] = "diffusers",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a LoRA in the names that another program reads.

    \b
    kinema lora convert comfy-style.safetensors style.safetensors --to diffusers
    """
    from safetensors.torch import save_file

    from kinema.io.atomic import check_target, publish, staging
    from kinema.models.lora_facts import FACT, facts_of
    from kinema.models.lora_file import read_lora
    from kinema.models.lora_write import relaid

    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} does not end in .safetensors; LoRAs are written as safetensors.")
    check_target(out, overwrite=overwrite)
    lora = read_lora(file)
    tensors = relaid(lora, to)
    with staging(out.parent) as work:
        kept = {FACT + name: value for name, value in facts_of(file).items()}
        save_file(tensors, work / out.name, {"format": "pt", **kept})
        publish(work / out.name, out, overwrite=overwrite)
    typer.echo(f"{out}: {to} layout, {len(lora.changes)} layers, {len(tensors)} keys (from {lora.count})")
    for note in lora.notes:
        typer.echo(f"  {note}")
