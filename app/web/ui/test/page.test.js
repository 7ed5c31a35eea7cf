/** Parts of the page that need no page: pixels, outlines, keys, the image's stream, saving, the ranking of slices. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Autosave } from "../src/autosave.js";
import { PLANES } from "../src/geometry.js";
import { gunzipMask, gzip } from "../src/gzip.js";
import { COMMANDS, commandsFor, keyOf, tableOf } from "../src/keys.js";
import { MODES, fitting, obstacle } from "../src/modes.js";
import { arrayOf, readImage } from "../src/nifti.js";
import { grey, outlines, overlay, palette, Window } from "../src/render.js";
import { ranking } from "../src/strip.js";
import { chance, oddGrid, upright } from "./helpers.js";

test("a picture shows every voxel at its place, high ends left and top, in all planes and types", () => {
  const grid = oddGrid([4, 5, 6]);
  const random = chance(2);
  for (const type of [Uint8Array, Int8Array, Int16Array, Uint16Array, Int32Array, Float32Array, Float64Array]) {
    const data = type.from({ length: grid.count }, () => random(200) - (type.name.startsWith("Uint") ? 0 : 100));
    const window = new Window(-50, 120);
    for (const plane of Object.values(PLANES)) {
      const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
      const out = new Uint32Array(nu * nv);
      grey(out, data, grid, plane, 2, window);
      for (let y = 0; y < nv; y++) for (let x = 0; x < nu; x++) {
        const voxel = [0, 0, 0];
        [voxel[plane.u], voxel[plane.v], voxel[plane.w]] = [nu - 1 - x, nv - 1 - y, 2];
        const expected = Math.round(Math.min(1, Math.max(0, (data[grid.at(...voxel)] + 50) / 170)) * 255);
        assert.equal(out[x + y * nu] & 0xff, expected);
        assert.equal(out[x + y * nu] >>> 24, 255);
      }
    }
  }
});

test("a part of the overlay painted anew is what painting all of it gives", () => {
  const grid = oddGrid([6, 7, 8]);
  const random = chance(4);
  const mask = Uint8Array.from({ length: grid.count }, () => random(3));
  const table = palette([{ value: 1, colour: "#e69f00" }, { value: 2, colour: "#56b4e9" }], new Set([2]), 0.5);
  assert.equal(table[1], 0x80009fe6);
  assert.equal(table[2], 0);
  const { axial } = PLANES;
  const whole = new Uint32Array(grid.size[0] * grid.size[1]);
  overlay(whole, mask, grid, axial, 1, table, { x0: 0, x1: grid.size[0] - 1, y0: 0, y1: grid.size[1] - 1 });
  const part = new Uint32Array(whole.length);
  overlay(part, mask, grid, axial, 1, table, { x0: 2, x1: 4, y0: 1, y1: 3 });
  for (let y = 0; y < grid.size[1]; y++) for (let x = 0; x < grid.size[0]; x++) {
    const q = x + y * grid.size[0];
    assert.equal(part[q], x >= 2 && x <= 4 && y >= 1 && y <= 3 ? whole[q] : 0);
  }
});

test("outlines cover exactly the edges between a structure and anything else", () => {
  const random = chance(6);
  const grid = upright([7, 6, 2]);
  const wanted = Uint8Array.from({ length: 256 }, (_, n) => n);
  for (let n = 0; n < 50; n++) {
    const mask = Uint8Array.from({ length: grid.count }, () => (random(2) ? random(3) : 0));
    const at = (x, y) => (x < 0 || y < 0 || x > 6 || y > 5 ? 0 : mask[grid.at(6 - x, 5 - y, 1)]);
    const found = new Map();
    for (const [value, line] of outlines(mask, grid, PLANES.axial, 1, wanted)) {
      for (let m = 0; m < line.length; m += 4) {
        const [x0, y0, x1, y1] = line.slice(m, m + 4);
        for (let s = 0; s < Math.max(x1 - x0, y1 - y0); s++) {
          const key = y0 === y1 ? `${value} h ${x0 + s} ${y0}` : `${value} v ${x0} ${y0 + s}`;
          assert.ok(!found.has(key), `twice: ${key}`);
          found.set(key, true);
        }
      }
    }
    const expected = new Set();
    for (let y = 0; y <= 6; y++) for (let x = 0; x <= 7; x++) {
      for (const [one, two, key] of [[at(x, y), at(x, y - 1), `h ${x} ${y}`], [at(x, y), at(x - 1, y), `v ${x} ${y}`]]) {
        if (one === two) continue;
        if (one) expected.add(`${one} ${key}`);
        if (two) expected.add(`${two} ${key}`);
      }
    }
    assert.deepEqual([...found.keys()].sort(), [...expected].sort());
  }
});

test("no key does two things, and every command has one", () => {
  const structures = Array.from({ length: 12 }, (_, n) => ({ name: `organ_${n}` }));
  const windows = Array.from({ length: 5 }, (_, n) => ({ name: `window ${n}` }));
  const commands = commandsFor(structures, windows);
  assert.ok(tableOf(commands).size >= COMMANDS.length);
  assert.ok(commands.every(({ keys, words }) => keys.length && words));
  assert.throws(() => tableOf([...commands, { id: "again", keys: ["p"], words: "" }]), /p is bound/);
});

test("a key event is read by what is on the key, brackets and digits by their place", () => {
  const event = (more) => ({ ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, code: "", ...more });
  assert.equal(keyOf(event({ key: "p", code: "KeyP" })), "p");
  assert.equal(keyOf(event({ key: "Z", code: "KeyY", shiftKey: true, ctrlKey: true })), "Ctrl+Shift+z");
  assert.equal(keyOf(event({ key: "ü", code: "BracketLeft" })), "[");
  assert.equal(keyOf(event({ key: "!", code: "Digit1", shiftKey: true })), "Shift+1");
  assert.equal(keyOf(event({ key: "?", code: "Minus", shiftKey: true })), "?");
  assert.equal(keyOf(event({ key: " ", code: "Space" })), "Space");
});

function niftiOf(values, shape) {
  const head = new ArrayBuffer(352);
  const view = new DataView(head);
  view.setInt32(0, 348, true);
  [3, ...shape].forEach((value, n) => view.setInt16(40 + 2 * n, value, true));
  view.setInt16(70, 4, true);
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  return Buffer.concat([Buffer.from(head), Buffer.from(values.buffer)]);
}

test("an image that comes in pieces of any size is whole in the end", async () => {
  const values = Int16Array.from({ length: 60 }, (_, n) => n * 7 - 200);
  const file = niftiOf(values, [3, 4, 5]);
  for (const size of [1, 7, 351, 353, 1000]) {
    const stream = new ReadableStream({
      start(controller) {
        for (let n = 0; n < file.length; n += size) controller.enqueue(new Uint8Array(file.subarray(n, n + size)));
        controller.close();
      },
    });
    const image = { data: new (arrayOf("int16"))(60), shape: [3, 4, 5] };
    const seen = [];
    await readImage(stream, image, (arrived) => seen.push(arrived));
    assert.deepEqual(image.data, values);
    assert.equal(seen.at(-1), 60);
  }
});

test("an image that ends early or is another one is refused", async () => {
  const values = new Int16Array(60);
  const stream = (file) => new Blob([file]).stream();
  const image = () => ({ data: new Int16Array(60), shape: [3, 4, 5] });
  await assert.rejects(readImage(stream(niftiOf(values, [3, 4, 5]).subarray(0, 400)), image(), () => {}), /whole/);
  await assert.rejects(readImage(stream(niftiOf(values, [5, 4, 3])), image(), () => {}), /announced/);
});

test("a mask is packed and unpacked as it was; a wrong number of voxels is refused", async () => {
  const mask = Uint8Array.from({ length: 100000 }, (_, n) => (n % 1000 < 30 ? 3 : 0));
  const packed = await gzip(mask);
  assert.deepEqual(await gunzipMask(packed, mask.length), mask);
  await assert.rejects(gunzipMask(packed, mask.length - 1), /more voxels/);
  await assert.rejects(gunzipMask(packed, mask.length + 1), /fewer voxels/);
});

test("the most uncertain slices come in order, each hill once", () => {
  assert.deepEqual(ranking([0, 0.1, 0.9, 0.8, 0.1, 0, 0, 0.5, 0.2, 0]), [2, 7]);
  assert.deepEqual(ranking([0, 0, 0]), []);
});

/** An autosave whose server and keeper are functions of the test. */
function saving(put) {
  const calls = [];
  const save = new Autosave({
    path: "mask", sitting: "s", number: 0, reading: () => ({}),
    keeper: { ask: async (task, fields) => (calls.push([task, fields?.number]), { packed: new ArrayBuffer(9), revision: save.revision }) },
    api: { put },
  });
  return { save, calls };
}

