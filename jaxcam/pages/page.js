// The controls: what is chosen is one object, `state`; everything shown is drawn from it, and the address holds it.

const $ = (id) => document.getElementById(id);
const book = JSON.parse($("book").textContent);
const colours = book.colours.match(/.{6}/g).map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
// Small pictures are drawn larger, so that lines on them are fine.
const sized = ({ width, height }) => {
  const times = Math.max(1, Math.round(448 / Math.max(width, height)));
  return { width: times * width, height: times * height };
};
const exhibits = book.exhibits.map((stored) => ({
  ...stored,
  ...sized(stored),
  names: book.names[stored.names],
  value: floatsOf(stored.value),
  confidence: stored.confidence === null ? null : floatsOf(stored.confidence),
  maps: stored.maps.map((maps) => new Maps(maps)),
}));
const images = new Map(); // of the frames that were loaded, by their address
const state = {};
let hovered = null; // a class that the pointer is on: shown, not chosen

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const shown = (number) => {
  if (!Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  const text = size !== 0 && (size < 0.001 || size >= 1e5) ? number.toExponential(1).replace("e+", "e") : size >= 1000 ? number.toFixed(0) : size === 0 ? "0" : number.toPrecision(3);
  return text.replaceAll("-", "−");
};
const percent = (share) => {
  if (!Number.isFinite(share)) return "–";
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
};

const exhibit = () => exhibits[state.exhibit];
const maps = () => exhibit().maps.find((each) => each.method === state.method && each.layer === state.layer);
const figure = (item) => (exhibit().confidence === null ? shown(exhibit().value[item]) : percent(exhibit().confidence[item]));
const likelihood = (item) => (exhibit().confidence ?? exhibit().value)[item];
const placeOf = ([row, column]) => {
  const { width, height, depth } = maps().plane;
  const slice = depth === 1 ? 0 : Math.min(depth - 1, Math.floor((state.frame * depth) / exhibit().frames.length));
  return (slice * height + row) * width + column;
};
const evidence = (item) => (state.place ? maps().at(item, placeOf(state.place)) : maps().peak[item]);
const items = (count) => Array.from({ length: count }, (_, i) => i);

// The address: every choice that is not the first one.
function initial(at) {
  const first = exhibits[at].start;
  return {
    exhibit: at, a: first, b: null, slot: "a", method: exhibits[at].maps[0].method, layer: exhibits[at].maps[0].layer,
    view: "heat", common: true, opacity: 65, colour: false, place: null, frame: 0, sort: "given", search: "",
  };
}

function written() {
  const usual = initial(state.exhibit);
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (key === "exhibit" ? value !== 0 : key !== "slot" && String(value) !== String(usual[key])) {
      words.set(key, value === true ? "1" : value === false ? "0" : value === null ? "" : String(value));
    }
  }
  return words.toString();
}

function read(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (key, most) => {
    const number = /^\d+$/.test(words.get(key) ?? "") ? Number(words.get(key)) : NaN;
    return number < most ? number : null;
  };
  Object.assign(state, initial(whole("exhibit", exhibits.length) ?? 0));
  const here = exhibit();
  state.a = whole("a", here.names.length) ?? state.a;
  state.b = whole("b", here.names.length);
  if (here.maps.some((each) => each.method === words.get("method"))) state.method = words.get("method");
  if (here.maps.some((each) => each.method === state.method && each.layer === words.get("layer"))) state.layer = words.get("layer");
  if (["heat", "signed", "e"].includes(words.get("view"))) state.view = words.get("view");
  if (["given", "peak", "name"].includes(words.get("sort"))) state.sort = words.get("sort");
  if (words.has("common")) state.common = words.get("common") !== "0";
  if (words.has("colour")) state.colour = words.get("colour") === "1";
  state.opacity = whole("opacity", 101) ?? state.opacity;
  state.frame = whole("frame", here.frames.length) ?? 0;
  state.search = words.get("search") ?? "";
  const [row, column] = (words.get("place") ?? "").split(",").map(Number);
  const { height, width } = maps().plane;
  state.place = words.get("place") && row >= 0 && row < height && column >= 0 && column < width && Number.isInteger(row + column) ? [row, column] : null;
}

