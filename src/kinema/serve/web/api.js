// The server's HTTP interface: JSON in and out, errors with their code and the setting that they are about.

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", param = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, param });
  }

  /** Nobody answered. */
  get away() { return this.status === 0; }
}

const SEED_IN = /("seed"\s*:\s*)(-?\d{16,})/g; // more digits than a JavaScript number holds: kept as text
const SEED_OUT = /("seed":)"(-?\d+)"/g;

export function parse(text) {
  return JSON.parse(text.replace(SEED_IN, '$1"$2"'));
}

export function write(value) {
  return JSON.stringify(value).replace(SEED_OUT, "$1$2");
}

export const token = {
  get() { return sessionStorage.getItem("kinema.token") ?? localStorage.getItem("kinema.token") ?? ""; },
  set(value, keep) {
    sessionStorage.removeItem("kinema.token");
    localStorage.removeItem("kinema.token");
    if (value) (keep ? localStorage : sessionStorage).setItem("kinema.token", value);
  },
};

export function headers(extra = {}) {
  const held = token.get();
  return { ...(held ? { Authorization: `Bearer ${held}` } : {}), ...extra };
}

/** fetch that throws ApiError; `body` a plain value is sent as JSON, a Blob as it is. */
export async function call(method, path, body, { signal, key, raw = false } = {}) {
  const options = { method, signal, headers: headers(), credentials: "same-origin" };
  if (body instanceof Blob) options.body = body;
  else if (body !== undefined) {
    options.body = write(body);
    options.headers["Content-Type"] = "application/json";
  }
  if (key) options.headers["Idempotency-Key"] = key;
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
  if (!answer.ok) throw await problem(answer);
  if (raw) return answer;
  const text = await answer.text();
  return text ? parse(text) : null;
}

async function problem(answer) {
  const facts = { status: answer.status };
  let message = `The server answered ${answer.status} ${answer.statusText}`.trim();
  try {
    const { error } = await answer.json();
    message = error.message ?? message;
    Object.assign(facts, { code: error.code ?? "", param: error.param ?? "" });
  } catch { /* no JSON: the status says all there is */ }
  if (answer.status === 401) dispatchEvent(new CustomEvent("kinema:token"));
  return new ApiError(message, facts);
}

/** A key that makes a repeated submission the same submission; works without a secure context. */
export function freshKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const bytes = (blob) => new Blob([blob], { type: "application/octet-stream" });
const job = (id, rest = "") => `api/jobs/${encodeURIComponent(id)}${rest}`;

export const api = {
  about: () => call("GET", "api/about"),
  schema: () => call("GET", "api/schema"),
  plan: (request, signal) => call("POST", "api/plan", { request }, { signal }),
  curve: (question, signal) => call("POST", "api/curve", question, { signal }),
  jobs: (query) => call("GET", `api/jobs?${new URLSearchParams(query)}`),
  job: (id) => call("GET", job(id)),
  patch: (id, change) => call("PATCH", job(id), change),
  remove: (id) => call("DELETE", job(id)),
  removeNow: (id) => void fetch(job(id), { method: "DELETE", headers: headers(), keepalive: true }),
  cancel: (id, keep) => call("POST", job(id, "/cancel"), { keep }),
  clone: (id) => call("POST", job(id, "/clone"), {}),
  retry: (id) => call("POST", job(id, "/retry"), {}),
  text: async (id, as) => (await call("GET", job(id, `/text?as=${as}`), undefined, { raw: true })).text(),
  upload: (file) => call("POST", "api/media", file instanceof File ? bytes(file) : file),
  restore: (file) => call("POST", "api/restore", bytes(file)),

  /** Submits, again with the same key where the answer was lost: one submission either way. */
  async submit(body) {
    const key = freshKey();
    for (let attempt = 0; ; attempt++) {
      try {
        return await call("POST", "api/jobs", body, { key });
      } catch (error) {
        if (!error.away || attempt === 2) throw error;
        await new Promise((wake) => setTimeout(wake, 400 * 2 ** attempt));
      }
    }
  },

  /** A file of a job, uploaded as media, so that another shot can name it. */
  async asMedia(id, what) {
    const blob = await (await call("GET", job(id, `/${what}`), undefined, { raw: true })).blob();
    return (await api.upload(bytes(blob))).ref;
  },
};

export function url(id, what) {
  return job(id, `/${what}`);
}

/** Where the picture or clip behind `media:<sha256>` is; null for anything else. */
export function mediaUrl(ref) {
  return /^media:[0-9a-f]{64}$/.test(ref ?? "") ? `api/media/${ref.slice(6)}` : null;
}
