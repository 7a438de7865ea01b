/**
 * The form and the grid of pictures; whoever draws them is given to `start`.
 * Captions reach the document as text alone (textContent, attributes), never as markup.
 */

const LEAST_SEED = -(2n ** 63n), LARGEST_SEED = 2n ** 63n - 1n;

const element = (id) => document.getElementById(id);

/** The pictures on the page in the order shown: {caption, seed, item}, where `item` is the <li>. */
let cards = [];
let artist;
// Drawings happen one after the other, in the order in which they were asked for.
let last = Promise.resolve();

/**
 * Makes the page work.
 *
 * @param open an async function that gives {name, about, takesNoise, draw}: the model's name, a line about it, whether
 *   seeds change its pictures, and `draw(captions, seeds)`, an async function from strings and as many BigInts to as
 *   many PNGs in base64. What either of them throws is shown.
 */
export async function start(open) {
  element("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    drawOne();
  });
  element("next-seed").addEventListener("click", drawNext);
  element("all-again").addEventListener("click", drawAll);
  element("remove-all").addEventListener("click", removeAll);
  try {
    artist = await open();
  } catch (error) {
    element("about").textContent = "";
    fail(error.message);
    return;
  }
  document.title = `${artist.name}: draw a caption`;
  element("name").textContent = artist.name;
  element("about").textContent = artist.about;
  element("seed-note").hidden = artist.takesNoise;
  element("seed").disabled = element("next-seed").disabled = !artist.takesNoise;
  element("draw").disabled = false;
}

function drawOne() {
  const caption = element("caption").value, seed = readSeed();
  if (!caption.trim()) return fail("Type a caption first.", element("caption"));
  if (seed === undefined) return undefined;
  return draw([caption], seed, ([png]) => {
    cards.unshift(makeCard(caption, seed, png));
    showCards();
  });
}

function drawNext() {
  const seed = readSeed();
  if (seed === undefined) return;
  element("seed").value = seed === LARGEST_SEED ? LEAST_SEED : seed + 1n;
  drawOne();
}

function drawAll() {
  const seed = readSeed(), drawn = [...cards];
  if (seed === undefined) return;
  draw(drawn.map((card) => card.caption), seed, (pngs) => {
    drawn.forEach((card, index) => show(card, seed, pngs[index]));
  });
}

/** Draws captions with one seed and gives the PNGs to `use`; says how it went. */
function draw(captions, seed, use) {
  const what = captions.length === 1 ? `“${shortened(captions[0])}”` : `${captions.length} captions`;
  const words = artist.takesNoise ? `${what} with seed ${seed}` : what;
  last = last.then(async () => {
    say(`Drawing ${words} …`);
    const began = performance.now();
    try {
      use(await artist.draw(captions, captions.map(() => seed)));
      say(`Drew ${words} in ${Math.round(performance.now() - began)} ms.`);
    } catch (error) {
      fail(error.message);
    }
  });
}

/** The seed field as a BigInt; a Number would round beyond 2^53. Says what is wrong and gives undefined otherwise. */
function readSeed() {
  const text = element("seed").value.trim();
  const seed = /^[+-]?\d{1,30}$/.test(text) ? BigInt(text.replace("+", "")) : undefined;
  if (seed !== undefined && LEAST_SEED <= seed && seed <= LARGEST_SEED) return seed;
  fail(`Seed: give a whole number from ${LEAST_SEED} to ${LARGEST_SEED}.`, element("seed"));
  return undefined;
}

function makeCard(caption, seed, png) {
  const item = element("picture").content.cloneNode(true).querySelector("li");
  const card = { caption, item };
  item.querySelector(".caption").textContent = caption;
  item.querySelector(".edit").setAttribute("aria-label", `Edit: ${caption}`);
  item.querySelector(".edit").addEventListener("click", () => edit(card));
  item.querySelector(".remove").setAttribute("aria-label", `Remove: ${caption}`);
  item.querySelector(".remove").addEventListener("click", () => remove(card));
  show(card, seed, png);
  return card;
}

function show(card, seed, png) {
  const image = card.item.querySelector("img"), link = card.item.querySelector("a");
  URL.revokeObjectURL(link.href);
  card.seed = seed;
  image.src = link.href = URL.createObjectURL(toBlob(png));
  image.alt = `Picture of: ${card.caption}`;
  link.download = fileName(card.caption, seed);
  link.setAttribute("aria-label", `Save PNG: ${card.caption}`);
  card.item.querySelector(".seed").textContent = artist.takesNoise ? `seed ${seed}` : "";
}

function toBlob(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

function showCards() {
  element("pictures").replaceChildren(...cards.map((card) => card.item));
  element("none").hidden = cards.length > 0;
  element("for-all").hidden = cards.length === 0;
  element("all-again").hidden = !artist.takesNoise;
}

function edit(card) {
  element("caption").value = card.caption;
  element("seed").value = card.seed;
  element("caption").focus();
}

function remove(card) {
  const index = cards.indexOf(card);
  URL.revokeObjectURL(card.item.querySelector("a").href);
  cards.splice(index, 1);
  showCards();
  // Who removes by keyboard goes on from where the picture was.
  const next = cards[Math.min(index, cards.length - 1)];
  (next ? next.item.querySelector(".remove") : element("pictures-heading")).focus();
  say("Removed.");
}

function removeAll() {
  for (const card of cards) URL.revokeObjectURL(card.item.querySelector("a").href);
  cards = [];
  showCards();
  element("caption").focus();
  say("Removed all pictures.");
}

function say(words) {
  element("error").textContent = "";
  element("status").textContent = words;
  for (const field of [element("caption"), element("seed")]) field.removeAttribute("aria-invalid");
}

function fail(words, field) {
  say("");
  element("error").textContent = words;
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

function shortened(caption) {
  const characters = [...caption];
  return characters.length <= 60 ? caption : `${characters.slice(0, 60).join("")}…`;
}

/** "A small red circle!" and 7 as "a-small-red-circle-7.png". */
function fileName(caption, seed) {
  const words = caption.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? ["picture"];
  return `${[...words.join("-")].slice(0, 60).join("")}${artist.takesNoise ? `-${seed}` : ""}.png`;
}
