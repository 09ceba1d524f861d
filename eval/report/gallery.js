"use strict";
// The gallery: one form sets what all cards show; every card has its own slider.

for (const root of document.querySelectorAll(".gallery")) gallery(root);

function gallery(root) {
  const form = root.querySelector("form");
  if (!form) return;
  const pictures = JSON.parse(root.querySelector("script.pictures").textContent);
  const grid = root.querySelector(".cards");
  const cards = [...grid.children];
  const arms = [...form.left.options].map((o) => o.value)
    .filter((v) => v !== "truth" && v !== "image");
  const first = { left: form.left.value, right: form.right.value };
  const points = new Intl.NumberFormat("en", {
    signDisplay: "exceptZero", minimumFractionDigits: 1, maximumFractionDigits: 1,
  });

  // Only what comes near the screen is decoded.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        entry.target.dataset.seen = "";
        paint(entry.target);
      }
    }
  }, { rootMargin: "400px" });

  for (const card of cards) {
    const slider = card.querySelector(".stage input");
    slider.addEventListener("input", () => cut(card));
    cut(card);
    seen.observe(card);
  }
  form.addEventListener("input", show);
  // A difference is seen whole at first, two layers half and half.
  form.view.addEventListener("input", () => {
    for (const card of cards) {
      card.querySelector(".stage input").value = form.view.value === "difference" ? 100 : 50;
      cut(card);
    }
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  show();

  function cut(card) {
    card.style.setProperty("--cut", `${card.querySelector(".stage input").value}%`);
  }

  function miou(card, arm) {
    const value = card.getAttribute(`data-miou-${arm}`);
    return value === null ? NaN : Number(value);
  }

  // The two arms that numbers are of: those shown, or the first pair where truth or image is shown.
  function pair() {
    const [left, right] = [form.left.value, form.right.value];
    const both = arms.includes(left) && arms.includes(right) && left !== right;
    return both ? { left, right } : first;
  }

  function gain(card, { left, right }) {
    return miou(card, right) - miou(card, left);
  }

  function harm(card) {
    return card.dataset.harm === "" ? NaN : Number(card.dataset.harm);
  }

  function show() {
    const { left, right } = pair();
    root.classList.toggle("zoomed", form.zoom.value === "window");
    root.classList.toggle("plain", !form.outline.checked);
    root.classList.toggle("differing", form.view.value === "difference");
    root.querySelector(".key").hidden = form.view.value !== "difference";
    root.style.setProperty("--opacity", form.opacity.value / 100);
    const keys = {
      gain: (card) => -gain(card, { left, right }),
      loss: (card) => gain(card, { left, right }),
      weak: (card) => miou(card, "unary"),
      strong: (card) => -miou(card, "unary"),
      harm: (card) => harm(card),
      name: () => 0,
    };
    const key = keys[form.sort.value];
    const number = (card) => { const k = key(card); return Number.isNaN(k) ? Infinity : k; };
    const compare = (a, b) => {
      const [x, y] = [number(a), number(b)];
      return x === y ? a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }) : x - y;
    };
    cards.sort(compare);
    if (cards.some((card, k) => grid.children[k] !== card)) grid.append(...cards);
    let shown = 0;
    for (const card of cards) {
      const wanted = form.class.value;
      card.hidden = wanted !== "" && !card.dataset.classes.split(" ").includes(wanted);
      shown += card.hidden ? 0 : 1;
      const g = 100 * gain(card, { left, right });
      card.querySelector(".gain").textContent = Number.isNaN(g)
        ? "" : `${right} − ${left}: ${points.format(g).replace("-", "−")} points`;
      if ("seen" in card.dataset) paint(card);
    }
    form.querySelector(".count").textContent = `${shown} of ${cards.length} images`;
  }

  function paint(card) {
    const { photo, layers } = pictures[card.dataset.name];
    const name = card.dataset.name;
    const [left, right] = [form.left.value, form.right.value];
    const image = card.querySelector(".photo");
    if (!image.src) image.src = photo;
    image.alt = `${name}: ${left} left of the slider, ${right} right of it`;
    for (const [side, layer] of [["left", left], ["right", right]]) {
      card.querySelector(`.tag.${side}`).textContent =
        layer in layers || layer === "image" ? layer : `${layer}: no file`;
      for (const kind of ["labels", "outline"]) {
        const element = card.querySelector(`.side.${side} .${kind}`);
        const source = layers[layer]?.[kind];
        element.hidden = source === undefined;
        if (source !== undefined && element.src !== source) element.src = source;
      }
    }
    const slider = card.querySelector(".stage input");
    slider.setAttribute("aria-label", `${name}: border between ${left} and ${right}`);
    if (form.view.value === "difference") stencils(card, layers, pair());
  }

  // Wrong in one of the two arms, and in both: the browser cuts the colours out.
  function stencils(card, layers, { left, right }) {
    const sources = [layers[left]?.wrong, layers[right]?.wrong];
    const known = sources.every((source) => source !== undefined);
    card.querySelector(".side.both").hidden = !known;
    if (!known) return;
    const [a, b] = sources.map((source) => `url("${source}")`);
    card.querySelector(".gained").style.maskImage = a;
    card.querySelector(".lost").style.maskImage = b;
    card.querySelector(".wrong").style.maskImage = `${a}, ${b}`;
    card.querySelector(".tag.left").textContent = `${left} → ${right}`;
    card.querySelector(".tag.right").textContent = "image";
  }
}
