// The settings: every option of the server by section, looked for by words, with its default; changed, put back, saved.
//
// Only what is looked at is in the page: a section, or what fits the words. Changes are kept until they are applied.

import { api, button, counted, debounced, field, h, mark, report, statusLine, t } from "./page.js";

const MOST = 60; // options that are shown of a search

/** Options that name something: which list of the API, and which field of its entries. */
const NAMES = {
  sd_model_checkpoint: ["sd-models", "title"], sd_vae: ["sd-vae", "model_name"], sd_hypernetwork: ["hypernetworks", "name"],
  sd_lora: ["loras", "name"], upscaler_for_img2img: ["upscalers", "name"],
};

export function mount(host) {
  return new Settings(host);
}

class Settings {
  constructor(host) {
    this.sections = [];
    this.options = new Map();
    this.values = {};
    this.changes = new Map();
    this.section = 0;
    this.build(host);
    this.load();
  }

  build(host) {
    this.words = h("input", { type: "search", id: "settings-search", autocomplete: "off", oninput: debounced(() => this.show(), 150) });
    this.changed = h("input", { type: "checkbox", id: "settings-changed", onchange: () => this.show() });
    this.steering = h("input", { type: "checkbox", id: "settings-all", onchange: () => this.show() });
    this.choice = h("select", { id: "settings-section", onchange: () => this.open(Number(this.choice.value)) });
    this.menu = h("ul", { class: "dr-menu", id: "settings-menu" });
    this.title = h("h2", { id: "settings-title", tabindex: "-1" });
    this.list = h("div", { class: "dr-options", id: "settings-list" });
    this.apply = button(t("Apply settings"), () => this.save(), { class: "dr-primary", id: "settings-apply" });
    this.discard = button(t("Discard"), () => this.forget(), { id: "settings-discard" });
    this.reset = button(t("Section to defaults"), () => this.resetShown(), { id: "settings-reset-section" });
    const check = (label, box) => h("label", { class: "dr-check" }, box, h("span", {}, label));
    host.replaceChildren(h("div", { class: "dr-page" },
      h("div", { class: "dr-filters", role: "search", "aria-label": t("Search the settings") },
        field(t("Search"), this.words), field(t("Section"), this.choice, { class: "dr-field dr-narrow" }),
        check(t("Only what differs from its default"), this.changed), check(t("Also what has no effect here"), this.steering)),
      h("div", { class: "dr-bar" }, h("div", { class: "dr-actions" }, this.apply, this.discard, this.reset), statusLine("settings-status")),
      h("div", { class: "dr-split" }, h("nav", { "aria-label": t("Sections") }, this.menu), h("section", { "aria-labelledby": "settings-title" }, this.title, this.list))));
  }

  shown() {
    if (!this.changes.size && this.options.size) this.refresh();
  }

  async load() {
    try {
      this.sections = await api("options");
      this.options = new Map(this.sections.flatMap((section) => section.options.map((option) => [option.name, option])));
      this.choice.replaceChildren(...this.sections.map((section, place) => h("option", { value: place }, t(section.title))));
      await this.refresh();
    } catch (error) {
      report(this.list, error.message, "error");
    }
  }

  async refresh() {
    this.values = await api("sdapi/v1/options");
    this.show();
  }

  open(place) {
    this.section = place;
    this.words.value = "";
    this.changed.checked = false;
    this.show();
    this.title.focus();
  }

  value(name) {
    return this.changes.has(name) ? this.changes.get(name) : this.values[name];
  }

  isDefault(option) {
    return same(this.value(option.name), option.default);
  }

  /** The options to show, and what stands above them. */
  wanted() {
    const words = this.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const everywhere = words.length > 0 || this.changed.checked;
    const sections = everywhere ? this.sections : this.sections.slice(this.section, this.section + 1);
    const found = sections.flatMap((section) => section.options.filter((option) =>
      (this.steering.checked || option.steers) && fits(option, section, words) && !(this.changed.checked && this.isDefault(option))));
    if (!everywhere) return { found, title: t(sections[0]?.title ?? "") };
    return { found, title: counted(found.length, mark("1 setting"), mark("{count} settings")) };
  }

