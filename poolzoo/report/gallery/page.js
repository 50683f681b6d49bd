"use strict";
// Shows the cards that fit what is searched for and chosen, and how many they are.

document.documentElement.classList.add("live");
const [search, kind, property, shown] = ["search", "kind", "property", "shown"].map(id => document.getElementById(id));
const cards = [...document.querySelectorAll("article")].map(card => ({
  card,
  words: [card.querySelector("h3"), ...card.querySelectorAll(".searched")].map(part => part.textContent).join(" ").toLowerCase(),
  has: card.dataset.has.split(" "),
}));

function choose() {
  const wanted = search.value.toLowerCase().split(/\s+/);
  for (const {card, words, has} of cards)
    card.hidden = !(wanted.every(word => words.includes(word))
      && (!kind.value || card.dataset.kind === kind.value)
      && (!property.value || has.includes(property.value)));
  const left = cards.filter(({card}) => !card.hidden).length;
  for (const section of document.querySelectorAll("section"))
    section.hidden = !section.querySelector("article:not([hidden])");
  shown.value = `${left} of ${cards.length}`;
  document.getElementById("none").hidden = left > 0;
}

const form = document.querySelector("form");
form.addEventListener("input", choose);
form.addEventListener("submit", event => event.preventDefault());
choose(); // a browser may have kept what was typed before
