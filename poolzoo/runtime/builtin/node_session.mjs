// A session of onnxruntime-web in node: reads batches from stdin and writes the outputs to stdout.
//
//   node node_session.mjs PACKAGE MODEL THREADS
//
// A frame is "pzrt", the length of its header (uint32, little endian), the header (JSON), and the arrays that the header
// describes. A batch has one array, the graph's input `images`; its answer has two, logits and probabilities, or an
// "error" in the header. The first frame of all is empty: the graph is open.

import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

console.log = console.info = console.debug = console.error; // stdout carries the answers alone

const MAGIC = Buffer.from("pzrt");
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

function answer(header, tensors = []) {
  const arrays = tensors.map(({ dims }) => ({ dtype: "float32", shape: dims }));
  const text = Buffer.from(JSON.stringify({ ...header, arrays }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  write(Buffer.concat([MAGIC, length, text]));
  for (const { data } of tensors) write(new Uint8Array(Float32Array.from(data).buffer));
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
    const start = await take(MAGIC.length + 4);
    if (start === null) return;
    const header = JSON.parse((await take(start.readUInt32LE(MAGIC.length))).toString());
    const [{ dtype, shape }] = header.arrays;
    const size = shape.reduce((product, side) => product * side, ARRAYS[dtype].BYTES_PER_ELEMENT);
    const data = Uint8Array.from(await take(size)); // a copy starts at an address that suits any type
    yield { dtype, shape, data: new ARRAYS[dtype](data.buffer) };
  }
}

try {
  const ort = await import(pathToFileURL(join(folder, "dist", "ort.node.min.mjs")).href);
  ort.env.wasm.numThreads = Number(threads);
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
  answer({});
  for await (const { dtype, shape, data } of messages()) {
    try {
      const found = await session.run({ images: new ort.Tensor(dtype, data, shape) }, OUTPUTS);
      answer({}, OUTPUTS.map((name) => found[name]));
      OUTPUTS.forEach((name) => found[name].dispose());
    } catch (error) {
      answer({ error: String(error?.message ?? error) });
    }
  }
} catch (error) {
  answer({ error: String(error?.message ?? error) });
}
process.exit(0); // the threads of the runtime would keep node alive
