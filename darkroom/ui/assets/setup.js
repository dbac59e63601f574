// What the server told of this page: where it is, its language, its words.
const setup = JSON.parse(document.getElementById("darkroom-setup")?.textContent || "{}");

/** The path of the server behind its reverse proxy, without a slash at its end; usually empty. */
export const base = setup.base || "";
export const language = setup.language || "en";

/** A text in the reader's language; {places} are filled with values. */
export function say(text, values = {}) {
  const found = setup.words?.[text] || text;
  return found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** A request to the API as whoever looks at the page. Throws an Error with the API's words. */
export async function ask(path, { method = "GET", body, headers = {} } = {}) {
  const answer = await fetch(base + path, {
    method,
    headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "same-origin",
  });
  const text = await answer.text();
  let found = null;
  try {
    found = text ? JSON.parse(text) : null;
  } catch {
    found = text;
  }
  if (!answer.ok) {
    const detail = found?.detail || found?.errors || found?.error || answer.statusText;
    throw new Error(typeof detail === "string" ? detail : detail.map((one) => one.msg).join("; "));
  }
  return found;
}

/** An element out of a tag, its attributes and its children; texts are texts, never HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
