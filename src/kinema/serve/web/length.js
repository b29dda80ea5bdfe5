// Legal lengths: a causal video model codes the first frame alone and then groups of `stride` frames, so
// frames = 1 + k * stride; and where the groups begin.

/** Nearest legal number of frames to `frames`, at least 1. */
export function nearest(frames, stride) {
  return 1 + Math.max(0, Math.round((frames - 1) / stride)) * stride;
}

/** The first frame of every latent group: 0, 1, 1 + stride, ... */
export function groups(frames, stride) {
  const starts = [0];
  for (let frame = 1; frame < frames; frame += stride) starts.push(frame);
  return starts;
}

/** Where a thing that is dragged to `frame` (a real number) comes to lie: at a group's beginning, or the last frame. */
export function snapped(frame, frames, stride, snap = true) {
  const whole = Math.min(frames - 1, Math.max(0, Math.round(frame)));
  if (!snap || stride < 2) return whole;
  return [0, nearest(whole, stride), nearest(whole, stride) - stride, frames - 1]
    .filter((place) => place >= 0 && place < frames)
    .reduce((best, place) => (Math.abs(place - frame) < Math.abs(best - frame) ? place : best));
}

/** The next place to snap to, in direction `way` (1 or -1). */
export function next(frame, way, frames, stride, snap = true) {
  if (!snap || stride < 2) return Math.min(frames - 1, Math.max(0, frame + way));
  const places = [...new Set([...groups(frames, stride), frames - 1])];
  const found = way > 0 ? places.find((place) => place > frame) : places.findLast((place) => place < frame);
  return found ?? frame;
}
