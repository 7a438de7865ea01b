/** An image's centred square at a side; the rules are in the docstring of t2i_kd/conditions/resizing.py. */

const LOBES = 3;

/**
 * @param picture an ImageData, whose opacity is not looked at.
 * @param side of the result in pixels.
 * @returns a Float32Array of [side, side, 3]: RGB, whole numbers in 0-255.
 */
export function resizeSquare({ data, width, height }, side) {
  const length = Math.min(width, height), top = (height - length) >> 1, left = (width - length) >> 1;
  const kernels = makeKernels(length, side), narrowed = new Float64Array(length * side * 3);
  for (let row = 0; row < length; row++) {
    for (let column = 0; column < side; column++) {
      const { first, weights } = kernels[column], start = 4 * ((top + row) * width + left + first);
      let red = 0, green = 0, blue = 0;
      for (let tap = 0; tap < weights.length; tap++) {
        red += weights[tap] * data[start + 4 * tap];
        green += weights[tap] * data[start + 4 * tap + 1];
        blue += weights[tap] * data[start + 4 * tap + 2];
      }
      narrowed.set([red, green, blue], 3 * (row * side + column));
    }
  }
  const resized = new Float64Array(side * side * 3), rowLength = 3 * side;
  kernels.forEach(({ first, weights }, row) => {
    for (let tap = 0; tap < weights.length; tap++) {
      for (let at = 0; at < rowLength; at++) {
        resized[rowLength * row + at] += weights[tap] * narrowed[rowLength * (first + tap) + at];
      }
    }
  });
  // An array of clamped bytes rounds halves to the even number, as NumPy does.
  return Float32Array.from(Uint8ClampedArray.from(resized));
}

/** For each of `side` places the weights of Lanczos's kernel, from the `first` of `length` pixels on; they sum to 1. */
function makeKernels(length, side) {
  const scale = length / side, reach = LOBES * Math.max(1, scale);
  return Array.from({ length: side }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach)), end = Math.min(length, Math.ceil(centre + reach));
    const weights = Float64Array.from({ length: end - first }, (_, tap) =>
      lanczos((first + tap + 0.5 - centre) / Math.max(1, scale)),
    );
    const sum = weights.reduce((total, weight) => total + weight);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

function lanczos(x) {
  if (Math.abs(x) >= LOBES) return 0;
  return sinc(x) * sinc(x / LOBES);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}
