// The queue: what runs and what waits, as cards that can be cancelled, reordered, edited, cloned and retried.

import { addressed, announce, button, $, h, settle, toast } from "./dom.js";
import { api, mediaUrl } from "./api.js";
import { jobs } from "./jobs.js";
import { progressText, STATES, summary, trackText } from "./words.js";

const cards = new Map();
let edit = () => {};
let dragged = null;

/** `onEdit(job)` takes a job's shot into the form. */
export function build({ onEdit }) {
  edit = onEdit;
  jobs.addEventListener("change", show);
  show();
}

function show() {
  const [list, order] = [[...jobs.active, ...jobs.failed], queued()];
  for (const id of [...cards.keys()]) if (!list.some((job) => job.id === id)) cards.delete(id);
  for (const job of list) {
    if (!cards.has(job.id)) cards.set(job.id, card(job.id));
    fill(cards.get(job.id), job, order.indexOf(job));
  }
  settle($("queue-list"), list.map((job) => cards.get(job.id).element));
  const waiting = jobs.active.length;
  $("queue-empty").hidden = list.length > 0;
  $("queue-count").textContent = waiting ? String(waiting) : "";
  $("tab-count").textContent = waiting ? String(waiting) : "";
  const running = jobs.active.find((job) => job.state === "running");
  document.title = running ? `${Math.round((running.progress?.fraction ?? 0) * 100)} % · Kinema Studio` : "Kinema Studio";
}

function card(id) {
  const part = {
    image: h("img", { alt: "", on: { error: ({ target }) => target.removeAttribute("src") } }), title: h("p", { class: "title" }), state: h("p", { class: "muted state" }),
    bar: h("progress", { max: 1, value: 0, "aria-label": "Progress" }), why: h("p", { class: "why" }), tools: h("div", { class: "buttons" }), shown: "",
  };
  part.element = h("li", { class: "card", tabindex: 0, data: { id }, on: {
    keydown: (event) => key(event, id), dragstart: (event) => begin(event, id), dragover: (event) => over(event, id), drop: (event) => dropped(event, id),
    dragend: () => { dragged = null; part.element.classList.remove("dragged"); },
  } }, h("div", { class: "thumb" }, part.image), h("div", { class: "card-body" }, part.title, part.state, part.bar, part.why, part.tools));
  return part;
}

function fill(part, job, place) {
  const { state, progress } = job;
  const active = state === "running" || state === "cancelling";
  part.element.className = `card ${state}`;
  part.element.draggable = state === "queued";
  part.title.textContent = job.title || summary(job.request);
  part.title.title = trackText(job.request?.prompt);
  part.state.textContent = state === "running" ? progressText(progress) : state === "failed" ? `failed${job.attempt > 1 ? `, ${job.attempt} attempts` : ""}`
    : state !== "queued" ? STATES[state] : place ? `waiting, number ${place + 1}` : "next";
  part.bar.hidden = !active;
  part.bar.value = progress?.fraction ?? 0;
  part.why.hidden = !job.error;
  part.why.textContent = job.error ? job.error.message : "";
  picture(part.image, job);
  if (part.shown === state) return;
  part.shown = state;
  const focused = part.tools.contains(document.activeElement);
  part.tools.replaceChildren(...tools(job));
  if (focused) part.element.focus();
}

/** The preview where it runs, else the picture that it starts from, else nothing. */
function picture(image, job) {
  const preview = jobs.previews.get(job.id);
  const [first] = [job.request?.keyframes ?? []].flat();
  addressed(image, preview ? previewUrl(preview) : mediaUrl(typeof first === "string" ? first.split("@")[0] : first?.image));
}

/** Each step has its own address, so that the picture is asked for anew. */
export function previewUrl({ url: where, step }) {
  const plain = where.replace(/^\//, "");
  return plain.includes("?") ? plain : `${plain}?step=${step}`;
}

function tools({ id, state, request }) {
  const act = (label, shape, run) => button(label, { icon: shape, quiet: true, run: () => attempt(run) });
  if (state === "running") {
    return [
      button("Stop and keep", { class: "chip", title: "Stops at the next step and keeps what is decoded", run: () => attempt(() => api.cancel(id, true)) }),
      button("Cancel", { class: "chip", run: () => attempt(() => api.cancel(id, false)) }),
    ];
  }
  if (state === "cancelling") return [button("Remove", { icon: "trash", quiet: true, run: () => attempt(() => removed(id)) })];
  if (state === "queued") {
    return [
      act("Earlier", "up", () => shift(id, -1)), act("Later", "down", () => shift(id, 1)),
      act("Edit", "edit", () => edit(jobs.all.get(id))), act("One more of this", "copy", () => api.clone(id)), act("Cancel", "close", () => removed(id)),
    ];
  }
  return [
    button("Try again", { icon: "retry", class: "chip", run: () => attempt(() => api.retry(id)) }),
    button("Open in the form", { icon: "edit", class: "chip", run: () => edit({ ...jobs.all.get(id), state: "failed", request }) }),
    act("Remove", "trash", () => removed(id)),
  ];
}

/** Does it and takes over what the server answers; what goes wrong is said. */
export async function attempt(run) {
  try {
    const answer = await run();
    [answer?.jobs ?? answer?.job ?? answer].flat().forEach((job) => { if (job?.id && job.state) jobs.take(job); });
    return answer;
  } catch (error) {
    toast(error.message, { kind: "error" });
    return null;
  }
}

async function removed(id) {
  await api.remove(id);
  jobs.drop(id);
  announce("Removed");
}

function queued() {
  return jobs.active.filter((job) => job.state === "queued");
}

/** One place earlier (-1) or later (1). */
async function shift(id, by) {
  const list = queued();
  const from = list.findIndex((job) => job.id === id);
  const to = from + by;
  if (from < 0 || to < 0 || to >= list.length) return null;
  const answer = await place(id, by < 0 ? list[to].id : list[to + 1]?.id ?? null);
  announce(`Now number ${to + 1} of ${list.length}`);
  return answer;
}

function place(id, before) {
  return api.patch(id, { before });
}

function key(event, id) {
  if (event.target !== event.currentTarget) return;
  const by = event.altKey ? { ArrowUp: -1, ArrowDown: 1 }[event.key] : 0;
  if (by) {
    event.preventDefault();
    attempt(() => shift(id, by));
  } else if (event.key === "Delete") attempt(() => removed(id));
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    (event.key === "ArrowDown" ? event.currentTarget.nextElementSibling : event.currentTarget.previousElementSibling)?.focus();
  }
}

function begin(event, id) {
  dragged = id;
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", id);
  event.currentTarget.classList.add("dragged");
}

function over(event, id) {
  if (dragged && dragged !== id && jobs.all.get(id)?.state === "queued") event.preventDefault();
}

function dropped(event, id) {
  if (!dragged) return;
  event.preventDefault();
  event.stopPropagation();
  const list = queued();
  const [from, to] = [dragged, id].map((one) => list.findIndex((job) => job.id === one));
  const before = from < to ? list[to + 1]?.id ?? null : id;
  const moved = dragged;
  attempt(() => place(moved, before));
}

