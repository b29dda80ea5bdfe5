"""From noise to a spiral: DDPM, DDIM and flow matching on one picture, with and without guidance.

    python samples/spiral.py -o spiral.mp4 [--seed 0] [--quick]

Points on a three-armed spiral are noised; two small networks learn, from scratch and in this script, to undo
it: one predicts the noise of the variance-preserving path, one the velocity of the flow path. Then the same
noise is led back in six ways. Everything but the network and the drawing is kinema's: the paths, the solvers,
the guidance, the loop. About a minute on one CPU core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from kinema.core.runtime import generator
from kinema.diffusion import flow, vp
from kinema.diffusion.guidance import ClassifierFree, Guided
from kinema.diffusion.sampler import sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.step import FrameNoise, Step
from kinema.io.video_write import write_video

ARMS, NO_LABEL = 3, 3  # the label after the last arm stands for "no label"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run of the script is made from."""

    seed: int = 0
    points: int = 540
    train_steps: int = 1800
    batch: int = 640
    width: int = 128
    ddpm_steps: int = 250
    ddim_steps: int = 25
    flow_steps: int = 12
    guidance: float = 2.5
    fps: int = 30
    seconds: tuple[float, float, float] = (3.0, 7.0, 2.5)  # forward, back, rest


QUICK = Settings(points=90, train_steps=60, batch=256, width=32, ddpm_steps=30, ddim_steps=8, flow_steps=4,
                 fps=6, seconds=(0.5, 1.0, 0.4))  # fmt: skip


def spiral(labels_N: Tensor, source: torch.Generator) -> Tensor:
    """Points on the arms that `labels_N` name, `[N, 2]`, of about unit variance."""
    along = torch.rand(len(labels_N), generator=source).sqrt()
    arm = on_arm(along, labels_N)
    return arm + 0.05 * torch.randn(arm.shape, generator=source)


def on_arm(along: Tensor, labels: Tensor) -> Tensor:
    """Points on the arms' middle lines, `[..., 2]`, for places `along` them in 0..1."""
    angle = 2 * math.pi * (labels / ARMS + 0.85 * along)
    return 1.9 * along.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1)


