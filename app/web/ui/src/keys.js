/**
 * Every command with its key: the one table that binds keys, labels buttons and fills the help.
 * A key is written as "Ctrl+Shift+z"; letters by what is on the key, digits and brackets by their place.
 */

/** @typedef {{id: string, keys: string[], group: string, words: string, repeat?: boolean, edits?: boolean}} Command */

/** @type {Command[]} */
export const COMMANDS = [
  { id: "tool.navigate", keys: ["n"], group: "Tools", words: "Navigate: crosshair, no drawing" },
  { id: "tool.pen", keys: ["p"], group: "Tools", words: "Pen", edits: true },
  { id: "tool.eraser", keys: ["e"], group: "Tools", words: "Eraser (of the active structure)", edits: true },
  { id: "tool.grow", keys: ["g"], group: "Tools", words: "Grow: pen that keeps to similar intensities", edits: true },
  { id: "tool.fill", keys: ["f"], group: "Tools", words: "Fill a closed outline on this slice", edits: true },
  { id: "tool.outline", keys: ["o"], group: "Tools", words: "Outline: draw around, the inside is filled", edits: true },
  { id: "brush.smaller", keys: ["["], group: "Tools", words: "Smaller brush", repeat: true, edits: true },
  { id: "brush.larger", keys: ["]"], group: "Tools", words: "Larger brush", repeat: true, edits: true },
  { id: "brush.ball", keys: ["b"], group: "Tools", words: "Brush as a ball in three dimensions, or a disc", edits: true },
  { id: "protect", keys: ["l"], group: "Tools", words: "Protect other structures", edits: true },
  { id: "interpolate", keys: ["i"], group: "Tools", words: "Interpolate the gap between drawn slices", edits: true },
  { id: "copy.below", keys: ["y"], group: "Tools", words: "Copy the structure from the slice before", edits: true },
  { id: "copy.above", keys: ["Shift+y"], group: "Tools", words: "Copy the structure from the slice after", edits: true },
  { id: "component.keep", keys: ["k"], group: "Tools", words: "Keep only the piece at the crosshair", edits: true },
  { id: "component.remove", keys: ["r"], group: "Tools", words: "Remove the piece at the crosshair", edits: true },
  { id: "dab", keys: ["Space"], group: "Tools", words: "Use the tool at the crosshair", repeat: true, edits: true },
  { id: "undo", keys: ["z", "Ctrl+z"], group: "Tools", words: "Undo", repeat: true, edits: true },
  { id: "redo", keys: ["Shift+z", "Ctrl+Shift+z", "Ctrl+y"], group: "Tools", words: "Redo", repeat: true, edits: true },

  { id: "slice.next", keys: ["PageUp", "."], group: "Slices", words: "One slice towards head, front, right", repeat: true },
  { id: "slice.previous", keys: ["PageDown", ","], group: "Slices", words: "One slice towards feet, back, left", repeat: true },
  { id: "slice.forward", keys: ["Shift+PageUp"], group: "Slices", words: "Ten slices on", repeat: true },
  { id: "slice.back", keys: ["Shift+PageDown"], group: "Slices", words: "Ten slices back", repeat: true },
  { id: "slice.first", keys: ["Home"], group: "Slices", words: "First slice of the active structure" },
  { id: "slice.last", keys: ["End"], group: "Slices", words: "Last slice of the active structure" },
  { id: "uncertain.next", keys: ["u"], group: "Slices", words: "Next most uncertain slice" },
  { id: "uncertain.most", keys: ["Shift+u"], group: "Slices", words: "Most uncertain slice" },
  { id: "cross.left", keys: ["ArrowLeft"], group: "Slices", words: "Crosshair one voxel left", repeat: true },
  { id: "cross.right", keys: ["ArrowRight"], group: "Slices", words: "Crosshair one voxel right", repeat: true },
  { id: "cross.up", keys: ["ArrowUp"], group: "Slices", words: "Crosshair one voxel up", repeat: true },
  { id: "cross.down", keys: ["ArrowDown"], group: "Slices", words: "Crosshair one voxel down", repeat: true },

  { id: "view.next", keys: ["v"], group: "Views", words: "Next view" },
  { id: "view.maximise", keys: ["m"], group: "Views", words: "One view alone, or all" },
  { id: "view.in", keys: ["=", "Shift+=", "+"], group: "Views", words: "Zoom in", repeat: true },
  { id: "view.out", keys: ["-"], group: "Views", words: "Zoom out", repeat: true },
  { id: "view.reset", keys: ["0"], group: "Views", words: "Whole slice" },
  { id: "view.crosshair", keys: ["x"], group: "Views", words: "Crosshair on or off" },
  { id: "view.smooth", keys: ["j"], group: "Views", words: "Smooth pixels, or show voxels" },
  { id: "view.volume", keys: ["t"], group: "Views", words: "Three-dimensional view on or off" },
  { id: "window.narrower", keys: ["Shift+["], group: "Views", words: "Narrower window", repeat: true },
  { id: "window.wider", keys: ["Shift+]"], group: "Views", words: "Wider window", repeat: true },
  { id: "window.next", keys: ["w"], group: "Views", words: "Next window preset" },

  { id: "overlay.toggle", keys: ["h"], group: "Overlay", words: "Hide or show the segmentation" },
  { id: "overlay.style", keys: ["c"], group: "Overlay", words: "Filled, outlined, or both" },
  { id: "overlay.less", keys: ["q"], group: "Overlay", words: "More transparent", repeat: true },
  { id: "overlay.more", keys: ["Shift+q"], group: "Overlay", words: "Less transparent", repeat: true },
  { id: "overlay.draft", keys: ["d"], group: "Overlay", words: "Compare: the draft as it was, or your version" },
  { id: "structure.hide", keys: ["Shift+h"], group: "Overlay", words: "Hide or show the active structure" },

  { id: "save", keys: ["Ctrl+s"], group: "Work", words: "Save now (it also saves by itself)", edits: true },
  { id: "verdict.accept", keys: ["a"], group: "Work", words: "Accept" },
  { id: "verdict.correct", keys: ["s"], group: "Work", words: "Hand in the correction", edits: true },
  { id: "verdict.reject", keys: ["Shift+r"], group: "Work", words: "Reject, or return" },
  { id: "help", keys: ["?", "Shift+?", "Shift+/"], group: "Work", words: "This list" },
];

