// The history: every clip that can be played, filtered by words and favourites; it plays while one looks at it.

import { button, $, h, settle, still, toast } from "./dom.js";
import { api, url } from "./api.js";
import { isStill, jobs } from "./jobs.js";
import { attempt } from "./queue.js";
import { ago, plural, summary, trackText } from "./words.js";

const tiles = new Map();
const picked = []; // at most two, to compare
const leaving = new Set(); // deleted here, not yet on the server: there is a moment to undo
let looking = false;
let open = () => {};
let compare = () => {};

export function build({ onOpen, onCompare }) {
  open = onOpen;
  compare = onCompare;
  $("filter").addEventListener("input", show);
  $("only-favourites").addEventListener("change", show);
  jobs.addEventListener("change", show);
  new IntersectionObserver(further).observe($("gallery-end"));
  addEventListener("pagehide", () => leaving.forEach((id) => api.removeNow(id)));
  show();
}

/** What is shown now, newest first. */
export function listed() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = $("only-favourites").checked;
  return jobs.finished.filter((job) => {
    if (leaving.has(job.id) || (only && !job.favourite)) return false;
    const text = `${job.title || ""} ${trackText(job.request?.prompt)} ${job.request?.model ?? ""} ${job.result.seed ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function show() {
  const list = listed();
  for (const id of [...tiles.keys()]) if (!jobs.all.has(id)) tiles.delete(id);
  for (const job of list) {
    if (!tiles.has(job.id)) tiles.set(job.id, tile(job));
    fill(tiles.get(job.id), job);
  }
  settle($("gallery"), list.map((job) => tiles.get(job.id).element));
  const filtered = $("filter").value || $("only-favourites").checked;
  $("gallery-empty").hidden = list.length > 0;
  $("gallery-empty").textContent = jobs.more ? "Looking further…" : filtered ? "No clip matches." : "Your clips will be here.";
  $("gallery-count").textContent = list.length ? plural(list.length, "clip") + (jobs.more ? " and more" : "") : "";
  further();
}

/** Asks for older clips, page by page, while the list's end is in view or nothing is shown. */
async function further() {
  if (looking || !jobs.more) return;
  const { top, height } = $("gallery-end").getBoundingClientRect(); // no height: another part is shown
  if ($("gallery-empty").hidden && !(height && top < innerHeight)) return;
  looking = true;
  await jobs.older().catch(() => {});
  looking = false; // what came is shown a moment later, and looks on from there
}

function tile(job) {
  const { id } = job;
  const media = isStill(job) ? h("img", { alt: "", loading: "lazy", src: url(id, "thumbnail") })
    : h("video", { muted: true, loop: true, playsinline: true, preload: "none", poster: url(id, "thumbnail"), tabindex: -1 });
  media.classList.toggle("pixels", job.result.width < 200);
  const title = h("span", { class: "title" });
  const note = h("span", { class: "muted note" });
  const face = h("button", { type: "button", class: "tile-face", on: { click: () => open(id), focus: () => play(media), blur: () => rest(media), keydown: arrows } }, media, h("span", { class: "caption" }, title, note));
  const star = button("Favourite", { icon: "star", quiet: true, class: "ghost star", run: () => attempt(() => api.patch(id, { favourite: !jobs.all.get(id).favourite })) });
  const pick = button("Compare", { icon: "compare", quiet: true, class: "ghost pick", "aria-pressed": "false", run: () => toggle(id) });
  const element = h("li", { class: "tile", data: { id }, on: { pointerenter: () => play(media), pointerleave: () => rest(media) } }, face, h("div", { class: "tile-tools" }, pick, star));
  return { element, title, note, star, pick, face };
}

function fill({ title, note, star, pick, face }, job) {
  const words = job.title || summary(job.request);
  title.textContent = words;
  note.textContent = [job.result.partial ? "stopped early" : "", ago(job.finished ?? job.created)].filter(Boolean).join(" · ");
  face.setAttribute("aria-label", `Open: ${words}`);
  star.setAttribute("aria-pressed", String(Boolean(job.favourite)));
  pick.setAttribute("aria-pressed", String(picked.includes(job.id)));
}

function play(media) {
  if (media.tagName !== "VIDEO" || still.matches) return;
  if (!media.src) media.src = url(media.closest(".tile").dataset.id, "video");
  media.play().catch(() => {});
}

function rest(media) {
  if (media.tagName === "VIDEO" && !media.closest(".tile").matches(":hover")) media.pause();
}

function arrows(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === "Delete") return remove(event.currentTarget.closest(".tile").dataset.id);
  if (!by) return;
  const faces = [...document.querySelectorAll("#gallery .tile-face")];
  faces[faces.indexOf(event.currentTarget) + by]?.focus();
}

function toggle(id) {
  const place = picked.indexOf(id);
  if (place >= 0) picked.splice(place, 1);
  else picked.push(id);
  if (picked.length === 2) {
    const [one, other] = picked.splice(0);
    compare(one, other);
  } else if (picked.length === 1) toast("Choose the other clip to compare with.");
  show();
}

/** Hides a clip, and deletes it once the moment to undo has passed. */
export function remove(id) {
  leaving.add(id);
  show();
  toast("Deleted.", {
    action: "Undo",
    run: () => { leaving.delete(id); show(); },
    gone: () => attempt(() => api.remove(id).then(() => jobs.drop(id)).finally(() => { leaving.delete(id); show(); })),
  });
}
