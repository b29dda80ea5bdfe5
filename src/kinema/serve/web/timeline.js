// The timeline: a ruler in frames and seconds with the latent groups, a playhead, and the lanes under it.

import { button, $, h, svg } from "./dom.js";
import { draft } from "./draft.js";
import { fps, frames, grid } from "./composer.js";
import { groups, snapped } from "./length.js";
import { across, drag, frameUnder, placeFromKey, ruler, view } from "./ruler.js";
import { number } from "./words.js";
import * as prompts from "./lane-prompts.js";
import * as pictures from "./lane-pictures.js";
import * as curves from "./lane-curves.js";

const lanes = [prompts, pictures, curves];
let ticks, head, inspector;

export function build() {
  ruler.addEventListener("pointerdown", scrub);
  ticks = svg("svg", { class: "groups", preserveAspectRatio: "none", "aria-hidden": "true" });
  head = h("div", { class: "playhead", role: "slider", tabindex: 0, "aria-label": "Playhead", "aria-valuemin": 0, on: { keydown: headKeys, pointerdown: scrub } });
  inspector = h("div", { class: "inspector", role: "group", "aria-label": "What is chosen" });
  const stack = h("div", { class: "lanes" }, h("div", { class: "track ruler-row" }, h("div", { class: "track-name muted", id: "timeline-length" }), h("div", { class: "area" }, ruler)));
  for (const lane of lanes) stack.append(lane.build());
  $("timeline-body").append(h("div", { class: "scroller", tabindex: -1 }, h("div", { class: "stretch" }, stack, h("div", { class: "overlay" }, ticks, head))), inspector);
  buildTools();
  draft.addEventListener("change", show);
  draft.addEventListener("planned", () => curves.show());
  new ResizeObserver(show).observe(ruler);
  show();
}

function buildTools() {
  const snap = h("input", { type: "checkbox", class: "switch", id: "snap", checked: draft.state.snap, on: { change: () => draft.keep({ snap: snap.checked }) } });
  $("timeline-tools").append(
    h("label", { class: "inline", for: "snap", title: "Edges and pictures come to lie on latent frames; hold Alt to move freely" }, snap, h("span", { text: "Snap to latent frames" })),
    button("Split the prompt here", { icon: "cut", quiet: true, id: "split", run: () => prompts.split(view.playhead) }),
    button("Undo", { icon: "undo", quiet: true, id: "undo", run: () => draft.undo() }),
    h("span", { class: "zoom" },
      button("Narrower", { quiet: true, run: () => zoom(1 / 1.5) }, "−"),
      button("Wider", { quiet: true, run: () => zoom(1.5) }, "+")));
}

function zoom(by) {
  view.zoom = Math.min(40, Math.max(1, view.zoom * by));
  document.querySelector("#timeline .stretch").style.setProperty("--zoom", view.zoom);
}

function scrub(event) {
  const to = (moved) => {
    view.playhead = snapped(frameUnder(moved), frames(), 1);
    showHead();
  };
  to(event);
  head.focus({ preventScroll: true });
  drag(event, to);
}

function headKeys(event) {
  if (event.key.toLowerCase() === "s") return prompts.split(view.playhead);
  const place = placeFromKey(event, view.playhead);
  if (place === null) return;
  event.preventDefault();
  view.playhead = place;
  showHead();
}

function showHead() {
  view.playhead = Math.min(view.playhead, frames() - 1);
  head.style.left = across(view.playhead + 0.5);
  head.setAttribute("aria-valuemax", frames() - 1);
  head.setAttribute("aria-valuenow", view.playhead);
  head.setAttribute("aria-valuetext", `frame ${view.playhead}, ${number(view.playhead / fps(), 2)} s`);
  head.dataset.frame = view.playhead;
}

export function show() {
  const count = frames();
  const most = Math.max(2, ruler.clientWidth / 52); // labels side by side
  const step = [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000].find((n) => count / n <= most) ?? 20000;
  ruler.replaceChildren(...Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step).map((frame) =>
    label(frame, `${frame}`, `${number(frame / fps(), 2)} s`)));
  $("timeline-length").textContent = `${count} frames, ${number(count / fps(), 2)} s`;
  const starts = count <= 4000 ? groups(...grid()) : [];
  ticks.setAttribute("viewBox", `0 0 ${count} 1`);
  ticks.replaceChildren(svg("path", { d: starts.map((start) => `M${start} 0V1`).join("") }));
  showHead();
  $("undo").disabled = !draft.canUndo;
  lanes.forEach((lane) => lane.show());
  inspector.replaceChildren(...(lanes.map((lane) => lane.inspect(view.chosen)).find(Boolean) ?? []));
}

function label(frame, above, below) {
  const mark = h("span", { class: "tick" }, h("b", { text: above }), h("i", { text: below }));
  mark.style.left = across(frame);
  return mark;
}

