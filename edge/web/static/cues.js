"use strict";
// Tell of members needing attention who are not on the screen yet: by a chime, and where the page has HTTPS by a
// notification of this device. Both come from the open page alone; nothing is sent to anybody.

const NOTES_HZ = [880, 1174.66], NOTE_S = 0.22, LOUD = 0.25;
const region = document.querySelector('[data-region="cues"]');
const chime = document.getElementById("chime"), notify = document.getElementById("notify");
const tap = document.getElementById("tap"), blocked = document.getElementById("blocked");
let sound = null, waiting = new Set(), worker = null;

// A browser plays nothing before somebody has touched the page.
function wake() {
  if (!chime.checked) return;
  sound ??= new AudioContext();
  sound.resume().then(() => { tap.hidden = sound.state === "running"; });
}

function ring() {
  if (!chime.checked || sound?.state !== "running") return;
  NOTES_HZ.forEach((pitch, i) => {
    const note = new OscillatorNode(sound, { frequency: pitch }), level = new GainNode(sound, { gain: 0 });
    const at = sound.currentTime + i * NOTE_S;
    level.gain.setValueAtTime(LOUD, at);
    level.gain.exponentialRampToValueAtTime(0.001, at + 2 * NOTE_S);
    note.connect(level).connect(sound.destination);
    note.start(at);
    note.stop(at + 2 * NOTE_S);
  });
}

// Zone and tier, but no number: others can read a locked phone.
async function tell(cue) {
  if (!notify.checked || !document.hidden || Notification.permission !== "granted") return;
  const words = (selector) => cue.querySelector(selector)?.textContent.trim() ?? "";
  (await worker)?.showNotification(`${words(".tier")} · ${words(".head b")}`, {
    body: words(".what"), tag: `cue-${cue.dataset.cue}`, data: location.pathname, icon: "/static/mark.svg",
  });
}

function look(first) {
  const open = [...region.querySelectorAll('[data-cue][data-state="open"]')];
  const fresh = open.filter((cue) => !waiting.has(cue.dataset.cue));
  waiting = new Set(open.map((cue) => cue.dataset.cue));
  if (first || !fresh.length) return;
  ring();
  fresh.forEach(tell);
}

async function allow() {
  const permission = await Notification.requestPermission();
  blocked.hidden = permission !== "denied";
  if (permission !== "granted") notify.checked = false;
}

function remember(box) {
  box.checked = localStorage.getItem(`cues-${box.id}`) === "on";
  box.addEventListener("change", () => localStorage.setItem(`cues-${box.id}`, box.checked ? "on" : "off"));
}

if (region) {
  region.parentElement.querySelector(".alerts").hidden = false;
  remember(chime);
  chime.addEventListener("change", () => {
    if (chime.checked) wake();
    else tap.hidden = true;
  });
  document.addEventListener("pointerdown", wake);
  document.addEventListener("keydown", wake);
  tap.hidden = !chime.checked;
  if (window.isSecureContext && "Notification" in window && "serviceWorker" in navigator) {
    notify.parentElement.hidden = false;
    remember(notify);
    notify.addEventListener("change", () => {
      if (notify.checked) allow().then(() => localStorage.setItem("cues-notify", notify.checked ? "on" : "off"));
    });
    if (Notification.permission !== "granted") notify.checked = false;
    worker = navigator.serviceWorker.register("/static/worker.js").catch(() => null);
  }
  look(true);
  new MutationObserver(() => look(false)).observe(region, { subtree: true, childList: true, attributeFilter: ["data-state"] });
}
