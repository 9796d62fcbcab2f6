"use strict";
// Turns the panels of each sample, which lie side by side without it, into two layers under a slider.
(() => {
  const gallery = document.getElementById("gallery");
  const controls = document.getElementById("gallery-controls");
  if (!gallery || !controls) return;
  const [pick, left, right, strength] = ["sample", "left", "right", "strength"].map((name) =>
    document.getElementById(`pick-${name}`),
  );
  const samples = [...gallery.querySelectorAll(".sample")];

  const made = (tag, attributes, parent) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    parent.append(node);
    return node;
  };

  const below = made("div", { class: "below" }, controls);
  controls.after(below);
  const label = made("label", { for: "pick-split", class: "split-label" }, below);
  label.textContent = "Where left and right meet";
  const split = made("input", { type: "range", id: "pick-split", class: "stage-range", min: 0, max: 100, value: 50 }, below);

  const stages = samples.map((sample) => {
    const panels = sample.querySelector(".panels");
    made("div", { class: "handle", "aria-hidden": "true" }, panels);
    return {
      panels,
      tags: ["left", "right"].map((side) => made("span", { class: `tag of-${side}`, "aria-hidden": "true" }, panels)),
      figures: [...panels.querySelectorAll("figure")],
    };
  });

  const captionOf = (select) => select.selectedOptions[0].textContent;

  const show = () => {
    const current = Number(pick.value);
    samples.forEach((sample, number) => sample.classList.toggle("current", number === current));
    const { panels, tags, figures } = stages[current];
    for (const figure of figures) {
      figure.classList.toggle("left", figure.dataset.layer === left.value);
      figure.classList.toggle("right", figure.dataset.layer === right.value);
    }
    panels.style.setProperty("--split", `${split.value}%`);
    panels.style.setProperty("--strength", String(strength.value / 100));
    tags[0].textContent = captionOf(left);
    tags[1].textContent = captionOf(right);
    split.setAttribute("aria-valuetext", `${split.value} % ${captionOf(left)}, the rest ${captionOf(right)}`);
    // moving it takes the focus away: only when the sample is another one
    if (samples[current].nextElementSibling !== below) samples[current].after(below);
  };

  const step = (by) => {
    pick.value = String((Number(pick.value) + by + samples.length) % samples.length);
    show();
  };

  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons === 0) return;
    const box = event.currentTarget.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    split.value = String(Math.round(100 * Math.min(Math.max(part, 0), 1)));
    show();
  };

  for (const { panels } of stages) {
    panels.addEventListener("pointerdown", drag);
    panels.addEventListener("pointermove", drag);
  }
  for (const control of [pick, left, right, strength, split]) control.addEventListener("input", show);
  document.getElementById("pick-previous").addEventListener("click", () => step(-1));
  document.getElementById("pick-next").addEventListener("click", () => step(1));
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  gallery.classList.add("live");
  show();
})();
