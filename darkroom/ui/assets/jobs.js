// The jobs: what waits, what is at work and how far it is, what came of it; stopped, made again, removed.
//
// The list is asked for when the page is seen and when something has happened. What is at work is followed by server-sent
// events, a few at a time; see streams.js.

import { showJob } from "./gallery.js";
import { read } from "./generation_text.js";
import { address, api, button, complain, confirmed, counted, date, debounced, duration, field, h, mark, openPage, ownerFilter, query, report, statusLine, t } from "./page.js";
import { showRequest } from "./show_request.js";
import { withStream } from "./streams.js";

const PAGE = 50;
const FOLLOWED = 2;
const THUMBS = 8;
const LOOK_MS = 10_000; // for jobs that others bring
const SOON_MS = 2_000; // for those that are at work and not followed

const STATES = {
  queued: mark("waiting"), running: mark("at work"), done: mark("done"), interrupted: mark("interrupted"),
  failed: mark("failed"), cancelled: mark("cancelled"),
};
const SHOWN = { all: [], active: ["queued", "running"], done: ["done", "interrupted"], failed: ["failed", "cancelled"] };
const KINDS = ["txt2img", "img2img", "extras", "interrogate", "merge", "generate", "generations", "edits"];

export function mount(host) {
  return new Jobs(host);
}

class Jobs {
  constructor(host) {
    this.rows = new Map();
    this.streams = new Map();
    this.next = null;
    this.build(host);
    this.shown();
  }

  build(host) {
    const refresh = () => this.restart();
    const choose = (name, label, choices) => field(label,
      h("select", { name, id: `jobs-${name}`, onchange: refresh },
        ...choices.map(([value, text]) => h("option", { value }, text))));
    this.form = h("form", { class: "dr-filters", "aria-label": t("Which jobs are shown") },
      choose("state", t("State"), [["all", t("all")], ["active", t("waiting or at work")], ["done", t("with pictures")],
        ["failed", t("failed or cancelled")]]),
      choose("kind", t("Kind"), [["", t("all")], ...KINDS.map((kind) => [kind, kind])]),
      field(t("Model"), h("input", { name: "model", id: "jobs-model", autocomplete: "off", oninput: debounced(refresh) })),
      h("div", { class: "dr-actions" }, button(t("Refresh"), refresh, { id: "jobs-refresh" })));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    ownerFilter("jobs-owner", debounced(refresh)).then((one) => one && this.form.lastElementChild.before(one));
    this.list = h("ul", { class: "dr-rows", id: "jobs-list", "aria-label": t("Jobs") });
    this.more = button(t("Show more"), () => this.load(this.next), { id: "jobs-more", hidden: true });
    host.replaceChildren(h("div", { class: "dr-page" }, this.form, statusLine("jobs-status"), this.list,
      h("div", { class: "dr-actions dr-centre" }, this.more)));
  }

  shown() {
    this.refresh();
    this.timer ??= setInterval(() => document.hidden || this.refresh(), LOOK_MS);
  }

  hidden() {
    clearInterval(this.timer);
    clearTimeout(this.soon);
    this.timer = null;
    for (const id of [...this.streams.keys()]) this.unfollow(id);
  }

  /** Begin anew with what the form asks for. */
  restart() {
    for (const [id, row] of this.rows) this.drop(id, row);
    this.next = null;
    return this.refresh();
  }

  async refresh() {
    await this.load(null);
  }

  /** Ask for jobs: the newest, or those before one. */
  async load(before) {
    const { state, kind, model, owner = "" } = Object.fromEntries(new FormData(this.form));
    const wanted = { state: SHOWN[state], kind, model: model.trim(), owner: owner.trim() };
    const question = (this.question = JSON.stringify(wanted));
    try {
      const found = await api(query("jobs", { ...wanted, before, limit: PAGE, pictures: true }));
      if (question !== this.question) return; // somebody has asked for something else meanwhile
      this.show(found.jobs, { keep: Boolean(before) });
      if (before || !this.next || this.rows.size <= PAGE) this.next = found.next;
      this.more.hidden = !this.next;
      if (!this.rows.size) report(this.list, t("No jobs."));
      else if (!before) this.tell(found.jobs);
    } catch (error) {
      complain(this.list, error);
    }
  }

