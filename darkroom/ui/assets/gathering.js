// What the elements of a page that are not Gradio's hold: pictures, scripts. Handlers get it as one JSON text.
import { MAX_FILE_BYTES } from "./boards.js";

const gatherers = new Map();

/** Have `gather()` asked for a page's value of this name; whatever it gives replaces what was there. */
export function gathers(page, name, gather) {
  if (!gatherers.has(page)) gatherers.set(page, new Map());
  gatherers.get(page).set(name, gather);
}

/** Everything that a page's elements hold, as JSON: {pictures: {part: {image, mask, …}}, …}. */
export async function gather(page) {
  const pictures = {};
  for (const one of document.querySelectorAll(`[data-page="${page}"][data-part]`)) {
    if (one.checkVisibility()) pictures[one.dataset.part] = await one.gathered();
  }
  const found = { pictures };
  for (const [name, ask] of gatherers.get(page) ?? []) found[name] = await ask();
  const text = JSON.stringify(found);
  if (text.length > MAX_FILE_BYTES * 1.4) return JSON.stringify({ ...found, pictures: { too_large: true } });
  return text;
}

/** The inputs of an event, with what was gathered at a place. Gradio appends the outputs' values, which go. */
export async function withGathered(page, place, count, values) {
  const inputs = values.slice(0, count);
  inputs[place] = await gather(page);
  return inputs;
}
