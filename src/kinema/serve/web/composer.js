// The form's first part: prompt, model, size, length, steps, seed and how many.

import { button, $, h, icon } from "./dom.js";
import { draft } from "./draft.js";
import { field, put, written } from "./field.js";
import { nearest } from "./length.js";
import { fpsNumber, readPrompt, stretched, writePrompt } from "./track.js";
import { number, trackText } from "./words.js";

let about = { models: [] };
let selected = 0; // the prompt block that the prompt box writes

const parts = {};

export function stride() {
  return draft.card?.stride?.time ?? 4;
}

/** Frames beside whole groups: the first one, which neither a loop has nor a clip that goes on. */
function rest() {
  return draft.request.loop || draft.request.extend ? 0 : 1;
}

/** How far apart lengths lie; where frames that are over are cut off, which a loop cannot do, there is any. */
function apart() {
  return draft.request.length_fit && !draft.request.loop ? 1 : stride();
}

function usualFrames() {
  const own = draft.usual.frames ?? 25;
  return rest() ? own : own - (own % stride());
}

export function frames() {
  const { request } = draft;
  if (request.frames) return request.frames;
  return request.seconds ? nearest(request.seconds * fps(), stride(), rest()) : usualFrames();
}

/** What says where things come to lie. */
export function grid() {
  return [frames(), stride(), rest()];
}

export function fps() {
  return fpsNumber(draft.effective("fps"));
}

/** The prompt as blocks, and which of them the prompt box writes. */
export function promptBlocks() {
  const read = readPrompt(draft.request.prompt, frames(), fps(), draft.request.bpm ?? 120);
  selected = Math.min(selected, (read?.blocks.length ?? 1) - 1);
  return { read, selected };
}

export function selectBlock(index) {
  selected = index;
  draft.keep({}, "select");
}

export function build(facts) {
  about = facts;
  $("prompt").addEventListener("input", writePromptBox);
  $("negative").addEventListener("input", () => draft.set("negative", $("negative").value));
  parts.clear = button("Clear", { class: "chip", run: () => draft.set("negative") });
  $("negative").after(parts.clear);
  buildModel();
  buildLength();
  buildCount();
  buildSeed();
  draft.addEventListener("change", show);
  show();
}

function writePromptBox() {
  const { read } = promptBlocks();
  if (!read) return;
  read.blocks[selected].text = $("prompt").value;
  draft.change({ ...draft.request, prompt: writePrompt(read, frames()) }, { mark: `prompt ${selected}` });
}

function buildModel() {
  parts.model = h("select", { on: { change: () => {
    draft.set("model", parts.model.value === usualModel() ? undefined : parts.model.value);
  } } });
  for (const { id } of about.models) parts.model.append(h("option", { value: id, title: id, text: id === "embedded" ? "Embedded" : id.split(/[\\/]/).at(-1) }));
  parts.size = h("select", { on: { change: chooseSize } });
  parts.width = h("input", { type: "number", min: 8, max: 16384, "aria-label": "Width in pixels", data: { param: "width" }, on: { change: writeSize } });
  parts.height = h("input", { type: "number", min: 8, max: 16384, "aria-label": "Height in pixels", data: { param: "height" }, on: { change: writeSize } });
  parts.own = h("div", { class: "beside own-size" }, parts.width, h("span", { class: "muted", text: "×" }), parts.height);
  const size = field("Size", parts.size, { param: "size", span: "half" });
  size.append(parts.own);
  $("basic").append(field("Model", parts.model, { param: "model", span: "half" }), size);
}

/** What a shot without a model is made with: the first that the server offers. */
function usualModel() {
  return about.models[0]?.id ?? "embedded";
}

function chooseSize() {
  const value = parts.size.value;
  draft.keep({ size: value === "own" ? "own" : "" });
  const { width, height, ...rest } = draft.request;
  if (value === "own") return draft.change({ ...rest, width: draft.effective("width"), height: draft.effective("height") });
  const [w, h_] = value.split("x").map(Number);
  draft.change(w === draft.usual.width && h_ === draft.usual.height ? rest : { ...rest, width: w, height: h_ });
}

function writeSize() {
  const multiple = draft.card?.multiple ?? 1;
  const fit = (input, usual) => Math.max(multiple, Math.round((Number(input.value) || usual) / multiple) * multiple);
  draft.change({ ...draft.request, width: fit(parts.width, 64), height: fit(parts.height, 64) }, { mark: "size" });
}

/** The model's own size; its portrait and its square too where the model takes other shapes. */
function sizes() {
  const { width = 64, height = 64 } = draft.usual;
  const { multiple = 16, any_aspect: any } = draft.card ?? {};
  const side = Math.round(Math.sqrt(width * height) / multiple) * multiple;
  return [...new Set([`${width}x${height}`, ...(any ? [`${height}x${width}`, `${side}x${side}`] : [])])];
}

