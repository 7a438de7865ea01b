/**
 * The form and the grid of pictures; the model that generates them is given to `start`.
 * Captions and files' names reach the document as text alone (textContent, attributes), never as markup.
 */

import { offerCamera } from "./camera.js";

const LEAST_SEED = -(2n ** 63n), LARGEST_SEED = 2n ** 63n - 1n;

const element = (id) => document.getElementById(id);

/**
 * The pictures on the page in the order shown: {asked, seed, item}, where `asked` is what the model was asked with,
 * {label, value, file}, and `item` is the <li>. A caption is its own label and value and has no file.
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
 * @param open an async function that gives {name, about, takesNoise, readFile, readCanvas, side, generate}: the model's
 *   name, a line about it, whether seeds change its pictures, and `generate(values, seeds)`, an async function from as
 *   many BigInts as values to as many PNGs in base64. Values are captions, or what the async `readFile(File)` gives
 *   where there is one: then the model is asked with images, and `readCanvas(canvas)` gives the value of a canvas of
 *   its `side`. What any of them throws is shown.
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
  element("seed").value = seed === LARGEST_SEED ? LEAST_SEED : seed + 1n;
  generateOne();
}

function generateAll() {
  const seed = readSeed(), shown = [...cards];
  if (seed === undefined) return;
  generate(shown.map((card) => card.asked), seed, (pngs) => {
    shown.forEach((card, index) => show(card, seed, pngs[index]));
  });
}

function generateCard(asked, seed) {
  generate([asked], seed, ([png]) => {
    cards.unshift(makeCard(asked, seed, png));
    showCards();
  });
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

/** The caption that is typed or the image given last; says what is missing and gives undefined otherwise. */
function readAsked() {
  if (model.readFile) return given ?? fail("Choose an image first.", element("file"));
  const caption = element("caption").value;
  if (caption.trim()) return { label: caption, value: caption };
  return fail("Type a caption first.", element("caption"));
}

/** The seed field as a BigInt; a Number would round beyond 2^53. Says what is wrong and gives undefined otherwise. */
function readSeed() {
  const text = element("seed").value.trim();
  const seed = /^[+-]?\d{1,30}$/.test(text) ? BigInt(text.replace("+", "")) : undefined;
  if (seed !== undefined && LEAST_SEED <= seed && seed <= LARGEST_SEED) return seed;
  return fail(`Seed: give a whole number from ${LEAST_SEED} to ${LARGEST_SEED}.`, element("seed"));
}

function makeCard(asked, seed, png) {
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
  show(card, seed, png);
  return card;
}

function show(card, seed, png) {
  const image = card.item.querySelector(".generated"), link = card.item.querySelector("a");
  const { label, file } = card.asked;
  URL.revokeObjectURL(link.href);
  card.seed = seed;
  image.src = link.href = URL.createObjectURL(toBlob(png));
  image.alt = file ? `Generated from: ${label}` : `Picture of: ${label}`;
  link.download = fileName(file ? `${label.replace(/\.\w+$/, "")} generated` : label, seed);
  link.setAttribute("aria-label", `Save PNG: ${label}`);
  card.item.querySelector(".seed").textContent = model.takesNoise ? `seed ${seed}` : "";
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
  element("seed").value = card.seed;
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
  for (const field of ["caption", "file", "seed"]) element(field).removeAttribute("aria-invalid");
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

/** "A small red circle!" and 7 as "a-small-red-circle-7.png". */
function fileName(label, seed) {
  const words = label.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? ["picture"];
  return `${[...words.join("-")].slice(0, 60).join("")}${model.takesNoise ? `-${seed}` : ""}.png`;
}
