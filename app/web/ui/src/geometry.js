/**
 * Where a voxel lies: from the image's own voxel order (the order of the wire) to the three reading planes.
 *
 * The planes are those of the voxel grid, named by the patient axis each grid axis is nearest to, as NiiVue names them
 * (`calculateRAS`). Nothing is resampled: a plane is a pair of strides over the image's own array, so what is painted in
 * any plane is painted in the voxels that go over the wire.
 *
 * "RAS voxel" below: (x, y, z) counted from the patient's left, back and feet. x grows to the right, y to the front, z to
 * the head.
 */

/** @typedef {{name: "axial"|"coronal"|"sagittal", u: 0|1|2, v: 0|1|2, w: 0|1|2}} Plane u across, v up, w through it. */

/** @type {Record<string, Plane>} */
export const PLANES = {
  axial: { name: "axial", u: 0, v: 1, w: 2 },
  coronal: { name: "coronal", u: 0, v: 2, w: 1 },
  sagittal: { name: "sagittal", u: 1, v: 2, w: 0 },
};

const LETTERS = [
  ["L", "R"],
  ["P", "A"],
  ["I", "S"],
];

/**
 * Which voxel axis runs along each patient axis, by NiiVue's rule (first axis first, ties to the lower axis).
 * @param {number[][]} affine 4×4, voxel (i, j, k) to millimetres RAS
 * @returns {{perm: number[], flip: boolean[]}} perm[d]: voxel axis of patient axis d; flip[d]: it runs backwards
 */
export function orientation(affine) {
  const size = (world, voxel) => Math.abs(affine[world][voxel]);
  let first = 0;
  if (size(1, 0) > size(0, 0)) first = 1;
  if (size(2, 0) > size(0, 0) && size(2, 0) > size(1, 0)) first = 2;
  const [low, high] = [0, 1, 2].filter((axis) => axis !== first);
  const second = size(low, 1) > size(high, 1) ? low : high;
  const third = 3 - first - second;
  const perm = [0, 0, 0];
  perm[first] = 0;
  perm[second] = 1;
  perm[third] = 2;
  return { perm, flip: perm.map((voxel, world) => affine[world][voxel] < 0) };
}

/** The grid of one image: sizes, strides and directions in RAS order over the image's own array. */
export class Grid {
  /**
   * @param {number[]} shape voxels along i, j, k
   * @param {number[][]} affine 4×4, voxel to millimetres RAS
   */
  constructor(shape, affine) {
    this.shape = shape.slice(0, 3);
    this.affine = affine;
    this.count = shape[0] * shape[1] * shape[2];
    const { perm, flip } = orientation(affine);
    this.perm = perm;
    this.flip = flip;
    const native = [1, shape[0], shape[0] * shape[1]];
    /** Voxels along x, y, z. */
    this.size = perm.map((axis) => shape[axis]);
    /** Step in the array for one voxel along x, y, z; negative where the image runs backwards. */
    this.stride = perm.map((axis, d) => (flip[d] ? -native[axis] : native[axis]));
    /** Place in the array of RAS voxel (0, 0, 0). */
    this.origin = perm.reduce((sum, axis, d) => sum + (flip[d] ? (shape[axis] - 1) * native[axis] : 0), 0);
    /** Millimetres along x, y, z. */
    this.spacing = perm.map((axis) => Math.hypot(affine[0][axis], affine[1][axis], affine[2][axis]));
  }

  /** Place in the array of RAS voxel (x, y, z). */
  at(x, y, z) {
    return this.origin + x * this.stride[0] + y * this.stride[1] + z * this.stride[2];
  }

  /** RAS voxel of a place in the array. */
  voxel(index) {
    const [ni, nj] = this.shape;
    const native = [index % ni, Math.floor(index / ni) % nj, Math.floor(index / (ni * nj))];
    return this.perm.map((axis, d) => (this.flip[d] ? this.shape[axis] - 1 - native[axis] : native[axis]));
  }

  inside(voxel) {
    return voxel.every((value, d) => value >= 0 && value < this.size[d]);
  }

  /** The plane whose slices are the image's own k-slices: what the scanner gave, and where slices arrive first. */
  acquired() {
    const w = this.perm.indexOf(2);
    return Object.values(PLANES).find((plane) => plane.w === w);
  }

  /** Index of the image's own slice along k ↔ RAS index of the same slice (the map is its own inverse). */
  acquiredIndex(k) {
    const w = this.perm.indexOf(2);
    return this.flip[w] ? this.shape[2] - 1 - k : k;
  }

  /**
   * Letters for the two ends of patient axis d, e.g. ["L", "R"], or ["LP", "RA"] where the grid is turned by more than
   * 22.5°: the other letters of the direction, by weight.
   * @param {0|1|2} d
   */
  letters(d) {
    const axis = this.perm[d];
    const sign = this.flip[d] ? -1 : 1;
    const direction = [0, 1, 2].map((world) => (sign * this.affine[world][axis]) / this.spacing[d]);
    const order = [0, 1, 2]
      .filter((world) => world === d || Math.abs(direction[world]) > Math.sin(Math.PI / 8))
      .sort((a, b) => (a === d ? -1 : b === d ? 1 : Math.abs(direction[b]) - Math.abs(direction[a])));
    const end = (high) => order.map((world) => LETTERS[world][(direction[world] > 0) === high ? 1 : 0]).join("");
    return [end(false), end(true)];
  }

  /** Millimetres RAS of RAS voxel (x, y, z). */
  millimetres(voxel) {
    const native = [0, 0, 0];
    this.perm.forEach((axis, d) => {
      native[axis] = this.flip[d] ? this.shape[axis] - 1 - voxel[d] : voxel[d];
    });
    return [0, 1, 2].map((row) => native.reduce((sum, value, axis) => sum + value * this.affine[row][axis], this.affine[row][3]));
  }
}
