/** Undo and redo: a bounded stack of diffs. The oldest edits are forgotten first, never the mask they led to. */
import { concatenate, diffBytes, inverse } from "./diff.js";

export const LIMIT_BYTES = 64 * 1024 * 1024;

export class History {
  constructor(limit = LIMIT_BYTES) {
    this.limit = limit;
    this.past = [];
    this.future = [];
    this.bytes = 0;
    this.open = null;
  }

  /** From now to `end`, edits count as one (a stroke). */
  begin() {
    this.open = [];
  }

  end() {
    const parts = this.open;
    this.open = null;
    if (parts && parts.length) this.#push(concatenate(parts));
  }

  /** @param {import("./diff.js").Diff} diff an edit that was just made */
  record(diff) {
    if (!diff.voxels) return;
    if (this.open) this.open.push(diff);
    else this.#push(diff);
  }

  #push(diff) {
    this.past.push(diff);
    this.bytes += diffBytes(diff) - this.future.reduce((sum, one) => sum + diffBytes(one), 0);
    this.future = [];
    while (this.bytes > this.limit && this.past.length > 1) this.bytes -= diffBytes(this.past.shift());
  }

  /** @returns {import("./diff.js").Diff|null} what to apply to take the last edit back */
  undo() {
    if (this.open) this.end();
    const diff = this.past.pop();
    if (!diff) return null;
    this.future.push(diff);
    return reversed(inverse(diff));
  }

  /** @returns {import("./diff.js").Diff|null} what to apply to make the edit again */
  redo() {
    const diff = this.future.pop();
    if (!diff) return null;
    this.past.push(diff);
    return diff;
  }
}

/** Runs in reverse order, so that plain applying ends with the oldest value of a place that changed twice. */
function reversed(diff) {
  return {
    start: diff.start.slice().reverse(),
    length: diff.length.slice().reverse(),
    before: diff.before.slice().reverse(),
    after: diff.after.slice().reverse(),
    voxels: diff.voxels,
  };
}
