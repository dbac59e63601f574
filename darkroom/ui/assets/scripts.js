// <darkroom-scripts data-page="img2img">: the scripts that a request may name, each with a panel made of what
// /sdapi/v1/script-info tells of its arguments, and the always-on scripts.
//
// What was set is kept per page, whether the element is on show or not.
import { gathers } from "./gathering.js";
import { api, h } from "./page.js";
import { choicesOf } from "./script_choices.js";
import { say } from "./setup.js";

const NONE = "";
const TITLES = {
  "x/y/z plot": "X/Y/Z plot",
  "sd upscale": "SD upscale",
  "img2img alternative test": "img2img alternative test",
};
/** Scripts whose arguments are controls of the page anyway. */
const ELSEWHERE = new Set(["refiner", "sampler", "seed", "extra options"]);
const PLOT = "x/y/z plot";
const USE_TEXT = 17;

class State {
  chosen = NONE;
  #values = new Map();
  #info = null;

  constructor(page) {
    this.page = page;
  }

  async scripts() {
    this.#info ??= api("/sdapi/v1/script-info").catch((error) => {
      this.forget();
      throw error;
    });
    const found = await this.#info;
    return found.filter((one) => one.is_img2img === (this.page === "img2img"));
  }

  /** Have the server asked again: what can be chosen from has changed. */
  forget() {
    this.#info = null;
  }

  /** The arguments of a script as they stand. */
  values(script) {
    const key = `${script.is_alwayson} ${script.name}`;
    if (!this.#values.has(key)) this.#values.set(key, script.args.map((one) => structuredClone(one.value)));
    return this.#values.get(key);
  }

  /** The part of a request that names scripts. */
  async gathered() {
    if (this.chosen === NONE && !this.#values.size) return null;
    const scripts = await this.scripts();
    const chosen = scripts.find((one) => !one.is_alwayson && one.name === this.chosen);
    const changed = scripts.filter((one) => one.is_alwayson && !same(this.values(one), one.args.map((arg) => arg.value)));
    return {
      script_name: chosen ? titleOf(chosen) : null,
      script_args: chosen ? this.values(chosen) : [],
      alwayson_scripts: Object.fromEntries(changed.map((one) => [titleOf(one), { args: this.values(one) }])),
    };
  }

  /** Take over what a request says of scripts. */
  async set({ script_name, script_args, alwayson_scripts }) {
    const scripts = await this.scripts();
    this.chosen = (script_name ?? NONE).toLowerCase();
    const given = new Map([[`false ${this.chosen}`, script_args ?? []]]);
    for (const [title, { args }] of Object.entries(alwayson_scripts ?? {})) given.set(`true ${title.toLowerCase()}`, args);
    this.#values.clear();
    for (const one of scripts) {
      const args = given.get(`${one.is_alwayson} ${one.name}`) ?? [];
      args.slice(0, one.args.length).forEach((value, place) => (this.values(one)[place] = value));
    }
  }
}

const states = new Map(["txt2img", "img2img"].map((page) => [page, new State(page)]));
for (const [page, state] of states) gathers(page, "scripts", () => state.gathered());

/** Set a page's scripts as a request names them; nothing named is none. */
export async function setScripts(page, request) {
  await states.get(page)?.set(request);
  for (const one of document.querySelectorAll(`darkroom-scripts[data-page="${page}"]`)) one.show();
}

class Scripts extends HTMLElement {
  #panel = h("div", { class: "dk-script" });

  connectedCallback() {
    if (!this.childElementCount) this.show();
  }

  get #state() {
    return states.get(this.dataset.page);
  }

  async show() {
    let scripts;
    try {
      scripts = await this.#state.scripts();
    } catch (error) {
      this.replaceChildren(h("p", { class: "dk-error", role: "alert" }, error.message));
      return;
    }
    const shown = scripts.filter((one) => one.is_alwayson && one.args.length && !ELSEWHERE.has(one.name));
    const alwaysOn = shown.map((one) =>
      h("details", { class: "dk-script-part" }, h("summary", {}, say(titleOf(one))), this.#panelOf(one)),
    );
    this.replaceChildren(...alwaysOn, this.#picker(scripts), this.#panel);
    this.#showChosen(scripts);
  }

  #picker(scripts) {
    const id = `${this.dataset.page}-script_name`;
    const entries = scripts.filter((one) => !one.is_alwayson).map((one) => option(one.name, say(titleOf(one))));
    const select = h("select", { id: `${id}-choice` }, option(NONE, say("None")), ...entries);
    select.value = this.#state.chosen;
    select.addEventListener("change", () => {
      this.#state.chosen = select.value;
      this.#showChosen(scripts);
    });
    return field(id, say("Script"), select);
  }

  #showChosen(scripts) {
    const script = scripts.find((one) => !one.is_alwayson && one.name === this.#state.chosen);
    this.#panel.replaceChildren(...(script ? [script.name === PLOT ? this.#plot(script) : this.#panelOf(script)] : []));
  }

  #panelOf(script) {
    const values = this.#state.values(script);
    const controls = script.args.map((arg, place) => this.#control(script, arg, place, values));
    return h("div", { class: "dk-script-panel" }, ...controls);
  }

  #control(script, arg, place, values) {
    const id = this.#id(script, place);
    const set = (value) => (values[place] = value);
    if (!arg.label) return h("p", { class: "dk-script-note" }, say(String(arg.value)));
    const label = say(arg.label.replaceAll("`", ""));
    if (Array.isArray(arg.value)) return several(id, label, arg.choices, values[place], set);
    if (arg.choices) return chosen(id, label, arg.choices, values[place], set);
    if (typeof arg.value === "boolean") return toggle(id, label, values[place], set);
    if (typeof arg.value === "number") return number(id, label, arg, values[place], set);
    return lines(id, label, values[place], set, script.name.startsWith("prompts from file"));
  }

  #id(script, place) {
    const name = script.name.replaceAll(/\W+/g, "_");
    return script.is_alwayson ? `${this.dataset.page}-${name}-${place}` : `${this.dataset.page}-script_args[${place}]`;
  }

  /** X/Y/Z plot: three axes, whose values are picked where there is something to pick from. */
  #plot(script) {
    const values = this.#state.values(script);
    const box = h("div", { class: "dk-script-panel" });
    const draw = () => {
      const axes = [0, 3, 6].map((place) => this.#axis(script, place, values, draw));
      const rest = script.args.slice(9).map((arg, after) => {
        const control = this.#control(script, arg, 9 + after, values);
        if (9 + after === USE_TEXT) control.addEventListener("change", draw);
        return control;
      });
      const swaps = [[0, 3, say("Swap X and Y")], [3, 6, say("Swap Y and Z")], [0, 6, say("Swap X and Z")]].map(([one, other, text]) =>
        tool(text, () => {
          for (let step = 0; step < 3; step += 1) {
            [values[one + step], values[other + step]] = [values[other + step], values[one + step]];
          }
          draw();
        }),
      );
      box.replaceChildren(...axes, h("div", { class: "dk-script-tools" }, ...swaps), ...rest);
    };
    draw();
    return box;
  }

  #axis(script, place, values, draw) {
    const [type, text] = script.args.slice(place, place + 2);
    const kind = chosen(this.#id(script, place), say(type.label), type.choices, values[place], (value) => {
      values[place] = value;
      values[place + 2] = null;
      draw();
    });
    const row = h("div", { class: "dk-script-axis" }, kind);
    if (values[place] === "Nothing") return row;
    const id = this.#id(script, place + 1);
    const written = () => lines(id, say(text.label), values[place + 1], (value) => (values[place + 1] = value));
    const fill = (known) => {
      if (values[USE_TEXT]) values[place + 1] = known.map(quoted).join(", ");
      else values[place + 2] = [...known];
      draw();
    };
    const slot = h("div", { class: "dk-script-axis-values" });
    row.append(slot);
    choicesOf(values[place]).then(
      (known) => {
        if (!known) slot.append(written());
        else if (values[USE_TEXT]) slot.append(written(), tool(say("Fill"), () => fill(known)));
        else {
          const label = say(script.args[place + 2].label);
          const picked = several(id, label, known, values[place + 2] ?? [], (value) => (values[place + 2] = value));
          slot.append(picked, tool(say("Fill"), () => fill(known)));
        }
      },
      (error) => slot.append(written(), h("p", { class: "dk-error" }, error.message)),
    );
    return row;
  }
}

