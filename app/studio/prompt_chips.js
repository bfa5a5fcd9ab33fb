// Chips under a prompt: what became of each of its words, why, and which words may be used instead.
// reading: {spans: [{text, status, by, why, instead}], drawn, refused}. onPrompt is called with the prompt in which one word
// was replaced. unfinished: the last word may still be incomplete, so that it is not reported as unknown.

const CHIP_SIGNS = { drawn: "", replaced: "→", left_out: "×", avoided: "−" };
const CHIP_STATES = { drawn: "drawn as said", replaced: "replaced", left_out: "left out", avoided: "left out, as asked" };

function promptChips({ spans, drawn, refused }, onPrompt, unfinished = false) {
  if (unfinished) refused = "";
  const row = make("div", { class: "chips", role: "group", "aria-label": "How the prompt is read" });
  const detail = make("div", { class: "quiet chip-detail", role: "status" });
  spans.forEach((span, index) => {
    if (span.status === "language" || !span.text.trim()) return;
    if (unfinished && index === spans.length - 1 && span.status === "left_out") return;
    const explanation = span.why || CHIP_STATES[span.status];
    const label = span.by ? `${span.text} → ${span.by}` : `${CHIP_SIGNS[span.status]} ${span.text}`.trim();
    const chip = make("button", { type: "button", class: `chip ${span.status}`, title: explanation }, label);
    chip.onclick = () => detail.replaceChildren(...chipDetail(spans, index, explanation, onPrompt));
    row.append(chip);
  });
  if (!row.childElementCount && !refused) return [];
  const exact = spans.every(({ status }) => status !== "replaced" && status !== "left_out");
  const line = refused || (exact ? "" : `Drawn: “${drawn}”`);
  return [row, ...(line ? [make("div", { class: "quiet" }, line)] : []), detail];
}

// The reason why a word is not drawn as said, and buttons with words that the model can draw instead.
function chipDetail(spans, index, explanation, onPrompt) {
  const { text, instead } = spans[index];
  const article = /^(an?|the)\s/i.test(text);
  const buttons = instead.map((name) => {
    const phrase = article ? `${/^[aeio]/.test(name) ? "an" : "a"} ${name}` : name;
    const button = make("button", { type: "button", class: "chip instead" }, phrase);
    button.onclick = () => onPrompt(spans.map((span, i) => (i === index ? phrase : span.text)).join(""));
    return button;
  });
  const offer = buttons.length ? [" Instead: ", ...buttons] : [];
  return [`“${text}”: ${explanation}.`, ...offer];
}
