/**
 * Saving by itself: a few seconds after a change the whole mask goes to the server, packed. What the server has not
 * confirmed is kept on this computer and sent as soon as the server answers again. Nothing here throws work away.
 *
 * States: saved, waiting (changes not sent yet), saving, offline, signed-out, stale, tab, expired, refused.
 */

const QUIET_MS = 2500;
const LONGEST_MS = 10000;
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const STATE_OF = { "work.stale": "stale", "work.tab": "tab", "work.lease_expired": "expired" };

export class Autosave {
  /**
   * @param {object} options api, keeper, path ("mask"), sitting, number (autosave the page started from), reading()
   */
  constructor(options) {
    Object.assign(this, options);
    this.revision = 0;
    this.savedRevision = 0;
    this.state = "saved";
    this.savedAt = null;
    this.error = null;
    this.failures = 0;
    this.timer = null;
    this.firstChange = null;
    this.running = null;
    this.onState = () => {};
  }

  get clean() {
    return this.savedRevision === this.revision;
  }

  /** The mask changed; the keeper has the edit already. */
  changed(revision) {
    this.revision = revision;
    this.firstChange ??= performance.now();
    if (["stale", "tab", "expired", "refused"].includes(this.state)) return this.onState(this);
    if (this.state === "saved") this.#set("waiting");
    const wait = Math.min(QUIET_MS, Math.max(0, this.firstChange + LONGEST_MS - performance.now()));
    if (this.state !== "offline" && this.state !== "signed-out") this.#later(wait);
    return undefined;
  }

  #later(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush().catch(() => {}), wait);
  }

  #set(state, error = null) {
    this.state = state;
    this.error = error;
    this.onState(this);
  }

  /** Sends now what is not sent. @returns {Promise<boolean>} whether the server has everything */
  async flush({ force = false, leaving = false } = {}) {
    clearTimeout(this.timer);
    while (this.running) await this.running;
    if (this.clean && !force) {
      if (this.state === "waiting") this.#set("saved");
      return true;
    }
    this.running = this.#send(leaving);
    try {
      return await this.running;
    } finally {
      this.running = null;
    }
  }

  async #send(leaving) {
    this.#set("saving");
    this.firstChange = null;
    try {
      const { packed, revision } = await this.keeper.ask("pack");
      this.bytes = packed.byteLength;
      const query = `base=${this.number}&sitting=${encodeURIComponent(this.sitting)}`;
      const headers = { "X-Redraft-Reading": JSON.stringify(this.reading()) };
      // Browsers let at most 64 KiB go out after the page has gone.
      const answer = await this.api.put(`${this.path}?${query}`, packed, headers, leaving && packed.byteLength < 60000);
      this.number = answer.number;
      this.savedAt = new Date();
      this.savedRevision = revision;
      this.failures = 0;
      await this.keeper.ask("confirmed", { number: answer.number, revision, packed });
      this.#set(this.clean ? "saved" : "waiting");
      if (!this.clean) this.#later(QUIET_MS);
      return this.clean;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  #failed(error) {
    if (error.status === 401) this.#set("signed-out", error);
    else if (STATE_OF[error.code]) return this.#set(STATE_OF[error.code], error);
    else if (error.offline || error.retry || error.status === 429) this.#set("offline", error);
    else return this.#set("refused", error);
    this.#later(RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
    return undefined;
  }

  /** After a conflict was settled: go on from the server's autosave `number`. */
  resume(number) {
    this.number = number;
    this.#set(this.clean ? "saved" : "waiting");
  }

  /** The network is back. */
  wake() {
    if (this.state === "offline" || this.state === "signed-out") this.#later(0);
  }
}

/** @returns {string} the state in words of a reader */
export function wordsOf(save) {
  const time = save.savedAt?.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  switch (save.state) {
    case "saved":
      return time ? `Saved ${time}` : "No changes yet";
    case "waiting":
      return "Changes not sent yet";
    case "saving":
      return "Saving";
    case "offline":
      return "Offline: kept on this computer";
    case "signed-out":
      return "Signed out: kept on this computer";
    case "stale":
      return "Changed elsewhere: not saved here";
    case "tab":
      return "Open in another tab: not saved here";
    case "expired":
      return "The time for this exam ran out";
    default:
      return "The server refused to save";
  }
}
