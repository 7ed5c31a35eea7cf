/**
 * One view: a slice of one plane with overlay, outlines, crosshair, brush and letters, on one canvas.
 *
 * Grey picture and overlay are kept at voxel resolution on canvases of their own; a stroke writes only the changed
 * rectangle of the overlay again. Zoom and pan are in millimetres, so that voxels that are not square are shown true.
 */
import { grey, outlines, overlay } from "./render.js";

const TITLES = { axial: "Axial", coronal: "Coronal", sagittal: "Sagittal" };

export class Pane {
  /**
   * @param {HTMLElement} element holds the canvas
   * @param {import("./geometry.js").Plane} plane
   * @param {object} scene what all views share (see scene.js)
   */
  constructor(element, plane, scene) {
    this.element = element;
    this.plane = plane;
    this.scene = scene;
    this.canvas = element.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    const { grid } = scene;
    this.nu = grid.size[plane.u];
    this.nv = grid.size[plane.v];
    this.greyCanvas = canvasOf(this.nu, this.nv);
    this.overCanvas = canvasOf(this.nu, this.nv);
    this.greyImage = new ImageData(this.nu, this.nv);
    this.greyPixels = new Uint32Array(this.greyImage.data.buffer);
    this.overImage = new ImageData(this.nu, this.nv);
    this.overPixels = new Uint32Array(this.overImage.data.buffer);
    this.zoom = 1;
    this.pan = [0, 0];
    this.staleGrey = true;
    this.staleOver = { x0: 0, x1: this.nu - 1, y0: 0, y1: this.nv - 1 };
    this.lines = null;
    this.pointer = null;
    /** Whether the next frame has to draw this view. */
    this.dirty = true;
    this.resize();
  }

  get slice() {
    return this.scene.cross[this.plane.w];
  }

  get title() {
    return TITLES[this.plane.name];
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const box = this.element.getBoundingClientRect();
    this.ratio = ratio;
    this.width = Math.max(1, Math.round(box.width * ratio));
    this.height = Math.max(1, Math.round(box.height * ratio));
    if (this.canvas.width !== this.width || this.canvas.height !== this.height) {
      this.canvas.width = this.width;
      this.canvas.height = this.height;
    }
  }

  /** Device pixels per voxel along u and v, and the place of the picture's top left corner. */
  frame() {
    const { grid } = this.scene;
    const [su, sv] = [grid.spacing[this.plane.u], grid.spacing[this.plane.v]];
    const fit = Math.min(this.width / (this.nu * su), this.height / (this.nv * sv)) * 0.96;
    const scale = fit * this.zoom;
    const [w, h] = [this.nu * su * scale, this.nv * sv * scale];
    return {
      du: su * scale,
      dv: sv * scale,
      x: (this.width - w) / 2 + this.pan[0] * scale,
      y: (this.height - h) / 2 + this.pan[1] * scale,
      w,
      h,
      scale,
    };
  }

  /** RAS voxel (fractional in the plane) under a point of the page. */
  voxelAt(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const f = this.frame();
    const x = ((clientX - box.left) * this.ratio - f.x) / f.du;
    const y = ((clientY - box.top) * this.ratio - f.y) / f.dv;
    const voxel = this.scene.cross.slice();
    voxel[this.plane.u] = this.nu - 0.5 - x;
    voxel[this.plane.v] = this.nv - 0.5 - y;
    return voxel;
  }

  /** Centre of a RAS voxel in device pixels of the canvas. */
  place(voxel) {
    const f = this.frame();
    return [f.x + (this.nu - 0.5 - voxel[this.plane.u]) * f.du, f.y + (this.nv - 0.5 - voxel[this.plane.v]) * f.dv];
  }

