// The API for people: its address, how it is spoken to, a place to try it, who is there, keys.

import { address, api, ask, button, copyable, field, h, mark, report, root, statusLine, t } from "./page.js";
import { quoted } from "./picture.js";

const EXAMPLES = [
  ["POST", "/sdapi/v1/txt2img", { prompt: "a red apple", steps: 20 }],
  ["GET", "/sdapi/v1/sd-models", null],
  ["GET", "/sdapi/v1/samplers", null],
  ["GET", "/sdapi/v1/options", null],
  ["GET", "/sdapi/v1/progress", null],
  ["GET", "/sdapi/v1/memory", null],
  ["GET", "/jobs?limit=5", null],
  ["GET", "/images?limit=5", null],
  ["GET", "/models?kind=lora", null],
  ["POST", "/sdapi/v1/refresh-checkpoints", null],
];
const LONGEST = 200; // characters of a text in an answer; a picture is cut off there

export function mount(host) {
  return new Api(host);
}

class Api {
  constructor(host) {
    const base = root.href.replace(/\/$/, "");
    host.replaceChildren(h("div", { class: "dr-page" }, statusLine("api-status"),
      h("section", {}, h("h2", {}, t("Address")), copyable(base, { id: "api-address", label: t("Address") }),
        h("p", {}, t("Whatever these pages do, a program can do as well."), " ",
          h("a", { href: address("docs"), id: "api-docs" }, t("Every route, to try")), " · ",
          h("a", { href: address("redoc") }, t("to read")), " · ", h("a", { href: address("openapi.json") }, t("for programs")))),
      this.snippets(base), this.trial(), this.account()));
  }

  snippets(base) {
    const curl = `curl ${quoted(`${base}/sdapi/v1/txt2img`)} -H 'Content-Type: application/json' -d '{"prompt": "a red apple"}'`;
    const python = [
      "from pathlib import Path", "from darkroom.client import Client", "",
      `with Client(${JSON.stringify(base)}) as darkroom:  # key="drk_..." or auth=(user, password) where it is asked for`,
      '    job = darkroom.wait(darkroom.submit("txt2img", prompt="a red apple"))',
      "    for image in job.images:", '        Path(f"{image.seed}.png").write_bytes(darkroom.file(image))',
    ].join("\n");
    return h("section", {}, h("h2", {}, t("From a program")),
      h("h3", {}, "curl"), copyable(curl, { id: "api-curl", label: "curl" }),
      h("h3", {}, "Python"), copyable(python, { id: "api-python", label: "Python" }));
  }

  trial() {
    const method = h("select", { id: "api-method" }, ...["GET", "POST", "PUT", "DELETE"].map((name) => h("option", { value: name }, name)));
    const path = h("input", { id: "api-path", list: "api-paths", autocomplete: "off", spellcheck: "false" });
    const body = h("textarea", { id: "api-body", rows: "6", spellcheck: "false" });
    const answer = h("div", { id: "api-answer" });
    const example = h("select", { id: "api-example", onchange: () => choose(EXAMPLES[example.selectedIndex]) },
      ...EXAMPLES.map(([verb, route]) => h("option", {}, `${verb} ${route}`)));
    const choose = ([verb, route, sent]) => {
      [method.value, path.value, body.value] = [verb, route, sent ? JSON.stringify(sent, null, 2) : ""];
    };
    choose(EXAMPLES[1]);
    example.selectedIndex = 1;
    const send = button(t("Send"), async () => {
      report(answer, "");
      answer.replaceChildren(await tried(method.value, path.value, body.value));
    }, { class: "dr-primary", id: "api-send" });
    return h("section", {}, h("h2", {}, t("Try it")),
      h("div", { class: "dr-filters" }, field(t("Example"), example), field(t("Method"), method), field(t("Path"), path)),
      field(t("Body (JSON)"), body), h("div", { class: "dr-actions" }, send), answer);
  }

  account() {
    const who = h("div", { id: "api-who" });
    const out = h("form", { method: "post", action: address("logout"), hidden: true, id: "api-logout" },
      h("button", { class: "dr-button" }, t("Log out")));
    whoIsThere(who, out);
    return h("section", {}, h("h2", {}, t("You and your keys")), who, out,
      h("p", { class: "dr-words" }, t("A program shows a key instead of a password. Keys are made where the server runs, are shown once and can be taken back:")),
      copyable("darkroom key add NAME --scope generate --scope read", { id: "api-key", label: t("Making a key") }),
      h("p", {}, t("A request shows it like this:")),
      copyable("Authorization: Bearer drk_...", { id: "api-header", label: t("Showing a key") }));
  }
}

const SCOPES = { generate: mark("make pictures"), read: mark("see lists and one's own work"), admin: mark("change the server") };

/** Who asks, and what they may do. */
async function whoIsThere(place, out) {
  const found = await api("whoami").catch((error) => {
    place.textContent = error.message;
    return null;
  });
  if (!found) return;
  if (!found.name) {
    place.textContent = t("This server asks nobody who they are; everybody who reaches it may do everything.");
    return;
  }
  const rows = [
    [t("You are"), found.name], [t("You may"), found.scopes.map((scope) => t(SCOPES[scope])).join(", ")],
    [t("Requests for work"), found.rate], [t("Jobs at once"), found.jobs],
    [t("Megapixels times steps in an hour"), found.work], [t("Highest priority"), found.priority],
  ].filter(([, value]) => value !== null && value !== "");
  place.replaceChildren(h("dl", { class: "dr-list" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])));
  out.hidden = false;
}

/** What a request is answered, for reading. */
async function tried(method, path, text) {
  const json = text.trim() ? JSON.parse(text) : undefined;
  const began = performance.now();
  const answer = await ask(path, { method, json: method === "GET" ? undefined : json });
  const took = Math.round(performance.now() - began);
  const type = answer.headers.get("Content-Type") ?? "";
  const head = h("p", { class: "dr-quiet" }, `${answer.status} · ${type} · ${took} ms`);
  if (type.startsWith("image/")) return h("div", {}, head, h("img", { src: URL.createObjectURL(await answer.blob()), alt: t("The answer") }));
  const found = await answer.text();
  return h("div", {}, head, copyable(readable(found), { id: "api-answer-text", label: t("The answer") }));
}

function readable(text) {
  const short = (_, value) => (typeof value === "string" && value.length > LONGEST ? `${value.slice(0, LONGEST)}…` : value);
  try {
    return JSON.stringify(JSON.parse(text), short, 2);
  } catch {
    return text.slice(0, 100_000);
  }
}
