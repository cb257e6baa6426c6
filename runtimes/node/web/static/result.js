// The heatmap's opacity, printing, and a look whether the image has moved on.
"use strict";
const article = document.getElementById("result");
const map = document.getElementById("map");
const opacity = document.getElementById("opacity");
const film = document.getElementById("film");
const print = document.getElementById("print");

if (map && opacity) {
  opacity.closest("label").hidden = false;
  const show = () => { map.style.opacity = opacity.value / 100; };
  const kept = sessionStorage.getItem("opacity");
  if (kept !== null) { opacity.value = kept; }
  opacity.addEventListener("input", () => { sessionStorage.setItem("opacity", opacity.value); show(); });
  show();
}
if (film) {
  const absent = () => film.closest("figure").classList.add("absent");
  film.addEventListener("error", absent);
  if (film.complete && !film.naturalWidth) { absent(); }
}

print.hidden = false;
print.addEventListener("click", () => window.print());

async function look() {
  const answer = await fetch(location.href, { cache: "no-store", redirect: "manual" });
  if (!answer.ok) { return; }
  const other = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("result");
  if (other && other.dataset.stage !== article.dataset.stage) { location.reload(); }
}

let source = null;
function connect() {
  if (source || document.hidden || article.dataset.stage.endsWith("-delivered")) { return; }
  source = new EventSource("/events");
  source.addEventListener("change", () => { look().catch(() => {}); });
}
function disconnect() {
  if (source) { source.close(); source = null; }
}
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
window.addEventListener("pagehide", disconnect);
window.addEventListener("pageshow", connect);
connect();
