"""Ctrl-C before any work has begun."""

import os
import signal
import subprocess
import sys

CHILD = """
import os, signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background work begins without
from kinema.cli.interrupt import listen
listen()
torch = types.ModuleType("torch")
torch.__spec__ = types.SimpleNamespace(_initializing={initializing})
sys.modules["torch"] = torch
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("raised")
"""


def child(*, initializing):
    code = CHILD.format(initializing=initializing)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_while_torch_is_imported_the_process_ends_with_the_code_of_an_interrupt():
    assert child(initializing=True) == (128 + signal.SIGINT, "", "interrupted; nothing was written.\n")


def test_otherwise_it_is_an_exception():
    assert child(initializing=False) == (0, "raised\n", "")


def test_while_the_command_line_is_imported_one_line_is_all(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "kinema", "doctor"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    found = (done.returncode, done.stdout, done.stderr)
    assert found == (128 + signal.SIGINT, "", "interrupted; nothing was written.\n")


LEAVING = """
import atexit, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background work begins without
import kinema.cli
kinema.cli.run = lambda arguments: 130
atexit.register(os.kill, os.getpid(), signal.SIGINT)
kinema.cli.main()
"""


def test_once_more_while_the_process_ends_is_no_traceback():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", LEAVING], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
