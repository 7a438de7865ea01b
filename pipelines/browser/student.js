/**
 * An exported student that draws in the browser: captions, or images, and seeds to pictures.
 *
 *     const student = await loadStudent("model/");
 *     const [picture] = await student.draw(["a small red circle"], [0n]);   // an ImageData
 *     const pictures = await student.drawBetween("a small red circle", 0n, 1n, [0, 0.5, 1]);
 */

import { parseManifest } from "./manifest.js";
import { noiseFromSeeds, slerp } from "./noise.js";
import { resizeSquare } from "./resizing.js";
import { checkCaption, Tokenizer } from "./tokenizer.js";

// Rows of one run, which bounds the memory that it takes.
const BATCH = 8;

/**
 * Loads a folder that holds an export's manifest.json and ONNX file, and vocabulary.txt for a student of captions.
 *
 * @param folder its address, with a slash at the end.
 * @param runtime address of the folder that holds onnxruntime-web's two files, with a slash at the end.
 * @throws an Error in words that names the file which is missing or does not fit.
 */
export async function loadStudent(folder, runtime = new URL("ort/", import.meta.url).href) {
  const manifest = await naming(`${folder}manifest.json`, async (path) => parseManifest(await fetchText(path)));
  const { kind } = manifest.condition;
  const reader = kind === "image" ? readImages(manifest.condition) : await readCaptions(folder, manifest.condition);
  const onnx = await naming(`${folder}${manifest.onnx}`, async (path) => {
    const bytes = await fetchBytes(path), expected = manifest.files[manifest.onnx].size;
    if (bytes.length !== expected) throw new Error(`${bytes.length} bytes, but ${expected} in manifest.json`);
    return bytes;
  });
  const ort = await loadRuntime(runtime);
  const session = await naming(`${folder}${manifest.onnx}`, () => ort.InferenceSession.create(onnx));
  return new Student(manifest, reader, ort, session);
}

/** How captions become the student's input; see `Student.draw`. */
async function readCaptions(folder, { tokenizer: kind, length, vocabulary_size: size }) {
  const tokenizer = await naming(`${folder}vocabulary.txt`, async (path) => {
    const made = new Tokenizer(kind, await fetchText(path), length);
    if (made.size !== size) throw new Error(`${made.size} tokens, but ${size} in manifest.json`);
    return made;
  });
  return {
    ...{ name: "tokens", type: "int32", shape: [length] },
    check: checkCaption,
    encode: (captions) => tokenizer.encode(captions),
    unread: (caption) => tokenizer.unread(caption),
  };
}

/** How images, ImageData, become the student's input. */
function readImages({ inputs: { source } }) {
  const [side] = source.shape;
  return {
    ...{ name: "source", type: "float32", shape: [side, side, 3] },
    check: (picture) => {
      if (!(picture instanceof ImageData)) throw new Error("image: not an ImageData");
    },
    encode: (pictures) => {
      const values = new Float32Array(pictures.length * side * side * 3);
      pictures.forEach((picture, row) => values.set(resizeSquare(picture, side), row * side * side * 3));
      return values;
    },
  };
}

async function loadRuntime(folder) {
  const ort = await naming(`${folder}ort.wasm.bundle.min.mjs`, (path) => import(path));
  // Threads would need headers for cross-origin isolation, which not every static host can send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await naming(`${folder}ort-wasm-simd-threaded.wasm`, fetchBytes);
  return ort;
}

class Student {
  constructor(manifest, reader, ort, session) {
    this.name = manifest.name;
    /** Side of the images that it reads in pixels; undefined: it reads captions. */
    this.side = manifest.condition.kind === "image" ? reader.shape[0] : undefined;
    /** Size of its ONNX file in bytes. */
    this.bytes = manifest.files[manifest.onnx].size;
    /** Side of its pictures in pixels. */
    this.resolution = manifest.resolution;
    /** Numbers of noise that it takes; 0: a seed changes nothing. */
    this.noiseDim = manifest.noiseDim;
    Object.assign(this, { reader, ort, session });
  }

  /**
   * Draws one picture an item.
   *
   * @param items captions, or images: opaque ImageData, of which the centred square is read.
   * @param seeds as many BigInts of 64 bits.
   * @returns an array of ImageData.
   * @throws an Error in words for a string that is no caption.
   */
  async draw(items, seeds) {
    return this.drawNoise(items, noiseFromSeeds(seeds, this.noiseDim));
  }

  /**
   * Draws one item between two seeds; see `slerp`. The student's truncation follows, as part of its ONNX file.
   *
   * @param item a caption or an image, as in `draw`.
   * @param seed, second BigInts of 64 bits.
   * @param fractions of the way from one to the other, each 0 to 1: at the ends are the pictures of the two seeds.
   * @returns an array of ImageData, one a fraction.
   * @throws an Error in words for a string that is no caption.
   */
  async drawBetween(item, seed, second, fractions) {
    const dim = this.noiseDim, noise = new Float32Array(fractions.length * dim);
    const ends = [seed, second].map((end) => noiseFromSeeds([end], dim));
    fractions.forEach((fraction, row) => noise.set(slerp(...ends, fraction), row * dim));
    return this.drawNoise(fractions.map(() => item), noise);
  }

  /** What of a caption the student cannot read, in words; undefined where it reads images. */
  get unread() {
    return this.reader.unread;
  }

  async drawNoise(items, noise) {
    items.forEach(this.reader.check);
    const pictures = [], dim = this.noiseDim;
    for (let at = 0; at < items.length; at += BATCH) {
      const some = items.slice(at, at + BATCH);
      pictures.push(...(await this.drawBatch(some, noise.subarray(at * dim, (at + some.length) * dim))));
    }
    return pictures;
  }

  async drawBatch(items, noise) {
    const { Tensor } = this.ort, { name, type, shape, encode } = this.reader, rows = items.length;
    const inputs = { [name]: new Tensor(type, encode(items), [rows, ...shape]) };
    if (this.noiseDim) inputs.noise = new Tensor("float32", noise, [rows, this.noiseDim]);
    const { image } = await this.session.run(inputs);
    const size = image.data.length / rows;
    return items.map((_, row) => toImageData(image.data.subarray(row * size, (row + 1) * size), this.resolution));
  }
}

/** Numbers, nominally in 0-255, as bytes: rounded to the nearest integer, halves to the even one, NaN to 0. */
export function toUint8(values) {
  // That is how this array converts numbers (ECMAScript, ToUint8Clamp).
  return Uint8ClampedArray.from(values);
}

function toImageData(values, side) {
  const rgb = toUint8(values), picture = new ImageData(side, side);
  for (let pixel = 0; pixel < side * side; pixel++) {
    picture.data.set([rgb[3 * pixel], rgb[3 * pixel + 1], rgb[3 * pixel + 2], 255], 4 * pixel);
  }
  return picture;
}

async function fetchBytes(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status === 404 ? "missing" : `the server answers ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function fetchText(path) {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await fetchBytes(path));
}

/** `use(path)`, whose errors begin with the path. */
async function naming(path, use) {
  try {
    return await use(path);
  } catch (error) {
    throw new Error(`${path}: ${error.message ?? error}`);
  }
}
