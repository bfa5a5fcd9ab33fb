// The gallery: find, star, sort, select, compare, download, delete and import pictures.
// data: shares (whether everyone sees the visitor's pictures). Triggers: settings (the id of a picture whose settings the
// visitor wants to use), share (true or false).

const PAGE_SIZE = 24; // pictures
const COMPARED = ["prompt", "negative_prompt", "model", "seed", "size", "steps", "guidance_scale", "guidance_interval", "temperature", "order", "mode", "refinement_passes", "candidates", "edit"];

class Wall {
  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(name);
    this.page = 0;
    this.selected = new Map(); // id -> picture, of all pages
    this.pictures = [];
    this.endImport = acceptPictures(root, this.find("input[type=file]"), (files) => this.importFiles(files));
    this.listen();
    this.load();
  }

  listen() {
    const on = (name, event, handler) => { this.find(name)[event] = handler; };
    on(".search", "oninput", () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.turn(0), 200); });
    on(".sort", "onchange", () => this.turn(0));
    for (const name of [".starred", ".everyone"])
      on(name, "onclick", ({ currentTarget }) => { currentTarget.setAttribute("aria-pressed", String(!this.pressed(name))); this.turn(0); });
    on(".share", "onchange", ({ target }) => this.trigger("share", target.checked));
    on(".all", "onclick", () => { for (const picture of this.pictures) this.selected.set(picture.id, picture); this.show(); });
    on(".none", "onclick", () => { this.selected.clear(); this.show(); });
    on(".notes", "onchange", () => this.updateBar());
    on(".compare", "onclick", () => this.compare());
    on(".delete", "onclick", () => this.remove());
    on(".before", "onclick", () => this.turn(this.page - 1));
    on(".after", "onclick", () => this.turn(this.page + 1));
    on(".undo", "onclick", () => studio.undo());
    on(".redo", "onclick", () => studio.redo());
    this.events = { pictures: () => this.load(), history: () => this.updateBar(), removed: ({ detail }) => { for (const id of detail.ids) this.selected.delete(id); } };
    for (const [name, handler] of Object.entries(this.events)) studio.addEventListener(name, handler);
  }

  pressed(name) { return this.find(name).getAttribute("aria-pressed") === "true"; }

  take(data, trigger) {
    this.trigger = trigger;
    this.find(".share").checked = data.shares;
  }

  turn(page) {
    this.page = page;
    this.load();
  }

  async load() {
    const request = (this.loading = {}); // the answer to an earlier request is dropped
    const query = new URLSearchParams({
      search: this.find(".search").value, sort: this.find(".sort").value, starred: this.pressed(".starred") ? "1" : "0",
      everyone: this.pressed(".everyone") ? "1" : "0", offset: this.page * PAGE_SIZE, limit: PAGE_SIZE,
    });
    try {
      const { pictures, count } = await studio.get(`list?${query}`);
      if (this.loading !== request) return;
      this.say("");
      this.count = count;
      if (this.page && !pictures.length) return this.turn(Math.max(0, Math.ceil(count / PAGE_SIZE) - 1));
      this.pictures = pictures.map((picture) => ({ ...picture, seed: picture.settings?.seed }));
      this.show();
    } catch (error) {
      if (this.loading === request) this.say(navigator.onLine && !(error instanceof TypeError) ? error.message : "The server cannot be reached. The gallery is loaded again as soon as it can be.");
      setTimeout(() => this.root.isConnected && this.loading === request && this.load(), 3000);
    }
  }

  show() {
    const wall = this.find(".wall");
    const nothing = this.find(".search").value || this.pressed(".starred") ? "No picture matches." : this.pressed(".everyone") ? "Nobody shares a picture yet." : "Nothing is kept yet: what you draw appears here.";
    wall.replaceChildren(...(this.pictures.length ? this.pictures.map((picture, i) => this.card(picture, i)) : [make("div", { class: "nothing" }, make("b", {}, nothing))]));
    this.updateBar();
  }

  card(picture, i) {
    const words = picture.prompt || "without a prompt";
    const pick = make("input", { type: "checkbox", class: "pick", "aria-label": `Select ${words}`, onchange: ({ target }) => {
      target.checked ? this.selected.set(picture.id, picture) : this.selected.delete(picture.id);
      this.updateBar();
    } });
    pick.checked = this.selected.has(picture.id);
    const star = iconButton("star", picture.starred ? "Remove the star" : "Star", () => this.star(picture, star), { class: "star", "aria-pressed": String(picture.starred) });
    star.lastChild.remove();
    return make("div", { class: "card", role: "listitem" },
      make("button", { type: "button", class: "view", "aria-label": `Open: ${words}`, onclick: () => openViewer(this.root.getRootNode(), this.pictures, i) },
        make("img", { src: studio.url(picture.id, "webp", "thumb=1"), alt: words, loading: "lazy" })),
      pick, star,
      make("div", { class: "words" }, words),
      make("div", { class: "quiet" }, `${new Date(picture.created * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}${picture.seed === undefined ? "" : ` · seed ${picture.seed}`}`),
      picture.settings ? make("button", { type: "button", class: "use", onclick: () => this.trigger("settings", picture.id), title: "Take this picture's prompt, model, seed and settings to the Draw page." }, icon("tune"), "Use these settings") : null);
  }

  async star(picture, button) {
    picture.starred = !picture.starred;
    button.setAttribute("aria-pressed", String(picture.starred));
    button.setAttribute("aria-label", picture.starred ? "Remove the star" : "Star");
    try { await studio.post("star", { ids: [picture.id], on: picture.starred }); } catch (error) { this.say(error.message); }
  }

  updateBar() {
    const number = this.selected.size;
    const hide = (name, hidden) => { this.find(name).hidden = hidden; };
    hide(".all", this.pictures.every(({ id }) => this.selected.has(id)));
    hide(".none", !number);
    this.find(".none").textContent = `Clear selection (${number})`;
    const zip = this.find(".zip");
    hide(".zip", !number);
    hide(".with", !number);
    const notes = this.find(".notes").checked ? "1" : "0";
    const [first] = this.selected.keys();
    if (number === 1) zip.href = studio.url(first, "png", `download=1&settings=${notes}`);
    else zip.href = `${BASE}/pictures/zip?ids=${[...this.selected.keys()].join(",")}&settings=${notes}`;
    zip.lastChild.textContent = number > 1 ? `Download ${number} as ZIP` : "Download";
    hide(".compare", number < 2 || number > 4);
    const own = [...this.selected.values()].filter((picture) => picture.own).length;
    hide(".delete", !own);
    this.find(".delete").lastChild.textContent = `Delete ${own}`;
    this.find(".undo").disabled = !studio.past.length;
    this.find(".redo").disabled = !studio.future.length;
    const pages = Math.ceil((this.count ?? 0) / PAGE_SIZE);
    hide(".pages", pages < 2);
    this.find(".page").textContent = `Page ${this.page + 1} of ${pages}`;
    this.find(".before").disabled = this.page === 0;
    this.find(".after").disabled = this.page + 1 >= pages;
  }

  async remove() {
    const ids = [...this.selected.values()].filter((picture) => picture.own).map(({ id }) => id);
    this.selected.clear();
    try { await studio.remove(ids); } catch (error) { this.say(error.message); }
  }

  async importFiles(files) {
    const failed = [];
    for (const file of files) try { await importPicture(file); } catch (error) { failed.push(error.message); }
    await this.load();
    this.say(failed.join(" "));
  }

  // Show two to four pictures side by side, with the settings that differ in bold.
  compare() {
    const pictures = [...this.selected.values()];
    const text = (value) => (Array.isArray(value) ? value.join(" × ") : String(value ?? ""));
    const values = COMPARED.map((name) => pictures.map((picture) => text(picture.settings?.[name])));
    const column = (picture, i) => make("div", {}, make("img", { src: studio.url(picture.id), alt: picture.prompt }), make("dl", {}, ...COMPARED.flatMap((name, row) => {
      if (values[row].every((value) => !value)) return [];
      const differs = values[row].some((value) => value !== values[row][0]);
      return [make("dt", {}, name.replaceAll("_", " ")), make("dd", { class: differs ? "differs" : null }, values[row][i] || "-")];
    })));
    const dialog = make("dialog", { class: "comparison", "aria-label": "Comparison", onclose: () => dialog.remove() },
      make("div", { class: "pairs", style: `--count: ${pictures.length}` }, ...pictures.map(column)),
      make("button", { type: "button", onclick: () => dialog.close() }, "Close"));
    this.root.getRootNode().append(dialog);
    dialog.showModal();
  }

  say(text) { this.find(".status").textContent = text; }

  leave() {
    this.endImport();
    for (const [name, handler] of Object.entries(this.events)) studio.removeEventListener(name, handler);
  }
}

const walls = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".gallery");
  if (!walls.has(root)) walls.set(root, new Wall(root));
  walls.get(root).take(data, setTriggerValue);
  return () => setTimeout(() => { if (!root.isConnected) { walls.get(root)?.leave(); walls.delete(root); } });
}
