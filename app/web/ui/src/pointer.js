/** What the mouse, the pen and two fingers do in a view. Right drag: window; middle or Shift drag: pan; wheel: slices. */
import { rangeAround } from "./brush.js";

export function bindPointer(scene, pane, tell) {
  const { canvas } = pane;
  let drag = null;
  let wheel = 0;

  const kind = (event) => {
    if (event.button === 1 || (event.button === 0 && event.shiftKey)) return "pan";
    if (event.button === 2) return "window";
    if (event.button !== 0) return null;
    if (event.ctrlKey || event.metaKey || scene.tool === "navigate" || !scene.editor || scene.readOnly || scene.busy) return "cross";
    return scene.tool;
  };

  canvas.addEventListener("pointerdown", (event) => {
    const what = kind(event);
    if (!what) return;
    event.preventDefault();
    scene.setFocus(pane);
    canvas.setPointerCapture(event.pointerId);
    drag = { what, x: event.clientX, y: event.clientY, low: scene.window.low, high: scene.window.high };
    const voxel = pane.voxelAt(event.clientX, event.clientY);
    if (what === "cross") return scene.moveTo(voxel);
    if (what === "pen" || what === "eraser" || what === "grow") {
      if (scene.other) return tell("The overlay shows another version. Go back to yours to draw.");
      if (what === "grow" && !scene.arrivedAt(voxel)) {
        drag = null;
        return tell("This slice is not loaded yet.");
      }
      if (what === "grow" && scene.rangeFromTouch) {
        const { data } = scene.image;
        scene.range = { data, ...rangeAround(data, scene.grid, voxel, pane.plane, scene.radius) };
        scene.tell("range");
      }
      drag.stroke = true;
      scene.editor.strokeStart(voxel, scene.ink(pane.plane, what === "eraser" || event.altKey));
    } else if (what === "fill") {
      const { open } = scene.editor.fill(voxel.map(Math.round), scene.ink(pane.plane, event.altKey));
      if (open) tell("Not filled: the outline is open on this slice.");
    } else if (what === "outline") {
      scene.trace = { plane: pane.plane, points: [[voxel[pane.plane.u], voxel[pane.plane.v]]] };
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    pane.pointer = [event.clientX, event.clientY];
    if (scene.brushShown()) {
      pane.dirty = true;
      scene.paint(false);
    }
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (drag.what === "pan") {
      pane.panBy(dx, dy);
      [drag.x, drag.y] = [event.clientX, event.clientY];
      scene.paint();
    } else if (drag.what === "window") {
      // Right wider, down brighter: as workstations do. A screen of 500 pixels is the whole first width.
      const width = Math.max((drag.high - drag.low) * Math.exp(dx / 250), 1e-3);
      const level = (drag.low + drag.high) / 2 + (dy / 500) * (drag.high - drag.low) * -1;
      scene.setWindow(level - width / 2, level + width / 2);
    } else if (drag.what === "cross") {
      scene.moveTo(pane.voxelAt(event.clientX, event.clientY));
    } else if (drag.stroke) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) scene.editor.strokeTo(pane.voxelAt(one.clientX, one.clientY));
    } else if (drag.what === "outline" && scene.trace) {
      const voxel = pane.voxelAt(event.clientX, event.clientY);
      scene.trace.points.push([voxel[pane.plane.u], voxel[pane.plane.v]]);
      scene.paint();
    }
  });

  const finish = (event) => {
    if (!drag) return;
    if (drag.stroke) scene.editor.strokeEnd();
    if (drag.what === "outline" && scene.trace) {
      const { points } = scene.trace;
      scene.trace = null;
      scene.editor.outline(points, pane.slice, scene.ink(pane.plane, event.altKey));
      scene.paint();
    }
    drag = null;
  };
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
  canvas.addEventListener("pointerleave", () => {
    pane.pointer = null;
    pane.dirty = true;
    scene.paint(false);
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => {
    if (scene.tool === "navigate") scene.maximise(pane);
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      scene.setFocus(pane);
      if (event.ctrlKey) {
        pane.zoomBy(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
        return scene.paint();
      }
      // A notch (100 or 120) is one slice; a touchpad's small steps are gathered.
      wheel += event.deltaMode === 1 ? event.deltaY * 33 : event.deltaY;
      if (Math.abs(wheel) < 40) return undefined;
      const steps = Math.sign(wheel) * Math.max(1, Math.trunc(Math.abs(wheel) / 120));
      wheel = 0;
      // Down the wheel is down the body (axial), back (coronal), left (sagittal).
      return scene.step(pane, -steps);
    },
    { passive: false },
  );
}
