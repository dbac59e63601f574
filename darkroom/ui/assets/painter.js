// <darkroom-picture board="img2img" mode="plain|mask|sketch|inpaint_sketch" label="…">: a picture to start from, chosen,
// dropped, pasted or sent from elsewhere, and a brush to paint on it.
//
// Shows a board of boards.js and changes it; keeps nothing itself but the brush and the view.

import { board } from "./boards.js";
import { h } from "./page.js";
import { say } from "./setup.js";

const LARGEST_BRUSH = 0.5;

class Picture extends HTMLElement {
  #brush = { colour: "#ffffff", share: 0.06, erases: false };
  #zoom = 1;
  #cursor = null;
  #drawing = false;
  #due = false;
  #parts = {};

  connectedCallback() {
    if (!this.#parts.zone) this.#build();
    this.board.addEventListener("change", this.#onChange);
    this.#show();
  }

  disconnectedCallback() {
    this.board.removeEventListener("change", this.#onChange);
  }

  get board() {
    return board(this.getAttribute("board") || this.id);
  }

  get mode() {
    return this.getAttribute("mode") || "plain";
  }

  get paints() {
    return this.mode !== "plain";
  }

  get #layer() {
    return this.board.layer(this.mode);
  }

  /** What a handler is given: the picture as base64, and the mask that was painted. Null where there is no picture. */
  async gathered() {
    const { board, mode } = this;
    if (!board.bitmap) return null;
    const { name, width, height } = board;
    const paints = { plain: [null, null], mask: [null, mode], sketch: [mode, null], inpaint_sketch: [mode, mode] };
    const [colours, mask] = paints[mode];
    return {
      name,
      width,
      height,
      image: await board.image(colours, 1 - this.transparency),
      mask: mask && (await board.mask(mask, colours ? 1 : 128)), // paint leaves nothing of itself outside its mask
    };
  }

  #onChange = ({ detail }) => (detail === "paint" ? this.#paint() : this.#show());

  /** Take a picture and say in words where that fails. */
  async take(source) {
    this.#say("");
    try {
      await this.board.load(source);
    } catch (error) {
      this.#say(say(error.message));
    }
  }

  #build() {
    const label = this.getAttribute("label") || say("Picture");
    const hint = say("Drop a picture here, paste one, or choose a file");
    const zone = h(
      "button",
      { type: "button", class: "dk-picture-zone" },
      h("strong", {}, label),
      h("span", {}, hint),
    );
    const input = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": label });
    const canvas = h("canvas", this.paints ? {} : { role: "img", "aria-label": label });
    const stage = h("div", { class: "dk-picture-stage" }, canvas);
    const status = h("p", { class: "dk-picture-status", role: "status" });
    Object.assign(this.#parts, { zone, input, stage, canvas, status, tools: this.#tools(label) });
    const blank = this.#blankButton();
    this.#parts.blank = blank;
    this.append(zone, blank, input, stage, this.#parts.tools, status);

    zone.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      if (input.files.length) this.take(input.files[0]);
      input.value = "";
    });
    this.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.classList.add("is-over");
    });
    this.addEventListener("dragleave", () => this.classList.remove("is-over"));
    this.addEventListener("drop", (event) => {
      event.preventDefault();
      this.classList.remove("is-over");
      this.#takeTransfer(event.dataTransfer);
    });
    if (this.paints) this.#listenToBrush(canvas, label);
  }

  #tools(label) {
    const tools = h("div", { class: "dk-picture-tools", role: "toolbar", "aria-label": label });
    if (this.paints) tools.append(...this.#brushTools());
    tools.append(
      this.#button(say("Another picture"), "choose", () => this.#parts.input.click()),
      this.#button(say("Remove"), "remove", () => this.board.remove()),
    );
    return tools;
  }

  #brushTools() {
    const size = h("input", { type: "range", min: 1, max: 100, value: 24 });
    size.addEventListener("input", () => this.#setSize(size.value / 100));
    const eraser = this.#button(say("Eraser"), "eraser", () => this.#setEraser(!this.#brush.erases));
    eraser.setAttribute("aria-pressed", "false");
    Object.assign(this.#parts, { eraser, size });
    return [
      labelled(say("Brush size"), size),
      ...(this.mode === "mask" ? [] : [this.#colourButton()]),
      ...(this.mode === "inpaint_sketch" ? [this.#transparencySlider()] : []),
      eraser,
      this.#button(say("Undo"), "undo", () => this.#layer.undo()),
      this.#button(say("Redo"), "redo", () => this.#layer.redo()),
      this.#button(say("Clear"), "clear", () => this.#layer.clear()),
      this.#button(say("Larger"), "larger", () => this.#setZoom(this.#zoom * 1.25)),
      this.#button(say("Smaller"), "smaller", () => this.#setZoom(this.#zoom / 1.25)),
      this.#button(say("Full screen"), "wide", () => this.#toggleWide()),
    ];
  }

  #colourButton() {
    this.#brush.colour = "#d13232";
    const colour = h("input", { type: "color", value: this.#brush.colour, "aria-label": say("Brush colour") });
    colour.addEventListener("input", () => {
      this.#brush.colour = colour.value;
      this.#setEraser(false);
    });
    return colour;
  }

  /** Begins a sketch on white, as large as the page's picture is to be. */
  #blankButton() {
    const side = (name) => Number(document.querySelector(`#${this.dataset.page}-${name} input`)?.value) || 512;
    return this.#button(say("Begin with a white canvas"), "blank", () => this.board.blank(side("width"), side("height")));
  }

  #transparencySlider() {
    const slider = h("input", { type: "range", min: 0, max: 100, value: 0 });
    slider.addEventListener("input", () => (this.transparency = slider.value / 100));
    return labelled(say("Mask transparency"), slider);
  }

  #button(text, tool, act) {
    return h("button", { type: "button", class: "dk-small-button", "data-tool": tool, onclick: act }, text);
  }

  async #takeTransfer(transfer) {
    const file = [...transfer.files].find((one) => one.type.startsWith("image/")) ?? transfer.files[0];
    const address = transfer.getData("text/uri-list") || transfer.getData("text/plain");
    if (address && (!file || isOwn(address))) await this.take(address);
    else if (file) await this.take(file);
    else this.#say(say("What was dropped is not a picture."));
  }

  /** Pictures of the clipboard; whether there was one. */
  takePasted(transfer) {
    const file = [...(transfer?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) this.take(file);
    return Boolean(file);
  }

  #show() {
    const { zone, blank, stage, tools, canvas } = this.#parts;
    const there = Boolean(this.board.bitmap);
    zone.hidden = there;
    blank.hidden = there || !this.mode.endsWith("sketch");
    stage.hidden = tools.hidden = !there;
    this.classList.toggle("has-picture", there);
    if (there) {
      Object.assign(canvas, { width: this.board.width, height: this.board.height });
      this.#say(`${this.board.width} × ${this.board.height}`);
    } else {
      this.#toggleWide(false);
      this.#say("");
    }
    this.#cursor = null;
    this.#setZoom(1);
    this.#paint();
  }

  /** Draw once before the next picture of the screen, however often that is asked for. */
  #paint() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      if (this.board.bitmap) this.#draw();
    });
  }

  #draw() {
    const { canvas, tools } = this.#parts;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.board.bitmap, 0, 0);
    if (!this.paints) return;
    context.globalAlpha = this.mode === "mask" ? 0.7 : 1 - this.transparency;
    context.drawImage(this.#layer.canvas, 0, 0);
    context.globalAlpha = 1;
    if (this.#cursor) this.#drawCursor(context);
    const possible = { undo: this.#layer.canUndo, redo: this.#layer.canRedo, clear: this.#layer.canUndo };
    for (const [tool, can] of Object.entries(possible)) {
      tools.querySelector(`[data-tool=${tool}]`).setAttribute("aria-disabled", String(!can));
    }
  }

  /** 0…1: how far the picture shows through what is painted on it. */
  get transparency() {
    return Number(this.dataset.transparency || 0);
  }

  set transparency(value) {
    this.dataset.transparency = value;
    this.#paint();
  }

  #drawCursor(context) {
    const [x, y] = this.#cursor;
    const radius = Math.max(this.#size / 2, 1);
    for (const [colour, width] of [["#000000", 3], ["#ffffff", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = (width * context.canvas.width) / Math.max(context.canvas.clientWidth, 1);
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  /** The brush's diameter in pixels of the picture. */
  get #size() {
    return Math.max(1, Math.round(this.#brush.share * Math.max(this.board.width, this.board.height)));
  }

  #setSize(share) {
    this.#brush.share = Math.min(Math.max(share * share, 0.0001), 1) * LARGEST_BRUSH;
    this.#parts.size.value = Math.round(Math.sqrt(this.#brush.share / LARGEST_BRUSH) * 100);
    this.#paint();
  }

  #setEraser(on) {
    this.#brush.erases = on;
    this.#parts.eraser.setAttribute("aria-pressed", String(on));
  }

  #setZoom(zoom) {
    this.#zoom = Math.min(Math.max(zoom, 1), 8);
    this.#parts.canvas.style.setProperty("--zoom", this.#zoom);
  }

  #toggleWide(on = !this.classList.contains("is-wide")) {
    this.classList.toggle("is-wide", on);
  }

  #listenToBrush(canvas, label) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    const keys = say("Arrow keys move the brush, space lowers and lifts it, [ and ] change its size, E is the eraser.");
    canvas.setAttribute("aria-label", `${label}: ${keys}`);
    canvas.title = keys;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#lower(this.#place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      for (const one of event.getCoalescedEvents?.() ?? []) if (this.#drawing) this.#layer.extend(this.#place(one));
      this.#moveTo(this.#place(event));
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.#lift());
    canvas.addEventListener("pointerleave", () => this.#drawing || this.#moveTo(null));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#lift());
  }

  /** Where a pointer is, in pixels of the picture, rounded to hundredths. */
  #place(event) {
    const { canvas } = this.#parts;
    const box = canvas.getBoundingClientRect();
    const at = [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
    return at.map((value) => Math.round(value * 100) / 100);
  }

  #lower(point) {
    this.#drawing = true;
    this.#cursor = point;
    const { colour, erases } = this.#brush;
    this.#layer.begin({ colour: this.mode === "mask" ? "#ffffff" : colour, size: this.#size, erases }, point);
  }

  #moveTo(point) {
    if (this.#drawing && point) this.#layer.extend(point);
    this.#cursor = point;
    this.#paint();
  }

  #lift() {
    this.#drawing = false;
  }

  #wheel(event) {
    if (!event.altKey && !event.ctrlKey) return;
    event.preventDefault();
    const up = event.deltaY < 0;
    if (event.altKey) this.#setZoom(this.#zoom * (up ? 1.1 : 1 / 1.1));
    else this.#setSize(Math.sqrt(this.#brush.share / LARGEST_BRUSH) + (up ? 0.02 : -0.02));
  }

  #key(event) {
    const act = this.#actionOf(event);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #actionOf(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const share = Math.sqrt(this.#brush.share / LARGEST_BRUSH);
    if (event.ctrlKey || event.metaKey) {
      return { z: () => (event.shiftKey ? this.#layer.redo() : this.#layer.undo()), y: () => this.#layer.redo() }[key];
    }
    if (event.altKey) return null;
    const step = event.shiftKey ? 1 : Math.max(this.#size / 4, 1);
    return {
      ArrowLeft: () => this.#nudge(-step, 0),
      ArrowRight: () => this.#nudge(step, 0),
      ArrowUp: () => this.#nudge(0, -step),
      ArrowDown: () => this.#nudge(0, step),
      " ": () => (this.#drawing ? this.#lift() : this.#lower(this.#cursor ?? this.#middle)),
      "[": () => this.#setSize(share - 0.02),
      "]": () => this.#setSize(share + 0.02),
      q: () => this.#setSize(share - 0.02),
      w: () => this.#setSize(share + 0.02),
      e: () => this.#setEraser(!this.#brush.erases),
      r: () => this.#setZoom(1),
      s: () => this.#toggleWide(),
      Escape: this.classList.contains("is-wide") ? () => this.#toggleWide(false) : undefined,
    }[key];
  }

  get #middle() {
    return [this.board.width / 2, this.board.height / 2];
  }

  #nudge(right, down) {
    const [x, y] = this.#cursor ?? this.#middle;
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    this.#moveTo([within(x + right, this.board.width), within(y + down, this.board.height)]);
  }

  #say(text) {
    if (this.#parts.status.textContent !== text) this.#parts.status.textContent = text;
  }
}

function labelled(text, control) {
  return h("label", { class: "dk-picture-slider" }, h("span", {}, text), control);
}

function isOwn(address) {
  try {
    return new URL(address, document.baseURI).origin === location.origin;
  } catch {
    return false;
  }
}

/** A picture that is pasted anywhere but into a text goes to the picture that is on show. */
function paste(event) {
  if (event.target.closest?.("textarea, input:not([type=file])")) return;
  const shown = [...document.querySelectorAll("darkroom-picture")].filter((one) => one.checkVisibility());
  const target = shown.find((one) => !one.board.bitmap) ?? shown[0];
  if (target?.takePasted(event.clipboardData)) event.preventDefault();
}

customElements.define("darkroom-picture", Picture);
document.addEventListener("paste", paste);
