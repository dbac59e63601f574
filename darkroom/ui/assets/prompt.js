// Prompts: keys that begin and that weigh words, their length, and parameters read from texts and pictures.
import { post } from "./mailbox.js";
import { api, h } from "./page.js";
import { say } from "./setup.js";

/** What the options say of editing with keys; A1111's values until they are known. */
const keys = { attention: 0.1, extra: 0.05, delimiters: ".,\\/!?%^*;:{}=`~() ", move: true, counters: true };
let known = false;

async function learn() {
  if (known) return;
  known = true;
  try {
    const options = await api("/sdapi/v1/options");
    keys.attention = options.keyedit_precision_attention ?? keys.attention;
    keys.extra = options.keyedit_precision_extra ?? keys.extra;
    keys.delimiters = options.keyedit_delimiters ?? keys.delimiters;
    keys.move = options.keyedit_move ?? keys.move;
    keys.counters = !options.disable_token_counters;
  } catch {
    known = false; // asked again with the next key
  }
}

/** A weight changed by a step, as people write it. */
export function stepped(weight, delta) {
  return String(Number((weight + delta).toFixed(10)));
}

/** {start, end} of what a key press is about: the selection, the brackets around the cursor, or the word there. */
export function meant(text, start, end, delimiters) {
  if (start !== end) return { start, end };
  for (const [open, close] of ["<>", "()", "[]"]) {
    const around = bracketed(text, start, open, close);
    if (around) return around;
  }
  const stops = new Set([...delimiters, ..."[]<>|\n\t\r"]);
  while (start > 0 && !stops.has(text[start - 1])) start -= 1;
  while (end < text.length && !stops.has(text[end])) end += 1;
  return { start, end };
}

function bracketed(text, at, open, close) {
  const before = text.slice(0, at);
  const left = before.lastIndexOf(open);
  if (left < 0 || before.slice(left).includes(close)) return null;
  const right = text.indexOf(close, at);
  if (right < 0 || text.slice(at, right).includes(open)) return null;
  const inner = text.slice(left + 1, right);
  const colon = inner.lastIndexOf(":");
  if (open === "[" && colon >= 0) return null; // prompt editing, not a weight
  return { start: left + 1, end: colon > 0 ? left + 1 + colon : right };
}

/** The text with the weight of a part of it raised or lowered: {text, start, end} of the part, or null for none. */
export function weighed(text, start, end, up, settings = keys) {
  const part = meant(text, start, end, settings.delimiters);
  ({ start, end } = part);
  while (start < end && text[start] === " ") start += 1;
  while (end > start && text[end - 1] === " ") end -= 1;
  if (start === end) return null;
  const extra = text[start - 1] === "<";
  const step = (extra ? settings.extra : settings.attention) * (up ? 1 : -1);
  const found = /^:\s*(-?\d+(?:\.\d*)?|-?\.\d+)/.exec(text.slice(end));
  if (extra || (text[start - 1] === "(" && found)) return reweighed(text, start, end, found, step, extra);
  const inner = text.slice(start, end);
  if (text[start - 1] === "(" && text[end] === ")") {
    const weight = stepped(1.1, step);
    return { text: `${text.slice(0, end)}:${weight}${text.slice(end)}`, start, end };
  }
  const shown = `(${inner}:${stepped(1, step)})`;
  return { text: text.slice(0, start) + shown + text.slice(end), start: start + 1, end: end + 1 };
}

function reweighed(text, start, end, found, step, extra) {
  const weight = stepped(found ? Number(found[1]) : 1, step);
  const rest = text.slice(end + (found ? found[0].length : 0));
  if (Number(weight) === 1 && !extra && rest.startsWith(")")) {
    const bare = text.slice(0, start - 1) + text.slice(start, end) + rest.slice(1);
    return { text: bare, start: start - 1, end: end - 1 };
  }
  return { text: `${text.slice(0, end)}:${weight}${rest}`, start, end };
}

/** The text with the comma-separated part at the cursor moved one place: {text, start, end}, or null at the border. */
export function moved(text, at, right) {
  const parts = text.split(",");
  let place = 0;
  for (let passed = parts[0].length; passed < at && place < parts.length - 1; passed += parts[place].length + 1) place += 1;
  const other = place + (right ? 1 : -1);
  if (other < 0 || other >= parts.length) return null;
  const bare = parts.map((part) => part.trim());
  [bare[place], bare[other]] = [bare[other], bare[place]];
  const start = bare.slice(0, other).reduce((sum, part) => sum + part.length + 2, 0);
  return { text: bare.join(", "), start, end: start + bare[other].length };
}

