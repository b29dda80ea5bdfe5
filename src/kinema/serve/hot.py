"""The two answers that are asked for all day, how far a job is, before any routing: a third of the time.

They are those of the routes with the same paths, made by the same functions; what is not simply there goes on
to the routes.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from kinema.core.errors import KinemaError
from kinema.serve.errors import as_json
from kinema.serve.jobs import ID, Job
from kinema.serve.openai_videos import object_of, poll_after
from kinema.serve.studio import Studio

_PATH = re.compile(rf"/(?P<surface>api/jobs|v1/videos)/(?P<id>{ID.pattern})")
_ROUTES = {name: SimpleNamespace(path=f"/{name}/{{id}}") for name in ("api/jobs", "v1/videos")}


class Hot:
    """A layer that answers them.

    Args:
        app: what answers everything else.
        studio: whose jobs they are.
    """

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self._app, self._studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        simple = scope["type"] == "http" and scope["method"] == "GET"
        match = _PATH.fullmatch(scope["path"]) if simple else None
        job = None if match is None else self._job(match["id"])
        if match is None or job is None or (match["surface"] == "v1/videos" and job.kind != "video"):
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTES[match["surface"]]
        headers = [(b"content-type", b"application/json")]
        if match["surface"] == "api/jobs":
            body = as_json(job.to_json())
        else:
            body = as_json(object_of(self._studio, job))
            if (after := poll_after(job)) is not None:
                headers.append((b"openai-poll-after-ms", after.encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _job(self, name: str) -> Job | None:
        try:
            return self._studio.queue.get(name)
        except KinemaError:  # none such, or the disk: the routes tell which
            return None
