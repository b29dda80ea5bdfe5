"""The speed measurements: ratios and differences are what they say, and the GPU's runs through in small."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def script(path: str) -> ModuleType:
    """A script as a module."""
    file = ROOT / "scripts" / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a work says so."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_ratios_are_taken_round_by_round(clock):
    alternate = script("bench/alternate.py").alternate
    seconds = iter([9.0, 9.0, 2.0, 1.0, 8.0, 2.0, 3.0, 1.0])  # the machine was slow in the second round

    def work(value: float):
        def run() -> torch.Tensor:
            clock[0] += next(seconds)
            return torch.tensor([0.0, value])

        return run

    first, other = alternate({"theirs": work(1.0), "ours": work(1.5)}, 3)
    assert (first.ratio, first.difference) == (1.0, 0.0)
    assert other.ratio == 3.0
    assert other.range == (2.0, 4.0)
    assert other.seconds == other.best == 1.0
    assert other.difference == 0.5
    assert other.rms == pytest.approx(0.5 / 2**0.5)


def test_no_round_begins_after_the_limit_and_some_ways_run_once(clock):
    alternate, runs = script("bench/alternate.py").alternate, []

    def work(name: str):
        def run() -> torch.Tensor:
            clock[0] += 10
            runs.append(name)
            return torch.ones(1)

        return run

    ways = alternate({n: work(n) for n in "abc"}, 9, warm=False, once=["c"], limit=45)
    assert "".join(runs) == "abc" + "ab"
    assert [w.seconds for w in ways] == [10, 10, 10]


def test_results_are_kept_by_name_and_drawn(tmp_path, clock):
    alternate = script("bench/alternate.py")
    way = alternate.Way("ours", 2.0, (1.5, 2.5), 0.1, 0.1, 0.0, 0.0)
    file = tmp_path / "speed.json"
    alternate.write(file, {"one": [way, way]}, {"out": file})
    alternate.write(file, {"two": [way, way]}, {"out": file})
    assert list(json.loads(file.read_text())["results"]) == ["one", "two"]
    alternate.chart([file], tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as drawn:
        assert drawn.getextrema()[0][0] < 100  # something is on the paper


def test_the_gpu_measurement_runs_through_in_small_without_diffusers(tmp_path, monkeypatch):
    wan_speed = script("gpu/wan_speed.py")
    monkeypatch.setattr(wan_speed, "THEIRS", False)
    monkeypatch.setattr(sys, "argv", ["wan_speed.py", "--dry", "--out", str(tmp_path / "out.json")])
    wan_speed.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["clip"]["frames"] == 5
    assert found["kinema: share of peak"] > 0
    assert list(found["results"]) == ["guided step, 5 frames", "decode, 48x32, 5 frames"]


def test_a_step_of_wan_1_3b_costs_what_its_shape_says():
    wan_speed = script("gpu/wan_speed.py")
    # two forwards of 81.9 TFLOP in products and 197.8 in self-attention, less the text's keys
    assert wan_speed.step_flops(wan_speed.FULL) / 1e12 == pytest.approx(2 * (82.0 + 197.8), rel=0.03)


def test_no_stage_begins_after_the_minutes(tmp_path, monkeypatch, capsys):
    wan_speed = script("gpu/wan_speed.py")
    monkeypatch.setattr(
        sys, "argv", ["wan_speed.py", "--dry", "--minutes", "0", "--out", str(tmp_path / "o.json")]
    )
    wan_speed.main()
    assert capsys.readouterr().out.count("left out") == 4


def test_the_page_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    refresh = script("bench/refresh_speed.py")
    files = [path for name in refresh.FILES if (path := refresh.FOLDER / f"{name}.json").is_file()]
    page = refresh.PAGE.read_text("utf-8")
    assert refresh.written(page, "\n".join(refresh.table(files))) == page, (
        "run python scripts/bench/refresh_speed.py --only"
    )
