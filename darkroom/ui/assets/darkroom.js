// The scripts of the pages: what Gradio's own components do not do. No build step, no dependency.
import { begun } from "./batches.js";
import { sizeOf } from "./boards.js";
import { followed, results, stopNewest } from "./cards.js";
import { clearErrors, showErrors } from "./errors.js";
import { gather, withGathered } from "./gathering.js";
import { mailbox, post } from "./mailbox.js";
import { confirmed, countTokens, fromAddress, lastSeed, readParameters, showCounters } from "./prompt.js";
import { nativeSize, recall, remember } from "./remembering.js";
import { choose, send, targets } from "./sending.js";
import { base, language, say } from "./setup.js";
import { editStyles } from "./styles.js";
import "./tools.js";
import "./library.js";
import "./painter.js";
import "./pictures.js";
import "./png_info.js";
import { setScripts } from "./scripts.js";

/** What a page's handler told: a job to follow, or what the API refused. */
function take(told) {
  if (!told) return;
  const { page, errors, ...rest } = typeof told === "string" ? JSON.parse(told) : told;
  clearErrors(page);
  if (rest.scripts) setScripts(page, rest.scripts);
  if (errors?.length) showErrors(page, errors);
  for (const one of rest.jobs ?? []) followed(page, one);
  if (rest.jobs) begun(page, rest.jobs.map((one) => one.job.id));
}

window.darkroom = {
  base, language, say, take, results, showErrors, clearErrors, mailbox, post, send, targets, choose, gather, withGathered, sizeOf,
  stopNewest, confirmed, countTokens, fromAddress, lastSeed, readParameters, showCounters, recall, remember, nativeSize, editStyles,
};
fromAddress();
document.addEventListener("darkroom:lists", () => document.getElementById("quick-refresh")?.click());

// Gradio calls the page by the browser's language; it is written in ours.
const root = document.documentElement;
const tellLanguage = () => {
  if (root.lang !== language) root.lang = language;
};
tellLanguage();
new MutationObserver(tellLanguage).observe(root, { attributes: true, attributeFilter: ["lang"] });

document.dispatchEvent(new CustomEvent("darkroom:ready"));
