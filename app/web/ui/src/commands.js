/** What the commands of keys.js do. */
import { help } from "./dialogs.js";
import { drawnSlices } from "./interpolate.js";
import { give } from "./verdict.js";

const SIZES = [0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40];
const STYLES = ["fill", "outline", "both"];

/** @returns {(id: string) => void} */
export function runner(app) {
  const { scene } = app;
  const pane = () => scene.focus;
  const arrow = (d, sign) => () => {
    const voxel = scene.cross.slice();
    voxel[pane().plane[d]] += sign;
    scene.moveTo(voxel);
  };
  const tool = (name) => () => {
    scene.tool = name;
    scene.tell("tool");
    scene.paint();
  };
  const size = (step) => () => {
    const at = SIZES.findIndex((one) => one >= scene.radius * 1 - 1e-9);
    scene.radius = SIZES[Math.max(0, Math.min(SIZES.length - 1, at + step))];
    scene.tell("tool");
    scene.paint();
  };
  const flip = (name, event) => () => {
    scene[name] = !scene[name];
    scene.tell(event);
    scene.paint();
  };
  const moved = (diff) => {
    if (!diff) return app.say("Nothing more to take back or make again.");
    // Show what changed: an undo that happens on another slice would go unseen.
    const voxel = scene.grid.voxel(diff.start[0]);
    if (!scene.panes.some(({ plane }) => voxel[plane.w] === scene.cross[plane.w])) scene.moveTo(voxel);
    return undefined;
  };
  const component = (mode) => async () => {
    const seed = scene.grid.at(...scene.cross);
    if (!scene.editor.mask[seed]) return app.say("Put the crosshair on the piece first.");
    app.setBusy("Searching the piece");
    try {
      const diff = await app.keeper.ask("component", { seed, mode });
      scene.editor.commit(diff);
      app.say(diff.voxels ? `${diff.voxels.toLocaleString("en")} voxels removed.` : "There is no other piece.");
    } finally {
      app.setBusy(null);
    }
    return undefined;
  };
  const copy = (side) => () => {
    const { slice, plane } = pane();
    const voxels = scene.editor.copyFrom(slice + side, slice, scene.ink(plane));
    if (!voxels) app.say("Nothing to copy from there.");
  };
  const edge = (last) => () => {
    const slices = drawnSlices(scene.shown(), scene.grid, pane().plane, scene.active);
    if (!slices.length) return app.say("The structure is not drawn on any slice.");
    const voxel = scene.cross.slice();
    voxel[pane().plane.w] = last ? slices[slices.length - 1] : slices[0];
    return scene.moveTo(voxel);
  };
  const uncertain = (most) => () => {
    if (!app.strip) return app.say("There is no uncertainty for this exam.");
    const found = app.strip.jump(most);
    return app.say(found ? `Slice ${found.slice}: number ${found.rank} of ${found.of} in uncertainty.` : "Nothing is uncertain here.");
  };
  const width = (factor) => () => {
    const { low, high } = scene.window;
    const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
    scene.setWindow(middle - half, middle + half);
  };
  const preset = (n) => {
    const one = app.info.windows?.[n];
    if (one) scene.setWindow(one.low, one.high, one.name);
  };
  const opacity = (step) => () => {
    scene.opacity = Math.max(0.1, Math.min(1, Math.round((scene.opacity + step) * 10) / 10));
    scene.overlayChanged();
  };
  const zoom = (factor) => () => {
    const box = pane().canvas.getBoundingClientRect();
    const [x, y] = pane().place(scene.cross);
    pane().zoomBy(factor, box.left + x / pane().ratio, box.top + y / pane().ratio);
    scene.paint();
  };
  const verdict = (id) => () => {
    const one = app.verdicts.find((item) => item.id === id);
    if (one) return give(app, one);
    return app.say("This exam is drawn from scratch: there is no draft to accept. Press S when you are finished.");
  };
  /** The tool in hand at the crosshair: drawing without a mouse. */
  const dab = () => {
    const { plane } = pane();
    if (scene.tool === "fill") {
      const { open } = scene.editor.fill(scene.cross, scene.ink(plane));
      return open ? app.say("Not filled: the outline is open on this slice.") : undefined;
    }
    if (!scene.brushShown()) return app.say("Choose pen (P), eraser (E), grow (G) or fill (F); Space uses it at the crosshair.");
    scene.editor.strokeStart(scene.cross, scene.ink(plane, scene.tool === "eraser"));
    return scene.editor.strokeEnd();
  };

  const actions = {
    ...Object.fromEntries(["navigate", "pen", "eraser", "grow", "fill", "outline"].map((name) => [`tool.${name}`, tool(name)])),
    "brush.smaller": size(-1),
    "brush.larger": size(1),
    "brush.ball": flip("ball", "tool"),
    protect: flip("protect", "tool"),
    interpolate: () => {
      const { plane, slice } = pane();
      let slices = scene.editor.interpolate(scene.ink(plane), slice);
      if (!slices.length) slices = scene.editor.interpolate(scene.ink(plane));
      const filled = slices.length === 1 ? "1 slice filled in." : `${slices.length} slices filled in.`;
      app.say(slices.length ? filled : "There is no gap between drawn slices in this view.");
    },
    "copy.below": copy(-1),
    "copy.above": copy(1),
    "component.keep": component("keep"),
    "component.remove": component("remove"),
    dab,
    undo: () => moved(scene.editor.undo()),
    redo: () => moved(scene.editor.redo()),
    "slice.next": () => scene.step(pane(), 1),
    "slice.previous": () => scene.step(pane(), -1),
    "slice.forward": () => scene.step(pane(), 10),
    "slice.back": () => scene.step(pane(), -10),
    "slice.first": edge(false),
    "slice.last": edge(true),
    "uncertain.next": uncertain(false),
    "uncertain.most": uncertain(true),
    // Both axes of a view run against the screen: left is towards the patient's right.
    "cross.left": arrow("u", 1),
    "cross.right": arrow("u", -1),
    "cross.up": arrow("v", 1),
    "cross.down": arrow("v", -1),
    "view.next": () => {
      const { panes } = scene;
      const next = panes[(panes.indexOf(pane()) + 1) % panes.length];
      const alone = pane().element.parentElement.dataset.alone;
      if (alone) scene.maximise(next);
      app.setFocus(next);
      next.element.focus();
    },
    "view.maximise": () => scene.maximise(pane()),
    "view.in": zoom(1.25),
    "view.out": zoom(0.8),
    "view.reset": () => {
      pane().reset();
      scene.paint();
    },
    "view.crosshair": flip("crosshair", "tool"),
    "view.smooth": flip("smooth", "tool"),
    "view.volume": () => app.volume.toggle(),
    "window.narrower": width(0.9),
    "window.wider": width(1 / 0.9),
    "window.next": () => {
      const list = app.info.windows ?? [];
      preset((list.findIndex(({ name }) => name === scene.windowName) + 1) % list.length);
    },
    "overlay.toggle": () => {
      scene.overlayOn = !scene.overlayOn;
      scene.overlayChanged();
    },
    "overlay.style": () => {
      scene.overlayStyle = STYLES[(STYLES.indexOf(scene.overlayStyle) + 1) % STYLES.length];
      scene.overlayChanged();
    },
    "overlay.less": opacity(-0.1),
    "overlay.more": opacity(0.1),
    "overlay.draft": () => app.compare(),
    "structure.hide": () => {
      if (!scene.hidden.delete(scene.active)) scene.hidden.add(scene.active);
      scene.overlayChanged();
    },
    // What came of it stands at the top of the page, and stays true there.
    save: () => app.save?.flush({ force: true }),
    "verdict.accept": verdict("accept"),
    "verdict.correct": verdict("correct"),
    "verdict.reject": verdict("reject"),
    help: () => help(app.commands.filter((command) => !command.edits || !scene.readOnly)),
  };

  return (id) => {
    const command = app.commands.find((one) => one.id === id);
    if (command?.edits && id !== "save") {
      if (scene.readOnly) return app.say("This is for looking only.");
      if (!scene.editor) return app.say("The segmentation is still loading.");
      if (scene.busy) return undefined;
      if (scene.other && !id.startsWith("tool.") && !id.startsWith("brush.")) {
        return app.say("The overlay shows another version. D goes back to yours.");
      }
    }
    if (id.startsWith("structure.") && actions[id] === undefined) return app.choose(Number(id.slice(10)));
    if (id.startsWith("window.") && actions[id] === undefined) return preset(Number(id.slice(7)));
    return actions[id]?.();
  };
}
