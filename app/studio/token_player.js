// The token player: the steps of a drawing, and over them the step at which each token was sampled, or its probability.
// showTokenPlayer returns a function that stops it.
// data: prompt, frames (PNG data URIs), steps (the number of each frame's step, from 1; some steps may be left out), rows,
// columns, revealed (the step of each token, from 0; -1 for a given token), confidence (the log-probability of each token;
// null where it is not known, as for vectors).

const STOPS = [[48, 18, 92], [125, 34, 122], [200, 69, 43], [242, 176, 74], [250, 240, 190]]; // dark to light

function shadeOf(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * (STOPS.length - 1);
  const low = Math.floor(place);
  const mixed = STOPS[low].map((value, i) => value + (STOPS[low + 1][i] - value) * (place - low));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
}

function showTokenPlayer({ parentElement, data }) {
  const find = (name) => parentElement.querySelector(name);
  const [picture, canvas, step, count] = [find("img"), find("canvas"), find(".step"), find(".count")];
  const { frames, steps, rows, columns, revealed, confidence } = data;
  const sure = confidence?.map(Math.exp);
  let timer = null;

  const views = {
    picture: null,
    when: { value: (cell) => 1 - revealed[cell] / Math.max(1, steps.at(-1) - 1), ends: ["last", "first"] },
    sure: { value: (cell) => sure[cell], ends: ["unsure", "sure"] },
  };
  const view = () => views[find("input[name=view]:checked").value];

  function show() {
    const now = steps[step.value - 1];
    picture.src = frames[step.value - 1];
    count.textContent = `${now} of ${steps.at(-1)}`;
    canvas.width = columns;
    canvas.height = rows;
    const chosen = view();
    const legend = find(".legend");
    legend.hidden = !chosen;
    if (!chosen) return;
    const brush = canvas.getContext("2d");
    brush.globalAlpha = 0.8;
    for (let cell = 0; cell < rows * columns; cell++) {
      if (revealed[cell] < 0 || revealed[cell] >= now) continue; // given, or not sampled yet
      brush.fillStyle = shadeOf(chosen.value(cell));
      brush.fillRect(cell % columns, Math.floor(cell / columns), 1, 1);
    }
    [legend.firstElementChild.textContent, legend.lastElementChild.textContent] = chosen.ends;
    find(".legend b").style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(shadeOf).join(", ")})`;
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    find(".play").textContent = "▶";
    find(".play").ariaLabel = "Play";
  }

  function play() {
    if (timer) return pause();
    if (step.value === step.max) step.value = 1;
    find(".play").textContent = "❚❚";
    find(".play").ariaLabel = "Pause";
    show();
    timer = setInterval(() => {
      step.value = Number(step.value) + 1;
      show();
      if (step.value === step.max) pause();
    }, Math.max(120, 2400 / frames.length));
  }

  // Describe the cell under the pointer.
  find(".stage").onpointermove = (event) => {
    const box = picture.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const cell = row * columns + column;
    const inside = column >= 0 && column < columns && row >= 0 && row < rows;
    const decided = () => `step ${revealed[cell] + 1}${sure ? `, ${Math.round(100 * sure[cell])}% sure` : ""}`;
    find(".cell").textContent = !inside ? "" : revealed[cell] < 0 ? "given" : decided();
  };
  find(".stage").onpointerleave = () => { find(".cell").textContent = ""; };
  find(".play").onclick = play;
  find("input[value=sure]").parentElement.hidden = !sure;
  picture.alt = data.prompt;
  step.max = frames.length;
  step.value = frames.length;
  step.oninput = () => { pause(); show(); };
  parentElement.querySelectorAll("input[name=view]").forEach((choice) => { choice.onchange = show; });
  show();
  return pause;
}
