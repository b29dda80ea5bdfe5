"""What is imported to load a checkpoint, and what the garbage collector does meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from checkpoints import save_wan
from kinema.core.imports import importing

UNASKED = {
    *("PIL", "av", "decord", "diffusers", "ftfy", "huggingface_hub", "imageio", "numpy.typing", "pydantic"),
    *("rich", "scipy", "sympy", "torch._dynamo", "transformers", "typer", "yaml"),
    *("kinema.animation", "kinema.cli", "kinema.diffusion", "kinema.serve", "kinema.story"),
    *("kinema.io.clip", "kinema.models.vision", "kinema.pipelines.plan", "kinema.pipelines.run"),
    "kinema.pipelines.residency.loading",
}

WATCH = """
import gc, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("collecting" if gc.isenabled() else "quiet")
sys.meta_path.insert(0, Watch())
"""


def _said(code):
    done = subprocess.run([sys.executable, "-c", WATCH + code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_loading_imports_no_more_than_reads_a_checkpoint(tmp_path):
    folder = str(save_wan("t2v", tmp_path / "wan"))
    load = f"import kinema; kinema.load(); kinema.load({folder!r}, device='cpu'); print(*sys.modules)"
    said = _said(load)
    assert "torch" in said
    assert sorted(said & UNASKED) == []
    assert "quiet" in said
    assert "collecting" not in said


@pytest.mark.parametrize("verb", ["plan", "generate"])
def test_the_command_line_imports_torch_without_the_collector(verb):
    said = _said(f"import kinema.cli; kinema.cli.run([{verb!r}, 'a', *{['--dry-run'] * (verb != 'plan')!r}])")
    assert "quiet" in said
    assert "collecting" not in said


def test_what_was_made_inside_is_old_and_still_collected():
    class Knot:
        """An object that refers to itself: garbage that only the collector finds."""

    gone = []
    with importing():
        assert not gc.isenabled()
        kept = [[] for _ in range(5000)]
        knot = Knot()
        knot.me = knot
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert gc.get_count()[0] < 1000  # no collection is due
    assert any(o is kept for o in gc.get_objects(generation=2))
    weakref.finalize(knot, gone.append, 1)
    del knot
    gc.collect(1)
    assert not gone
    gc.collect()
    assert gone == [1]


def test_a_program_that_collects_never_or_froze_its_objects_keeps_its_choice():
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        with importing():
            pass
        assert gc.get_freeze_count() > 0.9 * frozen > 0  # some objects go by themselves
    finally:
        gc.unfreeze()


def test_the_collector_is_on_again_after_an_error():
    with pytest.raises(ImportError), importing():
        import kinema.nothing  # noqa: F401
    assert gc.isenabled()