  /** Zooms about a point of the page. */
  zoomBy(factor, clientX, clientY) {
    const before = this.voxelAt(clientX, clientY);
    this.zoom = Math.min(40, Math.max(0.3, this.zoom * factor));
    const after = this.voxelAt(clientX, clientY);
    // What was under the pointer stays there: u and v run against the screen's axes.
    const { spacing } = this.scene.grid;
    this.pan[0] -= (after[this.plane.u] - before[this.plane.u]) * spacing[this.plane.u];
    this.pan[1] -= (after[this.plane.v] - before[this.plane.v]) * spacing[this.plane.v];
  }

  panBy(dx, dy) {
    const { scale } = this.frame();
    this.pan[0] += (dx * this.ratio) / scale;
    this.pan[1] += (dy * this.ratio) / scale;
  }

  reset() {
    this.zoom = 1;
    this.pan = [0, 0];
  }

  /** The picture under the overlay changed (slice, window, values arrived). */
  touchGrey() {
    this.dirty = true;
    this.staleGrey = true;
  }

  /** The whole overlay changed. */
  touchOver() {
    this.dirty = true;
    this.staleOver = { x0: 0, x1: this.nu - 1, y0: 0, y1: this.nv - 1 };
    this.lines = null;
  }

  /** A box of RAS voxels changed. */
  touchBox(low, high) {
    const { u, v, w } = this.plane;
    if (this.slice < low[w] || this.slice > high[w]) return;
    this.dirty = true;
    const box = { x0: this.nu - 1 - high[u], x1: this.nu - 1 - low[u], y0: this.nv - 1 - high[v], y1: this.nv - 1 - low[v] };
    const old = this.staleOver;
    this.staleOver = old
      ? { x0: Math.min(old.x0, box.x0), x1: Math.max(old.x1, box.x1), y0: Math.min(old.y0, box.y0), y1: Math.max(old.y1, box.y1) }
      : box;
    this.lines = null;
  }

  draw() {
    this.dirty = false;
    const { scene } = this;
    const { grid } = scene;
    const { plane } = this;
    if (this.staleGrey) {
      grey(this.greyPixels, scene.image.data, grid, plane, this.slice, scene.window);
      this.greyCanvas.getContext("2d").putImageData(this.greyImage, 0, 0);
      this.staleGrey = false;
    }
    const mask = scene.shown();
    const over = scene.overlayOn && mask.length > 0;
    const fill = over && scene.overlayStyle !== "outline";
    if (this.staleOver && fill) {
      const box = this.staleOver;
      overlay(this.overPixels, mask, grid, plane, this.slice, scene.palette, box);
      this.overCanvas
        .getContext("2d")
        .putImageData(this.overImage, 0, 0, box.x0, box.y0, box.x1 - box.x0 + 1, box.y1 - box.y0 + 1);
      this.staleOver = null;
    }
    const c = this.context;
    const f = this.frame();
    c.fillStyle = "#000";
    c.fillRect(0, 0, this.width, this.height);
    c.imageSmoothingEnabled = scene.smooth;
    c.imageSmoothingQuality = "low";
    c.drawImage(this.greyCanvas, f.x, f.y, f.w, f.h);
    if (fill) {
      c.imageSmoothingEnabled = false;
      c.drawImage(this.overCanvas, f.x, f.y, f.w, f.h);
    }
    if (over && scene.overlayStyle !== "fill") this.#outlines(f, mask);
    if (scene.crosshair) this.#crosshair(f);
    this.#trace();
    this.#brush(f);
    this.#words();
  }