function put(area, change) {
  if (!change) return;
  area.value = change.text;
  area.setSelectionRange(change.start, change.end);
  area.dispatchEvent(new Event("input", { bubbles: true }));
}

/** The page that an element is on, by its tab. */
export function pageOf(node) {
  return node?.closest?.("[id^='tab-']")?.id.replace(/^tab-/, "") ?? "";
}

function openPage() {
  const tab = document.querySelector("#tabs [role='tab'][aria-selected='true']");
  return tab?.id.replace(/^tab-/, "").replace(/-button$/, "") ?? "";
}

document.addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "Enter") {
    const button = document.getElementById(`${pageOf(event.target) || openPage()}-generate`);
    if (button) {
      event.preventDefault();
      button.click();
    }
    return;
  }
  const area = event.target.closest?.(".dk-prompt textarea");
  if (!area) return;
  if (command && ["ArrowUp", "ArrowDown"].includes(event.key)) {
    event.preventDefault();
    put(area, weighed(area.value, area.selectionStart, area.selectionEnd, event.key === "ArrowUp"));
  } else if (event.altKey && keys.move && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    event.preventDefault();
    put(area, moved(area.value, area.selectionStart, event.key === "ArrowRight"));
  }
});

document.addEventListener("focusin", (event) => {
  if (event.target.closest?.(".dk-prompt")) learn();
});

// How long the prompts are.

const counts = new Map();

/** Have a page's prompts counted a moment after the last change: [prompt, negative prompt, styles, steps]. */
export function countTokens(page, values) {
  clearTimeout(counts.get(page));
  counts.set(page, setTimeout(() => count(page, values), 300));
}

async function count(page, [prompt, negative_prompt, styles, steps]) {
  await learn();
  if (!keys.counters) return;
  const json = { prompt: prompt ?? "", negative_prompt: negative_prompt ?? "", styles: styles ?? [], steps: steps ?? 20 };
  let found;
  try {
    found = await api("/prompt/tokens", { method: "POST", json });
  } catch {
    return; // a prompt that is too long is told of when it is drawn
  }
  for (const field of ["prompt", "negative_prompt"]) show(`${page}-${field}`, found[field]);
}

function show(id, { tokens, limit }) {
  const control = document.getElementById(id);
  if (!control) return;
  let counter = document.getElementById(`${id}-tokens`);
  if (!counter) {
    counter = h("span", { class: "dk-tokens", id: `${id}-tokens` });
    control.append(counter);
  }
  counter.textContent = `${tokens}/${limit}`;
  counter.title = say("{tokens} of {limit} tokens", { tokens, limit });
}

/** Show the counters of prompts that were just put on the page. */
export function showCounters(page) {
  for (const field of ["prompt", "negative_prompt"]) {
    if (!document.getElementById(`${page}-${field}-tokens`)) show(`${page}-${field}`, { tokens: 0, limit: 75 });
  }
}

// Parameters of earlier pictures.

/** Fill a page's controls by the generation text in its prompt; without any by that of the newest picture. */
export async function readParameters(page, prompt) {
  const text = (prompt ?? "").trim() || (await newest())?.infotext;
  if (text) post(`${page}-paste`, { text });
}

async function newest() {
  const shown = document.querySelector("#tabs .dk-card[data-infotext]");
  if (shown) return { infotext: shown.dataset.infotext };
  try {
    return (await api("/images?limit=1")).images[0];
  } catch {
    return null;
  }
}

/** The seed (`seed`) or variation seed (`subseed`) of the picture that is shown last on a page; `now` if there is none. */
export function lastSeed(page, kind, now) {
  const shown = document.querySelector(`#${page}-results .dk-card[data-infotext]`)?.dataset.infotext;
  const entry = kind === "seed" ? /(?:^|\n|, )Seed: (\d+)/ : /(?:^|\n|, )Variation seed: (\d+)/;
  const found = entry.exec(shown ?? "");
  return found ? Number(found[1]) : now;
}

/** Ask before something is lost. */
export function confirmed(question) {
  return window.confirm(say(question));
}

// What stands in the address: ?prompt=…&steps=….

/** Fill the open page's controls by what the address says; {name: value} of request fields. */
export function fromAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.search));
  const { page = "txt2img", tab, lang, __theme, ...fields } = given;
  if (Object.keys(fields).length) post(`${page}-take`, { fields });
}
