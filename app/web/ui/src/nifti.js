/** NIfTI-1, little-endian, uncompressed, as the server sends images: header and typed view of the values. */

const TYPES = {
  2: Uint8Array,
  4: Int16Array,
  8: Int32Array,
  16: Float32Array,
  64: Float64Array,
  256: Int8Array,
  512: Uint16Array,
  768: Uint32Array,
};

const NAMES = {
  uint8: Uint8Array,
  int16: Int16Array,
  int32: Int32Array,
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
};

/** Typed array class of a numpy type name as the server names it. */
export function arrayOf(dtype) {
  const type = NAMES[String(dtype).replace(/^[<|=]/, "")];
  if (!type) throw new Error(`The image has values of type ${dtype}, which this page does not read.`);
  return type;
}

/**
 * @param {ArrayBuffer} buffer at least the 348 bytes of the header
 * @returns {{shape: number[], type: Function, offset: number, bytes: number, slope: number, intercept: number}}
 */
export function header(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < 348 || view.getInt32(0, true) !== 348) throw new Error("The image is not little-endian NIfTI-1.");
  const shape = [1, 2, 3].map((n) => view.getInt16(40 + 2 * n, true));
  const type = TYPES[view.getInt16(70, true)];
  if (!type) throw new Error(`The image has NIfTI data type ${view.getInt16(70, true)}, which this page does not read.`);
  const slope = view.getFloat32(112, true);
  return {
    shape,
    type,
    offset: view.getFloat32(108, true),
    bytes: shape[0] * shape[1] * shape[2] * type.BYTES_PER_ELEMENT,
    slope: slope === 0 || Number.isNaN(slope) ? 1 : slope,
    intercept: slope === 0 || Number.isNaN(slope) ? 0 : view.getFloat32(116, true),
  };
}

/**
 * Reads an image from a stream straight into its final place: no second copy of the values is ever held.
 * @param {ReadableStream<Uint8Array>} stream
 * @param {{data: ArrayLike<number>, shape: number[]}} image where the values go; type and shape must be the file's
 * @param {(arrived: number) => void} report called as values arrive, with how many are there from the start of the array
 * @returns {Promise<{slope: number, intercept: number}>}
 */
export async function readImage(stream, image, report) {
  const reader = stream.getReader();
  const { data } = image;
  const values = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let head = new Uint8Array(0);
  let fields = null;
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    let chunk = value;
    if (!fields) {
      const joined = new Uint8Array(head.length + chunk.length);
      joined.set(head);
      joined.set(chunk, head.length);
      head = joined;
      if (head.length < 352) continue;
      const read = header(head.buffer);
      if (head.length < read.offset) continue;
      if (read.type !== data.constructor || read.bytes !== values.length || String(read.shape) !== String(image.shape)) {
        throw new Error("The image is not of the size or type that the server announced.");
      }
      fields = read;
      chunk = head.subarray(fields.offset);
    }
    if (at + chunk.length > values.length) chunk = chunk.subarray(0, values.length - at);
    values.set(chunk, at);
    at += chunk.length;
    report(Math.floor(at / data.BYTES_PER_ELEMENT));
  }
  if (at !== values.length) throw new Error("The image did not arrive whole.");
  return fields;
}