/** Structures 1 to 9 and window presets 1 to 9 follow what the exam has. */
export function commandsFor(structures, windows) {
  const some = structures.slice(0, 9).map(({ name }, n) => ({
    id: `structure.${n}`, keys: [`${n + 1}`], group: "Structures", words: name.replaceAll("_", " "),
  }));
  const presets = windows.slice(0, 9).map(({ name }, n) => ({
    id: `window.${n}`, keys: [`Shift+${n + 1}`], group: "Windows", words: name,
  }));
  return [...COMMANDS, ...some, ...presets];
}

/** A key event in the table's writing. */
export function keyOf(event) {
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  if (event.shiftKey) parts.push("Shift");
  const { code = "", key } = event;
  if (key === "?") return "?";
  const places = { BracketLeft: "[", BracketRight: "]", Space: "Space" };
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1];
  parts.push(places[code] ?? digit ?? (key.length === 1 ? key.toLowerCase() : key));
  return parts.join("+");
}

/** @returns {Map<string, Command>} key → command; throws when two commands share a key */
export function tableOf(commands) {
  const table = new Map();
  for (const command of commands) {
    for (const key of command.keys) {
      if (table.has(key)) throw new Error(`${key} is bound to ${table.get(key).id} and ${command.id}`);
      table.set(key, command);
    }
  }
  return table;
}

/**
 * Binds the table. Keys are left alone in text fields and dialogs, and Space and Enter on buttons.
 * @param {(id: string, event: KeyboardEvent) => void} run
 */
export function bindKeys(commands, run) {
  const table = tableOf(commands);
  window.addEventListener("keydown", (event) => {
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    const typing = target.matches?.("input:not([type=checkbox]):not([type=radio]):not([type=file]), textarea, select");
    if (typing && !(target.type === "range" && event.key.length === 1)) return;
    const key = keyOf(event);
    if (key === "Space" && target.matches?.("button, summary, a, input")) return;
    const command = table.get(key);
    if (!command || (event.repeat && !command.repeat)) return;
    event.preventDefault();
    run(command.id, event);
  });
}
