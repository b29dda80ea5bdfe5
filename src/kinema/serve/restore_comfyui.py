"""The graph that ComfyUI leaves in its files, `prompt` (as it ran) or `workflow` (as drawn), as a shot.

The sampler is looked for, and from it back along the wires: texts to its positive and negative input, sizes
to its latents, seed, steps and scale in it or in the nodes that feed it. Notes tell what other nodes do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kinema.core.errors import ConfigError
from kinema.story.files import parse_json
from kinema.story.import_deforum import solver_of
from kinema.story.imported import KARRAS, Imported
from kinema.story.prompts_comfyui import from_comfyui
from kinema.story.shot import MAX_SEED

Node = Mapping[str, Any]
Graph = Mapping[str, Node]
MOST_NODES = 5000
MOST_DEPTH = 100
_INFINITE = 1e300
_WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "EmptyHunyuanLatentVideo": ("width", "height", "length"),
    "EmptyLTXVLatentVideo": ("width", "height", "length"),
    "WanImageToVideo": ("width", "height", "length"),
    "Wan22ImageToVideoLatent": ("width", "height", "length"),
    "ModelSamplingSD3": ("shift",),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "LoadImage": ("image",),
    "UNETLoader": ("unet_name",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "SaveAnimatedWEBP": ("", "fps"),
    "CreateVideo": ("fps",),
}
"""Widgets of nodes in the order in which a drawn graph stores their values; empty for those left out."""
_NAMES = {
    "steps": "steps", "cfg": "guidance", "seed": "seed", "noise_seed": "seed", "width": "width",
    "height": "height", "length": "frames", "shift": "shift", "fps": "fps", "frame_rate": "fps",
}  # fmt: skip
_TEXTS = (
    "text",
    "string",
    "value",
    "prompt",
    "positive_prompt",
    "conditioning",
    "positive",
    "conditioning_1",
)
_FILES = ("ckpt_name", "unet_name", "lora_name", "image", "video", "control_net_name", "model_name")
_SOLVERS = {
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "uni_pc": "UniPC",
}


def read_graphs(texts: Mapping[str, str]) -> Imported:
    """The settings in a file's `prompt`, or in its `workflow` where that is all there is.

    Raises:
        ConfigError: neither is a graph with a sampler.
    """
    for key, read in (("prompt", _ran), ("workflow", _drawn)):
        if key in texts:
            graph = read(_parsed(texts[key]))
            for name, node in graph.items():
                if "Sampler" in _kind(node) and ("positive" in _inputs(node) or "guider" in _inputs(node)):
                    return _read(graph, name)
    raise ConfigError("the file's ComfyUI graph has no sampler with a positive prompt.")


def _parsed(text: str) -> Any:
    try:
        return parse_json(text, constant=lambda name: None)  # some nodes write NaN for what has not changed
    except ConfigError:
        return None


def _ran(values: Any) -> Graph:
    """Nodes by id as the API has them."""
    if not isinstance(values, Mapping) or len(values) > MOST_NODES:
        return {}
    return {str(name): node for name, node in values.items() if isinstance(node, Mapping) and _kind(node)}


def _drawn(values: Any) -> Graph:
    """The same from the editor's own file: wires are a list, and widgets have no names."""
    if not isinstance(values, Mapping) or not isinstance(values.get("nodes"), list):
        return {}
    wires: dict[Any, list[Any]] = {}
    for wire in _listed(values.get("links")):
        if isinstance(wire, list) and len(wire) >= 5 and isinstance(wire[0], int):
            wires[wire[0]] = [str(wire[1]), wire[2]]
    found: dict[str, Node] = {}
    for node in values["nodes"][:MOST_NODES]:
        if isinstance(node, Mapping) and isinstance(node.get("type"), str):
            found[str(node.get("id"))] = {"class_type": node["type"], "inputs": _drawn_inputs(node, wires)}
    return found


def _listed(value: Any) -> list[Any]:
    """A list, or nothing: files of others hold anything."""
    return value if isinstance(value, list) else []


def _drawn_inputs(node: Node, wires: Mapping[Any, list[Any]]) -> dict[str, Any]:
    widgets = node.get("widgets_values")
    names = _WIDGETS.get(str(node["type"]), ())
    found: dict[str, Any] = {}
    if isinstance(widgets, list):
        found |= {name: value for name, value in zip(names, widgets, strict=False) if name}
    elif isinstance(widgets, Mapping):
        found |= widgets
    for entry in _listed(node.get("inputs")):
        if isinstance(entry, Mapping) and isinstance(entry.get("link"), int) and entry["link"] in wires:
            found[str(entry.get("name"))] = wires[entry["link"]]
    return found


