"""The process of a server's own worker: `python -m kinema.serve.worker_main`, told its settings in JSON.

It ends when its standard input does, so that it does not outlive a server that was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from kinema.core.imports import importing
from kinema.serve.folders import Folders
from kinema.serve.logs import log_bug, write_logs
from kinema.serve.queue import Queue

GRACE = 20.0


def main() -> None:
    """Work until SIGTERM, SIGINT, or the end of the server."""
    settings = json.loads(sys.stdin.readline())
    write_logs(worker=settings["name"])
    sys.excepthook = log_bug
    folders = Folders(Path(settings["data"]).absolute())
    queue = Queue(folders.queue)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which then sends SIGTERM

    with importing():  # torch among it
        from kinema.pipelines.durable.pace import Every
        from kinema.serve.desk import LocalDesk
        from kinema.serve.worker import Worker, WorkerOptions

    desk = LocalDesk(folders, queue, settings.get("loras", {}), settings.get("models", ()))
    options = WorkerOptions(
        name=settings["name"],
        lease=settings.get("lease", 30.0),
        every=Every.parse(settings.get("checkpoint_every")),
    )
    worker = Worker(desk, options)
    signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
    threading.Thread(target=_until_server_ends, daemon=True).start()
    worker.run()
    queue.close()


def _until_server_ends() -> None:
    """Wait for the end of our input, then let the step end; a step that does not is cut off."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
