// Cards of jobs: progress and a live picture while they run, pictures when they are done.
//
// A card follows its job by itself: over a stream of events where one is free, else by asking now and then. Browsers
// keep few connections to a server for all their tabs, and every stream holds one.
import { merged } from "./merged.js";
import { api, button, copyable, download, fileName, h } from "./page.js";
import { details } from "./picture.js";
import { showCounters } from "./prompt.js";
import { send, targets } from "./sending.js";
import { base, say } from "./setup.js";
import { showRequest } from "./show_request.js";
import { withStream } from "./streams.js";

const ASK_MS = 1500;
const FINAL = new Set(["done", "interrupted", "failed", "cancelled"]);
const MOST_CARDS = 30;
const WAYS = ["img2img", "inpaint", "extras", "png_info"];

const cards = new Map();

/** Take a page's list of cards into care: jobs of its kind that still run appear in it. */
export async function results(box) {
  if (!box || box.dataset.known) return;
  box.dataset.known = "yes";
  for (const card of cards.values()) if (card.page === box.dataset.page) box.prepend(card.node);
  rest(box);
  requestAnimationFrame(() => showCounters(box.dataset.page)); // the list is loaded before it is on the page
  try {
    const found = await api(`/jobs?kind=${box.dataset.kind}&state=queued&state=running&limit=20`);
    for (const job of found.jobs.reverse()) add(box.dataset.page, job, null);
  } catch (error) {
    box.prepend(h("p", { class: "dk-error", role: "alert", "data-page": box.dataset.page }, error.message));
  }
}

/** A job that this page has just begun: its document, and what was asked of which route. */
export function followed(page, { job, route, request }) {
  const { node } = add(page, job, { route, request });
  if (innerWidth < 640) node.scrollIntoView({ block: "nearest" }); // on a phone it is far below the button
}

/** Stop the newest job of a page that is not over: `interrupt` or `skip`. */
export function stopNewest(page, how) {
  const live = [...cards.values()].filter((card) => card.page === page && !FINAL.has(card.job.state));
  live.at(-1)?.stop(how);
}

function add(page, job, asked) {
  const known = cards.get(job.id);
  if (known) return known;
  const box = document.getElementById(`${page}-results`);
  const card = new Card(page, job, asked);
  cards.set(job.id, card);
  box?.prepend(card.node);
  rest(box);
  const ended = [...cards.values()].filter((one) => one.page === page && FINAL.has(one.job.state));
  for (const old of ended.slice(0, Math.max(0, ended.length - MOST_CARDS))) old.remove();
  card.follow();
  return card;
}

/** The words in a list without cards. */
function rest(box) {
  if (!box) return;
  const words = box.querySelector(".dk-empty");
  if (box.querySelector(".dk-card")) words?.remove();
  else if (!words) box.append(h("p", { class: "dk-empty" }, emptyWords(box)));
}

