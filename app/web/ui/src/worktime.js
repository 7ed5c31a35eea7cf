/**
 * What the reader did and when, for the time ledger: raw events with this page's own clock; the server makes minutes.
 * Batches are numbered, kept on this computer until the server has confirmed them, and may arrive twice or late.
 */
import { dropBatch, putBatch, readBatches } from "./browser_store.js";

const SEND_MS = 12000;

export class WorkTime {
  /** @param {{api: object, key: string, sitting: string, heartbeat: number, path: string}} options heartbeat in seconds */
  constructor(options) {
    Object.assign(this, options);
    this.events = [];
    this.number = 0;
    this.lastInput = -Infinity;
    this.sending = false;
    this.unsent = [];
  }

  async start(structure) {
    this.add("open");
    if (structure) this.structure(structure);
    if (document.visibilityState === "hidden") this.add("hidden");
    document.addEventListener("visibilitychange", () => {
      this.add(document.visibilityState === "hidden" ? "hidden" : "visible");
      if (document.visibilityState === "hidden") this.beacon();
    });
    window.addEventListener("pagehide", () => {
      this.add("close");
      this.beacon();
    });
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) this.add("visible");
    });
    window.addEventListener("offline", () => this.add("offline"));
    window.addEventListener("online", () => {
      this.add("online");
      this.send();
    });
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      window.addEventListener(name, () => this.input(), { passive: true, capture: true });
    }
    this.beat = setInterval(() => {
      if (document.visibilityState === "visible") this.add("heartbeat");
    }, this.heartbeat * 1000);
    this.timer = setInterval(() => this.send(), SEND_MS);
    // Left over from an earlier sitting at this computer.
    this.left = await readBatches(this.key).catch(() => []);
    this.unsent.unshift(...this.left.filter((batch) => batch.sitting !== this.sitting));
    this.send();
  }

  add(kind, more = {}) {
    this.events.push({ kind, ms: Math.round(performance.now()), ...more });
  }

  /** At most one a second: that there was input is what counts, not how much. */
  input() {
    const now = performance.now();
    if (now - this.lastInput < 1000) return;
    this.lastInput = now;
    this.add("input");
  }

  structure(name) {
    this.add("structure", { structure: name });
  }

  /** Closes the running batch; its key is (sitting, number), so that one that arrives twice counts once. */
  #close() {
    if (!this.events.length) return;
    const sent = Math.round(performance.now());
    const batch = { sitting: this.sitting, number: ++this.number, sent_ms: sent, events: this.events.splice(0, 900) };
    this.unsent.push(batch);
    putBatch(`${this.key}/${batch.sitting}`, batch.number, batch).catch(() => {});
  }

  async send() {
    this.#close();
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.unsent.length) {
        const batch = this.unsent[0];
        try {
          await this.api.post(this.path, batch);
        } catch (error) {
          // Refused for good (a batch of a page of another version): sending it again would not help. Signed out,
          // busy, unreachable: later.
          if (!error.status || error.retry || [401, 403, 429].includes(error.status)) break;
        }
        this.unsent.shift();
        await dropBatch(`${this.key}/${batch.sitting}`, batch.number).catch(() => {});
      }
    } finally {
      this.sending = false;
    }
  }

  /** The page may be gone at any moment: everything not confirmed goes out without waiting. It stays in the store. */
  beacon() {
    this.#close();
    for (const batch of this.unsent) {
      const body = JSON.stringify({ ...batch, csrf: this.api.csrf });
      navigator.sendBeacon?.(`${this.api.root}/${this.path}`, new Blob([body], { type: "text/plain" }));
    }
  }

  stop() {
    clearInterval(this.beat);
    clearInterval(this.timer);
  }
}
