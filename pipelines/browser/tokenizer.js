/** A caption to token ids; the rules are in the docstring of t2i_kd/text/tokenizer.py. */

const PADDING = 0, UNKNOWN = 1;
const SPECIAL_TOKENS = ["[PAD]", "[UNK]"];
const MAX_CAPTION_CHARACTERS = 2000;
// What a caption has that is not read is named up to so many.
const NAMED_TOKENS = 20;
const WORD = /[a-z0-9'\u0080-\u{10ffff}]+/gu;
// What Python's str.strip() strips; trim() strips other characters.
const BLANK = /^[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/;

/** Throws an Error in words unless a string is a caption: not blank, well-formed and of at most 2,000 characters. */
export function checkCaption(caption) {
  if (/\p{Surrogate}/u.test(caption)) throw new Error("caption: not UTF-8 text");
  if (BLANK.test(caption)) throw new Error("caption: empty");
  const { length } = [...caption];
  if (length > MAX_CAPTION_CHARACTERS) {
    throw new Error(`caption: ${length} characters, more than the ${MAX_CAPTION_CHARACTERS} allowed`);
  }
}

export class Tokenizer {
  /**
   * @param kind "words" or "characters".
   * @param vocabulary the text of vocabulary.txt.
   * @param length tokens kept of a caption.
   */
  constructor(kind, vocabulary, length) {
    const lines = vocabulary.split("\n");
    if (lines[0] !== SPECIAL_TOKENS[0] || lines[1] !== SPECIAL_TOKENS[1] || lines.pop() !== "") {
      throw new Error(`not a vocabulary: it must begin with ${SPECIAL_TOKENS.join(", ")} and end a line`);
    }
    if (kind !== "words" && kind !== "characters") throw new Error(`tokenizer: unknown kind ${kind}`);
    this.kind = kind;
    this.split = kind === "words" ? splitWords : splitBytes;
    this.length = length;
    /** How many ids there are. */
    this.size = lines.length;
    // A token on two lines has the id of the last one.
    this.ids = new Map(lines.map((token, id) => [token, id]));
    for (const token of SPECIAL_TOKENS) this.ids.delete(token);
  }

  /** Well-formed strings to an Int32Array of [captions, length], row after row. */
  encode(captions) {
    const ids = new Int32Array(captions.length * this.length).fill(PADDING);
    captions.forEach((caption, row) => {
      const tokens = this.split(lowerAscii(caption)).slice(0, this.length);
      ids.set(tokens.map((token) => this.ids.get(token) ?? UNKNOWN), row * this.length);
    });
    return ids;
  }

  /** What of a caption the student cannot read, as sentences without a stop; the rule of `CaptionCondition.unread`. */
  unread(caption) {
    const isUnknown = (token) => !this.ids.has(token), tokens = this.split(lowerAscii(caption));
    const byCharacters = () => [
      [...caption].filter((each) => this.split(lowerAscii(each)).some(isUnknown)),
      [withoutPieces(new TextEncoder().encode(lowerAscii(caption)).slice(this.length))].filter(Boolean),
    ];
    const byWords = () => [tokens.slice(0, this.length).filter(isUnknown), tokens.slice(this.length)];
    const [unknown, beyond] = this.kind === "words" ? byWords() : byCharacters();
    const lines = [];
    if (unknown.length) lines.push(`the student does not know ${named(unknown)}`);
    if (beyond.length) lines.push(`the student reads ${this.length} ${this.kind}, not ${named(beyond)}`);
    return lines;
  }
}

/** Tokens between quotation marks, each once. */
function named(tokens) {
  const each = [...new Set(tokens)], more = each.length - NAMED_TOKENS;
  return each.slice(0, NAMED_TOKENS).map((token) => `'${token}'`).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** The text of UTF-8 bytes that may begin within a character, whose piece is left out. */
function withoutPieces(bytes) {
  const whole = bytes.findIndex((byte) => (byte & 0xc0) !== 0x80);
  return whole < 0 ? "" : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.slice(whole));
}

/** toLowerCase() alone would also change letters outside ASCII. */
function lowerAscii(text) {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

function splitWords(text) {
  return text.match(WORD) ?? [];
}

/** Each byte of the UTF-8; those beyond ASCII are in no vocabulary. */
function splitBytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => (byte < 128 ? String.fromCharCode(byte) : ""));
}
