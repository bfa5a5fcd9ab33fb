// The picture that drawings start from (image-to-image), and the share of it that is drawn anew. It outlives the page.

const START_KEY = "studio.start"; // in the tab's session storage: {id, prompt, strength}

class StartPicture {
  constructor(root, { onError, onProgress }) {
    this.find = (name) => root.querySelector(name);
    this.onError = onError;
    this.onProgress = onProgress;
    this.end = acceptPictures(root, this.find(".start-file input"), ([file]) => this.bring(file));
    this.find(".start .strength").oninput = ({ target }) => this.put({ ...this.picture, strength: Number(target.value) });
    this.find(".start .none").onclick = () => this.put(null);
    this.find(".start img").onerror = () => this.put(null); // it was deleted
    this.put(JSON.parse(stored("sessionStorage", START_KEY) || "null"));
  }

  // What a drawing from the picture is asked for with; null without one.
  get message() { return this.picture && { type: "edit", kind: "start", id: this.picture.id, strength: this.picture.strength }; }

  async bring(file) {
    this.onError("");
    this.onProgress("Opening ...");
    try { this.take(await importPicture(file)); } catch (error) { this.onError(error.message); }
    this.onProgress("");
  }

  take({ id, prompt }) { this.put({ strength: 0.8, ...this.picture, id, prompt }); }

  put(picture) {
    this.picture = picture;
    store("sessionStorage", START_KEY, JSON.stringify(picture));
    this.find(".start").hidden = !picture;
    this.find(".start-file").hidden = Boolean(picture);
    if (!picture) return;
    const image = this.find(".start img");
    image.src = studio.url(picture.id, "webp", "thumb=1");
    image.alt = `Start: ${picture.prompt || "a picture"}`;
    this.find(".start .strength").value = picture.strength;
    this.find(".start .share").textContent = `${Math.round(100 * picture.strength)} %`;
  }
}
