// Labels images with a bundle in node: node classify.mjs BUNDLE IMAGE...
// Prints a line for each image: the file, then the three most probable labels, each with its score.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";
import sharp from "sharp";
import { fit } from "../../poolzoo/runtime/builtin/pixels.mjs"; // copy that file to your project

// A file as RGB: turned by its EXIF orientation, alpha on white.
async function read(file) {
  const image = sharp(file).autoOrient().toColourspace("srgb").ensureAlpha().raw();
  const { data, info } = await image.toBuffer({ resolveWithObject: true });
  const pixels = new Uint8Array(3 * info.height * info.width);
  for (let at = 0; at < pixels.length; at++) {
    const start = 4 * Math.floor(at / 3);
    const alpha = data[start + 3];
    pixels[at] = Math.round((data[start + (at % 3)] * alpha + 255 * (255 - alpha)) / 255);
  }
  return { data: pixels, height: info.height, width: info.width };
}

// The pixels as the graph takes them: uint8[1, h, w, 3], or float32[1, 3, h, w] in 0-1.
function toInput({ data, height, width }, kind) {
  if (kind !== "float") return new ort.Tensor("uint8", data, [1, height, width, 3]);
  const area = height * width;
  const values = Float32Array.from(data, (_, at) => data[3 * (at % area) + Math.floor(at / area)] / 255);
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

const [bundle, ...files] = process.argv.slice(2);
if (!files.length) {
  console.error("usage: node classify.mjs BUNDLE IMAGE...");
  process.exit(2);
}
const config = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"));
const [height, width] = config.poolzoo.data_size;
const { interpolation, crop_pct } = config.pretrained_cfg;
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(join(bundle, "model.onnx")));
for (const file of files) {
  const image = fit(await read(file), { height, width, interpolation, crop_pct });
  const { probabilities } = await session.run({ images: toInput(image, config.export.input) });
  const scores = Array.from(probabilities.data);
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a] || a - b);
  const best = order.slice(0, 3).map((index) => `${config.label_names[index]}\t${scores[index].toFixed(6)}`);
  console.log([file, ...best].join("\t"));
}
