// The elements that the pages of lists consist of. Each is loaded when it is first seen, so that none of them holds up
// the first page; `shown` and `hidden` tell it whether somebody looks at it.

const MODULES = {
  "darkroom-gallery": "./gallery.js",
  "darkroom-jobs": "./jobs.js",
  "darkroom-models": "./models.js",
  "darkroom-settings": "./settings.js",
  "darkroom-extensions": "./extensions.js",
  "darkroom-api": "./api.js",
};

class LazyPage extends HTMLElement {
  #page = null;
  #seen = false;
  #observer = new IntersectionObserver((entries) => this.#look(entries.at(-1).isIntersecting));

  connectedCallback() {
    this.#observer.observe(this);
  }

  disconnectedCallback() {
    this.#observer.unobserve(this);
    this.#look(false);
  }

  async #look(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    if (!this.#page) {
      if (!seen) return;
      this.#page = import(MODULES[this.localName]).then((module) => module.mount(this));
      await this.#page;
      return;
    }
    const page = await this.#page;
    if (seen) page.shown?.();
    else page.hidden?.();
  }
}

for (const name of Object.keys(MODULES)) customElements.define(name, class extends LazyPage {});
