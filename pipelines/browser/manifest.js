/** What of manifest.json a page needs; for the build and the page alike. */

const FORMAT_VERSION = 2;
// The files that ONNX Runtime opens, by their artifacts; the first that an export has is taken.
const ONNX = { onnx: "student.onnx", onnx_int8: "student_int8.onnx" };

/**
 * The parts of a manifest that feed the ONNX file.
 *
 * @param text the text of manifest.json.
 * @returns {name, resolution, noiseDim, condition, onnx, files}; `condition` is {kind: "caption", tokenizer, length,
 *   vocabulary_size, ...} or {kind: "image", inputs: {source: {shape}}}; `onnx` is the name of the ONNX file, and `files`
 *   are the {file, size, sha256} of what it takes, the ONNX file and of captions vocabulary.txt, each by its name.
 * @throws an Error in words when it is no manifest, or its student cannot be drawn with here.
 */
export function parseManifest(text) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new Error("not JSON");
  }
  if (manifest?.format_version !== FORMAT_VERSION) throw new Error(`not a manifest of format ${FORMAT_VERSION}`);
  for (const key of ["artifacts", "support_files", "resolution", "noise_dim", "condition"]) {
    if (!(key in manifest)) throw new Error(`${key} is missing`);
  }
  const { condition } = manifest;
  const texts = { caption: ["vocabulary.txt"], image: [] }[condition.kind];
  if (!texts) throw new Error(`this student reads ${condition.kind}s, neither captions nor images`);
  if (condition.kind === "image" && !condition.inputs?.source) throw new Error("condition.inputs.source is missing");
  if (condition.kind === "caption" && !condition.tokenizer) {
    throw new Error(`this student reads vectors of ${condition.encoder}, not captions; no page can make them`);
  }
  const kind = Object.keys(ONNX).find((name) => manifest.artifacts[name]);
  if (!kind) {
    throw new Error("this export has no ONNX file; export again with --artifacts=onnx among the artifacts");
  }
  const onnx = ONNX[kind], needed = [onnx, ...texts];
  const entries = [...manifest.artifacts[kind].files, ...manifest.support_files];
  const listed = Object.fromEntries(entries.map((entry) => [entry.file.split("/").pop(), entry]));
  for (const name of needed) {
    if (!listed[name]) throw new Error(`${name} is not listed`);
  }
  const files = Object.fromEntries(needed.map((name) => [name, listed[name]]));
  const { name, resolution, noise_dim: noiseDim } = manifest;
  return { name, resolution, noiseDim, condition, onnx, files };
}
