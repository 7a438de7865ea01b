/** The page without a server: the pictures are generated here, by the student in model/. */

import { inUnits, start } from "./gallery.js";
import { loadStudent } from "./student.js";

// As everywhere in the project.
const MAX_PIXELS = 50_000_000;

async function open() {
  const student = await loadStudent("model/"), { side, resolution } = student;
  const where = `in this browser, by a model of ${inUnits(student.bytes)}.`;
  return {
    name: student.name,
    about: side
      ? `Images are read at ${side} × ${side} pixels and answered at ${resolution} × ${resolution}, ${where}`
      : `Pictures of ${resolution} × ${resolution} pixels, generated ${where}`,
    takesNoise: student.noiseDim > 0,
    unread: student.unread && (async (captions) => captions.map(student.unread)),
    readFile: side ? readFile : undefined,
    readCanvas: (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height),
    side,
    generate: async (values, seeds) => (await student.draw(values, seeds)).map(toPng),
    generateBetween: async (value, seed, second, fraction) =>
      toPng((await student.drawBetween(value, seed, second, [fraction]))[0]),
  };
}

/** A file's picture as an ImageData, upright, what is transparent laid on white. */
async function readFile(file) {
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name}: not an image that this browser reads.`);
  }
  const { width, height } = picture;
  if (width * height > MAX_PIXELS) {
    throw new Error(`${file.name}: ${width} × ${height} pixels, more than the ${MAX_PIXELS} allowed.`);
  }
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0);
  picture.close();
  return context.getImageData(0, 0, width, height);
}

/** An ImageData as a PNG in base64. */
function toPng(picture) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
  // Not toBlob(), which Chromium leaves to its idle moments: that took half a second at times.
  return canvas.toDataURL("image/png").split(",")[1];
}

/** Has the browser keep the page's files, so that it opens without a network and can be installed. */
async function keepFiles() {
  document.head.append(Object.assign(document.createElement("link"), { rel: "manifest", href: "page.webmanifest" }));
  // Only a page of https or localhost has it.
  if (!navigator.serviceWorker) return;
  const policy = window.trustedTypes?.createPolicy("worker", { createScriptURL: (url) => url });
  try {
    await navigator.serviceWorker.register(policy ? policy.createScriptURL("worker.js") : "worker.js");
  } catch (error) {
    console.warn(`The page is not kept for use without a network: ${error.message}`);
  }
}

start(open);
keepFiles();
