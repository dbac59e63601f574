// What the server told of this page: where it is, its language, its words.
const setup = JSON.parse(document.getElementById("darkroom-setup")?.textContent || "{}");

/** The path of the server behind its reverse proxy, without a slash at its end; usually empty. */
export const base = setup.base || "";
export const language = setup.language || "en";

/** A text in the reader's language; {places} are filled with values. */
export function say(text, values = {}) {
  const found = setup.words?.[text] || text;
  return found.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));
}
