/**
 * The three-dimensional view, drawn by NiiVue from a reduced copy of image and segmentation.
 *
 * The slices are not drawn by NiiVue: it keeps the whole grid as RGBA textures and builds them anew at each change of
 * window (512×512×300 under software rendering: 11 s; see docs/results/review.md). The view is
 * optional: without WebGL2 everything else works.
 */

const LARGEST = 128;

export class Volume {
  constructor(app, canvas, words) {
    this.app = app;
    this.canvas = canvas;
    this.words = words;
    this.on = false;
    // Asked once the exam is there: a WebGL context takes its time, and the first slice comes first.
    app.scene.on("ready", () => setTimeout(() => this.#ask() === "hardware" && this.toggle(true), 500));
    app.scene.on("edited", () => this.later());
    app.scene.on("overlay", () => this.later());
    app.scene.on("moved", () => this.cross());
  }

  #ask() {
    if (this.possible) return this.possible;
    this.possible = capability();
    this.words.textContent =
      this.possible === "none"
        ? "No three-dimensional view: this browser has no WebGL2. Reading, drawing and handing in work without it."
        : "T shows the volume in three dimensions.";
    return this.possible;
  }

  async toggle(on = !this.on) {
    if (this.#ask() === "none") return;
    this.on = on;
    this.canvas.hidden = !on;
    this.words.hidden = on;
    if (!on || !this.app.ready || !this.app.imageWhole) return;
    try {
      await this.#open();
    } catch {
      this.on = false;
      this.canvas.hidden = true;
      this.words.hidden = false;
      this.words.textContent = "The three-dimensional view could not start. Reading, drawing and handing in work without it.";
    }
  }

  async #open() {
    if (!this.viewer) {
      const { Niivue, NVImage, SLICE_TYPE } = await import("@niivue/niivue");
      this.NVImage = NVImage;
      this.viewer = new Niivue({
        isResizeCanvas: true, dragAndDropEnabled: false, show3Dcrosshair: true, backColor: [0, 0, 0, 1],
        isOrientCube: true, loadingText: "", logLevel: "error", crosshairColor: [1, 0.84, 0.4, 0.8],
      });
      await this.viewer.attachToCanvas(this.canvas);
      this.viewer.setSliceType(SLICE_TYPE.RENDER);
    }
    await this.#load();
  }

  later() {
    if (!this.on) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load().catch(() => {}), 1500);
  }

  /** Reduced copies: nearest voxels, at most 128 along each axis, in RAS order. */
  async #load() {
    const { scene } = this.app;
    const { grid, image } = scene;
    const step = grid.size.map((size) => Math.ceil(size / LARGEST));
    const size = grid.size.map((count, d) => Math.floor((count + step[d] - 1) / step[d]));
    const grey = new Uint8Array(size[0] * size[1] * size[2]);
    const label = new Uint8Array(grey.length);
    const mask = scene.shown();
    for (let z = 0, q = 0; z < size[2]; z++) {
      for (let y = 0; y < size[1]; y++) {
        for (let x = 0; x < size[0]; x++, q++) {
          const p = grid.at(x * step[0], y * step[1], z * step[2]);
          grey[q] = scene.window.grey(image.data[p]);
          label[q] = scene.hidden.has(mask[p]) ? 0 : mask[p];
        }
      }
      // A slab at a time: the page stays at hand.
      if (z % 16 === 15) await new Promise((resolve) => setTimeout(resolve));
    }
    const spacing = grid.spacing.map((one, d) => one * step[d]);
    const make = async (values, name) => {
      const volume = await this.NVImage.loadFromUrl({ url: URL.createObjectURL(nifti(values, size, spacing)), name });
      return volume;
    };
    while (this.viewer.volumes.length) this.viewer.removeVolume(this.viewer.volumes[0]);
    const base = await make(grey, "image.nii");
    this.viewer.addVolume(base);
    const over = await make(label, "label.nii");
    over.setColormapLabel(lookup(scene.structures));
    over.opacity = 0.8;
    this.viewer.addVolume(over);
    this.size = size;
    this.step = step;
    this.cross();
  }

  cross() {
    if (!this.on || !this.viewer?.volumes.length) return;
    const { cross, grid } = this.app.scene;
    this.viewer.scene.crosshairPos = cross.map((value, d) => (value + 0.5) / grid.size[d]);
    this.viewer.drawScene();
  }
}

/** @returns {"none"|"software"|"hardware"} software rendering is too slow to start unasked */
function capability() {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return "none";
  const named = context.getExtension("WEBGL_debug_renderer_info");
  const renderer = String(context.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : context.RENDERER));
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(renderer) ? "software" : "hardware";
}

function lookup(structures) {
  const rgb = (colour) => [1, 3, 5].map((n) => parseInt(colour.slice(n, n + 2), 16));
  const all = [{ value: 0, colour: "#000000", name: "background" }, ...structures];
  return {
    R: all.map(({ colour }) => rgb(colour)[0]),
    G: all.map(({ colour }) => rgb(colour)[1]),
    B: all.map(({ colour }) => rgb(colour)[2]),
    A: all.map(({ value }) => (value ? 255 : 0)),
    I: all.map(({ value }) => value),
    labels: all.map(({ name }) => name),
  };
}

/** A NIfTI-1 file of 8-bit values, on an upright grid: enough for a picture in three dimensions. */
function nifti(values, size, spacing) {
  const buffer = new ArrayBuffer(352);
  const view = new DataView(buffer);
  view.setInt32(0, 348, true);
  [3, ...size, 1, 1, 1, 1].forEach((value, n) => view.setInt16(40 + 2 * n, value, true));
  view.setInt16(70, 2, true);
  view.setInt16(72, 8, true);
  [1, ...spacing].forEach((value, n) => view.setFloat32(76 + 4 * n, value, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setInt16(254, 1, true);
  spacing.forEach((value, n) => view.setFloat32(280 + 16 * n + 4 * n, value, true));
  view.setUint32(344, 0x00312b6e, true);
  return new Blob([buffer, values]);
}
