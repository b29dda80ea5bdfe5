"""Lines of the log: JSON or words, with the facts and without what nobody should read."""

from __future__ import annotations

import json
import logging

import pytest

from kinema.serve.environment import child_environment
from kinema.serve.logs import JsonLines, Words, hidden, texts_of


def record(event: str, *, error: BaseException | None = None, **facts) -> logging.LogRecord:
    trace = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("kinema.serve", logging.WARNING, "x.py", 1, event, None, trace)
    made.facts = facts
    return made


def test_a_line_is_one_object_with_the_facts_of_its_event():
    line = JsonLines({"worker": "one"}).format(record("failed", job="video_x", code="bad\nmodel", token="t"))
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning", "event": "failed", "worker": "one", "job": "video_x", "code": "bad\nmodel",
    }  # fmt: skip


def test_a_line_of_words_has_the_same():
    assert Words().format(record("made", job="video_x", param=None, cookie="c")) == "WARNING made job=video_x"


@pytest.mark.parametrize("form", [JsonLines(), Words()])
def test_texts_of_the_job_at_work_are_in_no_line(form):
    try:
        raise ValueError("cannot draw 'a red fox'")
    except ValueError as error:
        told = record("a red fox", error=error, message="prompt='a red fox' and 'a red fox in the rain'")
    with hidden(["a red fox", "a red fox in the rain", "a"]):
        line = form.format(told)
    assert "fox" not in line
    assert "rain" not in line
    assert "draw" in line
    assert "a red fox" in form.format(told)  # the next job's lines are its own


def test_jobs_at_once_hide_their_own():
    told = record("first second")
    with hidden(["first"]):
        with hidden(["second"]):
            assert Words().format(told) == "WARNING … …"
        assert Words().format(told) == "WARNING … second"


def test_the_texts_of_a_request_are_its_prompts_wherever_they_stand():
    shot = {
        "prompt": {"0": "one", "24": {"value": "two"}, "head": "three"},
        "negative": "four",
        "model": "five",
    }
    assert list(texts_of(shot)) == ["one", "two", "three", "four"]
    assert list(texts_of({"shots": [shot, {"prompt": "six"}], "name": "seven"})) == [
        "one", "two", "three", "four", "six",
    ]  # fmt: skip


def test_processes_get_no_token_and_libraries_are_quiet(monkeypatch):
    monkeypatch.setenv("KINEMA_TOKEN", "secret")
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "info")
    found = child_environment({"CUDA_VISIBLE_DEVICES": "1"})
    assert "KINEMA_TOKEN" not in found
    assert (found["DIFFUSERS_VERBOSITY"], found["TRANSFORMERS_VERBOSITY"]) == ("info", "error")
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    assert "PATH" in found
