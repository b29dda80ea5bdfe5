// How numbers, times and shots are said.

export function seconds(value) {
  if (!Number.isFinite(value)) return "";
  if (value < 1) return "under 1 s";
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(value < 36000 ? 1 : 0)} h`;
}

export function bytes(value) {
  if (!value) return "";
  if (value < 1e6) return `${Math.max(1, Math.round(value / 1e3))} kB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB`;
  return `${(value / 1e9).toFixed(1)} GB`;
}

/** 3, 0.25 or 1.333: at most `digits` behind the point, no zeros at the end. */
export function number(value, digits = 3) {
  return String(Number(Number(value).toFixed(digits)));
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

export function ago(time) {
  const past = Date.now() / 1000 - time;
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.round(past / 60)} min ago`;
  if (past < 86400) return `${Math.round(past / 3600)} h ago`;
  return new Date(time * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** What a shot is about, in one line. */
export function summary(request) {
  if (request?.shots) return request.name ?? `Storyboard of ${plural(request.shots.length, "shot")}`;
  return trackText(request?.prompt) || request?.name || "No prompt";
}

/** A prompt track as one line: its texts in the order of their frames. */
export function trackText(track) {
  if (typeof track === "string") return track;
  if (!track || typeof track !== "object") return "";
  if (track.mix) {
    const mix = Array.isArray(track.mix) ? track.mix.map((part) => part.prompt) : Object.keys(track.mix);
    return mix.join(" + ");
  }
  return Object.entries(track)
    .filter(([key]) => !["head", "tail", "ease", "mode"].includes(key))
    .map(([, value]) => (typeof value === "string" ? value : value.prompt))
    .join(" → ");
}

const PHASES = {
  load: "loading the model", text: "reading the prompt", encode: "reading the pictures", denoise: "denoising", draw: "drawing frames",
  decode: "decoding frames", interpolate: "drawing frames in between", upscale: "making frames larger", write: "writing the file",
};

/** "denoising, step 7 of 20, 4 s left". */
export function progressText(progress) {
  if (!progress?.phase) return "starting";
  const parts = [PHASES[progress.phase] ?? progress.phase];
  if (progress.shots > 1) parts.unshift(`shot ${progress.shot} of ${progress.shots}`);
  if (progress.steps > 1) parts.push(`step ${progress.step} of ${progress.steps}`);
  if (Number.isFinite(progress.seconds_left)) parts.push(`${seconds(progress.seconds_left)} left`);
  return parts.join(", ");
}

export const STATES = {
  queued: "waiting", running: "running", cancelling: "stopping", done: "done", failed: "failed", cancelled: "cancelled",
};