  tell(jobs) {
    const count = (state) => jobs.filter((job) => job.state === state).length;
    report(this.list, t("{running} at work, {queued} waiting", { running: count("running"), queued: count("queued") }));
  }

  show(jobs, { keep }) {
    if (!keep && this.rows.size <= PAGE) {
      const known = new Set(jobs.map((job) => job.id));
      for (const [id, row] of this.rows) if (!known.has(id)) this.drop(id, row);
    }
    for (const job of jobs) {
      const row = this.rows.get(job.id);
      if (row) row.update(job);
      else this.rows.set(job.id, new Row(job, this));
    }
    this.sort();
    this.follow();
  }

  /** The newest first. An element that is in its place is left there, with the keyboard in it. */
  sort() {
    const wanted = [...this.rows.values()].sort((a, b) => b.job.submitted_at - a.job.submitted_at);
    wanted.forEach((row, place) => {
      if (this.list.children[place] !== row.element) this.list.insertBefore(row.element, this.list.children[place] ?? null);
    });
  }

  drop(id, row) {
    this.unfollow(id);
    row.element.remove();
    this.rows.delete(id);
  }

  /** Follow what is at work, as far as there are streams; the rest is looked at again soon. */
  follow() {
    const rank = { running: 0, queued: 1 };
    const live = [...this.rows.values()].map((row) => row.job).filter((job) => job.state in rank);
    live.sort((a, b) => rank[a.state] - rank[b.state] || a.submitted_at - b.submitted_at);
    const wanted = new Set(live.slice(0, FOLLOWED).map((job) => job.id));
    for (const id of this.streams.keys()) if (!wanted.has(id)) this.unfollow(id);
    for (const id of wanted) {
      if (this.streams.has(id)) continue;
      this.streams.set(id, null);
      withStream((free) => (free && this.streams.has(id) ? this.listen(id) : this.unfollow(id)));
    }
    clearTimeout(this.soon);
    if (live.length > FOLLOWED || [...wanted].some((id) => !this.streams.get(id))) {
      this.soon = setTimeout(() => this.timer && this.refresh(), SOON_MS);
    }
  }

  /** A promise that lasts as long as the stream. */
  listen(id) {
    return new Promise((resolve) => {
      const stream = new EventSource(address(`jobs/${id}/events`));
      this.streams.set(id, () => {
        stream.close();
        resolve();
      });
      const heard = (act) => (event) => this.rows.has(id) && act(JSON.parse(event.data));
      stream.addEventListener("progress", heard((data) => this.rows.get(id).progress(data)));
      stream.addEventListener("started", heard((job) => this.rows.get(id).update(job)));
      for (const name of ["done", "interrupted", "failed", "cancelled"]) {
        stream.addEventListener(name, heard((job) => {
          this.unfollow(id);
          this.rows.get(id).update(job);
          this.refresh();
        }));
      }
      stream.addEventListener("error", () => stream.readyState === EventSource.CLOSED && this.unfollow(id));
    });
  }

  unfollow(id) {
    this.streams.get(id)?.();
    this.streams.delete(id);
  }
}

/** A job in the list. */
class Row {
  constructor(job, jobs) {
    this.jobs = jobs;
    this.bar = h("progress", { max: "1", "aria-label": t("Progress") });
    this.line = h("span", { class: "dr-line" });
    this.title = h("div", { class: "dr-title" });
    this.problem = h("p", { class: "dr-problem" });
    this.actions = h("div", { class: "dr-actions" });
    this.words = h("p", { class: "dr-words dr-short" });
    this.thumbs = h("div", { class: "dr-thumbs" });
    this.element = h("li", { "data-job": job.id }, this.title, this.words, this.thumbs, this.bar, this.line, this.problem,
      this.actions);
    this.update(job);
  }

