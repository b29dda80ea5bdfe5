// Labelled controls, each of which reads a value and tells of a new one.

import { button, h, toast } from "./dom.js";
import { api } from "./api.js";

let count = 0;

/** A label, a control and a hint; `param` is where errors about it are shown. */
export function field(label, control, { param = "", hint = "", wide = false, span = "", beside = null } = {}) {
  const id = control.id || `field-${++count}`;
  control.id = id;
  if (param) control.dataset.param = param;
  if (hint) control.title ||= hint;
  return h("div", { class: `field ${wide ? "wide" : span}` },
    h("label", { for: id, text: label }),
    beside ? h("div", { class: "beside" }, control, beside) : control);
}

/** A control for a JSON schema of one value. Gives `{element, set(value, usual)}`; `tell(value)` hears of changes,
 *  undefined where the field was emptied. */
export function control(schema, tell) {
  const plain = unwrapped(schema);
  if (plain.enum) return choice(plain.enum, schema.default, tell);
  if (plain.type === "boolean") return tick(tell);
  if (plain.type === "integer" || plain.type === "number") return numeric(plain, tell);
  if (plain.type === "string") return text(plain, tell);
  return json(tell);
}

/** The one schema beside null; texts win over numbers, since every text that is a number is read as one. */
export function unwrapped(schema) {
  if (!schema.anyOf) return schema;
  const kinds = schema.anyOf.filter((part) => part.type !== "null");
  if (kinds.length === 1) return kinds[0];
  const texts = kinds.find((part) => part.type === "string");
  return texts && kinds.some((part) => part.type === "number") ? { ...texts, numbers: true } : {};
}

function choice(values, usual, tell) {
  const element = h("select", { on: { change: () => tell(element.value === "" ? undefined : element.value) } },
    usual === null || usual === undefined ? h("option", { value: "", text: "the model's" }) : null,
    values.map((value) => h("option", { value, text: value })));
  return { element, set(value, model) {
    if (element.options[0].value === "" && model !== undefined) element.options[0].textContent = `${model} (the model's)`;
    element.value = value ?? usual ?? "";
  } };
}

function tick(tell) {
  const element = h("input", { type: "checkbox", class: "switch", on: { change: () => tell(element.checked || undefined) } });
  return { element, set(value) { element.checked = Boolean(value); } };
}

function numeric({ type, minimum, maximum, exclusiveMinimum }, tell) {
  const element = h("input", {
    type: "number", inputmode: type === "integer" ? "numeric" : "decimal", step: type === "integer" ? 1 : "any",
    min: minimum ?? exclusiveMinimum, max: maximum > 1e9 ? null : maximum,
    on: { input: () => tell(element.value === "" ? undefined : Number(element.value)) },
  });
  return typed(element);
}

function text({ maxLength, numbers }, tell) {
  const element = h("input", { type: "text", maxlength: maxLength, spellcheck: "false", autocomplete: "off", on: { input: () => tell(numbers ? written(element) : element.value.trim() || undefined) } });
  return typed(element);
}

function typed(element) {
  return { element, set(value, model) {
    put(element, value);
    element.placeholder = model ?? "";
  } };
}

function json(tell) {
  const element = h("textarea", { rows: 2, class: "code", spellcheck: "false", placeholder: "JSON", on: { input: () => {
    const written = element.value.trim();
    let value = written || undefined;
    try {
      value = JSON.parse(written);
    } catch { /* a short form in words, or no JSON yet: the server says what is wrong with it */ }
    tell(value);
  } } });
  return { element, set(value) { put(element, typeof value === "object" ? JSON.stringify(value) : value); } };
}

/** What an input says: nothing, a number where it is one, or a text. */
export function written({ value }) {
  const text = value.trim();
  return text === "" ? undefined : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** Writes a value into an input that is not being typed in. */
export function put(element, value) {
  const wanted = String(value ?? "");
  if (element !== document.activeElement && element.value !== wanted) element.value = wanted;
}

/** A file that is uploaded and named by its content. */
export function filePicker(label, accept, tell) {
  const input = h("input", { type: "file", accept, hidden: true, tabindex: -1, "aria-label": label, on: { change: async () => {
    const [file] = input.files;
    input.value = "";
    if (file) await upload(file, tell);
  } } });
  return { input, open: button(label, { icon: "plus", class: "chip", run: () => input.click() }) };
}

/** Uploads and tells the reference; what goes wrong is said. */
export async function upload(file, tell) {
  try {
    tell(await api.upload(file), file);
  } catch (error) {
    toast(`${file.name || "That file"}: ${error.message}`, { kind: "error" });
  }
}
