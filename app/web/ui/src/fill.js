/** Fill within one slice: the area of one value under the pointer, or the holes that closed contours leave. */
import { write } from "./brush.js";
import { DiffBuilder } from "./diff.js";

/**
 * The connected area (4 neighbours, as a closed line stops it also at corners) around a place that has the value of that
 * place. Where it reaches the border of the slice it is background and not filled, unless `border`.
 * @returns {{diff: import("./diff.js").Diff, open: boolean}} open: the contour is not closed, nothing was written
 */
export function flood(mask, grid, plane, start, ink, border = false) {
  const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
  const [su, sv] = [grid.stride[plane.u], grid.stride[plane.v]];
  const base = grid.origin + start[plane.w] * grid.stride[plane.w];
  const seen = new Uint8Array(nu * nv);
  const value = mask[base + start[plane.u] * su + start[plane.v] * sv];
  const builder = new DiffBuilder();
  if (!ink.only[value]) return { diff: builder.done(), open: false };
  const found = [start[plane.u] + start[plane.v] * nu];
  seen[found[0]] = 1;
  let open = false;
  for (let n = 0; n < found.length; n++) {
    const u = found[n] % nu;
    const v = (found[n] - u) / nu;
    if (u === 0 || v === 0 || u === nu - 1 || v === nv - 1) open = true;
    for (const [a, b] of [[u - 1, v], [u + 1, v], [u, v - 1], [u, v + 1]]) {
      if (a < 0 || b < 0 || a >= nu || b >= nv) continue;
      const q = a + b * nu;
      if (seen[q] || mask[base + a * su + b * sv] !== value) continue;
      seen[q] = 1;
      found.push(q);
    }
  }
  if (open && !border && value === 0) return { diff: builder.done(), open: true };
  found.sort((p, q) => p - q);
  for (const q of found) write(mask, base + (q % nu) * su + Math.floor(q / nu) * sv, ink, builder);
  return { diff: builder.done(), open: false };
}

/**
 * A contour drawn by hand: every voxel of the slice whose centre lies inside the closed line (even-odd rule).
 * @param {number[][]} line points (u, v) in voxels; a voxel's centre has whole numbers
 * @param {number} w the slice
 */
export function polygon(mask, grid, plane, line, w, ink) {
  const builder = new DiffBuilder();
  if (line.length < 3) return builder.done();
  const base = grid.origin + w * grid.stride[plane.w];
  const heights = line.map((point) => point[1]);
  const low = Math.max(0, Math.ceil(Math.min(...heights)));
  const high = Math.min(grid.size[plane.v] - 1, Math.floor(Math.max(...heights)));
  for (let v = low; v <= high; v++) {
    const crossings = [];
    line.forEach(([u0, v0], n) => {
      const [u1, v1] = line[(n + 1) % line.length];
      if (v0 <= v !== v1 <= v) crossings.push(u0 + ((v - v0) / (v1 - v0)) * (u1 - u0));
    });
    crossings.sort((a, b) => a - b);
    for (let n = 0; n + 1 < crossings.length; n += 2) {
      const end = Math.min(grid.size[plane.u] - 1, Math.floor(crossings[n + 1]));
      for (let u = Math.max(0, Math.ceil(crossings[n])); u <= end; u++) {
        write(mask, base + u * grid.stride[plane.u] + v * grid.stride[plane.v], ink, builder);
      }
    }
  }
  return builder.done();
}

/** Copies the structure of one slice onto another of the same plane. */
export function copySlice(mask, grid, plane, from, to, ink) {
  const builder = new DiffBuilder();
  for (const w of [from, to]) if (w < 0 || w >= grid.size[plane.w]) return builder.done();
  const shift = (to - from) * grid.stride[plane.w];
  const base = grid.origin + from * grid.stride[plane.w];
  for (let v = 0; v < grid.size[plane.v]; v++) {
    for (let u = 0; u < grid.size[plane.u]; u++) {
      const p = base + u * grid.stride[plane.u] + v * grid.stride[plane.v];
      if (mask[p] === ink.value) write(mask, p + shift, ink, builder);
    }
  }
  return builder.done();
}