function remember() {
  try {
    history.replaceState(null, "", `#${written()}`);
  } catch {
    // A page inside another page, as in a notebook, may have no address of its own.
  }
}

function say(words) {
  $("live").textContent = words;
}

// Pictures and maps

function loaded(address) {
  if (!images.has(address)) {
    const image = new Image();
    image.src = address;
    images.set(address, image.decode().then(() => image));
  }
  return images.get(address);
}

function scaleOf(found, item, view) {
  const own = view === "signed" ? found.extent[item] : found.peak[item];
  if (view === "e" || !state.common) return own;
  return view === "signed" ? found.extent.reduce((most, each) => Math.max(most, each), 0) : found.highest;
}

async function draw(canvas, values, scale, view) {
  const here = exhibit();
  const turn = (canvas.turn = (canvas.turn ?? 0) + 1);
  const image = await loaded(here.frames[state.frame]);
  if (turn !== canvas.turn) return; // something else was chosen meanwhile
  const { width: wide, height: tall } = here;
  const { height, width } = maps().plane;
  Object.assign(canvas, { width: wide, height: tall });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, wide, tall);
  const plane = sliced(values, maps().plane, state.frame, here.frames.length);
  const signed = view === "signed";
  const small = plane.map((value) => (scale > 0 ? (signed ? value : Math.max(value, 0)) / scale : 0));
  const field = resized(small, height, width, tall, wide);
  const pixels = context.getImageData(0, 0, wide, tall);
  painted(pixels, field, { view, opacity: state.opacity / 100, colour: state.colour, colours });
  context.putImageData(pixels, 0, 0);
  const unit = wide / (canvas.clientWidth || wide); // of a pixel on the screen
  if (view === "heat" && state.opacity > 0) lined(context, field, tall, wide, unit);
  if (state.place) framed(context, state.place, maps().plane, tall, wide, unit);
  canvas.dataset.drawn = String(turn);
}

function fact(name, value, className = "") {
  return make("div", { className }, make("dt", { textContent: name }), make("dd", { textContent: value }));
}

function caption(item, mark) {
  const [here, found] = [exhibit(), maps()];
  const facts = [fact("peak", shown(found.peak[item]))];
  if (here.confidence !== null) facts.unshift(fact(here.value_name, shown(here.value[item])));
  if (found.bias !== null) {
    // Of the cells as they were: those here are rounded, each by up to half a step.
    const total = here.value[item] - found.bias[item];
    facts.push(fact(found.share === 1 ? "sum of cells" : "mean of cells", shown(total)));
    facts.push(fact("bias", shown(found.bias[item])));
  }
  if (found.onE.has(item)) {
    const onE = found.onE.get(item);
    facts.push(fact("on E", here.confidence === null ? shown(onE) : percent(onE)));
  }
  if (found.status[item]) facts.push(fact("status", book.statuses[found.status[item]][0], "status"));
  const name = (mark ? `${mark}  ` : "") + here.names[item];
  return make(
    "figcaption", {},
    make("span", { className: "figure", textContent: figure(item) }), make("strong", { textContent: name }), make("dl", {}, ...facts),
  );
}

function differing(a, b) {
  const found = maps();
  const other = found.values(b);
  const values = found.values(a).map((value, i) => value - other[i]);
  return { values, scale: values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) };
}

function shownItems() {
  const chosen = { a: state.a, b: state.b };
  if (hovered !== null) chosen[state.slot] = hovered;
  return chosen;
}

