// The prompt lane: texts as blocks of frames, cross-fades in the gaps between them.

import { announce, button, $, h } from "./dom.js";
import { draft } from "./draft.js";
import { fps, frames, grid, promptBlocks, selectBlock, stride } from "./composer.js";
import { field } from "./field.js";
import { snapped } from "./length.js";
import { across, choose, drag, frameUnder, placeFromKey, placeUnder } from "./ruler.js";
import { writePrompt } from "./track.js";
import { number } from "./words.js";

const EASINGS = ["linear", "in_out", "in", "out", "smooth", "hold", "in_out_sine", "out_back", "out_bounce", "spring"];

const hue = (index) => `var(--hue-${index % 6})`;

let area;

export function build() {
  area = h("div", { class: "area prompts", on: { dblclick: (event) => split(placeUnder(event)) } });
  return h("div", { class: "track", data: { param: "prompt" } }, h("div", { class: "track-name", text: "Prompt" }), area);
}

function put(read, blocks, mark) {
  draft.change({ ...draft.request, prompt: writePrompt({ ...read, blocks }, frames()) }, { mark });
}

function pick(index) {
  selectBlock(index);
  choose("prompt", index);
}

/** Cuts the block at `frame` in two, with a short cross-fade in between. */
export function split(frame) {
  const { read } = promptBlocks();
  if (!read) return;
  const at = frame <= 0 ? snapped(frames() / 2, ...grid(), draft.state.snap) : frame;
  const index = read.blocks.findIndex(({ a, b }) => a < at && at <= b);
  if (index < 0) return announce("Nothing to split here");
  const old = read.blocks[index];
  const end = Math.max(old.a, at - (draft.state.snap && at - stride() > old.a ? stride() : 1));
  const blocks = [...read.blocks];
  blocks.splice(index, 1, { ...old, b: end }, { ...old, a: at, ease: "" });
  put(read, blocks, "");
  pick(index + 1);
  $("prompt").focus();
  $("prompt").select();
  announce(`Split: prompt ${index + 2} begins at frame ${at}`);
}

function remove(index) {
  const { read } = promptBlocks();
  if (read.blocks.length < 2) return;
  const blocks = read.blocks.toSpliced(index, 1);
  blocks[0] = { ...blocks[0], a: 0 };
  blocks[blocks.length - 1] = { ...blocks.at(-1), b: frames() - 1 };
  put(read, blocks, "");
  const before = Math.max(0, index - 1);
  pick(before);
  area.querySelectorAll(".block")[before]?.focus();
}

/** Moves an edge ("a" or "b") of a block, or with "both" the whole of it, as far as its neighbours let it. */
function move(index, edge, to, mark) {
  const { read } = promptBlocks();
  const blocks = read.blocks.map((block) => ({ ...block }));
  const block = blocks[index];
  const low = index ? blocks[index - 1].b + 1 : 0;
  const high = index + 1 < blocks.length ? blocks[index + 1].a - 1 : frames() - 1;
  if (edge === "both") {
    const by = Math.min(Math.max(to - block.a, low - block.a), high - block.b);
    Object.assign(block, { a: block.a + by, b: block.b + by });
  } else if (edge === "a") block.a = Math.min(Math.max(to, low), block.b);
  else block.b = Math.max(Math.min(to, high), block.a);
  if (JSON.stringify(blocks) !== JSON.stringify(read.blocks)) put(read, blocks, mark);
}

const built = [];

export function show() {
  const { read, selected } = promptBlocks();
  if (!read) return area.replaceChildren(h("p", { class: "muted", text: "These prompts are mixed by weight, or are more than the frames: edit them in a file" }));
  while (built.length < read.blocks.length) built.push(block(built.length));
  built.length = read.blocks.length;
  read.blocks.forEach((one, index) => fillBlock(built[index], one, index, read.blocks, selected));
  const wanted = built.flatMap(({ element, fade }) => [fade, element]);
  if (area.children.length !== wanted.length || wanted.some((node, i) => area.children[i] !== node)) area.replaceChildren(...wanted);
}

function block(index) {
  const edge = (side) => h("span", {
    class: `edge ${side}`, role: "slider", tabindex: 0,
    "aria-label": `${side === "a" ? "Beginning" : "End"} of prompt ${index + 1}`,
    on: {
      pointerdown: (event) => { event.stopPropagation(); drag(event, (moved) => move(index, side, edgePlace(moved, side), `edge ${index}${side}`)); },
      keydown: (event) => edgeKey(event, index, side),
    },
  });
  const text = h("span", { class: "words" });
  const choosing = h("button", { type: "button", class: "block-face", on: {
    click: () => pick(index),
    pointerdown: (event) => body(event, index),
    keydown: (event) => bodyKey(event, index),
  } }, text);
  const edges = { a: edge("a"), b: edge("b") };
  const element = h("div", { class: "block" }, choosing, edges.a, edges.b);
  element.style.setProperty("--hue", hue(index));
  return { element, choosing, text, edges, fade: h("div", { class: "fade" }) };
}

