/** The page: loads an exam and binds image, mask, views, tools, saving and time together. */
import { Api } from "./api.js";
import { Autosave } from "./autosave.js";
import { runner } from "./commands.js";
import { ask } from "./dialogs.js";
import { concatenate } from "./diff.js";
import { Editor } from "./editor.js";
import { Grid } from "./geometry.js";
import { Keeper } from "./keeper.js";
import { bindKeys, commandsFor } from "./keys.js";
import { MODES } from "./modes.js";
import { arrayOf, readImage } from "./nifti.js";
import { buildPanel, showSave } from "./panel.js";
import { bindPointer } from "./pointer.js";
import { choose, offerKept, settle } from "./resume.js";
import { Scene } from "./scene.js";
import { keptSitting, randomName } from "./sitting.js";
import { Strip } from "./strip.js";
import { Volume } from "./volume.js";
import { WorkTime } from "./worktime.js";

const $ = (id) => document.getElementById(id);

/** Times of this page, for measuring: milliseconds since navigation. */
const marks = {};
const mark = (name) => {
  marks[name] ??= Math.round(performance.now());
};

class Workstation {
  constructor(element) {
    this.element = element;
    this.id = element.dataset.identity;
    this.mode = MODES[element.dataset.kind];
    this.api = new Api(this.mode.root(encodeURIComponent(this.id)));
    this.sitting = keptSitting(location.pathname);
    this.ready = false;
    this.finished = false;
    this.marks = marks;
    this.strokes = [];
  }

