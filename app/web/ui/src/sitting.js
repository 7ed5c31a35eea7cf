/**
 * The name of one tab at one exam, under which it holds the pen. A page that is loaded again in the same tab goes on under
 * the same name; a second tab, also one that is a copy of the first, gets a name of its own: the stored name is taken out
 * while the page lives, so there is nothing to copy.
 */

/** 24 random hexadecimal characters. Not crypto.randomUUID: it is missing where a hospital serves plain http inside. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (one) => one.toString(16).padStart(2, "0")).join("");
}

/** @param {string} exam what the tab is at, e.g. the page's path */
export function keptSitting(exam, { store = () => window.sessionStorage, page = window } = {}) {
  const key = `redraft.sitting:${exam}`;
  // A browser that forbids its store must not stop the reader: the question about another tab comes, no more.
  const attempt = (act) => {
    try {
      return act(store());
    } catch {
      return null;
    }
  };
  const name = attempt((kept) => kept.getItem(key)) || randomName();
  const take = () => attempt((kept) => kept.removeItem(key));
  take();
  page.addEventListener("pagehide", () => attempt((kept) => kept.setItem(key, name)));
  page.addEventListener("pageshow", (event) => event.persisted && take());
  return name;
}
