// <darkroom-pictures data-page="img2img" data-part="batch" label="…">: several pictures, one after another.
import { batchArchive, beginBatch } from "./batches.js";
import { MAX_FILE_BYTES, base64 } from "./boards.js";
import { download, h } from "./page.js";
import { say } from "./setup.js";

const shelves = new Map();

class Pictures extends HTMLElement {
  #list = h("ul", { class: "dk-pictures" });
  #status = h("p", { class: "dk-picture-status", role: "status" });

  connectedCallback() {
    if (!this.isConnected || this.childElementCount) return;
    const label = this.getAttribute("label") || say("Pictures");
    const input = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, "aria-label": label });
    const zone = h(
      "button",
      { type: "button", class: "dk-picture-zone", onclick: () => input.click() },
      h("strong", {}, label),
      h("span", {}, say("Drop pictures here, or choose files")),
    );
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    this.addEventListener("dragover", (event) => event.preventDefault());
    this.addEventListener("drop", (event) => {
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
    const keep = h(
      "button",
      { type: "button", class: "dk-small-button", "data-tool": "archive", onclick: () => this.#download() },
      say("Download what came of them (ZIP)"),
    );
    this.append(zone, input, this.#list, this.#status, keep);
    this.#show();
  }

  get #files() {
    const key = `${this.dataset.page}/${this.dataset.part}`;
    if (!shelves.has(key)) shelves.set(key, []);
    return shelves.get(key);
  }

  add(files) {
    const pictures = files.filter((file) => file.type.startsWith("image/"));
    const bytes = [...this.#files, ...pictures].reduce((sum, file) => sum + file.size, 0);
    if (bytes > MAX_FILE_BYTES) {
      this.#status.textContent = say("Together the files are larger than 64 MB.");
      return;
    }
    this.#files.push(...pictures);
    this.#show();
    if (pictures.length < files.length) this.#status.textContent = say("Files that are not pictures were left out.");
  }

  #show() {
    this.#list.replaceChildren(...this.#files.map((file, place) => this.#entry(file, place)));
    this.#status.textContent = this.#files.length ? say("{count} pictures", { count: this.#files.length }) : "";
  }

  #entry(file, place) {
    const address = URL.createObjectURL(file);
    const image = h("img", { src: address, alt: "", loading: "lazy" });
    image.addEventListener("load", () => URL.revokeObjectURL(address));
    const drop = () => {
      this.#files.splice(place, 1);
      this.#show();
      this.querySelector(".dk-picture-zone").focus();
    };
    const label = say("Remove {name}", { name: file.name });
    const remove = h("button", { type: "button", class: "dk-small-button", "aria-label": label, onclick: drop }, "×");
    return h("li", {}, image, h("span", {}, file.name), remove);
  }

  async #download() {
    try {
      const address = URL.createObjectURL(await batchArchive(this.dataset.page));
      download(address, "pictures.zip");
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.#status.textContent = error.message;
    }
  }

  /** What a handler is given: names, sizes and base64, in order. */
  async gathered() {
    beginBatch(this.dataset.page, this.#files.map((file) => file.name));
    return Promise.all(this.#files.map(described));
  }
}

async function described(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const { width = 0, height = 0 } = bitmap ?? {};
  bitmap?.close();
  return { name: file.name, width, height, image: await base64(file) };
}

customElements.define("darkroom-pictures", Pictures);
