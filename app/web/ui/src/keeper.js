/** The page's end of the keeper: every task is a promise; edits go out without waiting. */

export class Keeper {
  constructor(url) {
    this.worker = new Worker(url, { type: "module" });
    this.waiting = new Map();
    this.next = 1;
    this.onEvent = () => {};
    this.worker.onmessage = ({ data }) => {
      if (data.event) return this.onEvent(data);
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.result);
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "The worker could not start."));
      this.waiting.clear();
    };
  }

  /** @param {string} task @param {object} fields @param {Transferable[]} transfer */
  ask(task, fields = {}, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = this.next++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, ...fields }, transfer);
    });
  }
}
