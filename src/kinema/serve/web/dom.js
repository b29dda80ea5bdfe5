// Elements without markup: whatever comes from data goes through textContent or an attribute, never through HTML.

const SVG = "http://www.w3.org/2000/svg";

const SHAPES = {
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8 5h3v14H8zM14 5h3v14h-3z",
  star: "m12 4 2.5 5.2 5.7.8-4.1 4 1 5.7-5.1-2.7-5.1 2.7 1-5.7-4.1-4 5.7-.8z",
  close: "M6 6l12 12M18 6 6 18",
  up: "m6 14 6-6 6 6",
  down: "m6 10 6 6 6-6",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  plus: "M12 5v14M5 12h14",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  lock: "M6 11h12v8H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  unlock: "M6 11h12v8H6zM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v1.5M12 19.5V21M3 12h1.5M19.5 12H21M5.6 5.6l1.1 1.1M17.3 17.3l1.1 1.1M18.4 5.6l-1.1 1.1M6.7 17.3l-1.1 1.1",
  moon: "M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  copy: "M9 9h10v10H9zM15 9V5H5v10h4",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7",
  edit: "m5 19 .8-3.8L16 5l3 3L8.8 18.2z",
  retry: "M18.5 9A7 7 0 1 0 19 13.5M19 4.5V9h-4.5",
  stop: "M7 7h10v10H7z",
  image: "M4.5 5.5h15v13h-15zM4.5 15.5l4-4 4 4 3-3 4 4M15 9h.01",
  cut: "M12 4v16M8.5 8 5 12l3.5 4M15.5 8l3.5 4-3.5 4",
  save: "M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 19.5h14",
  compare: "M4.5 6h6.5v12H4.5zM13 6h6.5v12H13z",
  undo: "M8.5 5 4.5 9l4 4M4.5 9H14a5 5 0 0 1 0 10h-3",
  help: "M9.3 9.2a2.8 2.8 0 1 1 4 2.6c-.9.5-1.3 1-1.3 2.2M12 17.5h.01M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z",
};

/** An element. `props`: attributes; `on` handlers by event; `data` the dataset; `class`, `text`, and DOM properties
 *  `value`, `checked`, `disabled`, `hidden`. Children: elements, texts, lists; null and false are left out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if ((value ?? false) === false) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name === "text") element.textContent = value;
    else if (["value", "checked", "disabled", "hidden", "muted", "loop", "selected"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => (child ?? false) !== false));
  return element;
}

/** A line icon that screen readers pass over. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: SHAPES[name] }));
}

/** A button with an icon and, shown or only spoken, a label. */
export function button(label, { icon: shape, quiet = false, run, ...props } = {}, ...children) {
  const spoken = quiet ? { "aria-label": label, title: label, class: "ghost" } : {};
  return h("button", { type: "button", ...spoken, ...props, on: { ...props.on, ...(run && { click: run }) } },
    shape ? icon(shape) : null, quiet ? null : h("span", { text: label }), ...children);
}

/** Gives a picture its address, or none, where that is another: it would be loaded anew. */
export function addressed(image, source) {
  if (!source) image.removeAttribute("src");
  else if (image.getAttribute("src") !== source) image.setAttribute("src", source);
}

export function $(id) {
  return document.getElementById(id);
}

/** Replaces the children only where they differ, so that focus and hover stay where they were. */
export function settle(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let place = parent.firstChild;
  for (const child of wanted) {
    if (child === place) place = place.nextSibling;
    else {
      const focused = child.contains(document.activeElement) ? document.activeElement : null;
      parent.insertBefore(child, place);
      focused?.focus({ preventScroll: true });
    }
  }
}

let spoken = 0;

/** Says it to screen readers. */
export function announce(text) {
  const live = $("live");
  live.textContent = "";
  clearTimeout(spoken);
  spoken = setTimeout(() => { live.textContent = text; }, 40);
}

const toasts = [];

/** A message at the foot of the page, with perhaps one thing to do about it; `gone` once it can be done no more. */
export function toast(text, { action, run, gone, kind = "info", seconds = 6 } = {}) {
  const box = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" }, h("p", { text }));
  let timer = 0;
  const stay = () => clearTimeout(timer);
  const leave = (then) => {
    const place = toasts.indexOf(away);
    if (place < 0) return;
    toasts.splice(place, 1);
    stay();
    box.remove();
    then?.();
  };
  const away = () => leave(gone);
  const later = () => { stay(); timer = setTimeout(away, seconds * 1000); };
  if (action) box.append(button(action, { class: "link", run: () => leave(run) }));
  box.append(button("Dismiss", { icon: "close", quiet: true, run: away }));
  $("toasts").append(box);
  toasts.push(away);
  if (toasts.length > 4) toasts[0]();
  later();
  for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, stay);
  for (const event of ["pointerleave", "focusout"]) box.addEventListener(event, later);
  return away;
}

/** `run` once nothing has called for `ms`. */
export function debounced(ms, run) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), ms);
  };
}

export const still = matchMedia("(prefers-reduced-motion: reduce)");
