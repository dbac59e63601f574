// <darkroom-png-info>: a picture's generation text, what it says entry by entry, the file's other notes, and the pages
// that the picture can be sent to.
import { base64, board } from "./boards.js";
import { api, h } from "./page.js";
import "./painter.js";
import { send, targets } from "./sending.js";
import { say } from "./setup.js";

const BOARD = "png_info";
const PROMPTS = new Set(["Prompt", "Negative prompt", "Styles array"]);

class PngInfo extends HTMLElement {
  #found = h("div", { class: "dk-png-info-found", "aria-live": "polite" });
  #reading = 0;

  connectedCallback() {
    if (!this.childElementCount) {
      const picture = h("darkroom-picture", { board: BOARD, label: say("Picture"), id: "png_info-picture" });
      this.append(h("div", { class: "dk-png-info" }, picture, this.#found));
    }
    board(BOARD).addEventListener("change", this.#read);
    this.#read();
  }

  disconnectedCallback() {
    board(BOARD).removeEventListener("change", this.#read);
  }

  #read = async () => {
    const { file } = board(BOARD);
    const turn = ++this.#reading;
    if (!file) return this.#found.replaceChildren(h("p", { class: "dk-quiet" }, say("No picture yet.")));
    try {
      const told = await api("/sdapi/v1/png-info", { method: "POST", json: { image: await base64(file) } });
      if (turn === this.#reading) this.#show(told);
    } catch (error) {
      if (turn === this.#reading) this.#found.replaceChildren(h("p", { class: "dk-error", role: "alert" }, error.message));
    }
  };

  #show({ info, items, parameters }) {
    const notes = Object.entries(items);
    const text = info || board(BOARD).infotext; // a grid's file bears no text, but its job knows one
    this.#found.replaceChildren(
      this.#sending(text),
      heading("Generation text"),
      ...(info ? [] : [h("p", { id: "png_info-none" }, say("This file says nothing of how the picture was made."))]),
      ...(text ? [told(text)] : []),
      ...(info ? this.#parameters(info, Object.entries(parameters)) : []),
      ...(notes.length ? [heading("Other notes of the file"), table("png_info-items", notes)] : []),
    );
  }

  /** The entries of a text, and, folded away, what those stand for that it does without. */
  #parameters(info, entries) {
    const isSaid = ([name]) => PROMPTS.has(name) || info.includes(`${name.replace(/-[12]$/, "")}: `);
    const left = entries.filter((entry) => !isSaid(entry));
    return [
      heading("Parameters"),
      table("png_info-parameters", entries.filter(isSaid)),
      h("details", {}, h("summary", {}, say("What the text leaves open")), table("png_info-defaults", left)),
    ];
  }

  #sending(infotext) {
    const { file, name } = board(BOARD);
    const buttons = targets()
      .filter((way) => way.name !== BOARD)
      .map((way) => {
        const act = () => send({ blob: file, infotext, name }, way.name);
        const id = `png_info-send-${way.name}`;
        const text = say("Send to {page}", { page: say(way.label) });
        return h("button", { type: "button", class: "dk-small-button", id, onclick: act }, text);
      });
    return h("div", { class: "dk-script-tools" }, ...buttons);
  }
}

function told(text) {
  return h("pre", { id: "png_info-text", tabindex: 0, role: "region", "aria-label": say("Generation text") }, text);
}

function heading(text) {
  return h("h3", {}, say(text));
}

function table(id, rows) {
  const lines = rows.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, written(value))),
  );
  return h("table", { id }, h("tbody", {}, ...lines));
}

function written(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

customElements.define("darkroom-png-info", PngInfo);
