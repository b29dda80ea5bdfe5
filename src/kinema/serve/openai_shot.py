"""A body of OpenAI's videos API as a request of kinema's, and a job as its `video` object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from kinema.pipelines.card import ModelCard
from kinema.serve.errors import ApiError
from kinema.serve.jobs import Job
from kinema.story.files import scalar
from kinema.story.shot import Shot

TEXTS = frozenset({"prompt", "negative", "name", "model", "size", "fps"})
IGNORED = frozenset({"user", "safety_identifier", "metadata", "moderation", "quality", "style", "background"})
_STATUS = {"queued": "queued", "running": "in_progress", "cancelling": "in_progress", "done": "completed"}
_SECONDS = re.compile(r"\d{1,4}(\.\d{1,6})?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a body asks for.

    Attributes:
        values: settings of a shot.
        named: what the client called each of them.
    """

    values: dict[str, Any]
    named: Mapping[str, str]

    def told(self, error: ApiError) -> ApiError:
        """An error in the client's words: 400, and `param` as it was written."""
        root, *rest = re.split(r"(?=[.\[])", error.param or "", maxsplit=1)
        sides = {"width": "size", "height": "size", "frames": "seconds", "model": "model"}
        param = self.named.get(root) or (sides.get(root, root) if root not in self.values else root)
        status = 400 if error.status == 422 else error.status
        where = None if error.param is None else param + "".join(rest)
        return ApiError(status, error.message, code=error.code, param=where, headers=error.headers)


def wanted(fields: Mapping[str, Any], taken: frozenset[str] = frozenset()) -> Wanted:
    """The settings in a body; names of diffusers and other servers are understood.

    Args:
        fields: of the body.
        taken: names that are read elsewhere, such as `input_reference`.

    Raises:
        ApiError: 400 for an unknown field, or one of the wrong kind.
    """
    values: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, value in fields.items():
        if name in taken or name in IGNORED or value is None:
            continue
        ours = name if name in Shot.names() else Shot.spoken.get(name, "")
        if not ours:
            raise ApiError(
                400, f"unknown parameter {name[:60]!r}.", code="unknown_parameter", param=name[:60]
            )
        if ours in values:
            message = f"{name} and {named[ours]} say the same; send one."
            raise ApiError(400, message, code="invalid_value", param=name)
        values[ours] = _value(ours, value)
        named[ours] = name
    for name in ("prompt", "model", "size"):
        if name in values and not isinstance(values[name], str | dict):
            raise ApiError(400, f"{name} is not text.", code="invalid_type", param=name)
    if "seconds" in values:
        values["seconds"] = _seconds(named["seconds"], fields[named["seconds"]])
    if values.get("size") == "auto":
        del values["size"]
    return Wanted(values, named)


def _value(name: str, value: Any) -> Any:
    """A form's text as a number or word where the setting is not a text."""
    return scalar(value) if isinstance(value, str) and name not in TEXTS else value


def _seconds(name: str, written: Any) -> float:
    """A length under the name that the client has for it."""
    text = written if isinstance(written, str) else str(written)
    if isinstance(written, bool) or not _SECONDS.fullmatch(text):
        message = f"{name}={text[:20]!r} is no length; write seconds, such as 4 or 2.5."
        raise ApiError(400, message, code="invalid_value", param=name)
    return float(text)


def video_object(job: Job, card: ModelCard | None) -> dict[str, Any]:
    """The job in the words of the API, every key there.

    Args:
        job: of a clip.
        card: of its model, for what the request leaves to it; None for a model that is gone.
    """
    shot = _first_shot(job.request)
    prompt = shot.get("prompt", "")
    return {
        "id": job.id,
        "object": "video",
        "model": shot.get("model", "embedded"),
        "status": _STATUS.get(job.state, "failed"),
        "progress": 100 if job.state == "done" else min(99, int(100 * job.progress.fraction)),
        "created_at": int(job.created),
        "completed_at": int(job.finished) if job.state == "done" and job.finished else None,
        "expires_at": None,
        "seconds": f"{_length(job, card):.6g}",
        "size": _size(job, shot, card),
        "prompt": prompt if isinstance(prompt, str) else None,
        "remixed_from_video_id": job.parent.id if job.parent and job.parent.how == "remix" else None,
        "error": _error(job),
        "seed": shot.get("seed"),
    }


def _first_shot(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a shot, or of a storyboard's first."""
    return {**request, **request["shots"][0]} if request.get("shots") else request


def _length(job: Job, card: ModelCard | None) -> float:
    """Seconds of the file: of what was made, as planned, or else (jobs older than that) as asked for."""
    if job.result is not None:
        return float(job.result.frames / Fraction(job.result.fps))
    if job.seconds is not None:
        return job.seconds
    shots = job.request.get("shots") or [{}]
    return sum(_asked({**job.request, **own}, card) for own in shots)


def _asked(shot: Mapping[str, Any], card: ModelCard | None) -> float:
    """Seconds that one shot asks for."""
    if shot.get("seconds") is not None:
        return float(shot["seconds"])
    fps = shot.get("fps") or (card.defaults.fps if card else 24)
    frames = shot.get("frames") or (card.defaults.frames if card else 0)
    return float(frames / Fraction(fps))


def _size(job: Job, shot: Mapping[str, Any], card: ModelCard | None) -> str:
    if job.result is not None:
        return f"{job.result.width}x{job.result.height}"
    width = shot.get("width") or (card.defaults.width if card else 0)
    height = shot.get("height") or (card.defaults.height if card else 0)
    return f"{width}x{height}"


def _error(job: Job) -> dict[str, str] | None:
    if job.state == "cancelled":
        return {"code": "cancelled", "message": "the job was cancelled."}
    if job.state != "failed" or job.error is None:
        return None
    return {"code": job.error.code, "message": job.error.message}
