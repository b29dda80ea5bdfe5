"""`/api/jobs`: ask for clips, follow them, change what waits, take what is made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast, get_args

from fastapi import APIRouter, Request
from starlette.responses import Response

from kinema.serve.bodies import read_json
from kinema.serve.context import job_id, json_answer, owner_of, query_number, studio_of
from kinema.serve.documents import CANCEL, JOB, JOBS, PAGE, PATCH, SUBMIT, body, described
from kinema.serve.errors import ApiError
from kinema.serve.jobs import STATES, Kind, State

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
MOST_AT_ONCE = 16
MOST_LISTED = 200
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@router.post("", status_code=201, **described("Queue one or several clips", 201, JOBS, body(SUBMIT)))
async def submit(request: Request) -> Response:
    """Accept a request; with `count`, so many clips whose seeds differ."""
    studio = studio_of(request)
    studio.check_open()
    values = await read_json(request, frozenset({"request", "title", "kind", "count"}))
    asked = await studio.read(values.get("request"))
    count = whole(values, "count", 1, MOST_AT_ONCE, 1)
    plan = await studio.plan_once(asked)
    kind = _kind(values, plan["is_image"])
    key = read_key(request)
    jobs = await studio.thread(
        studio.queue.submit_all,
        [asked.seeded(step).values() for step in range(count)],
        kind=kind,
        owner=owner_of(request),
        key=key,
        digest=digest_of({**values, "kind": kind}) if key else None,
        title=text(values, "title"),
        seconds=plan["seconds"],
        most=studio.settings.limits.queued,
    )
    return json_answer({"jobs": [job.to_json() for job in jobs]}, 201)


@router.get("", **described("List jobs, the newest first", 200, JOBS, PAGE))
async def listed(request: Request) -> Response:
    """A page of jobs; the next one begins `after` the last id of this one."""
    studio, query = studio_of(request), request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(
            422, f"order={order[:20]!r} is neither asc nor desc.", code="invalid_value", param="order"
        )
    page = await studio.thread(
        studio.queue.list,
        after=job_id(query["after"], param="after") if query.get("after") else None,
        limit=query_number(request, "limit", 1, MOST_LISTED, 50),
        order=cast(Any, order),
        states=_states(query.get("state")),
    )
    found = {"jobs": [job.to_json() for job in page.jobs], "has_more": page.has_more}
    return json_answer({**found, "revision": studio.watcher.revision})


@router.get("/{id}", **described("One job", 200, JOB))
async def one(request: Request, id: str) -> Response:
    """A job, also of one that has ended."""
    return json_answer(studio_of(request).queue.get(job_id(id)).to_json())  # one row: cheaper than a thread


@router.patch("/{id}", **described("Edit, move, name or mark a job", 200, JOB, body(PATCH)))
async def change(request: Request, id: str) -> Response:
    """Change what is asked for or the place in the queue while it waits; title and mark at any time."""
    studio, name = studio_of(request), job_id(id)
    values = await read_json(request, frozenset({"request", "before", "favourite", "title"}))
    studio.queue.get(name)  # 404 comes before what is wrong with the rest
    changes: dict[str, Any] = {"favourite": flag(values, "favourite", None)}
    if "title" in values:
        changes["title"] = text(values, "title")
    if "before" in values:
        before = values["before"]
        changes |= {"moved": True, "before": None if before is None else job_id(before, param="before")}
    if "request" in values:
        asked = await studio.read(values["request"])
        plan = await studio.plan_once(asked)
        changes |= {"request": asked.seeded().values(), "kind": _kind({}, plan["is_image"])}
        changes["seconds"] = plan["seconds"]
    return json_answer((await studio.thread(studio.queue.change, name, **changes)).to_json())


@router.delete("/{id}", **described("Delete a job and its files", 200, {"type": "object"}))
async def delete(request: Request, id: str) -> Response:
    """Gone at once, or as soon as its worker has let go (202)."""
    studio, name = studio_of(request), job_id(id)
    deleted = await studio.delete(name)
    return json_answer({"id": name, "deleted": deleted}, 200 if deleted else 202)


@router.post("/{id}/cancel", **described("Stop a job", 200, JOB, body(CANCEL)))
async def cancel(request: Request, id: str) -> Response:
    """Stop at the next step; with `keep`, what is made by then is decoded and kept."""
    studio, name = studio_of(request), job_id(id)
    values = await read_json(request, frozenset({"keep"}))
    keep = flag(values, "keep", True)
    return json_answer((await studio.thread(studio.queue.cancel, name, keep=keep)).to_json())


@router.post("/{id}/clone", status_code=201, **described("Queue the same again", 201, JOB))
async def clone(request: Request, id: str) -> Response:
    """A new job with the same request, seed included."""
    studio, name = studio_of(request), job_id(id)
    studio.check_open()
    most = studio.settings.limits.queued
    await studio.check_again(studio.queue.get(name))
    job = await studio.thread(studio.queue.clone, name, owner=owner_of(request), most=most)
    return json_answer(job.to_json(), 201)


@router.post("/{id}/retry", **described("Try again what failed or was cancelled", 200, JOB))
async def retry(request: Request, id: str) -> Response:
    """Put it at the queue's end; it goes on from what is kept of it."""
    studio, name = studio_of(request), job_id(id)
    studio.check_open()
    await studio.check_again(studio.queue.get(name))
    return json_answer((await studio.thread(studio.queue.retry, name)).to_json())


def digest_of(values: Mapping[str, Any]) -> str:
    """What was asked, for a key that is used twice."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_key(request: Request) -> str | None:
    """The client's own name for this request."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        message = "Idempotency-Key has 1 to 200 plain characters."
        raise ApiError(400, message, code="invalid_header", param="Idempotency-Key")
    return key


def _kind(values: Mapping[str, Any], is_image: bool) -> Kind:
    kind = values.get("kind", "image" if is_image else "video")
    if kind not in get_args(Kind):
        raise ApiError(
            422, f"kind={str(kind)[:20]!r} is neither video nor image.", code="invalid_value", param="kind"
        )
    if kind == "image" and not is_image:
        raise ApiError(422, "kind=image needs one frame: add frames: 1.", code="invalid_value", param="kind")
    if kind == "video" and is_image:
        message = "kind=video needs more than one frame: change frames, or leave kind out."
        raise ApiError(422, message, code="invalid_value", param="kind")
    return cast(Kind, kind)


def _states(written: str | None) -> list[State] | None:
    if not written:
        return None
    names = written.split(",")
    for name in names:
        if name not in STATES:
            message = f"unknown state {name[:40]!r}; there are {', '.join(STATES)}."
            raise ApiError(422, message, code="invalid_value", param="state")
    return cast(list[State], names)


def whole(values: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    """A whole number of a body."""
    value = values.get(name, default)
    if type(value) is not int or not low <= value <= high:
        message = f"{name}={str(value)[:20]!r} is not a whole number from {low} to {high}."
        raise ApiError(422, message, code="invalid_value", param=name)
    return value


def flag(values: Mapping[str, Any], name: str, default: bool | None) -> Any:
    """true or false of a body."""
    value = values.get(name, default)
    if value is not default and type(value) is not bool:
        raise ApiError(422, f"{name} is neither true nor false.", code="invalid_value", param=name)
    return value


def text(values: Mapping[str, Any], name: str) -> str:
    """A text of a body; empty when it is not there."""
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise ApiError(422, f"{name} is not text.", code="invalid_value", param=name)
    return value or ""
