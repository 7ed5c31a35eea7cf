/** How uncertain the model was, slice by slice: a strip beside the views; a click goes to the slice. */

/**
 * Slices from the most to the least uncertain, without the direct neighbours of one already named: a blurred edge over
 * five slices is one place to look at.
 * @param {number[]} values one per slice, 0 to 1
 */
export function ranking(values) {
  const order = values.map((_, n) => n).sort((a, b) => values[b] - values[a] || a - b);
  const taken = new Set();
  const ranked = [];
  for (const n of order) {
    if (values[n] <= 0) break;
    if ([n - 2, n - 1, n + 1, n + 2].some((near) => taken.has(near))) continue;
    taken.add(n);
    ranked.push(n);
  }
  return ranked;
}

export class Strip {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas, scene, uncertainty) {
    this.canvas = canvas;
    this.scene = scene;
    this.uncertainty = uncertainty;
    this.pane = scene.panes.find((pane) => scene.grid.perm[pane.plane.w] === uncertainty.axis);
    this.at = -1;
    canvas.addEventListener("pointerdown", (event) => this.#go(event));
    canvas.addEventListener("pointermove", (event) => event.buttons && this.#go(event));
    scene.on("moved", () => this.draw());
    scene.on("structure", () => {
      this.at = -1;
      this.draw();
    });
  }

  /** Values by the image's own slice index: of the active structure where there are some, else of the exam. */
  get values() {
    return this.uncertainty.structures?.[this.scene.structure?.name] ?? this.uncertainty.exam;
  }

  /** Image slice ↔ RAS slice of the view (its own inverse). */
  turn(n) {
    const { w } = this.pane.plane;
    return this.scene.grid.flip[w] ? this.scene.grid.size[w] - 1 - n : n;
  }

  /** @returns {{slice: number, rank: number, of: number}|null} */
  jump(most) {
    const ranked = ranking(this.values);
    if (!ranked.length) return null;
    this.at = most ? 0 : (this.at + 1) % ranked.length;
    const voxel = this.scene.cross.slice();
    voxel[this.pane.plane.w] = this.turn(ranked[this.at]);
    this.scene.setFocus(this.pane);
    this.scene.moveTo(voxel);
    return { slice: voxel[this.pane.plane.w] + 1, rank: this.at + 1, of: ranked.length };
  }

  #go(event) {
    const box = this.canvas.getBoundingClientRect();
    const { w } = this.pane.plane;
    const voxel = this.scene.cross.slice();
    // Top is the highest slice, as the body stands.
    voxel[w] = Math.floor((1 - (event.clientY - box.top) / box.height) * this.scene.grid.size[w]);
    this.scene.setFocus(this.pane);
    this.scene.moveTo(voxel);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const box = this.canvas.getBoundingClientRect();
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (!width || !height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    const c = this.canvas.getContext("2d");
    const count = this.scene.grid.size[this.pane.plane.w];
    const top = Math.max(...this.values, 1e-9);
    c.fillStyle = "#0b0c0e";
    c.fillRect(0, 0, width, height);
    for (let n = 0; n < count; n++) {
      const value = this.values[this.turn(n)] ?? 0;
      const share = value / top;
      c.fillStyle = `hsl(${45 - 35 * share} 90% ${20 + 45 * share}%)`;
      const y = height * (1 - (n + 1) / count);
      c.fillRect(0, y, Math.max(ratio, width * share), Math.ceil(height / count));
    }
    const y = height * (1 - (this.scene.cross[this.pane.plane.w] + 0.5) / count);
    c.fillStyle = "#ffd666";
    c.fillRect(0, y - ratio, width, 2 * ratio);
  }
}
