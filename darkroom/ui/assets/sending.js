// Pictures, with what their generation texts say, from wherever they are shown to the pages that take them.
import { board } from "./boards.js";
import { showErrors } from "./errors.js";
import { post } from "./mailbox.js";
import { base } from "./setup.js";

/** Where pictures can be sent: the tab that opens, the tab inside it, the board that takes the picture, and the page
 *  whose controls are filled by the generation text. */
const WAYS = {
  txt2img: { label: "txt2img", tab: "txt2img", fills: "txt2img" },
  img2img: { label: "img2img", tab: "img2img", inner: "img2img-mode-img2img", board: "img2img", fills: "img2img" },
  inpaint: { label: "Inpaint", tab: "img2img", inner: "img2img-mode-inpaint", board: "img2img", fills: "img2img" },
  extras: { label: "Extras", tab: "extras", inner: "extras-mode-single", board: "extras" },
  png_info: { label: "PNG Info", tab: "png_info", board: "png_info" },
};

/** The places that pictures can be sent to: [{name, label}]. */
export function targets() {
  return Object.entries(WAYS).map(([name, { label }]) => ({ name, label }));
}

/** Show a page's tab. */
export function choose(tab) {
  document.getElementById(`tab-${tab}-button`)?.click();
}

/** Give a page a picture, as `/images/{id}` tells of it or as {url | blob, infotext}, and show the page. Its controls
 *  are filled by the generation text. */
export async function send(image, to) {
  const way = WAYS[to.replace("-", "_")];
  if (!way) return;
  choose(way.tab);
  if (way.inner) await chosen(`${way.inner}-button`);
  if (way.board) {
    try {
      await board(way.board).load(image.blob ?? base + image.url, image);
    } catch (error) {
      showErrors(way.tab, [{ field: "", text: error.message }]);
      return;
    }
  }
  if (way.fills && image.infotext) post(`${way.fills}-paste`, { text: image.infotext });
}

/** Press a button of a page that may only just be building itself. */
async function chosen(id) {
  for (let tries = 0; tries < 50; tries += 1) {
    const button = document.getElementById(id);
    if (button) return button.click();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

document.addEventListener("darkroom:send", ({ detail }) => send(detail.image, detail.to));
