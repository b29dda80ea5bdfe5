// Places, prompts and numbers over frames, as the shot writes them: read for the timeline, and written back.

const PLACE = /^([+-]?\d{1,9})$|^(\d{1,9}(?:\.\d{1,9})?)(s|b|%)$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const KEY = /^\s*([^:,()]+?)\s*:\s*\(\s*([^()]+?)\s*\)\s*$/;
const BESIDE = ["head", "tail", "ease", "mode"];

export function fpsNumber(fps) {
  const [over, under] = String(fps ?? 8).split("/").map(Number);
  const value = under ? over / under : over;
  return Number.isFinite(value) && value > 0 ? value : 8;
}

/** The frame that `24`, `2s`, `8b`, `50%` or `-1` is; null where it cannot be said here. */
export function frameOf(place, frames, fps, bpm = 120) {
  const match = PLACE.exec(String(place).trim());
  if (!match) return null;
  if (match[1] !== undefined) return Number(match[1]) < 0 ? frames + Number(match[1]) : Number(match[1]);
  const value = Number(match[2]);
  const rate = { s: fps, b: (60 / bpm) * fps, "%": (frames - 1) / 100 }[match[3]];
  return Math.floor(value * rate + 0.5);
}

/** How the timeline writes a frame: the last is -1, so that it stays the last when the length changes. */
export function placeOf(frame, frames) {
  return frames > 1 && frame >= frames - 1 ? -1 : frame;
}

/** A prompt track as blocks `{a, b, text, ease}`, frames a to b of one text with cross-fades in the gaps; null when it
 *  is a mix of weights, which has no blocks, or has more of them than the clip has frames. */
export function readPrompt(prompt, frames, fps, bpm) {
  if (typeof (prompt ?? "") === "string") {
    return { blocks: [{ a: 0, b: frames - 1, text: prompt ?? "", ease: "" }], head: "", tail: "" };
  }
  if (prompt.mix) return null;
  const blocks = [];
  for (const [place, written] of Object.entries(prompt)) {
    if (BESIDE.includes(place)) continue;
    const [from, to] = place.split("..");
    const a = frameOf(from, frames, fps, bpm);
    const b = to === undefined ? a : frameOf(to, frames, fps, bpm);
    if (a === null || b === null) return null;
    const own = typeof written === "string" ? { prompt: written } : written;
    blocks.push({ a, b, text: own.prompt ?? "", ease: own.ease ?? prompt.ease ?? "", hold: (own.mode ?? prompt.mode) === "hold" });
  }
  if (!blocks.length || blocks.length > frames) return null;
  blocks.sort((one, other) => one.a - other.a);
  blocks.forEach((block, i) => {
    if (block.hold && i + 1 < blocks.length) block.b = Math.max(block.a, blocks[i + 1].a - 1);
    delete block.hold;
  });
  blocks[0].a = 0; // before the first key and after the last, the nearest one holds
  blocks.at(-1).b = frames - 1;
  return { blocks: squeezed(blocks, frames), head: prompt.head ?? "", tail: prompt.tail ?? "" };
}

function squeezed(blocks, frames) {
  let free = 0;
  blocks.forEach((block, i) => {
    const last = frames - 1 - (blocks.length - 1 - i);
    block.a = Math.min(Math.max(block.a, free), last);
    block.b = Math.min(Math.max(block.b, block.a), last);
    free = block.b + 1;
  });
  return blocks;
}

/** The blocks as a shot writes them; one block alone is its text. */
export function writePrompt({ blocks, head = "", tail = "" }, frames) {
  if (blocks.length === 1 && !head && !tail) return blocks[0].text;
  const track = {};
  if (head) track.head = head;
  blocks.forEach(({ a, b, text, ease }, i) => {
    const end = placeOf(b, frames);
    const place = a === b ? String(i ? placeOf(a, frames) : a) : `${a}..${end}`;
    track[place] = ease && ease !== "linear" ? { prompt: text, ease } : text;
  });
  if (tail) track.tail = tail;
  return track;
}

/** A number over frames: `{kind: "number", value}`, `{kind: "keys", keys: [{frame, value, ease}]}` where every key is a
 *  plain number at a plain place, else `{kind: "formula", text}`. */
