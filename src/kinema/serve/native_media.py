"""Files in and out: uploads by their content, what jobs have made, the request that a file was made by."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from kinema.serve.bodies import read_upload
from kinema.serve.content import file_answer
from kinema.serve.context import job_id, json_answer, query_number, studio_of
from kinema.serve.documents import ANYTHING, FILE, MEDIA, described, query
from kinema.serve.errors import ApiError, not_found
from kinema.serve.jobs import Job
from kinema.serve.snippets import AS, snippet
from kinema.serve.studio import Studio

router = APIRouter(prefix="/api", tags=["files"])
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAME = re.compile(r"-?\d{1,7}")
NOT_YET = "video_not_ready"


@router.post("/media", status_code=201, **described("Upload a picture, clip or sound", 201, MEDIA, FILE))
async def upload(request: Request) -> Response:
    """The raw bytes, or one file in a form; what it is, is seen in its content."""
    studio = studio_of(request)
    found = await read_upload(request, studio.folders.incoming)
    return json_answer(await studio.keep(found), 201)


@router.get("/media/{sha256}", **described("An upload", 200, "application/octet-stream"))
async def media(request: Request, sha256: str) -> Response:
    """The bytes of an upload."""
    studio = studio_of(request)
    if not _SHA256.fullmatch(sha256) or not studio.has_media(sha256):
        raise not_found("upload", sha256)
    path = studio.folders.upload(sha256)
    kind, ending = await studio.thread(sniffed, path)
    return file_answer(request, path, tag=sha256, name=f"{sha256[:12]}{ending}", kind=kind, final=True)


@router.post("/restore", **described("The request that a file was made by", 200, ANYTHING, FILE))
async def restore(request: Request) -> Response:
    """Of a file made by kinema, or a picture with A1111 or ComfyUI data."""
    studio = studio_of(request)
    found = await read_upload(request, studio.folders.incoming)
    try:
        return json_answer(await studio.inspect("restore", found.path))
    finally:
        found.path.unlink(missing_ok=True)


@router.get("/jobs/{id}/video", **described("What a job has made", 200, "video/mp4"))
async def video(request: Request, id: str) -> Response:
    """The clip, or the picture of a job of one frame; ranges are served."""
    studio, job = studio_of(request), _job(request, id)
    path = made(studio, job)
    return file_answer(request, path, tag=tag(job, path), name=f"{job.id}{path.suffix}")


@router.get("/jobs/{id}/thumbnail", **described("A still of a result", 200, "image/webp"))
async def thumbnail(request: Request, id: str) -> Response:
    """The result's middle frame, small."""
    studio, job = studio_of(request), _job(request, id)
    made(studio, job)
    return _picture(request, job, studio.folders.thumbnail(job.id))


@router.get("/jobs/{id}/spritesheet", **described("Frames of a result side by side", 200, "image/jpeg"))
async def spritesheet(request: Request, id: str) -> Response:
    """Frames evenly apart, in rows."""
    studio, job = studio_of(request), _job(request, id)
    made(studio, job)
    return _picture(request, job, studio.folders.spritesheet(job.id))


@router.get("/jobs/{id}/preview", **described("The clean estimate so far", 200, "image/webp"))
async def preview(request: Request, id: str) -> Response:
    """An animation of what the clip will be, about."""
    studio, job = studio_of(request), _job(request, id)
    return _picture(request, job, studio.folders.preview(job.id))


def _picture(request: Request, job: Job, path: Path) -> Response:
    return file_answer(request, path, tag=tag(job, path), name=f"{job.id}-{path.name.split('.', 1)[-1]}")


_WIDTH = {"parameters": [query("width", {"type": "integer", "minimum": 16, "maximum": 2048})]}


@router.get("/jobs/{id}/frames/{n}.png", **described("One frame of a result", 200, "image/png", _WIDTH))
async def frame(request: Request, id: str, n: str) -> Response:
    """Decoded from the file; -1 is the last one."""
    studio, job = studio_of(request), _job(request, id)
    path = made(studio, job)
    assert job.result is not None
    index = int(n) if _FRAME.fullmatch(n) else job.result.frames
    if not -job.result.frames <= index < job.result.frames:
        raise not_found("frame", n)
    width = query_number(request, "width", 16, 2048, 2048)
    found = await studio.inspect("frame", path, index=index, width=width)
    headers = {"etag": f'"{tag(job, path)}-{index}-{width}"', "cache-control": "private, max-age=3600"}
    return Response(base64.b64decode(found["png"]), headers=headers, media_type="image/png")


_AS = {"parameters": [query("as", {"enum": list(AS), "default": "yaml"})]}


@router.get("/jobs/{id}/text", **described("A job as command, Python or YAML", 200, "text/plain", _AS))
async def text(request: Request, id: str) -> Response:
    """What makes the same clip elsewhere."""
    job, form = _job(request, id), request.query_params.get("as", "yaml")
    if form not in AS:
        message = f"as={form[:20]!r} is unknown; write {', '.join(AS)}."
        raise ApiError(422, message, code="invalid_value", param="as")
    return Response(snippet(job, form), media_type="text/plain; charset=utf-8")


def _job(request: Request, id: str) -> Job:
    return studio_of(request).queue.get(job_id(id))


def made(studio: Studio, job: Job) -> Path:
    """The file of a job that has one; 404 with the reason otherwise."""
    if job.result is not None:
        return studio.folders.results / job.result.file
    if job.state == "failed" and job.error is not None:
        raise ApiError(404, f"the job has failed: {job.error.message}", code=job.error.code)
    code = "cancelled" if job.state == "cancelled" else NOT_YET
    raise ApiError(404, f"the job is {job.state} and has no file.", code=code)


def tag(job: Job, path: Path) -> str:
    """An entity tag: a file under this name is replaced as a whole, at another time."""
    try:
        status = path.stat()
    except OSError:
        return job.id
    return f"{job.id[6:18]}-{status.st_mtime_ns:x}-{status.st_size:x}"


def sniffed(path: Path) -> tuple[str | None, str]:
    """Type and ending of an upload by its bytes; None for what a browser should only save."""
    from kinema.io.sniff import sniff

    with path.open("rb") as file:
        head = file.read(4096)
    return _SHOWN.get(sniff(head) or "", (None, ".bin"))


_SHOWN: dict[str, tuple[str | None, str]] = {
    "png": ("image/png", ".png"),
    "jpeg": ("image/jpeg", ".jpg"),
    "webp": ("image/webp", ".webp"),
    "gif": ("image/gif", ".gif"),
    "avif": ("image/avif", ".avif"),
    "mov": ("video/mp4", ".mp4"),
    "matroska": ("video/webm", ".webm"),
}
