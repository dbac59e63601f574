// What was asked of the API for a picture, as programs say it: JSON, curl, Python.
import { ask, copyable, h, openDialog } from "./page.js";
import { base, say } from "./setup.js";

const LONG = 200;

/** Show the request of a job in a dialog; `asked` is {route, request}, if the page knows it already. */
export async function showRequest(job, asked) {
  const { path, body } = await whole(job, asked);
  const shown = shortened(body);
  const forms = [
    [say("JSON"), "json", json(body), json(shown)],
    ["curl", "curl", curl(path, body), curl(path, shown)],
    ["Python", "python", python(path, body), python(path, shown)],
  ];
  const note = json(body) === json(shown)
    ? [] : [h("p", { class: "dk-note" }, say("Long pictures are shortened here; what is copied is whole."))];
  openDialog(
    { id: "request", title: say("Show request"), wide: true },
    h("p", {}, say("This is what was sent: {method} {path}", { method: "POST", path })),
    ...note,
    ...forms.map(([label, id, full, short]) =>
      h("section", { id: `request-${id}` }, h("h3", {}, label), copyable(short, { id: `request-${id}-text`, label, copied: full }))),
  );
}

/** What the server kept is what was sent, pictures and all. */
async function whole(job, asked) {
  try {
    const answer = await ask(`/jobs/${job.id}/request`);
    return { path: answer.headers.get("X-Darkroom-Path") ?? asked?.route ?? "", body: await answer.json() };
  } catch (error) {
    if (!asked) throw error;
    return { path: asked.route, body: asked.request }; // without the server, what the page remembers
  }
}

function shortened(value) {
  if (typeof value === "string" && value.length > LONG && /^[A-Za-z0-9+/=:;,]+$/.test(value.slice(0, LONG))) {
    return `${value.slice(0, 40)}… (${value.length})`;
  }
  if (Array.isArray(value)) return value.map(shortened);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, shortened(one)]));
  }
  return value;
}

function json(body) {
  return JSON.stringify(body, null, 2);
}

/** A shell command that sends the request and writes the first picture to a file. */
export function curl(path, body) {
  const text = json(body).replaceAll("'", "'\\''");
  return `curl ${location.origin}${base}${path} \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}' \\\n`
    + "  | python3 -c 'import base64, json, sys; open(\"picture.png\", \"wb\").write(base64.b64decode(json.load(sys.stdin)[\"images\"][0]))'";
}

/** A program that does the same. */
export function python(path, body) {
  return [
    "import base64",
    "import httpx",
    "",
    `answer = httpx.post(${JSON.stringify(location.origin + base + path)}, json=${literal(body)}, timeout=600)`,
    "answer.raise_for_status()",
    'for number, image in enumerate(answer.json()["images"]):',
    '    with open(f"picture-{number}.png", "wb") as file:',
    "        file.write(base64.b64decode(image))",
  ].join("\n");
}

/** A value as Python writes it. */
function literal(value, depth = 0) {
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map((one) => literal(one, depth + 1)).join(", ")}]`;
  if (typeof value === "object") {
    const lines = Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${literal(one, depth + 1)},`);
    return lines.length ? `{\n${lines.join("\n")}\n${outer}}` : "{}";
  }
  return JSON.stringify(value);
}
