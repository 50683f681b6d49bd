// The page of a bundle: a photo becomes labels, a saliency map and milliseconds. `fit` and `decode` are in
// pixels.mjs, which comes before this file in the page's one script.

const FOR = [230, 97, 0]; // orange; blue areas are hatched too: neither needs color vision
const AGAINST = [20, 80, 170];
const OPACITY = 0.8;
const FAINT = 0.1; // of the largest contribution; above it an area against the class is hatched
const HATCH = 9; // pixels from one line to the next
const SIDE = 320; // pixels of the longer side of a picture, at least

const part = (id) => document.getElementById(id);
const facts = JSON.parse(part("facts").textContent);
const [height, width] = facts.size;
const ROWS = facts.batch ?? 64; // feature maps with an occluded location that are run at once

async function unpacked(id) {
  const text = atob(part(id).textContent);
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const say = (text) => (part("status").textContent = text);
const now = () => performance.now();
const breath = () => new Promise((resolve) => setTimeout(resolve)); // the browser draws

// ONNX Runtime's sessions: of the graph, and of its part behind the feature map where there is one.
async function open() {
  const code = new Blob([await unpacked("runtime")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await unpacked("wasm")).buffer;
  ort.env.logLevel = "error";
  const session = async (id) => ort.InferenceSession.create(await unpacked(id), { executionProviders: ["wasm"] });
  return { ort, graph: await session("model"), tail: part("tail") && (await session("tail")) };
}

const opened = open();

// Images uint8[N, height, width, 3] as the input of a session.
function input({ ort, graph }, data, count) {
  if (graph.inputMetadata.find(({ name }) => name === "images").type === "uint8") {
    return new ort.Tensor("uint8", data, [count, height, width, 3]);
  }
  const values = new Float32Array(data.length);
  const area = height * width;
  for (let pixel = 0; pixel < count * area; pixel++) {
    const at = Math.floor(pixel / area) * 3 * area + (pixel % area);
    for (let channel = 0; channel < 3; channel++) values[at + channel * area] = Math.fround(data[3 * pixel + channel] / 255);
  }
  return new ort.Tensor("float32", values, [count, 3, height, width]);
}

// A batch through the graph: logits, probabilities and, where the graph has one, the feature map.
async function run(data, count) {
  const session = await opened;
  const found = await session.graph.run({ images: input(session, data, count) });
  return { logits: found.logits, probabilities: found.probabilities, map: facts.map ? found[facts.map] : null };
}

// How far the logit of a class falls where each location of the feature map in turn is replaced by the mean of all.
async function contributions(map, target) {
  const session = await opened;
  const [, channels, rows, columns] = map.dims;
  const area = rows * columns;
  const values = map.data;
  const mean = Array.from({ length: channels }, (_, c) => {
    let sum = 0;
    for (let place = 0; place < area; place++) sum += values[c * area + place];
    return sum / area;
  });
  const logits = [];
  for (let start = 0; start <= area; start += ROWS) {
    const count = Math.min(ROWS, area + 1 - start);
    const batch = new Float32Array(count * channels * area);
    for (let row = 0; row < count; row++) {
      const at = row * channels * area;
      batch.set(values, at);
      const place = start + row; // the last one, `area`, is not occluded
      if (place < area) for (let c = 0; c < channels; c++) batch[at + c * area + place] = mean[c];
    }
    const feeds = { [facts.map]: new session.ort.Tensor("float32", batch, [count, channels, rows, columns]) };
    if (session.tail.inputNames.includes("images")) { // it reads the size of the batch from them
      feeds.images = input(session, new Uint8Array(count * height * width * 3), count);
    }
    const found = (await session.tail.run(feeds)).logits;
    for (let row = 0; row < count; row++) logits.push(found.data[row * facts.labels.length + target]);
    await breath();
  }
  const whole = logits.pop();
  return { values: logits.map((logit) => whole - logit), rows, columns };
}

const showing = { image: null, map: null };
let latest = 0; // photos and classes may be chosen faster than they are computed

async function show(file) {
  const turn = ++latest;
  part("result").hidden = true;
  say(`Reading ${file.name ?? "the photo"} …`);
  try {
    await opened;
    await breath();
    const start = now();
    const image = fit(await decode(file), { height, width, ...facts.fit });
    const read = now();
    const { probabilities, map } = await run(image.data, 1);
    const end = now();
    if (turn !== latest) return;
    Object.assign(showing, { image, map });
    paint(part("seen"), image);
    if (facts.map) paint(part("saliency"), image); // until it is computed
    part("read").textContent = `${(read - start).toFixed(1)} ms`;
    part("ran").textContent = `${(end - read).toFixed(1)} ms`;
    const scores = Array.from(probabilities.data);
    if (!scores.every(Number.isFinite)) throw new Error("the network gives NaN or infinity for it");
    const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a] || a - b);
    const above = facts.thresholds && order.filter((index) => Math.fround(scores[index]) >= Math.fround(facts.thresholds[index]));
    list(order.slice(0, Math.max(facts.top, above?.length ?? 0)), scores, above);
    part("result").hidden = false;
    const named = (above ?? order.slice(0, 1)).map((index) => `${facts.labels[index]}, ${percent(scores[index])}`);
    say(named.join("; ") || "No label");
    if (facts.map) await explain(order[0]);
  } catch (error) {
    if (turn === latest) say(`${file.name ?? "The photo"} cannot be used: ${error.message ?? error}`);
  }
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

function list(indices, scores, above) {
  const rows = indices.map((index) => {
    const row = document.createElement("li");
    const name = document.createElement(facts.map ? "button" : "span");
    name.textContent = (above?.includes(index) ? "✓ " : "") + facts.labels[index];
    name.dataset.index = index;
    if (facts.map) {
      name.type = "button";
      name.addEventListener("click", () => explain(index));
    }
    const score = document.createElement("b");
    score.textContent = percent(scores[index]);
    const bar = document.createElement("i");
    bar.style.setProperty("--share", scores[index]);
    row.append(name, score, bar);
    return row;
  });
  part("labels").replaceChildren(...rows);
}

async function explain(target) {
  const turn = ++latest;
  for (const button of part("labels").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", Number(button.dataset.index) === target);
  }
  const start = now();
  const found = await contributions(showing.map, target);
  if (turn !== latest) return;
  paint(part("saliency"), showing.image, found);
  const best = found.values.indexOf(Math.max(...found.values));
  const where = `row ${Math.floor(best / found.columns) + 1}, column ${(best % found.columns) + 1}`;
  const name = facts.labels[target];
  part("saliency").setAttribute("aria-label", `Saliency of ${name}: most at ${where} of ${found.rows} by ${found.columns}`);
  part("explained").textContent = `What speaks for ${name} (orange) and against it (blue, hatched)`;
  part("occluded").textContent = `${(now() - start).toFixed(0)} ms`;
}

// A picture of an image, under the colors of contributions where there are some.
function paint(canvas, image, found) {
  const factor = Math.max(1, Math.ceil(SIDE / Math.max(height, width)));
  canvas.width = width * factor;
  canvas.height = height * factor;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const largest = found ? Math.max(...found.values.map(Math.abs).filter(Number.isFinite), 1e-30) : 1;
  for (let y = 0, at = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, at += 4) {
      const source = 3 * (Math.floor(y / factor) * width + Math.floor(x / factor));
      let color = image.data.subarray(source, source + 3);
      if (found) {
        const gray = 110 + (140 / 255) * (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]);
        const value = between(found, (y + 0.5) / canvas.height, (x + 0.5) / canvas.width) / largest;
        const strength = OPACITY * Math.abs(value);
        color = (value > 0 ? FOR : AGAINST).map((one) => gray * (1 - strength) + one * strength);
        if (value < -FAINT && (x + y) % HATCH < 2) color = color.map((one) => 0.35 * one + 0.65 * 255);
      }
      pixels.data.set([color[0], color[1], color[2], 255], at);
    }
  }
  context.putImageData(pixels, 0, 0);
}