  /** Words in the line below the views; it takes its place always, so that nothing is covered and nothing moves. */
  say(words) {
    $("say").textContent = words;
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => ($("say").textContent = ""), 7000);
  }

  problem(error) {
    this.say([error.message, error.advice].filter(Boolean).join(" "));
  }

  setBusy(words) {
    this.scene.busy = Boolean(words);
    this.element.setAttribute("aria-busy", String(Boolean(words)));
    if (words) $("say").textContent = `${words} …`;
    else if ($("say").textContent.endsWith("…")) $("say").textContent = "";
  }

  async start() {
    $("back").href = this.mode.back;
    const [me, info] = await Promise.all([this.api.me(), this.api.json(this.api.root)]);
    this.me = me;
    this.info = info;
    this.key = `${me.account_id}/${this.id}`;
    const grid = new Grid(info.shape, info.affine);
    const data = new (arrayOf(info.dtype))(grid.count);
    const scene = new Scene(info, grid, data);
    this.scene = scene;
    scene.readOnly = !this.mode.editable(info);
    scene.rangeFromTouch = true;
    scene.arrivedAt = (voxel) => this.arrived(voxel);
    scene.setFocus = (pane) => this.setFocus(pane);
    scene.maximise = (pane) => this.maximise(pane);
    scene.attach(Object.fromEntries([...document.querySelectorAll(".view")].map((view) => [view.dataset.plane, view])));
    this.commands = commandsFor(info.structures, info.windows ?? []);
    this.run = runner(this);
    buildPanel(this);
    if (info.uncertainty) {
      $("strip-box").hidden = false;
      this.strip = new Strip($("strip"), scene, info.uncertainty);
    }
    for (const pane of scene.panes) {
      bindPointer(scene, pane, (words) => this.say(words));
      pane.element.addEventListener("focus", () => this.setFocus(pane));
    }
    bindKeys(this.commands, (id, event) => this.run(id, event));
    new ResizeObserver(() => this.resize()).observe($("views"));
    this.setFocus(scene.focus);
    this.volume = new Volume(this, $("volume"), $("volume-words"));
    this.time = new WorkTime({
      api: this.api, key: this.key, path: "time", newSitting: randomName, heartbeat: info.time.heartbeat_seconds,
      away: info.time.away_after_seconds,
    });
    this.time.start(scene.structure?.name);
    if (this.strip) {
      const top = this.strip.values.indexOf(Math.max(...this.strip.values));
      const voxel = scene.cross.slice();
      voxel[this.strip.pane.plane.w] = this.strip.turn(top);
      scene.moveTo(voxel);
    }
    await this.firstSlice();
    await Promise.all([this.loadImage(), this.openMask()]);
    scene.tell("ready");
    mark("ready");
    this.element.setAttribute("aria-busy", "false");
    await offerKept(this);
  }

  /** The slice the reader sees first, alone, before the volume. */
  async firstSlice() {
    await this.fetchSlice(this.acquiredSlice());
    mark("first_slice");
    this.scene.on("moved", () => this.wantSlice());
  }

  acquiredSlice() {
    const { grid, cross } = this.scene;
    return grid.acquiredIndex(cross[grid.acquired().w]);
  }

  async fetchSlice(k) {
    const { image, grid } = this.scene;
    if (image.slices[k]) return;
    const bytes = await this.api.bytesIfAny(`slice?axis=2&index=${k}`);
    if (!bytes || image.slices[k]) return;
    const count = grid.shape[0] * grid.shape[1];
    image.data.set(new image.data.constructor(bytes), k * count);
    image.slices[k] = 1;
    for (const pane of this.scene.panes) pane.touchGrey();
    this.scene.paint();
  }

  /** While the volume is on its way, the slice the reader scrolls to comes before it. */
  wantSlice() {
    if (this.imageWhole || this.wanting) return;
    this.wanting = true;
    const k = this.acquiredSlice();
    this.fetchSlice(k)
      .catch(() => {})
      .finally(() => {
        this.wanting = false;
        if (this.acquiredSlice() !== k) this.wantSlice();
      });
  }

  arrived(voxel) {
    const { grid, image } = this.scene;
    const w = grid.acquired().w;
    return this.imageWhole || Boolean(image.slices[grid.acquiredIndex(Math.round(voxel[w]))]);
  }

  async loadImage() {
    const { image, grid, panes } = this.scene;
    const perSlice = grid.shape[0] * grid.shape[1];
    let painted = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        const { stream } = await this.api.stream("image");
        const fields = await readImage(stream, image, (arrived) => {
          image.arrived = arrived;
          image.slices.fill(1, 0, Math.floor(arrived / perSlice));
          const now = performance.now();
          if (now - painted < 250) return;
          painted = now;
          $("facts").dataset.loaded = `${Math.round((100 * arrived) / grid.count)} % loaded`;
          for (const pane of panes) pane.touchGrey();
          this.scene.paint();
        });
        image.slope = fields.slope;
        image.intercept = fields.intercept;
        break;
      } catch (error) {
        if (error.status && error.status < 500 && error.status !== 429) throw error;
        if (attempt > 20 || !(error.offline || error.retry || error instanceof TypeError || error.name === "TypeError")) throw error;
        this.say("The image stopped arriving. It is fetched again.");
        await new Promise((resolve) => setTimeout(resolve, Math.min(1000 * 2 ** attempt, 15000)));
      }
    }
    this.imageWhole = true;
    delete $("facts").dataset.loaded;
    for (const pane of panes) pane.touchGrey();
    const { low, high } = this.scene.window;
    this.scene.setWindow(low, high, this.scene.windowName);
    mark("image");
    this.scene.tell("image");
  }

  /** The mask: the server's latest, this computer's, the draft, or nothing. */
  async openMask() {
    const { api, info, mode, scene } = this;
    const { grid } = scene;
    this.keeper = new Keeper("/static/dist/keeper.worker.js");
    this.keeper.onEvent = ({ event }) => {
      if (event === "no-store") this.say("This browser keeps nothing on this computer (private window or full disc). Work is saved on the server only.");
    };
    const local = mode.saves ? await this.keeper.ask("local", { key: this.key }) : null;
    const version = await choose(local, info.autosave ?? null);
    const [start, base] = [mode.start(info), mode.base(info)];
    const same = start === base && version !== "local";
    const [packed, basePacked] = await Promise.all([
      version === "local" || !start ? null : api.bytesIfAny(start),
      base && !same ? api.bytesIfAny(base) : null,
    ]);
    const number = version === "local" ? local.base : (info.autosave?.number ?? 0);
    const buffer = await this.keeper.ask("open", {
      shape: grid.shape, key: this.key, base: number, packed, local: version === "local", keep: mode.saves,
    });
    const mask = new Uint8Array(buffer);
    let draft = null;
    if (basePacked) draft = await this.unpack(basePacked);
    else if (base) draft = mask.slice();
    this.editor = new Editor(grid, mask, draft, (diff, done) => this.edited(diff, done));
    if (!base || !same) this.editor.recount();
    scene.editor = this.editor;
    scene.maskChanged();
    if (mode.saves) {
      this.save = new Autosave({
        api, keeper: this.keeper, path: "mask", sitting: this.sitting, number, reading: () => ({}),
      });
      this.save.onState = () => showSave(this);
      showSave(this);
      this.guard();
      if (version === "local") {
        this.save.revision = 1;
        this.editor.revision = 1;
        if (number !== (info.autosave?.number ?? 0)) this.save.number = info.autosave?.number ?? 0;
        this.save.changed(1);
      }
      const { mine } = await api.post("tab", { sitting: this.sitting, take: false });
      if (!mine) {
        this.save.state = "tab";
        showSave(this);
        await settle(this);
      }
    }
    this.ready = true;
    mark("mask");
    scene.tell("mask");
  }

  async unpack(packed) {
    return new Uint8Array(await this.keeper.ask("unpack", { packed, shape: this.scene.grid.shape }));
  }

  /** Sends a label made elsewhere; the server checks it and makes it an autosave, which is then shown. */
  async upload(file) {
    if (!this.ready || this.scene.busy) return;
    this.setBusy("Checking the file");
    try {
      if (!(await this.save.flush())) return this.say("First what you drew here has to be saved. Try again in a moment.");
      const query = `base=${this.save.number}&sitting=${this.sitting}`;
      const { number } = await this.api.send(`upload?${query}`, file, { "X-Redraft-Token": this.info.token });
      this.save.number = number;
      await this.load("mask");
      this.say("The file is taken over. Undo goes back to what was here.");
    } catch (error) {
      this.problem(error);
    } finally {
      this.setBusy(null);
    }
  }

  /** Replaces the mask by one of the server; an edit like any other, which undo takes back. */
  async load(path) {
    const packed = path ? await this.api.bytesIfAny(path) : null;
    this.editor.commit(await this.keeper.ask("difference", { packed }));
  }

  /** Chooses the structure the tools write. */
  choose(n) {
    const structure = this.info.structures[n];
    if (!structure || structure.value === this.scene.active) return;
    this.scene.active = structure.value;
    this.time?.structure(structure.name);
    this.scene.tell("structure");
    this.scene.tell("tool");
    this.scene.paint();
  }

  /** Shows another version in the overlay instead of the reader's; null: back. */
  async show(version) {
    const { scene } = this;
    if (!version) scene.other = null;
    else {
      let mask = version.path === this.mode.base(this.info) ? this.editor?.draft : null;
      if (!mask) mask = await this.unpack(await this.api.bytes(version.path));
      scene.other = { mask, version };
    }
    scene.overlayChanged();
    this.say(version ? `The overlay shows: ${version.name}.` : "The overlay shows your version.");
    const select = document.getElementById("version");
    if (select) select.value = version ? String(this.mode.versions(this.info).findIndex(({ path }) => path === version.path)) : "";
  }

  /** To the next version, and back to one's own after the last. */
  async compare() {
    const versions = this.mode.versions(this.info);
    if (!versions.length) return this.say("There is nothing to compare with.");
    const at = versions.findIndex(({ path }) => path === this.scene.other?.version.path);
    try {
      return await this.show(versions[at + 1] ?? null);
    } catch (error) {
      return this.problem(error);
    }
  }

  edited(diff, done) {
    if (diff) {
      this.parts = [...(this.parts ?? []), diff];
      this.scene.diffPainted(diff);
    }
    if (!done || !this.parts) return;
    const whole = concatenate(this.parts);
    this.parts = null;
    this.keeper.ask("edit", { diff: whole, revision: this.editor.revision });
    this.save?.changed(this.editor.revision);
    this.scene.tell("edited");
  }

  /** Leaving: what can be sent is sent; what cannot stays on this computer. */
  guard() {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden" && !this.finished) this.save.flush({ leaving: true }).catch(() => {});
    });
    window.addEventListener("pagehide", () => {
      if (!this.finished) this.save.flush({ leaving: true }).catch(() => {});
    });
    window.addEventListener("online", () => this.save.wake());
    $("sign-out")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.signOut(event.target);
    });
  }

  /** Signing out: first everything goes to the server, which takes nothing from who is signed out. */
  async signOut(form) {
    this.setBusy("Saving");
    const whole = this.finished || (await this.save.flush().catch(() => false));
    await this.time.send();
    this.setBusy(null);
    const leave = whole || "leave" === (await ask({
      title: "Not everything is on the server",
      body: [`${this.save.error?.message ?? "The last changes could not be sent."} They are kept on this computer, for you only, and are offered when you sign in here again.`],
      choices: [{ id: "stay", words: "Stay", main: true }, { id: "leave", words: "Sign out" }],
    }));
    if (leave) form.submit();
  }

  async settle() {
    try {
      await settle(this);
    } catch (error) {
      this.problem(error);
    }
  }

  setFocus(pane) {
    this.scene.focus = pane;
    for (const one of this.scene.panes) one.element.classList.toggle("active", one === pane);
  }

  maximise(pane) {
    const views = $("views");
    const alone = views.dataset.alone === pane.plane.name ? "" : pane.plane.name;
    views.dataset.alone = alone;
    for (const view of views.children) view.hidden = Boolean(alone) && view.dataset.plane !== alone;
    this.resize();
  }

  resize() {
    for (const pane of this.scene.panes) if (!pane.element.hidden) pane.resize();
    this.strip?.draw();
    this.scene.paint();
  }
}

async function start() {
  const element = $("station");
  const app = new Workstation(element);
  // For tests and measurements; nothing secret is reachable that the page's reader does not see anyway.
  window.workstation = app;
  try {
    await app.start();
  } catch (error) {
    if (error.status === 401) return location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
    await ask({
      title: "The exam could not be opened",
      body: [[error.message, error.advice].filter(Boolean).join(" "), "Nothing is lost. You can also work on it in 3D Slicer, MITK or ITK-SNAP, and upload the result: ask whoever runs the project."],
      closable: false,
      choices: [{ id: "again", words: "Try again", main: true }, { id: "back", words: "Back to the list" }],
    }).then((choice) => (choice === "again" ? location.reload() : location.assign(app.mode.back)));
  }
  return undefined;
}

start();
