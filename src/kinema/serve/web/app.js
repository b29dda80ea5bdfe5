// Kinema Studio: builds the page, and what belongs to no part of it alone: submitting, keys, views, the connection.

import { announce, button, $, icon, toast } from "./dom.js";
import { api, token } from "./api.js";
import * as advanced from "./advanced.js";
import * as compare from "./compare.js";
import * as composer from "./composer.js";
import { adopt, draft, hasContent, seedOf, toSubmit } from "./draft.js";
import * as gallery from "./gallery.js";
import { jobs } from "./jobs.js";
import * as plan from "./plan.js";
import * as problems from "./problems.js";
import * as queue from "./queue.js";
import * as restore from "./restore.js";
import * as stage from "./stage.js";
import * as timeline from "./timeline.js";
import * as viewer from "./viewer.js";
import { plural, summary } from "./words.js";

let sending = false;

async function submit() {
  if (sending) return;
  const request = toSubmit();
  if (!hasContent(request)) {
    problems.show(Object.assign(new Error("Write what the clip shows."), { param: "prompt" }));
    return $("prompt").focus();
  }
  sending = true;
  $("make").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => { $("make-label").textContent = "Checking…"; }, 400);
  try {
    if (draft.state.editing) await save(request);
    else await send(request);
  } catch (error) {
    const place = problems.show(error);
    if (error.away) toast(`${error.message} Your shot is kept here; try again when it is back.`, { kind: "error" });
    else place?.closest("details")?.setAttribute("open", "");
  } finally {
    sending = false;
    clearTimeout(slow);
    $("make").removeAttribute("aria-busy");
    showEditing();
  }
}

async function send(request) {
  const { count } = draft.state;
  const answer = await api.submit({ request, ...(count > 1 ? { count } : {}) });
  answer.jobs.forEach((job) => jobs.take(job));
  problems.clear();
  if (!draft.state.lockSeed) draft.keep({ seed: String(seedOf(answer.jobs[0].request) ?? "") });
  announce(`${plural(answer.jobs.length, "clip")} in the queue`);
  if (matchMedia("(max-width: 759px)").matches) view("now");
}

/** Takes a job into the form: a queued one to be changed, any other as a new shot. */
function edit(job) {
  const queued = job.state === "queued";
  const { request, seed, lockSeed, before } = draft.state;
  adopt(job.request);
  draft.keep({ editing: queued ? job.id : null, before: queued ? before ?? { request, seed, lockSeed } : null });
  view("make");
  $("prompt").focus();
}

async function save(request) {
  const { editing } = draft.state;
  const answer = await api.patch(editing, { request }).catch((error) => {
    if (error.status !== 404) throw error;
    jobs.drop(editing);
  });
  if (!answer) return;
  jobs.take(answer.job ?? answer);
  endEdit();
  toast("The waiting clip is changed.");
}

function endEdit() {
  const { before } = draft.state;
  if (before) draft.change(before.request, { source: "adopt" });
  draft.keep({ editing: null, ...(before ? { seed: before.seed, lockSeed: before.lockSeed } : {}), before: null });
}

function showEditing() {
  const { editing, count } = draft.state;
  $("editing").hidden = !editing;
  $("make-label").textContent = editing ? "Save changes" : count > 1 ? `Make ${count} clips` : composer.frames() === 1 ? "Make picture" : "Make clip";
  if (editing && jobs.listed && jobs.all.get(editing)?.state !== "queued") {
    draft.keep({ editing: null, before: null });
    toast("That clip waits no more; the form holds its settings for a new one.");
  }
}

function view(name) {
  document.body.dataset.view = name;
  document.querySelectorAll("#tabs button").forEach((tab) => tab.setAttribute("aria-current", String(tab.dataset.view === name)));
  if (matchMedia("(max-width: 759px)").matches) scrollTo({ top: 0 });
}

function keys(event) {
  const command = event.ctrlKey || event.metaKey;
  const typing = event.target.matches?.("input:not([type=checkbox], [type=range]), textarea, select");
  if (command && event.key === "Enter") {
    event.preventDefault();
    submit();
  } else if (command && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    if (event.shiftKey) draft.redo();
    else draft.undo();
  } else if (!typing && !command && !event.altKey && !document.querySelector("dialog[open]")) {
    if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
    if (event.key === "n") { event.preventDefault(); $("prompt").focus(); }
    if (event.key === "?") $("help").showModal();
  }
}

