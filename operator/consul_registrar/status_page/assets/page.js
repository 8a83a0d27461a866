// Keeps the page up to date: asks for it anew every two seconds and takes over what differs, so that focus, scrolling and
// what somebody types stay. Without it the page reloads itself. Nothing it is given becomes HTML but by the parser, under
// a policy that lets no script in.
"use strict";

const EVERY = 2000;
const live = document.getElementById("live");
const pause = document.getElementById("pause");
let tag = null;
let paused = false;
let waiting = null;
let asking = null;
let heard = Date.now();

function morph(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || key(old) !== key(now)) {
    old.replaceWith(document.importNode(now, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  children(old, now);
}

const key = (node) => (node.getAttribute ? node.getAttribute("data-key") : null);

// Rows with a key are found again wherever they are now; the rest is taken in order.
function children(old, now) {
  const keyed = new Map();
  for (const child of old.children) if (key(child)) keyed.set(key(child), child);
  let at = old.firstChild;
  for (const wanted of [...now.childNodes]) {
    const known = key(wanted) && keyed.get(key(wanted));
    keyed.delete(key(wanted));
    if (known && known !== at) {
      old.insertBefore(known, at);
      morph(known, wanted);
    } else if (at && !(key(at) && key(at) !== key(wanted)) && !(key(wanted) && !known)) {
      const next = at.nextSibling;
      morph(at, wanted);
      at = next;
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function tell(state, text) {
  live.className = `live ${state}`;
  live.textContent = text;
}

async function ask() {
  if (asking) asking.abort();
  const mine = (asking = new AbortController());
  const limit = setTimeout(() => mine.abort(), 5 * EVERY);
  try {
    const headers = tag ? { "If-None-Match": tag } : {};
    const answer = await fetch(location.href, { headers, cache: "no-store", signal: mine.signal });
    const text = await answer.text();
    if (mine !== asking) return;
    if (answer.status === 200 || answer.status === 404) take(answer, text);
    else if (answer.status !== 304) throw new Error(`answered ${answer.status}`);
    heard = Date.now();
    tell("on", "Live");
  } catch (error) {
    if (mine === asking) tell("off", `No answer for ${ago(Date.now() - heard)}: this is how it was then`);
  } finally {
    clearTimeout(limit);
    if (mine === asking) asking = null;
  }
}

function take(answer, text) {
  const now = new DOMParser().parseFromString(text, "text/html");
  morph(document.body, now.body);
  document.title = now.title;
  tag = answer.headers.get("ETag");
  times();
}

function ago(milliseconds) {
  const s = Math.max(0, Math.round(milliseconds / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function times() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString();
    time.textContent = `${ago(Date.now() - at)} ago`;
  }
}

function turn() {
  clearTimeout(waiting);
  if (paused || document.hidden) return;
  ask().finally(() => {
    clearTimeout(waiting);
    waiting = setTimeout(turn, EVERY);
  });
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Go on" : "Pause";
  if (!paused) return turn();
  if (asking) asking.abort();
  asking = null;
  tell("off", "Paused");
});
document.addEventListener("visibilitychange", turn);
document.addEventListener("submit", (event) => event.target.matches("[data-live]") && event.preventDefault());
document.addEventListener("input", (event) => {
  if (!event.target.closest("[data-live]")) return;
  const asked = event.target.value.trim();
  history.replaceState(null, "", asked ? `?q=${encodeURIComponent(asked)}` : location.pathname);
  tag = null;
  clearTimeout(waiting);
  waiting = setTimeout(turn, 200);
});
setInterval(times, 1000);
times();
tell("on", "Live");
waiting = setTimeout(turn, EVERY);
