// The Edit page: a picture, a mask over it, and edits of it. Each result replaces the picture and can be undone.
// data: settings of the next drawings.

const NOTHING_BRUSHED = "Nothing is brushed: paint over what should change.";

class Editor {
  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(name);
    this.picture = null; // {id, prompt, seed, width, height}
    this.connection = new CanvasConnection("edit", {
      onMessage: (message, images) => this.receive(message, images),
      onState: (open, reason) => { this.lost = !open; this.work(false); this.say(open ? "" : reason || "The connection to the server is lost. Reconnecting ...", !open); },
    });
    this.shown = { image: this.find(".picture") };
    this.painter = new MaskPainter(this.find(".stage"), { onChange: () => this.masked() });
    this.endImport = acceptPictures(this.find(".drop"), this.find("input[type=file]"), ([file]) => this.importFile(file));
    this.handlers = {
      edit: (picture) => this.open(picture),
      pick: (picture) => this.open(picture),
      edited: (picture) => this.bringBack(picture),
      upscale: async (picture) => { await this.open(picture); this.say("Choose 2 × or 4 × to upscale the picture."); this.find("[data-factor]").focus(); },
    };
    this.endReach = keepInReach(this.find(".ask"));
    this.listen();
  }

  listen() {
    const on = (name, event, handler) => { this.find(name)[event] = handler; };
    on(".paint", "onclick", () => this.paint());
    on(".stop", "onclick", () => this.connection.send({ type: "stop" }));
    on(".words", "onclick", () => this.edit("words", {}));
    on(".vary", "onclick", () => this.edit("vary", { strength: this.strength, prompt: this.prompt }));
    on(".invert", "onclick", () => this.painter.invert());
    on(".clear", "onclick", () => this.painter.clear());
    on(".undo", "onclick", () => this.undo());
    on(".redo", "onclick", () => this.redo());
    on(".size", "oninput", ({ target }) => { this.painter.size = Number(target.value); });
    on(".softness", "oninput", ({ target }) => { this.painter.softness = Number(target.value); });
    on(".strength", "oninput", () => { this.find(".share").textContent = `${Math.round(100 * this.strength)} %`; });
    on(".pan", "onchange", ({ target }) => this.find(".stage").classList.toggle("panning", target.checked));
    on(".prompt", "onkeydown", (event) => { if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) this.paint(); });
    for (const button of this.root.querySelectorAll("[data-tool]")) button.onclick = () => this.choose(button);
    for (const button of this.root.querySelectorAll("[data-side]"))
      button.onclick = () => this.edit("extend", { side: button.dataset.side, amount: Number(this.find(".amount").value), prompt: this.picture?.prompt });
    const cautions = [[".words", "words"], [".vary", "vary"], ["[data-side]", "extend"]];
    for (const [name, kind] of cautions)
      for (const button of this.root.querySelectorAll(name)) button.onpointerenter = button.onfocus = () => this.check(kind, button.dataset.side);
    for (const button of this.root.querySelectorAll("[data-factor]"))
      button.onclick = () => this.send({ type: "upscale", factor: Number(button.dataset.factor) }, "Upscaling ...");
    this.onKey = (event) => {
      if (event.key === "Escape" && this.busy) this.connection.send({ type: "stop" });
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.paint();
    };
    document.addEventListener("keydown", this.onKey);
    this.onHistory = () => this.masked();
    studio.addEventListener("history", this.onHistory);
  }

  get strength() { return Number(this.find(".strength").value); }

  get prompt() { return this.find(".prompt").value.trim(); }

  take(data) {
    const first = !this.data;
    this.data = data;
    if (first) {
      studio.offer(this.handlers);
      if (!this.picture && !this.opening) this.openLast();
    }
  }

  choose(button) {
    this.painter.tool = button.dataset.tool;
    for (const each of this.root.querySelectorAll("[data-tool]")) each.setAttribute("aria-pressed", String(each === button));
  }

  // Undo the last stroke; where there is none, the last edit.
  undo() { this.painter.strokes.length ? this.painter.undo() : studio.undo(); }

  redo() { this.painter.undone.length ? this.painter.redo() : studio.redo(); }

  async openLast() {
    try {
      const { pictures } = await studio.get("list?limit=1");
      if (pictures.length && !this.picture) await this.open({ ...pictures[0], seed: pictures[0].settings?.seed });
    } catch { /* the page shows that the server cannot be reached */ }
  }

  async importFile(file) {
    this.say("");
    this.showProgress("Opening ...");
    try { await this.open(await importPicture(file)); } catch (error) { this.say(error.message, true); }
    this.showProgress("");
  }

  async open(picture) {
    this.opening = true;
    const before = this.picture;
    await this.put(picture);
    this.find(".prompt").value = picture.prompt ?? "";
    if (before && before.id !== picture.id) this.did("opened another picture", before, picture);
  }

  did(label, before, after) {
    const brief = ({ id, prompt, seed }) => ({ id, prompt, seed });
    studio.did(label, "edited", "edit", brief(before), brief(after));
  }

  // Show the picture of before an edit again, or of after it.
  async bringBack(picture) {
    this.opening = true;
    if (!this.prompt) this.find(".prompt").value = picture.prompt ?? "";
    await this.put(picture);
  }

  async put(picture) {
    if (!(await swapImage(this.shown, studio.url(picture.id)))) return this.say("This picture was deleted.", true);
    this.picture = picture;
    const { image } = this.shown;
    this.find(".stage").hidden = false;
    this.find(".empty").hidden = true;
    this.painter.reset(image.naturalWidth, image.naturalHeight);
    this.size = [image.naturalWidth, image.naturalHeight];
    this.masked();
    this.warn("");
    this.find(".place").replaceChildren(pictureButtons(picture, [], ["Edit", "Vary", "Upscale"]));
  }

  masked() {
    const share = this.picture ? this.painter.share : 0;
    this.painted = share > 0;
    if (this.painted) this.check("paint");
    else if (this.checked === "paint") this.warn("");
    if (this.painted && this.find(".status").textContent === NOTHING_BRUSHED) this.say("");
    const size = this.size ? `${this.size[0]} × ${this.size[1]}` : "";
    this.find(".facts").textContent = this.picture ? `${size} · ${share ? `${Math.max(1, Math.round(100 * share))} % brushed` : "nothing is brushed"}${this.facts ? ` · ${this.facts}` : ""}` : "";
    this.find(".undo").disabled = !this.painter.strokes.length && !studio.past.length;
    this.find(".redo").disabled = !this.painter.undone.length && !studio.future.length;
    for (const button of this.root.querySelectorAll(".paint, .words, .vary, [data-side], [data-factor]")) button.disabled = !this.picture;
    this.find(".words").disabled = !this.picture?.prompt;
    this.find(".words").title = this.picture?.prompt ? `Nothing needs to be brushed. It was drawn as “${this.picture.prompt}”.` : "It is not known after which words the picture was drawn: brush over it instead.";
  }

  paint() {
    if (!this.painted) return this.say(NOTHING_BRUSHED, true);
    this.edit("paint", { mask: this.painter.mask.toDataURL("image/png") });
  }

  // Ask what an edit does not do well, before it is drawn.
  check(kind, side) {
    if (!this.picture || this.busy) return;
    const prompt = kind === "extend" ? this.picture.prompt : this.prompt;
    const more = kind === "extend" ? { side, amount: Number(this.find(".amount").value) } : {};
    if (kind === "paint") Object.assign(more, { brushed: this.painter.share, extent: this.painter.extent.map((share, i) => Math.round(share * this.size[i])) });
    this.checked = kind;
    this.connection.send({ type: "check", kind, id: this.picture.id, settings: this.data.settings, size: this.size, prompt, ...more });
  }

  edit(kind, more) { this.send({ type: "edit", kind, prompt: this.prompt, ...more }, "Starting ..."); }

  send(message, note) {
    if (!this.picture || this.busy) return;
    this.say("");
    if (!this.connection.send({ id: this.picture.id, settings: this.data.settings, ...message })) return this.say("The server cannot be reached. Try again in a moment.", true);
    this.showProgress(note);
    this.work(true);
  }

  async receive(message, images) {
    const { type } = message;
    if (type === "queued" && message.position > 1) this.showProgress(`Waiting: ${message.position - 1} before you`);
    if (type === "step" && this.busy) this.advance(message, images);
    if (type === "caution" && (this.busy || message.kind === this.checked)) this.warn(message.text);
    if (type === "done") await this.done(message);
    if (type === "stopped") { await this.showPicture(); this.showProgress("Stopped. Nothing was kept."); }
    if (type === "error") { await this.showPicture(); this.say(message.message, true); }
  }

  async advance({ step, of }, images) {
    this.showProgress(`Step ${step} of ${of}`);
    const bar = this.find(".progress");
    bar.hidden = false;
    bar.firstElementChild.style.width = `${(100 * step) / of}%`;
    bar.setAttribute("aria-valuenow", Math.round((100 * step) / of));
    if (images.length) await swapImage(this.shown, URL.createObjectURL(images[0]));
  }

  // Replace the picture by the result.
  async done(message) {
    const before = this.picture;
    const after = { ...message.pictures[0], prompt: message.prompt };
    this.work(false);
    const notes = [...(message.reading ?? []), ...message.notes].join(" ");
    if (!after.id) return this.say(notes || "The result could not be kept.", true);
    this.facts = message.facts;
    await this.put(after);
    this.say(notes);
    this.did("an edit", before, after);
    studio.tell("pictures");
  }

  async showPicture() {
    this.work(false);
    if (this.picture) await swapImage(this.shown, studio.url(this.picture.id));
  }

  work(busy) {
    this.busy = busy;
    this.find(".stop").hidden = !busy;
    this.find(".paint").hidden = busy;
    if (!busy) { this.find(".progress").hidden = true; this.showProgress(""); }
    this.root.toggleAttribute("aria-busy", busy);
  }

  warn(text) { this.find(".caution").textContent = text; }

  showProgress(text) { this.find(".pill").textContent = text; }

  say(text, isError = false) {
    this.find(".status").textContent = text;
    this.find(".status").classList.toggle("error", isError);
  }

  leave() {
    this.connection.close();
    this.endImport();
    this.endReach();
    document.removeEventListener("keydown", this.onKey);
    studio.removeEventListener("history", this.onHistory);
    studio.withdraw(this.handlers);
  }
}

const editors = new WeakMap();

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".editor");
  if (!editors.has(root)) editors.set(root, new Editor(root));
  const editor = editors.get(root);
  editor.take(data);
  return () => setTimeout(() => { if (!root.isConnected) { editor.leave(); editors.delete(root); } });
}
