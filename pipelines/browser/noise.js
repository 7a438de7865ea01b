/** The noise of a seed; the rules are in the docstring of t2i_kd/noise.py. */

const UNIT = 2 ** -24;

/**
 * Standard normal noise.
 *
 * @param seeds BigInts of 64 bits.
 * @param dim numbers a seed.
 * @returns a Float32Array of [seeds, dim], row after row.
 */
export function noiseFromSeeds(seeds, dim) {
  const noise = new Float32Array(seeds.length * dim);
  seeds.forEach((seed, row) => noise.set(noiseOf(seed, dim), row * dim));
  return noise;
}

/**
 * The noise between two seeds': spherical linear interpolation (Shoemake, SIGGRAPH 1985; for GANs: White, 2016),
 *
 *     sin((1 - t) W) / sin W * first + sin(t W) / sin W * second,   W the angle between the two,
 *
 * which is exactly `first` at t = 0 and `second` at t = 1, and whose norm goes from one's to the other's: on the straight
 * line it would shrink to less than a student was trained with. Two on one line have no arc: (1 - t) first + t second.
 *
 * @param first, second Float32Arrays of one length.
 * @param fraction t, 0 to 1.
 * @returns a Float32Array of that length.
 */
export function slerp(first, second, fraction) {
  const product = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);
  const cosine = product(first, second) / Math.sqrt(product(first, first) * product(second, second));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle);
  const [before, after] = [1 - fraction, fraction].map((part) => (sine > 1e-6 ? Math.sin(part * angle) / sine : part));
  return first.map((value, index) => before * value + after * second[index]);
}

function noiseOf(seed, dim) {
  const low = Number(BigInt.asUintN(32, seed)), high = Number(BigInt.asUintN(32, seed >> 32n));
  const word = (index) => mix(mix(mix(Math.imul(index + 1, 0x9e3779b9)) ^ low) ^ high);
  const values = [];
  for (let pair = 0; pair < dim; pair += 2) {
    const radius = Math.sqrt(-2 * Math.log(((word(pair) >>> 8) + 1) * UNIT));
    const angle = 2 * Math.PI * (word(pair + 1) >>> 8) * UNIT;
    values.push(radius * Math.cos(angle), radius * Math.sin(angle));
  }
  return values.slice(0, dim);
}

/** MurmurHash3's last step, on 32 bits. */
function mix(word) {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}
