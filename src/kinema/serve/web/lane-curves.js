// Curve lanes: numbers over frames, with a box for formulas and keys, the curve as the server reads it, and
// points to drag where it is a list of keys.

import { announce, button, debounced, h, svg } from "./dom.js";
import { api } from "./api.js";
import { draft, toSubmit } from "./draft.js";
import { fps, frames } from "./composer.js";
import { field, written } from "./field.js";
import { wayOn } from "./lane-prompts.js";
import { latest } from "./plan.js";
import { across, choose, drag, placeFromKey, placeUnder, view } from "./ruler.js";
import { at, numbersText, readNumbers, rewritten, withAt, writeKeys } from "./track.js";
import { number } from "./words.js";

/** `usual`: where nothing is written; `low`, `high`: what the lane shows at least; `step` of the arrow keys. */
const LANES = {
  guidance: { label: "Guidance", usual: 3, low: 0, high: 8, step: 0.1, min: 0 },
  "redraw.strength": { label: "Strength", usual: 0.5, low: 0, high: 1, step: 0.02, min: 0, max: 1, needs: { mode: "frame_by_frame" } },
  "camera.zoom": { label: "Zoom", usual: 1, low: 0.5, high: 2, step: 0.02, min: 0.001 },
  "camera.pan_x": { label: "Pan right", usual: 0, low: -0.5, high: 0.5, step: 0.01 },
  "camera.pan_y": { label: "Pan up", usual: 0, low: -0.5, high: 0.5, step: 0.01 },
  "camera.roll": { label: "Roll °", usual: 0, low: -30, high: 30, step: 1 },
  "camera.orbit_x": { label: "Orbit right °", usual: 0, low: -30, high: 30, step: 1 },
  "camera.orbit_y": { label: "Orbit up °", usual: 0, low: -30, high: 30, step: 1 },
  "camera.yaw": { label: "Look right °", usual: 0, low: -30, high: 30, step: 1 },
  "camera.pitch": { label: "Look up °", usual: 0, low: -30, high: 30, step: 1 },
  "camera.x": { label: "Move right", usual: 0, low: -0.5, high: 0.5, step: 0.01 },
  "camera.y": { label: "Move up", usual: 0, low: -0.5, high: 0.5, step: 0.01 },
  "camera.z": { label: "Move forward", usual: 0, low: -0.5, high: 0.5, step: 0.01 },
  "camera.follow": { label: "Follow", usual: 0.5, low: 0, high: 1, step: 0.02, min: 0, max: 1 },
};

let holder, adder;
const open = new Map(); // path -> the lane's elements
const opened = new Set(); // lanes that were added and say nothing yet

export function build() {
  adder = h("select", { "aria-label": "Add a lane", class: "chip", on: { change: () => {
    if (adder.value) addLane(adder.value);
    adder.value = "";
  } } });
  holder = h("div", { class: "curves" });
  return h("div", { class: "curve-lanes" }, holder, h("div", { class: "track" }, h("div", { class: "track-name" }, adder), h("div", { class: "area empty" })));
}

function addLane(path) {
  let request = draft.request;
  const { needs, usual } = LANES[path];
  const camera = request.camera;
  if (path.startsWith("camera.") && typeof camera === "string") request = { ...request, camera: latest.plan?.shot?.camera ?? {} };
  if (needs) request = { ...request, ...needs };
  const now = typeof at(request, path) === "number" ? at(request, path) : path === "guidance" ? draft.usual.guidance ?? usual : usual;
  opened.add(path);
  draft.change(withAt(request, path, writeKeys([{ frame: 0, value: now }, { frame: frames() - 1, value: now }])));
  choose("curve", { path, point: 0 });
  open.get(path)?.points.querySelector("button")?.focus();
}

function removeLane(path) {
  opened.delete(path);
  draft.change(withAt(draft.request, path, undefined));
  choose("prompt", 0);
  adder.focus();
}

function present() {
  return Object.keys(LANES).filter((path) => {
    const written = at(draft.request, path);
    return opened.has(path) || (written !== undefined && written !== null && (path !== "guidance" || typeof written !== "number"));
  });
}

export function show() {
  const wanted = present();
  for (const path of wanted) if (!open.has(path)) open.set(path, lane(path));
  for (const path of [...open.keys()]) if (!wanted.includes(path)) open.delete(path);
  const elements = wanted.map((path) => open.get(path).element);
  if (elements.length !== holder.children.length || elements.some((one, i) => one !== holder.children[i])) holder.replaceChildren(...elements);
  wanted.forEach((path) => fill(path, open.get(path)));
  adder.replaceChildren(h("option", { value: "", text: "+ Lane" }),
    ...Object.keys(LANES).filter((path) => !wanted.includes(path)).map((path) => h("option", { value: path, text: LANES[path].label })));
}