// The bilinear value of contributions at a place in 0–1.
function between({ values, rows, columns }, y, x) {
  const along = (place, count) => {
    const at = Math.min(Math.max(place * count - 0.5, 0), count - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, count - 1), at - low];
  };
  const [top, bottom, down] = along(y, rows);
  const [left, right, across] = along(x, columns);
  const at = (row, column) => (Number.isFinite(values[row * columns + column]) ? values[row * columns + column] : 0);
  const upper = at(top, left) * (1 - across) + at(top, right) * across;
  const lower = at(bottom, left) * (1 - across) + at(bottom, right) * across;
  return upper * (1 - down) + lower * down;
}

part("file").addEventListener("change", ({ target }) => target.files.length && show(target.files[0]));
for (const kind of ["dragover", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser leaves the page for the photo
    if (kind === "drop" && event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
  });
}
addEventListener("paste", ({ clipboardData }) => clipboardData.files.length && show(clipboardData.files[0]));
opened.then(
  () => say("Ready: choose a photo."),
  (error) => say(`The network cannot be opened in this browser: ${error.message ?? error}`),
);

// What poolzoo calls to check the page.
const encode = (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
};
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
globalThis.poolzoo = {
  ready: opened.then(() => true),
  async run(images, rows, columns) {
    let data = bytes(images);
    const count = data.length / (3 * rows * columns);
    if (rows !== height || columns !== width) { // a photograph: the page resizes it, whatever the graph can
      if (count !== 1) throw new Error(`images of ${rows} × ${columns} come one at a time`);
      data = fit({ data, height: rows, width: columns }, { height, width, ...facts.fit }).data;
    }
    const size = facts.batch ?? count;
    const parts = [];
    for (let at = 0; at < count; at += size) {
      const { logits, probabilities } = await run(data.subarray(3 * height * width * at, 3 * height * width * (at + size)), size);
      parts.push({ logits: encode(logits.data), probabilities: encode(probabilities.data) });
    }
    return parts;
  },
  async pixels(file) {
    return encode(fit(await decode(new Blob([bytes(file)])), { height, width, ...facts.fit }).data);
  },
  async saliency(image, target) {
    const { values, rows, columns } = await contributions((await run(bytes(image), 1)).map, target);
    return { values, rows, columns };
  },
};
