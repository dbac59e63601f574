// What came of a merge: the new checkpoint, and putting it into use.

import { api, button, complain, h, t } from "./page.js";

/** An element that tells of a merge that is done; it fills itself. */
export function merged(job) {
  const told = h("div", { class: "dr-merged" });
  api(job.links.result).then((result) => {
    const line = h("p", { role: "status" });
    const use = button(t("Use it"), async () => {
      await api("sdapi/v1/options", { method: "POST", json: { sd_model_checkpoint: result.title } });
      line.textContent = t("{name} is in use.", { name: result.model_name });
      use.remove();
      document.dispatchEvent(new CustomEvent("darkroom:lists"));
    }, { class: "dr-small dr-primary", "data-act": "use" });
    const rows = [[t("Checkpoint"), result.title], [t("File"), result.filename]];
    told.replaceChildren(
      h("dl", { class: "dr-list" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      h("div", { class: "dr-actions" }, use), line);
    document.dispatchEvent(new CustomEvent("darkroom:lists"));
  }).catch((error) => complain(told, error));
  return told;
}
