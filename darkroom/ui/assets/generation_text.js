// Generation texts as people read them: prompt, negative prompt, and the list of settings at the end.

const ENTRY = /\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g;

/** {prompt, negative, settings: [[name, value], ...]} of a generation text. */
export function read(text) {
  const lines = text.trim().split("\n");
  let settings = [...(lines.at(-1) ?? "").matchAll(ENTRY)].map(([, name, value]) => [name, unquoted(value.trim())]);
  if (settings.length < 3) settings = [];
  else lines.pop();
  const at = lines.findIndex((line) => line.startsWith("Negative prompt:"));
  const above = at < 0 ? lines : lines.slice(0, at);
  const below = at < 0 ? [] : lines.slice(at);
  return {
    prompt: above.join("\n"),
    negative: below.join("\n").replace(/^Negative prompt:\s*/, ""),
    settings,
  };
}

/** The rows in which two texts differ: [[name, value of the first, value of the second], ...]. */
export function differences(first, second) {
  const tables = [first, second].map((text) => {
    const { prompt, negative, settings } = read(text);
    return new Map([["Prompt", prompt], ["Negative prompt", negative], ...settings]);
  });
  const names = new Set([...tables[0].keys(), ...tables[1].keys()]);
  return [...names]
    .map((name) => [name, tables[0].get(name) ?? "", tables[1].get(name) ?? ""])
    .filter(([, one, other]) => one !== other);
}

function unquoted(value) {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}