test("a save that fails is kept and sent again from the same number; a confirmed one is counted", async () => {
  const paths = [];
  let down = true;
  const { save, calls } = saving(async (path) => {
    paths.push(path);
    if (down) throw Object.assign(new Error(), { offline: true });
    return { number: 1 };
  });
  save.changed(1);
  assert.equal(await save.flush(), false);
  assert.equal(save.state, "offline");
  down = false;
  assert.equal(await save.flush(), true);
  assert.equal(save.state, "saved");
  assert.equal(save.number, 1);
  assert.deepEqual(new Set(paths), new Set(["mask?base=0&sitting=s"]));
  assert.deepEqual(calls.at(-1), ["confirmed", 1]);
  clearTimeout(save.timer);
});

test("what is drawn while a save is on its way is not taken for saved", async () => {
  let finish;
  const { save } = saving(() => new Promise((resolve) => (finish = resolve)));
  save.changed(1);
  const first = save.flush();
  await new Promise((resolve) => setTimeout(resolve, 5));
  save.changed(2);
  finish({ number: 1 });
  assert.equal(await first, false);
  assert.equal(save.clean, false);
  assert.equal(save.state, "waiting");
  clearTimeout(save.timer);
});

for (const [code, status, state] of [["work.stale", 409, "stale"], ["work.tab", 409, "tab"], ["work.lease_expired", 410, "expired"], ["work.grid", 422, "refused"], ["", 401, "signed-out"], ["", 503, "offline"]]) {
  test(`an answer ${status} ${code} leaves the page ${state} and the work unsaved`, async () => {
    const { save } = saving(async () => {
      throw Object.assign(new Error(), { status, code, retry: status >= 500 });
    });
    save.changed(1);
    assert.equal(await save.flush(), false);
    assert.equal(save.state, state);
    assert.equal(save.clean, false);
    clearTimeout(save.timer);
  });
}

test("the verdict that stands out is the one that fits what is on the screen", () => {
  const info = { draft: true, reasons: [] };
  const reader = MODES.work.verdicts(info);
  assert.equal(fitting(reader, { changed: 0 }).id, "accept");
  assert.equal(fitting(reader, { changed: 3 }).id, "correct");
  assert.equal(fitting(MODES.review.verdicts(info), { changed: 0 }).id, "accept");
  assert.equal(fitting(MODES.work.verdicts({ draft: false }), { changed: 5 }).id, "correct");
  assert.match(obstacle(reader[0], { changed: 1200 }, true), /1,200 voxels/);
  assert.match(obstacle(reader[1], { changed: 0 }, true), /Accept the draft/);
  assert.equal(obstacle(reader[0], { changed: 0 }, true), null);
});
