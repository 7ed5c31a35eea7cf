/**
 * What the reader did and when, for the time ledger: raw events with this page's own clock; the server makes minutes.
 * Batches are numbered, kept on this computer until the server has confirmed them, and may arrive twice or late.
 *
 * Where the page's clock stands still while the computer sleeps (Chromium on Linux and macOS), the clock of the wall runs
 * away from it. The server places a sitting by one offset between the two, so a new sitting begins after such a sleep.
 */
import { dropBatch, putBatch, readBatches } from "./browser_store.js";

const SEND_MS = 12000;

export class WorkTime {
  /**
   * @param {{api: object, key: string, path: string, newSitting: () => string, heartbeat: number, away: number}} options
   *   heartbeat and away (how far the clocks may part) in seconds; newSitting makes random names
   */
  constructor(options) {
    Object.assign(this, options);
    this.begin();
    this.events = [];
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
    const own = this.sitting;
    this.left = await readBatches(this.key).catch(() => []);
    this.unsent.unshift(...this.left.filter((batch) => batch.sitting !== own));
    this.send();
  }

  begin() {
    this.sitting = this.newSitting();
    this.number = 0;
    this.apart = Date.now() - performance.now();
  }

  add(kind, more = {}) {
    if (Math.abs(Date.now() - performance.now() - this.apart) > this.away * 1000) this.#afterSleep();
    this.#push(kind, more);
  }

  #push(kind, more = {}) {
    this.events.push({ kind, ms: Math.round(performance.now()), ...more });
  }

  #afterSleep() {
    this.#close();
    this.begin();
    this.#push("open");
    if (this.current) this.#push("structure", { structure: this.current });
    if (document.visibilityState === "hidden") this.#push("hidden");
  }

  /** At most one a second: that there was input is what counts, not how much. */
  input() {
    const now = performance.now();
    if (now - this.lastInput < 1000) return;
    this.lastInput = now;
    this.add("input");
  }

  structure(name) {
    this.current = name;
    this.add("structure", { structure: name });
  }

  /** Closes the running batch; its key is (sitting, number), so that one that arrives twice counts once. */
  #close() {
    const sent = Math.round(performance.now());
    while (this.events.length) {
      const batch = { sitting: this.sitting, number: ++this.number, sent_ms: sent, events: this.events.splice(0, 900) };
      this.unsent.push(batch);
      putBatch(`${this.key}/${batch.sitting}`, batch.number, batch).catch(() => {});
    }
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
