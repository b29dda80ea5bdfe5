"""What a kept state belongs to: the plan, the weights, the versions, the machine's arithmetic.

    key_i = sha256(plan_i, weights, versions, arithmetic, key_{i-1} where shot i goes on from shot i-1)

Equal keys mean that going on gives the bytes of an uninterrupted render; all that could change one of them
is in it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from kinema.core.runtime import resolve_device, resolve_dtype
from kinema.pipelines.cards import local_folder, part_folder, prior_folder
from kinema.pipelines.hashes import cached_hashes
from kinema.pipelines.job import Job
from kinema.pipelines.loading import AnyModel
from kinema.pipelines.plan import Plan
from kinema.pipelines.unclip.card import PRIOR_KEY
from kinema.story.shot import PREVIOUS

NETWORK = "upscaling network"


def versions() -> dict[str, str]:
    """What a record says of the software: changing any of these may change bits."""
    from kinema.core.version import VERSION

    return {"kinema": VERSION, "torch": torch.__version__, "python": platform.python_version()}


def identity(job: Job, models: Mapping[str, AnyModel]) -> dict[str, Any]:
    """Which weights a job uses: id and hash of every file, of the one model or of each by name.

    Beside them stands `upscale`: the network that makes the frames larger.
    """
    found = {name: {"id": name, "files": _hashes(job, name, models)} for name in job.cards}
    whole: dict[str, Any] = found[next(iter(found))] if len(found) == 1 else dict(found)
    if job.upscale is not None and job.upscale.network is not None:
        whole |= {"upscale": job.upscale.weights()}
    return whole


def _hashes(job: Job, name: str, models: Mapping[str, AnyModel]) -> dict[str, str]:
    card = models[name].card if name in models else job.cards[name]
    own = [path for files in card.files for path in files]
    found = cached_hashes(card.folder if name in models else local_folder(card), own)
    if prior := card.transformer.get(PRIOR_KEY):
        more = cached_hashes(prior_folder(prior))
        found |= {f"prior/{path}": digest for path, digest in more.items()}
    return found


def plan_keys(job: Job, models: Mapping[str, AnyModel]) -> list[str]:
    """The key of each plan."""
    keys: list[str] = []
    weights = {name: _hashes(job, name, models) for name in job.cards}
    for plan in job.plans:
        parts = {
            "plan": plan.digest,
            "weights": weights[plan.model],
            "versions": versions(),
            "arithmetic": arithmetic(plan, models.get(plan.model)),
            **_control_weights(plan),
            "before": keys[-1] if keys and _goes_on(plan) else None,
        }
        keys.append(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest())
    return keys


def _control_weights(plan: Plan) -> dict[str, Any]:
    """Those of the network that reads the plan's control; nothing for a plan without one."""
    if plan.control is None or plan.control.model is None:
        return {}
    return {"control": cached_hashes(part_folder(plan.control.model))}


def _goes_on(plan: Plan) -> bool:
    """Whether a plan begins with something of the shot before it."""
    return plan.given.extend == PREVIOUS or any(held.image == PREVIOUS for held in plan.given.held)


def made_with(job: Job, models: Mapping[str, AnyModel]) -> dict[str, Any]:
    """What a person can be told of the difference between two keys, or two files, of one request."""
    plan = job.plans[0]
    found = {**versions(), **arithmetic(plan, models.get(plan.model))}
    if job.upscale is not None and job.upscale.network is not None:
        found[NETWORK] = "{file} {sha256:.12}".format(**job.upscale.weights())
    return found


def arithmetic(plan: Plan, model: AnyModel | None) -> dict[str, Any]:
    """Where and in what precision a plan is computed; sums split over threads end in other last bits."""
    device = resolve_device(plan.device) if model is None else model.device
    dtype = resolve_dtype(plan.dtype, device) if model is None else model.dtype
    found: dict[str, Any] = {"device": device.type, "dtype": str(dtype)}
    found |= {name: version(name) for name in ("numpy", "pillow", "diffusers", "transformers")}
    if device.type == "cuda":
        return found | {"name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found | {
        "name": platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
