// The shot that is being written: one request, kept over reloads, with undo; and how the page is set.

import { fpsNumber } from "./track.js";

const KEY = "kinema.draft";
const MOST_UNDO = 100;

const EMPTY = {
  request: { prompt: "" }, count: 1, lockSeed: false, seed: "", snap: true, size: "", folded: {},
  editing: null, // the id of a queued job whose shot this is, and what was here before
  before: null,
};

function stored() {
  try {
    const read = JSON.parse(localStorage.getItem(KEY) ?? "null");
    if (read && typeof read.request === "object" && read.request) return { ...EMPTY, ...read };
  } catch { /* nothing that can be read: begin anew */ }
  return { ...EMPTY };
}

class Draft extends EventTarget {
  #state = stored();
  #past = [];
  #future = [];
  #mark = "";
  #markTime = 0;
  #held = false; // between the press and the release of a pointer
  card = null; // the model's card, once the server has told it

  get state() { return this.#state; }
  get request() { return this.#state.request; }

  /** The value of a setting, or the model's own where the shot says nothing. */
  effective(name) {
    return this.request[name] ?? this.usual[name];
  }

  /** The model's own settings. */
  get usual() { return this.card?.defaults ?? {}; }

  /** Changes the shot. `mark` joins changes of one drag or one typing into one step of undo. */
  change(request, { mark = "", source = null } = {}) {
    const now = Date.now();
    if (!mark || mark !== this.#mark || (!this.#held && now - this.#markTime > 1500)) this.#past.push(this.#state.request);
    if (this.#past.length > MOST_UNDO) this.#past.shift();
    this.#mark = mark;
    this.#markTime = now;
    this.#future = [];
    this.#put({ request }, source);
  }

  /** Until it is let go, all changes are one step of undo, however long the hand rests. */
  hold(held) {
    this.#held = held;
    this.#mark = "";
  }

  set(name, value, options = {}) {
    const request = { ...this.request };
    if ((value ?? "") === "") delete request[name];
    else request[name] = value;
    this.change(request, { mark: `set ${name}`, ...options });
  }

  /** Changes how the page is set: count, lock, snap, ... */
  keep(values, source = null) {
    this.#put(values, source);
  }

  undo() { this.#step(this.#past, this.#future); }
  redo() { this.#step(this.#future, this.#past); }
  get canUndo() { return this.#past.length > 0; }

  #step(from, to) {
    if (!from.length) return;
    to.push(this.#state.request);
    this.#mark = "";
    this.#put({ request: from.pop() }, "undo");
  }

  #put(values, source) {
    this.#state = { ...this.#state, ...values };
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#state));
    } catch { /* storage is full or refused: the page works on, without memory */ }
    this.dispatchEvent(new CustomEvent("change", { detail: { source } }));
  }
}

export const draft = new Draft();

/** A request's seed; a storyboard's is that of its first shot. */
export function seedOf({ seed, shots }) {
  return shots?.[0].seed ?? seed;
}

/** A request that draws new seeds, a storyboard one for each shot. */
export function withoutSeeds({ seed: _, shots, ...rest }) {
  return shots ? { ...rest, shots: shots.map(withoutSeeds) } : rest;
}

/** What is submitted: a locked seed that was taken over stays as it was written, any other counts up from shot to shot. */
export function toSubmit({ request, lockSeed, seed } = draft.state) {
  if (lockSeed && seed === String(seedOf(request))) return request;
  const rest = withoutSeeds(request);
  if (!lockSeed || seed === "") return rest;
  const seeded = (shot, k) => ({ ...shot, seed: String(BigInt(seed) + BigInt(k)) }); // the server hears a number
  return rest.shots ? { ...rest, shots: rest.shots.map(seeded) } : seeded(rest, 0);
}

/** What a clip that goes on from this one's has of it; a storyboard's goes on from its last shot. Its frames are
 * made at the rate that this one's were, and never at a higher one than the file has. */
export function goingOn({ shots = [], ...board }, fileRate) {
  const { source, keyframes, seed, frames, seconds, loop, canvas, end, transition, ...rest } = { ...board, ...shots.at(-1) };
  if (rest.fps && fpsNumber(rest.fps) > fpsNumber(fileRate)) delete rest.fps;
  return rest;
}

/** There is something that a clip could be made from. */
export function hasContent({ prompt, keyframes, source, extend, shots }) {
  return Boolean(prompt || keyframes?.length || source || extend || shots);
}

/** Takes a whole shot over, its seed locked, as one step of undo. */
export function adopt(request, { seed } = {}) {
  const kept = seed ?? seedOf(request);
  draft.change(request, { source: "adopt" });
  draft.keep(kept === undefined || kept === null ? { lockSeed: false } : { lockSeed: true, seed: String(kept) }, "adopt");
}
