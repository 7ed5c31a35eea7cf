/** Handing in: what is asked before, that everything is saved first, what happens next. */
import { ask, make } from "./dialogs.js";
import { obstacle } from "./modes.js";

/**
 * @param {object} app see main.js
 * @param {import("./modes.js").Verdict} verdict
 */
export async function give(app, verdict) {
  const { scene, info, mode, save } = app;
  if (!app.ready) return app.say("The exam is still loading.");
  const hindrance = obstacle(verdict, scene.editor, info.draft);
  if (hindrance) return app.say(hindrance);
  const form = verdictForm(app, verdict);
  const answer = await ask({
    title: verdict.words,
    body: [verdict.explain, ...form.parts],
    choices: [
      { id: "yes", words: verdict.button, main: true, danger: verdict.danger },
      { id: "no", words: "Not yet" },
    ],
  });
  if (answer !== "yes") return undefined;
  const values = form.read();
  if (verdict.reason && !values.reason) return app.say("Choose a reason.");
  if (verdict.reason && mode.saves && !values.noLabel && !scene.editor.changed) {
    return app.say("With this reason a new segmentation is expected, but nothing is changed yet. Draw it anew, or choose a reason that sends the exam back.");
  }
  app.setBusy("Handing in");
  try {
    if (save && verdict.drawing !== false) {
      // The server must have exactly what is on the screen, also where nothing was ever saved.
      const whole = await save.flush({ force: save.number === 0 || !save.clean });
      if (!whole) return app.say(`Not handed in: ${save.error?.message ?? "what you drew is not on the server yet."} It is kept; try again.`);
    }
    await app.time?.send();
    const body = { ...verdict.body(values), ...(mode.submit ? { sitting: app.sitting, number: save.number } : {}) };
    const result = await app.api.post(mode.submit ? mode.submit : app.api.root, body);
    app.finished = true;
    app.time?.add("close");
    await app.time?.send();
    app.time?.stop();
    await app.keeper?.ask("forget");
    return await done(app, result);
  } catch (error) {
    return app.problem(error);
  } finally {
    app.setBusy(null);
  }
}

function verdictForm(app, verdict) {
  const parts = [];
  const { info, scene } = app;
  if (scene.editor && app.mode.editable(info) && verdict.drawing !== false) {
    const changed = scene.editor.changed;
    const what = app.mode.base(info) ? "changed" : "drawn";
    parts.push(make("p", { class: "quiet", text: `${changed.toLocaleString("en")} voxels ${what}.` }));
  }
  let chosen = null;
  if (verdict.reason) {
    const list = make("fieldset", {}, make("legend", { text: "Reason" }));
    for (const { code, words, no_label: noLabel } of info.reasons ?? []) {
      const input = make("input", { type: "radio", name: "reason", value: code });
      input.addEventListener("change", () => {
        chosen = { code, noLabel };
      });
      list.append(make("label", {}, input, ` ${words}`, noLabel ? make("span", { class: "quiet", text: " (sent back without a segmentation)" }) : null));
    }
    parts.push(list);
  }
  const remark = make("textarea", { rows: 2, maxlength: 2000, "aria-describedby": "remark-help" });
  parts.push(
    make("label", { class: "remark" }, "Remark (optional)", remark),
    make("p", { class: "quiet small", id: "remark-help", text: "No names or numbers of patients." }),
  );
  return {
    parts,
    read: () => ({ reason: chosen?.code ?? null, noLabel: chosen?.noLabel ?? false, remark: remark.value.trim() || null }),
  };
}

/** What happens next. */
async function done(app, result) {
  const { queue } = app.mode;
  const list = await app.api.json(queue.list).catch(() => []);
  const next = list.find((one) => one[queue.id] !== app.id && one.state !== "RETURNED") ?? null;
  const active = Object.values(result?.minutes ?? {}).reduce((sum, one) => sum + (one.active ?? 0), 0);
  const choice = await ask({
    title: "Done",
    body: [app.mode.done, ...(active ? [`Active time: ${active.toFixed(1)} min.`] : [])],
    closable: false,
    choices: [
      ...(next ? [{ id: "next", words: "Next exam", main: true }] : []),
      { id: "back", words: "Back to the list", main: !next },
    ],
  });
  location.assign(choice === "next" ? `${queue.page}/${encodeURIComponent(next[queue.id])}` : app.mode.back);
}
