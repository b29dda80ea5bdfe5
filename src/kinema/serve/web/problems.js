// What is wrong, said beside the setting that it is about.

import { $, h } from "./dom.js";

const CLASS = "field-error";

/** Shows the error at the control whose `data-param` is the longest beginning of `param`, else in the line at the foot. */
export function show(error) {
  clear();
  const message = error.message;
  const place = control(error.param);
  if (!place) {
    $("problem").textContent = message;
    return null;
  }
  const id = `error-${place.dataset.param.replace(/\W/g, "-")}`;
  const line = h("p", { class: CLASS, id, role: "alert", text: message });
  const field = place.closest(".field, .lane, .track") ?? place;
  field.classList.add("wrong");
  field.append(line);
  if (!place.checkVisibility()) $("problem").textContent = message;
  const input = place.matches("input, textarea, select") ? place : place.querySelector("input, textarea, select");
  input?.setAttribute("aria-invalid", "true");
  input?.setAttribute("aria-errormessage", id);
  return place;
}

export function clear() {
  $("problem").textContent = "";
  document.querySelectorAll(`.${CLASS}`).forEach((line) => line.remove());
  document.querySelectorAll(".wrong").forEach((field) => field.classList.remove("wrong"));
  document.querySelectorAll("[aria-invalid]").forEach((input) => {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-errormessage");
  });
}

function control(param) {
  const names = [];
  for (let name = (param ?? "").replace(/^request\./, ""); name; name = name.replace(/(^|\.|\[)[^.[]*$/, "")) names.push(name);
  const found = names.map((name) => document.querySelector(`[data-param="${CSS.escape(name)}"]`)).find(Boolean);
  if (!found && names.some((name) => name === "width" || name === "height")) return document.querySelector('[data-param="size"]');
  return found ?? null;
}
