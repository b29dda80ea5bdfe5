// The picture lane: keyframes, pictures that the clip shows at a frame, each with how firmly it is held.

import { addressed, announce, button, h, settle } from "./dom.js";
import { mediaUrl } from "./api.js";
import { draft } from "./draft.js";
import { fps, frames } from "./composer.js";
import { field, filePicker, upload } from "./field.js";
import { across, choose, drag, placeFromKey, placeUnder, view } from "./ruler.js";
import { frameOf, placeOf } from "./track.js";
import { number } from "./words.js";

let area;
const built = [];
const empty = h("p", { class: "muted hint", text: "Drop pictures here to hold them at a frame" });

export function build() {
  const picker = filePicker("Add a picture", "image/*", ({ ref }) => add(ref, view.playhead));
  picker.open.classList.replace("chip", "ghost");
  picker.open.title = "Add a picture at the playhead";
  picker.open.setAttribute("aria-label", picker.open.title);
  picker.open.lastChild.textContent = "Add";
  area = h("div", { class: "area pictures", on: { dragover, drop, dragleave: () => area.classList.remove("over") } });
  return h("div", { class: "track", data: { param: "keyframes" } },
    h("div", { class: "track-name" }, h("span", { text: "Pictures" }), picker.open, picker.input), area);
}

export function keyframes() {
  const list = draft.request.keyframes ?? [];
  return (Array.isArray(list) ? list : [list]).map((one) => {
    if (typeof one !== "string") return { strength: 1, frame: 0, ...one };
    const [, image, place, strength] = /^(.+?)(?:@([^@:]+)(?::([\d.]+))?)?$/.exec(one);
    return { image, frame: place ?? 0, strength: Number(strength ?? 1) };
  });
}

function frameAt({ frame }) {
  return Math.min(frames() - 1, Math.max(0, frameOf(frame ?? 0, frames(), fps(), draft.request.bpm ?? 120) ?? 0));
}

function put(list, mark = "") {
  draft.change({ ...draft.request, keyframes: list }, { mark });
  if (!list.length) draft.set("keyframes", undefined, { mark });
}

/** Holds a picture at a frame, in place of one that is there. */
export function add(ref, frame, strength = 1) {
  const at = Math.min(frame, frames() - 1);
  const rest = keyframes().filter((one) => frameAt(one) !== at);
  put([...rest, { image: ref, frame: placeOf(at, frames()), strength }]);
  choose("picture", rest.length);
  announce(`Picture at frame ${at}`);
}

function dragover(event) {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  event.stopPropagation();
  area.classList.add("over");
}

function drop(event) {
  event.preventDefault();
  event.stopPropagation();
  area.classList.remove("over");
  dispatchEvent(new CustomEvent("kinema:dropped"));
  const [file] = event.dataTransfer.files;
  const frame = placeUnder(event);
  if (file) upload(file, ({ ref, kind }) => (kind === "video" ? dispatchEvent(new CustomEvent("kinema:clip", { detail: ref })) : add(ref, frame)));
}

function moveTo(index, frame) {
  const list = keyframes();
  if (frameAt(list[index]) === frame || list.some((one, i) => i !== index && frameAt(one) === frame)) return;
  list[index] = { ...list[index], frame: placeOf(frame, frames()) };
  put(list, `picture ${index}`);
}

function setStrength(index, strength) {
  const list = keyframes();
  list[index] = { ...list[index], strength: Math.min(1, Math.max(0, Math.round(strength * 100) / 100)) };
  put(list, `strength ${index}`);
}

function remove(index) {
  put(keyframes().toSpliced(index, 1));
  choose("prompt", 0);
  area.querySelector(".picture")?.focus();
}

export function show() {
  const list = keyframes();
  while (built.length < list.length) built.push(picture(built.length));
  built.length = list.length;
  list.forEach((one, index) => fill(built[index], one, index));
  settle(area, list.length ? built : [empty]);
}

function picture(index) {
  return h("button", {
    type: "button", class: "picture", role: "slider", "aria-valuemin": 0, on: {
      focus: () => { if (view.chosen.kind !== "picture" || view.chosen.index !== index) choose("picture", index); },
      pointerdown: (event) => {
        const target = event.currentTarget;
        target.focus({ preventScroll: true });
        drag(event, (moved) => moveTo(index, placeUnder(moved)));
      },
      keydown: (event) => key(event, index),
    },
  }, h("img", { alt: "", draggable: "false" }), h("span", { class: "at" }));
}

function key(event, index) {
  const one = keyframes()[index];
  if (event.key === "Delete" || event.key === "Backspace") return remove(index);
  const by = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
  const place = by ? null : placeFromKey(event, frameAt(one));
  if (!by && place === null) return;
  event.preventDefault();
  if (by) setStrength(index, one.strength + by);
  else moveTo(index, place);
}

function fill(element, one, index) {
  const frame = frameAt(one);
  const [image, at] = element.children;
  addressed(image, mediaUrl(one.image));
  element.style.left = across(frame + 0.5);
  element.style.setProperty("--held", one.strength);
  element.classList.toggle("chosen", view.chosen.kind === "picture" && view.chosen.index === index);
  at.textContent = one.strength < 1 ? `${frame} · ${Math.round(one.strength * 100)}%` : `${frame}`;
  element.setAttribute("aria-label", `Picture ${index + 1}`);
  element.setAttribute("aria-valuemax", frames() - 1);
  element.setAttribute("aria-valuenow", frame);
  element.setAttribute("aria-valuetext", `frame ${frame}, strength ${one.strength}`);
}

export function inspect({ kind, index }) {
  const one = keyframes()[index];
  if (kind !== "picture" || !one) return null;
  const place = h("input", { type: "number", min: 0, max: frames() - 1, value: frameAt(one), on: { change: () => moveTo(index, Number(place.value)) } });
  const strength = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: one.strength, on: { change: () => setStrength(index, Number(strength.value)) } });
  return [
    h("strong", { text: `Picture ${index + 1}` }), field("Frame", place, { param: `keyframes[${index}].frame` }),
    field(`Strength ${number(one.strength, 2)}`, strength, { param: `keyframes[${index}].strength`, hint: "1 holds it exactly; less leaves it freedom" }),
    button("Remove", { icon: "trash", class: "chip", run: () => remove(index) }),
  ];
}
