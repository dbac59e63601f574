// The gallery: every picture that was made here, looked for by words, model, seed, tag and day; shown, compared, tagged,
// sent on, made again, removed. Everything goes through /images and /jobs.

import { compare } from "./compare.js";
import { read } from "./generation_text.js";
import {
  address, api, button, complain, confirmed, counted, debounced, download, field, fileName, h, mark, ownerFilter, query,
  Refused, report, statusLine, t,
} from "./page.js";
import { deletePicture, details } from "./picture.js";

const PAGE = 50;

let asked = null; // pictures of which job are to be shown, if the page was opened for them
let shown = null;

/** Show the pictures of a job as soon as the gallery is there. */
export function showJob(jobId) {
  asked = jobId;
  shown?.take();
}

export function mount(host) {
  shown = new Gallery(host);
  return shown;
}

class Gallery {
  constructor(host) {
    this.images = [];
    this.chosen = new Set();
    this.next = null;
    this.job = null;
    this.request = null;
    this.build(host);
    this.take();
    if (!this.request) this.search();
  }

  build(host) {
    const search = debounced(() => this.search());
    const input = (name, label, given = {}) =>
      field(label, h("input", { name, id: `gallery-${name}`, oninput: search, autocomplete: "off", ...given }));
    this.form = h(
      "form",
      { role: "search", class: "dr-filters", "aria-label": t("Search the gallery") },
      input("text", t("Words"), { type: "search", placeholder: t("prompt or settings") }),
      input("model", t("Model")),
      input("seed", t("Seed"), { inputmode: "numeric", pattern: "[0-9]*" }),
      input("tag", t("Tag")),
      input("since", t("From"), { type: "date" }),
      input("until", t("To"), { type: "date" }),
      h("div", { class: "dr-actions" },
        button(t("Search"), () => this.search(), { class: "dr-primary", id: "gallery-search" }),
        button(t("Clear"), () => this.clear(), { id: "gallery-clear" })),
    );
    const fold = h("button", { type: "button", class: "dr-button dr-narrow", id: "gallery-filters", "aria-expanded": "false" }, t("More filters"));
    fold.addEventListener("click", () => {
      fold.setAttribute("aria-expanded", String(this.form.toggleAttribute("data-open")));
    });
    this.form.firstElementChild.after(fold);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    this.only = h("p", { class: "dr-note", hidden: true, id: "gallery-job" });
    this.status = statusLine("gallery-status");
    this.grid = h("ul", { class: "dr-grid", id: "gallery-grid", "aria-label": t("Pictures") });
    this.more = button(t("Show more"), () => this.load(), { id: "gallery-more", hidden: true });
    this.actions = this.buildActions();
    host.replaceChildren(
      h("div", { class: "dr-page" }, this.form, this.only, this.actions, this.status, this.grid,
        h("div", { class: "dr-actions dr-centre" }, this.more)),
    );
    this.watcher = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.load(), { rootMargin: "400px" });
    this.watcher.observe(this.more);
    ownerFilter("gallery-owner", search).then((one) => one && this.form.lastElementChild.before(one));
    document.addEventListener("darkroom:made", () => host.offsetParent && this.shown());
  }

  buildActions() {
    this.count = h("span", { id: "gallery-chosen" });
    this.compare = button(t("Compare"), () => this.compareChosen(), { id: "gallery-compare" });
    return h(
      "div",
      { class: "dr-actions dr-chosen", hidden: true, role: "group", "aria-label": t("Chosen pictures") },
      this.count,
      this.compare,
      button(t("Download"), () => this.downloadChosen(), { id: "gallery-download" }),
      button(t("Delete"), () => this.deleteChosen(), { class: "dr-danger", id: "gallery-delete" }),
      button(t("Choose none"), () => this.choose(), { id: "gallery-choose-none" }),
    );
  }

  /** The page is seen again: what is new comes in front, unless somebody has scrolled or chosen. */
  shown() {
    if (!asked && !this.chosen.size && this.images.length <= PAGE) this.search({ keep: true });
    this.take();
  }

  take() {
    if (!asked) return;
    [this.job, asked] = [asked, null];
    this.form.reset();
    this.search();
  }

  wanted() {
    const given = Object.fromEntries(new FormData(this.form));
    const midnight = (day, later = 0) => {
      if (!day) return "";
      const [year, month, date] = day.split("-").map(Number);
      return new Date(year, month - 1, date + later).getTime() / 1000;
    };
    const seed = given.seed.trim();
    if (seed && !/^\d+$/.test(seed)) throw new Refused(422, "bad_request", t("Seed: digits only."));
    return {
      ...given, seed, text: given.text.trim(), model: given.model.trim(), tag: given.tag.trim(),
      since: midnight(given.since), until: midnight(given.until, 1), job: this.job, limit: PAGE,
    };
  }

  clear() {
    this.form.reset();
    this.job = null;
    return this.search();
  }

  /** Look again; with `keep`, leave the page as it is where nothing is new. */
  async search({ keep = false } = {}) {
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    try {
      const found = await api(query("images", this.wanted()), { signal });
      if (keep && same(found.images, this.images)) return;
      this.images = [];
      this.choose();
      this.grid.replaceChildren();
      this.add(found);
      this.tell();
    } catch (error) {
      complain(this.grid, error);
    }
  }

  async load() {
    if (!this.next || this.loading) return;
    this.loading = true;
    try {
      const { signal } = this.request;
      this.add(await api(query("images", { ...this.wanted(), before: this.next }), { signal }));
      this.tell();
    } catch (error) {
      complain(this.grid, error);
    } finally {
      this.loading = false;
    }
  }

  add({ images, next }) {
    this.images.push(...images);
    this.next = next;
    this.grid.append(...images.map((image) => this.tile(image)));
    this.more.hidden = !next;
    this.watcher.unobserve(this.more); // where it is still in sight, it is to be seen again
    this.watcher.observe(this.more);
    this.only.hidden = !this.job;
    this.only.replaceChildren(
      t("Only pictures of the job {job}.", { job: this.job ?? "" }), " ",
      button(t("Show all"), () => this.clear(), { class: "dr-small", id: "gallery-all" }),
    );
  }

  tell() {
    const count = this.images.length;
    if (!count) report(this.grid, this.isFiltered() ? t("No picture fits.") : t("No pictures yet. What you make is kept here."));
    else report(this.grid, this.next ? t("{count} pictures, and more", { count }) : counted(count, mark("1 picture"), mark("{count} pictures")));
  }

  isFiltered() {
    return Boolean(this.job) || [...new FormData(this.form).values()].some(Boolean);
  }

  tile(image) {
    const { prompt } = read(image.infotext);
    const words = prompt || t("picture without a prompt");
    const open = h("button", { type: "button", class: "dr-thumb", "aria-label": t("Show: {words}", { words: words.slice(0, 200) }) },
      h("img", { src: address(image.thumbnail), alt: "", loading: "lazy", decoding: "async" }));
    open.addEventListener("click", () => this.open(image));
    const choose = h("input", { type: "checkbox", "aria-label": t("Choose: {words}", { words: words.slice(0, 60) }) });
    choose.addEventListener("change", () => this.choose(image.id, choose.checked));
    return h("li", { "data-id": image.id, title: words.slice(0, 300) }, open, choose,
      image.tags.length ? h("span", { class: "dr-tags" }, image.tags.join(", ")) : null);
  }

  /** Count a picture in or out; without one, all out. */
  choose(id, on) {
    if (id === undefined) {
      this.chosen.clear();
      for (const box of this.grid.querySelectorAll("input:checked")) box.checked = false;
    } else if (on) this.chosen.add(id);
    else this.chosen.delete(id);
    this.actions.hidden = !this.chosen.size;
    this.count.textContent = t("{count} chosen", { count: this.chosen.size });
    this.compare.hidden = this.chosen.size !== 2;
  }

  chosenImages() {
    return this.images.filter((image) => this.chosen.has(image.id));
  }

  compareChosen() {
    const [newer, older] = this.chosenImages();
    compare(older, newer);
  }

  downloadChosen() {
    for (const image of this.chosenImages()) download(address(image.url), fileName(image));
  }

  async deleteChosen() {
    const count = this.chosen.size;
    if (!(await confirmed("gallery-confirm", counted(count, mark("Delete this picture?"), mark("Delete {count} pictures?")), t("Delete")))) return;
    for (const image of this.chosenImages()) {
      await deletePicture(image);
      this.forget(image);
    }
    report(this.grid, counted(count, mark("The picture is deleted."), mark("{count} pictures are deleted.")));
  }

  forget(image) {
    this.images = this.images.filter((one) => one.id !== image.id);
    this.choose(image.id, false);
    this.tileOf(image)?.remove();
  }

  /** A picture in full; `from` and `to` it by the arrow keys. */
  open(image) {
    let current = image;
    const dialog = details(image, {
      neighbour: async (one, step) => {
        const place = this.images.findIndex((other) => other.id === one.id) + step;
        if (place >= this.images.length) await this.load();
        return this.images[place] ?? null;
      },
      shown: (one) => (current = one),
      changed: (one) => {
        this.images = this.images.map((other) => (other.id === one.id ? one : other));
        this.tileOf(one)?.replaceWith(this.tile(one));
      },
      deleted: (one) => this.forget(one),
    });
    // Back to where the reader is now, which may be another picture than the one that was opened.
    dialog.addEventListener("close", () => this.tileOf(current)?.querySelector("button").focus());
  }

  tileOf(image) {
    return this.grid.querySelector(`[data-id="${CSS.escape(image.id)}"]`);
  }
}

function same(some, others) {
  return some.length === others.length && some.every((one, place) => one.id === others[place].id);
}
