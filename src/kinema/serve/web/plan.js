// What the shot will cost, asked of the server a moment after the last change; and what is wrong with it.

import { $, debounced, h, settle } from "./dom.js";
import { api } from "./api.js";
import { draft, hasContent, toSubmit } from "./draft.js";
import * as problems from "./problems.js";
import { bytes, plural, seconds } from "./words.js";

let asked = null;
let last = "";

export const latest = { plan: null, error: null };

/** Asks at once; true when the shot can be made. */
export async function ask() {
  asked?.abort();
  asked = new AbortController();
  try {
    const answer = await api.plan(asIfWritten(toSubmit()), asked.signal);
    latest.plan = whole(answer);
    latest.error = null;
    problems.clear();
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (error.away) return true;
    latest.error = error;
    problems.show(error);
  }
  show();
  draft.dispatchEvent(new CustomEvent("planned"));
  return !latest.error;
}

/** The facts of the shots together: times add up, memory is that of the hungriest. */
function whole({ shots = [], ...answer }) {
  const sum = (name) => shots.reduce((all, shot) => all + (shot[name] ?? 0), 0);
  const most = (name) => Math.max(0, ...shots.map((shot) => shot[name] ?? 0));
  return {
    ...answer, shot: shots[0]?.shot, latent_frames: sum("latent_frames"), tokens: most("tokens"), forwards: sum("forwards"),
    memory: Math.max(0, ...shots.map(memoryOf)),
    notes: [...new Set([...(answer.notes ?? []), ...shots.flatMap((shot) => [...(shot.notes ?? []), ...tooSmall(shot.memory)])])],
  };
}

/** What rendering a shot takes in memory: of the arrangement that will be used, where kinema knows it. */
function memoryOf({ memory, weight_bytes = 0, working_bytes }) {
  return memory?.needs[memory.taken ?? "block"] ?? weight_bytes + (working_bytes ?? 0);
}

/** What to say when not even the smallest arrangement fits. */
function tooSmall(memory) {
  if (!memory || memory.taken) return [];
  return [`it needs ${bytes(Math.min(...Object.values(memory.needs)))} of memory, and ${bytes(memory.free)} are free on ${memory.device}.`];
}

/** The cost of a clip is known before its words are: until then the example stands for them. */
function asIfWritten(request) {
  return hasContent(request) ? request : { ...request, prompt: $("prompt").placeholder };
}

const later = debounced(350, ask);

export function build() {
  draft.addEventListener("change", () => {
    const now = JSON.stringify(toSubmit());
    if (now === last) return;
    last = now;
    $("cost").classList.add("old");
    later();
  });
  last = JSON.stringify(toSubmit());
  ask();
}

let open = false;

/** What the plan has to say, folded away until it is asked for. */
function noted(notes) {
  const box = h("details", { class: "note", on: { toggle: () => { open = box.open; } } },
    h("summary", { text: plural(notes.length, "note") }), h("ul", {}, notes.map((note) => h("li", { text: String(note) }))));
  box.open = open;
  return box;
}

function show() {
  $("cost").classList.remove("old");
  const { plan, error } = latest;
  if (error || !plan) return settle($("cost"), []);
  const { count } = draft.state;
  const facts = [
    plan.seconds ? [`about ${seconds(plan.seconds * count)}`, count > 1 ? `for ${plural(count, "clip")} on this machine, roughly` : "on this machine, roughly"] : null,
    plan.most_seconds ? [`${seconds(plan.most_seconds)} at most`, "what this server takes for one clip, by this estimate"] : null,
    plan.latent_frames ? [plural(plan.latent_frames, "latent frame"), `${plan.tokens ?? ""} tokens`] : null,
    plan.forwards ? [`${plan.forwards} passes`, "of the transformer"] : null,
    plan.memory ? [bytes(plan.memory), "of memory, weights and working set"] : null,
  ];
  settle($("cost"), [
    ...facts.filter(Boolean).map(([text, title]) => h("span", { text, title })),
    ...(plan.notes.length ? [noted(plan.notes)] : []),
  ]);
}
