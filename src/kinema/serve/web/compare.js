// Two clips side by side, or one over the other, on one scrubber.

import { button, $, h, icon } from "./dom.js";
import { url } from "./api.js";
import { isStill, jobs } from "./jobs.js";
import { differences } from "./parameters.js";
import { fpsNumber } from "./track.js";
import { summary } from "./words.js";

let part;
let pair = [];
let frame = 0;
let timer = 0;

export function build() {
  const dialog = $("compare");
  part = {
    screens: h("div", { class: "screens" }), facts: h("table", { class: "differences" }),
    scrub: h("input", { type: "range", min: 0, step: 1, value: 0, "aria-label": "Frame of both clips", on: { input: () => { pause(); show(Number(part.scrub.value)); } } }),
    at: h("output", { class: "muted" }),
    play: button("Play both", { icon: "play", quiet: true, run: () => (timer ? pause() : play()) }),
    over: h("input", { type: "checkbox", class: "switch", id: "over", on: { change: () => part.screens.classList.toggle("difference", part.over.checked) } }),
  };
  dialog.append(
    h("header", {}, h("h2", { id: "compare-title", text: "Compare" }), button("Close", { icon: "close", quiet: true, run: () => dialog.close() })),
    part.screens, h("div", { class: "scrub" }, part.play, part.scrub, part.at, h("label", { class: "inline", for: "over" }, part.over, h("span", { text: "Show the difference" }))), part.facts);
  dialog.addEventListener("close", () => { pause(); part.screens.replaceChildren(); });
}

export function open(one, other) {
  pair = [one, other].map((id) => jobs.all.get(id)).filter(Boolean);
  if (pair.length < 2) return;
  part.screens.replaceChildren(...pair.map((job, i) => h("figure", {}, media(job), h("figcaption", { text: `${i ? "B" : "A"} · ${summary(job.request)}` }))));
  part.scrub.max = Math.max(...pair.map((job) => job.result.frames)) - 1;
  const rows = differences(...pair).map(([name, a, b]) => h("tr", {}, h("th", { scope: "row", text: name.replaceAll("_", " ") }), h("td", { text: a }), h("td", { text: b })));
  part.facts.replaceChildren(h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col", text: "A" }), h("th", { scope: "col", text: "B" }))), h("tbody", {}, rows.length ? rows : h("tr", {}, h("td", { colspan: 3, text: "Every setting is the same." }))));
  show(0);
  if (!$("compare").open) $("compare").showModal();
}

function media(job) {
  const element = isStill(job) ? h("img", { src: url(job.id, "video"), alt: summary(job.request) })
    : h("video", { src: url(job.id, "video"), muted: true, playsinline: true, preload: "auto", "aria-label": summary(job.request) });
  element.classList.add("picture");
  element.classList.toggle("pixels", job.result.width < 200);
  return element;
}

/** Both clips at the same frame; a shorter one stays at its last. */
function show(to) {
  frame = to;
  part.scrub.value = to;
  part.at.textContent = `frame ${to}`;
  part.screens.querySelectorAll("video").forEach((video, i) => {
    const { frames, fps } = (pair.filter((job) => job.result.frames > 1)[i] ?? pair[i]).result;
    video.currentTime = (Math.min(to, frames - 1) + 0.5) / fpsNumber(fps);
  });
}

function play() {
  const rate = Math.min(...pair.map((job) => fpsNumber(job.result.fps)));
  timer = setInterval(() => show((frame + 1) % (Number(part.scrub.max) + 1)), 1000 / rate);
  told();
}

function pause() {
  clearInterval(timer);
  timer = 0;
  told();
}

function told() {
  part.play.replaceChildren(icon(timer ? "pause" : "play"));
  part.play.setAttribute("aria-label", timer ? "Pause both" : "Play both");
}
