// The pictures that the pages start from, and what is painted on them.
//
// A board outlives the elements that show it: a page may be hidden and built again, and several tabs show one board.
// Files stay as they were chosen, byte for byte, until something is painted on them; a mask is black and white.
// Nothing here touches the page.

const boards = new Map();

export const MAX_FILE_BYTES = 64 * 1024 * 1024;

/** The board of this name; it is made when somebody first asks for it. */
export function board(name) {
  if (!boards.has(name)) boards.set(name, new Board());
  return boards.get(name);
}

export class Board extends EventTarget {
  file = null;
  name = "";
  infotext = "";
  bitmap = null;
  #layers = new Map();

  get width() {
    return this.bitmap?.width ?? 0;
  }

  get height() {
    return this.bitmap?.height ?? 0;
  }

  /** Take a picture: a file, or the address of one, and what is known of how it was made. Throws an Error in words for
   *  people. */
  async load(source, { name = "", infotext = "" } = {}) {
    const file = typeof source === "string" ? await fetched(source) : source;
    if (file.size > MAX_FILE_BYTES) throw new Error("The file is larger than 64 MB.");
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    } catch {
      throw new Error("This file is not a picture that the browser can read.");
    }
    const sameSize = bitmap.width === this.width && bitmap.height === this.height;
    this.bitmap?.close();
    Object.assign(this, { file, bitmap, name: name || file.name || "", infotext });
    if (!sameSize) this.#layers.clear();
    this.#changed("picture");
  }

  /** An empty picture of one colour, to paint on. */
  async blank(width, height, colour = "#ffffff") {
    const canvas = surface(width, height);
    const context = canvas.getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, width, height);
    await this.load(await png(canvas));
  }

  remove() {
    this.bitmap?.close();
    Object.assign(this, { file: null, bitmap: null, name: "", infotext: "" });
    this.#layers.clear();
    this.#changed("picture");
  }

  /** What is painted in one way, over the picture and of its size. */
  layer(name) {
    if (!this.#layers.has(name)) this.#layers.set(name, new Layer(this.width, this.height, () => this.#changed("paint")));
    return this.#layers.get(name);
  }

  /** The picture as base64: the file itself, or with a layer's colours over it. Null where there is none. */
  async image(layerName = null, opacity = 1) {
    if (!this.file) return null;
    const layer = layerName && this.layer(layerName);
    if (!layer || layer.isEmpty || opacity === 0) return base64(this.file);
    const canvas = surface(this.width, this.height);
    const context = canvas.getContext("2d");
    context.drawImage(this.bitmap, 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(layer.canvas, 0, 0);
    return base64(await png(canvas));
  }

  /** What a layer covers, as base64 of a picture: white there, black elsewhere. Null where nothing is painted. The rim of
   *  a stroke is partly covered, by 1 to 254; `least` is what counts. */
  async mask(layerName, least = 128) {
    const layer = this.layer(layerName);
    if (!this.file || layer.isEmpty) return null;
    const pixels = layer.canvas.getContext("2d").getImageData(0, 0, this.width, this.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = pixels.data[at + 3] >= least ? 255 : 0;
      pixels.data.fill(value, at, at + 3);
      pixels.data[at + 3] = 255;
    }
    const canvas = surface(this.width, this.height);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return base64(await png(canvas));
  }

  #changed(what) {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}

/** Strokes, each {colour, size, erases, points: [[x, y], …]} in pixels of the picture, and the canvas that shows them. */
class Layer {
  #strokes = [];
  #undone = [];
  #changed;

  constructor(width, height, changed) {
    this.canvas = surface(Math.max(width, 1), Math.max(height, 1));
    this.canvas.getContext("2d", { willReadFrequently: true });
    this.#changed = changed;
  }

  get isEmpty() {
    return !this.#strokes.some((stroke) => !stroke.erases);
  }

  get canUndo() {
    return this.#strokes.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  begin(stroke, point) {
    this.#undone = [];
    this.#strokes.push({ ...stroke, points: [point] });
    this.#draw(this.#strokes.at(-1), point, point);
    this.#changed();
  }

  extend(point) {
    const stroke = this.#strokes.at(-1);
    this.#draw(stroke, stroke.points.at(-1), point);
    stroke.points.push(point);
    this.#changed();
  }

  undo() {
    if (this.canUndo) this.#undone.push(this.#strokes.pop());
    this.#redraw();
  }

  redo() {
    if (this.canRedo) this.#strokes.push(this.#undone.pop());
    this.#redraw();
  }

  clear() {
    this.#strokes = [];
    this.#undone = [];
    this.#redraw();
  }

  #redraw() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.#strokes) {
      stroke.points.forEach((point, place) => this.#draw(stroke, stroke.points[Math.max(place - 1, 0)], point));
    }
    this.#changed();
  }

  #draw(stroke, from, to) {
    const context = this.canvas.getContext("2d");
    context.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = stroke.colour;
    context.lineWidth = stroke.size;
    context.lineCap = "round";
    context.beginPath();
    if (from === to || (from[0] === to[0] && from[1] === to[1])) {
      context.arc(to[0], to[1], stroke.size / 2, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
    }
  }
}

/** Width and height of a board's picture, for two controls; nothing changes where there is none. */
export function sizeOf(name, current = []) {
  const { width, height } = board(name);
  return width ? [width, height] : current;
}

/** A file as base64, without the head of a data address. */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file could not be read."));
    reader.readAsDataURL(file);
  });
}

async function fetched(address) {
  const url = new URL(address, document.baseURI);
  if (url.origin !== location.origin && url.protocol !== "data:" && url.protocol !== "blob:") {
    throw new Error("Pictures of other sites must be saved as files first.");
  }
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The picture could not be fetched: ${answer.status} ${answer.statusText}`);
  const blob = await answer.blob();
  return new File([blob], url.protocol.startsWith("http") ? url.pathname.split("/").at(-1) : "", { type: blob.type });
}

function surface(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return canvas;
}

function png(canvas) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture is too large."))), "image/png");
  });
}
