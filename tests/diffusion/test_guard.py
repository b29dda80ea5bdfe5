"""Predictions that are not finite: computed again, told, or refused with their place; never passed on."""

import pytest
import torch
from flows import free, mixed, noise

from kinema.core.errors import NumericError
from kinema.diffusion.flow import sigmas
from kinema.diffusion.guard import Guarded
from kinema.diffusion.guidance import ClassifierFree, Guided
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver

STEPS = 6


class Network:
    """The mixture's velocity for both sides; some calls overflow."""

    def __init__(self, broken=()):
        self.broken, self.calls = set(broken), []

    def __call__(self, x, step, names):
        self.calls.append((step.index, names))
        found = {name: mixed(x, step) * (1.1 if name == "cond" else 1.0) for name in names}
        for name in names:
            if (step.index, name) in self.broken:
                found[name] = found[name].index_fill(2, torch.tensor(1), torch.inf)
        return found


def run(network, again, told):
    x = noise()
    guarded = Guarded(network, lambda *call: (again(*call), "in blocks.1.ffn"), told)
    velocity = Guided(guarded, ClassifierFree(scale=3.0))
    return sample(velocity, x, free(sigmas(STEPS, 2.0), x), solver("unipc"))


def test_a_step_that_overflows_is_computed_again_and_the_run_ends_as_if_nothing_had_happened():
    notes, again = [], Network()
    found = run(
        Network({(2, "uncond"), (4, "cond")}), again, lambda step, text: notes.append((step.index, text))
    )
    assert torch.equal(found, run(Network(), None, None))
    assert again.calls == [(2, ("uncond",)), (4, ("cond",))]  # only what was broken
    assert [index for index, _ in notes] == [2, 4]
    assert notes[0][1].startswith("step 3 of 6 (sigma ")


def test_what_stays_broken_stops_the_run_and_says_where():
    broken = {(3, "cond")}
    with pytest.raises(
        NumericError, match=r"step 4 of 6 \(sigma 0\.\d+\), in float32 either.*blocks\.1\.ffn"
    ):
        run(Network(broken), Network(broken), None)
