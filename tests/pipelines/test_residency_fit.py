"""What fits: the machine's memory as its files tell it, and the arrangement that is picked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinema.core.errors import ConfigError, ResourceError
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.pipelines.residency import fit as fitting
from kinema.pipelines.residency.fit import fit
from kinema.pipelines.residency.machine import free_host
from kinema.pipelines.residency.sizes import sizes
from kinema.story.shot import Shot

MB = 1 << 20


def machine(root, available, cgroup, **files):
    """A made-up /proc and /sys/fs/cgroup."""
    proc, groups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        place = groups / name.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(text))
    return {"proc": proc, "groups": groups}


def test_a_machine_without_limits_has_what_the_kernel_says(tmp_path):
    assert free_host(**machine(tmp_path, 700 * MB, "0::/\n")) == 700 * MB


def test_the_limit_of_a_container_counts_and_its_cached_files_do_not(tmp_path):
    found = machine(
        tmp_path,
        9000 * MB,
        "0::/a/b\n",
        a__memory_dot_max=1000 * MB,
        a__memory_dot_current=600 * MB,
        a__memory_dot_stat=f"anon 1\ninactive_file {100 * MB}\n",
        a__b__memory_dot_max="max\n",
        a__b__memory_dot_current=1,
    )
    assert free_host(**found) == 500 * MB


def test_the_older_interface_is_read_too(tmp_path):
    files = {
        "memory__memory_dot_limit_in_bytes": 800 * MB,
        "memory__memory_dot_usage_in_bytes": 300 * MB,
        "memory__memory_dot_stat": f"total_inactive_file {50 * MB}",
    }
    # inside a container, its own group is the root of what is mounted
    assert free_host(**machine(tmp_path, 9000 * MB, "4:cpu,memory:/docker/123\n", **files)) == 550 * MB
    files["memory__memory_dot_limit_in_bytes"] = 1 << 62
    assert free_host(**machine(tmp_path / "free", 9000 * MB, "4:memory:/docker/123\n", **files)) == 9000 * MB


def planned(folder, **fields):
    card = read_card(str(folder))
    fields = {"prompt": "a", "size": "64x64", "frames": 9, "seed": 1, **fields}
    return make_plan(Shot(model=card.id, **fields), card), card


def test_configurations_tell_how_many_numbers_there_are(wan):
    import safetensors

    folder = wan("two-experts")
    found = sizes(read_card(str(folder)))

    def there(part: str, stem: str) -> int:
        with safetensors.safe_open(folder / part / f"{stem}.safetensors", "pt") as file:
            return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118

    assert found.transformer.total == there("transformer", "diffusion_pytorch_model")
    assert found.vae == there("vae", "diffusion_pytorch_model")
    assert found.text.total == pytest.approx(
        there("text_encoder", "model"), rel=0.1
    )  # norms and biases aside
    assert found.transformer.count == 2


def test_the_fastest_that_fits_is_picked(wan, monkeypatch):
    for name in ("BASE", "HEAP"):  # of so small a model these are all that counts
        monkeypatch.setattr(fitting, name, 0)
    monkeypatch.setattr(fitting, "_decoded", lambda *_: 0)
    plan, card = planned(wan("two-experts"))
    own = sizes(card)  # as if it had more blocks than are there at a time
    deep = replace(own.transformer, total=own.transformer.total + 20 * own.transformer.block)
    monkeypatch.setattr(fitting, "sizes", lambda card: replace(own, transformer=deep))
    free = 1 << 40
    monkeypatch.setattr(fitting, "free_on", lambda device: free)
    needs = fit([plan], card).needs
    assert needs["whole"] > needs["component"] > needs["block"]
    for tier in ("whole", "component", "block"):
        free = needs[tier]
        found = fit([plan], card)
        assert found.tier == tier
        assert (found.note is None) == (tier == "whole")
    free = needs["block"] - 1
    with pytest.raises(ResourceError):
        fit([plan], card)
    assert "may not be enough" in fit([plan], card, "whole").note  # who asks by name is told, not refused


def test_where_whole_pictures_do_not_fit_tiles_are_counted(wan, monkeypatch):
    plan, card = planned(wan("t2v"), size="832x480")
    free = 1 << 40
    monkeypatch.setattr(fitting, "free_on", lambda device: free)
    roomy = fit([plan], card).needs["whole"]
    free = roomy - 1
    tight = fit([plan], card)
    assert tight.tier == "whole"
    assert tight.needs["whole"] < roomy
    free = 1
    with pytest.raises(ResourceError):
        fit([plan], card)


def test_a_decode_of_480p_fits_a_small_machine_in_tiles():
    wan_21 = '{"base_dim": 96}'
    assert 4e9 < fitting._decoded(wan_21, 832, 480, False) < 12e9
    assert fitting._decoded(wan_21, 832, 480, True) < 1e9
    assert fitting._decoded(wan_21, 1280, 720, False) > 2 * fitting._decoded(wan_21, 832, 480, False)


def test_what_a_refusal_proposes_fits(wan, monkeypatch):
    plan, card = planned(wan("t2v"), size="832x480", frames=81)
    monkeypatch.setattr(fitting, "free_on", lambda device: 100 * MB)
    with pytest.raises(ResourceError) as caught:
        fit([plan], card)
    size, _ = re.search(r"; (\d+x\d+) with (81) frames", str(caught.value)).groups()
    smaller, _ = planned(wan("t2v"), size=size, frames=81)
    assert fit([smaller], card).tier in ("whole", "component", "block")


def test_a_job_is_arranged_for_its_largest_shot(wan):
    small, card = planned(wan("t2v"))
    large, _ = planned(wan("t2v"), size="512x512")
    assert fit([small, large], card).needs == fit([large, small], card).needs
    assert fit([small, large], card).needs["whole"] > fit([small], card).needs["whole"]


def test_a_merged_lora_takes_the_whole_model(wan, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    tensors = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(1, 48),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.ones(48, 1),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    plan, card = planned(wan("t2v"), loras=[{"path": str(tmp_path / "a.safetensors"), "merge": True}])
    monkeypatch.setattr(fitting, "_decoded", lambda *_: 0)  # in tiles it would fit
    monkeypatch.setattr(fitting, "free_on", lambda device: fit_whole - 1)
    fit_whole = 1 << 40
    fit_whole = fit([plan], card).needs["whole"]
    with pytest.raises(ResourceError):
        fit([plan], card)
    with pytest.raises(ConfigError, match="leave out merge"):
        fit([plan], card, "block")


def test_small_matrices_are_held_twice_on_a_cpu(wan):
    plan, card = planned(wan("t2v"))
    found, scene = sizes(card), fitting.Scene.of(plan)
    on = fitting.On(torch.float32, "full", cpu=True)
    dit = found.transformer
    assert fitting._copies("whole", dit, on) == 4 * (dit.total - dit.texts)
    assert fitting._copies("whole", dit, replace(on, cpu=False)) == 0
    assert fitting._copies("whole", replace(dit, total=1 << 28), on) == 0  # a large one is used as it is
    here, there = (
        list(fitting._stages("whole", scene, found, card, replace(on, cpu=cpu))) for cpu in (True, False)
    )
    assert here[2][1] - there[2][1] == 4 * (dit.total - dit.texts)
    assert here[2][0] == there[2][0]


def test_a_longer_prompt_needs_more(wan):
    folder = wan("t2v")
    short, long, longest = (
        fitting.Scene.of(planned(folder, prompt=text)[0]) for text in ("a fox", "a fox " * 30, "a fox " * 300)
    )
    assert short.tokens < long.tokens < longest.tokens == fitting.TEXT_TOKENS
    card = read_card(str(folder))
    assert fitting._contexts(short, card, 4) < fitting._contexts(longest, card, 4)


def test_the_bench_writes_its_table_between_the_marks(tmp_path):
    import runpy

    script = Path(__file__).parents[2] / "scripts" / "bench" / "memory.py"
    bench = runpy.run_path(str(script))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench['BEGIN']}\nold\n{bench['END']}\nafter\n", encoding="utf-8")
    row = {"memory": "whole", "weights": "full", "peak": 100_000_000, "asked": 110_000_000}
    bench["write_into"](page, bench["in_words"]([row]))
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| `whole` | `full` | 100 MB | 110 MB (+10%) |" in text
    docs = (script.parents[2] / "docs" / "memory.md").read_text(encoding="utf-8")
    assert docs.count(bench["BEGIN"]) == docs.count(bench["END"]) == 1
