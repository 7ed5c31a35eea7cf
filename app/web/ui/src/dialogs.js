/** Questions to the reader: native dialogs, which keep the focus and close with Escape. */

/** Makes an element: make("p", {class: "x", text: "…"}, child, …) */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A key that is still held down, or a second click meant for what was there before, must not answer.
const GUARD_MS = 450;

/**
 * Asks; resolves to the id of the choice, or null when closed.
 * @param {{title: string, body?: (Node|string)[], choices: {id: string, words: string, main?: boolean, danger?: boolean}[],
 *   closable?: boolean, read?: boolean}} question read: there is much to read, so it begins at its title, not its buttons
 */
export function ask({ title, body = [], choices, closable = true, read = false }) {
  return new Promise((resolve) => {
    const opened = performance.now();
    const dialog = make("dialog", { class: "ask", "aria-labelledby": "ask-title" });
    const finish = (id) => {
      dialog.close();
      dialog.remove();
      resolve(id);
    };
    const buttons = choices.map(({ id, words, main, danger }) =>
      make("button", {
        type: "button", class: `${main ? "main" : ""} ${danger ? "danger" : ""}`.trim(), text: words, autofocus: main && !read,
        onclick: () => performance.now() - opened >= GUARD_MS && finish(id),
      }),
    );
    dialog.append(
      make("h2", { id: "ask-title", text: title, tabindex: read ? "-1" : null, autofocus: read }),
      ...body.map((part) => (typeof part === "string" ? make("p", { text: part }) : part)),
      make("div", { class: "choices" }, ...buttons),
    );
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (closable) finish(null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** The help: written from the table that binds the keys. */
export function help(commands) {
  const groups = new Map();
  for (const command of commands) groups.set(command.group, [...(groups.get(command.group) ?? []), command]);
  const show = (key) => key.replace("ArrowLeft", "←").replace("ArrowRight", "→").replace("ArrowUp", "↑").replace("ArrowDown", "↓");
  const body = make("div", { class: "keys" });
  for (const [group, list] of groups) {
    body.append(
      make("section", {}, make("h3", { text: group }),
        make("dl", {}, ...list.flatMap(({ keys, words }) => [
          make("dt", {}, make("kbd", { text: show(keys[0]) })),
          make("dd", { text: words }),
        ]))),
    );
  }
  body.append(
    make("section", {}, make("h3", { text: "Mouse" }),
      make("dl", {}, ...[
        ["Wheel", "Slices"], ["Ctrl+wheel", "Zoom"], ["Right drag", "Window: right wider, down brighter"],
        ["Shift or middle drag", "Move the picture"], ["Ctrl+click", "Crosshair, with any tool"],
        ["Alt+draw", "Erase with the tool in hand"], ["Double click", "One view alone (navigate)"],
      ].flatMap(([key, words]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: words })]))),
  );
  return ask({ title: "Keys", read: true, body: [body], choices: [{ id: "close", words: "Close", main: true }] });
}
