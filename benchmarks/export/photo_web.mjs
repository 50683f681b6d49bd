// Photographs through onnxruntime-web in node: run in a folder whose node_modules has it, with a folder and outputs.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "package.json"));
const ort = require("onnxruntime-web");
const [folder, ...names] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(fs.readFileSync(path.join(folder, "model.onnx")));
const found = { version: ort.env.versions.common, shapes: [] };
for (const [index, shape] of JSON.parse(fs.readFileSync(path.join(folder, "shapes.json"))).entries()) {
  const bytes = new Uint8Array(fs.readFileSync(path.join(folder, `${index}.raw`)));
  const outputs = await session.run({ images: new ort.Tensor("uint8", bytes, shape) });
  found.shapes.push(names.map((name) => [name, outputs[name].dims]));
  for (const name of names) fs.writeFileSync(path.join(folder, `${index}.${name.replace("/", "-")}`), outputs[name].data);
}
process.stdout.write(JSON.stringify(found));
