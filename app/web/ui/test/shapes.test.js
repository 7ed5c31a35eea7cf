/** Interpolation, components and drawn slices against plain definitions. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { componentEdit } from "../src/components.js";
import { apply } from "../src/diff.js";
import { PLANES } from "../src/geometry.js";
import { distance, drawnSlices, interpolate } from "../src/interpolate.js";
import { chance, ink, oddGrid, upright } from "./helpers.js";

test("distances are those to the nearest set pixel, by brute force", () => {
  const random = chance(1);
  for (let n = 0; n < 20; n++) {
    const [width, height] = [3 + random(12), 3 + random(9)];
    const steps = [0.5 + random(20) / 10, 0.5 + random(20) / 10];
    const set = Uint8Array.from({ length: width * height }, () => (random(6) ? 0 : 1));
    set[random(set.length)] = 1;
    const map = distance(set, width, height, steps);
    for (let p = 0; p < set.length; p++) {
      let best = Infinity;
      for (let q = 0; q < set.length; q++) {
        if (set[q]) best = Math.min(best, Math.hypot(((p % width) - (q % width)) * steps[0], (Math.floor(p / width) - Math.floor(q / width)) * steps[1]));
      }
      assert.ok(Math.abs(map[p] - best) < 1e-9);
    }
  }
});

test("between two equal discs interpolation makes a cylinder, in every plane", () => {
  for (const plane of Object.values(PLANES)) {
    const grid = oddGrid([21, 19, 23]);
    const mask = new Uint8Array(grid.count);
    const [low, high] = [4, 12];
    const inside = (voxel) => Math.hypot((voxel[plane.u] - 9) * grid.spacing[plane.u], (voxel[plane.v] - 9) * grid.spacing[plane.v]) < 6;
    for (let p = 0; p < grid.count; p++) {
      const voxel = grid.voxel(p);
      if ((voxel[plane.w] === low || voxel[plane.w] === high) && inside(voxel)) mask[p] = 1;
    }
    const { slices } = interpolate(mask, grid, plane, 1, ink(1));
    assert.deepEqual(slices, [5, 6, 7, 8, 9, 10, 11]);
    for (let p = 0; p < grid.count; p++) {
      const voxel = grid.voxel(p);
      const expected = voxel[plane.w] >= low && voxel[plane.w] <= high && inside(voxel);
      assert.equal(mask[p], expected ? 1 : 0);
    }
  }
});

test("between a large and a small disc the radius goes down evenly", () => {
  const grid = upright([61, 61, 11]);
  const mask = new Uint8Array(grid.count);
  const disc = (z, r) => {
    for (let y = 0; y < 61; y++) for (let x = 0; x < 61; x++) if (Math.hypot(x - 30, y - 30) <= r) mask[grid.at(x, y, z)] = 1;
  };
  disc(0, 24);
  disc(10, 4);
  interpolate(mask, grid, PLANES.axial, 1, ink(1));
  for (let z = 0; z <= 10; z++) {
    let area = 0;
    for (let y = 0; y < 61; y++) for (let x = 0; x < 61; x++) area += mask[grid.at(x, y, z)];
    assert.ok(Math.abs(Math.sqrt(area / Math.PI) - (24 - 2 * z)) < 0.6, `slice ${z}`);
  }
});

test("only the gap around the slice is filled when one is named", () => {
  const grid = upright([5, 5, 20]);
  const mask = new Uint8Array(grid.count);
  for (const z of [2, 6, 12]) mask[grid.at(2, 2, z)] = 1;
  assert.deepEqual(interpolate(mask, grid, PLANES.axial, 1, ink(1), 8).slices, [7, 8, 9, 10, 11]);
  assert.equal(mask[grid.at(2, 2, 4)], 0);
  assert.deepEqual(interpolate(mask, grid, PLANES.axial, 1, ink(1), 15).slices, []);
});

test("drawn slices are those with a voxel of the value, in every plane and orientation", () => {
  const random = chance(8);
  for (let n = 0; n < 30; n++) {
    const grid = oddGrid([4 + random(6), 4 + random(6), 4 + random(6)]);
    const mask = Uint8Array.from({ length: grid.count }, () => (random(40) ? 0 : 1 + random(2)));
    for (const plane of Object.values(PLANES)) {
      const expected = new Set();
      mask.forEach((value, p) => value === 2 && expected.add(grid.voxel(p)[plane.w]));
      assert.deepEqual(drawnSlices(mask, grid, plane, 2), [...expected].sort((a, b) => a - b));
    }
  }
});

/** Components by repeated merging of labels: slow and plain. */
function plainComponents(mask, [ni, nj, nk]) {
  const label = Int32Array.from(mask, (value, p) => (value ? p + 1 : 0));
  for (let changed = true; changed; ) {
    changed = false;
    for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++) for (let i = 0; i < ni; i++) {
      const p = i + ni * (j + nj * k);
      for (let c = k - 1; c <= k + 1; c++) for (let b = j - 1; b <= j + 1; b++) for (let a = i - 1; a <= i + 1; a++) {
        if (a < 0 || b < 0 || c < 0 || a >= ni || b >= nj || c >= nk) continue;
        const q = a + ni * (b + nj * c);
        if (mask[q] && mask[q] === mask[p] && label[q] < label[p]) {
          label[p] = label[q];
          changed = true;
        }
      }
    }
  }
  return label;
}

test("components with 26 neighbours: remove takes the one piece, keep the others of its structure", () => {
  const random = chance(77);
  for (let n = 0; n < 25; n++) {
    const shape = [3 + random(7), 3 + random(7), 3 + random(7)];
    const mask = Uint8Array.from({ length: shape[0] * shape[1] * shape[2] }, () => (random(7) ? 0 : 1 + random(2)));
    const seed = mask.findIndex((value) => value > 0);
    if (seed < 0) continue;
    const label = plainComponents(mask, shape);
    const removed = mask.slice();
    apply(removed, componentEdit(mask, shape, seed, "remove"));
    const kept = mask.slice();
    apply(kept, componentEdit(mask, shape, seed, "keep"));
    for (let p = 0; p < mask.length; p++) {
      const own = label[p] === label[seed];
      assert.equal(removed[p], own ? 0 : mask[p]);
      assert.equal(kept[p], mask[p] === mask[seed] && !own ? 0 : mask[p]);
    }
  }
});

test("a component edit on the background does nothing", () => {
  assert.equal(componentEdit(new Uint8Array(27), [3, 3, 3], 13, "remove").voxels, 0);
});
