// A clip or a picture that is dropped on the page, or pasted, brings its settings back.

import { announce, $, h, toast } from "./dom.js";
import { api } from "./api.js";
import { adopt, draft } from "./draft.js";
import { upload } from "./field.js";
import { add } from "./lane-pictures.js";
import { view } from "./ruler.js";

const SOURCES = { kinema: "kinema", a1111: "the A1111 web UI", comfyui: "ComfyUI" };
let depth = 0;

export function build() {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth++; shade(true); } });
  addEventListener("dragleave", (event) => { if (hasFiles(event) && --depth <= 0) shade(false); });
  addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    shade(false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
  addEventListener("kinema:dropped", () => shade(false));
  addEventListener("kinema:clip", ({ detail }) => start(detail));
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  const input = $("restore-file");
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  $("restore").addEventListener("click", () => input.click());
}

function shade(on) {
  if (!on) depth = 0;
  document.body.classList.toggle("dropping", on);
}

async function take([file]) {
  if (!file) return;
  const away = toast(`Reading ${file.name || "the picture"}…`, { seconds: 60 });
  try {
    const { request, source, notes } = await api.restore(file);
    away();
    adopt(request);
    dispatchEvent(new CustomEvent("kinema:view", { detail: "make" }));
    const story = request.shots ? [`It is a storyboard of ${request.shots.length} shots: it is made as it is, the form holds for all of them.`] : [];
    told(file.name, source, [...story, ...(notes ?? [])]);
  } catch (error) {
    away();
    if (error.away || error.status === 401 || error.status === 413) toast(error.message, { kind: "error" });
    else offer(file, error);
  }
}

function told(name, source, notes) {
  const from = source && source !== "kinema" ? `, written by ${SOURCES[source] ?? source}` : "";
  $("notes").replaceChildren(
    h("p", {}, h("strong", { text: `The settings of ${name || "the picture"} are in the form${from}.` })),
    ...(notes.length ? [h("ul", {}, notes.map((note) => h("li", { text: String(note) })))] : []));
  $("notes").hidden = false;
  announce(`Settings restored${notes.length ? `, with ${notes.length} notes` : ""}`);
  setTimeout(() => { if (!notes.length) $("notes").hidden = true; }, 8000);
}

/** A file without settings may still be something to start from. */
function offer(file, error) {
  const picture = /^image\//.test(file.type) || /\.(png|jpe?g|webp|avif|gif)$/i.test(file.name);
  const clip = /^video\//.test(file.type) || /\.(mp4|webm|mov|mkv)$/i.test(file.name);
  if (picture) {
    toast(`${error.message} Hold it as a picture instead?`, { action: "Use as picture", seconds: 15, run: () => upload(file, ({ ref }) => add(ref, view.playhead)) });
  } else if (clip) {
    toast(`${error.message} Start from the clip instead?`, { action: "Use as source", seconds: 15, run: () => upload(file, ({ ref }) => start(ref)) });
  } else toast(error.message, { kind: "error" });
}

function start(ref) {
  const { extend: _, ...rest } = draft.request;
  draft.change({ ...rest, source: { path: ref } });
  toast("The clip is painted over: see Clips to start from.");
}
