/** Calls to the server. Its errors come as {error: {code, what, do, retry}} and keep their words on the screen. */

export class ApiError extends Error {
  constructor(status, error) {
    super(error?.what ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code ?? "";
    this.advice = error?.do ?? "";
    this.retry = Boolean(error?.retry) || status >= 500;
  }
}

/** The server did not answer at all. */
export class Offline extends Error {
  constructor() {
    super("The server does not answer.");
    this.offline = true;
  }
}

export class Api {
  constructor(root) {
    this.root = root;
    this.csrf = "";
  }

  async #fetch(path, options = {}) {
    const headers = { ...(options.headers ?? {}) };
    if (options.method && options.method !== "GET") headers["X-CSRF-Token"] = this.csrf;
    let response;
    try {
      response = await fetch(path.startsWith("/") ? path : `${this.root}/${path}`, {
        credentials: "same-origin",
        redirect: "error",
        ...options,
        headers,
      });
    } catch {
      throw new Offline();
    }
    if (response.ok) return response;
    let error = null;
    try {
      error = (await response.json()).error;
    } catch {
      // A proxy in between answers in HTML: the status is all there is.
    }
    if ([502, 503, 504].includes(response.status) && !error) throw new Offline();
    throw new ApiError(response.status, error);
  }

  async me() {
    const me = await (await this.#fetch("/api/me")).json();
    this.csrf = me.csrf;
    return me;
  }

  async json(path) {
    return (await this.#fetch(path)).json();
  }

  async bytes(path) {
    return (await this.#fetch(path)).arrayBuffer();
  }

  /** null where there is none (404). */
  async bytesIfAny(path) {
    try {
      return await this.bytes(path);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async stream(path) {
    const response = await this.#fetch(path);
    return { stream: response.body, bytes: Number(response.headers.get("Content-Length")) || 0 };
  }

  async post(path, body, options = {}) {
    const response = await this.#fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      ...options,
    });
    return response.status === 204 ? null : response.json();
  }

  /** Posts a file as it is. */
  async send(path, file, headers = {}) {
    const response = await this.#fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream", ...headers },
      body: file,
    });
    return response.json();
  }

  async put(path, body, headers = {}, keepalive = false) {
    const response = await this.#fetch(path, {
      method: "PUT",
      headers: { "Content-Type": "application/gzip", ...headers },
      body,
      keepalive,
    });
    return response.json();
  }
}
