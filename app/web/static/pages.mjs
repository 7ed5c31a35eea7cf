// What server-rendered pages need a script for: times in the reader's own time zone, "keep it longer", live parts.
// The page works without: times are then in UTC and nothing refreshes.

const REFRESH_MS = 30_000;
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60]];

/**
 * How far away a moment is, in words: "in 3 days", "20 minutes ago".
 * @param {number} seconds from now; negative in the past
 */
export function relative(seconds) {
  const format = new Intl.RelativeTimeFormat("en-GB", { numeric: "auto" });
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return seconds < 0 ? "just now" : "in less than a minute";
}

/** @param {ParentNode} root */
export function tellTimes(root = document) {
  const moment = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  for (const element of root.querySelectorAll("time[data-moment]")) {
    const at = new Date(element.dateTime);
    if (!Number.isNaN(at.getTime())) element.textContent = moment.format(at);
  }
  for (const element of root.querySelectorAll("time[data-relative]")) {
    const at = Date.parse(element.dateTime);
    if (!Number.isNaN(at)) element.textContent = relative((at - Date.now()) / 1000);
  }
}

/** @param {string} words @param {"" | "good" | "warn" | "bad"} kind */
function say(words, kind = "") {
  const place = document.getElementById("said");
  if (!place) return;
  place.className = `note ${kind}`;
  place.textContent = words;
  place.hidden = false;
}

/** @param {Response} response */
async function whatWentWrong(response) {
  try {
    const { error } = await response.json();
    return `${error.what} ${error.do}`.trim();
  } catch {
    return `The server answered ${response.status}.`;
  }
}

/** @param {HTMLButtonElement} button */
async function extend(button) {
  button.disabled = true;
  const csrf = document.querySelector('meta[name="csrf"]').content;
  try {
    const answer = await fetch(`/api/work/${button.dataset.extend}/extend`, { method: "POST", headers: { "X-CSRF-Token": csrf } });
    if (answer.status === 401) return signInAgain();
    if (answer.ok) {
      await refresh();
      say("It is kept for you longer.", "good");
    } else {
      say(await whatWentWrong(answer), "bad");
    }
  } catch {
    say("The server does not answer. Nothing was changed; try again in a moment.", "bad");
  } finally {
    button.disabled = false;
  }
}

function signInAgain() {
  location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
}

let lost = false;

/** Take the live parts of the page anew; what has the focus stays untouched. */
export async function refresh() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "follow" });
  } catch {
    lost = true;
    say("The server does not answer. What you see may be out of date.", "warn");
    return;
  }
  if (new URL(answer.url).pathname === "/sign-in") return signInAgain();
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!other) continue;
    tellTimes(other);
    if (other.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const marks = ["data-extend", "href"].map((name) => [name, focused?.getAttribute(name)]).filter(([, value]) => value);
    part.replaceChildren(...other.childNodes);
    if (focused) (marks.length ? part.querySelector(`[${marks[0][0]}="${CSS.escape(marks[0][1])}"]`) : null)?.focus();
  }
  if (lost) {
    lost = false;
    say("The server answers again.", "good");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-extend]");
  if (button) extend(button);
});
tellTimes();
setInterval(() => document.visibilityState === "visible" && refresh(), REFRESH_MS);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());
