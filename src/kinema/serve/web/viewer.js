// One clip, large: frame by frame, with every parameter, and what can be done with it.

import { announce, button, $, h, icon, still, toast } from "./dom.js";
import { api, url } from "./api.js";
import { adopt, draft, goingOn, seedOf, withoutSeeds } from "./draft.js";
import { add as addPicture } from "./lane-pictures.js";
import { listed, remove } from "./gallery.js";
import { isStill, jobs } from "./jobs.js";
import { attempt } from "./queue.js";
import { frames } from "./composer.js";
import { parameters } from "./parameters.js";
import { fpsNumber } from "./track.js";
import { number, summary } from "./words.js";

let id = null;
let part;

export function build() {
  const dialog = $("viewer");
  part = {
    title: h("h2", { id: "viewer-title" }), facts: h("div", { class: "facts" }), screen: h("div", { class: "screen" }),
    scrub: h("input", { type: "range", min: 0, step: 1, value: 0, "aria-label": "Frame", on: { input: () => seek(Number(part.scrub.value)) } }),
    at: h("output", { class: "muted" }), play: button("Play", { quiet: true, run: toggle }), row: null, tools: h("div", { class: "buttons actions" }),
  };
  part.row = h("div", { class: "scrub" }, part.play, part.scrub, part.at);
  dialog.append(
    h("header", {}, part.title, h("div", { class: "buttons" }, button("Newer", { icon: "left", quiet: true, run: () => turn(-1) }), button("Older", { icon: "right", quiet: true, run: () => turn(1) }), button("Close", { icon: "close", quiet: true, run: () => dialog.close() }))),
    h("div", { class: "viewer-body" }, h("div", { class: "show" }, part.screen, part.row, part.tools), part.facts));
  dialog.addEventListener("close", () => { part.screen.replaceChildren(); id = null; });
  dialog.addEventListener("keydown", keys);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

export function open(which) {
  const job = jobs.all.get(which);
  if (!job?.result) return;
  id = which;
  part.title.textContent = job.title || summary(job.request);
  showMedia(job);
  part.tools.replaceChildren(...actions(job));
  part.facts.replaceChildren(parameters(job));
  if (!$("viewer").open) $("viewer").showModal();
}

function showMedia(job) {
  const picture = isStill(job);
  const media = picture ? h("img", { class: "picture", alt: summary(job.request), src: url(id, "video") })
    : h("video", { class: "picture", src: url(id, "video"), poster: url(id, "thumbnail"), muted: true, loop: true, playsinline: true, autoplay: !still.matches, "aria-label": summary(job.request) });
  media.classList.toggle("pixels", job.result.width < 200);
  part.screen.replaceChildren(media);
  part.video = picture ? null : media;
  part.row.hidden = picture;
  part.scrub.max = job.result.frames - 1;
  if (picture) return;
  const follow = () => {
    if (part.video !== media || !media.isConnected) return;
    if (!media.paused) tell(frameNow(media, job.result));
    requestAnimationFrame(follow);
  };
  media.addEventListener("click", toggle);
  media.onplay = media.onpause = () => {
    part.play.replaceChildren(icon(media.paused ? "play" : "pause"));
    part.play.setAttribute("aria-label", media.paused ? "Play" : "Pause");
  };
  media.onpause();
  tell(0);
  requestAnimationFrame(follow);
}

export function frameNow(media, { frames: count, fps }) {
  return Math.min(count - 1, Math.max(0, Math.floor(media.currentTime * fpsNumber(fps) + 1e-3)));
}

function tell(frame) {
  part.scrub.value = frame;
  part.at.textContent = `frame ${frame} of ${Number(part.scrub.max) + 1}`;
}

function seek(frame) {
  const { result } = jobs.all.get(id);
  part.video.pause();
  part.video.currentTime = (frame + 0.5) / fpsNumber(result.fps);
  tell(frame);
}

function toggle() {
  if (!part.video) return;
  if (part.video.paused) part.video.play().catch(() => {});
  else {
    part.video.pause();
    seek(Number(part.scrub.value));
  }
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select") && event.target !== part.scrub) return;
  if (event.key === "ArrowLeft" && event.target !== part.scrub) turn(-1);
  else if (event.key === "ArrowRight" && event.target !== part.scrub) turn(1);
  else if (event.key === " " && !event.target.matches("button")) {
    event.preventDefault();
    toggle();
  } else if (event.key === "f") favourite();
  else if (event.key === "Delete") discard();
}

function turn(by) {
  const list = listed();
  const to = list[list.findIndex((job) => job.id === id) + by];
  if (to) open(to.id);
}

function favourite() {
  return attempt(() => api.patch(id, { favourite: !jobs.all.get(id).favourite })).then(() => open(id));
}

function discard() {
  remove(id);
  $("viewer").close();
}

function actions(job) {
  const act = (label, shape, run, props = {}) => button(label, { icon: shape, class: "chip", run, ...props });
  const picture = isStill(job);
  return [
    act("Reuse all", "undo", () => take(job.request, job.result.seed, "All settings are in the form.")),
    act("Reuse seed", "dice", () => { draft.keep({ seed: String(job.result.seed ?? seedOf(job.request)), lockSeed: true }); leave("The seed is in the form."); }),
    picture ? null : act("Extend from the end", "right", () => extend(job)),
    act(picture ? "Use as first frame" : "Frame as start", "image", () => useFrame(job, 0)),
    act(picture ? "Use as last frame" : "Frame as end", "image", () => useFrame(job, frames() - 1)),
    act("One more", "plus", () => more(job)),
    act("Favourite", "star", favourite, { "aria-pressed": String(Boolean(job.favourite)) }),
    h("a", { class: "chip", href: url(job.id, "video"), download: "" }, icon("save"), h("span", { text: "Download" })),
    ...[["cli", "CLI"], ["python", "Python"], ["yaml", "YAML"]].map(([as, label]) => act(`Copy ${label}`, "copy", () => copy(job.id, as, label))),
    act("Delete", "trash", discard),
  ].filter(Boolean);
}

function leave(text) {
  $("viewer").close();
  dispatchEvent(new CustomEvent("kinema:view", { detail: "make" }));
  announce(text);
  toast(text);
  $("prompt").focus({ preventScroll: true });
}

function take(request, seed, text) {
  adopt(request, { seed });
  leave(text);
}

/** The same again with another seed. */
async function more(job) {
  const answer = await attempt(() => api.submit({ request: withoutSeeds(job.request), kind: job.kind }));
  if (answer) toast("One more is in the queue.");
}

async function extend(job) {
  await attempt(async () => {
    const ref = await api.asMedia(job.id, "video");
    const { width, height, fps } = job.result; // a storyboard's canvas may be another than its shots'
    adopt({ ...goingOn(job.request, fps), width, height, extend: { path: ref } });
    leave("The clip goes on from its end: change the words, and press Make.");
  });
}

async function useFrame(job, at) {
  const frame = part.video ? Number(part.scrub.value) : 0;
  await attempt(async () => {
    const ref = await api.asMedia(job.id, isStill(job) ? "video" : `frames/${frame}.png`);
    addPicture(ref, at);
    leave(`Frame ${number(frame)} is held at the ${at ? "end" : "beginning"}.`);
  });
}

async function copy(which, as, label) {
  try {
    const text = await api.text(which, as);
    await toClipboard(text);
    toast(`${label} copied.`);
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** The clipboard, and where a page may not reach it, a selected text to copy by hand. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = h("textarea", { class: "code", value: text, readonly: true, "aria-label": "Text to copy", rows: 6 });
    part.facts.prepend(box);
    box.select();
    throw new Error("The browser keeps the clipboard closed here; the text is selected in the panel.");
  }
}