function drawStage() {
  const [here, found] = [exhibit(), maps()];
  const { a, b } = shownItems();
  const panels = [{ item: a, mark: b === null ? "" : "A" }];
  if (b !== null) panels.push({ item: b, mark: "B" }, { difference: true });
  const holder = $("canvases");
  holder.className = panels.length > 1 ? "two" : "";
  while (holder.children.length > panels.length) holder.lastChild.remove();
  while (holder.children.length < panels.length) {
    const canvas = make("canvas", { tabIndex: 0, width: here.width, height: here.height });
    canvas.setAttribute("role", "img");
    canvas.addEventListener("click", (event) => choosePlace(placeUnder(event)));
    canvas.addEventListener("keydown", movePlace);
    holder.append(make("figure", {}, make("div", { className: "frame" }, canvas)));
  }
  panels.forEach(({ item, mark, difference }, i) => {
    const panel = holder.children[i];
    const [frame, canvas] = [panel.firstChild, panel.firstChild.firstChild];
    panel.querySelector("figcaption")?.remove();
    panel.querySelector(".blank")?.remove();
    let words;
    if (difference) {
      const { values, scale } = differing(a, b);
      draw(canvas, values, scale, "signed");
      words = `A − B: where more speaks for ${here.names[a]} (orange) or for ${here.names[b]} (blue)`;
      const facts = make("dl", {}, fact("cells", scale > 0 ? `−${shown(scale)} to ${shown(scale)}` : "the same"), fact(`${here.value_name} A − B`, shown(here.value[a] - here.value[b])));
      panel.append(make("figcaption", {}, make("strong", { textContent: "A − B" }), facts));
    } else {
      draw(canvas, found.values(item), scaleOf(found, item, state.view), state.view);
      words = `${{ heat: "Evidence for", signed: "What speaks for and against", e: "Explanation map of" }[state.view]} ${here.names[item]}, ${found.method}`;
      panel.append(caption(item, mark));
      if (found.peak[item] <= 0) {
        words += ": nothing speaks for it";
        frame.append(make("div", { className: "blank", textContent: `Nothing here speaks for ${here.names[item]}` }));
      }
    }
    canvas.setAttribute("aria-label", `${words}. Arrow keys choose a place, Escape leaves it.`);
  });
  drawScale(found, a, b);
}

function drawScale(found, a, b) {
  drawBar($("bar"), { view: state.view, opacity: state.opacity / 100, colour: state.colour, colours });
  const shared = state.common && state.view !== "e";
  const scale = scaleOf(found, a, state.view);
  const ends = state.view === "signed" ? [`−${shown(scale)} against`, "0", `for ${shown(scale)}`] : ["0", "", shown(scale)];
  if (state.view === "e") Object.assign(ends, ["dark: 0", "", "as it is: the class's own peak"]);
  else if (!shared && b !== null) Object.assign(ends, state.view === "signed" ? ["each map's own extent", "0", ""] : ["0", "", "each map's own peak"]);
  else ends[1] = state.view === "signed" ? "0" : shared ? "one scale, to the highest peak of all" : "its own scale";
  $("low").textContent = ends[0];
  $("middle").textContent = ends[1];
  $("high").textContent = ends[2];
  $("bar").setAttribute("aria-label", `Colour bar: ${ends.filter(Boolean).join(", ")}`);
}

// Places

function placeUnder(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const { height, width } = maps().plane;
  const row = Math.floor(((event.clientY - box.top) / box.height) * height);
  const column = Math.floor(((event.clientX - box.left) / box.width) * width);
  return [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)];
}

function choosePlace(place) {
  const same = place && state.place && place.join() === state.place.join();
  state.place = same ? null : place;
  hovered = null;
  update();
  const found = listed();
  if (!state.place) say("No place is chosen.");
  else {
    const first = found.slice(0, 3).map((item) => `${exhibit().names[item]} ${shown(evidence(item))}`).join(", ");
    say(`Row ${state.place[0] + 1}, column ${state.place[1] + 1}: evidence for ${found.length}. ${first}`);
  }
}

function movePlace(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (event.key === "Escape" && state.place) choosePlace(null);
  else if (event.key in steps) {
    const { height, width } = maps().plane;
    const from = state.place ?? [Math.floor(height / 2), Math.floor(width / 2)];
    const [down, across] = state.place ? steps[event.key] : [0, 0];
    const to = [Math.min(Math.max(from[0] + down, 0), height - 1), Math.min(Math.max(from[1] + across, 0), width - 1)];
    if (!state.place || to.join() !== state.place.join()) choosePlace(to);
  } else return;
  event.preventDefault();
}

// The list

function listed() {
  const here = exhibit();
  const wanted = state.search.trim().toLocaleLowerCase();
  let found = items(here.names.length);
  if (wanted) found = found.filter((item) => here.names[item].toLocaleLowerCase().includes(wanted));
  if (state.place) found = found.filter((item) => evidence(item) > 0).sort((p, q) => evidence(q) - evidence(p));
  else if (state.sort === "peak") found.sort((p, q) => evidence(q) - evidence(p));
  else if (state.sort === "name") found.sort((p, q) => here.names[p].localeCompare(here.names[q]));
  else if (!here.in_order) found.sort((p, q) => likelihood(q) - likelihood(p));
  return found;
}

