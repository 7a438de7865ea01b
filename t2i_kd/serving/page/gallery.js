/**
 * The form and the grid of pictures; the model that generates them is given to `start`.
 * Captions and files' names reach the document as text alone (textContent, attributes), never as markup.
 */

import { offerCamera } from "./camera.js";
import { inWords, LARGEST_SEED, LEAST_SEED, offerSeeds, parseSeed, setPoint, setSeed } from "./seeds.js";

const element = (id) => document.getElementById(id);

/**
 * The pictures on the page in the order shown: {asked, point, item}, where `asked` is what the model was asked with,
 * {label, value, file}, `point` is of which seed it is or between which two, and `item` is the <li>. A caption is its
 * own label and value and has no file.
 */
let cards = [];
let model;
// The image that was given last.
let given;
// Pictures are generated one after the other, in the order in which they were asked for.
let last = Promise.resolve();

/**
 * Makes the page work.
 *
 * @param open an async function that gives {name, about, takesNoise, readFile, readCanvas, side, generate,
 *   generateBetween}: the model's name, a line about it, whether seeds change its pictures, and `generate(values,
 *   seeds)`, an async function from as many BigInts as values to as many PNGs in base64. Where there are pictures
 *   between two seeds, the async `generateBetween(value, seed, second, fraction)` gives one. Values are captions, or
 *   what the async `readFile(File)` gives where there is one: then the model is asked with images, and
 *   `readCanvas(canvas)` gives the value of a canvas of its `side`. What any of them throws is shown.
 */
export async function start(open) {
  element("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    generateOne();
  });
  element("next-seed").addEventListener("click", generateNext);
  element("all-again").addEventListener("click", generateAll);
  element("remove-all").addEventListener("click", removeAll);
  try {
    model = await open();
  } catch (error) {
    element("about").textContent = "";
    fail(error.message);
    return;
  }
  document.title = `${model.name}: generate pictures`;
  element("name").textContent = model.name;
  element("about").textContent = model.about;
  element("seed-note").hidden = model.takesNoise || Boolean(model.readFile);
  element("seed").disabled = element("next-seed").disabled = !model.takesNoise;
  element("generate").disabled = false;
  if (model.readFile) askWithImages();
  if (model.takesNoise) {
    const between = Boolean(model.generateBetween), keep = addCard;
    offerSeeds({ between, findAsked, readAsked, readSeed, draw: generateAt, inTurn, keep, say, fail });
  }
}

