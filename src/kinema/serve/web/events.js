// What the server tells by itself: server-sent events read with fetch, begun again after the last one heard.

import { headers, parse } from "./api.js";

const SILENCE = 40_000; // ms without a byte; the server's heartbeat comes every 15 s
const WAITS = [500, 1000, 2000, 4000, 8000, 15000];

export class Events extends EventTarget {
  #last = "";
  #tries = 0;
  #timer = 0;
  #control = null;

  /** Listens until the page goes. Fires `open`, `away` (detail: ms until the next try) and every event by its name. */
  start() {
    clearTimeout(this.#timer);
    this.#control?.abort();
    this.#listen();
  }

  async #listen() {
    const control = (this.#control = new AbortController());
    let watchdog = 0;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => control.abort(), SILENCE);
    };
    try {
      heard();
      const extra = { Accept: "text/event-stream", ...(this.#last ? { "Last-Event-ID": this.#last } : {}) };
      const answer = await fetch("api/events", { headers: headers(extra), signal: control.signal, cache: "no-store" });
      if (answer.status === 401) dispatchEvent(new CustomEvent("kinema:token"));
      if (!answer.ok) throw new Error(String(answer.status));
      this.#tries = 0;
      this.dispatchEvent(new CustomEvent("open"));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        rest = this.#take(rest + value);
      }
    } catch { /* told below: whatever ended it, it begins again */ }
    clearTimeout(watchdog);
    if (this.#control === control) this.#again();
  }

  #again() {
    const wait = WAITS[Math.min(this.#tries++, WAITS.length - 1)];
    this.dispatchEvent(new CustomEvent("away", { detail: wait }));
    this.#timer = setTimeout(() => this.#listen(), wait);
  }

  /** Fires the whole events in `text`; gives back what is left of it. */
  #take(text) {
    const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
    const rest = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: [] };
      for (const line of block.split("\n")) {
        const [, name, value] = /^([a-z]+): ?(.*)$/s.exec(line) ?? [];
        if (name === "data") fields.data.push(value);
        else if (name === "event") fields.event = value;
        else if (name === "id") this.#last = value;
      }
      if (fields.data.length) this.dispatchEvent(new CustomEvent(fields.event, { detail: parse(fields.data.join("\n")) }));
    }
    return rest;
  }
}
