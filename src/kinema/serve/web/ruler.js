// The ruler: which frame lies under a pointer and where a frame lies, for everything on the timeline; what is chosen there.

import { h } from "./dom.js";
import { draft } from "./draft.js";
import { frames, grid } from "./composer.js";
import { next, snapped } from "./length.js";

export const view = { playhead: 0, chosen: { kind: "prompt", index: 0 }, zoom: 1 };
export const ruler = h("div", { class: "ruler" });

/** The frame, a real number, that is under a pointer; frame f fills f to f + 1. */
export function frameUnder(event) {
  const box = ruler.getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * frames() - 0.5;
}

/** That frame where things come to lie; Alt turns snapping off for the moment. */
export function placeUnder(event, offset = 0) {
  return snapped(frameUnder(event) + offset, ...grid(), draft.state.snap && !event.altKey);
}

/** The place that a key asks for, from `frame`; null when it is another key. */
export function placeFromKey(event, frame) {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (way) return next(frame, way, ...grid(), draft.state.snap && !event.altKey);
  return { Home: 0, End: frames() - 1 }[event.key] ?? null;
}

/** Follows a pointer from its press to its release; `move(event)` for each motion. */
export function drag(event, move, done = () => {}) {
  if (event.button) return;
  event.preventDefault();
  const target = event.currentTarget;
  target.setPointerCapture?.(event.pointerId);
  draft.hold(true);
  const over = new AbortController();
  const stop = () => {
    draft.hold(false);
    over.abort();
    done();
  };
  for (const [type, run] of [["move", move], ["up", stop], ["cancel", stop]]) target.addEventListener(`pointer${type}`, run, { signal: over.signal });
}

/** Percent of the way along the lane. */
export function across(frame) {
  return `${(frame / frames()) * 100}%`;
}

export function choose(kind, index) {
  view.chosen = { kind, index };
  draft.keep({}, "choose");
}
