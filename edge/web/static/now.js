"use strict";
// Update the live page: the server sends changed regions as HTML. Only differing nodes are changed, which preserves focus,
// open lists and transitions.

const SILENCE_MS = 6000; // the server sends something at least every 2 s
const PLANS_AT_ONCE = 4, TURN_MS = 15000, ROUND_MS = 56000; // wall screen

function morph(before, after) {
  // Replace a button whose action changes, so that nobody presses the new one by mistake.
  const other = before.nodeName === "BUTTON" && before.value !== after.value;
  if (before.nodeType !== after.nodeType || before.nodeName !== after.nodeName || other) {
    before.replaceWith(after.cloneNode(true));
    return;
  }
  if (before.nodeType !== Node.ELEMENT_NODE) {
    if (before.nodeValue !== after.nodeValue) before.nodeValue = after.nodeValue;
    return;
  }
  for (const { name } of [...before.attributes]) {
    if (!after.hasAttribute(name) && !(name === "open" && before.nodeName === "DETAILS")) before.removeAttribute(name);
  }
  for (const { name, value } of after.attributes) {
    if (before.getAttribute(name) !== value) before.setAttribute(name, value);
  }
  morphChildren(before, after);
}

// Cues appear and disappear in the middle of the list. Each keeps its own element, so that no button changes its cue.
function morphCues(before, after) {
  const fresh = new Map([...after.children].map((element) => [element.dataset.cue, element]));
  for (const node of [...before.childNodes]) {
    if (node.nodeType !== Node.ELEMENT_NODE || !fresh.has(node.dataset.cue)) node.remove();
  }
  let at = before.firstChild;
  for (const [cue, element] of fresh) {
    const mine = [...before.children].find((one) => one.dataset.cue === cue) || element.cloneNode(true);
    if (mine === at) at = at.nextSibling;
    else before.insertBefore(mine, at);
    morph(mine, element);
  }
}

function morphChildren(before, after) {
  if (before.matches?.(".cues") && after.matches?.(".cues")) {
    morphCues(before, after);
    return;
  }
  const old = [...before.childNodes];
  const fresh = [...after.childNodes];
  fresh.forEach((node, i) => {
    if (i < old.length) morph(old[i], node);
    else before.append(node.cloneNode(true));
  });
  old.slice(fresh.length).forEach((node) => node.remove());
}

function start() {
  const lost = document.getElementById("lost");
  const asOf = document.getElementById("as-of");
  const regions = new Map([...document.querySelectorAll("[data-region]")].map((el) => [el.dataset.region, el]));
  const fresh = document.querySelector("[data-events]");
  const locked = document.getElementById("locked");
  let alarm = 0;

  function lose() {
    document.getElementById("lost-since").textContent = asOf.textContent;
    lost.hidden = false;
    fresh.dataset.link = document.body.dataset.link = "lost";
  }

  function heard(message) {
    clearTimeout(alarm);
    alarm = setTimeout(lose, SILENCE_MS);
    lost.hidden = true;
    fresh.dataset.link = document.body.dataset.link = "up";
    const told = JSON.parse(message.data);
    if (locked) locked.hidden = !told.locked;
    if (told.as_of) asOf.textContent = told.as_of;
    for (const [name, html] of Object.entries(told.regions || {})) {
      const element = regions.get(name);
      if (!element) continue;
      const news = element.cloneNode(false);
      news.innerHTML = html;
      morphChildren(element, news);
    }
    fitWall();
  }

  const source = new EventSource(fresh.dataset.events);
  source.addEventListener("regions", heard);
  source.addEventListener("beat", heard);
  alarm = setTimeout(lose, SILENCE_MS);
  // A browser stops reconnecting if the response isn't a stream, e.g. from a proxy while the page restarts.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
}

// A wall screen has room for four plans at a time; if there are more, they take turns, so that each is seen every minute.
function takeTurns() {
  const plans = [...document.querySelectorAll(".wall .plans > .plan")];
  const pages = Math.ceil(plans.length / PLANS_AT_ONCE);
  if (pages < 2) return;
  let page = 0;
  const show = () => plans.forEach((plan, i) => { plan.hidden = Math.floor(i / PLANS_AT_ONCE) !== page; });
  show();
  setInterval(() => { page = (page + 1) % pages; show(); }, Math.min(TURN_MS, ROUND_MS / pages));
}

// Nobody scrolls a wall screen: lists show as many as there is room for, and how many more there are.
function fitWall() {
  const side = document.querySelector(".wall .side");
  if (!side) return;
  side.style.maxHeight = `${window.innerHeight - side.offsetTop - 8}px`;
  const lists = [...side.querySelectorAll("[data-more]")].map((more) => ({ more, rows: rowsAbove(more), shown: 0 }));
  for (const list of lists) show(list, list.rows.length);
  const [cues, members] = [".attention", "[data-region=members]"].map((of) => lists.find((list) => list.more.closest(of)));
  for (const [list, least] of [[members, 3], [cues, 1], [members, 0]]) {
    while (list && list.shown > least && side.scrollHeight > side.clientHeight) show(list, list.shown - 1);
  }
}

function rowsAbove(more) {
  return [...more.parentElement.querySelectorAll(".cues > li, tbody > tr")];
}

function show(list, n) {
  list.shown = n;
  list.rows.forEach((row, i) => { row.hidden = i >= n; });
  const left = list.rows.length - n + Number(list.more.dataset.others);
  list.more.hidden = !left;
  list.more.textContent = list.more.dataset.more.replace("{n}", left);
}

start();
takeTurns();
fitWall();
window.addEventListener("resize", fitWall);
