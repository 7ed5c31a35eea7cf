/** Connected components in three dimensions (26 neighbours, as validation counts them). Runs in the worker. */
import { DiffBuilder } from "./diff.js";

/**
 * Places of the component that holds `seed`, in the image's order.
 * @param {Uint8Array} mask @param {number[]} shape i, j, k @param {number} seed place in the array
 */
export function component(mask, shape, seed) {
  const [ni, nj, nk] = shape;
  const value = mask[seed];
  const seen = new Uint8Array(Math.ceil(mask.length / 8));
  const mark = (p) => (seen[p >> 3] |= 1 << (p & 7));
  const marked = (p) => seen[p >> 3] & (1 << (p & 7));
  let list = new Uint32Array(1 << 16);
  let count = 1;
  list[0] = seed;
  mark(seed);
  for (let n = 0; n < count; n++) {
    const p = list[n];
    const i = p % ni;
    const row = (p - i) / ni;
    const j = row % nj;
    const k = (row - j) / nj;
    for (let c = Math.max(0, k - 1); c <= Math.min(nk - 1, k + 1); c++) {
      for (let b = Math.max(0, j - 1); b <= Math.min(nj - 1, j + 1); b++) {
        const start = (c * nj + b) * ni;
        for (let a = Math.max(0, i - 1); a <= Math.min(ni - 1, i + 1); a++) {
          const q = start + a;
          if (mask[q] !== value || marked(q)) continue;
          mark(q);
          if (count === list.length) {
            const wider = new Uint32Array(list.length * 2);
            wider.set(list);
            list = wider;
          }
          list[count++] = q;
        }
      }
    }
  }
  return { places: list.subarray(0, count).sort(), marked };
}

/**
 * Removes the component at `seed` ("remove"), or every other component of the same structure ("keep"). Not applied here.
 * @returns {import("./diff.js").Diff}
 */
export function componentEdit(mask, shape, seed, mode) {
  const builder = new DiffBuilder();
  const value = mask[seed];
  if (value === 0) return builder.done();
  const { places, marked } = component(mask, shape, seed);
  if (mode === "remove") {
    for (const p of places) builder.add(p, value, 0);
  } else {
    for (let p = mask.indexOf(value); p >= 0; p = mask.indexOf(value, p + 1)) if (!marked(p)) builder.add(p, value, 0);
  }
  return builder.done();
}
