/** Buttons, lists and texts around the views. They run the same commands as the keys and show their keys. */
import { wordsOf } from "./autosave.js";
import { make } from "./dialogs.js";
import { fitting } from "./modes.js";
import { give } from "./verdict.js";

const $ = (id) => document.getElementById(id);
const spoken = (name) => name.replaceAll("_", " ");

const TOOLBAR = [
  ["tool.navigate", "Navigate"], ["tool.pen", "Pen"], ["tool.eraser", "Eraser"], ["tool.grow", "Grow"],
  ["tool.fill", "Fill"], ["tool.outline", "Outline"], null,
  ["interpolate", "Interpolate"], ["copy.below", "Copy slice"], ["component.keep", "Keep piece"], ["component.remove", "Remove piece"],
  null, ["undo", "Undo"], ["redo", "Redo"],
];

export function buildPanel(app) {
  const { info, scene } = app;
  $("title").textContent = `${info.modality} ${String(info.exam_id ?? "").slice(0, 8)}`;
  document.title = `${$("title").textContent} · redraft`;
  facts(app);
  notes(app);
  toolbar(app);
  verdicts(app);
  side(app);
  scene.on("tool", () => refreshTools(app));
  scene.on("range", () => refreshTools(app));
  refreshTools(app);
}

function facts(app) {
  const { info } = app;
  const words = [];
  if (app.mode.words) words.push(app.mode.words);
  else if (info.mode) words.push(info.mode === "from_scratch" ? "drawn from scratch" : "draft to correct");
  if (info.purpose === "reference") words.push("reference exam");
  const due = info.due_at ?? info.lease?.expires_at;
  if (due) {
    const when = new Date(due).toLocaleString([], { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
    words.push(`${info.due_at ? "due" : "yours until"} ${when}`);
  }
  const label = info.annotation;
  if (label) {
    if (label.verdict) words.push(`reader's verdict: ${spoken(label.verdict)}`);
    if (typeof label.minutes === "number") words.push(`${label.minutes.toFixed(1)} min`);
  }
  $("facts").textContent = words.join(" · ");
  $("facts").title = $("facts").textContent;
}

function notes(app) {
  const { info } = app;
  const list = [];
  for (const reason of info.returned ?? []) {
    list.push(make("p", { class: "note bad" }, make("strong", { text: "Sent back: " }), typeof reason === "string" ? reason : (reason.words ?? reason.message)));
  }
  for (const flag of info.annotation?.flags ?? []) list.push(make("p", { class: "note warn", text: flag.message ?? spoken(flag.rule) }));
  for (const note of info.notes ?? []) list.push(make("p", { class: "note", text: note }));
  if (!list.length) return;
  const close = make("button", { type: "button", class: "quiet-button", text: "Hide", onclick: () => ($("notes").hidden = true) });
  $("notes").append(make("div", {}, ...list), close);
}

function keyFor(app, id) {
  return app.commands.find((command) => command.id === id)?.keys[0] ?? "";
}

function commandButton(app, id, words, className = "") {
  const key = keyFor(app, id);
  const command = app.commands.find((one) => one.id === id);
  return make(
    "button",
    {
      type: "button", class: className, "data-command": id, title: `${command?.words ?? words} (${key})`,
      onclick: () => app.run(id),
    },
    make("span", { text: words }),
    make("kbd", { text: key.toUpperCase(), "aria-hidden": "true" }),
  );
}

function toolbar(app) {
  const bar = $("tools");
  bar.hidden = app.scene.readOnly;
  if (bar.hidden) return;
  for (const one of TOOLBAR) bar.append(one ? commandButton(app, one[0], one[1]) : make("hr"));
  const radius = make("input", { type: "range", min: "0.5", max: "40", step: "0.5", id: "radius", "aria-label": "Brush radius in millimetres" });
  radius.addEventListener("input", () => {
    app.scene.radius = Number(radius.value);
    app.scene.tell("tool");
    app.scene.paint();
  });
  bar.append(
    make("hr"),
    make("label", { class: "brush", for: "radius" }, make("span", { id: "radius-words" })),
    radius,
    toggle(app, "brush.ball", "Ball (3D)", "ball"),
    toggle(app, "protect", "Protect others", "protect"),
    make("p", { id: "range-words", class: "quiet small" }),
  );
}

function toggle(app, id, words, name) {
  const button = commandButton(app, id, words);
  button.dataset.toggle = name;
  return button;
}

function refreshTools(app) {
  const { scene } = app;
  for (const button of document.querySelectorAll("[data-command^='tool.']")) {
    button.setAttribute("aria-pressed", String(button.dataset.command === `tool.${scene.tool}`));
  }
  for (const button of document.querySelectorAll("[data-toggle]")) {
    button.setAttribute("aria-pressed", String(Boolean(scene[button.dataset.toggle])));
  }
  const words = $("radius-words");
  if (words) {
    words.textContent = `Radius ${scene.radius} mm`;
    $("radius").value = String(scene.radius);
    const { range } = scene;
    $("range-words").textContent = scene.tool === "grow" ? (range ? `Keeps to ${Math.round(range.low)} to ${Math.round(range.high)}` : "Keeps to intensities like those first touched") : "";
  }
  $("views").dataset.tool = scene.tool;
}

function verdicts(app) {
  app.verdicts = app.mode.verdicts(app.info);
  const keys = { accept: "verdict.accept", correct: "verdict.correct", reject: "verdict.reject" };
  $("verdicts").append(
    ...app.verdicts.map((verdict) =>
      make(
        "button",
        { type: "button", class: verdict.danger ? "danger" : "", "data-verdict": verdict.id, title: verdict.words, onclick: () => give(app, verdict) },
        make("span", { text: verdict.button }),
        keys[verdict.id] ? make("kbd", { text: keyFor(app, keys[verdict.id]).toUpperCase(), "aria-hidden": "true" }) : null,
      ),
    ),
    make("button", { type: "button", title: "Keys (?)", "aria-label": "Keys", text: "?", onclick: () => app.run("help") }),
  );
}

/** A label made in another program, in place of what is drawn here; an edit like any other. */
function uploadField(app) {
  const input = make("input", { type: "file", id: "upload", accept: ".nii,.gz,.nrrd,.dcm" });
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) app.upload(file).finally(() => (input.value = ""));
  });
  return make("details", { class: "upload" },
    make("summary", { text: "Drawn in another program" }),
    make("label", { for: "upload", text: "NIfTI, NRRD or DICOM SEG on this exam's grid" }), input);
}

