/**
 * Shape-based interpolation between drawn slices (Raya and Udupa, IEEE Trans Med Imaging 1990): signed distance maps of
 * the two neighbouring outlines are blended linearly, and the voxels where the blend is inside are drawn.
 */
import { write } from "./brush.js";
import { DiffBuilder } from "./diff.js";

const FAR = 1e20;

/**
 * Squared Euclidean distance along one line with sample distance `step` (Felzenszwalb and Huttenlocher 2012).
 * @param {Float64Array} f in: cost per sample; out: squared distance
 */
function distanceLine(f, n, step, out, vertex, border) {
  let k = 0;
  vertex[0] = 0;
  border[0] = -Infinity;
  border[1] = Infinity;
  const square = step * step;
  for (let q = 1; q < n; q++) {
    let s;
    do {
      const p = vertex[k];
      s = (f[q] - f[p] + square * (q * q - p * p)) / (2 * square * (q - p));
    } while (s <= border[k] && --k >= 0);
    k += 1;
    vertex[k] = q;
    border[k] = s;
    border[k + 1] = Infinity;
  }
  k = 0;
  for (let q = 0; q < n; q++) {
    while (border[k + 1] < q) k += 1;
    const d = (q - vertex[k]) * step;
    out[q] = d * d + f[vertex[k]];
  }
}

/** Distance (mm) of every pixel to the nearest pixel that is set. */
export function distance(set, width, height, [stepU, stepV]) {
  const map = Float64Array.from(set, (value) => (value ? 0 : FAR));
  const n = Math.max(width, height);
  const line = new Float64Array(n);
  const out = new Float64Array(n);
  const vertex = new Int32Array(n);
  const border = new Float64Array(n + 1);
  for (let u = 0; u < width; u++) {
    for (let v = 0; v < height; v++) line[v] = map[u + v * width];
    distanceLine(line, height, stepV, out, vertex, border);
    for (let v = 0; v < height; v++) map[u + v * width] = out[v];
  }
  for (let v = 0; v < height; v++) {
    const row = map.subarray(v * width, (v + 1) * width);
    line.set(row);
    distanceLine(line, width, stepU, out, vertex, border);
    row.set(out.subarray(0, width));
  }
  return map.map(Math.sqrt);
}

/**
 * Signed distance (mm) to the outline: negative inside. The outline runs between pixels, half a (smaller) pixel before the
 * first one on the other side; without that half, blends would keep to the nearer slice by up to half a pixel.
 */
export function signedDistance(set, width, height, steps) {
  const outside = distance(set, width, height, steps);
  const inside = distance(set.map((value) => (value ? 0 : 1)), width, height, steps);
  const half = Math.min(...steps) / 2;
  return outside.map((value, p) => (set[p] ? half - inside[p] : value - half));
}

/** Slices of the plane on which a value is drawn, ascending. */
export function drawnSlices(mask, grid, plane, value) {
  const found = new Uint8Array(grid.size[plane.w]);
  const axis = grid.perm[plane.w];
  const [ni, nj, nk] = grid.shape;
  const backwards = grid.flip[plane.w];
  let p = 0;
  for (let k = 0; k < nk; k++) {
    for (let j = 0; j < nj; j++, p += ni) {
      const one = axis === 2 ? k : axis === 1 ? j : -1;
      if (one >= 0 && found[one]) continue;
      const hit = mask.indexOf(value, p);
      if (hit < 0) return slicesOf(found, backwards);
      if (hit >= p + ni) {
        // Nothing of it before `hit`: go on in the row where it is.
        const row = Math.floor(hit / ni);
        k = Math.floor(row / nj);
        j = row % nj;
        p = row * ni;
      }
      if (axis === 0) for (let i = 0; i < ni; i++) found[i] |= mask[p + i] === value ? 1 : 0;
      else found[axis === 2 ? k : j] = 1;
    }
  }
  return slicesOf(found, backwards);
}

function slicesOf(found, backwards) {
  const slices = [];
  for (let n = 0; n < found.length; n++) if (found[n]) slices.push(backwards ? found.length - 1 - n : n);
  return slices.sort((a, b) => a - b);
}

/**
 * Fills the gaps of a structure between drawn slices. With `around`, only the gap that holds this slice.
 * @param {import("./brush.js").Ink} ink
 * @returns {{diff: import("./diff.js").Diff, slices: number[]}} slices that were drawn; none: there was no gap
 */
export function interpolate(mask, grid, plane, value, ink, around = null) {
  const drawn = drawnSlices(mask, grid, plane, value);
  const builder = new DiffBuilder();
  const slices = [];
  for (let n = 0; n + 1 < drawn.length; n++) {
    const [low, high] = [drawn[n], drawn[n + 1]];
    if (high - low < 2 || (around !== null && (around <= low || around >= high))) continue;
    between(mask, grid, plane, value, low, high, ink, builder);
    for (let w = low + 1; w < high; w++) slices.push(w);
  }
  return { diff: builder.done(), slices };
}

function between(mask, grid, plane, value, low, high, ink, builder) {
  const [su, sv, sw] = [grid.stride[plane.u], grid.stride[plane.v], grid.stride[plane.w]];
  const box = boundingBox(mask, grid, plane, value, [low, high]);
  const [width, height] = [box.u1 - box.u0 + 1, box.v1 - box.v0 + 1];
  const steps = [grid.spacing[plane.u], grid.spacing[plane.v]];
  const corner = grid.origin + box.u0 * su + box.v0 * sv;
  const map = (w) => {
    const set = new Uint8Array(width * height);
    for (let v = 0; v < height; v++) {
      for (let u = 0; u < width; u++) set[u + v * width] = mask[corner + w * sw + u * su + v * sv] === value ? 1 : 0;
    }
    return signedDistance(set, width, height, steps);
  };
  const [first, last] = [map(low), map(high)];
  for (let w = low + 1; w < high; w++) {
    const share = (w - low) / (high - low);
    for (let v = 0; v < height; v++) {
      for (let u = 0; u < width; u++) {
        const q = u + v * width;
        if (first[q] * (1 - share) + last[q] * share < 0) write(mask, corner + w * sw + u * su + v * sv, ink, builder);
      }
    }
  }
}

/** Smallest box around a value on some slices, one voxel wider on each side (an outline needs an outside). */
function boundingBox(mask, grid, plane, value, slices) {
  const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
  const box = { u0: nu, u1: -1, v0: nv, v1: -1 };
  for (const w of slices) {
    const base = grid.origin + w * grid.stride[plane.w];
    for (let v = 0; v < nv; v++) {
      for (let u = 0; u < nu; u++) {
        if (mask[base + u * grid.stride[plane.u] + v * grid.stride[plane.v]] !== value) continue;
        box.u0 = Math.min(box.u0, u);
        box.u1 = Math.max(box.u1, u);
        box.v0 = Math.min(box.v0, v);
        box.v1 = Math.max(box.v1, v);
      }
    }
  }
  return {
    u0: Math.max(0, box.u0 - 1),
    u1: Math.min(nu - 1, box.u1 + 1),
    v0: Math.max(0, box.v0 - 1),
    v1: Math.min(nv - 1, box.v1 + 1),
  };
}
