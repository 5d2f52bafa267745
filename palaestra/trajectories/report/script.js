"use strict";
// Tooltips: whatever has data-tip shows it beside the pointer, as text.
const tip = document.getElementById("tip");

function place(event) {
  const gap = 14;
  const box = tip.getBoundingClientRect();
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

document.addEventListener("pointerover", (event) => {
  const owner = event.target.closest("[data-tip]");
  tip.hidden = !owner;
  if (owner) {
    tip.textContent = owner.dataset.tip;
    place(event);
  }
});
document.addEventListener("pointermove", (event) => {
  if (!tip.hidden) place(event);
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });

// Episodes: two filters, a list of buttons, one article at a time.
const entries = [...document.querySelectorAll("#entries li")];

function show(button) {
  for (const article of document.querySelectorAll(".episode")) article.hidden = article.id !== button.dataset.show;
  for (const entry of entries) entry.firstChild.setAttribute("aria-pressed", String(entry.firstChild === button));
}

function filter() {
  const source = document.getElementById("by-source").value;
  const outcome = document.getElementById("by-outcome").value;
  for (const entry of entries) {
    entry.hidden = Boolean((source && entry.dataset.source !== source) || (outcome && entry.dataset.outcome !== outcome));
  }
  const visible = entries.filter((entry) => !entry.hidden);
  const pressed = visible.some((entry) => entry.firstChild.getAttribute("aria-pressed") === "true");
  if (visible.length && !pressed) show(visible[0].firstChild);
}

for (const entry of entries) entry.firstChild.addEventListener("click", () => show(entry.firstChild));
for (const name of ["by-source", "by-outcome"]) document.getElementById(name)?.addEventListener("change", filter);
document.getElementById("entries")?.addEventListener("keydown", (event) => {
  const visible = entries.filter((entry) => !entry.hidden);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const next = visible[visible.findIndex((entry) => entry.firstChild === document.activeElement) + step];
  if (!step || !next) return;
  event.preventDefault();
  next.firstChild.focus();
  show(next.firstChild);
});
