"use strict";
// Draws the flows of the page "Today" and picks a date without the button.

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
    margin: { l: 8, r: 8, t: 40, b: 110 }, // flows that go back run outside of the nodes' field
    paper_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("--font"), color: colour("--ink") },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink"), family: colour("--font") } },
  };
  Plotly.react(element, [trace], layout, { displayModeBar: false, responsive: true });
}

const sankey = document.getElementById("sankey");
if (sankey && window.Plotly) {
  draw(sankey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(sankey));
}
const date = document.querySelector('input[type="date"]');
if (date) date.addEventListener("change", () => { if (date.checkValidity()) date.form.requestSubmit(); });