function lane(path) {
  const { label } = LANES[path];
  const box = h("input", { type: "text", class: "code", spellcheck: "false", autocomplete: "off", "aria-label": `${label}: numbers over frames`, placeholder: "3 + sin(t / 4)", on: {
    input: () => { opened.add(path); write(path, written(box), path); },
    keydown: (event) => { if (event.key === "Enter") box.blur(); },
  } });
  const curve = svg("path", { class: "curve" });
  const plot = svg("svg", { class: "plot", preserveAspectRatio: "none", "aria-hidden": "true" }, curve);
  const points = h("div", { class: "points" });
  const range = h("span", { class: "range muted" });
  const area = h("div", { class: "area plotted", on: { dblclick: (event) => addPoint(path, event) } }, plot, points, range);
  const element = h("div", { class: "track lane", data: { param: path } },
    h("div", { class: "track-name" }, h("span", { text: label }),
      button(`Remove ${label}`, { icon: "close", quiet: true, run: () => removeLane(path) })),
    h("div", { class: "stack" }, area, box));
  const made = { element, box, curve, plot, points, range, area, told: null, asked: "", buttons: [] };
  made.ask = debounced(180, () => askCurve(path, made));
  return made;
}

function write(path, value, mark) {
  draft.change(withAt(draft.request, path, rewritten(at(draft.request, path), value)), { mark });
}

function read(path) {
  return readNumbers(at(draft.request, path) ?? LANES[path].usual, frames(), fps(), draft.request.bpm ?? 120);
}

/** What the server is asked for a lane's curve; a seed that a number does not hold is left out. */
function question(path) {
  const { bpm, dialect } = draft.request;
  const seed = Number(toSubmit().seed);
  return {
    text: at(draft.request, path) ?? LANES[path].usual, frames: frames(), fps: fps(), dialect, bpm,
    ...(Number.isSafeInteger(seed) && seed >= 0 ? { seed } : {}),
  };
}

async function askCurve(path, made) {
  const now = question(path);
  const asked = JSON.stringify(now);
  if (made.asked === asked) return;
  made.asked = asked;
  let wrong = "";
  let values = null;
  try {
    ({ values } = await api.curve(now));
  } catch (error) {
    wrong = error.away ? "" : error.message;
  }
  if (made.asked !== asked) return; // it was changed meanwhile
  if (!values) made.asked = "";
  made.told = values ? { asked, values } : null;
  made.box.title = wrong;
  made.box.toggleAttribute("data-wrong", Boolean(wrong));
  fill(path, made, false);
}

function fill(path, made, ask = true) {
  const { low, high, min, max, label } = LANES[path];
  const told = read(path);
  const text = numbersText(at(draft.request, path));
  if (made.box !== document.activeElement && made.box.value !== text) made.box.value = text;
  const count = frames();
  const rough = told.kind === "keys" ? told.keys.map(({ value }) => value) : told.kind === "number" ? [told.value] : [];
  const exact = made.told?.asked === JSON.stringify(question(path)) ? made.told.values : null;
  const values = exact ?? local(told, count) ?? made.told?.values ?? [];
  const all = [low, high, ...rough, ...values];
  const [bottom, top] = [Math.min(...all), Math.max(...all)];
  made.scale = { bottom, top };
  const y = (value) => (top === bottom ? 50 : 94 - ((value - bottom) / (top - bottom)) * 88);
  made.plot.setAttribute("viewBox", `0 0 ${count} 100`);
  made.curve.setAttribute("d", line(values, y));
  made.range.textContent = `${number(bottom, 2)} … ${number(top, 2)}`;
  const keys = told.kind === "keys" ? told.keys : [];
  while (made.buttons.length < keys.length) made.buttons.push(point(path, made.buttons.length));
  made.buttons.length = keys.length;
  keys.forEach(({ frame, value }, index) => {
    const button_ = made.buttons[index];
    button_.style.left = across(frame + 0.5);
    button_.style.top = `${y(value)}%`;
    button_.classList.toggle("chosen", view.chosen.kind === "curve" && view.chosen.index.path === path && view.chosen.index.point === index);
    button_.setAttribute("aria-label", `${label}, point ${index + 1}`);
    button_.setAttribute("aria-valuemin", min ?? bottom);
    button_.setAttribute("aria-valuemax", max ?? top);
    button_.setAttribute("aria-valuenow", value);
    button_.setAttribute("aria-valuetext", `${number(value)} at frame ${frame}`);
  });
  if (made.points.children.length !== keys.length) made.points.replaceChildren(...made.buttons);
  if (ask && !exact) made.ask();
}