/** "9.7 MiB", "398 KiB" below one, and below 128 of these to the byte. */
export function inUnits(bytes) {
  if (bytes < 2 ** 17) return `${bytes} bytes`;
  return bytes < 2 ** 20 ? `${Math.round(bytes / 2 ** 10)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function askWithImages() {
  element("caption-field").hidden = true;
  element("image-field").hidden = false;
  element("seed-field").hidden = element("one").hidden = !model.takesNoise;
  element("pictures").classList.add("pairs");
  element("file").focus();
  element("file").addEventListener("change", () => {
    generateFiles([...element("file").files]);
    // The same file may be chosen again.
    element("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) generateFiles([...event.clipboardData.files]);
  });
  const mark = (dropping) => document.documentElement.classList.toggle("dropping", dropping);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => mark(event.relatedTarget !== null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    generateFiles([...event.dataTransfer.files]);
  });
  offerCamera({ side: model.side, translate: translateFrame, keep: (file) => generateFiles([file]), say, fail });
}

/** A canvas to a PNG in base64 with the form's seed; undefined where that is none. */
function translateFrame(canvas) {
  const seed = readSeed();
  if (seed === undefined) return undefined;
  return inTurn(async () => (await model.generate([await model.readCanvas(canvas)], [seed]))[0]);
}

async function generateFiles(files) {
  const seed = readSeed();
  if (seed === undefined) return;
  for (const file of files) {
    try {
      given = { label: file.name, value: await model.readFile(file), file };
    } catch (error) {
      fail(error.message, element("file"));
      return;
    }
    generateCard(given, seed);
  }
}

function generateOne() {
  const asked = readAsked(), seed = readSeed();
  if (asked !== undefined && seed !== undefined) generateCard(asked, seed);
}

function generateNext() {
  const seed = readSeed();
  if (seed === undefined) return;
  setSeed(seed === LARGEST_SEED ? LEAST_SEED : seed + 1n);
  generateOne();
}

function generateAll() {
  const seed = readSeed(), shown = [...cards];
  if (seed === undefined) return;
  generate(shown.map((card) => card.asked), seed, (pngs) => {
    shown.forEach((card, index) => show(card, { seed }, pngs[index]));
  });
}

function generateCard(asked, seed) {
  generate([asked], seed, ([png]) => addCard(asked, { seed }, png));
}

function addCard(asked, point, png) {
  cards.unshift(makeCard(asked, point, png));
  showCards();
}

/** The PNG in base64 of a point. */
async function generateAt({ value }, { seed, second, percent }) {
  if (percent === undefined) return (await model.generate([value], [seed]))[0];
  return model.generateBetween(value, seed, second, percent / 100);
}

/** Asks the model with one seed and gives the PNGs to `use`; says how it went. */
function generate(asked, seed, use) {
  const kind = model.readFile ? "images" : "captions";
  const what = asked.length === 1 ? `“${shortened(asked[0].label)}”` : `${asked.length} ${kind}`;
  const words = model.takesNoise ? `${what} with seed ${seed}` : what;
  inTurn(async () => {
    say(`Generating ${words} …`);
    const began = performance.now();
    try {
      use(await model.generate(asked.map(({ value }) => value), asked.map(() => seed)));
      const took = Math.round(performance.now() - began);
      const notes = model.unread ? (await model.unread(asked.map(({ value }) => value))).flat() : [];
      say([`Generated ${words} in ${took} ms.`, ...new Set(notes.map((note) => `Note: ${note}.`))].join(" "));
    } catch (error) {
      fail(error.message);
    }
  });
}

/** What an async function gives, run when all that was asked for before it is done. */
function inTurn(work) {
  const done = last.then(work);
  last = done.catch(() => {});
  return done;
}

/** The caption that is typed or the image given last; undefined where there is none. */
function findAsked() {
  if (model.readFile) return given;
  const caption = element("caption").value;
  return caption.trim() ? { label: caption, value: caption } : undefined;
}

/** `findAsked`, which says what is missing. */
function readAsked() {
  const [words, id] = model.readFile ? ["Choose an image first.", "file"] : ["Type a caption first.", "caption"];
  return findAsked() ?? fail(words, element(id));
}

/** A seed's field as a BigInt; says what is wrong and gives undefined otherwise. */
function readSeed(id = "seed") {
  const field = element(id), words = `give a whole number from ${LEAST_SEED} to ${LARGEST_SEED}`;
  return parseSeed(field.value) ?? fail(`${field.labels[0].textContent}: ${words}.`, field);
}

function makeCard(asked, point, png) {
  const item = element("picture").content.cloneNode(true).querySelector("li");
  const card = { asked, item };
  item.querySelector(".caption").textContent = asked.label;
  item.querySelector(".edit").setAttribute("aria-label", `Edit: ${asked.label}`);
  item.querySelector(".edit").addEventListener("click", () => edit(card));
  item.querySelector(".edit").hidden = Boolean(asked.file);
  item.querySelector(".remove").setAttribute("aria-label", `Remove: ${asked.label}`);
  item.querySelector(".remove").addEventListener("click", () => remove(card));
  if (asked.file) {
    const original = item.querySelector(".original");
    original.src = URL.createObjectURL(asked.file);
    original.alt = `Original: ${asked.label}`;
    original.hidden = false;
  }
  show(card, point, png);
  return card;
}

function show(card, point, png) {
  const image = card.item.querySelector(".generated"), link = card.item.querySelector("a");
  const { label, file } = card.asked;
  URL.revokeObjectURL(link.href);
  card.point = point;
  image.src = link.href = URL.createObjectURL(toBlob(png));
  image.alt = file ? `Generated from: ${label}` : `Picture of: ${label}`;
  link.download = fileName(file ? `${label.replace(/\.\w+$/, "")} generated` : label, point);
  link.setAttribute("aria-label", `Save PNG: ${label}`);
  card.item.querySelector(".seed").textContent = model.takesNoise ? inWords(point) : "";
}

function toBlob(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

function showCards() {
  element("pictures").replaceChildren(...cards.map((card) => card.item));
  element("none").hidden = cards.length > 0;
  element("for-all").hidden = cards.length === 0;
  element("all-again").hidden = !model.takesNoise;
}

function edit(card) {
  element("caption").value = card.asked.label;
  setPoint(card.point);
  element("caption").focus();
}

function remove(card) {
  const index = cards.indexOf(card);
  forget(card);
  cards.splice(index, 1);
  showCards();
  // Who removes by keyboard goes on from where the picture was.
  const next = cards[Math.min(index, cards.length - 1)];
  (next ? next.item.querySelector(".remove") : element("pictures-heading")).focus();
  say("Removed.");
}

function removeAll() {
  cards.forEach(forget);
  cards = [];
  showCards();
  element(model.readFile ? "file" : "caption").focus();
  say("Removed all pictures.");
}

/** Lets the browser free a card's images. */
function forget(card) {
  URL.revokeObjectURL(card.item.querySelector("a").href);
  URL.revokeObjectURL(card.item.querySelector(".original").src);
}

function say(words) {
  element("error").textContent = "";
  element("status").textContent = words;
  for (const field of ["caption", "file", "seed", "second-seed"]) element(field).removeAttribute("aria-invalid");
}

function fail(words, field) {
  say("");
  element("error").textContent = words;
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

function shortened(label) {
  const characters = [...label];
  return characters.length <= 60 ? label : `${characters.slice(0, 60).join("")}…`;
}

/** "A small red circle!" and seed 7 as "a-small-red-circle-7.png". */
function fileName(label, { seed, second, percent }) {
  const words = label.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? ["picture"];
  const place = percent === undefined ? `-${seed}` : `-${seed}-to-${second}-at-${percent}`;
  return `${[...words.join("-")].slice(0, 60).join("")}${model.takesNoise ? place : ""}.png`;
}
