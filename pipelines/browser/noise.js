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
