// One picture in full: what it was made with, its tags, and what can be done with it.

import { address, api, button, confirmed, copyable, date, download, field, fileName, h, openDialog, report, size, t } from "./page.js";
import { read } from "./generation_text.js";
import { send, targets } from "./sending.js";
import { showRequest } from "./show_request.js";
import { withStream } from "./streams.js";

/** Show a picture. `neighbour(image, step)` is the one before or after it; `shown`, `changed` and `deleted` hear of it. */
export function details(image, { neighbour, shown, changed, deleted }) {
  const body = h("div", { class: "dr-details" });
  const dialog = openDialog({ id: "picture", title: t("Picture"), wide: true }, body);
  let current = image;
  const show = (one) => {
    current = one;
    shown?.(one);
    report(body, "");
    body.replaceChildren(stage(one, step), facts(one));
  };
  const step = async (by) => {
    const other = await neighbour(current, by);
    if (other) show(other);
    else report(body, by < 0 ? t("This is the first picture.") : t("This is the last picture."));
  };
  const facts = (one) => h("div", { class: "dr-facts" },
    actions(one, { dialog, deleted }), text(one), tags(one, (tagged) => { current = tagged; changed(tagged); }));
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.target.matches("input, textarea, select, pre")) step(by);
  });
  show(image);
  return dialog;
}

function stage(image, step) {
  return h("div", { class: "dr-stage" },
    h("a", { href: address(image.url), target: "_blank", rel: "noopener", "aria-label": t("Open the file in a new tab") },
      h("img", { src: address(image.url), alt: read(image.infotext).prompt.slice(0, 300), id: "picture-file" })),
    h("div", { class: "dr-actions dr-centre" },
      button("‹", () => step(-1), { "aria-label": t("Newer picture"), id: "picture-newer" }),
      button("›", () => step(1), { "aria-label": t("Older picture"), id: "picture-older" })));
}

function text(image) {
  const rows = [
    [t("Seed"), image.seed], [t("Model"), image.model], [t("Made"), date(image.created_at)],
    [t("Size"), image.width ? `${image.width} × ${image.height}` : null], [t("File"), size(image.bytes)],
    [t("Owner"), image.owner], [t("Job"), image.job_id],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("div", {},
    copyable(image.infotext || t("This picture has no generation text."), { id: "picture-text", label: t("Generation text") }),
    h("dl", { class: "dr-list" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])));
}

function actions(image, { dialog, deleted }) {
  const ways = targets().map(({ name, label }) =>
    button(t(label), () => {
      dialog.close();
      return send(image, name);
    }, { class: "dr-small", id: `picture-send-${name}` }));
  return h("div", {},
    h("div", { class: "dr-actions", role: "group", "aria-label": t("Send to") },
      h("span", { class: "dr-label" }, t("Send to")), ...ways),
    h("div", { class: "dr-actions" },
      button(t("Make again"), async (event) => {
        const job = await api(`jobs/${image.job_id}/rerun`, { method: "POST" });
        report(event.target, t("The job is in the queue again."));
        announce(job);
      }, { id: "picture-rerun" }),
      button(t("Show request"), () => showRequest({ id: image.job_id }), { id: "picture-request" }),
      button(t("Download"), () => download(address(image.url), fileName(image)), { id: "picture-download" }),
      button(t("Delete"), async () => {
        if (!(await confirmed("picture-confirm", t("Delete this picture?"), t("Delete")))) return;
        await deletePicture(image);
        deleted(image);
        dialog.close();
      }, { class: "dr-danger", id: "picture-delete" })));
}

/** Remove a picture; one that somebody else has removed is gone as well. */
export async function deletePicture(image) {
  await api(`images/${image.id}`, { method: "DELETE" }).catch((error) => {
    if (error.status !== 404) throw error;
  });
}

/** Tell the pages when a job has ended that no card follows; without a stream they see it when they are looked at. */
function announce(job) {
  withStream((free) => free && new Promise((resolve) => {
    const stream = new EventSource(address(job.links.events));
    const close = () => {
      stream.close();
      resolve();
    };
    for (const name of ["done", "interrupted", "failed", "cancelled"]) {
      stream.addEventListener(name, () => {
        close();
        document.dispatchEvent(new CustomEvent("darkroom:made"));
      });
    }
    stream.addEventListener("error", close);
  }));
}

function tags(image, changed) {
  const list = h("ul", { class: "dr-tag-list", "aria-label": t("Tags") });
  const entry = h("input", { id: "picture-tag", autocomplete: "off", maxlength: "100" });
  let current = image;
  const put = async (names) => {
    current = await api(`images/${image.id}/tags`, { method: "PUT", json: { tags: names } });
    changed(current);
    show();
  };
  const show = () => list.replaceChildren(...current.tags.map((name) =>
    h("li", {}, name, " ", button("×", () => put(current.tags.filter((other) => other !== name)),
      { class: "dr-small", "aria-label": t("Take away the tag {name}", { name }) }))));
  const add = button(t("Add"), async () => {
    const name = entry.value.trim();
    if (!name) return;
    await put([...new Set([...current.tags, name])]);
    entry.value = "";
    entry.focus();
  }, { id: "picture-tag-add" });
  entry.addEventListener("keydown", (event) => event.key === "Enter" && add.click());
  show();
  return h("div", { class: "dr-tagging" }, list,
    h("div", { class: "dr-actions" }, field(t("New tag"), entry), add));
}

/** A word of a shell's command. */
export function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

