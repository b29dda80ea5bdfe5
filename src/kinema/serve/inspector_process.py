"""What looks at requests and at files of strangers, in a process of its own that can be stopped, and die.

Lines of JSON come in, `{"what": "plan", ...}`, and one line goes out for each: `{"is": value}`, or
`{"error": [class, message]}`. It ends with its input.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from kinema.core.errors import KinemaError
from kinema.core.imports import importing


def plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """What every shot of a request would do and cost; paths stand where media are."""
    with importing():  # torch among it
        from kinema.pipelines.job import make_job
        from kinema.pipelines.plan_costs import shot_facts, upscale_seconds
        from kinema.story.storyboard import from_mapping

    job = make_job(from_mapping(request), local_files_only=True)
    shots = [shot_facts(plan, job.cards[plan.model], _rate(plan.device)) for plan in job.plans]
    seconds = [shot["seconds"] for shot in shots]
    if (more := upscale_seconds(job, _rate(job.plans[0].device))) is not None:
        seconds.append(more)
    return {
        "shots": shots,
        "request": job.shot,
        "frames": job.length,
        "fps": job.fps,
        "width": job.width,
        "height": job.height,
        "notes": list(job.notes),
        "seconds": None if None in seconds else sum(seconds),
        "work": float(sum(_work(plan) for plan in job.plans) + _enlarging(job)),
        "is_image": job.is_image,
    }


def _work(plan: Any) -> int:
    """Pixels x frames x steps."""
    g = plan.geometry
    return int(g.width * g.height * g.frames * plan.sampling.steps)


def _enlarging(job: Any) -> int:
    """Pixels x frames that come out of the last step, where the file is larger than what is made."""
    return 0 if job.upscale is None else int(job.width * job.height * job.length)


@cache
def _rate(device: str) -> float:
    """Operations a second with the threads that a render would have; planning itself takes one."""
    import torch

    from kinema.pipelines.estimate import measure_rate

    torch.set_num_threads(_threads())
    try:
        return measure_rate(device)
    finally:
        torch.set_num_threads(1)


@cache
def _threads() -> int:
    """As many as torch takes by itself."""
    import torch

    return torch.get_num_threads()


def warm(models: Sequence[str]) -> dict[str, Any]:
    """Import and measure what planning needs, so that the first request does not wait for it.

    Args:
        models: that requests may name; a clip of each is planned.
    """
    for model in models:
        with suppress(KinemaError):  # it wants more than words; what it needs is imported by then
            plan({"model": model, "prompt": "a"})
    return {}


def measure(path: str) -> dict[str, Any]:
    """What an upload is; see `kinema.serve.media_facts`."""
    from kinema.serve import media_facts

    return media_facts.measure(Path(path)).to_json()


def frame(path: str, index: int, width: int | None = None) -> dict[str, Any]:
    """One frame of a clip, or a picture, as PNG in base64; negative indices count from the end."""
    import io

    from PIL import Image

    from kinema.io.video_read import open_video

    clip = open_video(path)
    picture = Image.fromarray(clip.read([index if index >= 0 else clip.frames + index])[0])
    if width is not None and width < picture.width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"png": base64.b64encode(buffer.getvalue()).decode()}


def result(path: str, fps: str, seed: int, partial: bool) -> dict[str, Any]:
    """What a worker elsewhere has sent, looked at like what one here has made."""
    from dataclasses import asdict

    from kinema.serve.results import Made

    found = asdict(Made.of(Path(path), fps=fps, seed=seed, partial=partial))
    pictures = {name: base64.b64encode(found[name]).decode() for name in ("thumbnail", "spritesheet")}
    return {**found, **pictures, "file": str(path)}


def restore(path: str) -> dict[str, Any]:
    """The request that a file was made by; see `kinema.serve.restore`."""
    from kinema.serve.restore import restore_file

    return restore_file(Path(path))


TABLE: Mapping[str, Callable[..., dict[str, Any]]] = {
    "plan": plan, "warm": warm, "measure": measure, "frame": frame, "result": result, "restore": restore,
}  # fmt: skip


def answer(line: str) -> dict[str, Any]:
    """The answer to one line."""
    asked = json.loads(line)
    try:
        return {"is": TABLE[asked.pop("what")](**asked)}
    except KinemaError as error:
        return {"error": [_public_class(error), str(error)]}
    except MemoryError:
        return {"error": ["ResourceError", "there is not enough memory to look into this; make it smaller."]}
    except Exception:
        import traceback

        return {"error": ["bug", traceback.format_exc(limit=20)]}


def _public_class(error: KinemaError) -> str:
    """The first class of `kinema.core.errors` that it is."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "kinema.core.errors")


def _limit_memory(most: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):  # a system without such limits
        return


def main() -> None:
    """Answer lines until there are no more."""
    if (most := int(sys.argv[1])) > 0:
        _limit_memory(most)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    for line in sys.stdin:
        out.write(json.dumps(answer(line)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
