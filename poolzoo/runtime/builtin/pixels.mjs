// From an image file to the pixels that the network was trained on: Pillow's ImageOps.fit, level for level.
// Pixels are Uint8Array[height * width * 3] with their height and width.

const BITS = 22; // of the weights' fraction: Pillow resizes eight-bit images in integers
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// For each place along a side of the result: the first place it is computed from, and the weights from there on.
function weights(size, start, end, wanted, { support, weight }) {
  const scale = Math.fround(end - start) / wanted;
  const stretch = Math.max(scale, 1); // antialiasing: the filter becomes as wide as the pixels of the result
  const reach = support * stretch;
  return Array.from({ length: wanted }, (_, place) => {
    const center = start + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const last = Math.min(size, Math.trunc(center + reach + 0.5));
    const found = Array.from({ length: last - first }, (_, x) => weight((x + first - center + 0.5) * (1 / stretch)));
    const sum = found.reduce((a, b) => a + b, 0);
    const whole = found.map((one) => Math.trunc((sum ? one / sum : one) * 2 ** BITS + (one < 0 ? -0.5 : 0.5)));
    return { first, weights: Int32Array.from(whole) };
  });
}

// One pass: lines of `step.length` pixels become lines of `places.length` pixels.
function pass(from, places, lines, step, result) {
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < places.length; place++) {
      const { first, weights } = places[place];
      const at = line * step.fromLine + first * step.fromPixel;
      const to = line * step.toLine + place * step.toPixel;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (BITS - 1);
        for (let x = 0, source = at + channel; x < weights.length; x++, source += step.fromPixel) {
          sum += from[source] * weights[x];
        }
        sum >>= BITS;
        result[to + channel] = sum < 0 ? 0 : sum > 255 ? 255 : sum;
      }
    }
  }
  return result;
}

// The box [left, top, right, bottom] of an image, resized to height × width.
function resize({ data, height, width }, box, wanted, filter) {
  const [left, top, right, bottom] = box.map(Math.fround);
  let side = width; // of the pixels so far
  const across = () => {
    if (wanted.width === width && !left && right === width) return;
    const columns = weights(width, left, right, wanted.width, filter);
    const lines = data.length / (3 * width);
    const step = { fromLine: 3 * width, fromPixel: 3, toLine: 3 * wanted.width, toPixel: 3 };
    data = pass(data, columns, lines, step, new Uint8Array(3 * lines * wanted.width));
    side = wanted.width;
  };
  const down = () => {
    if (wanted.height === height && !top && bottom === height) return;
    const rows = weights(height, top, bottom, wanted.height, filter);
    const step = { fromLine: 3, fromPixel: 3 * side, toLine: 3, toPixel: 3 * side };
    data = pass(data, rows, side, step, new Uint8Array(3 * wanted.height * side));
  };
  // Pillow 13 starts with the rows where the height shrinks by more than twice what the width does; levels are rounded
  // between the two.
  const shrinks = height - wanted.height;
  const order = shrinks > 0 && shrinks > 2 * (width - wanted.width) ? [down, across] : [across, down];
  order.forEach((run) => run());
  return { data, ...wanted };
}

// An image at the network's size: as it is, or its shorter side resized and its center cropped.
export function fit(image, { height, width, interpolation, crop_pct: kept }) {
  if (image.height === height && image.width === width) return image;
  const margin = [image.width, image.height].map((side) => ((1 - kept) / 2) * side);
  const live = [image.width - 2 * margin[0], image.height - 2 * margin[1]];
  const wanted = width / height;
  const crop = [...live];
  if (live[0] / live[1] > wanted) crop[0] = wanted * live[1];
  else if (live[0] / live[1] < wanted) crop[1] = live[0] / wanted;
  const [left, top] = [0, 1].map((axis) => margin[axis] + (live[axis] - crop[axis]) * 0.5);
  const box = [left, top, left + crop[0], top + crop[1]];
  return resize(image, box, { height, width }, FILTERS[interpolation]);
}

// A file as pixels: turned by its EXIF orientation, colors as they are stored, alpha on white.
export async function decode(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const { height, width } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const colors = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * height * width);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let channel = 0; channel < 3; channel++) data[3 * pixel + channel] = colors[4 * pixel + channel];
  }
  return { data, height, width };
}
