// What the scripts of the pages share: the server's address, the API, words, elements. Knows no page.
//
// Whatever comes from people or files is put into the page as text, never as HTML.

import { inWords } from "./refusals.js";
import { base, language, say as t } from "./setup.js";

export { t };

/** A text that is shown later, by `t`. */
export const mark = (text) => text;

/** The server's own address, with a slash at its end. */
export const root = new URL(`${base}/`, location.origin);

/** So many of something: `one` for a single one, else `many` with its {count}. */
export function counted(count, one, many) {
  return count === 1 ? t(one) : t(many, { count });
}

/** The whole address of one of the server's paths. */
export function address(path) {
  return new URL(path.replace(/^\/+/, ""), root).href;
}

/** The server said no, or nothing; the message is for people. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** The answer of a route of the API: a Response whose status says that all is well. Throws Refused. */
export async function ask(path, { method = "GET", json, signal, headers = {} } = {}) {
  const body = json === undefined ? undefined : JSON.stringify(json);
  const typed = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(address(path), { method, body, signal, headers: { ...typed, ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "unreachable", t("The server cannot be reached."));
  }
  if (answer.ok) return answer;
  if (answer.status === 401) logIn();
  throw await refusal(answer);
}

/** The JSON that a route answers; null where it answers nothing. Throws Refused. */
export async function api(path, options) {
  const text = await (await ask(path, options)).text();
  return text ? JSON.parse(text) : null;
}

async function refusal(answer) {
  let found = {};
  try {
    found = await answer.json();
  } catch {
    // a proxy's page
  }
  const detail = found.detail || found.errors || found.error || answer.statusText;
  const words = Array.isArray(detail)
    ? detail.map((entry) => `${entry.loc?.at(-1) ?? ""}: ${entry.msg}`).join("; ")
    : inWords(String(detail));
  const message = answer.status === 403 ? t("You may not do this: {reason}", { reason: words }) : words;
  return new Refused(answer.status, found.code ?? "", message);
}

function logIn() {
  location.assign(address(`login?next=${encodeURIComponent(location.pathname + location.search)}`));
}

/** Where a query leads: `path?name=value`, without what is empty. */
export function query(path, values) {
  const pairs = Object.entries(values).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const given = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** An element. Names that begin with "on" are listeners; children that are null or false are left out. */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that does something; what goes wrong is said by `complain`. */
export function button(label, act, given = {}) {
  const { class: kind = "", ...rest } = given;
  const made = h("button", { type: "button", class: `dr-button ${kind}`.trim(), ...rest }, label);
  made.addEventListener("click", async (event) => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true"); // not `disabled`: that would lose the keyboard's place
    try {
      await act(event);
    } catch (error) {
      complain(made, error);
    } finally {
      made.removeAttribute("aria-disabled");
    }
  });
  return made;
}

/** A control under its label. */
export function field(label, control, given = {}) {
  return h("label", { class: "dr-field", ...given }, h("span", { class: "dr-label" }, label), control);
}

/** A field for somebody's name, for who may see the work of others; else null. */
export async function ownerFilter(id, changed) {
  const viewer = await api("whoami").catch(() => null);
  if (!viewer?.sees_all || !viewer.name) return null;
  return field(t("Owner"), h("input", { name: "owner", id, autocomplete: "off", oninput: changed }));
}

/** A line that screen readers read out when it changes. */
export function statusLine(id) {
  return h("p", { class: "dr-status", role: "status", id });
}

/** Say something in the status line of an element's page or dialog. */
export function report(element, text, kind = "") {
  const line = element.closest("dialog, .dr-page")?.querySelector(":scope > .dr-status, :scope .dr-status");
  if (!line) return;
  line.textContent = text;
  line.dataset.kind = kind;
}

/** Say what went wrong. */
export function complain(element, error) {
  if (error.name === "AbortError") return;
  report(element, error.message, "error");
  if (!(error instanceof Refused)) console.error(error);
}

/** A dialog over the page; closed by Escape, its button or `close()`, and gone then. */
export function openDialog({ id, title, wide = false }, ...children) {
  const before = document.activeElement;
  const heading = h("h2", { id: `${id}-title` }, title);
  const close = h("button", { type: "button", class: "dr-button dr-close", "aria-label": t("Close") }, "×");
  const dialog = h(
    "dialog",
    { id, class: wide ? "dr-dialog dr-wide" : "dr-dialog", "aria-labelledby": `${id}-title` },
    h("header", {}, heading, close),
    statusLine(`${id}-status`),
    ...children,
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  // Beside Gradio's own elements, so that its colours hold and none of its listeners see our keys.
  (document.querySelector(".gradio-container") ?? document.body).append(dialog);
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.showModal();
  return dialog;
}

/** Whether somebody really means it. */
export function confirmed(id, question, label) {
  return new Promise((resolve) => {
    let answer = false;
    const yes = h("button", { type: "button", class: "dr-button dr-danger", id: `${id}-yes` }, label);
    const no = h("button", { type: "button", class: "dr-button", id: `${id}-no` }, t("Keep"));
    const dialog = openDialog({ id, title: question }, h("div", { class: "dr-actions" }, no, yes));
    yes.addEventListener("click", () => {
      answer = true;
      dialog.close();
    });
    no.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => resolve(answer));
    no.focus();
  });
}

/** A block of text with a button that copies it. */
export function copyable(text, { id, label, copied = text }) {
  const copy = button(t("Copy"), async () => {
    await copyText(copied);
    copy.textContent = t("Copied");
    setTimeout(() => (copy.textContent = t("Copy")), 1500);
  }, { class: "dr-small", id: `${id}-copy`, "aria-label": t("Copy: {what}", { what: label }) });
  const shown = h("pre", { id, tabindex: "0", role: "region", "aria-label": label }, text);
  return h("div", { class: "dr-copyable" }, copy, shown);
}

/** Put a text into the clipboard, also where the page came over plain HTTP and browsers offer no clipboard. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "dr-offscreen", "aria-hidden": "true" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Have the browser keep a file under a name. */
export function download(url, name) {
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Open a page of the UI by its name. */
export function openPage(name) {
  window.darkroom.choose(name);
}

/** Call `act` once it was not asked for during so many milliseconds. */
export function debounced(act, wait_ms = 300) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait_ms);
  };
}

export function date(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleString(language) : "";
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return t("{count} s", { count: whole });
  if (whole < 3600) return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: whole % 60 });
  return t("{hours} h {minutes} min", { hours: Math.floor(whole / 3600), minutes: Math.floor((whole % 3600) / 60) });
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "kB", "MB", "GB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${(bytes / 1000 ** step).toFixed(step ? 1 : 0)} ${units[step]}`;
}

/** What a downloaded picture is called. */
export function fileName(image) {
  const ending = image.media_type.split("/").at(-1).replace("jpeg", "jpg");
  return `${image.seed ?? image.id}-${image.id.slice(0, 6)}.${ending}`;
}