/** An end lies on the last frame of a latent group: one before the next group's first. */
function edgePlace(event, side) {
  if (side === "a") return placeUnder(event);
  const to = frameUnder(event);
  if (to > frames() - 1.5) return frames() - 1;
  return placeUnder(event, 1) - 1;
}

function edgeKey(event, index, side) {
  const { read } = promptBlocks();
  const now = read.blocks[index][side];
  const shift = side === "b" && now < frames() - 1 ? 1 : 0;
  const place = placeFromKey(event, now + shift);
  if (place === null) return;
  event.preventDefault();
  event.stopPropagation();
  move(index, side, place === frames() - 1 && side === "b" ? place : place - shift, `edge ${index}${side}`);
}

function body(event, index) {
  const start = promptBlocks().read.blocks[index].a;
  const offset = start - frameUnder(event);
  const x = event.clientX;
  let moving = false;
  const target = event.currentTarget;
  drag(event, (moved) => {
    moving ||= Math.abs(moved.clientX - x) > 4;
    if (moving) move(index, "both", placeUnder(moved, offset), `block ${index}`);
  }, () => target.focus());
}

function bodyKey(event, index) {
  if (event.key === "Delete" || event.key === "Backspace") return remove(index);
  if (event.key === "Enter") {
    event.preventDefault();
    pick(index);
    return $("prompt").focus();
  }
  const place = placeFromKey(event, promptBlocks().read.blocks[index].a);
  if (place === null) return;
  event.preventDefault();
  move(index, "both", place, `block ${index}`);
}

function fillBlock({ element, choosing, text, edges, fade }, { a, b, text: words }, index, blocks, selected) {
  element.style.left = across(a);
  element.style.width = across(b - a + 1);
  element.classList.toggle("chosen", index === selected && blocks.length > 1);
  text.textContent = words || "no words yet";
  choosing.setAttribute("aria-label", `Prompt ${index + 1}, frames ${a} to ${b}: ${words || "empty"}`);
  choosing.setAttribute("aria-pressed", String(index === selected));
  for (const [side, frame] of [["a", a], ["b", b]]) {
    const slider = edges[side];
    slider.hidden = side === "a" ? index === 0 : index === blocks.length - 1;
    slider.setAttribute("aria-valuemin", 0);
    slider.setAttribute("aria-valuemax", frames() - 1);
    slider.setAttribute("aria-valuenow", frame);
    slider.setAttribute("aria-valuetext", `frame ${frame}, ${number(frame / fps(), 2)} s`);
  }
  const before = blocks[index - 1];
  fade.hidden = !before || a - before.b < 2;
  if (fade.hidden) return;
  fade.style.background = `linear-gradient(to right, ${hue(index - 1)}, ${hue(index)})`;
  fade.style.left = across(before.b + 1);
  fade.style.width = across(a - before.b - 1);
  fade.title = `Cross-fade over ${a - before.b} frames${before.ease ? `, ${before.ease}` : ""}`;
}

/** The choice of the way from a prompt or a point to the next. */
export function wayOn(ease, tell) {
  const way = h("select", { on: { change: () => tell(way.value) } }, EASINGS.map((name) => h("option", { value: name, text: name.replaceAll("_", " ") })));
  way.value = ease || "linear";
  return field("Way to the next", way);
}

export function inspect({ kind, index }) {
  if (kind !== "prompt") return null;
  const { read } = promptBlocks();
  if (!read || read.blocks.length < 2 || !read.blocks[index]) {
    return [h("p", { class: "muted", text: "One prompt for the whole clip. Double-click it, or press S on the playhead, to split it." })];
  }
  const { a, b, ease } = read.blocks[index];
  const edit = (side, value) => h("input", { type: "number", min: 0, max: frames() - 1, value, on: {
    change: (event) => move(index, side, Number(event.target.value), ""),
  } });
  return [
    h("strong", { text: `Prompt ${index + 1}` }), field("First frame", edit("a", a)), field("Last frame", edit("b", b)),
    index + 1 < read.blocks.length ? wayOn(ease, (to) => put(read, read.blocks.map((one, i) => (i === index ? { ...one, ease: to } : one)), "")) : null,
    button("Remove", { icon: "trash", class: "chip", run: () => remove(index) }),
  ].filter(Boolean);
}
