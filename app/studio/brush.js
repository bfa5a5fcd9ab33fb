// A brush that snaps to token cells.
// data: image (PNG data URI), rows, columns. State: cells, the brushed ones, numbered line by line.

// root -> { cells, last, pointer, cursor }: the page may call anew in the middle of a stroke. last: where the stroke is, null
// between two; pointer: what draws it, a second finger does not; cursor: the cell where the keyboard is.
const brushed = new WeakMap();

export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".brush");
  const find = (name) => root.querySelector(name);
  const [stage, image, canvas] = [find(".stage"), find("img"), find("canvas")];
  const { rows, columns } = data;
  if (!brushed.has(root)) brushed.set(root, { cells: new Set(), last: null, pointer: null, cursor: 0 });
  const memory = brushed.get(root);
  const cells = memory.cells;
  const unit = 24; // canvas pixels a cell
  let under = null;

  function around(cell) {
    const size = Number(find(".size").value);
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const first = Math.floor((size - 1) / 2);
    const found = [];
    for (let y = row - first; y < row - first + size; y++)
      for (let x = column - first; x < column - first + size; x++)
        if (x >= 0 && x < columns && y >= 0 && y < rows) found.push(y * columns + x);
    return found;
  }

  function show() {
    canvas.width = columns * unit;
    canvas.height = rows * unit;
    const pen = canvas.getContext("2d");
    const accent = getComputedStyle(find(".size")).accentColor;
    pen.fillStyle = accent;
    pen.strokeStyle = accent;
    pen.globalAlpha = 0.62;
    for (const cell of cells) pen.fillRect((cell % columns) * unit, Math.floor(cell / columns) * unit, unit, unit);
    pen.globalAlpha = 1;
    pen.lineWidth = 2;
    if (under !== null)
      for (const cell of around(under))
        pen.strokeRect((cell % columns) * unit + 1, Math.floor(cell / columns) * unit + 1, unit - 2, unit - 2);
    find(".count").textContent = cells.size ? `${cells.size} of ${rows * columns} cells` : "nothing is brushed";
  }

  // Where the pointer is, in cells from the top left corner.
  function at(event) {
    const box = image.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * columns,
      y: ((event.clientY - box.top) / box.height) * rows,
    };
  }

  function cellAt({ x, y }) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return column >= 0 && column < columns && row >= 0 && row < rows ? row * columns + column : null;
  }

  // A fast pointer is seen at a few places only: the brush goes straight from each to the next, in steps of half a cell.
  function stroke(event) {
    const to = at(event);
    under = cellAt(to);
    if (memory.last) {
      const from = memory.last;
      const steps = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
      const erase = find(".erase").getAttribute("aria-pressed") === "true";
      for (let i = 0; i <= steps; i++) {
        const cell = cellAt({ x: from.x + ((to.x - from.x) * i) / steps, y: from.y + ((to.y - from.y) * i) / steps });
        if (cell === null) continue;
        for (const each of around(cell)) erase ? cells.delete(each) : cells.add(each);
      }
      memory.last = to;
    }
    show();
  }

  const tell = () => setStateValue("cells", [...cells].sort((a, b) => a - b));

  const others = (event) => memory.last && event.pointerId !== memory.pointer;
  stage.onpointerdown = (event) => {
    if (event.button || others(event)) return;
    [memory.last, memory.pointer] = [at(event), event.pointerId];
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    stroke(event);
  };
  stage.onpointermove = (event) => {
    if (!others(event)) stroke(event);
  };
  stage.onpointerup = stage.onpointercancel = (event) => {
    if (others(event)) return;
    if (memory.last) tell();
    memory.last = null;
  };
  stage.onpointerleave = () => {
    under = null;
    show();
  };
  // The keyboard: arrows go from cell to cell, the space bar brushes what the brush covers there, or lays it bare again.
  const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  stage.onkeydown = (event) => {
    const [row, column] = [Math.floor(memory.cursor / columns), memory.cursor % columns];
    if (event.key in ways) {
      const [down, right] = ways[event.key];
      const [y, x] = [Math.min(rows - 1, Math.max(0, row + down)), Math.min(columns - 1, Math.max(0, column + right))];
      memory.cursor = y * columns + x;
    } else if (event.key === " ") {
      const bare = cells.has(memory.cursor);
      for (const cell of around(memory.cursor)) bare ? cells.delete(cell) : cells.add(cell);
      tell();
    } else return;
    event.preventDefault();
    under = memory.cursor;
    show();
  };
  stage.onfocus = () => {
    if (memory.last) return;
    under = memory.cursor;
    show();
  };
  stage.onblur = stage.onpointerleave;
  find(".erase").onclick = ({ currentTarget }) => {
    currentTarget.setAttribute("aria-pressed", String(currentTarget.getAttribute("aria-pressed") !== "true"));
  };
  find(".invert").onclick = () => {
    for (let cell = 0; cell < rows * columns; cell++) cells.has(cell) ? cells.delete(cell) : cells.add(cell);
    show();
    tell();
  };
  find(".clear").onclick = () => {
    cells.clear();
    show();
    tell();
  };
  image.src = data.image;
  show();
}