  show() {
    const { found, title } = this.wanted();
    this.title.textContent = title;
    this.choice.value = this.section;
    const rows = found.slice(0, MOST).map((option) => this.row(option));
    const rest = found.length - rows.length;
    const more = rest > 0 ? [h("p", { class: "dr-note" }, t("{count} more; search for something narrower.", { count: rest }))] : [];
    const none = found.length ? [] : [h("p", { class: "dr-note" }, t("Nothing here has an effect on this server."))];
    this.list.replaceChildren(...rows, ...more, ...none);
    this.showMenu();
    this.tell();
  }

  showMenu() {
    const everywhere = this.words.value.trim() || this.changed.checked;
    const items = this.sections.map((section, place) => {
      const here = !everywhere && place === this.section;
      const count = section.options.filter((option) => this.steering.checked || option.steers).length;
      if (!count) return null;
      return h("li", {}, h("button", { type: "button", "aria-current": here ? "true" : null, onclick: () => this.open(place) },
        h("span", {}, t(section.title)), h("span", { class: "dr-quiet" }, String(count))));
    });
    this.menu.replaceChildren(...items.filter(Boolean));
  }

  row(option) {
    const id = `settings-${option.name}`;
    const locked = option.fixed || option.frozen !== null;
    const row = h("div", { class: "dr-option", "data-option": option.name });
    const control = editor(option, this.value(option.name), { id, locked, changed: (value) => this.change(option, value, row) });
    const reset = button(t("Reset"), () => this.put(option, option.default), { class: "dr-small", "data-act": "reset", "aria-label": t("Reset {name}", { name: option.name }) });
    const help = h("p", { class: "dr-quiet", id: `${id}-help` }, this.help(option));
    const label = control.localName === "fieldset" ? h("span", { class: "dr-label", id: `${id}-label` }, t(option.about))
      : h("label", { for: id, class: "dr-label" }, t(option.about));
    row.append(h("div", {}, label, h("code", {}, option.name)), h("div", { class: "dr-actions" }, control, locked ? null : reset),
      help, h("p", { class: "dr-problem", id: `${id}-problem`, role: "alert" }));
    control.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
    if (NAMES[option.name] && !locked) this.suggest(option.name, control, row);
    this.mark(option, row);
    return row;
  }

  help(option) {
    const parts = [t("Default: {value}", { value: written(option.default) })];
    if (option.kind === "integer") parts.push(t("a whole number") + range(option));
    if (option.kind === "number") parts.push(t("a number") + range(option));
    if (option.fixed) parts.push(t("Only the operator changes this, in the file of options."));
    else if (option.frozen) parts.push(t("Frozen by the operator: {reason}", { reason: option.frozen }));
    if (!option.steers) parts.push(t("Has no effect on this server; kept for programs that ask for it."));
    return parts.join(" · ");
  }

  /** Names to choose from below a field for a name. */
  async suggest(name, control, row) {
    const [route, key] = NAMES[name];
    const names = (await api(`sdapi/v1/${route}`).catch(() => [])).map((entry) => entry[key]);
    row.append(h("datalist", { id: `settings-${name}-names` }, ...names.map((value) => h("option", { value }))));
    control.setAttribute("list", `settings-${name}-names`);
  }

  change(option, value, row) {
    if (same(value, this.values[option.name])) this.changes.delete(option.name);
    else this.changes.set(option.name, value);
    row.querySelector(".dr-problem").textContent = "";
    this.mark(option, row);
    this.tell();
  }

  /** Have an option be something, and show it. */
  put(option, value) {
    const row = this.list.querySelector(`[data-option="${CSS.escape(option.name)}"]`);
    this.change(option, value, row);
    const fresh = this.row(option);
    row.replaceWith(fresh);
    fresh.querySelector("[data-act=reset]")?.focus();
  }

  mark(option, row) {
    row.toggleAttribute("data-changed", this.changes.has(option.name));
    row.querySelector("[data-act=reset]")?.toggleAttribute("hidden", this.isDefault(option));
  }

  tell() {
    const count = this.changes.size;
    for (const one of [this.apply, this.discard]) one.toggleAttribute("disabled", !count);
    report(this.list, count ? counted(count, mark("1 change is not applied yet"), mark("{count} changes are not applied yet")) : "");
  }