  update(job) {
    const changed = this.job?.state !== job.state;
    // A list is a look at one moment, a stream is newer: progress never goes back within one attempt.
    const kept = !changed && this.job?.attempts === job.attempts ? Math.max(this.job.progress, job.progress) : job.progress;
    this.job = { ...job, progress: kept };
    this.element.dataset.state = job.state;
    this.title.replaceChildren(
      h("span", { class: "dr-badge" }, t(STATES[job.state] ?? job.state)), h("strong", {}, job.kind),
      h("span", {}, job.model ?? ""), h("span", { class: "dr-quiet" }, date(job.submitted_at)),
      ...(job.owner ? [h("span", { class: "dr-quiet" }, job.owner)] : []));
    this.problem.textContent = job.error?.detail ?? "";
    this.problem.hidden = !job.error || job.state === "cancelled";
    this.tell();
    if (changed) this.offer();
    if (job.images.length && !this.thumbs.childElementCount) this.picture(job.images);
  }

  picture(images) {
    this.words.textContent = read(images[0].infotext).prompt;
    this.thumbs.replaceChildren(...images.slice(0, THUMBS).map((image) =>
      h("img", { src: address(image.thumbnail), alt: "", loading: "lazy", decoding: "async" })));
  }

  progress({ progress, eta_s }) {
    Object.assign(this.job, { progress, eta_s });
    this.tell();
  }

  tell() {
    const { state, progress, position, eta_s, run_s, wait_s } = this.job;
    this.bar.hidden = state !== "running";
    this.bar.value = progress;
    const parts = {
      queued: [position === null ? null : position ? counted(position, mark("1 job is before it"), mark("{count} jobs are before it")) : t("next")],
      running: [`${Math.floor(progress * 100)} %`, eta_s === null ? null : t("{time} left", { time: duration(eta_s) })],
    }[state] ?? [run_s === null ? null : t("took {time}", { time: duration(run_s) }), t("waited {time}", { time: duration(wait_s) })];
    this.line.textContent = parts.filter(Boolean).join(" · ");
  }

  offer() {
    const { id, state, kind } = this.job;
    const live = state === "queued" || state === "running";
    const at = (path, options) => async () => {
      const job = await api(`jobs/${id}${path}`, options);
      if (this.jobs.rows.has(id)) this.update(job);
      await this.jobs.refresh();
    };
    const small = (label, act, given = {}) => button(label, act, { class: `dr-small ${given.class ?? ""}`, "data-act": given.act });
    const had = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(...[
      state === "running" && small(t("Interrupt"), at("/interrupt", { method: "POST" }), { act: "interrupt" }),
      live && small(t("Cancel"), at("", { method: "DELETE" }), { act: "cancel" }),
      (state === "done" || state === "interrupted") && kind !== "interrogate" && kind !== "merge"
        && small(t("Pictures"), () => this.pictures(), { act: "pictures" }),
      !live && small(t("Make again"), () => this.again(), { act: "rerun" }),
      small(t("Show request"), () => showRequest(this.job), { act: "request" }),
      !live && small(t("Remove"), () => this.remove(), { act: "remove", class: "dr-danger" }),
    ].filter(Boolean));
    if (had) this.actions.querySelector("button")?.focus();
  }

  pictures() {
    showJob(this.job.id);
    openPage("gallery");
  }

  async again() {
    await api(`jobs/${this.job.id}/rerun`, { method: "POST" });
    await this.jobs.refresh();
  }

  async remove() {
    const sure = await confirmed("jobs-confirm", t("Remove this job with its pictures?"), t("Remove"));
    if (!sure) return;
    await api(query(`jobs/${this.job.id}`, { forget: true }), { method: "DELETE" });
    this.jobs.drop(this.job.id, this);
  }
}
