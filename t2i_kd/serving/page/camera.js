/** The camera: its pictures and what is generated from them side by side, as fast as the model answers. */

// Times of so many frames are averaged.
const AVERAGED = 20;
const REASONS = {
  NotAllowedError: "The camera may not be used: allow it for this page in the browser's settings.",
  NotFoundError: "There is no camera here.",
  NotReadableError: "The camera cannot be read; another program may be using it.",
};

const element = (id) => document.getElementById(id);

/** The camera's stream while it runs. */
let running;
/** Whether the user is being asked for it. */
let opening = false;
let kept = 0;

/**
 * Makes the camera's buttons work.
 *
 * @param side of the square that the model reads, in pixels.
 * @param translate an async function from a canvas of that side to a PNG in base64; undefined where what the form says
 *   is wrong, which it has told. It takes its turn among all that the page generates.
 * @param keep is given a picture as a File.
 * @param say, fail tell the user how it went.
 */
export function offerCamera({ side, translate, keep, say, fail }) {
  element("camera-field").hidden = false;
  element("camera").addEventListener("click", async () => {
    if (running) {
      stop();
      say("The camera is stopped.");
      return;
    }
    // A button that is disabled meanwhile would lose the keyboard's focus.
    if (opening) return;
    opening = true;
    try {
      running = await open();
      say("The camera runs.");
      run(side, translate, fail);
    } catch (error) {
      fail(error.message);
    }
    opening = false;
    showState();
  });
  element("camera-keep").addEventListener("click", () => {
    const name = `camera ${++kept}.png`;
    element("camera-before").toBlob((picture) => keep(new File([picture], name, { type: picture.type })));
  });
}

async function open() {
  // Browsers lend a camera to https and to their own host alone.
  if (!navigator.mediaDevices) throw new Error("A camera needs a page from an https address or from localhost.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

function stop() {
  for (const track of running.getTracks()) track.stop();
  running = undefined;
  showState();
}

function showState() {
  element("camera").textContent = running ? "Stop camera" : "Start camera";
}

async function run(side, translate, fail) {
  const stream = running, video = document.createElement("video"), frame = makeCanvas(side), times = [];
  try {
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (running === stream) stop();
      fail("The camera has stopped by itself.");
    });
    Object.assign(video, { muted: true, playsInline: true, srcObject: stream });
    await video.play();
    while (running === stream) {
      const next = nextFrame(video), began = performance.now();
      drawSquare(video, frame);
      const png = await translate(frame);
      if (running !== stream) return;
      if (png === undefined) return stop();
      const image = new Image();
      image.src = `data:image/png;base64,${png}`;
      await image.decode();
      if (running !== stream) return;
      show(frame, image);
      times.push({ began, ended: performance.now() });
      times.splice(0, times.length - AVERAGED);
      showRate(times);
      await next;
    }
  } catch (error) {
    if (running === stream) stop();
    fail(error.message);
  }
}

/** Resolves at the camera's next picture. */
function nextFrame(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
}

function makeCanvas(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  Object.assign(canvas.getContext("2d", { willReadFrequently: true }), { imageSmoothingQuality: "high" });
  return canvas;
}

/** Draws the centred square of the camera's picture. */
function drawSquare(video, canvas) {
  const { videoWidth: width, videoHeight: height } = video, length = Math.min(width, height);
  const square = [(width - length) / 2, (height - length) / 2, length, length];
  canvas.getContext("2d").drawImage(video, ...square, 0, 0, canvas.width, canvas.height);
}

/** Shows what belongs together at the same moment. */
function show(frame, image) {
  for (const [id, picture] of [["camera-before", frame], ["camera-after", image]]) {
    const canvas = element(id);
    if (canvas.width !== picture.width) canvas.width = canvas.height = picture.width;
    canvas.getContext("2d").drawImage(picture, 0, 0);
  }
  element("live").hidden = element("camera-keep").hidden = false;
}

function showRate(times) {
  const milliseconds = times.reduce((sum, { began, ended }) => sum + ended - began, 0) / times.length;
  const seconds = (times.at(-1).ended - times[0].ended) / 1000;
  const rate = seconds ? `${((times.length - 1) / seconds).toFixed(1)} frames a second, ` : "";
  element("camera-rate").textContent = `${rate}${milliseconds.toFixed(0)} ms a frame`;
}
