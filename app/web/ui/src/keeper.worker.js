/**
 * The keeper: a second copy of the mask in a worker, which follows every edit. It packs, stores on this computer and
 * searches components, so that the page never waits for any of these and a save is never half of a stroke.
 */
import { forgetWork, appendEdit, readEdits, readWork, writeWork } from "./browser_store.js";
import { componentEdit } from "./components.js";
import { apply, between } from "./diff.js";
import { gunzipMask, gzip } from "./gzip.js";

let mask = null;
let shape = null;
let key = null;
let base = 0;
let revision = 0;
let stored = true;

async function attempt(work) {
  // A browser that forbids its store (private window, full disc) must not stop the reader: the server still saves.
  try {
    return await work();
  } catch (error) {
    if (stored) self.postMessage({ event: "no-store", message: String(error?.message ?? error) });
    stored = false;
    return undefined;
  }
}

const tasks = {
  /** What this computer holds of the assignment. */
  async local({ key: name }) {
    const entry = await attempt(() => readWork(name));
    if (!entry) return null;
    const edits = (await attempt(() => readEdits(name))) ?? [];
    return {
      base: entry.base,
      dirty: entry.dirty || edits.length > 0,
      at: edits.length ? edits[edits.length - 1].at : entry.at,
    };
  },

  /** Starts from a mask of the server (gzip), from nothing, or from what this computer holds. */
  async open(message) {
    ({ shape, key, base } = message);
    const count = shape[0] * shape[1] * shape[2];
    if (message.local) {
      const entry = await readWork(key);
      const edits = await readEdits(key);
      mask = await gunzipMask(entry.mask, count);
      for (const { diff } of edits) apply(mask, diff);
      // The page counts what it found here as its first edit. The journal of the sitting before is in the mask now and
      // must go whole: its numbers begin at 1 again, and its edits must not be put over later ones.
      revision = 1;
      const packed = await gzip(mask);
      await attempt(() => writeWork(key, { base, at: Date.now(), revision: 1e12, dirty: true, mask: packed }));
    } else {
      mask = message.packed ? await gunzipMask(message.packed, count) : new Uint8Array(count);
      const packed = message.packed ?? (await gzip(mask));
      if (message.keep) await attempt(() => writeWork(key, { base, at: Date.now(), revision: 1e12, dirty: false, mask: packed }));
    }
    const copy = mask.slice();
    return { value: copy.buffer, transfer: [copy.buffer] };
  },

  /** Unpacks a mask for looking at (draft, label, reading) without taking it over. */
  async unpack({ packed, shape: size }) {
    const values = await gunzipMask(packed, size[0] * size[1] * size[2]);
    return { value: values.buffer, transfer: [values.buffer] };
  },

  async edit({ diff, revision: number }) {
    apply(mask, diff);
    revision = number;
    await attempt(() => appendEdit(key, number, diff));
  },

  /** The whole mask as it is now, packed, and on this computer. */
  async pack({ dirty = true }) {
    const at = revision;
    const packed = await gzip(mask);
    await attempt(() => writeWork(key, { base, at: Date.now(), revision: at, dirty, mask: packed }));
    return { packed, revision: at };
  },

  /** The server has confirmed revision `revision` as autosave `number`. */
  async confirmed({ number, revision: at, packed }) {
    base = number;
    await attempt(() => writeWork(key, { base, at: Date.now(), revision: at, dirty: false, mask: packed }));
  },

  async component({ seed, mode }) {
    return componentEdit(mask, shape, seed, mode);
  },

  /** How the mask would have to change to become another one. Not applied: the page commits it as an edit. */
  async difference({ packed }) {
    return between(mask, packed ? await gunzipMask(packed, mask.length) : new Uint8Array(mask.length));
  },

  async forget() {
    await attempt(() => forgetWork(key));
  },
};

let chain = Promise.resolve();

self.onmessage = ({ data }) => {
  // One after the other: an edit that comes while the mask is packed is applied after it.
  chain = chain.then(async () => {
    try {
      const result = await tasks[data.task](data);
      if (result?.transfer) self.postMessage({ id: data.id, result: result.value }, result.transfer);
      else self.postMessage({ id: data.id, result });
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  });
};
