// Prompts to keep under a name.
import { api, button, complain, field, h, openDialog, report } from "./page.js";
import { say } from "./setup.js";

/** A dialog that changes the styles; the prompts of the page can be taken over. */
export async function editStyles(page, [prompt, negative]) {
  const name = h("input", { type: "text", id: "style-name", list: "style-names", autocomplete: "off" });
  const names = h("datalist", { id: "style-names" });
  const positive = h("textarea", { id: "style-prompt", rows: "4" });
  const other = h("textarea", { id: "style-negative_prompt", rows: "4" });
  const body = h("div", { class: "dk-fields" });
  let known = [];

  const load = async () => {
    known = (await api("/sdapi/v1/prompt-styles")).filter((style) => style.prompt !== null);
    names.replaceChildren(...known.map((style) => h("option", { value: style.name })));
  };
  const shown = () => {
    const style = known.find((one) => one.name === name.value);
    if (style) [positive.value, other.value] = [style.prompt ?? "", style.negative_prompt ?? ""];
  };
  const path = () => `/prompt/styles/${encodeURIComponent(name.value.trim())}`;
  const changed = async (words) => {
    await load();
    report(body, words);
    document.getElementById("quick-refresh")?.click();
  };
  name.addEventListener("input", shown);
  body.append(
    field(say("Name"), name), names,
    field(say("Prompt; {prompt} stands for what is written on the page"), positive),
    field(say("Negative prompt"), other),
    h("div", { class: "dr-actions" },
      button(say("Save"), async () => {
        if (!name.value.trim()) return report(body, say("A style needs a name."), "error");
        await api(path(), { method: "PUT", json: { prompt: positive.value, negative_prompt: other.value } });
        return changed(say("The style is saved."));
      }, { class: "dr-primary", id: "style-save" }),
      button(say("Take the prompts of the page"), () => {
        [positive.value, other.value] = [prompt ?? "", negative ?? ""];
      }, { id: "style-take" }),
      button(say("Delete"), async () => {
        await api(path(), { method: "DELETE" });
        [name.value, positive.value, other.value] = ["", "", ""];
        await changed(say("The style is deleted."));
      }, { class: "dr-danger", id: "style-delete" })),
  );
  openDialog({ id: "styles", title: say("Styles") }, body);
  try {
    await load();
  } catch (error) {
    complain(body, error);
  }
}
