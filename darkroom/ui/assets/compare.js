// Two pictures against each other: side by side, or one over the other with a slider between them; and in which settings
// they differ.

import { address, button, field, h, openDialog, t } from "./page.js";
import { differences } from "./generation_text.js";

export function compare(first, second) {
  const stage = h("div", { class: "dr-compare", "data-mode": "slider" });
  const picture = (image, name) => h("img", { src: address(image.url), alt: t("Picture {name}", { name }) });
  const range = h("input", { type: "range", min: "0", max: "100", value: "50", id: "compare-slider" });
  const slide = () => stage.style.setProperty("--cut", `${range.value}%`);
  range.addEventListener("input", slide);
  stage.append(
    h("figure", {}, picture(first, "A"), h("figcaption", {}, `A · ${first.seed ?? ""}`)),
    h("figure", {}, picture(second, "B"), h("figcaption", {}, `B · ${second.seed ?? ""}`)),
  );
  const slider = field(t("Where A ends and B begins"), range);
  const mode = button(t("Side by side"), () => {
    const beside = stage.dataset.mode === "slider";
    stage.dataset.mode = beside ? "beside" : "slider";
    slider.hidden = beside;
    mode.textContent = beside ? t("One over the other") : t("Side by side");
  }, { id: "compare-mode" });
  slide();
  const dialog = openDialog({ id: "compare", title: t("Compare"), wide: true }, stage, slider,
    h("div", { class: "dr-actions" }, mode), table(first, second));
  range.focus();
  return dialog;
}

function table(first, second) {
  const rows = differences(first.infotext, second.infotext);
  if (!rows.length) return h("p", {}, t("Both were made with the same settings."));
  return h(
    "div",
    { class: "dr-scroll", tabindex: "0", role: "region", "aria-label": t("In what they differ") },
    h("table", { class: "dr-table", id: "compare-differences" },
      h("thead", {}, h("tr", {}, ...[t("Setting"), "A", "B"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows.map(([name, one, other]) =>
        h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, one), h("td", {}, other))))),
  );
}