function drawList() {
  const [here, found, list] = [exhibit(), listed(), $("list")];
  const most = state.place ? Math.max(...items(here.names.length).map(evidence), 1e-30) : maps().highest || 1;
  const rows = found.map((item) => {
    const share = Math.max(0, evidence(item)) / most;
    const bar = make("i");
    bar.style.width = `${(100 * share).toFixed(1)}%`;
    const row = make(
      "div", { className: share > 0 ? "row" : "row empty", id: `item-${item}`, title: here.names[item] },
      make("span", { className: "name", textContent: here.names[item] }),
      make("span", { className: "track" }, bar),
      make("span", { className: "number", textContent: figure(item) }),
    );
    row.dataset.item = item;
    row.setAttribute("role", "option");
    row.setAttribute("aria-label", `${here.names[item]}, ${figure(item)}, evidence ${share > 0 ? shown(evidence(item)) : "none"}`);
    return row;
  });
  if (!rows.length) rows.push(make("p", { className: "none", textContent: "No class is called that, or has evidence there." }));
  list.replaceChildren(...rows);
  const total = here.names.length;
  const number = found.length.toLocaleString("en");
  $("count").textContent = found.length === total ? `${number} of ${here.num_classes.toLocaleString("en")}` : `${number} found`;
  $("where").hidden = !state.place;
  if (state.place) $("wherewords").textContent = `Evidence at row ${state.place[0] + 1}, column ${state.place[1] + 1}`;
  $("head-bar").textContent = state.place ? "here" : "evidence";
  mark();
}

function mark() {
  for (const row of $("list").querySelectorAll(".row")) {
    const item = Number(row.dataset.item);
    row.setAttribute("aria-selected", String(item === state[state.slot]));
  }
  const active = state[state.slot] === null ? null : $(`item-${state[state.slot]}`);
  for (const element of [$("list"), $("search")]) {
    if (active) element.setAttribute("aria-activedescendant", active.id);
    else element.removeAttribute("aria-activedescendant");
  }
  const here = exhibit();
  $("slot-a").textContent = state.b === null ? here.names[state.a] : `A  ${here.names[state.a]}`;
  $("slot-b").textContent = state.b === null ? "Compare with …" : `B  ${here.names[state.b]}`;
  $("slot-a").setAttribute("aria-pressed", String(state.slot === "a"));
  $("slot-b").setAttribute("aria-pressed", String(state.slot === "b"));
  $("drop-b").hidden = state.b === null;
  return active;
}

