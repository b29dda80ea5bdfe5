// The form's second part: every other setting of a shot, drawn from the shot's JSON schema.

import { button, $, h } from "./dom.js";
import { mediaUrl } from "./api.js";
import { draft } from "./draft.js";
import { control, field, filePicker, put, unwrapped, written } from "./field.js";
import { at, withAt } from "./track.js";

const BASIC = ["prompt", "negative", "model", "width", "height", "frames", "seconds", "fps", "steps", "seed", "guidance", "keyframes"];
const GROUPS = {
  "Clips to start from": ["source", "extend", "fit"],
  Camera: ["camera"],
  Sampling: ["solver", "grid", "shift", "guidance_low", "guidance_rescale", "guidance_interval", "guidance_method", "nag", "skip_layers", "blend", "loras", "speed"],
  "Length, rate and size": ["length_fit", "loop", "windows", "interpolate", "upscale"],
  "Frame by frame": ["mode", "redraw"],
  Sound: ["audio", "sound", "bpm"],
  Machine: ["device", "dtype"],
};
const MEDIA = {
  source: "video/*", extend: "video/*", path: "image/*,video/*", audio: "audio/*,video/*", image: "image/*", mask: "image/*,video/*",
};
const SHORT = { // settings that have a form in words beside their mapping
  camera: "zoom in 1.2, pan left", windows: "fuse, continue or whole", interpolate: "24 or 24:flow", upscale: "4, 1.5 or 4:nearest", transition: "cut, match, ...",
  nag: "11", skip_layers: "9 or 9,10:2.8",
};
const LISTS = { loras: "names, with commas in between" };

let schema = { properties: {}, $defs: {} };
const shown = []; // functions that put the draft's values into the controls

export function build(told, { loras = [] }) {
  schema = told;
  if (loras.length) LISTS.loras = loras.join(", ");
  const left = new Set(Object.keys(schema.properties).filter((name) => !BASIC.includes(name)));
  const groups = Object.entries(GROUPS).map(([title, names]) => [title, names.filter((name) => left.delete(name))]);
  groups.push(["More", [...left]]);
  for (const [title, names] of groups) {
    if (!names.length) continue;
    const mark = h("span", { class: "mark", "aria-label": "changed", hidden: true });
    const fields = h("div", { class: "fields" }, names.map((name) => one(name, schema.properties[name], name)));
    const group = h("details", { class: "group" }, h("summary", {}, h("span", { text: title }), mark), fields);
    group.open = Boolean(draft.state.folded[title]);
    group.addEventListener("toggle", () => draft.keep({ folded: { ...draft.state.folded, [title]: group.open } }, "fold"));
    shown.push(() => { mark.hidden = !names.some((name) => draft.request[name] !== undefined); });
    $("advanced").append(group);
  }
  draft.addEventListener("change", show);
  show();
}

function show() {
  shown.forEach((run) => run());
}

function reference(part) {
  const plain = unwrapped(part);
  return plain.$ref ? schema.$defs[plain.$ref.split("/").at(-1)] : null;
}

/** The control of one setting at `path`; mappings become a fieldset of their own settings. */
function one(name, part, path) {
  const title = part.title ?? name.replaceAll("_", " ");
  if (SHORT[path]) return words(title, part, path);
  if (LISTS[path]) return list(title, part, path);
  if (MEDIA[name] && (unwrapped(part).type === "string" || ["source", "extend"].includes(path))) return media(name, title, part, path);
  const inner = reference(part);
  if (inner?.properties) return mapping(title, part, inner, path);
  const made = control(part, (value) => write(path, value));
  shown.push(() => made.set(at(draft.request, path), path.includes(".") ? part.default ?? undefined : draft.usual[name] ?? part.default ?? undefined));
  const tick = unwrapped(part).type === "boolean";
  const box = field(title, made.element, { param: path, hint: part.description ?? "", wide: made.element.matches("textarea") });
  if (tick) box.classList.add("ticked");
  return box;
}

function write(path, value) {
  draft.change(withAt(draft.request, path, value), { mark: path, source: "advanced" });
}

function mapping(title, part, inner, path) {
  const fields = Object.entries(inner.properties).map(([name, own]) => one(name, own, `${path}.${name}`));
  return h("details", { class: "group inner wide" }, h("summary", { title: part.description ?? "" }, h("span", { text: title })),
    h("div", { class: "fields", data: { param: path } }, fields));
}

function words(title, part, path) {
  const input = h("input", { type: "text", placeholder: SHORT[path], spellcheck: "false", autocomplete: "off", on: { input: () => write(path, written(input)) } });
  const clear = button("Clear", { class: "chip", run: () => write(path, undefined) });
  shown.push(() => {
    const value = draft.request[path];
    const detailed = typeof value === "object" && value !== null;
    input.disabled = detailed;
    clear.hidden = !detailed;
    put(input, detailed ? "set in detail" : value);
  });
  return field(title, input, { param: path, hint: part.description ?? "", wide: true, beside: clear });
}

function list(title, part, path) {
  const input = h("input", { type: "text", placeholder: LISTS[path], spellcheck: "false", autocomplete: "off", on: { input: () => {
    const names = input.value.split(",").map((name) => name.trim()).filter(Boolean);
    write(path, names.length ? names : undefined);
  } } });
  shown.push(() => put(input, (draft.request[path] ?? []).map((item) => (typeof item === "string" ? item : item.path)).join(", ")));
  return field(title, input, { param: path, hint: part.description ?? "", wide: true });
}

/** A file that is uploaded; `source` and `extend` have settings beside it. */
function media(name, title, part, path) {
  const whole = ["source", "extend"].includes(path);
  const target = whole ? `${path}.path` : path;
  const picker = filePicker(title, MEDIA[path] ?? MEDIA[name], ({ ref }) => write(target, ref));
  const told = h("span", { class: "file", id: `file-${path.replace(/\W/g, "-")}` });
  const clear = button(`Remove ${title}`, { icon: "close", quiet: true, run: () => write(whole ? path : target, undefined) });
  const inner = whole ? reference(part) : null;
  const extras = Object.entries(inner?.properties ?? {}).filter(([own]) => own !== "path").map(([own, its]) => one(own, its, `${path}.${own}`));
  shown.push(() => {
    const value = whole ? draft.request[path]?.path ?? draft.request[path] : at(draft.request, path);
    const ref = typeof value === "string" ? value : "";
    told.textContent = ref ? (mediaUrl(ref) ? `uploaded, ${ref.slice(6, 14)}…` : ref) : "";
    clear.hidden = !ref;
    picker.open.lastChild.textContent = ref ? "Another file" : "Choose a file";
    extras.forEach((extra) => { extra.hidden = !ref; });
  });
  const open = picker.open;
  open.setAttribute("aria-label", `${title}: choose a file`);
  return h("div", { class: "field wide", title: part.description ?? "", data: { param: path } },
    h("span", { class: "label", text: title }), h("div", { class: "beside" }, open, told, clear, picker.input), extras);
}
