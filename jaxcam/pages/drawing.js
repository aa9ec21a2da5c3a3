"use strict";
// Numbers and pictures: what the page stores -> maps -> pixels. Nothing here knows of controls.

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const floatsOf = (text) => {
  const view = new DataView(bytesOf(text).buffer);
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
};

// One method's maps at one layer: the map of class i is q / 127 * extent[i], from -extent to extent.
class Maps {
  constructor(stored) {
    Object.assign(this, stored);
    this.size = stored.grid.reduce((product, length) => product * length, 1);
    this.q = new Int8Array(bytesOf(stored.q).buffer);
    this.extent = floatsOf(stored.extent);
    this.peak = floatsOf(stored.peak);
    this.status = bytesOf(stored.status);
    this.bias = stored.bias === null ? null : floatsOf(stored.bias);
    this.onE = new Map(stored.on_e);
    this.highest = this.peak.reduce((most, peak) => Math.max(most, peak), 0);
  }

  at(item, place) {
    return (this.q[item * this.size + place] / 127) * this.extent[item];
  }

  values(item) {
    return Float32Array.from({ length: this.size }, (_, place) => this.at(item, place));
  }

  // Rows and columns, and how many slices of them lie behind each other.
  get plane() {
    const [height, width] = this.grid.slice(-2);
    return { height, width, depth: this.grid.length > 2 ? this.grid[0] : 1 };
  }
}

// Where a wanted position lies between two of `length`: centres aligned, edges held, as jax.image.resize has it.
function between(i, wanted, length) {
  const at = Math.min(Math.max(((i + 0.5) * length) / wanted - 0.5, 0), length - 1);
  const low = Math.min(Math.floor(at), Math.max(length - 2, 0));
  return [low, Math.min(low + 1, length - 1), at - low];
}

// The plane of a frame: of a clip's map the mean of the two slices around it.
function sliced(values, plane, frame, frames) {
  const { height, width, depth } = plane;
  if (depth === 1) return values;
  const [first, second, share] = between(frame, frames, depth);
  const size = height * width;
  return Float32Array.from({ length: size }, (_, i) =>
    (1 - share) * values[first * size + i] + share * values[second * size + i]);
}

function resized(values, height, width, tall, wide) {
  const columns = Array.from({ length: wide }, (_, x) => between(x, wide, width));
  const found = new Float32Array(tall * wide);
  for (let y = 0; y < tall; y++) {
    const [top, bottom, down] = between(y, tall, height);
    for (let x = 0; x < wide; x++) {
      const [left, right, across] = columns[x];
      const above = (1 - across) * values[top * width + left] + across * values[top * width + right];
      const below = (1 - across) * values[bottom * width + left] + across * values[bottom * width + right];
      found[y * wide + x] = (1 - down) * above + down * below;
    }
  }
  return found;
}

const AGAINST = [47, 111, 183];
const FOR = [217, 105, 30];

// The colour and the opacity of a value: heat in [0, 1], or signed in [-1, 1].
function inked(value, view, colours) {
  if (view === "signed") return [value < 0 ? AGAINST : FOR, Math.min(1, 1.25 * Math.abs(value))];
  const at = Math.min(Math.max(value, 0), 1) * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  const mixed = colours[low].map((channel, k) => channel + (at - low) * (colours[low + 1][k] - channel));
  // Cold places keep their detail: the heat comes in over the first fifth.
  return [mixed, Math.min(1, Math.max(value, 0) / 0.2)];
}

function painted(pixels, field, { view, opacity, colour, colours }) {
  const data = pixels.data;
  const steps = 256;
  const table = Array.from({ length: 2 * steps + 1 }, (_, i) => inked((i - steps) / steps, view, colours));
  for (let i = 0; i < field.length; i++) {
    const p = 4 * i;
    let [r, g, b] = [data[p], data[p + 1], data[p + 2]];
    const value = Math.min(Math.max(field[i], -1), 1);
    if (view === "e") {
      const kept = Math.max(value, 0);
      [r, g, b] = [r * kept, g * kept, b * kept];
    } else {
      if (!colour) r = g = b = 20 + 0.92 * (0.2126 * r + 0.7152 * g + 0.0722 * b);
      const [ink, strength] = table[Math.round(value * steps) + steps];
      const share = opacity * strength;
      r += share * (ink[0] - r);
      g += share * (ink[1] - g);
      b += share * (ink[2] - b);
    }
    data[p] = r;
    data[p + 1] = g;
    data[p + 2] = b;
  }
}

// Line pieces where a field crosses a level, cell by cell (marching squares).
function contour(field, tall, wide, level) {
  const pieces = [];
  const cut = (a, b) => (level - a) / (b - a);
  for (let y = 0; y + 1 < tall; y++) {
    for (let x = 0; x + 1 < wide; x++) {
      const [a, b, c, d] = [
        field[y * wide + x], field[y * wide + x + 1], field[(y + 1) * wide + x + 1], field[(y + 1) * wide + x],
      ];
      const ends = [];
      if (a < level !== b < level) ends.push([x + cut(a, b), y]);
      if (b < level !== c < level) ends.push([x + 1, y + cut(b, c)]);
      if (d < level !== c < level) ends.push([x + cut(d, c), y + 1]);
      if (a < level !== d < level) ends.push([x, y + cut(a, d)]);
      for (let i = 0; i + 1 < ends.length; i += 2) pieces.push([ends[i], ends[i + 1]]);
    }
  }
  return pieces;
}

const LEVELS = [0.25, 0.5, 0.75];

function lined(context, field, tall, wide, unit) {
  const every = 4; // the lines are as smooth on a quarter of the points
  const [rows, columns] = [Math.max(2, Math.round(tall / every)), Math.max(2, Math.round(wide / every))];
  const coarse = resized(field, tall, wide, rows, columns);
  const path = new Path2D();
  const at = ([x, y]) => [((x + 0.5) * wide) / columns, ((y + 0.5) * tall) / rows];
  for (const level of LEVELS) {
    for (const [from, to] of contour(coarse, rows, columns, level)) {
      path.moveTo(...at(from));
      path.lineTo(...at(to));
    }
  }
  context.lineCap = "round";
  for (const [style, thickness] of [["rgba(0,0,0,.45)", 2.6], ["rgba(255,255,255,.85)", 1.1]]) {
    context.strokeStyle = style;
    context.lineWidth = thickness * unit;
    context.stroke(path);
  }
}

function framed(context, place, plane, tall, wide, unit) {
  const [row, column] = place;
  const box = [column * wide / plane.width, row * tall / plane.height, wide / plane.width, tall / plane.height];
  for (const [style, thickness] of [["rgba(0,0,0,.7)", 4], ["#fff", 1.8]]) {
    context.strokeStyle = style;
    context.lineWidth = thickness * unit;
    context.strokeRect(...box);
  }
}

// The bar is drawn as the maps are, over a middle grey.
function drawBar(canvas, options) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  const low = options.view === "signed" ? -1 : 0;
  const field = Float32Array.from({ length: width * height }, (_, i) => low + ((i % width) / (width - 1)) * (1 - low));
  if (options.view === "e") for (let i = 0; i < 4 * field.length; i++) pixels.data[i] = 255;
  painted(pixels, field, options);
  context.putImageData(pixels, 0, 0);
}
