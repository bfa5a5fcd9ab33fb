// Code that the components of a page share: addresses of pictures, undo, the viewer, and the buttons under a picture.
// component.py puts this file in front of a component's own script. All components of a page share one Studio
// (window.studio).

const BASE = location.pathname.replace(/\/[^/]*$/, "");
const FORMATS = ["png", "jpg", "webp"];

const STATE = "studio.state"; // in the tab's session storage: it outlives pages and reloads
const MOST_CHANGES = 60, MOST_SEEN = 200;

// A text that the browser keeps, null for none. A browser may deny its storage, as it does to documents without an
// origin: then nothing is kept, and the page works.
function stored(storage, key) {
  try { return window[storage].getItem(key); } catch { return null; }
}

// Keep a text, or forget it with null.
function store(storage, key, value) {
  try { value === null ? window[storage].removeItem(key) : window[storage].setItem(key, value); } catch { /* denied, or full */ }
}

class Studio extends EventTarget {
  constructor() {
    super();
    const { past = [], future = [], shown = {}, seen = [], deleted = [] } = JSON.parse(stored("sessionStorage", STATE) || "{}");
    this.past = past; // what can be undone: {label, action, page, before, after}, all of it JSON
    this.future = future;
    this.shown = shown; // name of a canvas -> the kept drawing that it shows
    this.seen = seen; // ids of pictures that a canvas has shown
    this.deleted = deleted; // ids of pictures that this tab has deleted: the browser still has them
    this.handlers = { presence: (change) => this.setPresence(change) }; // name of an action -> the function of a component on this page
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  save() { store("sessionStorage", STATE, JSON.stringify({ past: this.past, future: this.future, shown: this.shown, seen: this.seen, deleted: this.deleted })); }

  onKey(event) {
    const typing = event.composedPath()[0].matches?.("input:not([type=checkbox], [type=range], [type=radio]), textarea");
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || typing) return;
    event.preventDefault();
    event.shiftKey ? this.redo() : this.undo();
  }

  // Record a change that was made, so that it can be undone: by the action with `before`, and redone with `after`. The
  // component of this page that offers the action runs it, and otherwise that of `page`.
  did(label, action, page, before, after) {
    this.past.push({ label, action, page, before, after });
    if (this.past.length > MOST_CHANGES) this.past.shift();
    this.future = [];
    this.save();
    this.tell("history");
  }

  async undo() { await this.move(this.past, this.future, "before"); }

  async redo() { await this.move(this.future, this.past, "after"); }

  async move(from, to, direction) {
    const change = from.pop();
    if (!change) return;
    const handler = this.handlers[change.action];
    try {
      await handler?.(change[direction]);
      to.push(change);
      this.note(`${direction === "before" ? "Undone" : "Redone"}: ${change.label}.`);
    } catch (error) {
      this.note(error.message);
    }
    this.save();
    this.tell("history");
    if (!handler) this.actOn(change.action, change[direction], change.page);
  }

  // A kept drawing is on this canvas. Returns the one before it.
  show(canvas, drawing) {
    const before = this.shown[canvas];
    this.shown[canvas] = drawing;
    this.seen = [...this.seen.slice(1 - MOST_SEEN), drawing.pictures[0].id];
    this.save();
    return before;
  }

  tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  note(text, undo = false) { this.tell("note", { text, undo }); }

  url(id, kind = "png", query = "") { return `${BASE}/pictures/file/${id}.${kind}${query && `?${query}`}`; }

  async get(path) { return this.answer(await fetch(`${BASE}/pictures/${path}`)); }

  async post(path, body) {
    const json = !(body instanceof Blob);
    return this.answer(await fetch(`${BASE}/pictures/${path}`, { method: "POST", body: json ? JSON.stringify(body) : body }));
  }

  async answer(response) {
    const body = await response.json();
    if (!response.ok) throw new Error(body.error || `the server answers ${response.status}`);
    return body;
  }

  async remove(ids) {
    await this.setPresence({ ids, deleted: true });
    const label = ids.length === 1 ? "deleted one picture" : `deleted ${ids.length} pictures`;
    this.did(label, "presence", "", { ids, deleted: false }, { ids, deleted: true });
    this.note(`${label[0].toUpperCase()}${label.slice(1)}.`, true);
  }

  // Delete pictures, or bring them back.
  async setPresence({ ids, deleted }) {
    await this.post(deleted ? "delete" : "restore", { ids });
    const others = this.deleted.filter((id) => !ids.includes(id));
    this.deleted = deleted ? [...others, ...ids] : others;
    this.save();
    this.tell(deleted ? "removed" : "restored", { ids });
    this.tell("pictures");
  }

  // Run an action on a picture: here, if a component of this page offers it, and otherwise on `page`.
  act(name, picture, page) {
    if (this.handlers[name]) return this.handlers[name](picture);
    this.actOn(name, picture, page);
  }

  // Go to a page and run the action there.
  actOn(name, value, page) {
    store("sessionStorage", "studio.pending", JSON.stringify({ name, value }));
    this.enter(page);
  }

  enter(page) {
    const link = [...document.querySelectorAll(".st-key-menu a")].find((a) => a.dataset.page === page || a.href.endsWith(`/${page}`));
    const home = document.querySelector(".st-key-menu a");
    if (link) link.click();
    else if (page === "draw" && home) home.click();
    else location.href = `${BASE}/${page === "draw" ? "" : page}`;
  }

