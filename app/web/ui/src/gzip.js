/** gzip both ways with the browser's own streams; a mask of known size goes straight into its place. */

/** @param {BufferSource} bytes @returns {Promise<ArrayBuffer>} */
export async function gzip(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
}

/**
 * @param {ArrayBuffer|Uint8Array} packed @param {number} count voxels that must come out, no more and no fewer
 * @returns {Promise<Uint8Array>}
 */
export async function gunzipMask(packed, count) {
  const mask = new Uint8Array(count);
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > count) throw new Error("The mask has more voxels than the image.");
    mask.set(value, at);
    at += value.length;
  }
  if (at !== count) throw new Error("The mask has fewer voxels than the image.");
  return mask;
}
