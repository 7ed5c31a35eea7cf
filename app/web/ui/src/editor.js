/**
 * The mask under the reader's hand: applies edits, remembers them for undo, tells who keeps them. No DOM.
 *
 * `onChange(diff, done)` is called for every change of the array; `done` is false inside a stroke.
 */
import { between, dab, writable } from "./brush.js";
import { apply, drift } from "./diff.js";
import { copySlice, flood, polygon } from "./fill.js";
import { History } from "./history.js";
import { interpolate } from "./interpolate.js";

export class Editor {
  /**
   * @param {import("./geometry.js").Grid} grid
   * @param {Uint8Array} mask in the image's own order
   * @param {Uint8Array|null} draft what the reader was given; null: from scratch, changes are counted against nothing
   */
  constructor(grid, mask, draft, onChange) {
    this.grid = grid;
    this.mask = mask;
    this.draft = draft;
    this.onChange = onChange;
    this.history = new History();
    this.revision = 0;
    /** Voxels that differ from the draft (from scratch: that are drawn). */
    this.changed = 0;
  }

  /** Counts anew; needed when the mask did not start as the draft. */
  recount() {
    const { mask, draft } = this;
    let sum = 0;
    if (draft) for (let p = 0; p < mask.length; p++) sum += mask[p] !== draft[p] ? 1 : 0;
    else for (let p = 0; p < mask.length; p++) sum += mask[p] !== 0 ? 1 : 0;
    this.changed = sum;
  }

  #record(diff, keep = true) {
    if (!diff.voxels) return diff;
    this.changed += this.draft ? drift(diff, this.draft) : drawn(diff);
    this.revision += 1;
    if (keep) this.history.record(diff);
    this.onChange(diff, !this.history.open);
    return diff;
  }

  /** A change that was computed elsewhere (worker, other version of the mask). */
  commit(diff) {
    apply(this.mask, diff);
    return this.#record(diff);
  }

  #ink(options) {
    return { value: options.value, only: writable(options.value, options.structure, options.locked), range: options.range };
  }

  /**
   * A stroke begins.
   * @param {{value: number, structure: number|null, locked: number[], range: object|null, radius: number, ball: boolean,
   *   plane: import("./geometry.js").Plane}} options
   */
  strokeStart(point, options) {
    this.history.begin();
    this.stroke = { at: point, options, ink: this.#ink(options) };
    const { plane, radius, ball } = options;
    return this.#record(dab(this.mask, this.grid, point, plane, radius, ball, this.stroke.ink));
  }

  /** The pointer moved to `point`: dabs all along, so that a fast hand leaves no gaps. */
  strokeTo(point) {
    const { at, options, ink } = this.stroke;
    for (const centre of between(at, point, options.radius, this.grid.spacing)) {
      this.#record(dab(this.mask, this.grid, centre, options.plane, options.radius, options.ball, ink));
    }
    this.stroke.at = point;
  }

  strokeEnd() {
    this.stroke = null;
    this.history.end();
    this.onChange(null, true);
  }

  fill(voxel, options) {
    const { diff, open } = flood(this.mask, this.grid, options.plane, voxel, this.#ink(options));
    this.#record(diff);
    return { voxels: diff.voxels, open };
  }

  outline(line, w, options) {
    return this.#record(polygon(this.mask, this.grid, options.plane, line, w, this.#ink(options))).voxels;
  }

  interpolate(options, around = null) {
    const { diff, slices } = interpolate(this.mask, this.grid, options.plane, options.value, this.#ink(options), around);
    this.#record(diff);
    return slices;
  }

  copyFrom(from, to, options) {
    return this.#record(copySlice(this.mask, this.grid, options.plane, from, to, this.#ink(options))).voxels;
  }

  undo() {
    return this.#step(this.history.undo());
  }

  redo() {
    return this.#step(this.history.redo());
  }

  #step(diff) {
    if (!diff) return null;
    apply(this.mask, diff);
    return this.#record(diff, false);
  }
}

function drawn(diff) {
  let sum = 0;
  for (let r = 0; r < diff.start.length; r++) {
    sum += diff.length[r] * ((diff.after[r] ? 1 : 0) - (diff.before[r] ? 1 : 0));
  }
  return sum;
}
