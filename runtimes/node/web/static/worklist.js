// Keeps the list as it is on the node. Without this script the list is that of when the page was loaded.
"use strict";
const live = document.getElementById("live");
const link = document.getElementById("link");
let source = null;
let busy = false;
let again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch("/rows" + location.search, { cache: "no-store", redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) { location.reload(); return; }
    if (answer.ok) { replace(await answer.text()); }
    link.hidden = answer.ok;
  } catch {
    link.hidden = false;
  }
  setTimeout(() => { busy = false; if (again) { again = false; refresh(); } }, 250);
}

function replace(html) {
  const focused = document.activeElement;
  const target = live.contains(focused) ? focused.getAttribute("href") : null;
  live.innerHTML = html;  // from our own server, which escapes; and the page's policy runs no inline script
  if (target) {
    const found = [...live.querySelectorAll("a")].find((item) => item.getAttribute("href") === target);
    if (found) { found.focus({ preventScroll: true }); }
  }
}

// A hidden tab lets go of its connection: a browser has six of them for one server.
function connect() {
  if (source || document.hidden) { return; }
  source = new EventSource("/events");
  source.addEventListener("change", refresh);
  source.addEventListener("open", () => { link.hidden = true; });
  source.addEventListener("error", () => {
    link.hidden = false;
    if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(connect, 5000); }
  });
}

function disconnect() {
  if (source) { source.close(); source = null; }
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
window.addEventListener("pagehide", disconnect);
window.addEventListener("pageshow", connect);
for (const select of document.querySelectorAll(".filter select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
connect();
