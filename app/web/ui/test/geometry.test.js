/** All 48 ways a grid can lie, against a derivation of its own: by the world position of every voxel's centre. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid, PLANES, orientation } from "../src/geometry.js";

const PERMUTATIONS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const SPACING = [0.7, 1.1, 2.5];

/** Voxel axis n runs along world axis permutation[n], backwards where its sign is -1. */
function affineOf(permutation, signs, turn = 0) {
  const affine = [[0, 0, 0, -31], [0, 0, 0, 17], [0, 0, 0, 5], [0, 0, 0, 1]];
  permutation.forEach((world, axis) => (affine[world][axis] = signs[axis] * SPACING[axis]));
  if (!turn) return affine;
  const [c, s] = [Math.cos(turn), Math.sin(turn)];
  // About the left-right axis, then about the head-feet axis by half as much.
  const [ch, sh] = [Math.cos(turn / 2), Math.sin(turn / 2)];
  const one = [[1, 0, 0], [0, c, -s], [0, s, c]];
  const two = [[ch, -sh, 0], [sh, ch, 0], [0, 0, 1]];
  const times = (m, a) => [0, 1, 2].map((r) => [0, 1, 2, 3].map((k) => [0, 1, 2].reduce((sum, n) => sum + m[r][n] * a[n][k], 0)));
  return [...times(two, times(one, affine)), [0, 0, 0, 1]];
}

function* orientations() {
  for (const permutation of PERMUTATIONS) {
    for (let bits = 0; bits < 8; bits++) yield { permutation, signs: [0, 1, 2].map((n) => (bits & (1 << n) ? -1 : 1)) };
  }
}

const world = (affine, [i, j, k]) => [0, 1, 2].map((r) => affine[r][0] * i + affine[r][1] * j + affine[r][2] * k + affine[r][3]);

test("on every upright grid a RAS voxel is the voxel that lies there in the world", () => {
  const shape = [3, 4, 5];
  let count = 0;
  for (const { permutation, signs } of orientations()) {
    const affine = affineOf(permutation, signs);
    const grid = new Grid(shape, affine);
    // The RAS order of the voxels by brute force: sort the distinct world positions along each axis.
    const all = [];
    for (let k = 0, p = 0; k < 5; k++) for (let j = 0; j < 4; j++) for (let i = 0; i < 3; i++, p++) all.push([p, world(affine, [i, j, k])]);
    const ranks = [0, 1, 2].map((d) => [...new Set(all.map(([, place]) => place[d].toFixed(6)))].sort((a, b) => a - b));
    for (const [p, place] of all) {
      const expected = place.map((value, d) => ranks[d].indexOf(value.toFixed(6)));
      assert.deepEqual(grid.voxel(p), expected);
      assert.equal(grid.at(...expected), p);
      grid.millimetres(expected).forEach((value, d) => assert.ok(Math.abs(value - place[d]) < 1e-9));
    }
    assert.deepEqual(grid.letters(0), ["L", "R"]);
    assert.deepEqual(grid.letters(1), ["P", "A"]);
    assert.deepEqual(grid.letters(2), ["I", "S"]);
    count += 1;
  }
  assert.equal(count, 48);
});

test("a slightly turned grid keeps the orientation of the upright one, in all 48 cases", () => {
  for (const { permutation, signs } of orientations()) {
    const upright = orientation(affineOf(permutation, signs));
    assert.deepEqual(orientation(affineOf(permutation, signs, 0.35)), upright);
  }
});

test("orientation is NiiVue's own, also far from upright", async (t) => {
  for (const name of ["log", "info", "warn"]) t.mock.method(console, name, () => {}); // it remarks on slanted grids
  const { NVImage } = await import("@niivue/niivue").catch(() => ({}));
  if (!NVImage) return;
  let seed = 11;
  const random = () => ((seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31) * 2 - 1;
  for (let n = 0; n < 300; n++) {
    const affine = [...[0, 1, 2].map(() => [random(), random(), random(), random() * 100]), [0, 0, 0, 1]];
    const image = Object.create(NVImage.prototype);
    image.hdr = { affine, dims: [3, 3, 4, 5], pixDims: [1, 1, 1, 1] };
    image.calculateRAS();
    const { perm, flip } = orientation(affine);
    assert.deepEqual(perm.map((axis) => axis + 1), image.permRAS.map(Math.abs));
    assert.deepEqual(flip, image.permRAS.map((axis) => axis < 0));
  }
});

test("a grid turned by 30 degrees is lettered with both directions", () => {
  const c = Math.cos(Math.PI / 6);
  const s = Math.sin(Math.PI / 6);
  // i to the right and front, j to the front and left.
  const grid = new Grid([4, 4, 4], [[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]);
  assert.deepEqual(grid.letters(0), ["LP", "RA"]);
  assert.deepEqual(grid.letters(1), ["PR", "AL"]);
  assert.deepEqual(grid.letters(2), ["I", "S"]);
});

test("the acquired plane is the one whose slices are the image's own", () => {
  const sagittal = new Grid([4, 5, 6], affineOf([1, 2, 0], [1, -1, -1]));
  assert.equal(sagittal.acquired(), PLANES.sagittal);
  assert.equal(sagittal.acquiredIndex(0), 5);
  const axial = new Grid([4, 5, 6], affineOf([0, 1, 2], [-1, -1, 1]));
  assert.equal(axial.acquired(), PLANES.axial);
  assert.equal(axial.acquiredIndex(2), 2);
});