  // Register the actions of a component, and run the one that another page asked for.
  offer(handlers) {
    Object.assign(this.handlers, handlers);
    const pending = JSON.parse(stored("sessionStorage", "studio.pending") || "null");
    if (pending && handlers[pending.name]) {
      store("sessionStorage", "studio.pending", null);
      handlers[pending.name](pending.value);
    }
  }

  withdraw(handlers) {
    for (const name in handlers) if (this.handlers[name] === handlers[name]) delete this.handlers[name];
  }
}

const studio = (window.studio ??= new Studio());

// Build an element: make("button", {class: "a", onclick: f}, "text", child).
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const icon = (name) => make("span", { class: "icon", "aria-hidden": "true" }, name);

function iconButton(name, label, onclick, attributes = {}) {
  return make("button", { type: "button", title: label, "aria-label": label, onclick, ...attributes }, icon(name), make("span", { class: "label" }, label));
}

// Keep the buttons of a line in reach on a phone: they float above the menu while the line is out of sight
// (studio_client.css), and a press scrolls back to it. Returns a function that ends this.
function keepInReach(line) {
  const sight = new IntersectionObserver(([{ isIntersecting }]) => line.classList.toggle("away", !isIntersecting));
  sight.observe(line);
  for (const button of line.querySelectorAll("button"))
    button.addEventListener("click", () => { if (line.classList.contains("away")) line.parentElement.scrollIntoView({ block: "start" }); });
  return () => sight.disconnect();
}

// Replace the image of `holder` by a new one once it is decoded, so that nothing flashes. When several calls overlap, the
// latest one wins. Returns true when this image is shown, false when it cannot be read, and null when another call won.
async function swapImage(holder, url) {
  const turn = (holder.turn = (holder.turn ?? 0) + 1);
  const next = holder.image.cloneNode();
  next.src = url;
  next.hidden = false;
  const read = await next.decode().then(() => true, () => false);
  if (holder.turn !== turn) return null;
  if (!read) return false;
  holder.image.replaceWith(next);
  holder.image = next;
  return true;
}

// The buttons under a picture {id, seed, prompt, url, name}. A picture that is not kept has no id and can be saved only as
// PNG.
function pictureButtons(picture, extra = [], without = []) {
  const bar = make("div", { class: "actions", role: "group", "aria-label": `Actions for the picture of seed ${picture.seed ?? "unknown"}` });
  const kept = Boolean(picture.id);
  const save = make("details", { class: "save" }, make("summary", { title: "Download", "aria-label": "Download" }, icon("download"), make("span", { class: "label" }, "Download")));
  const links = (kept ? FORMATS : ["png"]).map((kind) => make("a", { href: kept ? studio.url(picture.id, kind, `download=1`) : picture.url, download: kept ? true : `${picture.name || "picture"}.png` }, kind.toUpperCase()));
  if (kept) links.push(make("a", { href: studio.url(picture.id, "png", "download=1&settings=0"), download: true }, "PNG without settings"));
  save.append(make("div", { class: "menu" }, ...links));
  save.onfocusout = (event) => { if (!save.contains(event.relatedTarget)) save.open = false; };
  save.onkeydown = (event) => { if (event.key === "Escape") save.open = false; };
  save.onclick = (event) => { if (event.target.closest("a")) save.open = false; };
  if (kept) bar.append(
    iconButton("edit", "Edit", () => studio.act("edit", picture, "edit")),
    iconButton("shuffle", "Vary", () => studio.act("vary", picture, "draw")),
    iconButton("photo_size_select_large", "Upscale", () => studio.act("upscale", picture, "edit")),
    iconButton("lock", "Same seed", () => studio.act("seed", picture, "draw")),
  );
  bar.append(save, ...extra);
  for (const button of bar.querySelectorAll("button")) if (without.includes(button.title)) button.remove();
  if (kept) bar.append(iconButton("delete", "Delete", () => studio.remove([picture.id])));
  return bar;
}

// Show one picture large. The arrow keys turn to the others, and Escape closes it.
function openViewer(root, pictures, index) {
  const image = make("img", { alt: "" });
  const words = make("p", { class: "words" });
  const place = make("div", { class: "place" });
  const turn = (by) => { index = (index + by + pictures.length) % pictures.length; show(); };
  const dialog = make("dialog", { class: "viewer", "aria-label": "Picture" },
    iconButton("close", "Close", () => dialog.close(), { class: "close" }),
    iconButton("chevron_left", "Previous picture", () => turn(-1), { class: "previous", hidden: pictures.length < 2 }),
    image,
    iconButton("chevron_right", "Next picture", () => turn(1), { class: "next", hidden: pictures.length < 2 }),
    words, place);
  function show() {
    const picture = pictures[index];
    image.src = picture.id ? studio.url(picture.id) : picture.url;
    image.alt = picture.prompt;
    const when = picture.created ? ` · ${new Date(picture.created * 1000).toLocaleString()}` : "";
    const seed = picture.seed === undefined || picture.seed === null ? "" : ` · seed ${picture.seed}`;
    words.replaceChildren(make("b", {}, picture.prompt || "without a prompt"), make("span", {}, `${index + 1} of ${pictures.length}${seed}${when}`));
    const start = iconButton("add_photo_alternate", "Use as start", () => studio.act("start", picture, "draw"));
    place.replaceChildren(pictureButtons(picture, picture.id ? [start] : []));
  }
  dialog.onkeydown = (event) => {
    if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
    else return;
    event.preventDefault();
  };
  dialog.onclick = (event) => { if (event.target === dialog || event.target.closest(".place button:not([aria-label=Download])")) dialog.close(); };
  dialog.onclose = () => dialog.remove();
  root.append(dialog);
  show();
  dialog.showModal();
}
