// The extensions: what is installed, which version, and what it adds.

import { address, api, counted, h, mark, report, statusLine, t } from "./page.js";

export function mount(host) {
  return new Extensions(host);
}

class Extensions {
  constructor(host) {
    this.list = h("div", { id: "extensions-list" });
    host.replaceChildren(h("div", { class: "dr-page" },
      h("p", { class: "dr-words" }, t("An extension is a Python package that is installed where the server runs. Nothing can be installed or switched on from here: it is code with all the rights of the server.")),
      statusLine("extensions-status"), this.list));
    this.load();
  }

  shown() {
    this.load();
  }

  async load() {
    try {
      this.show(await api("sdapi/v1/extensions"));
    } catch (error) {
      report(this.list, error.message, "error");
    }
  }

  show(extensions) {
    report(this.list, extensions.length ? counted(extensions.length, mark("1 extension"), mark("{count} extensions")) : t("No extension is installed."));
    if (!extensions.length) {
      this.list.replaceChildren();
      return;
    }
    const heads = [t("Name"), t("Version"), t("State"), t("Scripts"), t("Routes")];
    this.list.replaceChildren(h("div", { class: "dr-scroll", tabindex: "0", role: "region", "aria-label": t("Extensions") },
      h("table", { class: "dr-table" },
        h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, ...extensions.map((one) => h("tr", { "data-name": one.name },
          h("th", { scope: "row" }, one.name), h("td", {}, one.version),
          h("td", {}, h("span", { class: "dr-badge" }, one.enabled ? t("on") : t("off"))),
          h("td", {}, (one.scripts ?? []).join(", ")),
          h("td", {}, ...(one.routes ?? []).flatMap((path) => [h("a", { href: address("docs") }, path), " "]))))))));
  }
}