export function readNumbers(written, frames, fps, bpm) {
  if (typeof written === "number") return { kind: "number", value: written };
  const text = numbersText(written);
  if (NUMBER.test(text.trim())) return { kind: "number", value: Number(text) };
  const keys = splitKeys(text).map((part) => {
    const match = KEY.exec(part);
    if (!match) return null;
    const frame = frameOf(match[1], frames, fps, bpm);
    const [value, ...rest] = match[2].split(",").map((piece) => piece.trim());
    const ease = rest.join(",").replace(/^ease\s*=\s*/, "");
    return frame !== null && NUMBER.test(value) ? { frame, value: Number(value), ease } : null;
  });
  if (!keys.length || keys.includes(null)) return { kind: "formula", text };
  return { kind: "keys", keys: keys.sort((one, other) => one.frame - other.frame) };
}

function splitKeys(text) {
  const parts = [];
  let depth = 0;
  let from = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "(") depth++;
    else if (text[i] === ")") depth--;
    else if (text[i] === "," && depth === 0) {
      parts.push(text.slice(from, i));
      from = i + 1;
    }
  }
  parts.push(text.slice(from));
  return parts.filter((part) => part.trim());
}

/** Any way to write numbers over frames as one line of text. */
export function numbersText(written) {
  if (typeof (written ?? "") !== "object") return String(written ?? "");
  if (written.deforum !== undefined) return String(written.deforum);
  const { ease, ...keys } = written;
  return Object.entries(keys).map(([place, value]) => {
    const own = typeof value === "object" ? value : { value };
    const way = own.ease ?? ease;
    return `${place}:(${own.value}${way ? `, ease=${way}` : ""})`;
  }).join(", ");
}

/** Keys as text; one key alone is its number. */
export function writeKeys(keys) {
  if (keys.length === 1) return keys[0].value;
  return keys.map(({ frame, value, ease }) =>
    `${frame}:(${Number(value.toFixed(4))}${ease && ease !== "linear" ? `, ease=${ease}` : ""})`).join(", ");
}

/** Text, or a number, where `written` was, in the dialect of that. */
export function rewritten(written, value) {
  return written?.deforum === undefined || value === undefined ? value : { ...written, deforum: String(value) };
}

function distinct(keys) {
  return keys.filter(({ frame }, i) => i === 0 || frame !== keys[i - 1].frame);
}

/** The value at `path` ("camera.zoom") of nested mappings. */
export function at(value, path) {
  return path.split(".").reduce((inner, name) => (inner && typeof inner === "object" ? inner[name] : undefined), value);
}

/** A copy with `path` set, or left out where `to` is undefined; mappings that become empty go too. */
export function withAt(value, path, to) {
  const [name, ...rest] = path.split(".");
  const copy = { ...(value && typeof value === "object" ? value : {}) };
  if (rest.length) {
    copy[name] = withAt(copy[name], rest.join("."), to);
    const left = Object.keys(copy[name]).filter((key) => key !== "dialect");
    if (!left.length) delete copy[name];
  } else if (to === undefined) delete copy[name];
  else copy[name] = to;
  return copy;
}

/** The shot at another length: prompts, keyframes and the keys of the numbers at `paths` keep their share of the way
 *  to the last frame. */
export function stretched(request, from, to, fps, paths = []) {
  if (from === to || from < 2) return request;
  const moved = (frame) => Math.round((frame * (to - 1)) / (from - 1));
  let out = { ...request };
  for (const path of paths) {
    const written = at(request, path);
    const { kind, keys } = readNumbers(written, from, fps, request.bpm ?? 120);
    if (kind === "keys") out = withAt(out, path, rewritten(written, writeKeys(distinct(keys.map((key) => ({ ...key, frame: moved(key.frame) }))))));
  }
  const track = typeof request.prompt === "object" ? readPrompt(request.prompt, from, fps, request.bpm ?? 120) : null;
  if (track) {
    const blocks = track.blocks.map((block) => ({ ...block, a: moved(block.a), b: moved(block.b) }));
    if (blocks.length <= to) out.prompt = writePrompt({ ...track, blocks: squeezed(blocks, to) }, to);
  }
  if (request.keyframes) {
    out.keyframes = request.keyframes.map((key) => {
      const plain = /^\+?\d+$/.test(String(key.frame ?? 0));
      return plain ? { ...key, frame: placeOf(Math.min(moved(Number(key.frame ?? 0)), to - 1), to) } : key;
    });
  }
  return out;
}
