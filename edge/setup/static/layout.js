// The layout editor: zones, corners and antennas of a floor, dragged or moved by keys, and a walk test.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MARGIN_M = 3, PIXELS_PER_M = 24, LOOK_MS = 1000, MOST_UNDO = 200;

let layout, stamp, chosen = null, zoom = 1, dirty = false;
const undo = [], moved = { zones: new Set(), antennas: new Set(), images: new Set() };
const reads = {}, stays = [];

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(text, kind = "") {
  $("said").textContent = text;
  $("said").className = kind;
}

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const kind = answer.headers.get("Content-Type") || "";
  const told = kind.includes("json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(told.error || answer.statusText);
  return told;
}

const snap = (value) => {
  const step = Number($("snap").value);
  return Math.round(Math.round(value / step) * step * 100) / 100;
};
const floor = () => $("floor").value;
const zones = () => layout.zones.filter((zone) => zone.floor === floor());
const antennas = () => layout.antennas.filter((antenna) => antenna.floor === floor());
const zoneOf = (id) => layout.zones.find((zone) => zone.id === id);
const antennaOf = (id) => layout.antennas.find((antenna) => antenna.id === id);

// Changing, with a way back.

function remember() {
  undo.push(JSON.stringify({ zones: layout.zones, antennas: layout.antennas }));
  if (undo.length > MOST_UNDO) undo.shift();
}

function touched(what) {
  (what.kind === "antenna" ? moved.antennas : moved.zones).add(what.id);
  dirty = true;
  draw();
}

function takeBack() {
  const before = undo.pop();
  if (!before) return;
  Object.assign(layout, JSON.parse(before));
  dirty = true;
  draw();
}

function points(what) {
  if (what.kind === "antenna") return [antennaOf(what.id).position];
  const polygon = zoneOf(what.id).polygon;
  return what.kind === "corner" ? [polygon[what.corner]] : polygon;
}

function moveBy(what, x, y) {
  for (const point of points(what)) {
    point[0] = Math.round((point[0] + x) * 100) / 100;
    point[1] = Math.round((point[1] + y) * 100) / 100;
  }
  touched(what);
}

function addCorner(what) {
  const polygon = zoneOf(what.id).polygon, at = what.kind === "corner" ? what.corner : polygon.length - 1;
  const [x1, y1] = polygon[at], [x2, y2] = polygon[(at + 1) % polygon.length];
  remember();
  polygon.splice(at + 1, 0, [snap((x1 + x2) / 2), snap((y1 + y2) / 2)]);
  chosen = { kind: "corner", id: what.id, corner: at + 1 };
  touched(chosen);
}

function removeCorner(what) {
  const polygon = zoneOf(what.id).polygon;
  if (what.kind !== "corner" || polygon.length <= 3) return say("a zone needs three corners at least", "bad");
  remember();
  polygon.splice(what.corner, 1);
  chosen = { kind: "zone", id: what.id };
  touched(chosen);
}

// Drawing. y grows upwards in the store file.

let up, frame;

function bounds() {
  const all = [...zones().flatMap((zone) => zone.polygon), ...antennas().map((antenna) => antenna.position)];
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  if (!all.length) return [0, 0, 20, 20];
  return [Math.min(...xs) - MARGIN_M, Math.min(...ys) - MARGIN_M, Math.max(...xs) + MARGIN_M, Math.max(...ys) + MARGIN_M];
}

function fit() {
  frame = bounds();
  const image = picture();
  if (image) frame = [Math.min(frame[0], image.x), Math.min(frame[1], image.y), Math.max(frame[2], image.x + image.width), frame[3]];
}

function label(x, y, text, kind = "") {
  return element("text", { class: `label ${kind}`, transform: `translate(${x} ${y}) scale(1 -1)` }, text);
}

function focusable(shape, what, name) {
  shape.setAttribute("tabindex", "0");
  shape.setAttribute("role", "button");
  shape.setAttribute("aria-label", name);
  shape.dataset.key = JSON.stringify(what);
  shape.addEventListener("focus", () => choose(what));
  shape.addEventListener("pointerdown", (event) => drag(event, what));
  return shape;
}

const same = (a, b) => a && b && a.kind === b.kind && a.id === b.id && a.corner === b.corner;
const round = (point) => point.map((value) => Math.round(value * 100) / 100).join(", ");

