// What the API refused, in words, beside the control that it is about.
import { h } from "./page.js";
import { inWords } from "./refusals.js";

/** Show errors of a page: [{field, text}]; one about no field of the page stands beside its results. */
export function showErrors(page, errors) {
  clearErrors(page);
  let first = null;
  for (const { field, text } of errors) {
    const control = field ? controlOf(page, field) : null;
    const words = field && !control ? `${field}: ${inWords(text)}` : inWords(text);
    const id = `${page}-error-${field || "page"}`;
    const note = h("p", { class: "dk-error", id, role: "alert", "data-page": page }, words);
    if (control) {
      control.append(note);
      for (const input of control.querySelectorAll("input, textarea")) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", id);
        first ??= input;
      }
    } else {
      (document.getElementById(`${page}-results`) || document.body).prepend(note);
    }
  }
  if (first) {
    for (let box = first.closest(".dk-fold"); box; box = box.parentElement?.closest(".dk-fold")) openFold(box);
    first.closest(".block")?.scrollIntoView({ block: "nearest" });
    if (first.getAttribute("role") !== "combobox") first.focus(); // a list would open over the words
  }
}

/** The control of a field; `init_images[0]` is shown where `init_images` are. */
function controlOf(page, field) {
  const whole = field.replace(/\[.*$/, "");
  return document.getElementById(`${page}-${field}`) ?? document.getElementById(`${page}-${whole}`);
}

/** Take the errors of a page away. */
export function clearErrors(page) {
  for (const note of document.querySelectorAll(`.dk-error[data-page="${page}"]`)) {
    for (const input of note.parentElement.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
    note.remove();
  }
}

function openFold(fold) {
  const button = fold.querySelector(".dk-switch input:not(:checked)") ?? fold.querySelector("button[aria-expanded='false']");
  button?.click();
}
