/** What comes and goes over the wire: gzip against node's own zlib, NIfTI of every type against bytes made by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { gunzipMask, gzip } from "../src/gzip.js";
import { arrayOf, header, readImage } from "../src/nifti.js";
import { chance } from "./helpers.js";

const TYPES = [
  ["uint8", 2, Uint8Array, "setUint8"], ["int16", 4, Int16Array, "setInt16"], ["int32", 8, Int32Array, "setInt32"],
  ["float32", 16, Float32Array, "setFloat32"], ["float64", 64, Float64Array, "setFloat64"],
  ["int8", 256, Int8Array, "setInt8"], ["uint16", 512, Uint16Array, "setUint16"], ["uint32", 768, Uint32Array, "setUint32"],
];
const SHAPE = [4, 3, 2];

function file(code, values, set, { slope = 1, intercept = 0, offset = 352, shape = SHAPE } = {}) {
  const step = values.BYTES_PER_ELEMENT;
  const buffer = new ArrayBuffer(offset + values.length * step);
  const view = new DataView(buffer);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((value, n) => view.setInt16(40 + 2 * n, value, true));
  view.setInt16(70, code, true);
  view.setInt16(72, 8 * step, true);
  view.setFloat32(108, offset, true);
  view.setFloat32(112, slope, true);
  view.setFloat32(116, intercept, true);
  values.forEach((value, n) => view[set](offset + n * step, value, true));
  return new Uint8Array(buffer);
}

const inPieces = (bytes, size) =>
  new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });

test("every type is read exactly, whatever the pieces it arrives in", async () => {
  const draw = chance(2);
  for (const [name, code, Type, set] of TYPES) {
    assert.equal(arrayOf(name), Type);
    assert.equal(arrayOf(`<${name}`), Type);
    const values = Type.from({ length: 24 }, () => draw(240) - (name.startsWith("u") ? 0 : 120));
    values[0] = name.startsWith("float") ? -1e30 : name.startsWith("u") ? 2 ** (8 * values.BYTES_PER_ELEMENT) - 1 : -(2 ** (8 * values.BYTES_PER_ELEMENT - 1));
    for (const size of [1, 7, 351, 352, 1000]) {
      for (const offset of [352, 400]) {
        const image = { data: new Type(24), shape: SHAPE };
        const told = [];
        const fields = await readImage(inPieces(file(code, values, set, { slope: 2, intercept: -3, offset }), size), image, (n) => told.push(n));
        assert.deepEqual(image.data, values);
        assert.deepEqual([fields.slope, fields.intercept], [2, -3]);
        assert.equal(told.at(-1), 24);
        assert.deepEqual(told, told.slice().sort((a, b) => a - b));
      }
    }
  }
});

test("a slope of nought or none is one", () => {
  for (const slope of [0, NaN]) {
    const { slope: read, intercept } = header(file(4, new Int16Array(24), "setInt16", { slope, intercept: 7 }).buffer);
    assert.deepEqual([read, intercept], [1, 0]);
  }
});

test("what is not the image that was announced is refused in words", async () => {
  const image = () => ({ data: new Int16Array(24), shape: SHAPE });
  const values = new Int16Array(24);
  const refused = async (bytes, words) => assert.rejects(readImage(inPieces(bytes, 64), image(), () => {}), words);
  const good = file(4, values, "setInt16");
  await refused(good.slice(0, good.length - 2), /did not arrive whole/);
  await refused(good.slice(0, 100), /did not arrive whole/);
  await refused(file(4, values, "setInt16", { shape: [3, 4, 2] }), /size or type/);
  await refused(file(512, new Uint16Array(24), "setUint16"), /size or type/);
  const big = good.slice();
  new DataView(big.buffer).setInt32(0, 348, false);
  await refused(big, /not little-endian NIfTI-1/);
  const complex = good.slice();
  new DataView(complex.buffer).setInt16(70, 32, true);
  await refused(complex, /data type 32/);
  assert.throws(() => arrayOf("complex64"), /does not read/);
});

test("a mask is packed and unpacked as zlib does it", async () => {
  const draw = chance(5);
  const mask = Uint8Array.from({ length: 100_000 }, () => (draw(10) === 0 ? 1 : 0));
  assert.deepEqual(new Uint8Array(gunzipSync(Buffer.from(await gzip(mask)))), mask);
  assert.deepEqual(await gunzipMask(gzipSync(mask), mask.length), mask);
});

test("a mask of another size is refused, also a small file that would become huge", async () => {
  const packed = gzipSync(new Uint8Array(1000));
  await assert.rejects(gunzipMask(packed, 999), /more voxels/);
  await assert.rejects(gunzipMask(packed, 1001), /fewer voxels/);
  await assert.rejects(gunzipMask(gzipSync(new Uint8Array(50_000_000)), 1000), /more voxels/);
  await assert.rejects(gunzipMask(packed.subarray(0, packed.length - 6), 1000));
  await assert.rejects(gunzipMask(new Uint8Array(1000), 1000));
});
