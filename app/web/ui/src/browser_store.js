/**
 * What this computer remembers of work in progress (IndexedDB): the last whole mask, the edits since, time events that
 * the server has not confirmed. Keys begin with the account, so that another reader at this computer is not offered it.
 */

const NAME = "redraft-workstation";

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      for (const name of ["work", "journal", "time"]) request.result.createObjectStore(name);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function transact(stores, mode, body) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(stores, mode);
    let result;
    transaction.oncomplete = () => resolve(result?.result ?? result);
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error);
    result = body(...stores.map((name) => transaction.objectStore(name)));
  });
}

const family = (key) => IDBKeyRange.bound([key, 0], [key, Infinity]);

/** @returns {Promise<{base: number, at: number, revision: number, dirty: boolean, mask: ArrayBuffer}|undefined>} */
export const readWork = (key) => transact(["work"], "readonly", (work) => work.get(key));

/** Writes the whole mask; edits up to its revision are no longer needed. */
export const writeWork = (key, entry) =>
  transact(["work", "journal"], "readwrite", (work, journal) => {
    work.put(entry, key);
    journal.delete(IDBKeyRange.bound([key, 0], [key, entry.revision]));
  });

/** One edit after the last whole mask. */
export const appendEdit = (key, revision, diff) =>
  transact(["journal"], "readwrite", (journal) => {
    journal.put({ diff, at: Date.now() }, [key, revision]);
  });

/** Edits since the last whole mask, in order. */
export const readEdits = (key) => transact(["journal"], "readonly", (journal) => journal.getAll(family(key)));

/** The server has everything, or the reader decided: nothing of this assignment stays on this computer. */
export const forgetWork = (key) =>
  transact(["work", "journal"], "readwrite", (work, journal) => {
    work.delete(key);
    journal.delete(family(key));
  });

export const putBatch = (key, number, batch) =>
  transact(["time"], "readwrite", (time) => {
    time.put(batch, [key, number]);
  });

export const dropBatch = (key, number) =>
  transact(["time"], "readwrite", (time) => {
    time.delete([key, number]);
  });

/** Batches of all sittings of one assignment that were not confirmed. */
export const readBatches = (prefix) =>
  transact(["time"], "readonly", (time) => time.getAll(IDBKeyRange.bound([prefix, 0], [`${prefix}\uffff`, Infinity])));