class Card {
  constructor(page, job, asked) {
    Object.assign(this, { page, job, asked });
    this.state = h("span", { class: "dk-state" });
    this.time = h("span", { class: "dk-time" });
    this.controls = h("span", { class: "dk-card-controls" });
    this.bar = h("div", { class: "dk-bar" });
    this.progress = h(
      "div", { class: "dk-progress", role: "progressbar", "aria-label": say("Progress"), "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.stage = h("div", { class: "dk-stage" });
    this.below = h("div", { class: "dk-below" });
    this.announced = h("p", { class: "dk-unseen", role: "status" });
    this.node = h(
      "article", { class: "dk-card", id: `job-${job.id}`, "aria-label": say("Job {id}", { id: job.id.slice(0, 8) }) },
      h("header", { class: "dk-card-head" }, this.state, this.time, this.controls),
      this.progress, this.stage, this.below, this.announced,
    );
    this.draw();
  }

  /** Show the job as it stands. */
  draw() {
    const { job } = this;
    const live = !FINAL.has(job.state);
    this.node.dataset.state = job.state;
    this.state.textContent = stateOf(job);
    this.time.textContent = timeOf(job);
    this.progress.hidden = !live;
    const percent = Math.round((job.progress ?? 0) * 100);
    this.bar.style.width = `${percent}%`;
    this.progress.setAttribute("aria-valuenow", percent);
    const wanted = live ? job.state : "ended";
    if (this.controls.dataset.for !== wanted) this.controls.replaceChildren(...this.buttons(wanted));
    this.controls.dataset.for = wanted;
    title();
  }

  buttons(wanted) {
    const act = (label, how) => button(say(label), () => this.stop(how), { class: "dr-small", "data-act": how });
    if (wanted === "queued") return [act("Cancel", "cancel")];
    if (wanted === "running") return [act("Interrupt", "interrupt"), act("Skip", "skip"), act("Cancel", "cancel")];
    const away = button("×", () => this.remove(), { class: "dr-small", "aria-label": say("Take the card off the page") });
    return [away];
  }

  async stop(how) {
    const path = `/jobs/${this.job.id}`;
    try {
      await (how === "cancel" ? api(path, { method: "DELETE" }) : api(`${path}/${how}`, { method: "POST" }));
    } catch (error) {
      this.time.textContent = error.message;
    }
  }

  remove() {
    this.gone = true;
    this.let?.();
    cards.delete(this.job.id);
    const box = this.node.parentElement;
    this.node.remove();
    rest(box);
  }

  /** Until the job has ended. */
  async follow() {
    while (!FINAL.has(this.job.state) && !this.gone) {
      await withStream((free) => (free ? this.listen() : this.look()));
    }
    if (!this.gone) this.end();
  }

  async look() {
    try {
      this.job = await api(`/jobs/${this.job.id}`);
      this.draw();
    } catch (error) {
      this.time.textContent = error.message;
      this.gone = error.status === 404 || error.status === 410; // removed, or not to be read any more
    }
    if (!FINAL.has(this.job.state) && !this.gone) await new Promise((resolve) => setTimeout(resolve, ASK_MS));
  }

  /** Follow the stream of events to its end. The browser takes a broken one up again where it broke. */
  listen() {
    return new Promise((resolve) => {
      const source = new EventSource(`${base}/jobs/${this.job.id}/events?previews=true`);
      this.source = source;
      const close = () => {
        source.close();
        resolve();
      };
      this.let = close;
      const told = (event) => JSON.parse(event.data);
      for (const name of ["queued", "started"]) source.addEventListener(name, (event) => this.take(told(event)));
      source.addEventListener("progress", (event) => this.take({ state: "running", ...told(event) }));
      source.addEventListener("preview", (event) => this.preview(told(event).image));
      for (const name of FINAL) {
        source.addEventListener(name, (event) => {
          this.take(told(event));
          close();
        });
      }
      source.addEventListener("error", () => {
        if (this.gone) return close();
        this.time.textContent = say("The connection is lost; trying again …");
        // A stream that the server refused is not taken up again by the browser: ask how the job stands.
        if (source.readyState === EventSource.CLOSED) setTimeout(() => this.look().then(close), ASK_MS);
      });
    });
  }

  take(changes) {
    this.job = { ...this.job, ...changes };
    this.draw();
  }

  preview(image) {
    let shown = this.stage.querySelector("img.dk-live");
    if (!shown) {
      shown = h("img", { class: "dk-live", alt: say("Live preview") });
      this.stage.replaceChildren(shown);
    }
    shown.src = image;
  }

  /** Show what came of it. */
  end() {
    const { job } = this;
    this.draw();
    this.announced.textContent = stateOf(job);
    if (job.error) this.below.append(h("p", { class: "dk-error", role: "alert" }, job.error.detail));
    if (job.images?.length) {
      this.show(0);
      document.dispatchEvent(new CustomEvent("darkroom:made"));
    } else {
      this.stage.replaceChildren();
      if (job.kind === "merge" && job.state === "done") this.below.append(merged(job));
      this.below.append(h("div", { class: "dk-card-tools" }, this.requestButton()));
    }
  }

  show(place) {
    const { images } = this.job;
    const image = images[place];
    this.node.dataset.infotext = image.infotext;
    const picture = h("img", {
      src: base + image.url, alt: image.infotext.split("\n")[0].slice(0, 300) || say("Picture"),
      width: image.width, height: image.height, decoding: "async",
    });
    const open = h(
      "button", { type: "button", class: "dk-picture", "aria-label": say("Show the picture in full"), onclick: () => this.open(place) },
      picture,
    );
    this.stage.replaceChildren(open, ...(images.length > 1 ? [this.strip(place)] : []));
    this.below.replaceChildren(this.tools(image), copyable(image.infotext, { id: `text-${image.id}`, label: say("Generation text") }));
  }

  strip(place) {
    const thumbs = this.job.images.map((image, index) =>
      h(
        "button", {
          type: "button", class: "dk-thumb", "aria-pressed": String(index === place),
          "aria-label": say("Picture {n} of {count}", { n: index + 1, count: this.job.images.length }),
          onclick: () => {
            this.show(index);
            this.stage.querySelectorAll(".dk-thumb")[index].focus();
          },
        },
        h("img", { src: base + image.thumbnail, alt: "", loading: "lazy" }),
      ));
    return h("div", { class: "dk-strip", role: "group", "aria-label": say("Pictures") }, ...thumbs);
  }

  tools(image) {
    const labels = new Map(targets().map(({ name, label }) => [name, label]));
    const ways = WAYS.filter((name) => labels.has(name)).map((name) =>
      button(say(labels.get(name)), () => send(image, name), { class: "dr-small", "data-send": name }));
    return h(
      "div", { class: "dk-card-tools" },
      h("span", { class: "dr-label" }, say("Send to")), ...ways,
      button(say("Download"), () => download(base + image.url, fileName(image)), { class: "dr-small" }),
      this.requestButton(),
    );
  }

  requestButton() {
    return button(say("Show request"), () => showRequest(this.job, this.asked), { class: "dr-small", "data-act": "request" });
  }

  open(place) {
    const { images } = this.job;
    details(images[place], {
      neighbour: (image, by) => images[images.findIndex((one) => one.id === image.id) + by],
      changed: (image) => images.splice(images.findIndex((one) => one.id === image.id), 1, image),
      deleted: (image) => {
        images.splice(images.findIndex((one) => one.id === image.id), 1);
        if (images.length) this.show(0);
        else this.remove();
      },
    });
  }
}

function emptyWords(box) {
  return box.dataset.kind === "merge" ? say("The new checkpoint appears here.") : say("Pictures appear here.");
}

function stateOf(job) {
  const words = {
    queued: job.position ? say("Waiting, {count} before it", { count: job.position }) : say("Waiting"),
    running: `${Math.round((job.progress ?? 0) * 100)} %`,
    done: say("Done"),
    interrupted: say("Interrupted"),
    failed: say("Failed"),
    cancelled: say("Cancelled"),
  };
  return words[job.state] ?? job.state;
}

function timeOf(job) {
  if (job.state === "running" && job.eta_s) return say("{time} left", { time: seconds(job.eta_s) });
  if (FINAL.has(job.state) && job.run_s !== null) return seconds(job.run_s);
  return "";
}

function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.round(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** The page's title tells how far the running jobs are. */
function title() {
  const running = [...cards.values()].map((card) => card.job).filter((job) => !FINAL.has(job.state));
  const shares = running.map((job) => job.progress ?? 0);
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  document.title = running.length ? `[${Math.round(mean * 100)} %] Darkroom` : "Darkroom";
}
