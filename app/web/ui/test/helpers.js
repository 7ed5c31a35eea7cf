/** Small exams and seeded chance for the tests. */
import { Grid } from "../src/geometry.js";

/** A grid whose axes are permuted and flipped and whose voxels are not cubes. */
export function oddGrid(shape = [9, 11, 7]) {
  // i runs to the feet, j to the left, k to the front.
  return new Grid(shape, [[0, -0.8, 0, 10], [0, 0, 2.0, -4], [-1.5, 0, 0, 7], [0, 0, 0, 1]]);
}

export const upright = (shape, spacing = [1, 1, 1]) =>
  new Grid(shape, [[spacing[0], 0, 0, 0], [0, spacing[1], 0, 0], [0, 0, spacing[2], 0], [0, 0, 0, 1]]);

export function chance(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** An ink that may overwrite everything. */
export const ink = (value) => ({ value, only: Uint8Array.from({ length: 256 }, (_, n) => (n === value ? 0 : 1)), range: null });
