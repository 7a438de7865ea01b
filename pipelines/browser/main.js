/** The page without a server: the pictures are generated here, by the student in model/. */

import { start } from "./gallery.js";
import { loadStudent } from "./student.js";

async function open() {
  const student = await loadStudent("model/");
  return {
    name: student.name,
    about: `Pictures of ${student.resolution} × ${student.resolution} pixels, generated in this browser.`,
    takesNoise: student.noiseDim > 0,
    generate: async (captions, seeds) => (await student.draw(captions, seeds)).map(toPng),
  };
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

start(open);
