// The models: what there is of every kind, with its picture and what is known of it; put into a prompt, or into use.

import { address, api, button, copyable, counted, date, debounced, field, h, mark, openDialog, query, report, size, statusLine, t } from "./page.js";

const KINDS = [
  ["checkpoint", mark("Checkpoints")], ["lora", mark("LoRA")], ["embedding", mark("Embeddings")],
  ["hypernetwork", mark("Hypernetworks")], ["vae", mark("VAE")], ["upscaler", mark("Upscalers")],
  ["face-restorer", mark("Face restorers")],
];
const PAGE = 120; // cards that are shown at once
const OPTIONS = {
  checkpoint: "sd_model_checkpoint", vae: "sd_vae", upscaler: "upscaler_for_img2img", "face-restorer": "face_restoration_model",
};
const RELOADS = ["refresh-checkpoints"]; // looks at the folders of every kind

export function mount(host) {
  return new Models(host);
}

class Models {
  constructor(host) {
    this.models = [];
    this.kind = "checkpoint";
    this.most = PAGE;
    this.build(host);
    this.load();
  }

  build(host) {
    const tabs = h("div", { class: "dr-segments", role: "radiogroup", "aria-label": t("Kind") },
      ...KINDS.map(([kind, label]) => h("label", {},
        h("input", { type: "radio", name: "models-kind", id: `models-kind-${kind}`, checked: kind === this.kind,
          onchange: () => this.choose(kind) }), h("span", {}, t(label)))));
    this.words = h("input", { type: "search", id: "models-search", autocomplete: "off", oninput: debounced(() => this.anew(), 150) });
    this.order = h("select", { id: "models-order", onchange: () => this.anew() },
      ...[["name", t("name")], ["modified_at", t("newest first")], ["bytes", t("largest first")]]
        .map(([value, text]) => h("option", { value }, text)));
    this.target = h("select", { id: "models-target" },
      h("option", { value: "txt2img" }, "txt2img"), h("option", { value: "img2img" }, "img2img"));
    this.where = h("select", { id: "models-where" },
      h("option", { value: "prompt" }, t("Prompt")), h("option", { value: "negative_prompt" }, t("Negative prompt")));
    this.inserting = h("div", { class: "dr-filters" }, field(t("Insert into"), this.target), field(t("Part"), this.where));
    this.more = button(t("Show more"), () => this.showMore(), { id: "models-more", hidden: true });
    this.grid = h("ul", { class: "dr-cards", id: "models-grid", "aria-label": t("Models") });
    host.replaceChildren(h("div", { class: "dr-page" }, tabs,
      h("div", { class: "dr-filters" }, field(t("Search"), this.words), field(t("Order"), this.order), this.inserting,
        h("div", { class: "dr-actions" }, button(t("Reload lists"), () => this.reload(), { id: "models-reload" }))),
      statusLine("models-status"), this.grid, h("div", { class: "dr-actions dr-centre" }, this.more)));
  }

  shown() {
    this.load();
  }

  async load() {
    try {
      this.models = await api("models");
      this.show();
    } catch (error) {
      report(this.grid, error.message, "error");
    }
  }

  async reload() {
    for (const route of RELOADS) await api(`sdapi/v1/${route}`, { method: "POST" });
    await this.load();
    document.dispatchEvent(new CustomEvent("darkroom:lists"));
  }

  choose(kind) {
    this.kind = kind;
    this.anew();
  }

  anew() {
    this.most = PAGE;
    this.show();
  }

  showMore() {
    const first = this.most;
    this.most += PAGE;
    this.show();
    this.grid.children[first]?.querySelector("button").focus();
  }

  show() {
    const words = this.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const order = this.order.value;
    const found = this.models.filter((model) => model.kind === this.kind && fits(model, words));
    if (order === "name") found.sort((a, b) => a.title.localeCompare(b.title));
    else found.sort((a, b) => (b[order] ?? 0) - (a[order] ?? 0));
    this.inserting.hidden = !found.some((model) => model.insert);
    this.grid.replaceChildren(...found.slice(0, this.most).map((model) => this.card(model)));
    this.more.hidden = found.length <= this.most;
    report(this.grid, found.length ? counted(found.length, mark("1 model"), mark("{count} models")) : t("There is none of this kind here."));
  }

  card(model) {
    const picture = model.preview
      ? h("img", { src: address(model.preview), alt: "", loading: "lazy", decoding: "async" })
      : h("span", { class: "dr-initial", "aria-hidden": "true" }, [...model.title][0] ?? "");
    return h("li", { "data-name": model.name, "data-used": model.in_use, class: model.usable ? "" : "dr-lacking" },
      h("div", { class: "dr-cover" }, picture),
      h("div", { class: "dr-title" }, h("strong", {}, model.title), model.in_use ? h("span", { class: "dr-badge" }, t("in use")) : null),
      h("p", { class: "dr-quiet" }, model.lack ?? model.description.split("\n")[0]),
      h("div", { class: "dr-actions" },
        model.insert && button(t("Insert"), (event) => this.insert(model, event.target), { class: "dr-small dr-primary", "data-act": "insert", "aria-label": t("Insert {name}", { name: model.title }) }),
        this.uses(model) && button(t("Use"), (event) => this.use(model, event.target), { class: "dr-small dr-primary", "data-act": "use", "aria-label": t("Use {name}", { name: model.title }) }),
        button(t("Details"), () => details(model), { class: "dr-small", "data-act": "details", "aria-label": t("Details of {name}", { name: model.title }) })));
  }

  uses(model) {
    return model.kind in OPTIONS && !model.in_use && model.usable;
  }

  insert(model, element) {
    const [to, where] = [this.target.value, this.where.value];
    window.darkroom.post("models-insert", { to, where, text: model.insert });
    report(element, t("{text} is in the prompt of {page}.", { text: model.insert, page: to }));
  }

  /** Have every request use it that names no other. */
  async use(model, element) {
    report(element, t("Loading {name} …", { name: model.title }));
    await api("sdapi/v1/options", { method: "POST", json: { [OPTIONS[model.kind]]: model.name } });
    await this.load();
    report(this.grid, t("{name} is in use.", { name: model.title }));
    document.dispatchEvent(new CustomEvent("darkroom:lists"));
  }
}

function fits(model, words) {
  const text = [model.title, model.name, model.filename, model.description, model.activation_text, model.hash].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Everything that is known of a model. */
async function details(model) {
  const rows = [
    [t("Name"), model.name], [t("File"), model.filename], [t("Hash"), model.hash],
    [t("Size"), size(model.bytes)], [t("Changed"), date(model.modified_at)], [t("In a prompt"), model.insert],
    [t("Trained words"), model.activation_text], [t("Cannot be used"), model.lack],
  ].filter(([, value]) => value);
  const metadata = h("div", {});
  openDialog({ id: "model", title: model.title, wide: true },
    h("dl", { class: "dr-list" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])),
    model.description ? h("p", { class: "dr-words" }, model.description) : null, metadata);
  const found = await metadataOf(model);
  if (found) metadata.replaceChildren(h("h3", {}, t("Metadata")), copyable(found, { id: "model-metadata", label: t("Metadata") }));
}

async function metadataOf(model) {
  const found = await api(query("models/metadata", { kind: model.kind, name: model.name })).catch(() => ({}));
  return Object.keys(found).length ? JSON.stringify(found, null, 2) : null;
}
