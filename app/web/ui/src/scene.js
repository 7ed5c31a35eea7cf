/** What all views share: image, mask, crosshair, window, overlay, tool. Asks for one repaint per frame. */
import { PLANES } from "./geometry.js";
import { Pane } from "./pane.js";
import { palette, Window } from "./render.js";

export const TOOLS = ["navigate", "pen", "eraser", "grow", "fill", "outline"];

export class Scene {
  /**
   * @param {object} info the assignment as the server describes it
   * @param {import("./geometry.js").Grid} grid
   */
  constructor(info, grid, data) {
    this.info = info;
    this.grid = grid;
    this.structures = info.structures;
    this.image = { data, shape: grid.shape, arrived: 0, slope: 1, intercept: 0, slices: new Uint8Array(grid.shape[2]) };
    this.editor = null;
    this.other = null;
    this.cross = grid.size.map((size) => Math.floor(size / 2));
    this.overlayOn = true;
    this.overlayStyle = "fill";
    this.opacity = 0.4;
    this.hidden = new Set();
    this.locked = new Set();
    this.protect = true;
    this.crosshair = true;
    this.smooth = true;
    this.tool = "navigate";
    this.radius = 5;
    this.ball = false;
    this.range = null;
    this.trace = null;
    this.active = info.structures[0]?.value ?? 1;
    this.empty = new Uint8Array(0);
    this.listeners = new Map();
    this.panes = [];
    this.pending = false;
    const first = info.windows?.[0] ?? { ...info.intensity, name: "full" };
    this.windowName = first.name;
    this.window = new Window(first.low, first.high);
    this.#colours();
  }

  on(name, listener) {
    this.listeners.set(name, [...(this.listeners.get(name) ?? []), listener]);
  }

  tell(name, detail) {
    for (const listener of this.listeners.get(name) ?? []) listener(detail);
  }

  attach(elements) {
    this.panes = Object.values(PLANES).map((plane) => new Pane(elements[plane.name], plane, this));
    this.focus = this.panes.find((pane) => pane.plane === this.grid.acquired());
  }

  get structure() {
    return this.structures.find((one) => one.value === this.active);
  }

  /** Mask that is shown: the reader's, or what they look at for comparison. */
  shown() {
    return this.other?.mask ?? this.editor?.mask ?? this.empty;
  }

  /** @param {boolean} all every view; else only those that something touched */
  paint(all = true) {
    if (all) for (const pane of this.panes) pane.dirty = true;
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      for (const pane of this.panes) if (pane.dirty && !pane.element.hidden) pane.draw();
      this.tell("painted");
    });
  }

  moveTo(voxel) {
    const next = voxel.map((value, d) => Math.max(0, Math.min(this.grid.size[d] - 1, Math.round(value))));
    for (const pane of this.panes) {
      if (next[pane.plane.w] === this.cross[pane.plane.w]) continue;
      pane.touchGrey();
      pane.touchOver();
    }
    this.cross = next;
    this.tell("moved");
    this.paint();
  }

  step(pane, count) {
    const voxel = this.cross.slice();
    voxel[pane.plane.w] += count;
    this.moveTo(voxel);
  }

  setWindow(low, high, name = "") {
    if (high - low < 1e-6) high = low + 1e-6;
    this.windowName = name;
    this.window = new Window(low, high, this.image.slope, this.image.intercept);
    for (const pane of this.panes) pane.touchGrey();
    this.tell("window");
    this.paint();
  }

  #colours() {
    this.palette = palette(this.structures, this.hidden, this.opacity);
    // A map (where readings differ) has no structures: every value above 0 in one colour.
    if (this.other?.version.map) this.palette.fill(palette([{ value: 1, colour: "#ff5fd2" }], new Set(), this.opacity)[1], 1);
  }

  overlayChanged() {
    this.#colours();
    for (const pane of this.panes) pane.touchOver();
    this.tell("overlay");
    this.paint();
  }

  /** The whole mask may differ. */
  maskChanged() {
    for (const pane of this.panes) pane.touchOver();
    this.paint();
  }

  /** Repaint what a diff touched: its box in RAS voxels, from the first and last place of each run. */
  diffPainted(diff) {
    if (diff.start.length > 20000) return this.maskChanged();
    const low = [Infinity, Infinity, Infinity];
    const high = [-1, -1, -1];
    for (let r = 0; r < diff.start.length; r++) {
      for (const p of [diff.start[r], diff.start[r] + diff.length[r] - 1]) {
        const voxel = this.grid.voxel(p);
        for (let d = 0; d < 3; d++) {
          low[d] = Math.min(low[d], voxel[d]);
          high[d] = Math.max(high[d], voxel[d]);
        }
      }
    }
    // A run may go over the end of a row: then its box is the whole row.
    if (diff.length.some((length) => length > 1)) {
      const [ni] = this.grid.shape;
      for (let r = 0; r < diff.start.length; r++) {
        if ((diff.start[r] % ni) + diff.length[r] > ni) return this.maskChanged();
      }
    }
    for (const pane of this.panes) pane.touchBox(low, high);
    this.paint(false);
  }

  valueAt(voxel) {
    return this.grid.inside(voxel) ? this.image.data[this.grid.at(...voxel)] * this.image.slope + this.image.intercept : NaN;
  }

  /** Words in the corner: intensity and structure under the crosshair. */
  reading() {
    const value = this.valueAt(this.cross);
    const label = this.shown()[this.grid.at(...this.cross)];
    const name = this.structures.find((one) => one.value === label)?.name;
    const unit = this.info.modality === "CT" ? " HU" : "";
    return `${Number.isInteger(value) ? value : value.toPrecision(4)}${unit}${name ? `  ${name.replaceAll("_", " ")}` : ""}`;
  }

  brushShown() {
    return ["pen", "eraser", "grow"].includes(this.tool);
  }

  brushColour() {
    return this.tool === "eraser" ? "#ffffff" : this.structure?.colour ?? "#ffffff";
  }

  /** What the tools write, for the editor. */
  ink(plane, erase = false) {
    const locked = this.structures.filter(({ value }) => this.protect || this.locked.has(value)).map(({ value }) => value);
    return {
      value: erase ? 0 : this.active,
      structure: erase ? this.active : null,
      locked: locked.filter((value) => value !== this.active),
      range: this.tool === "grow" && !erase ? this.range : null,
      radius: this.radius,
      ball: this.ball,
      plane,
    };
  }
}
