// Code that the components of a page share: addresses of pictures, undo, the viewer, and the buttons under a picture.
// component.py puts this file in front of a component's own script. All components of a page share one Studio
// (window.studio).

const BASE = location.pathname.replace(/\/[^/]*$/, "");
const FORMATS = ["png", "jpg", "webp"];

class Studio extends EventTarget {
  constructor() {
    super();
    this.past = []; // what can be undone: {label, undo, redo}
    this.future = [];
    this.handlers = {}; // name of an action -> the function of a component on this page
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const typing = event.composedPath()[0].matches?.("input:not([type=checkbox], [type=range], [type=radio]), textarea");
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || typing) return;
    event.preventDefault();
    event.shiftKey ? this.redo() : this.undo();
  }

  // Record a change that was made, so that it can be undone. Both functions may be async.
  did(label, undo, redo) {
    this.past.push({ label, undo, redo });
    if (this.past.length > 60) this.past.shift();
    this.future = [];
    this.tell("history");
  }

  async undo() { await this.move(this.past, this.future, "undo"); }

  async redo() { await this.move(this.future, this.past, "redo"); }

  async move(from, to, direction) {
    const change = from.pop();
    if (!change) return;
    try {
      await change[direction]();
      to.push(change);
      this.note(`${direction === "undo" ? "Undone" : "Redone"}: ${change.label}.`);
    } catch (error) {
      this.note(error.message);
    }
    this.tell("history");
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
    const remove = async () => {
      await this.post("delete", { ids });
      this.tell("removed", { ids });
      this.tell("pictures");
    };
    const restore = async () => {
      await this.post("restore", { ids });
      this.tell("restored", { ids });
      this.tell("pictures");
    };
    await remove();
    const label = ids.length === 1 ? "deleted one picture" : `deleted ${ids.length} pictures`;
    this.did(label, restore, remove);
    this.note(`${label[0].toUpperCase()}${label.slice(1)}.`, true);
  }

  // Run an action on a picture: here, if a component of this page offers it, and otherwise on `page`.
  act(name, picture, page) {
    if (this.handlers[name]) return this.handlers[name](picture);
    this.actOn(name, picture, page);
  }

  // Go to a page and run the action there.
  actOn(name, picture, page) {
    const { id, seed, prompt } = picture;
    sessionStorage.setItem("studio.pending", JSON.stringify({ name, picture: { id, seed, prompt } }));
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
    const pending = JSON.parse(sessionStorage.getItem("studio.pending") || "null");
    if (pending && handlers[pending.name]) {
      sessionStorage.removeItem("studio.pending");
      handlers[pending.name](pending.picture);
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

// Replace the image of `holder` by a new one once it is decoded, so that nothing flashes. When several calls overlap, the
// latest one wins. Returns whether this image is shown.
async function swapImage(holder, url) {
  const turn = (holder.turn = (holder.turn ?? 0) + 1);
  const next = holder.image.cloneNode();
  next.src = url;
  next.hidden = false;
  try { await next.decode(); } catch { return false; }
  if (holder.turn !== turn) return false;
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
    place.replaceChildren(pictureButtons(picture));
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