function buildLength() {
  parts.frames = h("input", { type: "number", max: 100000, inputmode: "numeric", on: { change: () => setFrames(Number(parts.frames.value)) } });
  parts.seconds = h("input", { type: "number", min: 0, max: 3600, step: "any", inputmode: "decimal", on: { change: () => setFrames(Number(parts.seconds.value) * fps()) } });
  parts.fps = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", on: { change: () => draft.set("fps", written(parts.fps)) } });
  parts.steps = numberOf("steps", { min: 1, max: 1000, inputmode: "numeric" });
  parts.guidance = numberOf("guidance", { step: "any", min: 0, inputmode: "decimal" });
  $("basic").append(
    field("Seconds", parts.seconds, { param: "seconds" }),
    field("Frames", parts.frames, { param: "frames", hint: "1 and whole latent groups, in a loop groups alone; 1 makes a picture" }),
    field("Frames/second", parts.fps, { param: "fps" }),
    field("Steps", parts.steps, { param: "steps", hint: "more steps are slower and finer" }),
    field("Guidance", parts.guidance, { param: "guidance", hint: "how strongly the prompt acts; 1 is off" }));
}

function numberOf(name, props) {
  return h("input", { type: "number", ...props, on: { input: ({ target }) => draft.set(name, written(target)) } });
}

export function setFrames(wanted) {
  if (!(wanted > 0)) return show();
  const from = frames();
  const to = nearest(wanted, apart(), rest());
  const { seconds: _, frames: __, ...shot } = stretched(draft.request, from, to, fps(), numberPaths());
  draft.change(to === usualFrames() ? shot : { ...shot, frames: to }, { mark: "length" });
}

/** Where the shot may hold numbers over frames that the timeline shows. */
function numberPaths() {
  return ["guidance", "redraw.strength", ...Object.keys(draft.request.camera ?? {}).map((name) => `camera.${name}`)];
}

function buildSeed() {
  parts.seed = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", placeholder: "random", on: { input: () => {
    const value = parts.seed.value.replace(/\D/g, "").slice(0, 19);
    draft.keep({ seed: value, lockSeed: value !== "" }, "seed");
  } } });
  parts.dice = button("Draw a seed", { icon: "dice", quiet: true, run: drawSeed });
  parts.lock = button("Keep this seed", { icon: "unlock", quiet: true, "aria-pressed": "false", run: toggleLock });
  $("basic").append(field("Seed", parts.seed, { param: "seed", wide: true, beside: h("span", { class: "buttons" }, parts.dice, parts.lock) }));
}

function buildCount() {
  parts.count = h("input", { type: "number", min: 1, max: 16, on: { change: () => {
    draft.keep({ count: Math.min(16, Math.max(1, Math.round(Number(parts.count.value)) || 1)) });
  } } });
  $("basic").append(field("How many", parts.count, { param: "count", hint: "this many clips, each with a seed of its own" }));
}

function drawSeed() {
  const [drawn] = crypto.getRandomValues(new Uint32Array(1));
  draft.keep({ seed: String(drawn), lockSeed: true }, "dice");
}

function toggleLock() {
  if (draft.state.lockSeed) draft.keep({ lockSeed: false });
  else if (draft.state.seed === "") drawSeed();
  else draft.keep({ lockSeed: true });
}

export function show() {
  const { request, state } = draft;
  const model = request.model ?? usualModel();
  draft.card = about.models.find(({ id }) => id === model) ?? null;
  if (![...parts.model.options].some((option) => option.value === model)) parts.model.append(h("option", { value: model, text: model }));
  parts.model.value = model;
  const { read } = promptBlocks();
  $("prompt").disabled = !read;
  put($("prompt"), read ? read.blocks[selected].text : "several prompts, mixed by weight");
  $("prompt-part").textContent = read && read.blocks.length > 1
    ? `part ${selected + 1} of ${read.blocks.length}, frames ${read.blocks[selected].a} to ${read.blocks[selected].b}` : "";
  parts.clear.hidden = typeof (request.negative ?? "") !== "object";
  $("negative").disabled = !parts.clear.hidden;
  put($("negative"), trackText(request.negative));
  showSize(request, state);
  put(parts.frames, frames());
  parts.frames.step = apart();
  parts.frames.min = rest() || apart();
  put(parts.seconds, number(frames() / fps(), 2));
  put(parts.fps, draft.effective("fps"));
  put(parts.steps, request.steps);
  parts.steps.placeholder = draft.usual.steps ?? "";
  const varies = typeof request.guidance === "string" || typeof request.guidance === "object";
  put(parts.guidance, varies ? "" : request.guidance);
  parts.guidance.placeholder = varies ? "varies" : draft.usual.guidance ?? "";
  showSeed(state);
  put(parts.count, state.count);
}

function showSize(request, state) {
  const now = `${draft.effective("width") ?? 64}x${draft.effective("height") ?? 64}`;
  const known = sizes();
  parts.size.replaceChildren(...known.map((size) => h("option", { value: size, text: size.replace("x", " × ") })),
    h("option", { value: "own", text: "Another size" }));
  const own = state.size === "own" || !known.includes(now);
  parts.size.value = own ? "own" : now;
  parts.own.hidden = !own;
  put(parts.width, draft.effective("width"));
  put(parts.height, draft.effective("height"));
  parts.width.step = parts.height.step = draft.card?.multiple ?? 1;
}

function showSeed({ seed, lockSeed }) {
  put(parts.seed, seed);
  parts.seed.classList.toggle("loose", !lockSeed);
  const shape = lockSeed ? "Seed is kept; press for a new one each time" : "Keep this seed";
  parts.lock.title = shape;
  parts.lock.setAttribute("aria-label", shape);
  parts.lock.setAttribute("aria-pressed", String(lockSeed));
  parts.lock.replaceChildren(icon(lockSeed ? "lock" : "unlock"));
}

