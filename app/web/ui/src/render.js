/** Pixels of one slice: grey values through a window, the overlay's colours, outlines along voxel edges. No DOM here. */

/** Grey for every stored value: a table for up to 16 bits, a formula above. */
export class Window {
  constructor(low, high, slope = 1, intercept = 0) {
    this.low = low;
    this.high = high;
    this.rawLow = (low - intercept) / slope;
    this.rawHigh = (high - intercept) / slope;
    this.table = null;
    this.kind = null;
  }

  grey(value) {
    const share = (value - this.rawLow) / (this.rawHigh - this.rawLow || 1);
    return share <= 0 ? 0 : share >= 1 ? 255 : Math.round(share * 255);
  }

  /** Table of opaque RGBA by stored value, for types of at most 16 bits. */
  tableFor(data) {
    const bytes = data.BYTES_PER_ELEMENT;
    if (bytes > 2 || data instanceof Float32Array) return null;
    if (this.kind !== data.constructor) {
      this.kind = data.constructor;
      const size = bytes === 1 ? 256 : 65536;
      this.table = new Uint32Array(size);
      const signed = data instanceof Int16Array || data instanceof Int8Array;
      for (let n = 0; n < size; n++) {
        const grey = this.grey(signed && n >= size / 2 ? n - size : n);
        this.table[n] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
      }
      this.cover = size - 1;
    }
    return this.table;
  }
}

/**
 * Grey picture of a slice as the reader sees it: first row is the top, first column the left; both axes run against the
 * patient axes (radiological convention).
 * @param {Uint32Array} out nu × nv pixels
 */
export function grey(out, data, grid, plane, w, window) {
  const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
  const [su, sv] = [grid.stride[plane.u], grid.stride[plane.v]];
  const table = window.tableFor(data);
  const cover = window.cover;
  const first = grid.origin + w * grid.stride[plane.w] + (nu - 1) * su + (nv - 1) * sv;
  for (let y = 0, q = 0; y < nv; y++) {
    let p = first - y * sv;
    if (table) for (let x = 0; x < nu; x++, q++, p -= su) out[q] = table[data[p] & cover];
    else {
      for (let x = 0; x < nu; x++, q++, p -= su) {
        const value = window.grey(data[p]);
        out[q] = 0xff000000 | (value << 16) | (value << 8) | value;
      }
    }
  }
}

/** RGBA table of the overlay: value → colour with alpha; 0 where hidden. */
export function palette(structures, hidden, opacity) {
  const table = new Uint32Array(256);
  for (const { value, colour } of structures) {
    if (hidden.has(value)) continue;
    const rgb = parseInt(colour.slice(1), 16);
    const alpha = Math.round(opacity * 255);
    table[value] = ((alpha << 24) | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
  }
  return table;
}

/**
 * Overlay picture of a part of a slice, in screen order.
 * @param {Uint32Array} out nu × nv pixels @param {{x0: number, x1: number, y0: number, y1: number}} box in screen order
 */
export function overlay(out, mask, grid, plane, w, table, box) {
  const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
  const [su, sv] = [grid.stride[plane.u], grid.stride[plane.v]];
  const first = grid.origin + w * grid.stride[plane.w] + (nu - 1) * su + (nv - 1) * sv;
  for (let y = box.y0; y <= box.y1; y++) {
    let p = first - y * sv - box.x0 * su;
    let q = y * nu + box.x0;
    for (let x = box.x0; x <= box.x1; x++, q++, p -= su) out[q] = table[mask[p]];
  }
}

/**
 * Outlines along the voxel edges of a slice, as line segments in screen voxels, by value. Edges in one row or column are
 * joined.
 * @returns {Map<number, number[]>} value → x0, y0, x1, y1, …
 */
export function outlines(mask, grid, plane, w, wanted) {
  const [nu, nv] = [grid.size[plane.u], grid.size[plane.v]];
  const [su, sv] = [grid.stride[plane.u], grid.stride[plane.v]];
  const first = grid.origin + w * grid.stride[plane.w] + (nu - 1) * su + (nv - 1) * sv;
  const lines = new Map();
  const add = (value, ...points) => {
    if (!lines.has(value)) lines.set(value, []);
    lines.get(value).push(...points);
  };
  const rowStart = new Int32Array(2);
  const rowValue = new Int32Array(2);
  const colStart = new Int32Array(nu * 2).fill(-1);
  const colValue = new Int32Array(nu * 2);
  for (let y = 0; y <= nv; y++) {
    rowStart.fill(-1);
    for (let x = 0; x <= nu; x++) {
      const p = first - y * sv - x * su;
      const here = x < nu && y < nv ? wanted[mask[p]] : 0;
      const above = x < nu && y > 0 ? wanted[mask[p + sv]] : 0;
      const left = x > 0 && y < nv ? wanted[mask[p + su]] : 0;
      // Edge above this voxel: belongs to `here` (side 0) and to `above` (side 1).
      for (let side = 0; side < 2; side++) {
        const value = here === above ? 0 : side ? above : here;
        if (rowStart[side] >= 0 && rowValue[side] !== value) {
          add(rowValue[side], rowStart[side], y, x, y);
          rowStart[side] = -1;
        }
        if (value && rowStart[side] < 0) {
          rowStart[side] = x;
          rowValue[side] = value;
        }
      }
      for (let side = 0; side < 2; side++) {
        const c = Math.min(x, nu) * 2 + side;
        if (c >= colStart.length) {
          // Right border of the image: single edges.
          const value = side ? left : 0;
          if (value) add(value, x, y, x, y + 1);
          continue;
        }
        const value = here === left ? 0 : side ? left : here;
        if (colStart[c] >= 0 && colValue[c] !== value) {
          add(colValue[c], x, colStart[c], x, y);
          colStart[c] = -1;
        }
        if (value && colStart[c] < 0) {
          colStart[c] = y;
          colValue[c] = value;
        }
      }
    }
    for (let side = 0; side < 2; side++) {
      if (rowStart[side] >= 0) add(rowValue[side], rowStart[side], y, nu, y);
    }
  }
  return lines;
}
