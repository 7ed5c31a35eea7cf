/** Saving by itself: each way in which the server may fail, and that nothing drawn is ever counted as saved too early. */
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { ApiError, Offline } from "../src/api.js";
import { Autosave, wordsOf } from "../src/autosave.js";

beforeEach(() => mock.timers.reset());

/** A saver, a server that answers as it is told, and a worker that packs what was drawn up to now. */
function made() {
  mock.timers.enable({ apis: ["setTimeout"] });
  const server = { answers: [], got: [], number: 4 };
  const states = [];
  const confirmed = [];
  let drawn = 0;
  const save = new Autosave({
    api: {
      put: async (path, body, headers, keepalive) => {
        server.got.push({ path, revision: body.revision, keepalive });
        const answer = server.answers.shift();
        if (answer instanceof Error) throw answer;
        if (answer) return answer();
        server.number += 1;
        return { number: server.number };
      },
    },
    keeper: {
      ask: async (task, fields) => {
        if (task === "pack") return { packed: { byteLength: 100, revision: drawn }, revision: drawn };
        confirmed.push(fields.revision);
        return undefined;
      },
    },
    path: "mask", sitting: "s", number: 4, reading: () => ({}),
  });
  save.onState = () => states.push(save.state);
  const draw = () => {
    drawn += 1;
    save.changed(drawn);
  };
  return { save, server, states, confirmed, draw };
}

/** Lets promises go on. */
const settle = async () => {
  for (let n = 0; n < 20; n++) await Promise.resolve();
};
const later = async (ms) => {
  mock.timers.tick(ms);
  await settle();
};

test("a quiet moment after a change saves it, once", async () => {
  const { save, server, draw, confirmed } = made();
  draw();
  assert.equal(save.state, "waiting");
  await later(2000);
  draw();
  await later(2000);
  assert.equal(server.got.length, 0);
  await later(600);
  assert.deepEqual(server.got.map(({ path, revision }) => [path, revision]), [["mask?base=4&sitting=s", 2]]);
  assert.deepEqual([save.state, save.number, save.clean, confirmed], ["saved", 5, true, [2]]);
  await later(60000);
  assert.equal(server.got.length, 1);
});

test("drawing without a pause does not put saving off for ever", async (t) => {
  const { server, draw } = made();
  let now = 0;
  t.mock.method(performance, "now", () => now);
  for (let n = 0; n < 12; n++) {
    draw();
    await later(1000);
    now += 1000;
  }
  assert.ok(server.got.length >= 1);
});

test("what is drawn while a save is on its way is not counted as saved, and follows", async () => {
  const { save, server, draw, confirmed } = made();
  draw();
  let arrive;
  server.answers.push(() => new Promise((resolve) => (arrive = () => resolve({ number: 5 }))));
  const flushed = save.flush();
  await settle();
  draw();
  arrive();
  assert.equal(await flushed, false);
  assert.deepEqual([save.state, save.clean, save.savedRevision], ["waiting", false, 1]);
  server.number = 5;
  await later(2500);
  assert.deepEqual([save.state, save.clean, save.number, confirmed], ["saved", true, 6, [1, 2]]);
  assert.equal(server.got[1].path, "mask?base=5&sitting=s");
});

test("two saves never run at once", async () => {
  const { save, server, draw } = made();
  draw();
  let running = 0;
  const slow = () => {
    running += 1;
    assert.equal(running, 1);
    return Promise.resolve().then(() => {
      running -= 1;
      return { number: ++server.number };
    });
  };
  server.answers.push(slow, slow, slow);
  await Promise.all([save.flush({ force: true }), save.flush({ force: true }), save.flush({ force: true })]);
  assert.equal(server.got.length, 3);
});

test("offline: tried again, ever more slowly, and at once when the network is back", async () => {
  const { save, server, draw, states } = made();
  draw();
  server.answers.push(new Offline(), new ApiError(503, { code: "busy", retry: true }), new ApiError(429, {}));
  await later(2500);
  assert.equal(save.state, "offline");
  assert.match(wordsOf(save), /Offline: kept on this computer/);
  draw(); // no new attempt by drawing
  await later(999);
  assert.equal(server.got.length, 1);
  await later(1);
  assert.equal(server.got.length, 2);
  await later(2000);
  assert.deepEqual([server.got.length, save.state], [3, "offline"]);
  save.wake();
  await later(0);
  assert.deepEqual([server.got.length, save.state, save.clean], [4, "saved", true]);
  assert.deepEqual(new Set(states), new Set(["waiting", "saving", "offline", "saved"]));
  assert.equal(server.got[3].revision, 2);
});

test("signed out: kept, and tried again", async () => {
  const { save, server, draw } = made();
  draw();
  server.answers.push(new ApiError(401, { code: "auth.required" }));
  await later(2500);
  assert.equal(save.state, "signed-out");
  await later(1000);
  assert.equal(save.state, "saved");
});

for (const [state, status, code] of [
  ["stale", 409, "work.stale"], ["tab", 409, "work.tab"], ["expired", 410, "work.lease_expired"],
  ["refused", 422, "work.grid"], ["refused", 413, "work.too_large"],
]) {
  test(`${code}: nothing is sent until the reader decides; drawing goes on and is not lost`, async () => {
    const { save, server, draw } = made();
    draw();
    server.answers.push(new ApiError(status, { code, what: "No." }));
    await later(2500);
    assert.equal(save.state, state);
    draw();
    await later(100_000);
    assert.equal(server.got.length, 1);
    assert.equal(save.clean, false);
    server.number = 8;
    save.resume(8);
    assert.equal(save.state, "waiting");
    assert.equal(await save.flush({ force: true }), true);
    assert.equal(server.got[1].path, "mask?base=8&sitting=s");
    assert.equal(server.got[1].revision, 2);
    assert.equal(save.state, "saved");
  });
}

test("as the page closes only what a browser lets out is sent after it", async () => {
  const { save, server, draw } = made();
  draw();
  await save.flush({ leaving: true });
  assert.equal(server.got[0].keepalive, true);
  save.keeper = { ask: async () => ({ packed: { byteLength: 70_000 }, revision: 2 }) };
  draw();
  await save.flush({ leaving: true });
  assert.equal(server.got[1].keepalive, false);
});

test("nothing drawn, nothing sent, unless asked for", async () => {
  const { save, server } = made();
  assert.equal(await save.flush(), true);
  assert.equal(server.got.length, 0);
  assert.equal(await save.flush({ force: true }), true);
  assert.equal(server.got.length, 1);
});
