// What the server has: its jobs by id, kept current by events, and the previews of those that run.

import { api } from "./api.js";
import { Events } from "./events.js";

export const ACTIVE = ["queued", "running", "cancelling"];
const ENDED = ["done", "failed", "cancelled"];

/** The newest jobs that have ended, or those before `after`. */
function ended(after) {
  return api.jobs({ state: ENDED.join(), limit: 60, order: "desc", ...(after && { after }) });
}

/** Every job that waits or runs, page by page. */
async function unfinished() {
  const found = [];
  for (let more = true; more;) {
    const after = found.at(-1)?.id;
    try {
      const page = await api.jobs({ state: ACTIVE.join(), limit: 200, order: "asc", ...(after && { after }) });
      found.push(...page.jobs);
      more = page.has_more;
    } catch (error) {
      if (error.status !== 404 || !found.pop()) throw error; // it went meanwhile: on from the one before
    }
  }
  return found;
}

class Jobs extends EventTarget {
  all = new Map();
  previews = new Map(); // id -> {url, step, steps}
  online = true;
  more = false;
  listed = false; // whether the lists have been here
  #gone = new Set();
  #asking = new Set(); // for each list on its way, the ids told of since it was asked for
  #history = []; // the ids of the pages that were asked for, newest first
  #told = 0;
  events = new Events();

  start() {
    this.events.addEventListener("open", () => this.#opened());
    this.events.addEventListener("away", ({ detail }) => this.#away(detail));
    this.events.addEventListener("job", ({ detail }) => this.take(detail));
    this.events.addEventListener("gone", ({ detail }) => this.drop(detail.id));
    this.events.addEventListener("preview", ({ detail }) => {
      this.previews.set(detail.id, detail);
      this.#changed();
    });
    this.events.start();
  }

  async #opened() {
    const before = this.online;
    this.online = true;
    this.dispatchEvent(new CustomEvent("online", { detail: { again: !before } }));
    try {
      await this.reload();
    } catch { /* the next event, or the next connection, brings it */ }
  }

  #away(wait) {
    this.online = false;
    this.dispatchEvent(new CustomEvent("away", { detail: wait }));
  }

  /** Everything that waits or runs, and the newest that ended; what has gone meanwhile goes here too. */
  async reload() {
    const fresh = new Set();
    this.#asking.add(fresh);
    try {
      this.#settle(fresh, ...(await Promise.all([ended(), unfinished()])));
    } finally {
      this.#asking.delete(fresh);
    }
  }

  #settle(fresh, newest, waiting) {
    const found = [...newest.jobs, ...waiting];
    const ids = new Set(found.map((job) => job.id));
    const since = newest.jobs.at(-1)?.created ?? 0;
    for (const job of [...this.all.values()]) {
      if (ids.has(job.id) || fresh.has(job.id)) continue;
      if (ACTIVE.includes(job.state) || !newest.has_more || job.created > since) this.all.delete(job.id);
    }
    found.forEach((job) => this.take(job));
    if (!this.listed) this.#paged(newest);
    this.listed = true;
    this.#changed();
  }

  /** The next older page of the history. */
  async older() {
    if (!this.more) return;
    const page = await ended(this.#history.findLast((id) => this.all.has(id))); // a deleted one marks no place
    page.jobs.forEach((job) => this.take(job));
    this.#paged(page);
    this.#changed();
  }

  #paged({ jobs: page, has_more: more }) {
    this.#history.push(...page.map(({ id }) => id));
    this.more = more;
  }

  /** A job as somebody told it; older news than what is known is passed over. */
  take(job) {
    const known = this.all.get(job.id);
    if (this.#gone.has(job.id) || (known && known.revision > job.revision)) return;
    this.all.set(job.id, job);
    this.#asking.forEach((fresh) => fresh.add(job.id));
    if (!ACTIVE.includes(job.state)) this.previews.delete(job.id);
    if (known && known.state !== job.state) {
      this.dispatchEvent(new CustomEvent("turned", { detail: { job } }));
    }
    this.#changed();
  }

  drop(id) {
    this.#gone.add(id);
    this.all.delete(id);
    this.previews.delete(id);
    this.#changed();
  }

  /** One event for all that changed in one frame of the screen. */
  #changed() {
    if (this.#told) return;
    this.#told = setTimeout(() => {
      this.#told = 0;
      this.dispatchEvent(new CustomEvent("change"));
    }, 16);
  }

  /** Running first, then the queue in its order. */
  get active() {
    const rank = { running: 0, cancelling: 0, queued: 1 };
    return [...this.all.values()].filter((job) => ACTIVE.includes(job.state))
      .sort((one, other) => rank[one.state] - rank[other.state] || one.position - other.position);
  }

  /** Failed, or cancelled with nothing to show: newest first. */
  get failed() {
    return this.#newest((job) => job.state === "failed" || (job.state === "cancelled" && !job.result));
  }

  /** What can be played. */
  get finished() {
    return this.#newest((job) => !ACTIVE.includes(job.state) && job.result);
  }

  #newest(keep) {
    return [...this.all.values()].filter(keep).sort((one, other) => (other.finished ?? other.created) - (one.finished ?? one.created));
  }
}

export const jobs = new Jobs();

/** The job's result is a picture, not a clip. */
export function isStill({ kind, result }) {
  return kind === "image" || result.frames === 1;
}
