/**
 * Pen, eraser and grow: a disc in the slice plane or a ball, with its size in millimetres.
 *
 * A voxel belongs to the brush when its centre lies within the radius of the brush's centre, measured with the true
 * spacing; the voxel under the pointer always belongs to it, so that a brush smaller than a voxel still paints one.
 */
import { DiffBuilder } from "./diff.js";

/**
 * @typedef {object} Ink
 * @property {number} value the value to write (0 erases)
 * @property {Uint8Array} only 256 flags: which present values may be overwritten
 * @property {{data: ArrayLike<number>, low: number, high: number}|null} range grow: only voxels of this intensity
 */

/**
 * Which present values may be overwritten.
 * @param {number} value the value that is written
 * @param {number|null} structure eraser: the structure that is erased; null erases all
 * @param {number[]} locked values that are protected
 */
export function writable(value, structure, locked) {
  const only = new Uint8Array(256).fill(1);
  for (const one of locked) if (one !== structure && one !== value) only[one] = 0;
  if (value === 0 && structure !== null) {
    only.fill(0);
    only[structure] = 1;
  }
  only[value] = 0;
  return only;
}

/**
 * One dab of the brush.
 * @param {Uint8Array} mask
 * @param {import("./geometry.js").Grid} grid
 * @param {number[]} centre RAS voxel, may be fractional
 * @param {import("./geometry.js").Plane} plane
 * @param {number} radius millimetres
 * @param {boolean} ball all three directions instead of the plane
 * @param {Ink} ink
 * @returns {import("./diff.js").Diff} already applied
 */
export function dab(mask, grid, centre, plane, radius, ball, ink) {
  const builder = new DiffBuilder();
  const axes = ball ? [0, 1, 2] : [plane.u, plane.v];
  const nearest = centre.map(Math.round);
  const low = nearest.slice();
  const high = nearest.slice();
  for (const d of axes) {
    const reach = radius / grid.spacing[d];
    low[d] = Math.max(0, Math.min(nearest[d], Math.ceil(centre[d] - reach)));
    high[d] = Math.min(grid.size[d] - 1, Math.max(nearest[d], Math.floor(centre[d] + reach)));
  }
  for (let d = 0; d < 3; d++) if (low[d] > high[d] || nearest[d] < 0 && !axes.includes(d)) return builder.done();
  if (!ball && (nearest[plane.w] < 0 || nearest[plane.w] >= grid.size[plane.w])) return builder.done();
  const square = radius * radius;
  const [sx, sy, sz] = grid.spacing;
  const flat = [0, 1, 2].map((d) => (axes.includes(d) ? 1 : 0));
  // The image's fastest axis in the innermost loop: longest runs, least jumping about in memory.
  const order = [0, 1, 2].sort((a, b) => Math.abs(grid.stride[a]) - Math.abs(grid.stride[b]));
  const [f, m, s] = order;
  const scale = [sx, sy, sz];
  for (let c = low[s]; c <= high[s]; c++) {
    const dc = flat[s] * (c - centre[s]) * scale[s];
    for (let b = low[m]; b <= high[m]; b++) {
      const db = flat[m] * (b - centre[m]) * scale[m];
      const rest = square - dc * dc - db * db;
      const row = grid.origin + c * grid.stride[s] + b * grid.stride[m];
      const middle = b === nearest[m] && c === nearest[s];
      if (rest < 0 && !middle) continue;
      for (let a = low[f]; a <= high[f]; a++) {
        const da = flat[f] * (a - centre[f]) * scale[f];
        if (da * da > rest && !(middle && a === nearest[f])) continue;
        write(mask, row + a * grid.stride[f], ink, builder);
      }
    }
  }
  return builder.done();
}

/** Writes one voxel when the ink may. */
export function write(mask, p, ink, builder) {
  const before = mask[p];
  if (!ink.only[before]) return;
  if (ink.range) {
    const intensity = ink.range.data[p];
    if (!(intensity >= ink.range.low && intensity <= ink.range.high)) return;
  }
  mask[p] = ink.value;
  builder.add(p, before, ink.value);
}

/**
 * Centres of the dabs between two pointer positions, half a radius (at least half a voxel) apart, without the first.
 * @param {number[]} from RAS voxel @param {number[]} to RAS voxel
 */
export function between(from, to, radius, spacing) {
  const distance = Math.hypot(...from.map((value, d) => (to[d] - value) * spacing[d]));
  const step = Math.max(radius / 2, Math.min(...spacing) / 2);
  const steps = Math.max(1, Math.ceil(distance / step));
  return Array.from({ length: steps }, (_, n) => from.map((value, d) => value + ((to[d] - value) * (n + 1)) / steps));
}

/** Intensities of a grow brush: middle ± width of what lies under the first touch, unless the reader set a range. */
export function rangeAround(data, grid, centre, plane, radius, spread = 2) {
  let sum = 0;
  let squares = 0;
  let count = 0;
  const [cx, cy, cz] = centre.map(Math.round);
  const here = [cx, cy, cz];
  const reach = [plane.u, plane.v].map((d) => Math.max(1, Math.floor(radius / 2 / grid.spacing[d])));
  for (let b = -reach[1]; b <= reach[1]; b++) {
    for (let a = -reach[0]; a <= reach[0]; a++) {
      const voxel = here.slice();
      voxel[plane.u] += a;
      voxel[plane.v] += b;
      if (!grid.inside(voxel)) continue;
      const value = data[grid.at(...voxel)];
      sum += value;
      squares += value * value;
      count += 1;
    }
  }
  if (!count) return { low: 0, high: 0 };
  const mean = sum / count;
  const deviation = Math.sqrt(Math.max(0, squares / count - mean * mean));
  return { low: mean - spread * deviation, high: mean + spread * deviation };
}