function draw() {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  const [left, low, right, high] = frame, plan = $("plan"), image = picture();
  plan.setAttribute("viewBox", `${left} ${-high} ${right - left} ${high - low}`);
  plan.setAttribute("width", (right - left) * PIXELS_PER_M * zoom);
  plan.setAttribute("height", (high - low) * PIXELS_PER_M * zoom);
  plan.classList.toggle("over-picture", Boolean(image));
  up = element("g", { transform: "scale(1 -1)" });
  if (image) {
    const size = { href: `/image/${encodeURIComponent(floor())}`, width: image.width, opacity: image.strength };
    up.append(element("g", { transform: `translate(${image.x} ${image.y}) scale(1 -1)` },
      element("image", { ...size, y: -image.height, height: image.height, preserveAspectRatio: "none" })));
  }
  for (let x = Math.ceil(left); x <= right; x++) up.append(element("line", { class: "grid", x1: x, x2: x, y1: low, y2: high }));
  for (let y = Math.ceil(low); y <= high; y++) up.append(element("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
  for (const zone of zones()) {
    const what = { kind: "zone", id: zone.id }, mine = chosen && chosen.id === zone.id && chosen.kind !== "antenna";
    const shape = element("polygon", { class: `zone ${zone.kind}${mine ? " chosen" : ""}`, points: zone.polygon.map((p) => p.join(",")).join(" ") });
    up.append(focusable(shape, what, `zone ${zone.id}, ${zone.kind}, ${zone.polygon.length} corners`));
  }
  for (const zone of zones()) {
    const x = zone.polygon.reduce((sum, p) => sum + p[0], 0) / zone.polygon.length;
    up.append(label(x, Math.max(...zone.polygon.map((p) => p[1])) - 0.9, zone.id));
  }
  for (const antenna of antennas()) {
    const [x, y] = antenna.position, what = { kind: "antenna", id: antenna.id }, heard = reads[antenna.id];
    if (heard && heard.rate > 0) up.append(element("circle", { class: "heard", cx: x, cy: y, r: 0.3 + Math.min(1.2, Math.log10(1 + heard.rate) / 2) }));
    const shape = element("circle", { class: `antenna${same(chosen, what) ? " chosen" : ""}`, cx: x, cy: y, r: 0.28 });
    up.append(focusable(shape, what, `antenna ${antenna.id} of zone ${antenna.zone} at ${round([x, y])}`));
    up.append(label(x, y - 0.8, heard && heard.rate > 0 ? `${antenna.id} · ${Math.round(heard.rate)}/s` : antenna.id, "small"));
  }
  if (chosen && chosen.kind !== "antenna" && zones().some((zone) => zone.id === chosen.id)) {
    zoneOf(chosen.id).polygon.forEach(([x, y], corner) => {
      const what = { kind: "corner", id: chosen.id, corner };
      const shape = element("circle", { class: `corner${same(chosen, what) ? " chosen" : ""}`, cx: x, cy: y, r: 0.22 });
      up.append(focusable(shape, what, `corner ${corner + 1} of ${chosen.id} at ${round([x, y])}`));
    });
  }
  plan.replaceChildren(up);
  $("undo").disabled = !undo.length;
  $("save").disabled = !dirty;
  figures();
  // Redrawn shapes are new ones: the focus goes with what is chosen.
  const target = focused && chosen && [...up.children].find((shape) => shape.dataset.key === JSON.stringify(chosen));
  if (target && target !== document.activeElement) target.focus({ preventScroll: true });
}

function choose(what) {
  if (same(chosen, what)) return;
  chosen = what;
  draw();
}

function figures() {
  const box = $("figures");
  if (!chosen) return box.replaceChildren();
  const open = document.activeElement && box.contains(document.activeElement);
  const zone = chosen.kind === "antenna" ? null : zoneOf(chosen.id);
  $("chosen").textContent = zone ? `Zone ${zone.id}` : `Antenna ${chosen.id}`;
  if (open) return;
  const about = document.createElement("p");
  about.className = "soft";
  about.textContent = zone ? `${zone.name}, ${zone.kind}` : `of zone ${antennaOf(chosen.id).zone}`;
  const table = document.createElement("table");
  points(zone ? { kind: "zone", id: zone.id } : chosen).forEach((point, index) => {
    const row = table.insertRow();
    row.insertCell().textContent = zone ? `corner ${index + 1}` : "position";
    [0, 1].forEach((axis) => {
      const input = document.createElement("input");
      Object.assign(input, { type: "number", step: "0.01", value: point[axis] });
      input.setAttribute("aria-label", `${zone ? `corner ${index + 1}` : "position"}, ${"xy"[axis]} in metres`);
      input.addEventListener("change", () => {
        const value = Number(input.value);
        if (input.value === "" || !Number.isFinite(value)) return;
        remember();
        point[axis] = Math.round(value * 100) / 100;
        touched(zone ? { kind: "zone", id: zone.id } : chosen);
      });
      row.insertCell().append(input);
    });
  });
  box.replaceChildren(about, table);
}

function place(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(up.getScreenCTM().inverse());
  return [at.x, at.y];
}

function drag(event, what) {
  event.preventDefault();
  chosen = what;
  draw();
  const shape = [...up.children].find((each) => each.dataset.key === JSON.stringify(what));
  if (shape) shape.focus({ preventScroll: true });
  const from = place(event), before = points(what).map((point) => [...point]), plan = $("plan");
  let begun = false;
  const onMove = (next) => {
    const [x, y] = place(next);
    if (!begun && Math.hypot(x - from[0], y - from[1]) < 0.05) return;
    if (!begun) remember();
    begun = true;
    // The first point lands on the grid, the others keep their distance from it.
    const by = [snap(before[0][0] + x - from[0]) - before[0][0], snap(before[0][1] + y - from[1]) - before[0][1]];
    points(what).forEach((point, index) => {
      point[0] = Math.round((before[index][0] + by[0]) * 100) / 100;
      point[1] = Math.round((before[index][1] + by[1]) * 100) / 100;
    });
    touched(what);
  };
  const onUp = () => {
    plan.removeEventListener("pointermove", onMove);
    window.removeEventListener("pointerup", onUp);
    window.removeEventListener("pointercancel", onUp);
  };
  plan.addEventListener("pointermove", onMove);
  window.addEventListener("pointerup", onUp);
  window.addEventListener("pointercancel", onUp);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
    event.preventDefault();
    if (dirty) save();
    return;
  }
  if (/^(INPUT|SELECT|BUTTON)$/.test(document.activeElement.tagName)) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return takeBack();
  }
  const what = document.activeElement.dataset && document.activeElement.dataset.key && JSON.parse(document.activeElement.dataset.key);
  if (!what) return;
  if (ARROWS[event.key]) {
    event.preventDefault();
    const step = event.shiftKey ? 1 : Number($("snap").value), [x, y] = ARROWS[event.key];
    if (!event.repeat) remember();
    moveBy(what, x * step, y * step);
  } else if (event.key === "+" && what.kind !== "antenna") {
    addCorner(what);
  } else if (event.key === "Delete" && what.kind !== "antenna") {
    removeCorner(what);
  } else if (event.key === "Escape") {
    chosen = null;
    document.activeElement.blur();
    $("chosen").textContent = "Nothing chosen";
    draw();
  }
});