/** The straight way between the keys, until the server has told the true one. */
function local(told, count) {
  if (told.kind === "number") return Array(count).fill(told.value);
  if (told.kind !== "keys") return null;
  return Array.from({ length: count }, (_, frame) => {
    const after = told.keys.findIndex((key) => key.frame >= frame);
    if (after < 0) return told.keys.at(-1).value;
    if (after === 0) return told.keys[0].value;
    const [one, other] = [told.keys[after - 1], told.keys[after]];
    return one.value + ((other.value - one.value) * (frame - one.frame)) / (other.frame - one.frame);
  });
}

function line(values, y) {
  if (!values.length) return "";
  const middle = values.map((value, frame) => `${frame ? "L" : ""}${frame + 0.5} ${y(value).toFixed(2)}`);
  return `M0 ${y(values[0]).toFixed(2)}L${middle.join("")}L${values.length} ${y(values.at(-1)).toFixed(2)}`;
}

function clamped(path, value) {
  const { min = -Infinity, max = Infinity } = LANES[path];
  return Number(Math.min(max, Math.max(min, value)).toPrecision(4));
}

function put(path, keys, mark = "") {
  write(path, writeKeys(keys.toSorted((one, other) => one.frame - other.frame)), mark);
}

function point(path, index) {
  return h("button", { type: "button", class: "point", role: "slider", on: {
    focus: () => choose("curve", { path, point: index }),
    pointerdown: (event) => {
      event.currentTarget.focus({ preventScroll: true });
      drag(event, (moved) => movePoint(path, index, placeUnder(moved), valueUnder(path, moved)));
    },
    keydown: (event) => pointKey(event, path, index),
  } });
}

function valueUnder(path, event) {
  const { area, scale } = open.get(path);
  const box = area.getBoundingClientRect();
  const share = (94 - ((event.clientY - box.top) / box.height) * 100) / 88;
  return clamped(path, scale.bottom + Math.min(1, Math.max(0, share)) * (scale.top - scale.bottom));
}

/** Moves a point, between its neighbours. */
function movePoint(path, index, frame, value) {
  const { keys } = read(path);
  if (!keys?.[index]) return;
  const low = index ? keys[index - 1].frame + 1 : 0;
  const high = index + 1 < keys.length ? keys[index + 1].frame - 1 : frames() - 1;
  keys[index] = { ...keys[index], frame: Math.min(high, Math.max(low, frame)), value };
  put(path, keys, `${path} ${index}`);
}

function pointKey(event, path, index) {
  const { keys } = read(path);
  const { frame, value } = keys[index];
  if (event.key === "Delete" || event.key === "Backspace") return removePoint(path, index);
  const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
  const place = by ? null : placeFromKey(event, frame);
  if (!by && place === null) return;
  event.preventDefault();
  movePoint(path, index, place ?? frame, by ? clamped(path, value + by * LANES[path].step) : value);
}

function removePoint(path, index) {
  const { keys } = read(path);
  if (keys.length < 2) return removeLane(path);
  put(path, keys.toSpliced(index, 1));
  choose("curve", { path, point: Math.max(0, index - 1) });
  open.get(path)?.points.children[Math.max(0, index - 1)]?.focus();
}

/** A point where the lane was double-clicked; a number becomes two keys first, a formula stays one. */
function addPoint(path, event) {
  const told = read(path);
  if (told.kind === "formula") return announce("A formula has no points; write keys to drag them");
  const frame = placeUnder(event);
  const keys = told.kind === "keys" ? told.keys : [{ frame: 0, value: told.value }];
  put(path, [...keys.filter((key) => key.frame !== frame), { frame, value: valueUnder(path, event), ease: "" }]);
}

export function inspect({ kind, index }) {
  if (kind !== "curve" || !open.has(index.path)) return null;
  const { path, point: chosen } = index;
  const { keys } = read(path);
  if (!keys?.[chosen]) return [h("strong", { text: LANES[path].label }), h("p", { class: "muted", text: "A number or a formula over the frame t; keys such as 0:(3), -1:(5) give points to drag." })];
  const { frame, value, ease } = keys[chosen];
  const place = h("input", { type: "number", min: 0, max: frames() - 1, value: frame, on: { change: () => movePoint(path, chosen, Number(place.value), value) } });
  const amount = h("input", { type: "number", step: "any", value, on: { change: () => movePoint(path, chosen, frame, clamped(path, Number(amount.value))) } });
  return [
    h("strong", { text: `${LANES[path].label}, point ${chosen + 1}` }), field("Frame", place), field("Value", amount),
    chosen + 1 < keys.length && !at(draft.request, path).deforum ? wayOn(ease, (to) => put(path, keys.map((key, i) => (i === chosen ? { ...key, ease: to } : key)))) : null,
    button("Remove", { icon: "trash", class: "chip", run: () => removePoint(path, chosen) }),
  ].filter(Boolean);
}
