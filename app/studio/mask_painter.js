// A mask over a picture: brush and eraser with size and softness, lasso, invert, clear, and undo of each stroke.
// The mask is a canvas of the picture's size, at most MASK_SIDE pixels a side. Its alpha channel is the mask.

const MASK_SIDE = 768;

class MaskPainter {
  constructor(stage, { onChange }) {
    this.stage = stage;
    this.onChange = onChange;
    this.mask = make("canvas", { class: "mask" });
    this.cursor = make("div", { class: "cursor", hidden: true });
    this.pen = this.mask.getContext("2d", { willReadFrequently: true });
    this.tool = "brush";
    this.size = 48; // of the brush, in pixels of the screen
    this.softness = 0.3;
    this.strokes = []; // masks before each stroke
    this.undone = [];
    this.pointer = null;
    this.at = { x: 0.5, y: 0.5 }; // position of the brush that the keyboard moves, as shares of the picture
    stage.append(this.mask, this.cursor);
    stage.onpointerdown = (event) => this.down(event);
    stage.onpointermove = (event) => this.move(event);
    stage.onpointerup = stage.onpointercancel = (event) => this.up(event);
    stage.onpointerleave = () => { this.cursor.hidden = true; };
    stage.onkeydown = (event) => this.key(event);
  }

  // Start an empty mask for a picture of this size.
  reset(width, height) {
    const scale = Math.min(1, MASK_SIDE / Math.max(width, height));
    this.mask.width = Math.max(1, Math.round(width * scale));
    this.mask.height = Math.max(1, Math.round(height * scale));
    this.strokes = [];
    this.undone = [];
    this.onChange();
  }

  // The share of the mask that is painted, from 0 to 1.
  get share() {
    const { data } = this.pen.getImageData(0, 0, this.mask.width, this.mask.height);
    let painted = 0;
    for (let i = 3; i < data.length; i += 4) painted += data[i] > 24;
    return painted / (data.length / 4);
  }

  // [width, height] of the box around what is painted, as shares of the picture.
  get extent() {
    const { width, height } = this.mask;
    const { data } = this.pen.getImageData(0, 0, width, height);
    let [left, right, top, bottom] = [width, 0, height, 0];
    for (let i = 3; i < data.length; i += 4) {
      if (data[i] <= 24) continue;
      const x = ((i - 3) / 4) % width, y = Math.floor((i - 3) / 4 / width);
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x + 1), Math.min(top, y), Math.max(bottom, y + 1)];
    }
    return [Math.max(0, right - left) / width, Math.max(0, bottom - top) / height];
  }

  remember() {
    this.strokes.push(this.pen.getImageData(0, 0, this.mask.width, this.mask.height));
    if (this.strokes.length > 30) this.strokes.shift();
    this.undone = [];
  }

  undo() { this.step(this.strokes, this.undone); }

  redo() { this.step(this.undone, this.strokes); }

  step(from, to) {
    const before = from.pop();
    if (!before) return;
    to.push(this.pen.getImageData(0, 0, this.mask.width, this.mask.height));
    this.pen.putImageData(before, 0, 0);
    this.onChange();
  }

  place(event) {
    const box = this.mask.getBoundingClientRect();
    this.scale = this.mask.width / box.width;
    return { x: (event.clientX - box.left) * this.scale, y: (event.clientY - box.top) * this.scale };
  }

  down(event) {
    if (event.button || this.pointer !== null) return;
    this.pointer = event.pointerId;
    this.stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.remember();
    this.last = this.place(event);
    this.path = [this.last];
    if (this.tool !== "lasso") this.line(this.last, this.last);
  }

  move(event) {
    this.follow(event);
    if (event.pointerId !== this.pointer) return;
    const to = this.place(event);
    if (this.tool === "lasso") {
      this.path.push(to);
      this.pen.putImageData(this.strokes.at(-1), 0, 0);
      this.outline();
    } else this.line(this.last, to);
    this.last = to;
  }

  up(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    if (this.tool === "lasso") {
      this.pen.putImageData(this.strokes.at(-1), 0, 0);
      this.pen.globalCompositeOperation = "source-over";
      this.pen.fillStyle = MaskPainter.color(1);
      this.pen.beginPath();
      for (const { x, y } of this.path) this.pen.lineTo(x, y);
      this.pen.fill();
    }
    this.onChange();
  }

  static color(alpha) { return `rgb(226 74 51 / ${alpha})`; }

  outline() {
    this.pen.globalCompositeOperation = "source-over";
    this.pen.strokeStyle = MaskPainter.color(1);
    this.pen.lineWidth = 2;
    this.pen.beginPath();
    for (const { x, y } of this.path) this.pen.lineTo(x, y);
    this.pen.stroke();
  }

  // Paint discs from one position to another, close enough to look like a line.
  line(from, to) {
    const radius = Math.max(1, (this.size * this.scale) / 2);
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / (radius / 4)));
    this.pen.globalCompositeOperation = this.tool === "erase" ? "destination-out" : "source-over";
    for (let i = 0; i <= steps; i++) this.disc(from.x + ((to.x - from.x) * i) / steps, from.y + ((to.y - from.y) * i) / steps, radius);
  }

  disc(x, y, radius) {
    const fill = this.pen.createRadialGradient(x, y, radius * (1 - this.softness), x, y, radius);
    fill.addColorStop(0, MaskPainter.color(1));
    fill.addColorStop(1, MaskPainter.color(this.softness ? 0 : 1));
    this.pen.fillStyle = fill;
    this.pen.beginPath();
    this.pen.arc(x, y, radius, 0, 2 * Math.PI);
    this.pen.fill();
  }

  follow(event) {
    const box = this.stage.getBoundingClientRect();
    this.cursor.hidden = this.tool === "lasso" || event.pointerType === "touch";
    Object.assign(this.cursor.style, { width: `${this.size}px`, height: `${this.size}px`, left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
  }

  // The arrow keys move the brush and the space bar paints.
  key(event) {
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const box = this.mask.getBoundingClientRect();
    this.scale = this.mask.width / box.width;
    if (event.key in directions) {
      const [x, y] = directions[event.key];
      this.at = { x: Math.min(1, Math.max(0, this.at.x + x * 0.05)), y: Math.min(1, Math.max(0, this.at.y + y * 0.05)) };
    } else if (event.key === " ") {
      this.remember();
      const point = { x: this.at.x * this.mask.width, y: this.at.y * this.mask.height };
      this.line(point, point);
      this.onChange();
    } else return;
    event.preventDefault();
    this.follow({ clientX: box.left + this.at.x * box.width, clientY: box.top + this.at.y * box.height });
  }

  invert() {
    this.remember();
    const pixels = this.pen.getImageData(0, 0, this.mask.width, this.mask.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([226, 74, 51, 255 - pixels.data[i + 3]], i);
    this.pen.putImageData(pixels, 0, 0);
    this.onChange();
  }

  clear() {
    this.remember();
    this.pen.clearRect(0, 0, this.mask.width, this.mask.height);
    this.onChange();
  }
}