function buildTheme() {
  const shapes = { auto: "auto", light: "sun", dark: "moon" };
  const order = ["auto", "light", "dark"];
  const toggle = button("Theme", { icon: "auto", quiet: true, run: () => {
    kinemaTheme.set(order[(order.indexOf(kinemaTheme.get()) + 1) % 3]);
    told();
  } });
  const told = () => {
    const now = kinemaTheme.get();
    toggle.replaceChildren(icon(shapes[now]));
    toggle.title = `Theme: ${now === "auto" ? "as the system" : now}`;
    toggle.setAttribute("aria-label", toggle.title);
  };
  told();
  $("bar-tools").append(toggle, button("Keys and help", { icon: "help", quiet: true, run: () => $("help").showModal() }));
}

function buildConnection() {
  let timer = 0;
  jobs.addEventListener("away", ({ detail }) => {
    timer ||= setTimeout(() => { $("away").hidden = false; }, 700); // a blink is no news
    $("away-text").textContent = `The server is away. What was accepted is safe there; trying again${detail > 1500 ? ` in ${Math.round(detail / 1000)} s` : ""}.`;
  });
  jobs.addEventListener("online", ({ detail }) => {
    clearTimeout(timer);
    timer = 0;
    if (!$("away").hidden) announce("The server is back");
    $("away").hidden = true;
    if (detail.again) plan.ask();
  });
  $("away-now").addEventListener("click", () => jobs.events.start());
  jobs.addEventListener("turned", ({ detail: { job } }) => {
    if (job.state === "done") announce(`Done: ${summary(job.request)}`);
    if (job.state === "failed") toast(`Failed: ${job.error?.message ?? "no reason given"}`, { kind: "error" });
  });
}

function buildToken() {
  const dialog = $("token");
  let given = false;
  addEventListener("kinema:token", () => { if (!dialog.open) dialog.showModal(); });
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => { if (!given) dialog.showModal(); }); // at a second Escape
  dialog.querySelector("form").addEventListener("submit", () => {
    given = true;
    token.set($("token-value").value.trim(), $("token-keep").checked);
    location.reload();
  });
}

/** Asks until the server tells what it is; the page stands meanwhile. */
async function told(ask) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      return await ask();
    } catch (error) {
      if (error.status === 401) return new Promise(() => {}); // the page loads anew with a token
      $("away").hidden = false;
      $("away-text").textContent = error.message;
      await new Promise((wake) => setTimeout(wake, wait));
    }
  }
}

async function start() {
  buildTheme();
  buildToken();
  addEventListener("keydown", keys);
  addEventListener("kinema:view", ({ detail }) => view(detail));
  document.querySelectorAll("#tabs button").forEach((tab) => tab.addEventListener("click", () => view(tab.dataset.view)));
  $("make").addEventListener("click", submit);
  $("editing-stop").addEventListener("click", endEdit);
  $("reset").addEventListener("click", () => { draft.change({ prompt: "" }, { source: "adopt" }); draft.keep({ editing: null, before: null, count: 1, lockSeed: false, size: "" }); toast("The form is empty.", { action: "Undo", run: () => draft.undo() }); });
  const [about, schema] = await told(() => Promise.all([api.about(), api.schema()]));
  $("away").hidden = true;
  $("version").textContent = about.version ? `kinema ${about.version}` : "";
  composer.build(withCards(about));
  advanced.build(schema, about);
  timeline.build();
  plan.build();
  queue.build({ onEdit: edit });
  stage.build({ onOpen: viewer.open });
  gallery.build({ onOpen: viewer.open, onCompare: compare.open });
  viewer.build();
  compare.build();
  restore.build();
  buildConnection();
  draft.addEventListener("change", showEditing);
  jobs.addEventListener("change", showEditing);
  showEditing();
  jobs.start();
  document.body.classList.add("ready");
}

/** The models with what their cards say beside their id. */
function withCards(about) {
  return { ...about, models: about.models.map(({ id, card }) => ({ ...card, ...card?.sizes, id })) };
}

view("make");
start();
