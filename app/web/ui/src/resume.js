/** Which version the reader goes on with: server or this computer; and what to do when another one came in between. */
import { ask } from "./dialogs.js";

const clock = (value) =>
  new Date(value).toLocaleString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/**
 * Before the mask is opened.
 * @param {{base: number, dirty: boolean, at: number}|null} local what this computer holds
 * @param {{number: number, at: string}|null} autosave the server's latest
 * @returns {Promise<"server"|"local">}
 */
export async function choose(local, autosave) {
  if (!local?.dirty) return "server";
  const number = autosave?.number ?? 0;
  if (local.base === number) {
    const answer = await ask({
      title: "Go on where you stopped?",
      body: [`This computer holds changes from ${clock(local.at)} that did not reach the server${autosave ? ` (its last version: ${clock(autosave.at)})` : ""}.`],
      closable: false,
      choices: [
        { id: "local", words: "Go on with them", main: true },
        { id: "server", words: autosave ? "Leave them, use the server's version" : "Leave them, start from the draft" },
      ],
    });
    return answer;
  }
  const newer = autosave && new Date(autosave.at).getTime() > local.at ? "server" : "local";
  return ask({
    title: "Two versions of this exam",
    body: [
      `On the server: saved ${autosave ? clock(autosave.at) : "never"}. On this computer: ${clock(local.at)}, not sent.`,
      "The one you do not choose can be looked at by undo.",
    ],
    closable: false,
    choices: [
      { id: "server", words: `Server's version${newer === "server" ? " (newer)" : ""}`, main: newer === "server" },
      { id: "local", words: `This computer's version${newer === "local" ? " (newer)" : ""}`, main: newer === "local" },
    ],
  });
}

/** The server did not take a save: another tab, another computer, or the time ran out. */
export async function settle(app) {
  const { save, api } = app;
  if (save.state === "tab") {
    const answer = await ask({
      title: "This exam is open in another tab",
      body: ["Only one tab can save. What you drew here is kept. Take over here, and the other tab stops saving."],
      choices: [{ id: "take", words: "Take over here", main: true }, { id: "no", words: "Leave it to the other tab" }],
    });
    if (answer !== "take") return;
    await api.post("tab", { sitting: app.sitting, take: true });
    const { autosave } = await api.json(api.root);
    if ((autosave?.number ?? 0) !== save.number) return stale(app, autosave);
    save.resume(save.number);
    await save.flush({ force: true });
  } else if (save.state === "stale") {
    const { autosave } = await api.json(api.root);
    await stale(app, autosave);
  } else if (save.state === "expired") {
    const answer = await ask({
      title: "The time for this exam ran out",
      body: ["What you drew is kept on the server as an offer, and on this computer. Ask for more time, or go back to the list: whoever gets the exam next is offered your work."],
      choices: [{ id: "more", words: "Ask for more time", main: true }, { id: "back", words: "Back to the list" }],
    });
    if (answer === "back") location.assign(app.mode.back);
    if (answer !== "more") return;
    await api.post("extend", {});
    save.resume(save.number);
    await save.flush({ force: true });
  }
}

async function stale(app, autosave) {
  const { save, api } = app;
  const answer = await ask({
    title: "Changed on another computer or in another tab",
    body: [`The server has a version of ${autosave ? clock(autosave.at) : "another time"} that did not come from here. Yours is kept as an offer.`],
    closable: false,
    choices: [
      { id: "theirs", words: "Use the server's version (yours: undo)", main: true },
      { id: "mine", words: "Save mine over it" },
    ],
  });
  const number = autosave?.number ?? 0;
  if (answer === "theirs") await app.load(autosave ? "mask" : app.mode.base(app.info));
  save.resume(number);
  await save.flush({ force: true });
}

/** Work of an earlier attempt or an earlier reader, kept by the server. */
export async function offerKept(app) {
  for (const [n, offer] of (app.info.offers ?? []).entries()) {
    const number = offer.number ?? n;
    const answer = await ask({
      title: "Work on this exam was kept",
      body: [`From ${clock(offer.at)}, ${offer.voxels.toLocaleString("en")} voxels. It could not be saved in its time.`],
      choices: [
        { id: "replace", words: "Go on with it", main: true },
        { id: "add", words: "Add it where nothing is drawn" },
        { id: "drop", words: "Leave it" },
      ],
    });
    if (answer === null) continue;
    const result = await app.api.post(`offers/${number}`, { merge: answer, sitting: app.sitting });
    if (answer === "drop") continue;
    await app.load("mask");
    app.save.resume(result?.number ?? app.save.number);
    // Saved once more from here: so this computer, too, knows that the server has it.
    await app.save.flush({ force: true });
  }
}
