"use strict";
// The gallery: one form sets what all cards show; every card has its own slider.

for (const gallery of document.querySelectorAll(".gallery")) {
  const form = gallery.querySelector("form");
  const grid = gallery.querySelector(".cards");
  const images = JSON.parse(gallery.querySelector(".cards-data").textContent);
  const cards = [...grid.children];
  const points = new Intl.NumberFormat("en", {
    signDisplay: "exceptZero", minimumFractionDigits: 1, maximumFractionDigits: 1,
  });

  for (const card of cards) {
    const slider = card.querySelector("input");
    const cut = () => card.style.setProperty("--cut", `${slider.value}%`);
    slider.addEventListener("input", cut);
    cut();
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();

  function show() {
    const sides = { left: form.left.value, right: form.right.value };
    // Gains are of the arms that are shown, or of the first pair where truth or image is shown.
    const arms = Object.values(sides).filter((layer) => !["truth", "image"].includes(layer));
    const [before, after] = arms.length === 2 ? arms : [form.dataset.left, form.dataset.right];
    const gain = ({ miou }) => miou[after] - miou[before];
    const orders = {
      gain: (image) => -gain(image),
      loss: gain,
      weak: ({ miou }) => miou.unary,
      harm: (image) => image.crf_gain,
      name: () => 0,
    };
    const place = ({ dataset: { name } }) => {
      const number = orders[form.sort.value](images[name]);
      return Number.isFinite(number) ? number : 1e9;
    };
    cards.sort((a, b) => place(a) - place(b)
      || a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }));
    grid.append(...cards);
    let shown = 0;
    for (const card of cards) {
      const image = images[card.dataset.name];
      card.hidden = form.class.value !== "" && !image.classes.includes(Number(form.class.value));
      shown += card.hidden ? 0 : 1;
      const change = 100 * gain(image);
      card.querySelector(".gain").textContent = Number.isNaN(change)
        ? "" : `${after} − ${before}: ${points.format(change).replace("-", "−")} points`;
      for (const [side, layer] of Object.entries(sides)) {
        const picture = card.querySelector(`.layer.${side}`);
        picture.hidden = !(layer in image.layers);
        if (!picture.hidden) picture.src = image.layers[layer];
        card.querySelector(`.tag.${side}`).textContent =
          picture.hidden && layer !== "image" ? `${layer}: no file` : layer;
      }
    }
    form.querySelector(".count").textContent = `${shown} of ${cards.length} images`;
  }
}
