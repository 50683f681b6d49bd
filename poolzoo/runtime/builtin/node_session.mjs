// A session of onnxruntime-web in node: reads batches from stdin and writes the outputs to stdout.
//
//   node node_session.mjs PACKAGE MODEL THREADS
//
// A message is the length of its header (uint32, little endian), the header (JSON), and the data that it describes.
// Batch:   {"type": "uint8" or "float32", "dims": [...]}, then the values of the graph's input `images`.
// Answer:  {"outputs": {"logits": dims, "probabilities": dims}}, then the values of both, float32;
//          or {"error": text}. The first answer, {"version": text}, comes when the graph is open.

import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

console.log = console.info = console.debug = console.error; // stdout carries the answers alone

const OUTPUTS = ["logits", "probabilities"];
const ARRAYS = { uint8: Uint8Array, float32: Float32Array };
const [folder, model, threads] = process.argv.slice(2);

function write(bytes) {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error; // the reader is slower: try again
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function answer(header, ...arrays) {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  write(length);
  write(text);
  for (const array of arrays) write(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
}

async function* messages() {
  let rest = Buffer.alloc(0);
  const chunks = process.stdin[Symbol.asyncIterator]();
  async function take(count) {
    const parts = [rest];
    let held = rest.length;
    while (held < count) {
      const { value, done } = await chunks.next();
      if (done) return null;
      parts.push(value);
      held += value.length;
    }
    const all = Buffer.concat(parts);
    rest = all.subarray(count);
    return all.subarray(0, count);
  }
  for (;;) {
    const length = await take(4);
    if (length === null) return;
    const header = JSON.parse((await take(length.readUInt32LE())).toString());
    const make = ARRAYS[header.type];
    const size = header.dims.reduce((product, side) => product * side, make.BYTES_PER_ELEMENT);
    const data = Uint8Array.from(await take(size)); // a copy starts at an address that suits any type
    yield { dims: header.dims, type: header.type, data: new make(data.buffer) };
  }
}

try {
  const ort = await import(pathToFileURL(join(folder, "dist", "ort.node.min.mjs")).href);
  ort.env.wasm.numThreads = Number(threads);
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  answer({ version });
  for await (const { type, dims, data } of messages()) {
    try {
      const found = await session.run({ images: new ort.Tensor(type, data, dims) }, OUTPUTS);
      const tensors = OUTPUTS.map((name) => found[name]);
      const outputs = Object.fromEntries(OUTPUTS.map((name, index) => [name, tensors[index].dims]));
      answer({ outputs }, ...tensors.map((tensor) => Float32Array.from(tensor.data)));
      tensors.forEach((tensor) => tensor.dispose());
    } catch (error) {
      answer({ error: String(error?.message ?? error) });
    }
  }
} catch (error) {
  answer({ error: String(error?.message ?? error) });
}
process.exit(0); // the threads of the runtime would keep node alive
