"use strict";
// Draw the flows of the page "Today", and submit the date when it changes.

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function faded(hex) {
  return `${hex}55`;
}

function draw(element) {
  const flows = JSON.parse(element.dataset.flows);
  const floors = [0, 1, 2, 3, 4].map((i) => colour(`--f${i}`));
  const nodeColours = flows.floors.map((floor) => floors[floor % floors.length]);
  const trace = {
    type: "sankey",
    arrangement: "snap",
    textfont: { color: colour("--ink"), size: 13, shadow: "none" },
    node: { label: flows.labels, color: nodeColours, pad: 20, thickness: 14, line: { width: 0 }, hovertemplate: "%{label}: %{value}<extra></extra>" },
    link: {
      source: flows.from, target: flows.to, value: flows.n, color: flows.from.map((i) => faded(nodeColours[i])),
      hovertemplate: "%{source.label} → %{target.label}: %{value}<extra></extra>",
    },
  };
  const layout = {
    margin: { l: 8, r: 8, t: 40, b: 110 }, // backward flows are drawn outside the area of the nodes
    paper_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("--font"), color: colour("--ink") },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink"), family: colour("--font") } },
  };
  Plotly.react(element, [trace], layout, { displayModeBar: false, responsive: true });
  if (!element.dataset.spread) {
    element.dataset.spread = "yes";
    element.on("plotly_afterplot", () => spread(element));
  }
  spread(element);
}

// Plotly's labels overlap where nodes are small: move the lower ones down.
function spread(element) {
  const placed = [];
  const labels = [...element.querySelectorAll(".node-label")].map((label) => ({ label, box: label.getBoundingClientRect() }));
  labels.sort((a, b) => a.box.top - b.box.top);
  for (const { label, box } of labels) {
    let shift = 0;
    for (let again = true; again;) {
      again = false;
      for (const other of placed) {
        const beside = box.left < other.right + 4 && other.left < box.right + 4;
        if (beside && box.top + shift < other.bottom && other.top < box.bottom + shift) {
          shift = other.bottom - box.top;
          again = true;
        }
      }
    }
    if (shift) label.setAttribute("transform", `${label.getAttribute("transform") || ""} translate(0, ${shift})`);
    placed.push({ left: box.left, right: box.right, top: box.top + shift, bottom: box.bottom + shift });
  }
}

const sankey = document.getElementById("sankey");
if (sankey && window.Plotly) {
  draw(sankey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(sankey));
}
const date = document.querySelector('.jump input[type="date"]');
if (date) date.addEventListener("change", () => { if (date.checkValidity()) date.form.requestSubmit(); });

// On phones, cards show their first figures and unfold on a tap; without scripts, and on paper, everything is there.
const PHONE = window.matchMedia("(max-width: 640px)");

function unfold(card, open) {
  card.classList.toggle("shut", !open);
  card.querySelector(":scope .fold")?.setAttribute("aria-expanded", String(open));
}

function fold(card, head, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "fold";
  button.textContent = text;
  button.setAttribute("aria-label", `${text}: ${head.textContent.trim().replace(/\s+/g, " ")}`);
  button.addEventListener("click", () => unfold(card, card.classList.contains("shut")));
  head.append(button);
  unfold(card, false);
}

function foldAll() {
  if (!PHONE.matches) return;
  for (const group of document.querySelectorAll("[data-fold]")) {
    for (const card of group.querySelectorAll(":scope > tbody > tr, :scope > .card")) {
      if (!card.querySelector(".fold")) fold(card, card.querySelector("th, header"), group.dataset.fold);
    }
  }
  unfoldTarget();
}

function unfoldTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || !target.classList.contains("shut")) return;
  unfold(target, true);
  target.scrollIntoView(); // before, there may not have been enough below it
}

foldAll();
PHONE.addEventListener("change", foldAll);
window.addEventListener("hashchange", unfoldTarget);
