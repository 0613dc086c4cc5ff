"use strict";
// Play the hours of the plan: fetch the page of each hour in turn, and show its plan in place of this one's.

const STEP_MS = 1200;
const play = document.getElementById("play");
let timer = 0;

function stop() {
  clearTimeout(timer);
  timer = 0;
  play.textContent = play.dataset.start;
}

async function show(hours, place) {
  const answer = await fetch(hours[place].href);
  if (!answer.ok || !timer) {
    stop();
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.getElementById("lens").replaceWith(document.adoptNode(page.getElementById("lens")));
  for (const one of document.querySelectorAll("#hours a")) one.removeAttribute("aria-current");
  hours[place].setAttribute("aria-current", "true");
  if (place + 1 < hours.length) timer = setTimeout(show, STEP_MS, hours, place + 1);
  else stop();
}

if (play) {
  play.dataset.start = play.textContent;
  play.hidden = false;
  play.addEventListener("click", () => {
    if (timer) {
      stop();
      return;
    }
    play.textContent = play.dataset.stop;
    timer = setTimeout(show, 0, [...document.querySelectorAll("#hours a.hour")], 0);
  });
}
