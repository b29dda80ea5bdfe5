"""`POST /v1/images/generations`: stills, made by the same queue; the answer comes when they are done."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import Response

from kinema.serve.bodies import read_json
from kinema.serve.context import json_answer, owner_of, studio_of
from kinema.serve.documents import ANYTHING, body, described
from kinema.serve.errors import ApiError
from kinema.serve.jobs import Job, JobError, QueueError
from kinema.serve.native_jobs import digest_of, read_key, whole
from kinema.serve.openai_route import OpenAIRoute
from kinema.serve.openai_shot import Wanted, wanted
from kinema.serve.studio import Studio

router = APIRouter(prefix="/v1/images", tags=["openai"], route_class=OpenAIRoute)
PATIENCE = 590.0  # clients give up after 600 s
MOST_IMAGES = 10
_FORMS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
_THEIRS = ("bad_request", "bad_media", "bad_model")
_OURS = frozenset({"n", "response_format", "output_format", "output_compression", "stream", "partial_images"})
_IMAGE = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1},
        "model": {"type": "string"},
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES, "default": 1},
        "size": {"type": "string", "description": "WIDTHxHEIGHT, or auto"},
        "response_format": {"enum": ["b64_json", "url"]},
        "output_format": {"enum": list(_FORMS)},
        "seed": {"type": "integer", "minimum": 0},
        "steps": {"type": "integer", "minimum": 1},
    },
}


@router.post("/generations", **described("Make pictures", 200, ANYTHING, body(_IMAGE)))
async def generate(request: Request) -> Response:
    """Wait until they are made; a client that leaves takes its jobs along, unless a key can bring it back."""
    studio = studio_of(request)
    studio.check_open()
    fields = await read_json(request)
    what, form, by_url = _read(fields)
    jobs = await _submit(request, what, whole(fields, "n", 1, MOST_IMAGES, 1))
    done = await _made(request, studio, jobs)
    data = [await _datum(request, studio, job, form, by_url=by_url) for job in done]
    result = done[0].result
    assert result is not None
    size = f"{result.width}x{result.height}"
    return json_answer({"created": int(time.time()), "data": data, "output_format": form, "size": size})


def _read(fields: Mapping[str, Any]) -> tuple[Wanted, str, bool]:
    """The settings, the format, and whether URLs are wanted."""
    if fields.get("stream"):
        raise ApiError(400, "pictures are not streamed here.", code="unsupported", param="stream")
    what = wanted(fields, _OURS)
    if not what.values.get("prompt"):
        raise ApiError(400, "prompt is missing.", code="missing_required_parameter", param="prompt")
    for name in ("frames", "seconds"):
        if what.values.pop(name, 1) != 1:
            raise ApiError(400, "a picture has one frame.", code="invalid_value", param=what.named[name])
    what.values["frames"] = 1
    form = fields.get("output_format") or "png"
    if form not in _FORMS:
        message = f"output_format={str(form)[:20]!r} is unknown; write {', '.join(_FORMS)}."
        raise ApiError(400, message, code="invalid_value", param="output_format")
    kind = fields.get("response_format") or "b64_json"
    if kind not in ("b64_json", "url"):
        message = f"response_format={str(kind)[:20]!r} is neither b64_json nor url."
        raise ApiError(400, message, code="invalid_value", param="response_format")
    return what, form, kind == "url"


async def _submit(request: Request, what: Wanted, count: int) -> Sequence[Job]:
    studio = studio_of(request)
    try:
        asked = await studio.read(what.values)
        plan = await studio.plan_once(asked)
    except ApiError as error:
        raise what.told(error) from None
    key = read_key(request)
    return await studio.thread(
        studio.queue.submit_all,
        [asked.seeded(step).values() for step in range(count)],
        kind="image",
        owner=owner_of(request),
        key=key,
        digest=digest_of({"n": count, **asked.values()}) if key else None,
        seconds=plan["seconds"],
        most=studio.settings.limits.queued,
    )


async def _made(request: Request, studio: Studio, jobs: Sequence[Job]) -> list[Job]:
    """The jobs when all have ended well; when nobody waits for them any more, they are cancelled."""
    until = time.monotonic() + PATIENCE
    found = list(jobs)
    while not all(job.ended for job in found):
        if time.monotonic() > until or await request.is_disconnected():
            if read_key(request) is not None:
                raise _still_made()
            await _cancel(studio, found)
            raise _too_late()
        studio.check_open()  # the next server goes on with them
        await asyncio.sleep(0.1)
        found = [studio.queue.get(job.id) for job in jobs]
    for job in found:
        if job.error is not None:
            raise _failed(job.error)
        if job.result is None:
            raise ApiError(400, "the job was cancelled.", code="cancelled")
    return found


async def _cancel(studio: Studio, jobs: Sequence[Job]) -> None:
    """Stop those that have not ended."""
    for job in jobs:
        if not job.ended:
            with suppress(QueueError):  # it has ended or was deleted since that look; the others wait
                await studio.thread(studio.queue.cancel, job.id, keep=False)


def _failed(error: JobError) -> ApiError:
    """400 for what the client can change; else 500, and not to be tried again: the queue has done that."""
    if error.code in _THEIRS:
        return ApiError(400, error.message, code=error.code, param=error.param)
    return ApiError(500, error.message, code=error.code, headers={"x-should-retry": "false"})


def _too_late() -> ApiError:
    message = f"the pictures were not made within {PATIENCE:g} s; POST /api/jobs does not wait."
    return ApiError(503, message, code="timeout", headers={"x-should-retry": "false"})


def _still_made() -> ApiError:
    message = f"the pictures were not made within {PATIENCE:g} s; call again with this Idempotency-Key."
    return ApiError(503, message, code="timeout", headers={"retry-after": "10"})


async def _datum(request: Request, studio: Studio, job: Job, form: str, *, by_url: bool) -> dict[str, Any]:
    if by_url:
        return {"url": f"{request.base_url}api/jobs/{job.id}/video", "revised_prompt": None}
    assert job.result is not None
    path = studio.folders.results / job.result.file
    data = await studio.thread(path.read_bytes)
    if form != "png":
        data = await studio.thread(_converted, data, form)
    return {"b64_json": base64.b64encode(data).decode(), "revised_prompt": None}


def _converted(png: bytes, form: str) -> bytes:
    """A PNG of ours in another format."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        picture.convert("RGB").save(buffer, _FORMS[form], quality=95)
    return buffer.getvalue()
