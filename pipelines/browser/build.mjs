/**
 * Puts a page together: node build.mjs VERSION_FOLDER [OUT]
 *
 * VERSION_FOLDER is saved_models/NAME/VERSION; OUT, `dist` here unless given, is then a folder that any static host
 * serves. Exit codes: 0 done; 2 the input is wrong, one line names the file.
 */

import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { parseManifest } from "./manifest.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const SHARED = join(HERE, "..", "..", "t2i_kd", "serving", "page");
const RUNTIME = join(HERE, "node_modules", "onnxruntime-web", "dist");
// Where the command was typed: npm runs scripts in their own folder.
const TYPED_IN = process.env.INIT_CWD ?? process.cwd();

const FILES = [
  ...["index.html", "gallery.css", "gallery.js", "camera.js", "seeds.js"].map((name) => [join(SHARED, name), name]),
  ...["main.js", "student.js", "manifest.js", "tokenizer.js", "resizing.js", "noise.js", "worker.js", "icon.svg"].map(
    (name) => [join(HERE, name), name],
  ),
  ...["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"].map((name) => [join(RUNTIME, name), `ort/${name}`]),
];

function build(version, out) {
  const extra = join(version, "assets.extra");
  const manifestPath = join(extra, "manifest.json");
  requireFile(manifestPath);
  const { name: title, files } = readManifest(manifestPath);
  const model = ["manifest.json", ...Object.keys(files)].map((name) => [join(extra, name), `model/${name}`]);
  for (const [path] of [...FILES, ...model]) requireFile(path);
  for (const [path] of model.slice(1)) requireIntact(path, files[path.split(/[\\/]/).pop()]);
  if (existsSync(out) && !existsSync(join(out, "model", "manifest.json"))) {
    throw new Error(`${out}: is there already and is no page that was built; remove it or name another folder`);
  }
  const unfinished = `${out}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  for (const [path, name] of [...FILES, ...model]) {
    mkdirSync(dirname(join(unfinished, name)), { recursive: true });
    cpSync(path, join(unfinished, name));
  }
  writeFileSync(join(unfinished, "page.webmanifest"), webManifest(title));
  const names = [...FILES, ...model].map(([, name]) => name).concat("page.webmanifest");
  writeFileSync(join(unfinished, "files.js"), keptFiles(unfinished, names));
  rmSync(out, { recursive: true, force: true });
  renameSync(unfinished, out);
}

/** What a browser needs to install the page. */
function webManifest(name) {
  const icons = [{ src: "icon.svg", sizes: "any", type: "image/svg+xml" }];
  return JSON.stringify({ name, short_name: name, start_url: "./", scope: "./", display: "standalone", icons }, null, 2);
}

/** The files that the service worker keeps, under a digest of all: another page is another digest. */
function keptFiles(folder, names) {
  const digest = createHash("sha256");
  for (const name of names) digest.update(`${name}\n`).update(readFileSync(join(folder, name)));
  // A page is asked for by its folder, too; the worker is the browser's own to keep.
  const files = ["./", ...names.filter((name) => name !== "worker.js")];
  return `self.page = ${JSON.stringify({ digest: digest.digest("hex"), files }, null, 2)};\n`;
}

function readManifest(path) {
  try {
    return parseManifest(readFileSync(path, "utf-8"));
  } catch (error) {
    throw new Error(`${path}: ${error.message}`);
  }
}

function requireFile(path) {
  const help = path.startsWith(RUNTIME) ? "; `npm ci` puts it there" : "";
  if (!existsSync(path)) throw new Error(`${path}: missing${help}`);
}

function requireIntact(path, { sha256 }) {
  if (createHash("sha256").update(readFileSync(path)).digest("hex") !== sha256) {
    throw new Error(`${path}: damaged: its checksum is not the one in manifest.json`);
  }
}

const [version, out = join(HERE, "dist")] = process.argv.slice(2);
try {
  if (!version) throw new Error("give the folder of an exported version: saved_models/NAME/1");
  build(resolve(TYPED_IN, version), resolve(TYPED_IN, out));
  console.log(resolve(TYPED_IN, out));
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}