def score(points_N2: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Share of the points that lie on their own arm, and share of the arms that those points cover."""
    lines = on_arm(torch.linspace(0, 1, 200).expand(len(labels_N), -1), labels_N[:, None])
    off, nearest = (points_N2[:, None] - lines).norm(dim=-1).min(dim=1)
    # Data is spread evenly over along^2, so equal bins of it hold equal shares.
    bins = (((nearest / 199) ** 2) * 6).long().clamp(max=5) + 6 * labels_N
    held = torch.bincount(bins[off < 0.15], minlength=6 * ARMS) / len(labels_N)
    return float((off < 0.15).float().mean()), float(held.clamp(max=1 / (6 * ARMS)).sum())


class Net(nn.Module):
    """A perceptron from a point, a level in 0..1 and a label to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.label = nn.Embedding(ARMS + 1, 16)
        self.register_buffer("bands", torch.arange(1, 7) * math.pi)
        layers = [nn.Linear(2 + 12 + 16, width), nn.SiLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x_N2: Tensor, level_N: Tensor, labels_N: Tensor) -> Tensor:
        """The vector at each point, `[N, 2]`."""
        phase = level_N[:, None] * self.bands
        return self.layers(torch.cat([x_N2, phase.sin(), phase.cos(), self.label(labels_N)], dim=1))


def as_latents(points_N2: Tensor) -> Tensor:
    """Points as the one column of a one-frame clip, `[1, 2, 1, N, 1]`."""
    return points_N2.T[None, :, None, :, None]


def as_points(x_BCTYX: Tensor) -> Tensor:
    return x_BCTYX[0, :, 0, :, 0].T


def train(settings: Settings, path: vp.VariancePreserving | None) -> Net:
    """Learn the velocity of the flow path, or the noise of `path`; one label in eight is dropped."""
    torch.manual_seed(settings.seed)
    source = generator(settings.seed, "training")
    net = Net(settings.width)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.train_steps)
    for _ in range(settings.train_steps):
        labels = torch.randint(ARMS, (settings.batch,), generator=source)
        clean, noise = spiral(labels, source), torch.randn(settings.batch, 2, generator=source)
        # A batch of points is a batch of clips of one latent each.
        clean_BCTYX, noise_BCTYX = clean[:, :, None, None, None], noise[:, :, None, None, None]
        if path is None:
            level = torch.rand(settings.batch, generator=source)
            x, target = flow.noisy(clean_BCTYX, noise_BCTYX, level[:, None]), flow.velocity(clean, noise)
        else:
            times = torch.randint(flow.TIMESTEPS, (settings.batch,), generator=source)
            x, target, level = (
                path.noisy(clean_BCTYX, noise_BCTYX, times[:, None]),
                noise,
                times / flow.TIMESTEPS,
            )
        labels = labels.masked_fill(torch.rand(settings.batch, generator=source) < 0.125, NO_LABEL)
        loss = (net(x.flatten(1), level, labels) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One panel: a network on its path, a solver, a guidance scale."""

    title: str
    net: Net
    path: vp.VariancePreserving | None
    solver: str
    sigmas: Tensor
    scale: float

    @property
    def road(self) -> str:
        """The path, by name."""
        return "Flow path" if self.path is None else "Variance-preserving path"

    def velocity(self, labels_N: Tensor) -> Guided:
        """The guided velocity of points with these labels."""

        def predict(x_BCTYX: Tensor, step: Step, names: tuple[str, ...]) -> dict[str, Tensor]:
            known = {"cond": labels_N, "uncond": torch.full_like(labels_N, NO_LABEL)}
            return {name: self.ask(x_BCTYX, step, known[name]) for name in names}

        return Guided(predict, ClassifierFree(scale=self.scale))

    def ask(self, x_BCTYX: Tensor, step: Step, labels_N: Tensor) -> Tensor:
        """The velocity on the flow path that the network gives."""

        def network(x: Tensor, level_BT: Tensor) -> Tensor:
            return as_latents(self.net(as_points(x), level_BT.float().expand(1, len(labels_N))[0], labels_N))

        if self.path is None:
            return network(x_BCTYX, step.sigma_BT)
        return self.path.as_velocity(lambda x, times_BT: network(x, times_BT / flow.TIMESTEPS))(x_BCTYX, step)

    def run(self, noise_N2: Tensor, labels_N: Tensor, seed: int) -> Tensor:
        """Every point's way from noise to data, on the path's own scale, `[S+1, N, 2]`."""
        x = as_latents(noise_N2)
        if self.path is not None:
            x = self.path.to_flow(x, self.path.times(self.sigmas[:1, None]))
        visited = [x]
        sample(
            self.velocity(labels_N), x, flow.table(self.sigmas, torch.ones(1, 1)), solver(self.solver),
            noise=FrameNoise(seed), on_state=lambda state: visited.append(state.x_BCTYX),
        )  # fmt: skip
        road = torch.stack([as_points(x) for x in visited])
        return road * self.shown_scale(self.sigmas)[:, None, None].to(road)

    def shown_scale(self, sigma: Tensor) -> Tensor:
        """What a point of the flow path is multiplied with to lie on this way's own path."""
        return torch.ones_like(sigma) if self.path is None else 1 / torch.hypot(1 - sigma, sigma)

    def noised(self, clean_N2: Tensor, noise_N2: Tensor, sigma: float) -> Tensor:
        """The forward process at a level, on the path's own scale, `[N, 2]`."""
        level = torch.tensor([[sigma]])
        x = as_points(flow.noisy(as_latents(clean_N2), as_latents(noise_N2), level))
        return x * self.shown_scale(level)

    def field(self, nodes_N2: Tensor, labels_N: Tensor, sigma: float) -> Tensor:
        """Where the deterministic flow moves points at the nodes, per unit of level, `[N, 2]`."""
        level = torch.tensor([[sigma]])
        scale = self.shown_scale(level)
        x = as_latents(nodes_N2 / scale)
        with torch.inference_mode():
            v = as_points(self.velocity(labels_N)(x, Step(0, 1, 0, level)))
        bend = 0.0 if self.path is None else (1 - 2 * level) * scale**3  # d(scale)/d(sigma)
        return -(scale * v + bend * as_points(x))


def ways(settings: Settings) -> list[Way]:
    """The three columns, first without and then with guidance."""
    path = vp.VariancePreserving.of("linear")
    noise_net, flow_net = train(settings, path), train(settings, None)
    ddpm, ddim = (path.sigmas(vp.timesteps(n)) for n in (settings.ddpm_steps, settings.ddim_steps))
    straight = flow.sigmas(settings.flow_steps, 1.0, "wan")
    return [
        way
        for scale in (1.0, settings.guidance)
        for way in (
            Way(f"DDPM, {settings.ddpm_steps} steps", noise_net, path, "ddpm", ddpm, scale),
            Way(f"DDIM, {settings.ddim_steps} steps", noise_net, path, "ddim", ddim, scale),
            Way(f"Flow matching, {settings.flow_steps} steps", flow_net, None, "unipc", straight, scale),
        )
    ]


SIZE = (1280, 720)
PANEL = (376, 284)
LEFT, TOP, GAP = 96, 92, 14
ZOOM = 2  # drawn larger, then averaged down: smooth edges
UNITS = 55.0  # pixels for one unit of data
PAPER, CARD, INK, SOFT, LINE = "#f4f2ec", "#fdfcf9", "#22262b", "#7b8087", "#dcd8cd"
COLOURS = ["#d1495b", "#00798c", "#e09f1f"]
TINTS = ["#eeb9c0", "#a3ccd2", "#f0d49a"]
LEGEND = "Arrows: where a point of that colour is led. Lines: the arms that the data lies on."

Draw = ImageDraw.ImageDraw
Arrows = tuple[Tensor, Tensor, Tensor]  # where they stand, where they point, whose they are
Card = tuple[Tensor, Arrows | None, float, str]  # points, arrows, noise level, note


@cache
def font(pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(pixels)


def to_pixels(points_N2: Tensor) -> NDArray[np.float64]:
    """Data units to pixels of an enlarged panel."""
    centre = np.array([PANEL[0] / 2, PANEL[1] / 2 + 10])
    return (centre + points_N2.double().numpy() * [UNITS, -UNITS]) * ZOOM


def nodes() -> tuple[Tensor, Tensor]:
    """Where arrows stand, and whose arrow each is: the arms take turns."""
    x, y = torch.arange(-3.025, 3.1, 0.55), torch.arange(-2.15, 1.8, 0.55)
    row, column = torch.cartesian_prod(torch.arange(len(y)), torch.arange(len(x))).T
    return torch.stack([x[column], y[row]], dim=1), (row + column) % ARMS


def draw_arrows(draw: Draw, places_N2: Tensor, moves_N2: Tensor, labels_N: Tensor) -> None:
    starts = to_pixels(places_N2)
    steps = (moves_N2 / (moves_N2.norm(dim=1, keepdim=True) + 1.5) * 0.5).numpy() * [
        UNITS * ZOOM,
        -UNITS * ZOOM,
    ]
    for start, step, label in zip(starts, steps, labels_N.tolist(), strict=True):
        end, side = start + step, 0.28 * np.array([-step[1], step[0]])
        draw.line([*start, *end], fill=TINTS[label], width=3)
        head = [end, end - 0.42 * step + side, end - 0.42 * step - side]
        draw.polygon([tuple(corner) for corner in head], fill=TINTS[label])


def draw_arms(draw: Draw) -> None:
    for arm in range(ARMS):
        line = to_pixels(on_arm(torch.linspace(0, 1, 80), torch.full((80,), arm)))
        draw.line(line.flatten().tolist(), fill=TINTS[arm], width=4, joint="curve")


def draw_points(draw: Draw, points_N2: Tensor, labels_N: Tensor) -> None:
    radius = 2.3 * ZOOM
    for (x, y), label in zip(to_pixels(points_N2).tolist(), labels_N.tolist(), strict=True):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=COLOURS[label], outline=CARD)


def panel(points_N2: Tensor, labels_N: Tensor, arrows: Arrows | None) -> Image.Image:
    """One card at final size: points over arrows, or over the true arms."""
    card = Image.new("RGB", (PANEL[0] * ZOOM, PANEL[1] * ZOOM), PAPER)
    draw = ImageDraw.Draw(card)
    edge = [1, 1, PANEL[0] * ZOOM - 2, PANEL[1] * ZOOM - 2]
    draw.rounded_rectangle(edge, radius=10 * ZOOM, fill=CARD)
    draw_arms(draw) if arrows is None else draw_arrows(draw, *arrows)
    draw_points(draw, points_N2, labels_N)
    strip = [edge[0], edge[1], edge[2], 36 * ZOOM]  # where the title goes
    draw.rounded_rectangle(strip, radius=10 * ZOOM, fill=CARD, corners=(True, True, False, False))
    draw.rounded_rectangle(edge, radius=10 * ZOOM, outline=LINE, width=ZOOM)
    return card.reduce(ZOOM)


def write_on_card(draw: Draw, corner: tuple[int, int], title: str, level: float, note: str) -> None:
    """A card's title, its noise level as a bar, and what came of it."""
    x, y = corner
    draw.text((x + 14, y + 10), title, fill=INK, font=font(17))
    draw.text((x + PANEL[0] - 110, y + 21), "noise", fill=SOFT, font=font(13), anchor="rm")
    bar = [x + PANEL[0] - 104, y + 19, x + PANEL[0] - 16, y + 23]
    draw.rounded_rectangle(bar, radius=2, fill=LINE)
    if level > 0.02:
        draw.rounded_rectangle([bar[0], bar[1], bar[0] + 88 * level, bar[3]], radius=2, fill=SOFT)
    draw.text((x + 14, y + PANEL[1] - 12), note, fill=INK, font=font(15), anchor="ls")


def side_text(words: str, small: str) -> Image.Image:
    """A row's name, upright on its side."""
    strip = Image.new("RGB", (PANEL[1], 60), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.text((PANEL[1] / 2, 22), words, fill=INK, font=font(18), anchor="mm")
    draw.text((PANEL[1] / 2, 45), small, fill=SOFT, font=font(14), anchor="mm")
    return strip.rotate(90, expand=True)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything that the frames show."""

    settings: Settings
    ways: list[Way]
    roads: list[Tensor]
    clean_N2: Tensor
    noise_N2: Tensor
    labels_N: Tensor

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """The film: noise comes, a moment's rest, noise goes, the result stays."""
        forward, back, rest = (round(seconds * self.settings.fps) for seconds in self.settings.seconds)
        yield from (self.forward(float(share)) for share in np.linspace(0, 1, forward))
        yield from (self.back(float(share)) for share in np.linspace(0, 1, back))
        yield from [self.back(1.0, final=True)] * rest

    def forward(self, share: float) -> NDArray[np.uint8]:
        """The noising, eased in and out; both rows are the same until guidance acts."""
        held = max(0.0, (share - 0.15) / 0.85)
        level = held * held * (3 - 2 * held) * 0.999
        shown = [(way.noised(self.clean_N2, self.noise_N2, level), None, level, "") for way in self.ways]
        return self.compose("Forward: data turns into noise", shown, back=False)

    def back(self, share: float, *, final: bool = False) -> NDArray[np.uint8]:
        """The way back at `share` of each panel's steps."""
        shown = []
        for way, road in zip(self.ways, self.roads, strict=True):
            at = share * (len(road) - 1)
            i = min(int(at), len(road) - 2)
            points = torch.lerp(road[i], road[i + 1], at - i)
            level = float(torch.lerp(way.sigmas[i].double(), way.sigmas[i + 1].double(), at - i))
            close, covered = score(points, self.labels_N) if final else (0.0, 0.0)
            note = f"{close:.0%} on their own arm, {covered:.0%} of it covered" if final else ""
            places, labels = nodes()
            arrows = None if final else (places, way.field(places, labels, max(level, 0.02)), labels)
            shown.append((points, arrows, level, note))
        if final:
            return self.compose("The same noise, led back six ways", shown)
        return self.compose("Backward: the learned field leads the noise home", shown)

    def compose(self, words: str, shown: list[Card], *, back: bool = True) -> NDArray[np.uint8]:
        """Six cards under a headline."""
        page = Image.new("RGB", SIZE, PAPER)
        draw = ImageDraw.Draw(page)
        draw.text((LEFT, 28), "From noise to a spiral", fill=INK, font=font(30))
        draw.text((SIZE[0] - 22, 60), words, fill=SOFT, font=font(19), anchor="rs")
        draw.text((LEFT, SIZE[1] - 16), LEGEND, fill=SOFT, font=font(14), anchor="ls")
        guided = side_text(f"Guidance {self.settings.guidance:g}", "label against no label")
        page.paste(side_text("No guidance", "the label alone"), (22, TOP))
        page.paste(guided, (22, TOP + PANEL[1] + GAP))
        for place, (way, (points, arrows, level, note)) in enumerate(zip(self.ways, shown, strict=True)):
            corner = (LEFT + place % 3 * (PANEL[0] + GAP), TOP + place // 3 * (PANEL[1] + GAP))
            page.paste(panel(points, self.labels_N, arrows), corner)
            write_on_card(draw, corner, way.title if back else way.road, level, note)
        return np.asarray(page)


def scene(settings: Settings) -> Scene:
    """Train, then find every panel's road from the same noise."""
    labels = torch.arange(settings.points) % ARMS
    clean = spiral(labels, generator(settings.seed, "shown"))
    noise = torch.randn(settings.points, 2, generator=generator(settings.seed, "noise"))
    six = ways(settings)
    return Scene(settings, six, [way.run(noise, labels, settings.seed) for way in six], clean, noise, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("spiral.mp4"), help="video file to write")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same film")
    parser.add_argument("--quick", action="store_true", help="a rough version in a few seconds")
    options = parser.parse_args()
    settings = replace(QUICK if options.quick else Settings(), seed=options.seed)
    film = scene(settings).frames()
    print(write_video(options.out, film, fps=settings.fps, size=SIZE, overwrite=True, quality="medium"))


if __name__ == "__main__":
    main()
