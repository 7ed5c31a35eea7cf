/** The editor: every tool in every plane writes what it says, and undo is exact. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { dab, rangeAround, writable } from "../src/brush.js";
import { apply, between, DiffBuilder, inverse, takeBack } from "../src/diff.js";
import { Editor } from "../src/editor.js";
import { flood, polygon } from "../src/fill.js";
import { PLANES } from "../src/geometry.js";
import { History } from "../src/history.js";
import { chance, ink, oddGrid, upright } from "./helpers.js";

const options = (plane, more = {}) => ({ value: 1, structure: null, locked: [], range: null, radius: 2, ball: false, plane, ...more });

for (const plane of Object.values(PLANES)) {
  for (const ball of [false, true]) {
    test(`the brush is a ${ball ? "ball" : "disc"} in millimetres in the ${plane.name} plane`, () => {
      const grid = oddGrid();
      const random = chance(3);
      for (let n = 0; n < 40; n++) {
        const mask = new Uint8Array(grid.count);
        const centre = grid.size.map((size) => random(size));
        centre[plane.u] += random(10) / 10 - 0.5;
        const radius = 0.3 + random(50) / 10;
        dab(mask, grid, centre, plane, radius, ball, ink(1));
        const nearest = centre.map(Math.round);
        for (let p = 0; p < grid.count; p++) {
          const voxel = grid.voxel(p);
          const axes = ball ? [0, 1, 2] : [plane.u, plane.v];
          const distance = Math.hypot(...axes.map((d) => (voxel[d] - centre[d]) * grid.spacing[d]));
          const here = (ball || voxel[plane.w] === nearest[plane.w]) && distance <= radius;
          const own = voxel.every((value, d) => value === nearest[d]);
          // On the rim two ways of adding up may differ in the last digit.
          if (Math.abs(distance - radius) > 1e-9) assert.equal(mask[p], here || own ? 1 : 0);
        }
      }
    });
  }
}

test("a brush outside the image writes nothing and does not come in on the other side", () => {
  const grid = upright([8, 8, 8]);
  const mask = new Uint8Array(grid.count);
  for (const centre of [[-9, 4, 4], [4, 20, 4], [4, 4, -1], [4, 4, 8]]) dab(mask, grid, centre, PLANES.axial, 2, false, ink(1));
  assert.ok(mask.every((value) => value === 0));
  dab(mask, grid, [-1, 4, 4], PLANES.axial, 2, false, ink(1));
  for (let p = 0; p < grid.count; p++) if (mask[p]) assert.ok(grid.voxel(p)[0] <= 1);
});

test("undo and redo give back every state, whatever was done", () => {
  const grid = oddGrid([16, 14, 12]);
  const random = chance(42);
  const start = Uint8Array.from({ length: grid.count }, () => (random(4) ? 0 : 1 + random(2)));
  const editor = new Editor(grid, start.slice(), start.slice(), () => {});
  const states = [start.slice()];
  const planes = Object.values(PLANES);
  for (let n = 0; n < 60; n++) {
    const plane = planes[random(3)];
    const at = grid.size.map((size) => random(size));
    const erase = random(3) === 0;
    const set = options(plane, {
      value: erase ? 0 : 1 + random(2), structure: erase ? 1 : null, locked: random(2) ? [2] : [], radius: 0.5 + random(4), ball: random(2) === 1,
    });
    const before = editor.history.past.length;
    if (random(4) === 0) editor.fill(at, set);
    else if (random(5) === 0 && set.value) editor.interpolate(set);
    else if (random(5) === 0) editor.outline([[1, 1], [8, 2], [6, 9], [2, 7]], at[plane.w], set);
    else {
      editor.strokeStart(at, set);
      for (let m = 0; m < 3; m++) editor.strokeTo(grid.size.map((size, d) => (d === plane.w ? at[d] : random(size))));
      editor.strokeEnd();
    }
    if (editor.history.past.length > before) states.push(editor.mask.slice());
  }
  const count = (mask) => mask.reduce((sum, value, p) => sum + (value !== start[p] ? 1 : 0), 0);
  assert.equal(editor.changed, count(editor.mask));
  for (let n = states.length - 2; n >= 0; n--) {
    editor.undo();
    assert.deepEqual(editor.mask, states[n]);
    assert.equal(editor.changed, count(editor.mask));
  }
  assert.equal(editor.undo(), null);
  assert.equal(editor.changed, 0);
  for (let n = 1; n < states.length; n++) {
    editor.redo();
    assert.deepEqual(editor.mask, states[n]);
  }
  assert.equal(editor.redo(), null);
});

test("a stroke that goes over itself is one step back", () => {
  const grid = upright([20, 20, 3]);
  const editor = new Editor(grid, new Uint8Array(grid.count), null, () => {});
  editor.strokeStart([5, 5, 1], options(PLANES.axial));
  for (const x of [15, 5, 15]) editor.strokeTo([x, 5, 1]);
  editor.strokeEnd();
  assert.ok(editor.changed > 40);
  editor.undo();
  assert.equal(editor.changed, 0);
  assert.ok(editor.mask.every((value) => value === 0));
});

test("what the listener is told, put together, is the mask", () => {
  const grid = oddGrid();
  const mirror = new Uint8Array(grid.count);
  const editor = new Editor(grid, new Uint8Array(grid.count), null, (diff) => diff && apply(mirror, diff));
  const random = chance(9);
  for (let n = 0; n < 30; n++) {
    editor.strokeStart(grid.size.map((size) => random(size)), options(PLANES.coronal, { value: 1 + random(3) }));
    editor.strokeEnd();
    if (n % 4 === 0) editor.undo();
    if (n % 8 === 0) editor.redo();
  }
  assert.deepEqual(mirror, editor.mask);
});

test("protected structures stay, the eraser takes the active structure only", () => {
  const grid = upright([9, 9, 1]);
  const mask = new Uint8Array(grid.count).fill(2, 0, 40).fill(1, 40);
  dab(mask, grid, [4, 4, 0], PLANES.axial, 20, false, { value: 3, only: writable(3, null, [2]), range: null });
  assert.ok(mask.subarray(0, 40).every((value) => value === 2));
  assert.ok(mask.subarray(40).every((value) => value === 3));
  dab(mask, grid, [4, 4, 0], PLANES.axial, 20, false, { value: 0, only: writable(0, 2, []), range: null });
  assert.ok(mask.subarray(0, 40).every((value) => value === 0));
  assert.ok(mask.subarray(40).every((value) => value === 3));
});

test("grow keeps to the intensities around the first touch", () => {
  const grid = upright([20, 20, 1]);
  const data = Int16Array.from({ length: grid.count }, (_, p) => (p % 20 < 10 ? 100 + (p % 3) : -50));
  const range = { data, ...rangeAround(data, grid, [4, 10, 0], PLANES.axial, 4) };
  const mask = new Uint8Array(grid.count);
  dab(mask, grid, [9, 10, 0], PLANES.axial, 5, false, { ...ink(1), range });
  for (let p = 0; p < grid.count; p++) if (mask[p]) assert.ok(p % 20 < 10);
  assert.ok(mask.some((value) => value === 1));
});

test("fill fills a closed ring and leaves an open one", () => {
  for (const plane of Object.values(PLANES)) {
    const grid = oddGrid([12, 13, 14]);
    const mask = new Uint8Array(grid.count);
    const at = (u, v) => {
      const voxel = [0, 0, 0];
      [voxel[plane.u], voxel[plane.v], voxel[plane.w]] = [u, v, 3];
      return voxel;
    };
    for (let n = 2; n <= 8; n++) for (const [u, v] of [[n, 2], [n, 8], [2, n], [8, n]]) mask[grid.at(...at(u, v))] = 1;
    const outside = flood(mask, grid, plane, at(0, 0), ink(1));
    assert.equal(outside.open, true);
    assert.equal(outside.diff.voxels, 0);
    const inside = flood(mask, grid, plane, at(5, 5), ink(1));
    assert.equal(inside.diff.voxels, 25);
    takeBack(mask, inside.diff);
    mask[grid.at(...at(5, 2))] = 0;
    assert.equal(flood(mask, grid, plane, at(5, 5), ink(1)).open, true);
  }
});

test("a diagonal line of voxels is a closed wall for fill", () => {
  const grid = upright([9, 9, 1]);
  const mask = new Uint8Array(grid.count);
  for (let n = 0; n <= 3; n++) for (const [x, y] of [[4 - n, 1 + n], [4 + n, 1 + n], [1 + n, 4 + n], [7 - n, 4 + n]]) mask[grid.at(x, y, 0)] = 1;
  assert.equal(flood(mask, grid, PLANES.axial, [4, 4, 0], ink(1)).diff.voxels, 13);
});

test("an outline by hand holds the voxels whose centres it encloses", () => {
  const grid = upright([10, 10, 2]);
  const mask = new Uint8Array(grid.count);
  const { voxels } = polygon(mask, grid, PLANES.axial, [[1.5, 1.5], [6.5, 1.5], [6.5, 4.5], [1.5, 4.5]], 1, ink(1));
  assert.equal(voxels, 15);
  for (let y = 2; y <= 4; y++) for (let x = 2; x <= 6; x++) assert.equal(mask[grid.at(x, y, 1)], 1);
});

test("an outline that leaves the image stays in it", () => {
  const grid = upright([6, 6, 1]);
  const mask = new Uint8Array(grid.count);
  assert.equal(polygon(mask, grid, PLANES.axial, [[-5, -5], [20, -5], [20, 20], [-5, 20]], 0, ink(1)).voxels, 36);
});

test("the difference of two masks leads from one to the other and back", () => {
  const random = chance(5);
  const one = Uint8Array.from({ length: 5000 }, () => random(3));
  const two = Uint8Array.from({ length: 5000 }, () => random(3));
  const diff = between(one, two);
  const copy = one.slice();
  apply(copy, diff);
  assert.deepEqual(copy, two);
  takeBack(copy, diff);
  assert.deepEqual(copy, one);
  apply(copy, diff);
  apply(copy, inverse(diff));
  assert.deepEqual(copy, one);
});

test("history forgets the oldest edits at its limit, and what is left is still exact", () => {
  const history = new History(400);
  const mask = new Uint8Array(2000);
  for (let n = 0; n < 50; n++) {
    const builder = new DiffBuilder();
    for (let m = 0; m < 5; m++) builder.add(n * 10 + m * 2, 0, 1);
    const diff = builder.done();
    apply(mask, diff);
    history.record(diff);
  }
  assert.ok(history.bytes <= 400);
  let steps = 0;
  for (let diff = history.undo(); diff; diff = history.undo()) {
    apply(mask, diff);
    steps += 1;
  }
  assert.equal(steps, 8);
  assert.equal(mask.reduce((sum, value) => sum + value), (50 - 8) * 5);
});

test("neighbouring changes in either direction become one run", () => {
  const builder = new DiffBuilder();
  for (let p = 10; p < 20; p++) builder.add(p, 0, 1);
  for (let p = 40; p > 30; p--) builder.add(p, 0, 1);
  const diff = builder.done();
  assert.deepEqual([...diff.start], [10, 31]);
  assert.deepEqual([...diff.length], [10, 10]);
});
