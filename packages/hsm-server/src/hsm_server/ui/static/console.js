// SPDX-License-Identifier: MIT
// Progressive enhancement; every page works without scripts.
"use strict";

// Show copy buttons only where the clipboard is available.
function offerCopies(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button[data-copy]")) {
    if (!button.hidden) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.querySelector(button.dataset.copy);
      if (!source) return;
      await navigator.clipboard.writeText(source.textContent);
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }
}

// Submit a form once, however often its button is pressed.
function sendOnce(event) {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || form.method !== "post") return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
}

document.addEventListener("DOMContentLoaded", () => offerCopies(document));
document.addEventListener("htmx:after:swap", () => offerCopies(document));
document.addEventListener("submit", sendOnce);
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Live list: server-sent events with rendered rows.
const MOST_ROWS = 500;

function followRows(place) {
  const button = place.querySelector("button");
  const said = place.querySelector("[role=status]");
  const rows = document.querySelector(place.dataset.rows);
  let source = null;
  let seen = 0;
  let next = place.dataset.start;
  const end = (text) => {
    if (source) source.close();
    source = null;
    button.textContent = "Follow live";
    said.textContent = text;
  };
  const begin = () => {
    seen = 0;
    button.textContent = "Stop";
    said.textContent = "Waiting for new records.";
    const url = new URL(place.dataset.live, location);
    url.searchParams.set("start", next);
    source = new EventSource(url);
    source.addEventListener("entry", (event) => {
      const box = document.createElement("template");
      box.innerHTML = event.data;
      for (const row of box.content.querySelectorAll("tr")) {
        row.classList.add("new");
        rows.prepend(row);
        seen += 1;
      }
      // Resume where the last stream stopped.
      next = event.lastEventId;
      while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
      said.textContent = `Live: ${seen} new.`;
    });
    source.addEventListener("problem", (event) => {
      end(`The live view ended. ${JSON.parse(event.data).detail}`);
    });
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) {
        end("The live view was disconnected. Reload the page.");
      }
    });
  };
  button.addEventListener("click", () => { if (source) end("Stopped."); else begin(); });
  button.hidden = false;
  place.classList.add("on");
}

document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-live][data-rows]")) followRows(place);
});

// Live page part, rendered by the server. Hidden pages close the stream, since browsers
// limit connections per server. Outdated figures are marked as such.
const LATE_MILLISECONDS = 10_000;

function followParts(place) {
  const concern = document.getElementById("concern");
  const old = document.getElementById("old");
  let source = null;
  let late = 0;
  const tellOld = (isOld) => {
    clearTimeout(late);
    if (old) old.hidden = !isOld;
  };
  const wait = () => { late = setTimeout(tellOld, LATE_MILLISECONDS, true); };
  const begin = () => {
    if (source || document.hidden) return;
    source = new EventSource(place.dataset.parts);
    wait();
    source.addEventListener("error", () => tellOld(true));
    source.addEventListener("part", (event) => {
      tellOld(false);
      wait();
      place.innerHTML = event.data;
      const said = place.querySelector("[data-says]").textContent;
      if (concern && concern.textContent !== said) {
        concern.textContent = said;
        concern.hidden = !said;
      }
    });
  };
  const end = () => {
    if (source) source.close();
    source = null;
    clearTimeout(late);
  };
  document.addEventListener("visibilitychange", () => { if (document.hidden) end(); else begin(); });
  window.addEventListener("pagehide", end);
  window.addEventListener("pageshow", begin);
  begin();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-parts]")) followParts(place);
});
