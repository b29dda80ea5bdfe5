"""`/api/workers`: workers on other machines take jobs, tell how far they are, and send what they made.

They call us, and never the other way round. A token that does not hold any more changes nothing: 409, or the
signal `lost`. The file that comes back is decoded here before it counts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from kinema.serve.bodies import keep_upload, parse_object, read_form, read_json
from kinema.serve.context import job_id, json_answer, studio_of
from kinema.serve.desk import show
from kinema.serve.documents import ANYTHING, BEAT, FAIL, LEASE, RELEASE, RESULT, body, described
from kinema.serve.errors import ApiError
from kinema.serve.jobs import JobError, JobProgress, Kind
from kinema.serve.lending import lend
from kinema.serve.native_jobs import flag, text, whole
from kinema.serve.results import Made, publish

router = APIRouter(prefix="/api/workers", tags=["workers"])
LEAST_LEASE, LONGEST_LEASE = 5.0, 600.0
MOST_PREVIEW = 1_000_000
_NAME = re.compile(r"[\w .:@-]{1,100}")
_PLACE = re.compile(r"[0-9a-f]{32}")
_ENDINGS = {"image": ".png", "video": ".mp4"}


@router.post("/lease", **described("Take the next job", 200, ANYTHING, body(LEASE)))
async def lease(request: Request) -> Response:
    """The job and the token for it; 204 when there is nothing to do."""
    studio = studio_of(request)
    values = await read_json(request, frozenset({"worker", "seconds", "place"}))
    name, seconds = values.get("worker"), _number(values, "seconds", LEAST_LEASE, LONGEST_LEASE, 30.0)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ApiError(422, "worker is a name of 1 to 100 letters.", code="invalid_value", param="worker")
    asked = (
        studio.queue,
        f"remote {name}",
        seconds,
        studio.settings.models,
        f"remote {_place(values) or name}",
    )
    found = None if studio.draining else await studio.thread(lend, *asked)
    if found is None:
        return Response(status_code=204)
    job, token = found
    return json_answer({"job": job.to_json(), "token": token})


@router.post("/{id}/beat", **described("Renew the lease, tell the progress", 200, ANYTHING, body(BEAT)))
async def beat(request: Request, id: str) -> Response:
    """What to do: `go`, `cancel_keep`, `cancel_drop` or `lost`."""
    studio, name = studio_of(request), job_id(id)
    values = await read_json(request, frozenset({"token", "progress", "preview"}))
    token, progress = _token(values), _progress(values.get("progress"))
    preview = _preview(values.get("preview"))
    told = await studio.thread(studio.queue.beat, name, token, progress)
    if preview is not None and told == "go":
        await studio.thread(show, studio.folders, name, preview)
    return json_answer({"signal": told})


@router.post("/{id}/result", **described("Hand in what was made", 200, ANYTHING, RESULT))
async def result(request: Request, id: str) -> Response:
    """A form: `token`, `facts` (JSON: fps, seed, partial), `file`."""
    studio, name = studio_of(request), job_id(id)
    form = dict(await read_form(request))
    token, part = _token(form), form.get("file")
    await studio.thread(studio.queue.holds, name, token)
    if not isinstance(part, UploadFile):
        raise ApiError(422, "file is missing.", code="invalid_form", param="file")
    facts = _facts(form.get("facts"))
    sent = await keep_upload(part, studio.folders.incoming)
    try:
        kind = (await studio.thread(studio.queue.get, name)).kind
        made = await _made(request, sent.path, kind, facts)
        job = await studio.thread(publish, studio.queue, studio.folders, name, token, made)
    finally:
        for path in studio.folders.incoming.glob(f"{sent.path.name}*"):
            path.unlink(missing_ok=True)
    return json_answer({"job": None if job is None else job.to_json()})


async def _made(request: Request, sent: Path, kind: Kind, facts: Mapping[str, Any]) -> Made:
    """What the file is, as our own decoder sees it."""
    studio = studio_of(request)
    found = await studio.inspect("measure", sent)
    if found["kind"] != kind:
        message = f"file is of kind {found['kind']}; the job is to make one of kind {kind}."
        raise ApiError(422, message, code="invalid_media", param="file")
    file = sent.with_suffix(_ENDINGS[kind])
    sent.rename(file)
    seen = await studio.inspect("result", file, **facts)
    pictures = {name: base64.b64decode(seen[name]) for name in ("thumbnail", "spritesheet")}
    return Made(**{**seen, **pictures, "file": file})


@router.post("/{id}/fail", **described("It went wrong", 200, ANYTHING, body(FAIL)))
async def fail(request: Request, id: str) -> Response:
    """With `again`, it may be tried once more."""
    studio, name = studio_of(request), job_id(id)
    values = await read_json(request, frozenset({"token", "error", "again"}))
    token, error = _token(values), _error(values, "error")
    again = flag(values, "again", False)
    job = await studio.thread(studio.queue.fail, name, token, error, again=again)
    return json_answer({"job": None if job is None else job.to_json()})


@router.post("/{id}/release", **described("Give the job back", 200, ANYTHING, body(RELEASE)))
async def release(request: Request, id: str) -> Response:
    """Somebody else goes on with it; with `lacks`, this worker is not offered it again."""
    studio, name = studio_of(request), job_id(id)
    values = await read_json(request, frozenset({"token", "lacks"}))
    token = _token(values)
    if "lacks" in values:
        job = await studio.thread(studio.queue.refuse, name, token, _error(values, "lacks"))
    else:
        job = await studio.thread(studio.queue.release, name, token)
    return json_answer({"job": None if job is None else job.to_json()})


def _error(values: Mapping[str, Any], name: str) -> JobError:
    told = values.get(name)
    if not isinstance(told, Mapping):
        raise ApiError(422, f"{name} is not an object.", code="invalid_value", param=name)
    return JobError(
        code=text(told, "code")[:60] or "internal",
        message=text(told, "message")[:2000],
        param=text(told, "param")[:200] or None,
    )


def _token(values: Mapping[str, Any]) -> str:
    token = values.get("token")
    if not isinstance(token, str) or not token:
        raise ApiError(422, "token is missing.", code="invalid_value", param="token")
    return token


def _place(values: Mapping[str, Any]) -> str | None:
    """The folder of a worker's states; None for one that does not say."""
    place = values.get("place")
    if place is not None and not (isinstance(place, str) and _PLACE.fullmatch(place)):
        raise ApiError(422, "place is not 32 hexadecimal digits.", code="invalid_value", param="place")
    return place


