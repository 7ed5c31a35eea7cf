/**
 * What an edit changed, and nothing else: runs of neighbouring places in the array with one old and one new value.
 *
 * A diff is applied, taken back, sent to the keeper (worker) and written to the browser's store in this one form, so that
 * undo is exact and an hour of painting takes megabytes.
 */

/** @typedef {{start: Uint32Array, length: Uint32Array, before: Uint8Array, after: Uint8Array, voxels: number}} Diff */

/** Collects single changes into a diff. Changes may come in any order; a place may come once. */
export class DiffBuilder {
  constructor() {
    this.start = [];
    this.length = [];
    this.before = [];
    this.after = [];
    this.voxels = 0;
  }

  /** One place changes its value. */
  add(index, before, after) {
    const last = this.start.length - 1;
    this.voxels += 1;
    if (last >= 0 && this.before[last] === before && this.after[last] === after) {
      const end = this.start[last] + this.length[last];
      if (end === index) {
        this.length[last] += 1;
        return;
      }
      if (this.start[last] - 1 === index) {
        this.start[last] = index;
        this.length[last] += 1;
        return;
      }
    }
    this.start.push(index);
    this.length.push(1);
    this.before.push(before);
    this.after.push(after);
  }

  /** @returns {Diff} */
  done() {
    return {
      start: Uint32Array.from(this.start),
      length: Uint32Array.from(this.length),
      before: Uint8Array.from(this.before),
      after: Uint8Array.from(this.after),
      voxels: this.voxels,
    };
  }
}

/** Bytes a diff takes in memory. */
export const diffBytes = (diff) => diff.start.length * 10;

/** @param {Uint8Array} mask @param {Diff} diff */
export function apply(mask, diff) {
  for (let r = 0; r < diff.start.length; r++) mask.fill(diff.after[r], diff.start[r], diff.start[r] + diff.length[r]);
}

/** @param {Uint8Array} mask @param {Diff} diff */
export function takeBack(mask, diff) {
  for (let r = diff.start.length - 1; r >= 0; r--) {
    mask.fill(diff.before[r], diff.start[r], diff.start[r] + diff.length[r]);
  }
}

/** @param {Diff} diff @returns {Diff} the change the other way round */
export function inverse(diff) {
  return { start: diff.start, length: diff.length, before: diff.after, after: diff.before, voxels: diff.voxels };
}

/**
 * Several diffs that follow one another as one. A place may change more than once within a stroke; order is kept, so
 * applying goes forward and taking back goes backward.
 * @param {Diff[]} diffs
 * @returns {Diff}
 */
export function concatenate(diffs) {
  if (diffs.length === 1) return diffs[0];
  const runs = diffs.reduce((sum, diff) => sum + diff.start.length, 0);
  const whole = {
    start: new Uint32Array(runs),
    length: new Uint32Array(runs),
    before: new Uint8Array(runs),
    after: new Uint8Array(runs),
    voxels: 0,
  };
  let at = 0;
  for (const diff of diffs) {
    whole.start.set(diff.start, at);
    whole.length.set(diff.length, at);
    whole.before.set(diff.before, at);
    whole.after.set(diff.after, at);
    whole.voxels += diff.voxels;
    at += diff.start.length;
  }
  return whole;
}

/** Difference of two masks of the same grid. @returns {Diff} */
export function between(before, after) {
  const builder = new DiffBuilder();
  for (let p = 0; p < before.length; p++) if (before[p] !== after[p]) builder.add(p, before[p], after[p]);
  return builder.done();
}

/** Voxels of the mask that a diff makes differ from `reference`, minus those it makes equal: keeps a count exact. */
export function drift(diff, reference) {
  let sum = 0;
  for (let r = 0; r < diff.start.length; r++) {
    const end = diff.start[r] + diff.length[r];
    for (let p = diff.start[r]; p < end; p++) {
      sum += (diff.after[r] !== reference[p] ? 1 : 0) - (diff.before[r] !== reference[p] ? 1 : 0);
    }
  }
  return sum;
}
