"""The gallery is what it says: every storyboard is legal, its clip carries it, and the page shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.pipelines.job import make_job
from kinema.story.storyboard import Storyboard, from_mapping, load

ROOT = Path(__file__).parents[2]
STORIES = sorted((ROOT / "samples" / "storyboards").glob("*.yaml"))
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
MODES = {
    "text": lambda shot: not (shot.keyframes or shot.source or shot.extend or shot.begins.match),
    "still": lambda shot: [key.frame.source for key in shot.keyframes] == [0] and shot.camera is None,
    "keyframes": lambda shot: len(shot.keyframes) > 1,
    "travel": lambda shot: len(shot.prompt.keys) > 1,
    "mix": lambda shot: shot.prompt.mixed,
    "restyle": lambda shot: shot.source is not None,
    "inside": lambda shot: shot.source is not None and shot.source.mask is not None,
    "extend": lambda shot: shot.extend is not None,
    "match": lambda shot: shot.begins.match,
    "flat camera": lambda shot: shot.camera is not None and shot.camera.depth.flat,
    "depth camera": lambda shot: shot.camera is not None and not shot.camera.depth.flat,
    "frame by frame": lambda shot: shot.mode == "frame_by_frame",
    "dissolve with audio": lambda shot: shot.begins.kind == "dissolve" and shot.audio is not None,
    "loop": lambda shot: shot.loop,
}


def shots_of(path):
    story = load(path)
    return story.shots if isinstance(story, Storyboard) else (story,)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_every_clip_is_that_of_its_storyboard(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    job = make_job(load(path.name))
    clip = ROOT / "samples" / "clips" / f"story-{path.stem}.mp4"
    record = read_record(clip)
    assert record is not None
    found, wanted = (getattr(s, "shots", (s,)) for s in map(from_mapping, (dict(record.shot), job.shot)))
    for made, asked in zip(found, wanted, strict=True):
        for name in ("prompt", "seed", "frames", "keyframes", "source", "extend", "transition", "mode"):
            assert getattr(made, name) == getattr(asked, name)
    assert open_video(clip).frames == job.length
    assert clip.stat().st_size < 150_000


def test_the_storyboards_cover_every_mode():
    every = [shot for path in STORIES for shot in shots_of(path)]
    missing = [name for name, is_mode in MODES.items() if not any(map(is_mode, every))]
    assert missing == []


def test_the_page_is_written_from_the_storyboards(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "samples"))
    monkeypatch.chdir(ROOT / "samples" / "storyboards")
    import stories

    monkeypatch.delitem(sys.modules, "stories")
    assert sorted(stories.ORDER) == [path.stem for path in STORIES]
    assert stories.page(stories.ORDER) == PAGE
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