function titleOf(script) {
  return TITLES[script.name] ?? script.name.charAt(0).toUpperCase() + script.name.slice(1);
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function quoted(text) {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function option(value, text) {
  return h("option", { value }, text);
}

function tool(text, act) {
  return h("button", { type: "button", class: "dk-small-button", onclick: act }, text);
}

function field(id, label, control, ...more) {
  return h("div", { class: "dk-script-field", id }, h("label", { for: control.id }, label), control, ...more);
}

function chosen(id, label, choices, value, set) {
  const select = h("select", { id: `${id}-choice` }, ...choices.map((one) => option(one, say(one))));
  select.value = value;
  if (select.selectedIndex < 0 && choices.length) {
    select.selectedIndex = 0;
    set(select.value);
  }
  select.addEventListener("change", () => set(select.value));
  return field(id, label, select);
}

function toggle(id, label, value, set) {
  const box = h("input", { type: "checkbox", id: `${id}-switch` });
  box.checked = value;
  box.addEventListener("change", () => set(box.checked));
  return h("div", { class: "dk-script-field dk-script-switch", id }, box, h("label", { for: box.id }, label));
}

function number(id, label, { minimum, maximum, step }, value, set) {
  const given = { min: minimum, max: maximum, step: step ?? "any" };
  const exact = h("input", { type: "number", id: `${id}-number`, ...given, step: "any" });
  exact.value = value;
  const ranged = minimum !== null && maximum !== null;
  const slider = ranged ? h("input", { type: "range", "aria-label": label, ...given }) : null;
  if (slider) slider.value = value;
  const take = (from, to) => () => {
    if (from.value === "" || !from.checkValidity()) return;
    set(Number(from.value));
    if (to) to.value = from.value;
  };
  exact.addEventListener("input", take(exact, slider));
  slider?.addEventListener("input", take(slider, exact));
  return field(id, label, exact, slider);
}

function lines(id, label, value, set, fromFile = false) {
  const text = h("textarea", { id: `${id}-text`, rows: fromFile ? 6 : 2 });
  text.value = value ?? "";
  text.addEventListener("input", () => set(text.value));
  if (!fromFile) return field(id, label, text);
  const input = h("input", { type: "file", accept: ".txt,text/plain", hidden: true, "aria-label": label });
  input.addEventListener("change", async () => {
    text.value = (await input.files[0]?.text()) ?? text.value;
    set(text.value);
  });
  return field(id, label, text, input, tool(say("Open a text file"), () => input.click()));
}

function several(id, label, choices, value, set) {
  const boxes = choices.map((one) => {
    const box = h("input", { type: "checkbox", value: one });
    box.checked = value.includes(one);
    return box;
  });
  const tell = () => set(boxes.filter((box) => box.checked).map((box) => box.value));
  const entries = boxes.map((box) => h("label", { onchange: tell }, box, say(box.value)));
  return h(
    "fieldset",
    { class: "dk-script-field dk-script-several", id },
    h("legend", {}, label),
    h("div", { class: "dk-script-choices" }, ...entries),
  );
}

document.addEventListener("darkroom:lists", () => {
  for (const state of states.values()) state.forget();
  for (const one of document.querySelectorAll("darkroom-scripts")) one.show();
});
customElements.define("darkroom-scripts", Scripts);