def _number(values: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = values.get(name, default)
    if type(value) not in (int, float) or not low <= value <= high:
        message = f"{name}={str(value)[:20]} is not a number from {low:g} to {high:g}."
        raise ApiError(422, message, code="invalid_value", param=name)
    return float(value)


def _progress(values: Any) -> JobProgress:
    if not isinstance(values, Mapping):
        raise ApiError(422, "progress is not an object.", code="invalid_value", param="progress")
    whole_names = ("step", "steps", "shot", "shots", "preview")
    known = {field.name for field in fields(JobProgress)}
    if unknown := next((name for name in values if name not in known), None):
        raise ApiError(422, f"unknown name {unknown[:40]!r}.", code="unknown_name", param="progress")
    given: dict[str, Any] = {name: whole(values, name, 0, 10**9, 0) for name in whole_names if name in values}
    left = values.get("seconds_left")
    return replace(
        JobProgress(**given),
        phase=text(values, "phase")[:40],
        fraction=_number(values, "fraction", 0.0, 1.0, 0.0),
        seconds_left=None if left is None else _number(values, "seconds_left", 0.0, 1e9, 0.0),
    )


def _preview(written: Any) -> bytes | None:
    """A WebP in base64, by its first bytes."""
    if written is None:
        return None
    try:
        data = base64.b64decode(written, validate=True) if isinstance(written, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) > MOST_PREVIEW:
        message = f"preview is no WebP of at most {MOST_PREVIEW} bytes in base64."
        raise ApiError(422, message, code="invalid_value", param="preview")
    return data


def _facts(written: Any) -> dict[str, Any]:
    values = parse_object(written) if isinstance(written, str) else {}
    fps = values.get("fps")
    if not isinstance(fps, str) or not re.fullmatch(r"\d{1,9}(/[1-9]\d{0,8})?", fps):
        raise ApiError(422, "facts.fps is no frame rate.", code="invalid_value", param="facts")
    return {
        "fps": fps,
        "seed": whole(values, "seed", 0, 2**63 - 1, -1),
        "partial": flag(values, "partial", False),
    }
