// The stage: the preview of what runs, or the newest clip.

import { addressed, button, $, h, still } from "./dom.js";
import { api, url } from "./api.js";
import { isStill, jobs } from "./jobs.js";
import { attempt, previewUrl } from "./queue.js";
import { progressText, seconds, summary } from "./words.js";

let parts;
let open = () => {};

export function build({ onOpen }) {
  open = onOpen;
  parts = {
    image: h("img", { alt: "Preview of the clip as it comes to be", class: "picture", hidden: true }),
    video: h("video", { class: "picture", muted: true, loop: true, playsinline: true, hidden: true, "aria-label": "The newest clip" }),
    idle: h("div", { class: "idle" }, h("p", { class: "big", text: "Nothing here yet" }), h("p", { class: "muted", text: "Write what the clip shows, and press Ctrl + Enter." })),
    title: h("p", { class: "title" }), line: h("p", { class: "muted", id: "stage-line" }), bar: h("progress", { max: 1, value: 0, "aria-label": "Progress of the running clip" }),
    look: button("Open", { icon: "play", class: "chip", run: () => open(parts.id) }),
    keep: button("Stop and keep", { icon: "stop", class: "chip", run: () => attempt(() => api.cancel(parts.id, true)) }),
    cancel: button("Cancel", { icon: "close", class: "chip", run: () => attempt(() => api.cancel(parts.id, false)) }),
  };
  parts.image.addEventListener("error", () => parts.image.removeAttribute("src")); // it has gone with the clip's end
  parts.video.addEventListener("click", () => open(parts.id));
  $("stage").append(
    h("div", { class: "screen" }, parts.image, parts.video, parts.idle),
    h("div", { class: "stage-foot" }, h("div", { class: "grow" }, parts.title, parts.line, parts.bar), h("div", { class: "buttons" }, parts.keep, parts.cancel, parts.look)));
  jobs.addEventListener("change", show);
  show();
}

function show() {
  const running = jobs.active.find((job) => job.state !== "queued");
  const job = running ?? jobs.finished[0];
  parts.id = job?.id;
  $("stage").classList.toggle("live", Boolean(running));
  parts.idle.hidden = Boolean(job);
  parts.title.textContent = job ? summary(job.request) : "";
  parts.bar.hidden = !running;
  parts.bar.value = running?.progress?.fraction ?? 0;
  parts.line.textContent = running ? (running.state === "cancelling" ? "stopping at the next step" : progressText(running.progress)) : job ? facts(job) : "";
  parts.keep.hidden = parts.cancel.hidden = running?.state !== "running";
  parts.look.hidden = Boolean(running) || !job;
  if (running) showPreview(running);
  else if (job) showClip(job);
  else parts.image.hidden = parts.video.hidden = true;
}

function facts({ result }) {
  const { width, height, frames, fps, seconds_taken: taken } = result;
  return [`${width} × ${height}`, frames > 1 ? `${frames} frames at ${fps}` : "a picture", taken ? `made in ${seconds(taken)}` : ""].filter(Boolean).join(" · ");
}

function showPreview(job) {
  const preview = jobs.previews.get(job.id);
  parts.video.hidden = true;
  parts.video.pause();
  parts.video.removeAttribute("src");
  parts.image.hidden = !preview;
  parts.idle.hidden = Boolean(preview);
  parts.idle.firstChild.textContent = preview ? "" : "Under way";
  parts.idle.lastChild.textContent = "The preview comes with the first steps.";
  if (!preview) return;
  parts.image.dataset.step = preview.step;
  addressed(parts.image, previewUrl(preview));
  parts.image.classList.remove("pixels"); // an estimate is smooth, not sharp
}

function showClip(job) {
  const [shown, other] = isStill(job) ? [parts.image, parts.video] : [parts.video, parts.image];
  other.hidden = true;
  shown.hidden = false;
  const source = url(job.id, "video");
  if (shown.getAttribute("src") === source) return;
  shown.setAttribute("src", source);
  shown.classList.toggle("pixels", job.result.width < 200); // small pictures keep theirs when they are shown large
  if (!isStill(job) && !still.matches) shown.play().catch(() => {});
}
