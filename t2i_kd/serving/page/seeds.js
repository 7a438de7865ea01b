/** Sliders over seeds: one picture follows them, and what is drawn is always the newest value. */

export const LEAST_SEED = -(2n ** 63n), LARGEST_SEED = 2n ** 63n - 1n;
// A slider cannot tell 2^64 seeds apart: it goes through as many as these, among them the one that is typed.
const NEIGHBOURS = 256n;

const element = (id) => document.getElementById(id);

/** A text as a BigInt, since a Number would round beyond 2^53; undefined where it is no integer of 64 bits. */
export function parseSeed(text) {
  const seed = /^[+-]?\d{1,30}$/.test(text.trim()) ? BigInt(text.trim().replace("+", "")) : LARGEST_SEED + 1n;
  return LEAST_SEED <= seed && seed <= LARGEST_SEED ? seed : undefined;
}

/** Writes a seed into the form; the slider follows. */
export function setSeed(seed) {
  element("seed").value = seed;
  showNeighbours();
}

/**
 * A point is {seed}, or {seed, second, percent}: so many percent of the way from one seed's noise to another's.
 *
 * @returns it in words.
 */
export function inWords({ seed, second, percent }) {
  return percent === undefined ? `seed ${seed}` : `${percent} % from seed ${seed} to seed ${second}`;
}

/** Sets the sliders and fields to a point. */
export function setPoint({ seed, second, percent = 0 }) {
  setSeed(seed);
  if (second !== undefined) element("second-seed").value = second;
  element("way").value = percent;
  element("way").ariaValueText = `${percent} %`;
}

/** Has the seed's slider go through the neighbours of the seed that is typed. */
function showNeighbours() {
  const seed = parseSeed(element("seed").value);
  if (seed === undefined) return;
  // A multiple of NEIGHBOURS, which is a power of two.
  const first = seed & -NEIGHBOURS;
  element("seed-slider").value = Number(seed - first);
  element("seed-slider").ariaValueText = String(seed);
  element("seed-slider").dataset.first = first;
  element("seed-slider-note").textContent =
    `Seeds ${first} to ${first + NEIGHBOURS - 1n}. Type a seed above for those around it.`;
}

/**
 * Makes the sliders work.
 *
 * @param between whether there are pictures between two seeds.
 * @param findAsked gives what the model is asked with, undefined where there is nothing yet; `readAsked` says so, too.
 * @param readSeed gives the seed of the field with an id; undefined where it holds none, which it has told.
 * @param draw an async function from what is asked and a point to a PNG in base64.
 * @param inTurn runs an async function when all that was asked for before it is done.
 * @param keep is given what was asked, the point and the PNG of the picture that is to stay.
 * @param say, fail tell the user how it went.
 */
export function offerSeeds({ between, findAsked, readAsked, readSeed, draw, inTurn, keep, say, fail }) {
  // What is to be drawn next, and what is shown.
  let wanted, shown;

  async function follow(asked, point) {
    const waits = wanted !== undefined;
    wanted = { asked, point };
    say("");
    // What waits for its turn already will draw this.
    if (waits) return;
    try {
      await inTurn(async () => {
        const now = wanted, began = performance.now();
        wanted = undefined;
        shown = { ...now, png: await draw(now.asked, now.point) };
        show(shown, performance.now() - began);
      });
    } catch (error) {
      fail(error.message);
    }
  }

  /** Has the picture follow the fields and sliders, of which the second seed matters only away from the first. */
  function followForm(asked) {
    const percent = Number(element("way").value), seed = readSeed("seed");
    const second = seed !== undefined && percent ? readSeed("second-seed") : undefined;
    if (seed === undefined || (percent && second === undefined)) return;
    follow(asked, { 0: { seed }, 100: { seed: second } }[percent] ?? { seed, second, percent });
  }

  /** Half a number that is being typed is no error yet. */
  function followTyping() {
    showNeighbours();
    const whole = ["seed", "second-seed"].every((id) => parseSeed(element(id).value) !== undefined);
    const asked = shown && whole && findAsked();
    if (asked) followForm(asked);
  }

  element("seed").addEventListener("input", followTyping);
  element("second-seed").addEventListener("input", followTyping);
  element("seed-slider").addEventListener("input", () => {
    const { value, dataset } = element("seed-slider"), asked = findAsked();
    setPoint({ seed: BigInt(dataset.first) + BigInt(value) });
    if (asked) followForm(asked);
  });
  element("way").addEventListener("input", () => {
    element("way").ariaValueText = `${element("way").value} %`;
    const asked = readAsked();
    if (asked) followForm(asked);
  });
  element("seeds-keep").addEventListener("click", () => {
    keep(shown.asked, shown.point, shown.png);
    say("Kept.");
  });
  element("seeds-field").hidden = false;
  element("between").hidden = !between;
  showNeighbours();
}

function show({ asked, point, png }, milliseconds) {
  const image = element("followed-image");
  image.src = `data:image/png;base64,${png}`;
  image.alt = `Picture that follows the sliders: ${asked.label}`;
  element("followed-label").textContent = asked.label;
  element("followed-words").textContent = `${inWords(point)}, in ${milliseconds.toFixed(0)}\u00a0ms`;
  element("followed").hidden = element("seeds-keep").hidden = false;
}