function side(app) {
  const { info, scene } = app;
  const list = make("ul", { class: "structures", "aria-label": "Structures" });
  info.structures.forEach((structure, n) => {
    const swatch = make("canvas", { class: "swatch", width: 12, height: 12, "aria-hidden": "true" });
    const context = swatch.getContext("2d");
    context.fillStyle = structure.colour;
    context.fillRect(0, 0, 12, 12);
    const seen = make("input", { type: "checkbox", "aria-label": `Show ${spoken(structure.name)}` });
    seen.checked = true;
    seen.addEventListener("change", () => {
      if (seen.checked) scene.hidden.delete(structure.value);
      else scene.hidden.add(structure.value);
      scene.overlayChanged();
    });
    scene.on("overlay", () => (seen.checked = !scene.hidden.has(structure.value)));
    const choose = make(
      "button",
      { type: "button", class: "structure", "data-value": structure.value, onclick: () => app.choose(n) },
      swatch,
      make("span", { text: spoken(structure.name) }),
      n < 9 ? make("kbd", { text: String(n + 1), "aria-hidden": "true" }) : null,
    );
    list.append(make("li", {}, choose, seen));
  });
  const protocol = make("div", { class: "protocol" }, make("h3", { id: "protocol-name" }), make("p", { id: "protocol" }));

  const windows = make("div", { class: "windows", role: "group", "aria-label": "Window presets" });
  (info.windows ?? []).forEach(({ name, low, high }, n) => {
    const button = make("button", { type: "button", "data-window": name, title: `Level ${Math.round((low + high) / 2)}, width ${Math.round(high - low)} (Shift+${n + 1})`, text: name, onclick: () => scene.setWindow(low, high, name) });
    windows.append(button);
  });
  const show = () => {
    for (const button of windows.children) button.setAttribute("aria-pressed", String(button.dataset.window === scene.windowName));
  };
  scene.on("window", show);
  show();

  const opacity = make("input", { type: "range", min: "0.1", max: "1", step: "0.1", id: "opacity" });
  opacity.value = String(scene.opacity);
  opacity.addEventListener("input", () => {
    scene.opacity = Number(opacity.value);
    scene.overlayChanged();
  });
  const overlay = make(
    "div", { class: "overlay" },
    make("label", { for: "opacity", text: "Opacity" }), opacity,
    commandButton(app, "overlay.toggle", "Show"), commandButton(app, "overlay.style", "Filled"),
  );
  const refresh = () => {
    opacity.value = String(scene.opacity);
    overlay.querySelector("[data-command='overlay.toggle']").setAttribute("aria-pressed", String(scene.overlayOn));
    overlay.querySelector("[data-command='overlay.style'] span").textContent = { fill: "Filled", outline: "Outlined", both: "Filled and outlined" }[scene.overlayStyle];
  };
  scene.on("overlay", refresh);
  refresh();
  const versions = app.mode.versions(info);
  const compare = make("div", { class: "compare" });
  if (versions.length) {
    const select = make("select", { id: "version", "aria-label": "What the overlay shows" }, make("option", { value: "", text: app.scene.readOnly ? "The reader's version" : "Your version" }));
    versions.forEach(({ name }, n) => select.append(make("option", { value: String(n), text: name })));
    select.addEventListener("change", () => app.show(select.value === "" ? null : versions[Number(select.value)]));
    compare.append(make("h2", { text: "Compare" }), select);
  }
  $("side").append(
    make("h2", { text: "Structures" }), list, protocol,
    make("h2", { text: "Window" }), windows,
    make("h2", { text: "Segmentation" }), overlay, compare,
    make("p", { class: "quiet small changed", id: "changed" }),
    app.info.token ? uploadField(app) : "",
  );
  const active = () => {
    for (const button of list.querySelectorAll(".structure")) button.setAttribute("aria-pressed", String(Number(button.dataset.value) === scene.active));
    $("protocol-name").textContent = spoken(scene.structure?.name ?? "");
    $("protocol").textContent = scene.structure?.protocol || "The project has no protocol text for this structure.";
  };
  scene.on("structure", active);
  active();
  const changed = () => {
    const fits = fitting(app.verdicts, scene.editor);
    for (const button of document.querySelectorAll("[data-verdict]:not(.danger)")) {
      button.classList.toggle("main", button.dataset.verdict === fits?.id);
    }
    if (!scene.editor || scene.readOnly) return;
    const count = scene.editor.changed.toLocaleString("en");
    const against = app.mode.against(info);
    $("changed").textContent = against ? `${count} voxels differ from ${against}` : `${count} voxels drawn`;
  };
  scene.on("edited", changed);
  scene.on("mask", changed);
}

/** The state of saving, in words; a button where the reader can do something. */
export function showSave(app) {
  const { save } = app;
  const place = $("save");
  place.dataset.state = save.state;
  place.textContent = wordsOf(save);
  place.title = [place.textContent, save.error?.message].filter(Boolean).join(". ");
  if (["stale", "tab", "expired"].includes(save.state)) {
    // Before the words: where these are cut off, what can be done about it must not be.
    place.prepend(make("button", { type: "button", text: "What now?", onclick: () => app.settle() }), " ");
  } else if (save.state === "signed-out") {
    place.prepend(make("a", { href: "/sign-in", target: "_blank", rel: "noopener", text: "Sign in in another tab" }), " ");
  } else if (save.state === "refused") {
    place.append(`: ${save.error?.message ?? ""} ${save.error?.advice ?? ""}`);
  }
}