// Into view within the list: the page itself stays where it is.
function reveal(row) {
  if (!row) return;
  const list = $("list");
  const [top, bottom] = [row.offsetTop - list.offsetTop, row.offsetTop - list.offsetTop + row.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
}

function choose(item, slot = state.slot) {
  state[slot] = item;
  hovered = null;
  if (exhibit().in_order && slot === "a") drawSentence();
  drawStage();
  reveal(mark());
  remember();
  const found = maps();
  const status = found.status[item] ? `, ${book.statuses[found.status[item]][0]}` : "";
  say(`${exhibit().names[item]}, ${figure(item)}, peak ${shown(found.peak[item])}${status}`);
}

function compare() {
  if (state.b === null) state.b = items(exhibit().names.length).sort((p, q) => likelihood(q) - likelihood(p)).find((item) => item !== state.a) ?? state.a;
  state.slot = "b";
  update();
  reveal($(`item-${state.b}`));
  say(`${exhibit().names[state.a]} against ${exhibit().names[state.b]}. The list now chooses the second class.`);
}

function step(event) {
  const found = listed();
  const at = found.indexOf(state[state.slot]);
  const page = 8;
  const moves = { ArrowDown: at + 1, ArrowUp: at < 0 ? found.length - 1 : at - 1, PageDown: at + page, PageUp: at - page };
  if (event.currentTarget === $("list")) Object.assign(moves, { Home: 0, End: found.length - 1 });
  if (event.key in moves && found.length) choose(found[Math.min(Math.max(moves[event.key], 0), found.length - 1)]);
  else if (event.key === "Enter" && found.length) choose(at < 0 ? found[0] : found[at]);
  else if (event.key === "Escape" && (state.search || state.place)) {
    Object.assign(state, { search: "", place: null });
    update();
  } else return;
  event.preventDefault();
}

function drawSentence() {
  const here = exhibit();
  $("sentence").hidden = !here.in_order;
  if (!here.in_order) return;
  const words = here.names.map((name, item) => {
    const word = make("button", { type: "button", textContent: name });
    word.setAttribute("aria-pressed", String(item === state.a));
    word.addEventListener("click", () => choose(item, "a"));
    return word;
  });
  const held = [...$("sentence").children].indexOf(document.activeElement);
  $("sentence").replaceChildren(...words.flatMap((word) => [word, " "]).slice(0, -1));
  if (held >= 0) words[held]?.focus();
}

// Everything else

// What a cell is, where that is known.
function sentence({ method, share, bias }) {
  if (bias === null) return "";
  const name = exhibit().value_name;
  const total = share === 1 ? `their sum and the bias are the ${name}` : `their mean and the bias are the ${name}`;
  return `Everything behind this layer is linear, as pooling and one linear layer are. So the cells of ${method} are shares of the ${name}: ${total}, of every class.`;
}

function drawControls() {
  const here = exhibit();
  const option = (value, words) => make("option", { value, textContent: words });
  const methods = new Set(here.maps.map((each) => each.method));
  $("method").replaceChildren(...[...methods].map((each) => option(each, each)));
  $("method").value = state.method;
  $("methodfield").hidden = methods.size < 2;
  const layers = here.maps.filter((each) => each.method === state.method).map((each) => each.layer);
  $("layer").replaceChildren(...layers.map((layer) => option(layer, layer)));
  $("layer").value = state.layer;
  $("layerfield").hidden = layers.length < 2;
  $("common").value = state.common ? "1" : "0";
  $("opacity").value = state.opacity;
  $("colour").checked = state.colour;
  $("colour").disabled = $("common").disabled = $("opacity").disabled = state.view === "e";
  for (const radio of document.getElementsByName("view")) radio.checked = radio.value === state.view;
  $("sort").options[0].textContent = here.in_order ? "as read" : here.confidence === null ? "highest value" : "likeliest";
  $("sort").value = state.sort;
  $("sort").disabled = Boolean(state.place);
  $("head-figure").textContent = here.confidence === null ? here.value_name : "confidence";
  $("head-name").textContent = here.in_order ? "word" : "class";
  if ($("search").value !== state.search) $("search").value = state.search;
  $("time").hidden = here.frames.length < 2;
  $("timename").textContent = here.frame_name;
  $("frame").max = here.frames.length - 1;
  $("frame").value = state.frame;
  $("frameno").textContent = `${state.frame + 1} of ${here.frames.length}`;
  $("says").textContent = sentence(maps());
  for (const [i, button] of [...$("exhibits").children].entries()) button.setAttribute("aria-pressed", String(i === state.exhibit));
}

function drawTable(all = false) {
  if (!$("figures").open) return;
  const here = exhibit();
  const columns = here.maps.filter((each) => each.layer === state.layer);
  const found = listed();
  const few = 25;
  const heads = [[here.in_order ? "word" : "class", "words"]];
  if (here.confidence !== null) heads.push(["confidence", ""]);
  heads.push([here.value_name, ""]);
  for (const each of columns) heads.push([`peak, ${each.method}`, ""], [`on E, ${each.method}`, ""], ["status", "words"]);
  const row = (item) => {
    const cells = [[here.names[item], "words"]];
    if (here.confidence !== null) cells.push([percent(here.confidence[item]), ""]);
    cells.push([shown(here.value[item]), ""]);
    for (const each of columns) {
      const onE = each.onE.has(item) ? (here.confidence === null ? shown : percent)(each.onE.get(item)) : "";
      cells.push([shown(each.peak[item]), ""], [onE, ""], [book.statuses[each.status[item]][0], "words"]);
    }
    return make("tr", {}, ...cells.map(([textContent, className]) => make("td", { textContent, className })));
  };
  const head = make("tr", {}, ...heads.map(([textContent, className]) => make("th", { textContent, className, scope: "col" })));
  const body = make("tbody", {}, ...(all ? found : found.slice(0, few)).map(row));
  $("table").replaceChildren(make("table", {}, make("thead", {}, head), body));
  $("more").hidden = all || found.length <= few;
  $("more").textContent = `All ${found.length.toLocaleString("en")}`;
}

function drawAbout() {
  const used = new Set(exhibit().maps.flatMap((each) => [...each.status]));
  const entries = [...book.about, ...[...used].filter(Boolean).map((number) => book.statuses[number])];
  $("abouttext").replaceChildren(make("dl", {}, ...entries.flatMap(([name, words]) => [make("dt", { textContent: name }), make("dd", { textContent: words })])));
}

function update() {
  if (!maps()) state.layer = exhibit().maps.find((each) => each.method === state.method).layer;
  const { height, width } = maps().plane;
  if (state.place && (state.place[0] >= height || state.place[1] >= width)) state.place = null;
  drawControls();
  drawSentence();
  drawStage();
  drawList();
  drawTable();
  remember();
}

function turnTo(number) {
  const name = exhibit().names[state.a];
  const kept = { ...state };
  Object.assign(state, initial(number));
  const { names, maps: there } = exhibit();
  if (there.some((each) => each.method === kept.method)) state.method = kept.method;
  for (const key of ["view", "common", "opacity", "colour", "sort"]) state[key] = kept[key];
  if (hovered === null && kept.a !== exhibits[kept.exhibit].start && names.includes(name)) state.a = names.indexOf(name);
  update();
  drawAbout();
  say(`${exhibit().label}. ${exhibit().names[state.a]}, ${figure(state.a)}`);
}

function listen() {
  const set = (id, key, valueOf) => $(id).addEventListener("input", (event) => {
    state[key] = valueOf(event.currentTarget);
    update();
  });
  set("method", "method", (element) => element.value);
  set("layer", "layer", (element) => element.value);
  set("common", "common", (element) => element.value === "1");
  set("opacity", "opacity", (element) => Number(element.value));
  set("colour", "colour", (element) => element.checked);
  set("frame", "frame", (element) => Number(element.value));
  set("sort", "sort", (element) => element.value);
  set("search", "search", (element) => element.value);
  $("look").addEventListener("submit", (event) => event.preventDefault());
  for (const radio of document.getElementsByName("view")) radio.addEventListener("input", () => {
    state.view = radio.value;
    update();
  });
  for (const id of ["list", "search"]) $(id).addEventListener("keydown", step);
  $("list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    if (event.shiftKey) {
      choose(Number(row.dataset.item), "b");
      update();
    } else choose(Number(row.dataset.item));
  });
  const hover = (item) => {
    if (item === hovered) return;
    hovered = item;
    drawStage();
  };
  $("list").addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const row = event.target.closest(".row");
    hover(row ? Number(row.dataset.item) : null);
  });
  $("list").addEventListener("pointerleave", () => hover(null));
  $("slot-a").addEventListener("click", () => {
    state.slot = "a";
    reveal(mark());
  });
  $("slot-b").addEventListener("click", compare);
  $("drop-b").addEventListener("click", () => {
    Object.assign(state, { b: null, slot: "a" });
    update();
    $("slot-b").focus();
  });
  $("nowhere").addEventListener("click", () => choosePlace(null));
  $("figures").addEventListener("toggle", () => drawTable());
  $("more").addEventListener("click", () => drawTable(true));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      $("search").focus();
    }
  });
  window.addEventListener("hashchange", () => {
    read(location.hash);
    update();
  });
}

function begin() {
  exhibits.forEach(({ frames, label }, number) => {
    const image = make("img", { src: frames[0], alt: "" });
    const button = make("button", { type: "button", title: label }, image);
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => turnTo(number));
    $("exhibits").append(button);
  });
  $("exhibits").hidden = exhibits.length < 2;
  read(location.hash);
  listen();
  $("app").hidden = false;
  update();
  drawAbout();
  reveal($(`item-${state.a}`));
}

begin();
