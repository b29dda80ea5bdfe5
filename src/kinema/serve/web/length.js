// Legal lengths: a causal video model codes the first frame alone and then groups of `stride` frames, so
// frames = rest + k * stride, the rest being 1, or 0 where there is no first frame; and where the groups begin.

/** Nearest legal number of frames to `frames`. */
export function nearest(frames, stride, rest) {
  return Math.max(rest || stride, rest + Math.round((frames - rest) / stride) * stride);
}

/** The first frame of every latent group: 0, 1, 1 + stride, ... */
export function groups(frames, stride, rest) {
  const starts = [0];
  for (let frame = rest || stride; frame < frames; frame += stride) starts.push(frame);
  return starts;
}

/** Where a thing that is dragged to `frame` (a real number) comes to lie: at a group's beginning, or the last frame. */
export function snapped(frame, frames, stride, rest, snap = true) {
  const whole = Math.min(frames - 1, Math.max(0, Math.round(frame)));
  if (!snap || stride < 2) return whole;
  const near = nearest(whole, stride, rest);
  return [0, near, near - stride, frames - 1]
    .filter((place) => place >= 0 && place < frames)
    .reduce((best, place) => (Math.abs(place - frame) < Math.abs(best - frame) ? place : best));
}

/** The next place to snap to, in direction `way` (1 or -1). */
export function next(frame, way, frames, stride, rest, snap = true) {
  if (!snap || stride < 2) return Math.min(frames - 1, Math.max(0, frame + way));
  const places = [...new Set([...groups(frames, stride, rest), frames - 1])];
  const found = way > 0 ? places.find((place) => place > frame) : places.findLast((place) => place < frame);
  return found ?? frame;
}