// The picture, placed by figures that are saved with the layout; how strong it is drawn stays in the browser.

const PLACE = ["left", "bottom", "width"];
const strengthKey = () => `picture ${layout.file}`;
const shapes = {};
const floorOf = (id) => layout.floors.find((each) => each.id === id);

function picture() {
  const place = floorOf(floor()).image;
  if (!layout.images.includes(floor()) || !shapes[floor()] || !place) return null;
  return { x: place.left, y: place.bottom, width: place.width, height: place.height, strength: Number($("strength").value) };
}

function showPicture() {
  const its = floor(), there = layout.images.includes(its);
  $("picture").hidden = !there;
  if (!there) return;
  const [left, bottom, right] = bounds();
  const place = floorOf(its).image || { left: left + MARGIN_M, bottom: bottom + MARGIN_M, width: right - left - 2 * MARGIN_M };
  for (const id of PLACE) $(id).value = place[id];
  $("strength").value = localStorage.getItem(strengthKey()) || 0.6;
  if (shapes[its]) return;
  const image = new Image();
  image.onload = () => {
    shapes[its] = image.naturalWidth / image.naturalHeight || 1;
    if (layout.new.includes(its) && !moved.images.has(its)) placePicture(its);
    fit();
    draw();
  };
  const source = `/image/${encodeURIComponent(its)}`;
  image.onerror = () => ask(source).catch((error) => say(error.message, "bad"));
  image.src = source;
}

// A picture keeps its proportions when its width changes.
function placePicture(its) {
  if (PLACE.some((id) => !Number.isFinite(Number($(id).value)) || $(id).value === "") || Number($("width").value) <= 0) return;
  const [left, bottom, width] = PLACE.map((id) => Number($(id).value));
  const before = floorOf(its).image;
  const height = before && before.width === width ? before.height : Math.round((100 * width) / shapes[its]) / 100;
  floorOf(its).image = { left, bottom, width, height };
  moved.images.add(its);
  dirty = true;
}

for (const id of PLACE) {
  $(id).addEventListener("input", () => {
    if (!shapes[floor()]) return;
    placePicture(floor());
    fit();
    draw();
  });
}
$("strength").addEventListener("input", () => {
  localStorage.setItem(strengthKey(), $("strength").value);
  draw();
});

