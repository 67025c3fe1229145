// SPDX-License-Identifier: MIT
// Small comforts; every page works without them.
"use strict";

// Buttons that copy a text show themselves only where they can do it.
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

// A form is sent once, however often its button is pressed.
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

// A list that goes on by itself: events whose data are rows, made by the server.
const MOST_ROWS = 500;

function followRows(place) {
  const button = place.querySelector("button");
  const said = place.querySelector("[role=status]");
  const rows = document.querySelector(place.dataset.rows);
  let source = null;
  let seen = 0;
  const end = (text) => {
    if (source) source.close();
    source = null;
    button.textContent = "Follow live";
    said.textContent = text;
  };
  const begin = () => {
    seen = 0;
    button.textContent = "Stop";
    said.textContent = "Waiting for what is recorded next.";
    source = new EventSource(place.dataset.live);
    source.addEventListener("entry", (event) => {
      const box = document.createElement("template");
      box.innerHTML = event.data;
      for (const row of box.content.querySelectorAll("tr")) {
        row.classList.add("new");
        rows.prepend(row);
        seen += 1;
      }
      while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
      said.textContent = `Live: ${seen} new.`;
    });
    source.addEventListener("problem", (event) => {
      end(`The live view has ended. ${JSON.parse(event.data).detail}`);
    });
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) {
        end("The live view can't go on. Load the page again.");
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
