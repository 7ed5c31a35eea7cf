/** The queue of time events: numbers, sending again unchanged, sleep, and the name under which a tab holds the pen. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ApiError, Offline } from "../src/api.js";
import { keptSitting, randomName } from "../src/sitting.js";
import { WorkTime } from "../src/worktime.js";

let clock;

beforeEach((t) => {
  clock = { page: 1000, wall: 1_800_000_000_000 };
  globalThis.document = { visibilityState: "visible" };
});

/** Time passes for both clocks. */
const pass = (ms) => {
  clock.page += ms;
  clock.wall += ms;
};

function made(t) {
  t.mock.method(performance, "now", () => clock.page);
  t.mock.method(Date, "now", () => clock.wall);
  const server = { got: [], answers: [] };
  let n = 0;
  const time = new WorkTime({
    api: {
      root: "/api/work/a", csrf: "c",
      post: async (path, body) => {
        server.got.push(JSON.stringify(body));
        const answer = server.answers.shift();
        if (answer) throw answer;
      },
    },
    key: "ac/a", path: "time", newSitting: () => `sitting${++n}`, heartbeat: 15, away: 300,
  });
  return { time, server, sent: () => server.got.map((text) => JSON.parse(text)) };
}

test("batches are numbered from 1, hold each event once, in order", async (t) => {
  const { time, sent } = made(t);
  time.add("open");
  time.structure("kidney");
  await time.send();
  await time.send(); // nothing new, nothing sent
  pass(5000);
  time.add("heartbeat");
  await time.send();
  assert.deepEqual(sent(), [
    { sitting: "sitting1", number: 1, sent_ms: 1000, events: [{ kind: "open", ms: 1000 }, { kind: "structure", ms: 1000, structure: "kidney" }] },
    { sitting: "sitting1", number: 2, sent_ms: 6000, events: [{ kind: "heartbeat", ms: 6000 }] },
  ]);
});

test("what was not confirmed is sent again unchanged, before what came later", async (t) => {
  for (const failure of [new Offline(), new ApiError(503, {}), new ApiError(401, {}), new ApiError(403, {}), new ApiError(429, {})]) {
    const { time, server } = made(t);
    time.add("open");
    server.answers.push(failure);
    await time.send();
    assert.equal(server.got.length, 1);
    pass(12_000);
    time.add("input");
    await time.send();
    assert.equal(server.got.length, 3);
    assert.equal(server.got[1], server.got[0]);
    assert.equal(JSON.parse(server.got[2]).number, 2);
    assert.equal(time.unsent.length, 0);
    t.mock.restoreAll();
    clock = { page: 1000, wall: 1_800_000_000_000 };
  }
});

test("a batch that is refused for good does not hold up those after it", async (t) => {
  const { time, server } = made(t);
  time.add("open");
  server.answers.push(new ApiError(422, { code: "time.form" }));
  await time.send();
  time.add("input");
  await time.send();
  assert.deepEqual(server.got.map((text) => JSON.parse(text).number), [1, 2]);
});

test("input is told at most once a second", (t) => {
  const { time } = made(t);
  for (let n = 0; n < 100; n++) {
    time.input();
    pass(100);
  }
  assert.equal(time.events.length, 10);
});

test("more events than a batch may hold go as several, all at once", async (t) => {
  const { time, sent } = made(t);
  for (let n = 0; n < 2000; n++) time.add("heartbeat");
  await time.send();
  assert.deepEqual(sent().map(({ number, events }) => [number, events.length]), [[1, 900], [2, 900], [3, 200]]);
});

test("sleep that the page's clock missed begins a new sitting with its own numbers", async (t) => {
  const { time, sent } = made(t);
  time.add("open");
  time.structure("cyst");
  pass(4000);
  time.add("input");
  clock.wall += 8 * 3600 * 1000; // the night; the page's clock stood
  pass(1000);
  time.add("input");
  pass(1000);
  time.add("heartbeat");
  await time.send();
  assert.deepEqual(sent().map(({ sitting, number, events }) => [sitting, number, events.map(({ kind, ms }) => [kind, ms])]), [
    ["sitting1", 1, [["open", 1000], ["structure", 1000], ["input", 5000]]],
    ["sitting2", 1, [["open", 6000], ["structure", 6000], ["input", 6000], ["heartbeat", 7000]]],
  ]);
  assert.equal(sent()[1].events[1].structure, "cyst");
});

test("a page that wakes hidden says so; clocks that part by less, and sleep that the page's clock counts, begin nothing", (t) => {
  const { time } = made(t);
  time.add("open");
  clock.wall += 200_000;
  time.add("input");
  pass(8 * 3600 * 1000);
  time.add("heartbeat");
  assert.equal(time.sitting, "sitting1");
  clock.wall -= 600_000; // somebody set the clock back
  document.visibilityState = "hidden";
  time.add("heartbeat");
  assert.equal(time.sitting, "sitting2");
  assert.deepEqual(time.events.map(({ kind }) => kind), ["open", "hidden", "heartbeat"]);
});

test("as the page closes, everything unconfirmed goes out with the token in its body, unchanged", async (t) => {
  const { time, server } = made(t);
  const out = [];
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { sendBeacon: (url, body) => out.push([url, body]) } });
  time.add("open");
  server.answers.push(new Offline());
  await time.send();
  time.add("close");
  time.beacon();
  const bodies = await Promise.all(out.map(async ([, body]) => JSON.parse(await body.text())));
  assert.ok(out.every(([url, body]) => url === "/api/work/a/time" && body.type === "text/plain"));
  assert.deepEqual(bodies.map(({ number, csrf }) => [number, csrf]), [[1, "c"], [2, "c"]]);
  assert.deepEqual(bodies[0], { ...JSON.parse(server.got[0]), csrf: "c" });
});

/** What a tab has: a store, and a page that comes and goes. */
function tab(kept = {}) {
  const store = {
    getItem: (key) => kept[key] ?? null,
    setItem: (key, value) => (kept[key] = value),
    removeItem: (key) => delete kept[key],
  };
  return { kept, options: { store: () => store, page: new EventTarget() } };
}

test("a tab keeps its name over a reload; a copy of the tab and another exam get their own", () => {
  const { kept, options } = tab();
  const name = keptSitting("/work/a", options);
  assert.match(name, /^[0-9a-f]{24}$/);
  assert.notEqual(keptSitting("/work/a", tab({ ...kept }).options), name, "a copied tab must not hold the same pen");
  options.page.dispatchEvent(new Event("pagehide"));
  assert.notEqual(keptSitting("/work/b", tab({ ...kept }).options), name);
  assert.equal(keptSitting("/work/a", { ...options, page: new EventTarget() }), name);
});

test("a page that comes back from the browser's memory takes its name again", () => {
  const { kept, options } = tab();
  keptSitting("/work/a", options);
  options.page.dispatchEvent(new Event("pagehide"));
  assert.equal(Object.keys(kept).length, 1);
  options.page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  assert.equal(Object.keys(kept).length, 0);
});

test("a browser that forbids its store does not stop the page", () => {
  const name = keptSitting("/work/a", { store: () => { throw new Error("forbidden"); }, page: new EventTarget() });
  assert.match(name, /^[0-9a-f]{24}$/);
  assert.notEqual(randomName(), randomName());
});
