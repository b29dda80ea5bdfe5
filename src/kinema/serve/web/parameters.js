// Every parameter of a clip, as a list of names and values; and where two clips differ.

import { h } from "./dom.js";
import { mediaUrl } from "./api.js";
import { ago, bytes, number, seconds } from "./words.js";

/** The settings of a job and the facts of its file, as `[name, value]`. */
export function listOf({ request, result, attempt, parent }) {
  const { seed, ...rest } = request;
  const facts = [
    ["seed", result?.seed ?? seed],
    result?.frames > 1 ? ["length", `${result.frames} frames at ${result.fps} a second`] : null,
    result ? ["picture", `${result.width} × ${result.height}`] : null,
    result?.bytes ? ["file", bytes(result.bytes)] : null,
    result?.seconds_taken ? ["made in", result.seconds_taken < 90 ? `${number(result.seconds_taken, 1)} s` : seconds(result.seconds_taken)] : null,
    attempt > 1 ? ["attempts", attempt] : null,
    parent ? ["made from", `${parent.how} of ${parent.id}`] : null,
  ];
  const settings = Object.entries(rest).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length));
  return [...settings, ...facts.filter(Boolean)];
}

export function parameters(job) {
  const rows = listOf(job).map(([name, value]) => [h("dt", { text: name.replaceAll("_", " ") }), h("dd", {}, shown(name, value))]);
  return h("div", {}, h("dl", { class: "parameters" }, rows), h("p", { class: "muted hint", text: `${job.id} · ${ago(job.finished ?? job.created)}` }));
}

function shown(name, value) {
  if (name === "keyframes" && Array.isArray(value)) {
    return value.map((key) => h("span", { class: "keyframe" }, thumb(key.image ?? String(key).split("@")[0]), h("span", { text: `frame ${key.frame ?? 0}${key.strength < 1 ? `, strength ${key.strength}` : ""}` })));
  }
  if (typeof value === "object") return h("code", { text: said(value) });
  return String(value);
}

function thumb(ref) {
  const source = mediaUrl(ref);
  return source ? h("img", { src: source, alt: "", loading: "lazy" }) : h("span", { text: ref });
}

/** A value in one line; the sums that name uploads are cut short. */
function plain(value) {
  return String(value).replace(/media:([0-9a-f]{8})[0-9a-f]{56}/g, "media:$1…");
}

/** A mapping as it would be written: `0: a fox, 8..-1: a wolf`. */
function said(value) {
  if (Array.isArray(value)) return value.map((one) => (typeof one === "object" ? said(one) : plain(one))).join("; ");
  return Object.entries(value).map(([key, inner]) => `${key}: ${inner && typeof inner === "object" ? `{${said(inner)}}` : plain(inner)}`).join(", ");
}

/** The parameters in which two jobs differ, as `[name, of the one, of the other]`. */
export function differences(one, other) {
  const [first, second] = [new Map(listOf(one)), new Map(listOf(other))];
  const skip = new Set(["file", "made in"]);
  const text = (value) => (value === undefined ? "–" : typeof value === "object" ? said(value) : plain(value));
  return [...new Set([...first.keys(), ...second.keys()])]
    .map((name) => [name, text(first.get(name)), text(second.get(name))])
    .filter(([name, a, b]) => a !== b && !skip.has(name));
}
