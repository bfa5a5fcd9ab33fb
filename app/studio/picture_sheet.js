// The pictures of one drawing. While it is drawn, tiles cover the tokens that are not sampled yet; then the pictures have
// their buttons. An image is replaced only once the next one is decoded, so that nothing flashes.

const TILE = { masked: [128, 120, 108, 255], sampled: [226, 103, 63, 90] };

class PictureSheet {
  constructor(root, { onReplay }) {
    this.root = root;
    this.onReplay = onReplay;
    this.figures = [];
    this.result = null; // {job, pictures, prompt, facts, notes, size, draft}
    this.previewed = new Set(); // rows that show a preview
  }

  empty(title, hint) {
    this.figures = [];
    this.root.className = "sheet";
    this.root.replaceChildren(make("div", { class: "blank" }, make("b", {}, title), make("span", {}, hint)));
  }

  // Make `number` figures of this size.
  layout(number, [width, height]) {
    if (this.figures.length !== number) {
      this.figures = Array.from({ length: number }, () => this.figure());
      this.root.replaceChildren(...this.figures.map(({ node }) => node));
      this.root.className = `sheet${number > 4 ? " lots" : number > 1 ? " many" : ""}`;
    }
    for (const figure of this.figures) figure.view.style.aspectRatio = `${width} / ${height}`;
  }

  figure() {
    const image = make("img", { alt: "", hidden: true });
    const tiles = make("canvas");
    const view = make("button", { type: "button", class: "view", "aria-label": "Enlarge the picture" }, image, tiles);
    const place = make("div", { class: "place" });
    const figure = { node: make("figure", {}, view, place), view, image, tiles, place };
    view.onclick = () => this.enlarge(figure);
    return figure;
  }

  begin(number, size) {
    this.drawing = true;
    this.layout(number, size);
    this.previewed.clear();
    for (const { place } of this.figures) place.replaceChildren();
  }

  // Show a step: opaque tiles cover masked tokens, and tokens sampled since the last preview are tinted.
  async step(message, images) {
    if (!this.drawing || this.figures.length !== message.masks.length) this.begin(message.masks.length, message.size);
    for (const [i, row] of message.rows.entries()) {
      const figure = this.figures[row];
      const url = URL.createObjectURL(images[i]);
      if (!(await swapImage(figure, url))) continue;
      this.previewed.add(row);
      figure.seen = message.masks[row];
    }
    for (const [row, mask] of message.masks.entries()) {
      const figure = this.figures[row];
      if (figure && this.drawing) drawTiles(figure.tiles, message.grid, mask, this.previewed.has(row) ? figure.seen : null);
    }
  }

  async show(result) {
    this.result = result;
    this.drawing = false;
    this.layout(result.pictures.length, result.size);
    await Promise.all(result.pictures.map((picture, row) => this.showPicture(result, picture, row)));
  }

  async showPicture(result, picture, row) {
    const figure = this.figures[row];
    const painted = await swapImage(figure, picture.url);
    if (painted === null || this.result !== result || this.drawing) return;
    if (!painted || studio.deleted.includes(picture.id)) return this.showDeleted(figure);
    figure.image.alt = result.prompt;
    figure.image.dataset.seed = picture.seed;
    figure.tiles.width = figure.tiles.width; // clear
    figure.view.hidden = false;
    const replay = result.job ? [iconButton("replay", "Replay the drawing", () => this.onReplay(figure, result, row))] : [];
    figure.place.replaceChildren(...(result.draft ? [] : [pictureButtons(this.about(result, picture), replay)]));
  }

  about(result, picture) { return { ...picture, prompt: result.prompt }; }

  enlarge(figure) {
    if (!this.result) return;
    const pictures = this.result.pictures.map((picture) => this.about(this.result, picture));
    openViewer(this.root.getRootNode(), pictures, this.figures.indexOf(figure));
  }

  // Replace deleted pictures by a note, or show them again when the deletion is undone.
  mark(ids, deleted) {
    this.result?.pictures.forEach((picture, row) => {
      if (!ids.includes(picture.id) || !this.figures[row]) return;
      if (deleted) this.showDeleted(this.figures[row], make("button", { type: "button", onclick: () => studio.undo() }, "Undo"));
      else this.showPicture(this.result, picture, row);
    });
  }

  showDeleted(figure, ...buttons) {
    figure.view.hidden = true;
    const note = make("div", { class: "gone" }, make("span", {}, "Deleted"), ...buttons);
    note.style.aspectRatio = figure.view.style.aspectRatio;
    figure.place.replaceChildren(note);
  }
}

// `seen`: the mask at the last preview; null where no preview is shown.
function drawTiles(canvas, [rows, columns], mask, seen) {
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(columns, rows);
  for (let cell = 0; cell < rows * columns; cell++) {
    const masked = mask[cell] === "1";
    const fresh = !masked && (seen === null || seen[cell] === "1"); // sampled since the last preview
    if (!masked && !fresh) continue;
    const shade = (Math.floor(cell / columns) + (cell % columns)) % 2 ? 12 : 0;
    const [red, green, blue, alpha] = masked ? TILE.masked : TILE.sampled;
    pixels.data.set([red + shade, green + shade, blue + shade, masked ? alpha : seen === null ? 255 : alpha], 4 * cell);
  }
  pen.putImageData(pixels, 0, 0);
}