  forget() {
    this.changes.clear();
    this.show();
  }

  resetShown() {
    for (const option of this.wanted().found) {
      if (option.fixed || option.frozen !== null) continue;
      if (same(option.default, this.values[option.name])) this.changes.delete(option.name);
      else this.changes.set(option.name, option.default);
    }
    this.show();
  }

  async save() {
    const changes = Object.fromEntries(this.changes);
    try {
      await api("sdapi/v1/options", { method: "POST", json: changes });
    } catch (error) {
      this.blame(error);
      return;
    }
    const count = this.changes.size;
    this.changes.clear();
    await this.refresh();
    report(this.list, counted(count, mark("1 setting is saved."), mark("{count} settings are saved.")));
    document.dispatchEvent(new CustomEvent("darkroom:lists"));
  }

  /** Say what is wrong beside the option that it is wrong with, where the answer names one. */
  blame(error) {
    const name = [...this.changes.keys()].find((one) => error.message.includes(one));
    const said = t("Nothing is saved: one setting cannot be so.");
    report(this.list, name ? said : error.message, "error");
    if (!name) return;
    const id = `settings-${name}`;
    if (!document.getElementById(id)) {
      this.words.value = name;
      this.show();
      report(this.list, said, "error");
    }
    document.getElementById(`${id}-problem`).textContent = error.message;
    document.getElementById(id).focus();
  }
}

/** The control of an option. `changed` hears of every value. */
function editor(option, value, { id, locked, changed }) {
  const rest = { id, disabled: locked };
  const on = (read) => ({ oninput: (event) => changed(read(event.target)) });
  const bounds = { min: option.low, max: option.high };
  switch (option.kind) {
    case "switch": {
      const box = h("input", { type: "checkbox", role: "switch", ...rest, onchange: (event) => changed(event.target.checked) });
      box.checked = value;
      return box;
    }
    case "integer":
      return h("input", { type: "number", step: "1", ...bounds, ...rest, value, ...on(readNumber) });
    case "number":
      return h("input", { type: "number", step: "any", ...bounds, ...rest, value, ...on(readNumber) });
    case "colour":
      return h("input", { type: "color", ...rest, value, ...on((input) => input.value) });
    case "choice":
      return h("select", { ...rest, onchange: (event) => changed(event.target.value) },
        ...option.choices.map((one) => h("option", { value: one, selected: one === value }, one)));
    case "list":
      return option.choices.length ? boxes(option, value, { id, locked, changed })
        : h("textarea", { rows: Math.min(6, value.length + 1), ...rest, value: value.join("\n"),
          placeholder: t("one per line"), ...on((area) => area.value.split("\n").filter(Boolean)) });
    case "text or null":
      return h("input", { ...rest, value: value ?? "", autocomplete: "off", ...on((input) => input.value || null) });
    default:
      return h("input", { ...rest, value, autocomplete: "off", ...on((input) => input.value) });
  }
}

/** A list of which all entries are known. The order in which they are chosen is the list's. */
function boxes(option, value, { id, locked, changed }) {
  let chosen = [...value];
  return h("fieldset", { id, class: "dr-boxes", disabled: locked, "aria-labelledby": `${id}-label`, tabindex: "-1" },
    ...option.choices.map((one) => h("label", { class: "dr-check" },
      h("input", { type: "checkbox", checked: chosen.includes(one), onchange: (event) => {
        chosen = event.target.checked ? [...chosen, one] : chosen.filter((other) => other !== one);
        changed(chosen);
      } }), h("span", {}, one))));
}

function readNumber(input) {
  return input.value === "" ? "" : Number(input.value);
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function written(value) {
  if (value === null) return t("nothing");
  if (typeof value === "boolean") return value ? t("on") : t("off");
  if (Array.isArray(value)) return value.join(", ") || t("nothing");
  return value === "" ? t("empty") : String(value);
}

function range({ low, high }) {
  if (low === null) return "";
  return high === null ? t(" from {low}", { low }) : t(" from {low} to {high}", { low, high });
}

function fits(option, section, words) {
  const text = `${option.name} ${option.about} ${t(option.about)} ${section.title} ${t(section.title)}`.toLowerCase();
  return words.every((word) => text.includes(word));
}