  #outlines(f, mask) {
    const { scene } = this;
    const wanted = new Uint8Array(256);
    for (const { value } of scene.structures) if (!scene.hidden.has(value)) wanted[value] = value;
    this.lines ??= outlines(mask, scene.grid, this.plane, this.slice, wanted);
    const c = this.context;
    c.lineWidth = Math.max(1.5, 1.5 * this.ratio);
    for (const [value, line] of this.lines) {
      c.strokeStyle = scene.structures.find((one) => one.value === value)?.colour ?? "#fff";
      c.beginPath();
      for (let n = 0; n < line.length; n += 4) {
        c.moveTo(f.x + line[n] * f.du, f.y + line[n + 1] * f.dv);
        c.lineTo(f.x + line[n + 2] * f.du, f.y + line[n + 3] * f.dv);
      }
      c.stroke();
    }
  }

  #crosshair(f) {
    const c = this.context;
    const [x, y] = this.place(this.scene.cross);
    const gap = Math.max(10 * this.ratio, f.du);
    c.strokeStyle = "rgba(255, 214, 102, 0.75)";
    c.lineWidth = this.ratio;
    c.beginPath();
    c.moveTo(f.x, y);
    c.lineTo(x - gap, y);
    c.moveTo(x + gap, y);
    c.lineTo(f.x + f.w, y);
    c.moveTo(x, f.y);
    c.lineTo(x, y - gap);
    c.moveTo(x, y + gap);
    c.lineTo(x, f.y + f.h);
    c.stroke();
  }

  /** The line of a contour that is being drawn. */
  #trace() {
    const trace = this.scene.trace;
    if (!trace || trace.plane !== this.plane || trace.points.length < 2) return;
    const c = this.context;
    c.strokeStyle = "#fff";
    c.lineWidth = 1.5 * this.ratio;
    c.beginPath();
    trace.points.forEach(([u, v], n) => {
      const voxel = [0, 0, 0];
      voxel[this.plane.u] = u;
      voxel[this.plane.v] = v;
      const [x, y] = this.place(voxel);
      if (n) c.lineTo(x, y);
      else c.moveTo(x, y);
    });
    c.closePath();
    c.stroke();
  }

  #brush(f) {
    const { scene } = this;
    if (!this.pointer || !scene.brushShown()) return;
    const box = this.canvas.getBoundingClientRect();
    const c = this.context;
    const radius = scene.radius * f.scale;
    c.beginPath();
    c.arc((this.pointer[0] - box.left) * this.ratio, (this.pointer[1] - box.top) * this.ratio, radius, 0, 2 * Math.PI);
    c.lineWidth = 3 * this.ratio;
    c.strokeStyle = "rgba(0, 0, 0, 0.6)";
    c.stroke();
    c.lineWidth = 1.25 * this.ratio;
    c.strokeStyle = scene.brushColour();
    c.stroke();
  }

  #words() {
    const { scene } = this;
    const c = this.context;
    const size = 14 * this.ratio;
    const margin = 8 * this.ratio;
    // Both axes run against the screen: the high end is at the left, and at the top.
    const [left, right] = scene.grid.letters(this.plane.u).reverse();
    const [top, bottom] = scene.grid.letters(this.plane.v).reverse();
    c.font = `600 ${size}px system-ui, sans-serif`;
    c.lineWidth = 3 * this.ratio;
    c.strokeStyle = "rgba(0, 0, 0, 0.8)";
    c.fillStyle = "#f2e6c8";
    const write = (text, x, y, align, baseline) => {
      c.textAlign = align;
      c.textBaseline = baseline;
      c.strokeText(text, x, y);
      c.fillText(text, x, y);
    };
    write(left, margin, this.height / 2, "left", "middle");
    write(right, this.width - margin, this.height / 2, "right", "middle");
    write(top, this.width / 2, margin, "center", "top");
    write(bottom, this.width / 2, this.height - margin, "center", "bottom");
    c.font = `${12 * this.ratio}px system-ui, sans-serif`;
    c.fillStyle = "#dfe2e6";
    const { grid } = scene;
    write(`${this.title}  ${this.slice + 1} / ${grid.size[this.plane.w]}`, margin, margin, "left", "top");
    write(scene.reading(), margin, this.height - margin, "left", "bottom");
    const { low, high } = scene.window;
    const width = Math.round(high - low);
    write(`L ${Math.round((low + high) / 2)}  W ${width}`, this.width - margin, this.height - margin, "right", "bottom");
  }
}

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}