def _read(graph: Graph, sampler: str) -> Imported:
    found = Imported("comfyui")
    inputs = _inputs(graph[sampler])
    guider = _target(graph, inputs.get("guider"))
    ends = inputs if guider is None else {**_inputs(graph[guider]), **inputs}
    positive = ends.get("positive", ends.get("conditioning"))
    for ours, end in (("prompt", positive), ("negative", ends.get("negative"))):
        if (text := _text(graph, end)) and text.strip():
            found.values[ours] = found.words(from_comfyui(text), ours)
    found.values.setdefault("prompt", "")
    upstream = list(_upstream(graph, sampler))
    for name in [*upstream, *(name for name in graph if name not in upstream)]:
        _take_numbers(found, graph, name, near=name in upstream)
    _note_others(found, graph, upstream)
    if found.values.get("solver") is None:
        found.values.pop("solver", None)
    return found


def _take_numbers(found: Imported, graph: Graph, name: str, *, near: bool) -> None:
    for key, value in _inputs(graph[name]).items():
        ours = _NAMES.get(key)
        if ours is None or ours in found.values or not (near or ours == "fps"):
            continue
        value = _number(graph, value)
        if value is None or (ours == "frames" and value <= 1):
            continue
        if not abs(value) < _INFINITE:
            found.leave(key, "the number is beyond all settings")
        elif ours == "seed" and not 0 <= value <= MAX_SEED:
            found.leave(key, f"{value} is above the largest seed here")
        else:
            found.values[ours] = value if ours in ("guidance", "shift", "fps") else int(value)


def _note_others(found: Imported, graph: Graph, upstream: list[str]) -> None:
    """Solver, files and what was changed besides."""
    karras = any(_inputs(graph[name]).get("scheduler") == "karras" for name in upstream)
    for name in upstream:
        inputs = _inputs(graph[name])
        written = inputs.get("sampler_name")
        if isinstance(written, str) and "solver" not in found.values:
            solver = solver_of(found, "sampler_name", _SOLVERS.get(written, written), karras=karras)
            found.values["solver"] = solver
            if karras and not str(solver).endswith(KARRAS):
                found.leave("scheduler", "karras; steps are spread as the model's own scheduler does")
        for key in _FILES:
            if isinstance(inputs.get(key), str):
                found.leave(f"{_kind(graph[name])}.{key}", f"{inputs[key][:80]}; give it again here")
        denoise = inputs.get("denoise")
        if isinstance(denoise, int | float) and 0 <= denoise < 1:
            found.leave("denoise", f"{denoise:g}; write source with its strength")


def _upstream(graph: Graph, start: str) -> Iterator[str]:
    """The node and all that feed it, the nearest first."""
    seen, level = {start}, [start]
    while level:
        yield from level
        following: list[str] = []
        for name in level:
            for value in _inputs(graph[name]).values():
                target = _target(graph, value)
                if target is not None and target not in seen:
                    seen.add(target)
                    following.append(target)
        level = following


def _text(graph: Graph, value: Any, seen: frozenset[str] = frozenset()) -> str | None:
    """The words that arrive at an input: a text, or that of the first node behind it that has one."""
    if isinstance(value, str):
        return value
    target = _target(graph, value)
    if target is None or target in seen or len(seen) > MOST_DEPTH or "ZeroOut" in _kind(graph[target]):
        return None
    inputs, seen = _inputs(graph[target]), seen | {target}
    if "positive" in inputs and "negative" in inputs:  # passes both on, by the number of the output
        return _text(graph, inputs["negative" if value[1] == 1 else "positive"], seen)
    key = next((key for key in _TEXTS if key in inputs), None)
    return None if key is None else _text(graph, inputs[key], seen)


def _number(graph: Graph, value: Any, depth: int = 0) -> float | None:
    """The number that arrives at an input."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    target = _target(graph, value)
    if target is None or depth > MOST_DEPTH:
        return None
    inputs = _inputs(graph[target])
    return next(
        (_number(graph, inputs[key], depth + 1) for key in ("value", "int", "seed") if key in inputs), None
    )


def _target(graph: Graph, value: Any) -> str | None:
    """The node that an input is wired to."""
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph:
        return str(value[0])
    return None


def _kind(node: Node) -> str:
    kind = node.get("class_type")
    return kind if isinstance(kind, str) else ""


def _inputs(node: Node) -> Mapping[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}