// Loading and saving.

async function save() {
  const zones = Object.fromEntries([...moved.zones].map((id) => [id, zoneOf(id).polygon]));
  const antennas = Object.fromEntries([...moved.antennas].map((id) => [id, antennaOf(id).position]));
  const images = Object.fromEntries([...moved.images].map((id) => [id, [...PLACE, "height"].map((key) => floorOf(id).image[key])]));
  say("saving …");
  try {
    const told = await ask("/layout", { stamp, zones, antennas, images });
    stamp = told.stamp;
    dirty = false;
    const warned = told.warnings.length ? ` Warnings: ${told.warnings.join("; ")}` : "";
    say(`Saved in ${layout.file}. Restart the service to use it.${warned}`, told.warnings.length ? "" : "good");
    draw();
  } catch (error) {
    say(error.message, "bad");
  }
}

async function load() {
  layout = await ask("/layout");
  stamp = layout.stamp;
  $("store").textContent = layout.store;
  $("file").textContent = layout.file;
  document.title = `Layout of ${layout.store}`;
  $("floor").replaceChildren(...layout.floors.map((each) => new Option(`${each.id} ${each.name}`, each.id)));
  $("here").replaceChildren(...layout.zones.map((zone) => new Option(zone.id, zone.id)));
  showFloor();
}

function showFloor() {
  chosen = null;
  showPicture();
  fit();
  zoom = Math.max(0.2, Math.min(2, ($("canvas").clientWidth - 24) / ((frame[2] - frame[0]) * PIXELS_PER_M)));
  draw();
}

// The walk test.

const time = (date) => date.toLocaleTimeString();

function enter() {
  leave();
  stays.push({ zone: $("here").value, begin: new Date(), end: null });
  showStays();
}

function leave() {
  const last = stays[stays.length - 1];
  if (last && !last.end) last.end = new Date();
  showStays();
}

function showStays() {
  $("stays").hidden = !stays.length;
  $("stays").tBodies[0].replaceChildren(...stays.map((stay, index) => {
    const row = document.createElement("tr");
    for (const text of [stay.zone, time(stay.begin), stay.end ? time(stay.end) : "…"]) row.insertCell().textContent = text;
    const away = document.createElement("button");
    away.textContent = "×";
    away.setAttribute("aria-label", `remove the stay in ${stay.zone}`);
    away.addEventListener("click", () => { stays.splice(index, 1); showStays(); });
    row.insertCell().append(away);
    return row;
  }));
  $("leave").disabled = !stays.some((stay) => !stay.end);
  $("keep").disabled = !stays.length;
}

async function keep() {
  leave();
  if (!$("epc").checkValidity()) return say("the EPC is written in hex digits, two for each byte", "bad");
  try {
    const rows = stays.map(({ zone, begin, end }) => ({ zone, begin: begin.toISOString(), end: end.toISOString() }));
    const told = await ask("/walk", { epc: $("epc").value, stays: rows });
    say(`Walk saved in ${told.file}.`, "good");
    $("next").textContent = `With a recording of these minutes: tagtrail calibrate --from READS.csv --walk ${told.file} -c ${layout.file}`;
  } catch (error) {
    say(error.message, "bad");
  }
}

async function look() {
  try {
    const told = await ask("/reads"), now = performance.now();
    $("live").textContent = told.live
      ? "Rings show antennas that read just now."
      : "The service is not running: no reads are shown.";
    let news = false;
    for (const [id, { reads: count }] of Object.entries(told.antennas)) {
      const before = reads[id];
      const rate = before ? Math.max(0, (1000 * (count - before.count)) / (now - before.at)) : 0;
      news = news || !before || Math.round(rate) !== Math.round(before.rate);
      reads[id] = { count, at: now, rate };
    }
    if (news) draw();
  } catch {
    $("live").textContent = "tagtrail layout has ended: changes can't be saved any more.";
  }
  setTimeout(look, LOOK_MS);
}

$("floor").addEventListener("change", showFloor);
$("undo").addEventListener("click", takeBack);
$("save").addEventListener("click", save);
$("larger").addEventListener("click", () => { zoom *= 1.25; draw(); });
$("smaller").addEventListener("click", () => { zoom /= 1.25; draw(); });
$("enter").addEventListener("click", enter);
$("leave").addEventListener("click", leave);
$("keep").addEventListener("click", keep);
window.addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
if (location.search) history.replaceState(null, "", "/");
load().then(look, (error) => say(error.message, "bad"));
